"""How fast: when a configuration reaches a target on validation."""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from optbench.comparison import statistics
from optbench.comparison.verdicts import SURE, Family, Verdict, seen_from, verdict_of
from optbench.records import metrics

COLUMNS = {"epochs": "epoch", "steps": "step", "seconds": "seconds"}  # of the curves
TIMES = ["target", "unit", "a", "b", "n", "ratio", "low", "high", "p_adjusted", "censored", "verdict"]
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


def reach_targets(curves: pd.DataFrame, validation: str, targets: Sequence[float]) -> dict[float, pd.DataFrame]:
    """Of each target, when each run first reached it: `epoch`, `step`, `seconds` by run (inf: never)."""
    if validation not in curves:
        return {}
    sign, columns = metrics.sign(validation), list(COLUMNS.values())
    everyone = pd.Index(sorted(set(curves.row)))
    found = {}
    for target in targets:
        reached = curves[sign * curves[validation] >= sign * target].groupby("row")[columns].first()
        first = reached.reindex(everyone)
        found[target] = first.where(first.epoch.notna(), math.inf)
    return found


def median_times(
    reached: Mapping[float, pd.DataFrame], configurations: pd.Series, order: Sequence[str]
) -> pd.DataFrame:
    """One row per configuration and target, as `Judgement.targets`."""
    tables = []
    for target, first in reached.items():
        its = first.assign(n=1, reached=np.isfinite(first.epoch)).groupby(configurations[first.index])
        table = its[["reached", "n"]].sum().join(its[list(COLUMNS.values())].median())
        table = table.loc[[name for name in order if name in table.index]].assign(target=target)
        tables.append(
            table.rename(columns={column: unit for unit, column in COLUMNS.items()}).reset_index(names=TARGETS[0])
        )
    return pd.concat(tables, ignore_index=True)[TARGETS] if tables else pd.DataFrame(columns=TARGETS)


def costs(reached: Mapping[float, pd.DataFrame], runs: pd.DataFrame, order: Sequence[str], unit: str) -> pd.DataFrame:
    """One row per target and seed, one column per configuration: what `statistics.performance_profile` takes."""
    tables = [
        first[COLUMNS[unit]].groupby([runs.seed[first.index], runs.configuration[first.index]]).mean().unstack()
        for first in reached.values()
    ]
    return pd.concat([table.reindex(columns=order) for table in tables]) if tables else pd.DataFrame()


def compare_times(
    reached: Mapping[float, pd.DataFrame],
    runs: pd.DataFrame,
    blocks: pd.Series,
    curves: pd.DataFrame,
    compared: Sequence[str],
    baseline: str | None,
    family: Family,
    against: str | None,
    units: Sequence[str],
    budgets: Mapping[str, Hashable],
    questions: float = 1,
) -> pd.DataFrame:
    """Ratios of times between two configurations, as `Judgement.times`.

    The logarithms of the times are compared as results are, paired by `blocks` (of each run). A run that never reached
    a target counts as if it had at the end of the longest run: the true ratio is then farther from 1. The targets are
    as many questions, each `questions` times (for several looks). No error is smaller than what counting in whole
    epochs makes: of three seeds, equal epochs are often chance.
    """
    column_of = list(compared).index(against) if against is not None else None
    tables = []
    known = {target: first for target, first in reached.items() if np.isfinite(first.epoch).any()}
    for unit in units:
        column = COLUMNS[unit]
        for target, first in reversed(known.items()):
            log = np.log(first[column].clip(lower=1e-9, upper=curves[column].max()))
            of = runs.configuration[first.index]
            # validation is known once per epoch: of five equal epochs, the true times still differ by up to one
            coarse = 1 / first.epoch.clip(upper=curves.epoch.max()) / math.sqrt(12)
            table, rounding = (
                values.groupby([blocks[first.index], of]).mean().unstack().reindex(columns=compared).to_numpy(float)
                for values in (log, coarse)
            )
            pairs = statistics.compare_pairs(
                table, False, column_of, family is Family.LEADER, questions=questions * len(known), rounding=rounding
            )
            pairs = pairs[pairs.n >= statistics.FEWEST].assign(target=target, unit=unit)
            pairs["a"], pairs["b"] = ([compared[column] for column in pairs[side]] for side in ("i", "j"))
            late = set(of[~np.isfinite(first.epoch)])
            pairs["censored"] = pairs.a.isin(late) | pairs.b.isin(late)
            tables.append(pairs)
    if not tables or not sum(map(len, tables)):
        return pd.DataFrame(columns=TIMES)
    table = pd.concat(tables, ignore_index=True)
    table = table[table.p.notna() | (table.difference != 0)]
    table["verdict"] = [verdict_of(pair, -1, budgets)[0] for pair in table.itertuples()]
    table = table.mask((table.verdict == Verdict.WITHHELD).to_numpy()[:, None] & table.columns.isin(SURE)[None, :])
    table = seen_from(table.astype({"difference": float, "low": float, "high": float}), baseline, -1)
    ratios = {"ratio": np.exp(table.difference), "low": np.exp(table.low), "high": np.exp(table.high)}
    return table.assign(**ratios)[TIMES].reset_index(drop=True)
