"""What a comparison writes: the page, the tables to paste, the figures for a paper, and a table in the terminal."""

import logging
import shlex
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from secrets import token_hex

from optbench.commands.terminal import show
from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.report import figures, page, tables
from optbench.records import metrics
from optbench.records.files import PROJECT, write_atomically

FOLDER = "comparison"
MOST_SKIPPED = 5  # folders named in the terminal


def compare_runs(
    runs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str = "test/accuracy",
    target: float | Sequence[float] | None = None,
    pairs: str | None = None,
    margin: float | None = None,
    gap: float | None = None,
    output: str | None = None,
) -> Path:
    """Compare finished runs, write `comparison/` and print the answer; returns the folder.

    Raises:
        ValueError: for an argument that is not allowed, or runs that are not there.
    """
    sources = [runs] if isinstance(runs, str) else [str(source) for source in runs]
    keys = [] if by is None else [by] if isinstance(by, str) else list(by)
    targets = check_targets(target, metric)
    comparison = compare(
        sources, keys, None if baseline is None else str(baseline), str(metric), targets, pairs, margin, gap
    )
    another = set(comparison.facts.by) != set(comparison.facts.factors.independent)
    folder = Path(output).expanduser() if output else place(sources, another)
    tell(comparison)  # first: no full disk takes the answer with it
    try:
        write(comparison, folder)
    except OSError as error:
        raise ValueError(
            f"output={folder} cannot be written: {error.strerror or error}. output=<folder> chooses another."
        ) from error
    print(f"Report: {folder / 'report.html'}")
    return folder


def check_targets(target: float | Sequence[float] | None, metric: str) -> list[float]:
    """The targets, ascending.

    Raises:
        ValueError: for what is no level of the validation metric.
    """
    if target is None:
        return []
    targets = list(target) if isinstance(target, Sequence) and not isinstance(target, str) else [target]
    fraction = metrics.metric(metric).is_fraction
    example = (
        "a fraction between 0 and 1, for example target=0.5 or target=[0.4,0.5]" if fraction else "a number above 0"
    )
    for value in targets:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value > 0 or (fraction and value >= 1):
            raise ValueError(f"target={value} must be {example}: the level of validation at which time is taken.")
    return sorted(targets)


def place(sources: Sequence[str], another: bool) -> Path:
    """A sweep's own folder; a new one below logs/comparison/ where runs come from several places.

    Also where something else is compared than the sweep varied: its own comparison must not be lost.
    """
    first = Path(sources[0]).expanduser()
    if not another and len(sources) == 1 and first.is_dir() and not (first / "summary.json").exists():
        return first / FOLDER
    return PROJECT / "logs" / FOLDER / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{token_hex(3)}"


def write(comparison: Comparison, folder: Path) -> None:
    """The tables first: a page or a figure that can't be drawn must not take the numbers with it."""
    folder.mkdir(parents=True, exist_ok=True)
    tables.summary_csv(comparison.facts, folder / "summary.csv")
    tables.statistics_csv(comparison.judgement, folder / "statistics.csv")
    write_atomically(folder / "report.md", tables.markdown(comparison))
    write_atomically(folder / "table.tex", tables.latex(comparison))
    write_atomically(folder / "report.html", page.render(comparison))
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # tells of every table of every font it embeds
    figures.save(comparison, folder)


def tell(comparison: Comparison) -> None:
    """The answer and the ranking in the terminal."""
    facts, words = comparison.facts, comparison.words
    more = (
        [f"Left out: {len(words.skipped) - MOST_SKIPPED} more folders; report.md names them."]
        if len(words.skipped) > MOST_SKIPPED
        else []
    )
    for sentence in [*facts.readings, *words.skipped[:MOST_SKIPPED], *more, *words.violations]:
        print(sentence)
    rows = tables.terminal(comparison)
    if rows:
        show(f"{facts.metric} by {', '.join(facts.by) or 'seed'}", rows)
    print(textwrap.fill(" ".join(words.answer), 100, break_long_words=False, break_on_hyphens=False))
    if len(facts.sources) == 1 and Path(facts.sources[0]).is_dir():
        print(f"\nCurves: tensorboard --logdir {shlex.quote(facts.sources[0])}")
