"""What is drawn over the epochs, computed once: the page and the figures for a paper show the same lines.

A mean is that of a configuration's runs that count, at each epoch that all of them have: a mean over fewer runs would
jump where one ends. It is none (nan) where any of its runs has no finite value.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from optbench.comparison.analysis import Comparison
from optbench.comparison.facts import Facts
from optbench.records import metrics

MOST_SHOWN = 8  # configurations that a figure of lines has room for, and with which the page begins; and the baseline
MOST_EPOCHS = 50_000  # of single runs, that the page carries: half a dozen numbers each


@dataclass(frozen=True)
class Curve:
    """The mean curve of a configuration. Frames: one row per epoch; `epoch`, `seconds` and the metrics.

    Attributes:
        runs: over how many runs.
        sd: the standard deviation over them; nan of a single run.
    """

    runs: int
    mean: pd.DataFrame
    sd: pd.DataFrame

    def band(self, metric: str, log: bool) -> tuple[pd.Series, pd.Series]:
        """One standard deviation to each side. On a logarithmic axis no band comes near 0."""
        mean, sd = self.mean[metric], self.sd[metric]
        low = mean - sd
        return (low.where(low.isna(), np.maximum(low, mean / 10)) if log else low), mean + sd


def mean_curves(facts: Facts, names: Collection[str]) -> dict[str, Curve]:
    """Of each of these configurations with a run that counts and logged an epoch, in the order of their runs."""
    counted = facts.runs["used"].astype(bool) & facts.runs["configuration"].isin(names)
    used = facts.curves[facts.curves["row"].map(counted).astype(bool)]
    numbers = used.replace([math.inf, -math.inf], math.nan)
    return {str(name): mean_curve(its) for name, its in numbers.groupby("configuration", sort=False)}


def mean_curve(curves: pd.DataFrame) -> Curve:
    runs = curves["row"].nunique()
    epochs = curves.drop(columns=["configuration", "seed"]).astype(float).groupby("epoch", as_index=False)
    whole = (epochs["row"].nunique()["row"] == runs).to_numpy()
    mean, sd = epochs.mean(skipna=False)[whole], epochs.std(skipna=False)[whole]
    return Curve(runs, mean.reset_index(drop=True), sd.reset_index(drop=True))


def axes(facts: Facts) -> list[str]:
    """What curves can be drawn against."""
    return ["epoch"] if facts.times_withheld or facts.curves["seconds"].isna().all() else ["epoch", "seconds"]


def curves_are_logarithmic(metric: str, curves: Iterable[Curve]) -> bool:
    """Whether the axis of all mean curves of a metric is logarithmic."""
    means = [curve.mean[metric] for curve in curves]
    return bool(means) and is_logarithmic(metric, pd.concat(means))


def is_logarithmic(metric: str, values: pd.Series) -> bool:
    """Apply `records.metrics.is_logarithmic`, which has the rule, to the finite values."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and metrics.is_logarithmic(metric, float(finite.min()), float(finite.max()))


def profile_edge(profile: pd.DataFrame) -> tuple[float, bool]:
    """Where the axis of a performance profile ends, beyond its last step; and whether it is logarithmic."""
    right = 1.05 * max(float(profile["ratio"].max()), 1.05)
    return right, right > 4


def from_zero(metric: str, log: bool) -> bool:
    """Whether an axis begins at 0: a constant learning rate is no noise."""
    return metric == "lr" and not log


def carried(comparison: Comparison) -> list[str]:
    """The configurations of which the page has the curves: the best ones, as many as MOST_EPOCHS allow."""
    epochs = comparison.facts.curves.groupby("configuration").size()
    ranked = comparison.judgement.ranking["configuration"]
    total = ranked.map(epochs).fillna(0).cumsum()
    first = shown(comparison)[0]
    return [name for name, so_far in zip(ranked, total, strict=True) if so_far <= MOST_EPOCHS or name in first]


def shown(comparison: Comparison) -> tuple[list[str], str]:
    """The configurations that lines are drawn of at first, and a note where these are not all."""
    ranked, baseline = list(comparison.judgement.ranking["configuration"]), comparison.facts.baseline
    if len(ranked) <= MOST_SHOWN:
        return ranked, ""
    best, note = ranked[:MOST_SHOWN], f"the best {MOST_SHOWN} of {len(ranked)} configurations"
    if baseline is None or baseline in best:
        return best, note
    return [*best, baseline], f"{note}, and the baseline"
