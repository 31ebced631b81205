"""The metric against a number that a sweep varied, and two varied factors against each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from optbench.comparison import statistics
from optbench.comparison.importance import noise
from optbench.records import metrics, wording
from optbench.records.tuning import Edge
from optbench.records.wording import is_number, text


@dataclass(frozen=True)
class Optimum:
    """The best value of a factor on one line, as validation chooses it.

    Attributes:
        line: the other factors, '' if none.
        x: the best value; nan where none gave a result without divergence.
        validation, result: the means of the validation metric and of the metric at `x`.
        low, high: from where to where the values within one point (for a loss: 1 %) of the best reach.
        diverged: the values at which a run diverged; `tried`: how many values there were.
        edge: None also where two values cannot show where the best is.
    """

    line: str
    x: float
    validation: float
    result: float
    low: float
    high: float
    diverged: list[float]
    tried: int
    edge: Edge | None


@dataclass(frozen=True)
class Sensitivity:
    """The metric against a number that the sweep varied, one line for each of the other configurations.

    Attributes:
        factor: its key, such as `optimizer.lr`; `log`: whether its axis is logarithmic.
        points: `line` (the other factors, '' if none), `x`, `n`, `mean`, `low`, `high` (the metric; nan without a
            result), `chosen_by` (the validation metric's mean), `diverged` (runs), `best` (bool: chosen on validation).
        optima: one per line, in the order of the lines.
    """

    factor: str
    log: bool
    points: pd.DataFrame
    optima: list[Optimum]

    @property
    def edges(self) -> list[str]:
        """The lines whose best value is on the edge of what was tried."""
        return [optimum.line for optimum in self.optima if optimum.edge is not None]


@dataclass(frozen=True)
class Interaction:
    """Two varied factors: the mean metric of each pair of values (nan: not run or no result), and what it means.

    Attributes:
        grid: index = values of the factor `rows`, columns = values of the factor `columns`, both as text.
        best: for each row with a result without divergence, the column that validation chooses.
        fraction: how much of the variation between the cells is the interaction, 0 to 1; nan where nothing varies.
        complete: whether `fraction` is of the whole grid, not only of its columns and rows without holes.
        chance: the `fraction` that the noise of the seeds alone makes; nan with fewer than two common seeds.
    """

    rows: str
    columns: str
    grid: pd.DataFrame
    best: dict[str, str]
    fraction: float
    complete: bool
    chance: float = math.nan


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
    results = runs[runs.used]
    samples: dict[tuple[str, float], list[float]] = {}
    for (line, x, _), mean in results.groupby(["line", "x", "seed"]).metric.mean().items():
        samples.setdefault((line, x), []).append(mean)
    chosen_by = results.groupby(["line", "x"]).validation.mean().to_dict()
    diverged = (runs.status == "diverged").groupby([runs.line, runs.x], sort=True).sum()
    rows = []
    for key, failures in diverged.items():
        by_seed = samples.get(key, [])
        low, high = statistics.mean_interval(by_seed)
        rows.append(
            {
                "line": key[0],
                "x": key[1],
                "n": len(by_seed),
                "mean": sum(by_seed) / len(by_seed) if by_seed else math.nan,
                "low": low,
                "high": high,
                "chosen_by": chosen_by.get(key, math.nan),
                "diverged": int(failures),
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
    log = is_logarithmic(factor, low, high)
    optima = [optimum(str(line), group, metric) for line, group in points.groupby("line")]
    return Sensitivity(factor, log, points, optima)


def is_logarithmic(factor: str, low: float, high: float) -> bool:
    """Whether the axis of a factor with values from `low` to `high` is logarithmic."""
    return low > 0 and (factor.rpartition(".")[2] in LOGARITHMIC or high > 20 * low)


def optimum(line: str, points: pd.DataFrame, metric: str) -> Optimum:
    points = points.sort_values("x").reset_index(drop=True)
    diverged, tried = list(points.x[points.diverged > 0]), len(points)
    if not points.best.any():
        return Optimum(line, math.nan, math.nan, math.nan, math.nan, math.nan, diverged, tried, None)
    best = int(points.index[points.best][0])
    x = float(points.x[best])
    good = near(points.chosen_by, points.chosen_by[best], metrics.at("val", metric)) & (points.diverged == 0)
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < tried - 1 and good[last + 1]:
        last += 1
    edge = None
    if tried > 2 and best == tried - 1:
        edge = Edge.LARGEST
    elif tried > 2 and best == 0 and x != 0:  # 0, such as no weight decay, has nothing below it
        edge = Edge.SMALLEST
    low, high = float(points.x[first]), float(points.x[last])
    return Optimum(line, x, points.chosen_by[best], points["mean"][best], low, high, diverged, tried, edge)


def near(values: pd.Series, best: float, metric: str) -> pd.Series:
    """Which values are within one point of the best; for a loss, within 1 %."""
    allowed = 0.01 if metrics.metric(metric).is_fraction else 0.01 * abs(best)
    return (values - best).abs() <= allowed + 1e-12


def interaction(
    factors: Mapping[str, Sequence[Any]], groups: Sequence[str], frame: pd.DataFrame, metric: str
) -> Interaction | None:
    """None unless there are two factors, each with two values, and half of their grid has a result."""
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
    whole = grid.dropna(how="all").dropna(axis=1)
    used = cells[cells.used & cells.row.isin(whole.index) & cells.column.isin(whole.columns)]
    fraction, chance = interaction_of(whole, used)
    return Interaction(rows, columns, grid, best.to_dict(), fraction, complete=whole.shape == grid.shape, chance=chance)


def interaction_of(whole: pd.DataFrame, used: pd.DataFrame) -> tuple[float, float]:
    """`Interaction.fraction` and `chance` of a grid without holes, and of the runs in its cells."""
    if min(whole.shape) < 2:
        return math.nan, math.nan
    values = whole.to_numpy()
    centred = values - values.mean()
    left = centred - centred.mean(0) - centred.mean(1, keepdims=True)
    total = float((centred**2).sum())
    if not total > 1e-20 * float((values**2).sum()):
        return math.nan, math.nan
    by_seed = used.pivot_table("metric", ["row", "column"], "seed")
    # of the grid's size - 1 degrees of freedom, so many are the interaction's
    share = (whole.shape[0] - 1) * (whole.shape[1] - 1) / (whole.size - 1)
    return float((left**2).sum()) / total, min(share * whole.size * noise(by_seed) / total, 1.0)


def ordered(values: Sequence[Any]) -> list[str]:
    """Each once: numbers ascending, words as they came."""
    return list(dict.fromkeys(map(text, sorted(values) if all(map(is_number, values)) else values)))


# in words


def sensitivity_sentences(item: Sensitivity, metric: str) -> list[str]:
    """One for each line."""
    return [optimum_sentence(each, item.factor, metric) for each in item.optima]


def optimum_sentence(it: Optimum, factor: str, metric: str) -> str:
    name = f"{it.line}: " if it.line else ""
    diverged = f" It diverged at {', '.join(map(wording.number, it.diverged))}." if it.diverged else ""
    if math.isnan(it.x):
        return f"{name}no value of {factor} gave a result without divergence.{diverged}"
    validation = metrics.at("val", metric)
    point = "one point" if metrics.metric(metric).is_fraction else "1 %"
    width = (
        f"within {point} of that from {wording.number(it.low)} to {wording.number(it.high)}"
        + (f", a factor of {it.high / it.low:.3g}" if it.low > 0 else "")
        if it.high > it.low
        else f"no other value that was tried comes within {point} of that"
    )
    sentence = (
        f"{name}best at {factor}={wording.number(it.x)} ({validation} {wording.value(validation, it.validation)}, "
        f"{metric} {wording.value(metric, it.result)}); {width}.{diverged}"
    )
    if it.tried == 2:
        return f"{sentence} Two values cannot show where the best one is."
    if it.edge is not None:
        sentence += f" That is the {it.edge} value tried: range too narrow, the ranking is provisional."
    return sentence


def interaction_sentence(it: Interaction) -> str:
    word = it.columns.rpartition(".")[2]
    if not it.best:
        sentence = f"No {it.columns} gave a result without divergence."
    elif len(set(it.best.values())) == 1:
        sentence = f"The best {it.columns} is {next(iter(it.best.values()))} for every {it.rows}."
    else:
        each = ", ".join(f"{row} {word}={value}" for row, value in it.best.items())
        sentence = f"The best {it.columns} depends on {it.rows}: {each}."
    if math.isnan(it.fraction):
        return sentence
    where = "" if it.complete else " (over the part of the grid without holes)"
    sentence += (
        f" Of the variation between the cells{where}, {1 - it.fraction:.0%} is what {it.rows} and {word} "
        f"each add for themselves, {it.fraction:.0%} is their interaction."
    )
    if math.isnan(it.chance):
        return sentence
    chance = "less than 1%" if it.chance < 0.01 else f"about {it.chance:.0%}"
    return f"{sentence} Chance alone makes {chance} interaction: what is not larger shows nothing."
