"""What is claimed of two configurations, and of which: verdicts, families, and the table of differences."""

import math
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import pandas as pd

from optbench.comparison import statistics
from optbench.records import metrics


class Verdict(StrEnum):
    """What is claimed of `a` in a pair of configurations."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"  # closer than the margin
    UNDECIDED = "undecided"  # these seeds show neither a difference nor equivalence
    UNKNOWN = "unknown"  # fewer than three seeds, or the seed has no effect
    WITHHELD = "withheld"  # the runs do not belong together, or one had an advantage: the reason is a `Silence`


class Silence(StrEnum):
    """Why nothing is said of a pair, not even that it is undecided; the value completes a sentence."""

    UNPAIRED = "fewer than three of their runs share a seed and a version of the code"
    CONSTANT = "their difference is the same at every seed, so chance cannot be judged"
    DIVERGED = "{ahead} looks better, but more of its runs diverged"
    BUDGETS = "their runs were allowed different numbers of epochs"
    PLANNED = "the first of the planned looks has not been made yet"


class Family(StrEnum):
    """Which pairs a question is about. Their verdicts share one error, and no other pair has one."""

    ALL = "all pairs"
    WINNERS = "the tuned configurations among each other"
    BASELINE = "the others against the baseline"
    LEADER = "the best mean against the others"  # of so many that every pair would be too much; corrected for all pairs


SURE = ("low", "high", "p", "p_adjusted", "p_wilcoxon", "detectable")
CLAIMED = (Verdict.BETTER, Verdict.WORSE)
DECIDED = (*CLAIMED, Verdict.EQUIVALENT)
OPPOSITE = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


def difference_table(
    blocks: pd.DataFrame,
    ranking: pd.DataFrame,
    baseline: str | None,
    family: Family,
    against: str | None,
    margin: float,
    gap: float,
    metric: str,
    budgets: Mapping[str, Hashable],
    questions: float = 1,
) -> pd.DataFrame:
    """The family's pairs, the better mean first; a baseline's pairs lead, and are seen from the other configuration.

    Args:
        blocks: results, one row per block (a seed in one version of the code), one column per configuration that is
            compared; nan where there is no result.
        ranking: `configuration`, `n`, `diverged` of each.
        against: the configuration that is in every pair of the family, None where it is no such family.
        budgets: configuration -> the epochs that its runs were allowed. Nothing is claimed of two that differ; empty
            where budgets may differ.
        questions: how many of them share the error, such as several looks.

    Returns:
        as `Judgement.differences`.
    """
    names, sign = list(blocks.columns), metrics.sign(metric)
    table = statistics.compare_pairs(
        blocks.to_numpy(float),
        sign > 0,
        names.index(against) if against is not None else None,
        chosen=family is Family.LEADER,
        questions=questions,
        margin=margin,
        gap=gap,
    )
    table.insert(0, "a", [names[i] for i in table.i])
    table.insert(1, "b", [names[j] for j in table.j])
    seeds = ranking.set_index("configuration").n.to_dict()
    diverged = ranking.set_index("configuration").diverged.to_dict()
    verdicts, reasons = [], []
    for pair in table.itertuples():
        ahead, behind = (pair.a, pair.b) if sign * pair.difference > 0 else (pair.b, pair.a)
        verdict, why = verdict_of(pair, sign, budgets)
        if pair.n < statistics.FEWEST:
            enough_alone = min(seeds[pair.a], seeds[pair.b]) >= statistics.FEWEST
            verdict, why = (Verdict.WITHHELD if enough_alone else Verdict.UNKNOWN), Silence.UNPAIRED
        elif verdict in CLAIMED and diverged[ahead] > diverged[behind]:  # only survivors make its mean
            verdict, why = Verdict.WITHHELD, Silence.DIVERGED.format(ahead=ahead)
        verdicts.append(verdict)
        reasons.append(str(why))
    table["verdict"], table["reason"] = verdicts, reasons
    table.loc[table.verdict == Verdict.WITHHELD, list(SURE)] = math.nan  # no number may say what the verdict does not
    for column in ("seeds_low", "seeds_high"):
        table[column] = table[column].where(table.verdict == Verdict.UNDECIDED)
    table = table.drop(columns=["i", "j", "equivalent"])
    # the ranking is by all seeds of a configuration, a pair by those that both have: turn the pair where they disagree
    return seen_from(table, baseline, sign).reset_index(drop=True)


def verdict_of(pair: Any, sign: int, budgets: Mapping[str, Hashable]) -> tuple[Verdict, str]:
    """What the numbers of a pair allow to say of `a`, and the reason where they allow nothing.

    Args:
        pair: a row of `statistics.compare_pairs`, with the names `a` and `b`.
        sign: 1 where a larger value is better, else -1.
        budgets: as `difference_table` takes them.
    """
    if math.isnan(pair.p):
        return Verdict.UNKNOWN, Silence.CONSTANT
    if budgets.get(pair.a) != budgets.get(pair.b):
        return Verdict.WITHHELD, Silence.BUDGETS
    if not pair.p_adjusted < statistics.ALPHA:
        return (Verdict.EQUIVALENT if pair.equivalent else Verdict.UNDECIDED), ""
    return (Verdict.BETTER if sign * pair.difference > 0 else Verdict.WORSE), ""


def claims_of(pairs: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """`(better, worse)` of each pair with a claim.

    Args:
        pairs: `a`, `b` and `verdict` of each.
    """
    return {
        (pair["a"], pair["b"]) if pair["verdict"] == Verdict.BETTER else (pair["b"], pair["a"])
        for pair in pairs
        if pair["verdict"] in CLAIMED
    }


def seen_from(table: pd.DataFrame, baseline: str | None, sign: int) -> pd.DataFrame:
    """The same pairs, each seen from its better side; the baseline's come first, and are seen from the other side."""
    wrong = (sign * table.difference < 0) if baseline is None else (table.a == baseline)
    table = turned(table, wrong)
    if baseline is None:
        return table
    first = table.b == baseline
    rest = table[~first]
    return pd.concat([table[first], turned(rest, sign * rest.difference < 0)])


def turned(pairs: pd.DataFrame, which: pd.Series) -> pd.DataFrame:
    """The same pairs, of which those in `which` are seen from the other side. A claim stays with the better side."""
    seen = pairs[which]
    seen = seen.assign(
        a=seen.b,
        b=seen.a,
        difference=-seen.difference,
        low=-seen.high,
        high=-seen.low,
        improvement=1 - seen.improvement,
        verdict=seen.verdict.replace(OPPOSITE),
    )
    return pd.concat([pairs[~which], seen]).sort_index()
