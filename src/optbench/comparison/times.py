"""How fast: when a configuration reaches a target on validation."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from optbench.records import metrics

COLUMNS = {"epochs": "epoch", "steps": "step", "seconds": "seconds"}  # of the curves
TARGETS = ["configuration", "target", "reached", "n", "epochs", "steps", "seconds"]


def choose_targets(curves: pd.DataFrame, validation: str) -> list[float]:
    """Up to five round values between where the runs begin and the best that any reached."""
    if validation not in curves or not np.isfinite(curves[validation]).any():
        return []
    sign = metrics.sign(validation)
    values = sign * curves[validation].where(np.isfinite(curves[validation]))
    begin, end = values.groupby(curves.row).first().min(), values.max()
    for step in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
        # a loss may begin at 1e30, and 0.6 / 0.2 is less than 3
        below, last = (math.floor(value / step + 1e-9) for value in (max(begin, end - 6 * step), end))
        rounded = [k * step for k in range(below + 1, last + 1)]
        if len(rounded) >= 3:
            return [round(abs(value), 6) for value in rounded[-5:]]
    return [round(float(abs(end)), 6)]


def time_to_targets(
    curves: pd.DataFrame,
    frame: pd.DataFrame,
    validation: str,
    targets: Sequence[float],
    order: Sequence[str],
    unit: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """When each configuration first reached each target, medians over its runs; and each such time, in `unit`."""
    rows, costs = [], []
    if validation not in curves:
        return pd.DataFrame(columns=TARGETS), pd.DataFrame()
    sign = metrics.sign(validation)
    everyone = frame.loc[sorted(set(curves.row))]
    for target in targets:
        reached = (
            curves[sign * curves[validation] >= sign * target].groupby("row")[["epoch", "step", "seconds"]].first()
        )
        first = reached.reindex(everyone.index)
        missed = first.epoch.isna()
        first = first.where(~missed, math.inf)
        for name in order:
            mine = first[everyone.configuration == name]
            if len(mine):
                epochs, steps, seconds = (float(mine[key].median()) for key in ("epoch", "step", "seconds"))
                there = int((~missed[mine.index]).sum())
                rows.append((name, target, there, len(mine), epochs, steps, seconds))
        cost = first[COLUMNS[unit]].groupby([everyone.seed, everyone.configuration]).mean().unstack()
        costs.append(cost.reindex(columns=order))
    return pd.DataFrame(rows, columns=TARGETS), pd.concat(costs) if costs else pd.DataFrame()
