"""From runs to what a report says of them: every table, once, before anything is drawn or written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from optbench.comparison import fairness, statistics
from optbench.comparison.answer import answer
from optbench.comparison.fairness import Claim
from optbench.comparison.read import Runs, determined, read_runs
from optbench.comparison.sensitivity import Interaction, Sensitivity, interaction, sensitivity
from optbench.records import metrics
from optbench.records.configuration import leaves
from optbench.records.metrics import CURVES
from optbench.records.record import STATUSES, RunRecord
from optbench.records.wording import near, plural, text


@dataclass(frozen=True)
class Comparison:
    """What a report says. Frames have plain column names; seconds, epochs and steps are numbers; nan is 'none'.

    Attributes:
        sources: the folders, as typed.
        metric: such as `test/accuracy`; `validation`: its counterpart, such as `val/accuracy`; `higher_is_better`.
        by: the keys that define a configuration; `averaged`: keys that also vary and were averaged at each seed.
        baseline: a configuration's name, or None.
        hues: configuration -> what colours it: its optimizer where optimizers are compared, else itself.
        runs: a row a run. `run` (folder's name), `folder`, `configuration`, `seed`, `status`, `used` (bool: it counts
            in the statistics), `note` (why not, or what is odd), `overrides` (text), `command` (repeats it), `error`
            (last line, '' if none), `metric`, `validation`, `gap` (train - test), `epochs`, `steps`, `best_epoch`,
            `best_seconds`, `epoch_seconds`, `seconds`, `memory_mb`, `device`, `commit`, `started`, then a column for
            each factor.
        curves: a row an epoch of each used or diverged run. `row` (index in runs), `configuration`, `seed`, `epoch`,
            `step`, `seconds`, then the columns of `curve_metrics` and `validation`.
        curve_metrics: those of val/accuracy, val/loss, train/loss, lr that were logged, in this order.
        ranking: a row a configuration, best first. `configuration`, `rank` (ties share it; 0: no result), `n`, `mean`,
            `low`, `high`, `sd`, `iqm`, `iqm_low`, `iqm_high`, `validation`, `gap`, `best_epoch`, `best_seconds`,
            `epoch_seconds`, `memory_mb`, `completed`, `diverged`, `failed`, `interrupted`, `running`.
        differences: a row a pair, `a` ahead of `b` (or `a` against the baseline `b`). `a`, `b`, `n` (common seeds),
            `difference` (a - b), `low`, `high`, `improvement` (share of seeds at which a is better), `p`, `p_holm`,
            `p_wilcoxon`, `detectable` (smallest true difference found in 80 % of sweeps of this size), `seeds_needed`
            (inf: over 1000), `verdict` (`better`, `worse`, `tie`, `unknown` with too few seeds, `withheld`).
        targets: a row a configuration and target. `configuration`, `target`, `reached`, `n`, and the median `epochs`,
            `steps`, `seconds` (inf: more than half missed it).
        profile: the performance profile's steps. `configuration`, `ratio` (>= 1), `share` (0 to 1).
        times_withheld: why times are not compared, or ''; their columns are nan then.
        violations: what makes this comparison unfair, a sentence each; `notes`: what a reader should know; `skipped`:
            folders that could not be read, a sentence each.
        answer: the sentences of the answer.
    """

    sources: list[str]
    metric: str
    validation: str
    higher_is_better: bool
    by: list[str]
    averaged: list[str]
    baseline: str | None
    hues: dict[str, str]
    runs: pd.DataFrame
    curves: pd.DataFrame
    curve_metrics: list[str]
    ranking: pd.DataFrame
    differences: pd.DataFrame
    targets: pd.DataFrame
    profile: pd.DataFrame
    sensitivities: list[Sensitivity]
    interaction: Interaction | None
    ledger: list[Claim]
    times_withheld: str
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)


def compare(
    sources: Sequence[str],
    by: Sequence[str] = (),
    baseline: str | None = None,
    metric: str = "test/accuracy",
    targets: Sequence[float] = (),
) -> Comparison:
    """Everything that a report says of the runs in or below `sources`.

    Raises:
        ValueError: where there are no runs, or `by`, `baseline` or `metric` name what they have not.
    """
    runs = read_runs(sources, metric)
    by = check_by(by, runs) or list(runs.factors)
    names = configuration_names(runs, by)
    frame = runs.frame.assign(configuration=names)
    frame["used"], frame["note"] = choose(runs, frame, by)
    averaged = [key for key in runs.factors if key not in by and not fixed_by(key, by, runs)]

    samples, blocks = sample(runs, frame, averaged)
    counts = count_statuses(frame)
    ranking = rank_configurations(frame, samples, counts, metric)
    order = list(ranking.configuration)
    if baseline is not None and baseline not in order:
        raise ValueError(
            f"baseline={baseline} is no configuration here{near(baseline, order)} There are: {some(order)}."
        )
    differences = difference_table(blocks[order], ranking, baseline, metric)
    ranking["rank"] = ranks(ranking, differences)
    ranking = ranking.sort_values(
        ["rank", "mean"], key=lambda c: c if c.name == "rank" else -metrics.sign(metric) * c, kind="stable"
    )
    ranking = pd.concat([ranking[ranking["rank"] > 0], ranking[ranking["rank"] == 0]], ignore_index=True)

    others = fairness.runs_on_other_data(runs)
    curves = curves_of(runs, frame, others)
    device_kinds = fairness.devices(runs, frame.used)
    withheld = ""
    if len(device_kinds) > 1:
        kinds = "; ".join(f"{plural(count, 'run')} on {name}" for name, count in device_kinds.items())
        withheld = f"Times are withheld: they come from different machines ({kinds}). Steps and epochs can be compared."
        frame[TIMES] = ranking[["best_seconds", "epoch_seconds"]] = math.nan
        curves["seconds"] = math.nan
    validation = metrics.at("val", metric)
    levels = list(targets) or choose_targets(curves[curves.row.map(frame.used).astype(bool)], validation)
    target_table, costs = time_to_targets(curves, frame, validation, levels, order)
    if withheld:
        target_table["seconds"] = math.nan

    factors = {key: runs.factors.get(key, runs.implied.get(key, [])) for key in dict.fromkeys([*by, *averaged])}
    sensitivities = [found for key in factors if (found := sensitivity(key, factors, runs.groups, frame, metric))]
    comparison = Comparison(
        sources=list(sources),
        metric=metric,
        validation=validation,
        higher_is_better=metrics.sign(metric) > 0,
        by=by,
        averaged=averaged,
        baseline=baseline,
        hues=hues(runs, frame, by),
        runs=frame.assign(**{factor_column(key, frame): list(map(str, column)) for key, column in factors.items()}),
        curves=curves,
        curve_metrics=[name for name in CURVES if curves[name].notna().any()],
        ranking=ranking,
        differences=differences,
        targets=target_table,
        profile=statistics.performance_profile(costs),
        sensitivities=sensitivities,
        interaction=interaction(factors, runs.groups, frame, metric),
        ledger=fairness.ledger(runs, frame.configuration, frame.used, trials(runs, frame, by)),
        times_withheld=withheld,
        skipped=runs.skipped,
    )
    comparison = replace(
        comparison, violations=warnings(comparison, runs, others, blocks), notes=notes(comparison, samples)
    )
    return replace(comparison, answer=answer(comparison))


# What must be equal for a fair comparison, and the keys that explain why it is not where they are what is compared.
UNFAIR = {
    "Initial weights": ("model", "data"),
    "Batch order": ("data", "augmentation"),
    "Most epochs allowed": ("trainer.max_epochs", "trainer", "experiment"),
    "Batch size": ("data.batch_size", "data", "experiment"),
    "Chosen by": ("monitor", "experiment"),
    "Weights tested": ("test_weights", "experiment"),
    "Test set read": (),
}
TIMES = ["best_seconds", "epoch_seconds", "seconds", "total_seconds"]


def check_by(by: Sequence[str], runs: Runs) -> list[str]:
    """Refuse a key that does not vary.

    Raises:
        ValueError: with what does.
    """
    varying = {**runs.factors, **runs.implied}
    known = dict.fromkeys([*varying, *(key for record in runs.records for key in settings(record))])
    there = f"What varies: {', '.join(runs.factors) or 'nothing but the seed'}."
    for key in by:
        if key == "seed":
            raise ValueError(f"by=seed: seeds are the samples, not what is compared. {there}")
        if key not in known:
            raise ValueError(f"by={key} is no key of these runs{near(key, list(known))} {there}")
        if key not in varying:
            values = list(dict.fromkeys(text(settings(record).get(key)) for record in runs.records))
            if len(values) > 1:
                raise ValueError(
                    f"by={key} is not compared: it follows the seed, or says where and how a run is kept. {there}"
                )
            raise ValueError(f"by={key} does not vary: it is {values[0]} in every run. {there}")
    return list(dict.fromkeys(by))


def settings(record: RunRecord) -> dict[str, Any]:
    """The choices and the dotted keys of a run."""
    return record.choices | dict(leaves(record.config))


def factor_column(key: str, frame: pd.DataFrame) -> str:
    """A factor's column in `Comparison.runs`: its key, unless that names a column already, like that of `+note=…`."""
    return f"{key}=" if key in (*frame.columns, "configuration", "used") else key


def fixed_by(key: str, by: Sequence[str], runs: Runs) -> bool:
    return determined(runs.factors[key], [{**runs.factors, **runs.implied}[other] for other in by])


def some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def configuration_names(runs: Runs, by: Sequence[str]) -> list[str]:
    """`sgd`, or `sgd lr=0.01`: a group's choice as it is, other keys by their last word where that is enough."""
    words = [key.rpartition(".")[2] for key in by]
    columns = {**runs.factors, **runs.implied}
    parts = []
    for key, word in zip(by, words, strict=True):
        bare = key in runs.groups and key != "experiment" and not {"none", "default"} & set(map(text, columns[key]))
        name = "" if bare else (key if words.count(word) > 1 else word) + "="
        parts.append([name + text(value) for value in columns[key]])
    return [" ".join(part) for part in zip(*parts, strict=True)] if parts else ["as configured"] * len(runs.records)


def choose(runs: Runs, frame: pd.DataFrame, by: Sequence[str]) -> tuple[pd.Series, pd.Series]:
    """Which runs count, and why not the others: for each configuration and seed the newest that ended by itself."""
    used, note = frame.status == "completed", frame.note.copy()

    def add(row: Any, why: str) -> None:
        note[row] = f"{note[row]}; {why}".removeprefix("; ")

    elsewhere = fairness.runs_on_other_data(runs)
    for row, why in elsewhere.items():
        used[row] = False
        add(row, f"left out: {why}")
    for row in frame.index[used & frame.metric.isna()]:
        used[row] = False
        add(row, "left out: it has no such metric")
    others = [pd.Series(map(text, column)) for key, column in runs.factors.items() if key not in by]
    ended = frame.status.isin(("completed", "diverged"))
    for _, group in frame.groupby([frame.configuration, frame.seed, *others], sort=False):
        if len(group) == 1:
            continue
        group = group.drop(elsewhere, errors="ignore")
        finished = group[ended[group.index]].sort_values("started", kind="stable")
        if finished.empty:
            continue
        for row in group.index.drop(finished.index[-1]):
            used[row] = False
            add(row, f"repeated by {finished.run.iloc[-1]}")
    return used, note


def sample(runs: Runs, frame: pd.DataFrame, averaged: Sequence[str]) -> tuple[dict[str, list[float]], pd.DataFrame]:
    """The samples of each configuration, one a seed, and the same as a table of blocks by configuration.

    A block is a seed in one version of the code: only within it are runs paired.
    """
    rows = frame[frame.used].assign(code=[str(fairness.code(runs.records[row])) for row in frame.index[frame.used]])
    means = rows.groupby(["configuration", "seed", "code"], sort=False).metric.mean()
    names = list(dict.fromkeys(frame.configuration))
    table = (
        means.unstack("configuration").reindex(columns=names)
        if len(means)
        else pd.DataFrame(columns=names, dtype=float)
    )
    by_seed = rows.groupby(["configuration", "seed"], sort=False).metric.mean()
    samples = {name: list(by_seed[name]) if name in by_seed.index.get_level_values(0) else [] for name in names}
    return samples, table.astype(float)


def count_statuses(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs of each status, without those that were repeated."""
    counted = frame[~frame.note.str.contains("repeated by|left out: another")]
    table = counted.groupby(["configuration", "status"], sort=False).size().unstack("status", fill_value=0)
    return table.reindex(index=dict.fromkeys(frame.configuration), columns=STATUSES, fill_value=0)


def rank_configurations(
    frame: pd.DataFrame, samples: Mapping[str, Sequence[float]], counts: pd.DataFrame, metric: str
) -> pd.DataFrame:
    """A row a configuration, the best mean first; without `rank`, which the differences decide."""
    rows = []
    columns = ["validation", "gap", "best_epoch", "best_seconds", "epoch_seconds", "memory_mb"]
    means = frame[frame.used].groupby("configuration")[columns].mean()
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


def difference_table(blocks: pd.DataFrame, ranking: pd.DataFrame, baseline: str | None, metric: str) -> pd.DataFrame:
    """Every pair, the better mean first; with a baseline its pairs lead, and are seen from the other configuration."""
    names = list(blocks.columns)
    table = statistics.compare_pairs(blocks.to_numpy(float), metrics.sign(metric) > 0)
    table.insert(0, "a", [names[i] for i in table.i])
    table.insert(1, "b", [names[j] for j in table.j])
    alone = ranking.set_index("configuration").n.to_dict()
    diverged = ranking.set_index("configuration").diverged.to_dict()
    verdicts = []
    sign = metrics.sign(metric)
    for pair in table.itertuples():
        both = min(alone[pair.a], alone[pair.b])
        if not both or (pair.n < 2 and both < 2) or (pair.n and math.isnan(pair.p)):
            verdict = "unknown"
        elif pair.n < 2:
            verdict = "withheld"  # there are seeds enough, but no two runs of them belong together
        elif not pair.p_holm < statistics.ALPHA:
            verdict = "tie"
        else:
            ahead, behind = (pair.a, pair.b) if sign * pair.difference > 0 else (pair.b, pair.a)
            verdict = "better" if sign * pair.difference > 0 else "worse"
            if diverged[ahead] > diverged[behind]:
                verdict = "withheld"  # its mean is that of the runs that survived
        verdicts.append(verdict)
    table["verdict"] = verdicts
    needed = np.maximum(table.seeds_needed, table.n + 1)
    table["seeds_needed"] = needed.where(table.verdict == "tie")
    table = table.drop(columns=["i", "j"])
    # the ranking is by all seeds of a configuration, a pair by those that both have: turn the pair where they disagree
    wrong = (sign * table.difference < 0) if baseline is None else (table.a == baseline)
    table = pd.concat([table[~wrong], turned(table[wrong])]).sort_index()
    if baseline is not None:
        first = table.b == baseline
        rest = table[~first]
        against = sign * rest.difference < 0
        rest = pd.concat([rest[~against], turned(rest[against])]).sort_index()
        table = pd.concat([table[first], rest])
    return table.reset_index(drop=True)


def turned(pairs: pd.DataFrame) -> pd.DataFrame:
    """The same pairs, seen from the other side."""
    return pairs.assign(
        a=pairs.b,
        b=pairs.a,
        difference=-pairs.difference,
        low=-pairs.high,
        high=-pairs.low,
        improvement=1 - pairs.improvement,
        verdict=pairs.verdict.replace({"better": "worse", "worse": "better"}),
    )


def ranks(ranking: pd.DataFrame, differences: pd.DataFrame) -> list[int]:
    """One more than the number of configurations that are claimed better; 0 without a result."""
    losers = pd.concat(
        [differences.b[differences.verdict == "better"], differences.a[differences.verdict == "worse"]]
    ).value_counts()
    return [1 + int(losers.get(row.configuration, 0)) if row.n else 0 for row in ranking.itertuples()]


def curves_of(runs: Runs, frame: pd.DataFrame, others: Mapping[int, str]) -> pd.DataFrame:
    """The epochs of runs that count, and of those that diverged on the same images."""
    counted = frame.used | ((frame.status == "diverged") & ~frame.note.str.contains("repeated by|left out"))
    rows = runs.curves[runs.curves.row.map(counted).astype(bool)]
    names = {"configuration": rows.row.map(frame.configuration), "seed": rows.row.map(frame.seed)}
    return rows.assign(**names).reset_index(drop=True)


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
    curves: pd.DataFrame, frame: pd.DataFrame, validation: str, targets: Sequence[float], order: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """When each configuration first reached each target, medians over its runs; and the steps by target and seed."""
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
        cost = first.step.groupby([everyone.seed, everyone.configuration]).mean().unstack()
        costs.append(cost.reindex(columns=order))
    return pd.DataFrame(rows, columns=TARGETS), pd.concat(costs) if costs else pd.DataFrame()


TARGETS = ["configuration", "target", "reached", "n", "epochs", "steps", "seconds"]


def hues(runs: Runs, frame: pd.DataFrame, by: Sequence[str]) -> dict[str, str]:
    """Configurations of one optimizer share a colour; where optimizers are not compared, each has its own."""
    if "optimizer" not in by:
        return {name: name for name in frame.configuration}
    return dict(zip(frame.configuration, runs.factors.get("optimizer", runs.implied.get("optimizer", [])), strict=True))


def trials(runs: Runs, frame: pd.DataFrame, by: Sequence[str]) -> dict[str, int]:
    """How many configurations each choice of the first group had: its budget for tuning."""
    group = next((key for key in by if key in runs.groups), None)
    if group is None:
        return {}
    pairs = {(name, str(choice)) for name, choice in zip(frame.configuration, runs.factors[group], strict=True)}
    return {choice: sum(c == choice for _, c in pairs) for choice in dict.fromkeys(map(str, runs.factors[group]))}


def warnings(comparison: Comparison, runs: Runs, others: Mapping[int, str], blocks: pd.DataFrame) -> list[str]:
    """What makes this comparison unfair, with what is withheld for it."""
    violations = []
    for why in dict.fromkeys(others.values()):
        names = [runs.frame.run[row] for row, reason in others.items() if reason == why]
        verbs = ("was", "is") if len(names) == 1 else ("were", "are")
        violations.append(
            f"{plural(len(names), 'run')} {verbs[0]} measured on {why} and {verbs[1]} left out of every figure: "
            f"{some(names, 4)}."
        )
    codes = list(dict.fromkeys(blocks.index.get_level_values("code"))) if len(blocks) else []
    if len(codes) > 1:
        pairs = comparison.differences
        apart = pairs[(pairs.verdict == "withheld") & (pairs.n < 2)]
        verb = "has" if len(apart) == 1 else "have"
        lost = f", and {len(apart)} of {plural(len(pairs), 'pair')} {verb} too few of those for a claim"
        violations.append(
            f"The runs come from {len(codes)} versions of the code or of PyTorch; only runs of one version are paired"
            f"{lost if len(apart) else ''}."
        )
    for claim in comparison.ledger:
        unequal = claim.item in UNFAIR and claim.equal is False
        if unequal and not any(key.startswith(UNFAIR[claim.item]) for key in comparison.by):
            violations.append(f"{claim.item}: not equal ({claim.text}). What is claimed here may be due to that.")
    if comparison.averaged and len(blocks):
        grid = (
            comparison.runs[comparison.runs.used]
            .groupby("configuration")[[factor_column(key, runs.frame) for key in comparison.averaged]]
            .agg(lambda c: tuple(sorted(set(c))))
        )
        uneven = [key for key in comparison.averaged if grid[factor_column(key, runs.frame)].nunique() > 1]
        if uneven:
            violations.append(
                f"Not every configuration has the same values of {', '.join(uneven)}, over which its figures are "
                "averages."
            )
    return violations


def notes(comparison: Comparison, samples: Mapping[str, Sequence[float]]) -> list[str]:
    """What was taken for what, and what a reader should know."""
    frame, found = comparison.runs, []
    counts = ", ".join(f"{count} {status}" for status in STATUSES if (count := int((frame.status == status).sum())))
    what = f"compared by {', '.join(comparison.by)}" if comparison.by else "nothing varies but the seed"
    seeds = sorted(set(frame.seed[frame.used]))
    shown = ", ".join(map(str, seeds[:10])) + (" …" if len(seeds) > 10 else "")
    found.append(f"{plural(len(frame), 'run')} ({counts}), {what}; seed ({shown or 'none'}) numbers the samples.")
    if comparison.averaged:
        verbs = ("varies", "is") if len(comparison.averaged) == 1 else ("vary", "are")
        found.append(f"{', '.join(comparison.averaged)} also {verbs[0]} and {verbs[1]} averaged at each seed.")
    sizes = {len(values) for values in samples.values() if values}
    if len(sizes) > 1:
        found.append(
            "The configurations have unequal numbers of seeds: a mean is over all of its own, a difference over "
            "those that both have."
        )
    if frame.used.any() and frame[frame.used].groupby("configuration").metric.nunique().max() == 1 and max(sizes) > 1:
        found.append(
            "Every seed gives exactly the same result: the seed has no effect here, and the samples count as one."
        )
    if (frame.status == "running").any():
        found.append("Runs marked `running` are being written or were killed; they count once they have ended.")
    if comparison.ranking.diverged.any():
        found.append(
            "Means are over the runs that finished. A configuration with more diverged runs than another is never "
            "claimed to be better."
        )
    odd = frame[frame.note.str.contains("metrics.csv")]
    if len(odd):
        found.append(f"Curves or part of them are missing from {plural(len(odd), 'run')}: {some(list(odd.run), 4)}.")
    return found
