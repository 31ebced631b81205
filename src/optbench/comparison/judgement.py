"""What follows from the facts: who is ahead, how sure that is, and what is unfair. Numbers, and no sentence."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from optbench.comparison import fairness, statistics, times
from optbench.comparison.factors import CONTESTED, separate
from optbench.comparison.facts import Facts, LeftOut
from optbench.comparison.fairness import Claim
from optbench.comparison.importance import Combinations, Importance, combine, importance
from optbench.comparison.looks import over_looks
from optbench.comparison.sensitivity import Interaction, Sensitivity, interaction, sensitivity
from optbench.comparison.times import choose_targets
from optbench.comparison.verdicts import Family, claims_of, difference_table
from optbench.records import metrics
from optbench.records.record import STATUSES
from optbench.records.wording import near, some

MOST_COMPARED = 100  # configurations of which all pairs are compared unasked: 4,950
MOST_ASKED = 200  # of which pairs=all compares them: 19,900, with their times 90 MB of statistics.csv


@dataclass(frozen=True)
class Judgement:
    """What follows from the facts. Frames as in `Facts`.

    Attributes:
        ranking: one row per configuration; first those that are compared, the best ahead. `configuration`, `rank`
            (ties share it; 0: no result, or a grid's configuration that was not chosen), `n`,
            `mean`, `low`, `high`, `sd`, `iqm`, `iqm_low`, `iqm_high`, `validation`, `gap`, `best_epoch`,
            `best_seconds`, `epoch_seconds`, `seconds`, `parameters` (nan where its runs do not have the same number),
            `memory_mb`, `completed`, `diverged`, `failed`, `interrupted`, `running`.
        tuned: of the configurations of each contestant (an optimizer, a network, or a pair of them), the one that
            validation chooses. Of one contestant: all.
        flattery: by how much the means of the tuned flatter on average, as the seeds that chose them also test them;
            nan where nothing was chosen.
        family: the pairs that are compared.
        margin: differences of the metric that are smaller than that do not matter.
        gap: the difference for which seeds are planned.
        differences: one row per pair of the family, `a` ahead of `b` (or `a` against the baseline `b`). `a`, `b`, `n`
            (common seeds), `difference` (a - b), `low`, `high` (hold for the whole family at once; 0 is an open end),
            `improvement` (fraction of seeds at which a is better), `p`, `p_adjusted` (for the family), `p_wilcoxon`,
            `detectable` (smallest true difference found in 80 % of sweeps of this size), `verdict` (a `Verdict`),
            `reason` (why it is withheld or unknown, '' otherwise), and of an undecided pair `seeds_low`, `seeds_high`:
            so many seeds find a difference of `gap` (inf: over 1000).
        spread_alike: p of the test that the compared configurations spread alike, but for those that are broken.
        targets: one row per configuration and target. `configuration`, `target`, `reached`, `n`, and the median
            `epochs`, `steps`, `seconds` (inf: more than half missed it).
        times: one row per target, unit (`time_unit`, and `seconds` on equal machines) and pair of the family, the
            hardest target first. `target`, `unit`, `a`, `b`, `n` (common seeds), `ratio` (of the times, a / b), `low`,
            `high` (hold for all pairs and targets at once; 1 is an open end), `p_adjusted`, `censored` (a run of either
            never reached it: the ratio is within the budget), `verdict` (better: a is faster).
        time_unit: in which times are compared: `steps`, or `epochs` where batches differ in size.
        profile: the performance profile's corners. `configuration`, `ratio` (>= 1), `fraction` (0 to 1).
        sensitivities: one per varied number; `interaction`: of two varied factors, else None.
        ledger: what was equal between the runs; `unequal`: those claims that make this comparison unfair.
        code_versions: how many versions of the code the runs that count come from.
        uneven: keys of `Facts.averaged` that do not have the same values in every configuration.
        against: the configuration that is in every pair of the family: the baseline, the best of very many, or None.
        combinations: of three or more factors that were compared or averaged.
        importance: of these factors, where the results fill a grid.
    """

    ranking: pd.DataFrame
    tuned: list[str]
    flattery: float
    family: Family
    margin: float
    gap: float
    differences: pd.DataFrame
    spread_alike: float
    targets: pd.DataFrame
    times: pd.DataFrame
    time_unit: str
    profile: pd.DataFrame
    sensitivities: list[Sensitivity]
    interaction: Interaction | None
    ledger: list[Claim]
    unequal: list[Claim]
    code_versions: int
    uneven: list[str]
    against: str | None = None
    combinations: Combinations | None = None
    importance: Importance | None = None


def judge(facts: Facts, margin: float, gap: float, levels: Sequence[float] = (), every_pair: bool = False) -> Judgement:
    """Everything that follows from the facts.

    Args:
        margin, gap: as in `Judgement`.
        levels: the targets, or none to choose them from the data.
        every_pair: compare also the configurations of a grid that were not chosen, and with a baseline also the others.

    Raises:
        ValueError: for a baseline that is no configuration, or every pair of too many.
    """
    frame, metric, validation = facts.runs, facts.metric, facts.validation
    samples, blocks = sample(facts)
    ranking = rank_configurations(frame, samples, count_statuses(facts), metric)
    order = list(ranking.configuration)
    check_pairs(order, facts.baseline, every_pair)
    ledger = fairness.ledger(frame, facts.records, facts.factors, configurations_per_contestant(facts))
    unequal = fairness.unfair(ledger, facts.by, facts.averaged)
    unfair_budgets = any(claim.item is fairness.Item.MAX_EPOCHS for claim in unequal)
    budgets = fairness.budgets(frame, facts.records) if unfair_budgets else {}
    chosen = tuned(ranking, facts.contestants, metric)
    grid = len(chosen) < (ranking.n > 0).sum()
    compared, family, against = choose_pairs(ranking, chosen if grid else order, facts.baseline, every_pair)

    def table_of(rows: pd.DataFrame, questions: float) -> pd.DataFrame:
        return difference_table(
            rows[compared], ranking, facts.baseline, family, against, margin, gap, metric, budgets, questions
        )

    looks = facts.looks
    if looks.plan is None:
        differences = table_of(blocks, looks.questions)
    else:
        differences = over_looks(looks.plan, blocks, frame.groupby("configuration").seed.max(), table_of)
    ranking = in_order(ranking.assign(rank=ranks(ranking, compared, differences, facts.baseline)), metric)

    curves = facts.curves
    # a step of a larger batch sees more images
    same_batches = any(claim.item is fairness.Item.BATCH_SIZE and claim.equal is not False for claim in ledger)
    unit = "steps" if same_batches or not ledger else "epochs"
    levels = list(levels) or choose_targets(curves[curves.row.map(frame.used).astype(bool)], validation)
    reached = times.reach_targets(curves, validation, levels)
    targets = times.median_times(reached, frame.configuration, order)
    seconds = [] if facts.times_withheld else ["seconds"]
    codes = fairness.versions_of_code(facts.records)
    blocks_of = pd.Series(
        [f"{record.seed} {code}" for record, code in zip(facts.records, codes, strict=True)], frame.index, dtype=object
    )
    faster = times.compare_times(
        reached,
        frame,
        blocks_of,
        curves,
        compared,
        facts.baseline,
        family,
        against,
        [unit, *seconds],
        budgets,
        looks.questions_of_times,
    )
    if facts.times_withheld:
        targets["seconds"] = math.nan

    groups = facts.factors.groups
    varied = separate(list(dict.fromkeys([*facts.by, *facts.averaged])), facts.factors, facts.records)
    combined = combine(varied, frame)
    return Judgement(
        ranking=ranking,
        tuned=tuned(ranking, facts.contestants, metric),  # the chosen again, in the order of the ranks
        flattery=flattery(facts) if grid else math.nan,
        family=family,
        margin=margin,
        gap=gap,
        differences=differences,
        spread_alike=statistics.spread_alike([samples[name] for name in compared]),
        targets=targets,
        times=faster,
        time_unit=unit,
        profile=statistics.performance_profile(times.costs(reached, frame, order, unit)),
        sensitivities=[found for key in varied if (found := sensitivity(key, varied, groups, frame, metric))],
        interaction=interaction(varied, groups, frame, metric),
        ledger=ledger,
        unequal=unequal,
        code_versions=blocks.index.get_level_values("code").nunique() if len(blocks) else 0,
        uneven=uneven(facts),
        against=against,
        combinations=combined,
        importance=importance(combined) if combined else None,
    )


# the ranking


def sample(facts: Facts) -> tuple[dict[str, list[float]], pd.DataFrame]:
    """The results of the runs that count, in two forms.

    Returns:
        configuration -> its samples, one per seed; and the blocks: one row per seed and version of the code (levels
        `seed` and `code` of the index), one column per configuration, nan where there is no result. Only within a
        block are runs paired.
    """
    frame = facts.runs
    codes = fairness.versions_of_code([facts.records[row] for row in frame.index[frame.used]])
    rows = frame[frame.used].assign(code=codes)[["configuration", "seed", "code", "metric"]]
    names = list(dict.fromkeys(frame.configuration))
    samples: dict[str, list[float]] = {name: [] for name in names}
    for (name, _), mean in rows.groupby(["configuration", "seed"], sort=False).metric.mean().items():
        samples[name].append(mean)
    if rows.empty:
        return samples, pd.DataFrame(columns=names, dtype=float)
    means = rows.groupby(["configuration", "seed", "code"], sort=False).metric.mean()
    return samples, means.unstack("configuration").reindex(columns=names).astype(float)


def count_statuses(facts: Facts) -> pd.DataFrame:
    """Runs of each status, without those that were repeated or are on other data."""
    elsewhere = {LeftOut.REPEATED, LeftOut.OTHER_DATA}
    frame = facts.runs.drop([row for row, reasons in facts.left_out.items() if elsewhere & reasons.keys()])
    table = frame.groupby(["configuration", "status"], sort=False).size().unstack("status", fill_value=0)
    return table.reindex(index=dict.fromkeys(facts.runs.configuration), columns=STATUSES, fill_value=0)


def rank_configurations(
    frame: pd.DataFrame, samples: Mapping[str, Sequence[float]], counts: pd.DataFrame, metric: str
) -> pd.DataFrame:
    """As `Judgement.ranking`, the best mean first. `rank` is still 0: the differences decide it later.

    Args:
        frame: as `Facts.runs`.
        samples: configuration -> the metric, one value per seed.
        counts: how many runs of each configuration (row) have each status (column).
    """
    rows = []
    columns = ["validation", "gap", "best_epoch", "best_seconds", "epoch_seconds", "seconds", "parameters", "memory_mb"]
    its = frame[frame.used].groupby("configuration")
    means = its[columns].mean()
    means["parameters"] = means.parameters.where(its.parameters.nunique(dropna=False) == 1)
    for name, values in samples.items():
        low, high = statistics.mean_interval(values)
        iqm_low, iqm_high = statistics.iqm_interval(values)
        rows.append(
            {
                "configuration": name,
                "rank": 0,
                "n": len(values),
                "mean": float(np.mean(values)) if values else math.nan,
                "low": low,
                "high": high,
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
                "iqm": statistics.iqm(values),
                "iqm_low": iqm_low,
                "iqm_high": iqm_high,
                **(means.loc[name].to_dict() if name in means.index else dict.fromkeys(columns, math.nan)),
                **counts.loc[name].to_dict(),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("mean", key=lambda mean: -metrics.sign(metric) * mean, kind="stable", ignore_index=True)


def ranks(
    ranking: pd.DataFrame, compared: Collection[str], differences: pd.DataFrame, baseline: str | None
) -> list[int]:
    """One more than the number of configurations that are claimed better; 0 without a result or a comparison."""
    above: dict[str, set[str]] = {}  # configuration -> those that are claimed better than it
    for better, worse in claims_of(differences.to_dict("records")):
        above.setdefault(worse, set()).add(better)
    for others in above.values():
        if baseline in others:  # what is worse than the baseline is worse than all that is better than it
            others |= above.get(baseline, set())
    return [
        1 + len(above.get(row.configuration, ())) if row.n and row.configuration in compared else 0
        for row in ranking.itertuples()
    ]


def in_order(ranking: pd.DataFrame, metric: str) -> pd.DataFrame:
    """By rank, then by mean; then what has a result and no rank; last what has no result."""
    ranking = ranking.sort_values(
        ["rank", "mean"], key=lambda c: c.replace(0, np.inf) if c.name == "rank" else -metrics.sign(metric) * c
    )
    return ranking.reset_index(drop=True)


def tuned(ranking: pd.DataFrame, contestants: Mapping[str, str], metric: str) -> list[str]:
    """As `Judgement.tuned`, in the order of the ranking."""
    results = ranking[ranking.n > 0]
    contestant = results.configuration.map(contestants)
    if contestant.nunique() < 2:
        return list(results.configuration)
    validation = (metrics.sign(metric) * results.validation).where(results.diverged == 0).fillna(-math.inf)
    return list(results.configuration[sorted(validation.groupby(contestant).idxmax())])


def flattery(facts: Facts) -> float:
    """As `Judgement.flattery`: the mean over the contestants."""
    used = facts.runs[facts.runs.used & facts.runs.validation.notna()]
    sizes = []
    for _, its in used.groupby(used.configuration.map(facts.contestants)):
        validation, test = (
            its.pivot_table(key, "seed", "configuration").to_numpy(float) for key in ("validation", "metric")
        )
        sizes.append(statistics.flattery(validation, test, facts.higher_is_better))
    return float(np.mean(sizes)) if sizes else math.nan


# which pairs are compared


def check_pairs(configurations: Sequence[str], baseline: str | None, every_pair: bool) -> None:
    """Raises ValueError for a baseline that is no configuration, or every pair of too many."""
    if baseline is not None and baseline not in configurations:
        raise ValueError(
            f"baseline={baseline} is no configuration here{near(baseline, configurations)} "
            f"There are: {some(configurations, 12)}."
        )
    if every_pair and len(configurations) > MOST_ASKED:
        pairs = len(configurations) * (len(configurations) - 1) // 2
        raise ValueError(
            f"pairs=all: {len(configurations)} configurations have {pairs:,} pairs, and it compares those of at most "
            f"{MOST_ASKED}. Leave it out, give fewer runs, or compare by fewer keys (by=…)."
        )


def choose_pairs(
    ranking: pd.DataFrame, chosen: Sequence[str], baseline: str | None, every_pair: bool
) -> tuple[list[str], Family, str | None]:
    """The configurations that are compared, in the order of the ranking, and `family` and `against` of `Judgement`.

    Args:
        chosen: of a grid the tuned configurations, else all.
    """
    order = list(ranking.configuration)
    if every_pair:
        return order, Family.ALL, None
    wanted = {*chosen, baseline}
    compared = [name for name in order if name in wanted]
    if baseline is not None:
        return compared, Family.BASELINE, baseline
    if len(compared) > MOST_COMPARED:
        return compared, Family.LEADER, leader(ranking)
    return compared, (Family.WINNERS if len(chosen) < len(order) else Family.ALL), None


def leader(ranking: pd.DataFrame) -> str:
    """The best mean of those of which a claim can be made, if there is any: three seeds, and no run that diverged."""
    sound = ranking[(ranking.n >= statistics.FEWEST) & (ranking.diverged == 0)]
    return str((ranking if sound.empty else sound).configuration.iloc[0])


# what is unfair


def configurations_per_contestant(facts: Facts) -> dict[str, int]:
    """Contestant -> how many configurations it had: its budget for tuning.

    Where neither networks nor optimizers are compared, the same of each choice of the first group; {} without a group.
    """
    group = next((key for key in facts.by if key in facts.factors.groups), None)
    if group is None:
        return {}
    if CONTESTED.keys() & set(facts.by):
        choices = [facts.contestants[name] for name in facts.runs.configuration]
    else:
        choices = list(map(str, facts.factors.varying[group]))
    pairs = set(zip(facts.runs.configuration, choices, strict=True))
    return {choice: sum(other == choice for _, other in pairs) for choice in dict.fromkeys(choices)}


def uneven(facts: Facts) -> list[str]:
    """As `Judgement.uneven`."""
    used = facts.runs.used
    found = []
    for key in facts.averaged:
        values = pd.Series(facts.factors.varying[key], dtype=object).map(str)[used]
        sets = values.groupby(facts.runs.configuration[used]).agg(lambda column: tuple(sorted(set(column))))
        if sets.nunique() > 1:
            found.append(key)
    return found
