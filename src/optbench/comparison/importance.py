"""Which of three or more varied factors matter: an exact analysis of variance of a whole grid.

A grid has a result for every combination of its values. The variance between its cells then divides exactly into
what each factor explains alone and what depends on several (functional analysis of variance: Sobol 1993; Hutter, Hoos
and Leyton-Brown 2014, who fit a forest where there is no grid). The runs of a random search have no such division.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from optbench.records.wording import joined, some, text

FEWEST_FACTORS = 3  # of two, `Interaction` shows every cell
LEAST_FILLED = 0.3  # fraction of the grid that has a result, below which it is none
MOST = 6  # factors and values named in one sentence


@dataclass(frozen=True)
class Combinations:
    """The combinations of three or more factors that were run, one row each.

    Attributes:
        values: a column for each factor, with its values as they were set.
        by_seed: a column for each seed, with the metric; nan without a run that counts.
        diverged: runs.
    """

    values: pd.DataFrame
    by_seed: pd.DataFrame
    diverged: pd.Series


@dataclass(frozen=True)
class Importance:
    """How much of the variance between the cells of a grid each factor explains.

    Attributes:
        shares: one row per factor, the most important first. `factor`, `alone` (0 to 1: by itself), `total` (with all
            that depends on it and on others).
        cells: how many combinations the grid has.
        without: values that were left out, since not all of their combinations have a result: `optimizer.lr=0.1`.
        chance: the fraction of the variance that is noise of the seeds; nan with fewer than two common seeds.
    """

    shares: pd.DataFrame
    cells: int
    without: list[str]
    chance: float


def combine(varied: Mapping[str, Sequence[Any]], frame: pd.DataFrame) -> Combinations | None:
    """The runs of `frame` (as `Facts.runs`) by their factors; None for fewer than three."""
    if len(varied) < FEWEST_FACTORS:
        return None
    numbers: dict[tuple[str, ...], int] = {}
    cells = [
        numbers.setdefault(cell, len(numbers)) for cell in zip(*(map(text, c) for c in varied.values()), strict=True)
    ]
    first = pd.Series(cells).drop_duplicates().index
    runs = frame.assign(cell=cells, counted=frame.metric.where(frame.used.astype(bool)))
    by_seed = runs.pivot_table("counted", "cell", "seed", aggfunc="mean").reindex(range(len(numbers)))
    values = {key: pd.Series([column[row] for row in first], dtype=object) for key, column in varied.items()}
    return Combinations(pd.DataFrame(values), by_seed, (runs.status == "diverged").groupby(runs.cell).sum())


def importance(item: Combinations) -> Importance | None:
    """None where the results fill no grid, or do not differ."""
    results = item.by_seed.dropna(how="all")
    values = item.values.loc[results.index].map(text)
    if results.empty or len(results) < LEAST_FILLED * math.prod(values.nunique()):
        return None
    whole, without = without_holes(values)
    whole = whole[[key for key in whole if whole[key].nunique() > 1]]
    if len(whole.columns) < 2 or len(whole) < len(values) / 2:
        return None
    whole = whole.sort_values(list(whole))
    grid = results.loc[whole.index].mean(axis=1).to_numpy().reshape(tuple(whole.nunique()))
    variance = float(grid.var())
    if not variance > 1e-20 * float((grid**2).mean()):
        return None
    rows = []
    for axis, factor in enumerate(whole):
        others = tuple(other for other in range(grid.ndim) if other != axis)
        rows.append((factor, float(grid.mean(others).var()) / variance, float(grid.var(axis).mean()) / variance))
    shares = pd.DataFrame(rows, columns=["factor", "alone", "total"])
    shares = shares.sort_values("total", ascending=False, kind="stable", ignore_index=True)
    return Importance(shares, grid.size, without, min(noise(results.loc[whole.index]) / variance, 1.0))


def without_holes(values: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a whole grid, and the values that were left out for it, those with the most holes first."""
    without = []
    while len(values) < math.prod(values.nunique()):
        fill = {
            (key, value): count * values[key].nunique()
            for key in values
            for value, count in values[key].value_counts().items()
        }
        key, value = min(fill, key=lambda level: fill[level])
        values = values[values[key] != value]
        without.append(f"{key}={value}")
    return values, without


def noise(by_seed: pd.DataFrame) -> float:
    """The variance that the noise of the seeds makes between the means; nan with fewer than two seeds of all cells.

    What a seed adds to every cell makes none.
    """
    table = by_seed.dropna(axis=1).to_numpy(float)
    cells, seeds = table.shape
    if seeds < 2:
        return math.nan
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float((left**2).sum()) / (cells * (seeds - 1)) / float(by_seed.notna().sum(axis=1).mean())


def importance_sentence(it: Importance) -> str:
    each = [f"{row.factor} {row.alone:.0%} by itself, {row.total:.0%} in all" for row in it.shares.itertuples()]
    sentence = (
        f"Of the variance between the means of {it.cells} combinations, each factor explains so much by itself, and so "
        f"much with what depends on it and on others: {some(each, MOST, '; ')}."
    )
    if it.without:
        sentence += f" That is the grid without {joined(it.without[:MOST], len(it.without) - MOST)}, which has holes."
    if not math.isnan(it.chance):
        chance = "Less than 1%" if it.chance < 0.01 else f"{it.chance:.0%}"
        sentence += f" {chance} of the variance is chance: what is not larger shows nothing."
    return sentence
