"""Runs from a table that any program can write: `results.csv`, one row per run, or one row per run and epoch.

    optimizer,lr,seed,epoch,val_accuracy,test_accuracy
    adam,0.001,0,1,0.412,
    adam,0.001,0,2,0.487,0.481

`seed` is needed. `epoch`, `step` and `seconds` make curves; `status` says how a run ended. A metric has a name that
`foreign.metric_key` knows. Every other column is a factor: what may differ between configurations.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.comparison.foreign import (
    PROGRESS,
    ForeignRun,
    Row,
    check_known,
    in_per_cent,
    listed,
    metric_key,
    record_of,
    setting_of,
)
from optbench.records import metrics
from optbench.records.record import STATUSES
from optbench.records.wording import joined, near, plural, some

RESERVED = ("seed", *PROGRESS, "status")
NOT_FINITE = ("nan", "inf", "+inf", "-inf", "infinity", "-infinity")
MOST_LISTED = 12  # columns named in a sentence


@dataclass(frozen=True)
class Cells:
    """A table of text. `lines`: where in the file each row begins."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int, column: str = "") -> str:
        """`results.csv, line 3, column lr`."""
        return f"{self.path}, line {self.lines[row]}" + (f", column {column}" if column else "")


def read_table(path: Path, metric: str) -> tuple[list[ForeignRun], str]:
    """The runs of a table, in its order, and a sentence that says how it was read.

    Raises:
        ValueError: with the line and the column, where the table does not say which runs there were.
    """
    table = read_cells(path)
    # what each column is: one of RESERVED, a metric's key, '' where it is not read, None for a factor
    kinds = {name: name.lower() if name.lower() in RESERVED else metric_key(name) for name in table.columns}
    check_columns(table, kinds)
    known = {key: name for name, key in kinds.items() if key in RESERVED}
    measured = {name: key for name, key in kinds.items() if key and key not in RESERVED}
    factors = [name for name, key in kinds.items() if key is None]
    if metric in measured.values():
        check_known(metric, str(path))

    values = {key: numbers(table, name, key) for name, key in measured.items()}
    per_cent = in_per_cent({key: column.tolist() for key, column in values.items()})
    values |= {key: values[key] / 100 for key in per_cent}
    progress = {key: numbers(table, known[key], key) for key in PROGRESS if key in known}
    seeds = whole_numbers(table, known["seed"])
    settings = {name: settings_of(table.columns[name]) for name in factors}
    groups = rows_of_runs(table, settings, seeds, progress)
    cells = pd.DataFrame({**progress, **values}).to_dict("records")

    runs = []
    for rows in groups:
        own: list[Row] = [{str(key): x for key, x in cells[row].items() if not math.isnan(x)} for row in rows]
        for epoch, point in enumerate(own if progress else [], 1):
            point.setdefault("epoch", float(epoch))
        first, last = rows[0], rows[-1]
        record = record_of(
            str(path),
            {name: column[first] for name, column in settings.items() if column[first] is not None},
            seeds[first],
            own,
            metric,
            status=status_of(table, known.get("status"), last, list(measured)),
        )
        runs.append(ForeignRun(Path(f"{path}:{table.lines[min(rows)]}"), record, own if progress else []))

    counted = f"{plural(len(table.lines), 'row')} {'is' if len(table.lines) == 1 else 'are'} {plural(len(runs), 'run')}"
    said = [
        f"{path.name}: {counted}.",
        f"Factors: {some(factors, MOST_LISTED) or 'none'}.",
        f"Metrics: {listed(measured, per_cent)}.",
    ]
    if progress:
        epochs = "" if "epoch" in progress else "; its epochs are counted by rows"
        said.append(f"The rows of a run are its curve, by {joined(list(progress))}{epochs}.")
    unique = [name for name in factors if len({settings[name][rows[0]] for rows in groups}) == len(groups)]
    if unique and len(set(seeds)) > 1:
        said.append(
            f"No two runs share a value of {joined(unique)}: if it was measured and not chosen, leave it out, or say "
            "with by= what is compared."
        )
    if unread := [name for name, key in kinds.items() if key == ""]:
        said.append(f"Not read: {some(unread, MOST_LISTED)}.")
    return runs, " ".join(said)


def read_cells(path: Path) -> Cells:
    """A file of comma-separated values as text, each row with as many cells as the first line.

    Raises:
        ValueError: for a file that cannot be read, or is no such table.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}). Save it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    end = 0
    try:
        for row in reader:
            begin, end = end + 1, reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [name.strip() for name in row]
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {begin}: {plural(len(row), 'cell')}, and the first line has {len(header)}. A cell "
                    'with a comma in it needs quotes: "a, b".'
                )
            rows.append(row)
            lines.append(begin)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    check_header(path, header)
    if not rows:
        raise ValueError(f"{path} has no row below its first line. Write one row for each run.")
    columns = {
        name: [cell.strip() for cell in column] for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }
    return Cells(path, columns, lines)


def check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise ValueError(f"{path} is empty. Its first line must name the columns, for example optimizer,seed,accuracy.")
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise ValueError(
                f"{path}, line 1: the cells are separated by {word}. Separate them by commas and write decimal points "
                "(0.85): in pandas table.to_csv(path,index=False), in a spreadsheet 'CSV UTF-8 (comma delimited)'."
            )
    if "" in header:
        raise ValueError(
            f"{path}, line 1: column {header.index('') + 1} has no name. If pandas wrote its index there: "
            "table.to_csv(path,index=False)."
        )
    if twice := [name for k, name in enumerate(header) if name in header[:k]]:
        raise ValueError(f"{path}, line 1: there are two columns {twice[0]}.")


def check_columns(table: Cells, kinds: dict[str, str | None]) -> None:
    """Raises ValueError for a table whose columns do not say what they are, or which lacks a seed or a metric."""
    there = f"Line 1 has {some(list(kinds), MOST_LISTED)}."
    for name, key in kinds.items():
        if twice := [other for other in kinds if key and kinds[other] == key and other != name]:
            raise ValueError(
                f"{table.path}, line 1: columns {name} and {twice[0]} both are {key}. Leave one of them out, or "
                "rename it."
            )
    if "seed" not in kinds.values():
        like = next((name for name in kinds if "seed" in name.lower()), None)
        rename = f" Rename {like} to seed, if that is it." if like else ""
        raise ValueError(
            f"{table.path} has no column seed. {there}{rename} Seeds are the samples of a comparison: add the random "
            "seed of each run. If runs had none, number the runs of each configuration 0, 1, 2, …"
        )
    if not any(key for key in kinds.values() if key not in RESERVED):
        raise ValueError(
            f"{table.path} has no metric. {there} A metric is a column such as test/accuracy, val_loss or accuracy; "
            f"names that are known: {', '.join(metrics.KNOWN)}{near(next(iter(kinds)), metrics.KNOWN).rstrip('.')}."
        )


def numbers(table: Cells, name: str, key: str) -> pd.Series:
    """A column as numbers, nan where a cell is empty.

    Raises:
        ValueError: for text, or a fraction that is none.
    """
    cells = pd.Series(table.columns[name], dtype=object)
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    text = values.isna() & (cells != "") & ~cells.str.lower().isin(NOT_FINITE)
    if text.any():
        row = int(text.idxmax())
        comma = re.fullmatch(r"[+-]?\d+,\d+", cells[row])
        advice = f"Write {cells[row].replace(',', '.')} (a decimal point)" if comma else "Write a number, or nothing"
        raise ValueError(f"{table.where(row, name)}: {cells[row]!r:.60} is no number. {advice}.")
    values = values.where(values.abs() < math.inf)
    known = metrics.name_of(key) in metrics.KNOWN and metrics.metric(key).is_fraction
    wrong = (values < 0) | (values > 100) if known else (values < 0) & (key in PROGRESS)
    if wrong.any():
        row = int(wrong.idxmax())
        kind = "a fraction (0 to 1) or per cent (0 to 100)" if known else "0 or more"
        raise ValueError(f"{table.where(row, name)}: {cells[row]} must be {kind}.")
    return values


def whole_numbers(table: Cells, name: str) -> list[int]:
    found = []
    for row, cell in enumerate(table.columns[name]):
        value = setting_of(cell)
        if not isinstance(value, int | float) or value != int(value) or abs(value) >= 2**63:
            raise ValueError(f"{table.where(row, name)}: {cell!r:.60} must be a whole number.")
        found.append(int(value))
    return found


def settings_of(cells: Sequence[str]) -> list[Any]:
    """A factor's values: numbers where all are numbers, else words. An empty cell is None: there is no such setting."""
    parsed = {cell: setting_of(cell) for cell in dict.fromkeys(cells)}
    if any(isinstance(value, str) for value in parsed.values()):
        parsed = {cell: cell or None for cell in parsed}
    return [parsed[cell] for cell in cells]


def rows_of_runs(
    table: Cells, settings: dict[str, list[Any]], seeds: list[int], progress: dict[str, pd.Series]
) -> list[list[int]]:
    """The rows of each run: those with the same factors and seed, in the order of its epochs.

    Raises:
        ValueError: for two rows that say the same moment of the same run.
    """
    clock = next(iter(progress), None)
    if clock is not None and (empty := progress[clock].isna()).any():
        raise ValueError(f"{table.where(int(empty.idxmax()), clock)}: it is empty, and says when the row was measured.")
    moments = progress[clock].tolist() if clock else [0.0] * len(seeds)
    groups: dict[tuple[Any, ...], dict[float, int]] = {}
    for row, key in enumerate(zip(*settings.values(), seeds, strict=True)):
        group = groups.setdefault(key, {})
        if moments[row] in group:
            both = ", ".join(
                f"{name}={value}" for name, value in zip((*settings, "seed"), key, strict=True) if value is not None
            )
            at = f", {clock} {moments[row]:g}" if clock else ""
            advice = "" if clock else " For curves, add a column epoch, step or seconds."
            raise ValueError(
                f"{table.path}: line {table.lines[group[moments[row]]]} and line {table.lines[row]} are the same run "
                f"({both}{at}). Give runs that were repeated seeds of their own.{advice}"
            )
        group[moments[row]] = row
    return [[group[moment] for moment in sorted(group)] for group in groups.values()]


def status_of(table: Cells, column: str | None, row: int, measured: Sequence[str]) -> str:
    """As the table says; without a word, a run whose last row has nan or an infinite number diverged."""
    said = table.columns[column][row].lower() if column else ""
    if said and said not in STATUSES:
        raise ValueError(f"{table.where(row, column or '')}: {said!r:.60} must be one of {', '.join(STATUSES)}.")
    diverged = any(table.columns[name][row].lower() in NOT_FINITE for name in measured)
    return said or ("diverged" if diverged else "completed")
