"""What a person sees in the terminal: log lines and tables."""

import logging
import math
import sys
from typing import Any, TextIO

from rich import box, console
from rich.table import Table
from rich.text import Text


class Console(logging.StreamHandler):
    """Writes to what stdout is at the moment: a live progress bar replaces it and prints lines above itself."""

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows that share their keys: words to the left, numbers to the right, a dash for what is missing."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        words = any(isinstance(row[column], str) for row in rows)
        table.add_column(Text(column), justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))
    # a file or a pipe has no width: let no column be cut there
    console.Console(width=None if sys.stdout.isatty() else 200).print(table)


def cell(value: Any) -> str:
    """Four decimals for a float, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
