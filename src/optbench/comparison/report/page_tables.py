"""The tables of the page: columns of cells, each with its text and the number by which it sorts."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from optbench.comparison.facts import Facts
from optbench.comparison.judgement import Judgement
from optbench.comparison.report.costs import COSTS, costs, megabytes, shown
from optbench.comparison.verdicts import Verdict
from optbench.records import wording
from optbench.records.record import STATUSES

MOST_DIFFERENCES = 60  # rows of the table; statistics.csv has all
MOST_RUNS = 1000  # summary.csv has all
VERDICTS = {
    Verdict.BETTER: "A is better",
    Verdict.WORSE: "A is worse",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.UNDECIDED: "undecided",
    Verdict.UNKNOWN: "cannot be said",
    Verdict.WITHHELD: "withheld",
}


class Cell(NamedTuple):
    """`key` sorts as a number, nan last; without one the text does. `note` is shown below it, smaller."""

    text: str
    key: float | None = None
    note: str = ""
    swatch: Markup = Markup("")

    @property
    def sort_key(self) -> str:
        """As JavaScript's Number() reads it."""
        if self.key is None or math.isnan(self.key):
            return ""
        return f"{self.key:.6g}".replace("inf", "Infinity")


@dataclass(frozen=True)
class Column:
    title: str
    cells: list[Cell]
    kind: str = "number"  # its CSS class: number, text, name, long or command


def rows(columns: Sequence[Column]) -> Iterable[tuple[Cell, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def numbers(
    title: str, keys: pd.Series, show: Callable[[float], str], notes: Iterable[str] | None = None
) -> list[Column]:
    """A column, or none where it would hold nothing but nan and 0."""
    keys = keys.astype(float)
    if not (keys.notna() & (keys != 0)).any():
        return []
    below = list(notes) if notes is not None else [""] * len(keys)
    return [Column(title, [Cell(show(key), key, note) for key, note in zip(keys, below, strict=True)])]


def names(title: str, values: pd.Series, swatches: dict[str, Markup]) -> Column:
    return Column(title, [Cell(value, swatch=swatches[value]) for value in values], "name")


def intervals(words: Callable[[str, float, float], str], metric: str, low: pd.Series, high: pd.Series) -> list[str]:
    """One below each number; '' where there is none."""
    return ["" if math.isnan(a) else words(metric, a, b) for a, b in zip(low, high, strict=True)]


def has_iqm(judgement: Judgement) -> bool:
    """Of up to three seeds the IQM is the mean."""
    return bool((judgement.ranking["n"] > 3).any())


def ranking_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    frame = judgement.ranking

    def shown_as(metric: str) -> Callable[[float], str]:
        return lambda x: wording.value(metric, x)

    iqm_intervals = intervals(wording.interval, facts.metric, frame["iqm_low"], frame["iqm_high"])
    mean_intervals = intervals(wording.interval, facts.metric, frame["low"], frame["high"])
    return [
        Column("rank", [Cell(str(rank) if rank else "–", rank or math.inf) for rank in frame["rank"]]),
        names("configuration", frame["configuration"], swatches),
        *numbers("n", frame["n"], wording.count),
        *numbers(facts.metric, frame["mean"], shown_as(facts.metric), mean_intervals),
        *(numbers("IQM", frame["iqm"], shown_as(facts.metric), iqm_intervals) if has_iqm(judgement) else []),
        *numbers(f"best {facts.validation}", frame["validation"], shown_as(facts.validation)),
        *numbers("train − test", frame["gap"], lambda x: wording.difference(facts.metric, x)),
        *numbers("epochs to best", frame["best_epoch"], lambda x: f"{x:.1f}".removesuffix(".0") if x == x else "–"),
        *numbers("time to best", frame["best_seconds"], wording.seconds),
        *numbers("time an epoch", frame["epoch_seconds"], wording.seconds),
        *numbers("peak memory", frame["memory_mb"], megabytes),
        *(column for status in STATUSES for column in numbers(status, frame[status], wording.count)),
    ]


def cost_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    """The points of the figures of costs, and what has none, as numbers; none where there are no such figures."""
    found = costs(facts, judgement)
    if not found:
        return []
    frame = shown(judgement)
    mean_intervals = intervals(wording.interval, facts.metric, frame["low"], frame["high"])
    return [
        names("configuration", frame["configuration"], swatches),
        *numbers(facts.metric, frame["mean"], lambda x: wording.value(facts.metric, x), mean_intervals),
        *(column for it in found for column in numbers(it.title, frame[it.column], COSTS[it.column][1])),
    ]


def settings_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    """A column for each setting that is not the same in every configuration; none where all are."""
    columns = []
    for key, values in facts.factors.varying.items():
        found: dict[str, dict[str, Any]] = {}
        for name, value in zip(facts.runs["configuration"], values, strict=True):
            found.setdefault(name, {})[wording.text(value)] = value
        if len({frozenset(its) for its in found.values()}) > 1:
            cells = [setting_cell(found[name]) for name in judgement.ranking["configuration"]]
            numeric = any(cell.key is not None and not math.isnan(cell.key) for cell in cells)
            columns.append(Column(key, cells, "number" if numeric else "text"))
    return [names("configuration", judgement.ranking["configuration"], swatches), *columns] if columns else []


def setting_cell(values: dict[str, Any]) -> Cell:
    """The values of a configuration, in words: one, or several that were averaged; a dash for null or no such key."""
    if len(values) > 1:
        return Cell(", ".join(values))
    word, value = next(iter(values.items()))
    if value is None:
        return Cell("–", math.nan)
    return Cell(word, float(value) if wording.is_number(value) else None)


def differences_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    frame = judgement.differences.head(MOST_DIFFERENCES)
    if frame.empty:
        return []
    wins = frame["improvement"] * frame["n"]
    gap = wording.difference(facts.metric, judgement.gap, sign=False)
    planned = list(zip(frame["seeds_low"], frame["seeds_high"], strict=True))
    return [
        names("A", frame["a"], swatches),
        names("B", frame["b"], swatches),
        Column("verdict", [Cell(VERDICTS[verdict]) for verdict in frame["verdict"]], "text"),
        *numbers("common seeds", frame["n"], wording.count),
        *numbers(
            "A − B",
            frame["difference"],
            lambda x: wording.difference(facts.metric, x),
            intervals(wording.difference_interval, facts.metric, frame["low"], frame["high"]),
        ),
        Column(
            "A better at",
            [
                Cell(f"{wins:.3g} of {n:.0f}" if wins == wins else "–", fraction)
                for wins, n, fraction in zip(wins, frame["n"], frame["improvement"], strict=True)
            ],
        ),
        *numbers("p", frame["p"], wording.p_value),
        *numbers("p, adjusted", frame["p_adjusted"], wording.p_value),
        *numbers("detectable", frame["detectable"], lambda x: wording.difference(facts.metric, x, sign=False)),
        Column(f"seeds for {gap}", [Cell(wording.seeds(*ends), ends[0]) for ends in planned]),
    ]


def targets_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    """One row per configuration, one column per target."""
    frame = judgement.targets
    if frame.empty:
        return []
    there = set(frame["configuration"])
    configurations = [name for name in judgement.ranking["configuration"] if name in there]
    columns = [names("configuration", pd.Series(configurations), swatches)]
    level = partial(wording.level, facts.validation, higher_is_better=facts.higher_is_better, digits=None)
    for target, at in frame.groupby("target"):
        rows_of = {row.configuration: row for row in at.itertuples()}
        cells = []
        for name in configurations:
            if name not in rows_of:
                cells.append(Cell("–", math.nan))
                continue
            row = rows_of[name]
            parts = [wording.plural(row.epochs, "epoch"), f"{wording.count(row.steps)} steps"]
            if not math.isnan(row.seconds):
                parts.append(wording.seconds(row.seconds))
            missed = math.isinf(row.epochs) or math.isnan(row.epochs)
            note = "∞" if missed else " · ".join(parts)
            cells.append(Cell(f"{row.reached:.0f}/{row.n:.0f}", row.steps, note))
        columns.append(Column(f"{facts.validation} {level(target)}", cells))
    return columns


def times_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    """One row per target, unit and pair."""
    frame = judgement.times.head(MOST_DIFFERENCES)
    if frame.empty:
        return []
    within = intervals(lambda _, low, high: wording.ratio_interval(low, high), "", frame["low"], frame["high"])
    verdicts = VERDICTS | {Verdict.BETTER: "A is faster", Verdict.WORSE: "A is slower"}
    levels = [
        wording.level(facts.validation, target, facts.higher_is_better, digits=None) for target in frame["target"]
    ]
    return [
        Column("to", [Cell(level, target) for level, target in zip(levels, frame["target"], strict=True)]),
        names("A", frame["a"], swatches),
        names("B", frame["b"], swatches),
        Column("verdict", [Cell(verdicts[verdict]) for verdict in frame["verdict"]], "text"),
        Column(
            "A / B",
            [
                Cell(
                    f"{wording.ratio(row.ratio)} × the {row.unit}",
                    row.ratio,
                    " ".join(filter(None, [interval, "within the budget" * row.censored])),
                )
                for row, interval in zip(frame.itertuples(), within, strict=True)
            ],
        ),
        *numbers("common seeds", frame["n"], wording.count),
        *numbers("p, adjusted", frame["p_adjusted"], wording.p_value),
    ]


def runs_table(facts: Facts, judgement: Judgement, swatches: dict[str, Markup]) -> list[Column]:
    """Every run; of very many, those of the best configurations."""
    frame = facts.runs
    if len(frame) > MOST_RUNS:
        places = {name: place for place, name in enumerate(judgement.ranking["configuration"])}
        frame = frame.iloc[frame["configuration"].map(places).argsort(kind="stable")[:MOST_RUNS]]

    def text(title: str, column: str, kind: str = "text") -> list[Column]:
        values = [str(value) for value in frame[column]]
        return [Column(title, [Cell(value) for value in values], kind)] if any(values) else []

    return [
        *text("run", "run", "long"),
        names("configuration", frame["configuration"], swatches),
        Column("seed", [Cell(str(seed), float(seed)) for seed in frame["seed"]]),
        *text("status", "status"),
        *numbers(facts.metric, frame["metric"], lambda x: wording.value(facts.metric, x)),
        *numbers(facts.validation, frame["validation"], lambda x: wording.value(facts.validation, x)),
        *numbers("epochs", frame["epochs"], wording.count),
        *numbers("time", frame["seconds"], wording.seconds),
        *text("note", "note", "long"),
        *text("error", "error", "long"),
        *text("overrides", "overrides", "long"),
        *text("folder", "folder", "long"),
        *text("command", "command", "command"),
    ]
