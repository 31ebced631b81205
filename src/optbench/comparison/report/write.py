"""What a comparison writes: the page, the tables to paste, the figures for a paper, and a table in the terminal."""

import logging
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from optbench.commands.terminal import show
from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.looks import report_of
from optbench.comparison.report import figures, page, tables
from optbench.records import metrics, wording
from optbench.records.configuration import as_list
from optbench.records.files import PROJECT, write_atomically
from optbench.records.looks import note_report
from optbench.records.record import SUMMARY

FOLDER = "comparison"
METRIC = "test/accuracy"  # that of a sweep's own report
LONGEST = 120  # characters of a question in a folder's name
MOST_SKIPPED, MOST_ROWS = 5, 50  # folders and configurations named in the terminal


def compare_runs(
    runs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str = METRIC,
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
    sources = [str(source) for source in (runs if isinstance(runs, list | tuple) else [runs])]
    if not all(sources) or not sources:
        raise ValueError("runs is empty. Give a run's folder, a sweep's, a table (CSV), a glob, or a list of them.")
    keys = [str(key) for key in as_list(by)]
    targets = check_targets(target, metric)
    comparison = compare(
        sources, keys, None if baseline is None else str(baseline), str(metric), targets, pairs, margin, gap
    )
    facts, judgement = comparison.facts, comparison.judgement
    question = {
        "by": "+".join(facts.by) if set(facts.by) != set(facts.factors.independent) else None,
        "baseline": facts.baseline,
        "metric": facts.metric if facts.metric != METRIC else None,
        "target": "+".join(map(wording.number, targets)) or None,
        "pairs": pairs,
        "margin": wording.number(judgement.margin) if judgement.margin != metrics.metric(facts.metric).margin else None,
        "gap": wording.number(judgement.gap) if judgement.gap != judgement.margin else None,
    }
    own = own_folder(sources)
    folder = Path(str(output)).expanduser() if output else place(own, question)
    tell(comparison)  # first: no full disk takes the answer with it
    note_look(comparison)
    try:
        write(comparison, folder)
    except OSError as error:
        raise ValueError(
            f"output={folder} cannot be written: {error.strerror or error}. output=<folder> chooses another."
        ) from error
    if own and folder != own and (own / "report.html").exists():
        print(f"The sweep's own report stays as it is: {own / 'report.html'}")
    print(f"Report: {folder / 'report.html'}")
    return folder


def check_targets(target: float | Sequence[float] | None, metric: str) -> list[float]:
    """The targets, ascending.

    Raises:
        ValueError: for what is no level of the validation metric.
    """
    if target is None:
        return []
    targets = as_list(target)
    fraction = metrics.metric(metric).is_fraction
    example = (
        "a fraction between 0 and 1, for example target=0.5 or target=[0.4,0.5]" if fraction else "a number above 0"
    )
    for value in targets:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value > 0 or (fraction and value >= 1):
            raise ValueError(f"target={value} must be {example}: the level of validation at which time is taken.")
    return sorted(targets)


def own_folder(sources: Sequence[str]) -> Path | None:
    """Where a sweep's own report is; None for runs from several places, for a single run and for a table."""
    first = Path(sources[0]).expanduser()
    alone = len(sources) == 1 and first.is_dir() and not (first / SUMMARY).exists()
    return first / FOLDER if alone else None


def place(own: Path | None, question: Mapping[str, str | None]) -> Path:
    """The sweep's own folder, or beside it one that is named by the question, if it is another than the sweep's own.

    A new one below logs/comparison/ where runs come from several places.
    """
    if own is None:
        return PROJECT / "logs" / FOLDER / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{token_hex(3)}"
    asked = ",".join(f"{key}={value}" for key, value in question.items() if value)
    if not asked:
        return own
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", asked)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}_{sha256(asked.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    return own.with_name(f"{own.name}_{name}")


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


def note_look(comparison: Comparison) -> None:
    """Let a report of more seeds know that there was this one."""
    facts = comparison.facts
    if noted := report_of(facts.looks, facts.metric, comparison.judgement.differences):
        note_report(*noted)


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
        show(f"{facts.metric} by {', '.join(facts.by) or 'seed'}", rows[:MOST_ROWS])
        if len(rows) > MOST_ROWS:
            print(f"The best {MOST_ROWS} of {len(rows)} configurations: report.md names them all.\n")
    print(textwrap.fill(" ".join(words.answer), 100, break_long_words=False, break_on_hyphens=False))
    if len(facts.sources) == 1 and Path(facts.sources[0]).is_dir():
        print(f"\nCurves: tensorboard --logdir {shlex.quote(facts.sources[0])}")
