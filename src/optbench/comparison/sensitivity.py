"""The metric against a number that a sweep varied, and two varied factors against each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from optbench.comparison import statistics
from optbench.records import metrics, wording
from optbench.records.wording import is_number, text


@dataclass(frozen=True)
class Sensitivity:
    """The metric against a number that the sweep varied, one line for each of the other configurations.

    Attributes:
        factor: its key, such as `optimizer.lr`; `log`: whether its axis is logarithmic.
        points: `line` (the other factors, '' if none), `x`, `n`, `mean`, `low`, `high` (the metric; nan without a
            result), `chosen_by` (the validation metric's mean), `diverged` (runs), `best` (bool: chosen on validation).
        verdicts: a sentence for each line, in the order of the lines.
        edges: the lines whose best value lies on the edge of what was tried.
    """

    factor: str
    log: bool
    points: pd.DataFrame
    verdicts: list[str]
    edges: list[str]


@dataclass(frozen=True)
class Interaction:
    """Two varied factors: the mean metric of each pair of values (nan: not run or no result), and what it means.

    `grid`: index = values of the factor `rows`, columns = values of the factor `columns`, both as text.
    """

    rows: str
    columns: str
    grid: pd.DataFrame
    sentence: str


LOGARITHMIC = ("lr", "weight_decay", "eps", "batch_size")


def lines_of(factors: Mapping[str, Sequence[Any]], factor: str, groups: Sequence[str]) -> list[str]:
    """A run's other factors in a word."""
    parts = [
        [("" if key in groups else key.rpartition(".")[2] + "=") + str(value) for value in column]
        for key, column in factors.items()
        if key != factor
    ]
    return [" ".join(part) for part in zip(*parts, strict=True)] if parts else [""] * len(factors[factor])


def sensitivity(
    factor: str, factors: Mapping[str, Sequence[Any]], groups: Sequence[str], frame: pd.DataFrame, metric: str
) -> Sensitivity | None:
    """None where the factor is no number, or no line has two values of it."""
    column = factors[factor]
    if not all(is_number(value) for value in column):
        return None
    runs = frame.assign(line=lines_of(factors, factor, groups), x=[float(value) for value in column])
    rows = []
    for (line, x), group in runs.groupby(["line", "x"], sort=True):
        results = group[group.used]
        by_seed = results.groupby("seed").metric.mean()
        low, high = statistics.mean_interval(list(by_seed))
        rows.append(
            {
                "line": line,
                "x": x,
                "n": len(by_seed),
                "mean": float(by_seed.mean()) if len(by_seed) else math.nan,
                "low": low,
                "high": high,
                "chosen_by": float(results.validation.mean()) if len(results) else math.nan,
                "diverged": int((group.status == "diverged").sum()),
                "best": False,
            }
        )
    points = pd.DataFrame(rows)
    points = points[points.groupby("line").x.transform("size") > 1].reset_index(drop=True)
    if points.empty:
        return None
    chosen = points[points.chosen_by.notna() & (points.diverged == 0)]
    points.loc[(metrics.sign(metric) * chosen.chosen_by).groupby(chosen.line).idxmax(), "best"] = True
    low, high = float(points.x.min()), float(points.x.max())
    log = low > 0 and (factor.rpartition(".")[2] in LOGARITHMIC or high > 20 * low)
    judged = [judge(factor, str(line), group, metric) for line, group in points.groupby("line")]
    edges = [str(line) for (line, _), (_, edge) in zip(points.groupby("line"), judged, strict=True) if edge]
    return Sensitivity(factor, log, points, [sentence for sentence, _ in judged], edges)


def judge(factor: str, line: str, points: pd.DataFrame, metric: str) -> tuple[str, bool]:
    """What a line says, and whether its best value lies on the edge of what was tried."""
    points = points.sort_values("x").reset_index(drop=True)
    name = f"{line}: " if line else ""
    diverged = [wording.number(x) for x in points.x[points.diverged > 0]]
    ends = f" It diverged at {', '.join(diverged)}." if diverged else ""
    if not points.best.any():
        return f"{name}no value of {factor} gave a result without divergence.{ends}", False
    best = int(points.index[points.best][0])
    x, validation = points.x[best], metrics.at("val", metric)
    near = [best, best]
    for side, step in ((0, -1), (1, 1)):
        while 0 <= (at := near[side] + step) < len(points) and close(points, at, best, validation):
            near[side] = at
    low, high = points.x[near[0]], points.x[near[1]]
    point = "one point" if metrics.metric(metric).is_fraction else "1 %"
    width = (
        f"within {point} of that from {wording.number(low)} to {wording.number(high)}"
        + (f", a factor of {high / low:.3g}" if low > 0 else "")
        if high > low
        else f"no other value that was tried comes within {point} of that"
    )
    sentence = (
        f"{name}best at {factor}={wording.number(x)} ({validation} "
        f"{wording.value(validation, points.chosen_by[best])}, {metric} "
        f"{wording.value(metric, points['mean'][best])}); {width}.{ends}"
    )
    if len(points) == 2:
        return f"{sentence} Two values cannot show where the best lies.", False
    edge = best == len(points) - 1 or (best == 0 and x != 0)  # below 0, such as no weight decay, lies nothing
    if edge:
        which = "smallest" if best == 0 else "largest"
        sentence += f" That is the {which} value tried: range too narrow, the ranking is provisional."
    return sentence, edge


def close(points: pd.DataFrame, at: int, best: int, validation: str) -> bool:
    """Within one point of the best (for a loss: 1 %), without divergence."""
    allowed = 0.01 if metrics.metric(validation).is_fraction else 0.01 * abs(points.chosen_by[best])
    gap = abs(points.chosen_by[at] - points.chosen_by[best])
    return bool(gap <= allowed + 1e-12 and points.diverged[at] == 0)


def interaction(
    factors: Mapping[str, Sequence[Any]], groups: Sequence[str], frame: pd.DataFrame, metric: str
) -> Interaction | None:
    """Two varied factors of which at least half of the grid has a result; None otherwise."""
    if len(factors) != 2:
        return None
    rows, columns = sorted(
        factors, key=lambda key: (key not in groups, all(is_number(value) for value in factors[key]))
    )
    cells = frame.assign(row=list(map(text, factors[rows])), column=list(map(text, factors[columns])))
    order = {"index": ordered(factors[rows]), "columns": ordered(factors[columns])}
    grid, chosen = (
        cells[cells.used].pivot_table(name, "row", "column", dropna=False).reindex(**order).astype(float)
        for name in ("metric", "validation")
    )
    if min(grid.shape) < 2 or grid.notna().to_numpy().mean() < 0.5:
        return None
    diverged = cells.assign(metric=cells.status == "diverged").pivot_table("metric", "row", "column", "any")
    chosen = chosen.mask(diverged.reindex(**order).eq(True))
    best = (metrics.sign(metric) * chosen).dropna(how="all").idxmax(axis=1)
    word = columns.rpartition(".")[2]
    if best.empty:
        sentence = f"No {columns} gave a result without divergence."
    elif best.nunique() == 1:
        sentence = f"The best {columns} is {best.iloc[0]} for every {rows}."
    else:
        sentence = (
            f"The best {columns} depends on {rows}: "
            + ", ".join(f"{row} {word}={value}" for row, value in best.items())
            + "."
        )
    whole = grid.dropna(how="all").dropna(axis=1)
    if min(whole.shape) >= 2:
        values = whole.to_numpy()
        centred = values - values.mean()
        left = centred - centred.mean(0) - centred.mean(1, keepdims=True)
        total = float((centred**2).sum())
        if total > 1e-20 * float((values**2).sum()):
            share = float((left**2).sum()) / total
            part = " (over the part of the grid without holes)" if whole.shape != grid.shape else ""
            sentence += (
                f" Of the variation between the cells{part}, {1 - share:.0%} is what {rows} and {word} each add for "
                f"themselves, {share:.0%} is their interaction."
            )
    return Interaction(rows, columns, grid, sentence)


def ordered(values: Sequence[Any]) -> list[str]:
    """Each once: numbers ascending, words as they came."""
    return list(dict.fromkeys(map(text, sorted(values) if all(map(is_number, values)) else values)))
