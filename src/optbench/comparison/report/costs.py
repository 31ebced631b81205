"""What a result costs, computed once: the page and the figure for a paper show the same points.

Where configurations have different numbers of parameters, their results are shown against that number, against
seconds and against memory. What a record does not say, such as that of another program, has no point.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from optbench.comparison.facts import Facts
from optbench.comparison.judgement import Judgement
from optbench.comparison.sensitivity import is_logarithmic
from optbench.records import wording

MOST_POINTS = 60  # configurations of a figure, the best ones


def megabytes(x: float) -> str:
    return f"{wording.count(x)} MB" if x == x else "–"


# A column of the ranking -> its title, and how one of its values reads
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("trainable parameters", wording.count),
    "epoch_seconds": ("seconds an epoch", wording.seconds),
    "seconds": ("seconds of training", wording.seconds),
    "memory_mb": ("peak memory (MB)", megabytes),
}


@dataclass(frozen=True)
class Cost:
    """The metric against one cost.

    Attributes:
        column: of the ranking; `title`: its words; `log`: whether its axis is logarithmic.
        points: rows of the ranking that have both, the best first.
        without: the configurations with a result, of which this cost is not recorded.
    """

    column: str
    title: str
    log: bool
    points: pd.DataFrame
    without: list[str]


def shown(judgement: Judgement) -> pd.DataFrame:
    """The rows of the ranking of which costs are shown: those with a result, the best first."""
    return judgement.ranking[judgement.ranking["n"] > 0].head(MOST_POINTS)


def costs(facts: Facts, judgement: Judgement) -> list[Cost]:
    """None where all configurations have the same number of parameters, or fewer than two say it.

    Seconds and memory of different devices are left out: they do not compare.
    """
    results = shown(judgement)
    if results["parameters"].nunique() < 2:
        return []
    found = []
    for column, (title, _) in COSTS.items():
        known = results[column].notna() & (results[column] > 0)
        if known.sum() > 1 and (column == "parameters" or not facts.times_withheld):
            points = results[known]
            low, high = float(points[column].min()), float(points[column].max())
            without = list(results["configuration"][~known])
            found.append(Cost(column, title, is_logarithmic("", low, high), points, without))
    return found


def unrecorded(found: list[Cost]) -> list[str]:
    """A sentence for each cost that some configurations do not say."""
    return [
        f"Not recorded, so without a point: {it.title} of {wording.names(it.without)}." for it in found if it.without
    ]
