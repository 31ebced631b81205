"""Looks at the same runs with fewer seeds: how they are counted, and what that leaves for a claim now."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.comparison.foreign import ForeignRecord
from optbench.comparison.statistics import ALPHA
from optbench.comparison.verdicts import DECIDED, OPPOSITE, SURE, Silence, Verdict
from optbench.records.looks import LOOKS_JSON, Plan, Report, moment, now, read_reports
from optbench.records.record import RunRecord
from optbench.records.wording import names, plural

SWEEP = "multirun.yaml"


@dataclass(frozen=True)
class Looks:
    """When the runs of a comparison were looked at.

    Attributes:
        plan: of the sweep, where all runs are of one whose looks were planned.
        earlier: otherwise the reports after which seeds were added, the oldest first.
        runs: a hash of the runs that count; `seeds` says how many seeds they are.
        places: the sweeps (or single runs) that they are in.
    """

    plan: Plan | None = None
    earlier: list[Report] = field(default_factory=list)
    runs: str = ""
    seeds: str = ""
    places: list[Path] = field(default_factory=list)

    @property
    def level(self) -> float:
        """Of how many sweeps without any difference this look may claim one."""
        if self.plan is None:
            return ALPHA / (1 + len(self.earlier))
        return self.plan.looks[-1].level if self.plan.looks else min(self.plan.levels.values())

    @property
    def questions(self) -> float:
        """How many questions share the 5 %: what `statistics.compare_pairs` takes."""
        return ALPHA / self.level

    @property
    def questions_of_times(self) -> float:
        """The same for times, which are not judged look by look: a plan's looks share the 5 % equally."""
        return self.questions if self.plan is None else len(self.plan.levels)


def find_looks(frame: pd.DataFrame, records: Sequence[RunRecord], metric: str) -> Looks:
    """What is known of looks at these runs.

    The looks of a plan count whenever its runs are compared together with others. Elsewhere, reports count as looks:
    those after which seeds were added.

    Args:
        frame: `folder`, `configuration`, `seed`, `started`, `used` of each run; `records` in its order.

    Raises:
        ValueError: where a plan cannot be read.
    """
    used = frame[frame.used]
    own = used.loc[[not isinstance(records[row], ForeignRecord) for row in used.index]]
    own = own.assign(place=[place_of(Path(folder)) for folder in own.folder])
    places = list(dict.fromkeys(own.place))
    plans = {where: plan for where in places if (plan := Plan.read(where))}
    runs, seeds = digest(used, records), seeds_of(used)
    if len(places) == 1 and plans and len(own) == len(used):
        return Looks(plans[places[0]], [], runs, seeds, places)
    reports = {
        where: [report for report in read_reports(where) if report.metric == metric and report.runs != runs]
        for where in places
        if where not in plans
    }
    earlier = before_more_seeds(reports, own)
    for plan in plans.values():
        each = plural(len(plan.configurations), "configuration")
        earlier += [Report(look.time, metric, "", f"{look.seeds} seeds of {each}") for look in plan.looks]
    return Looks(None, sorted(earlier, key=lambda report: moment(report.time)), runs, seeds, places)


def before_more_seeds(reports: Mapping[Path, Sequence[Report]], runs: pd.DataFrame) -> list[Report]:
    """The reports after which seeds were added to a configuration that they had, each once.

    Its runs are then also in a sweep that began later: somebody who could know the report added them. A sweep's own
    runs, also those that resumed, were planned when it began.

    Args:
        reports: those of the runs in a place.
        runs: `place`, `configuration`, `started` of each.
    """
    began: dict[Path, datetime] = {}  # of each place, when its first run began
    names_in: dict[Path, set[str]] = {}  # of each place, the configurations that have runs in it
    for where, name, started in zip(runs.place, runs.configuration, runs.started, strict=True):
        names_in.setdefault(where, set()).add(name)
        with suppress(ValueError):  # a record without a time that can be read tells nothing
            began[where] = min(began.get(where, moment(started)), moment(started))
    seen: dict[str, Report] = {}
    known: dict[str, set[str]] = {}  # of each report, the configurations whose runs it had
    for where, those in reports.items():
        for report in those:
            seen.setdefault(report.runs, report)
            known.setdefault(report.runs, set()).update(names_in[where])

    def seeds_were_added(report: Report) -> bool:
        later = [where for where, start in began.items() if start > moment(report.time)]
        return any(names_in[where] & known[report.runs] for where in later)

    return [report for report in seen.values() if seeds_were_added(report)]


def place_of(run: Path) -> Path:
    """The sweep's folder, or that of a single run."""
    return run.parent if (run.parent / SWEEP).is_file() or (run.parent / LOOKS_JSON).is_file() else run


def digest(used: pd.DataFrame, records: Sequence[RunRecord]) -> str:
    """The same for the same runs, wherever their folders are."""
    lines = sorted(f"{records[row].started} {records[row].overrides}" for row in used.index)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def seeds_of(used: pd.DataFrame) -> str:
    """`3 seeds of 4 configurations`, `3 to 5 seeds of 4 configurations`."""
    counts = used.groupby("configuration").seed.nunique()
    if counts.empty:
        return "no seed"
    least, most = counts.min(), counts.max()
    seeds = plural(most, "seed") if least == most else f"{least} to {plural(most, 'seed')}"
    return f"{seeds} of {plural(len(counts), 'configuration')}"


def report_of(looks: Looks, metric: str, differences: pd.DataFrame) -> tuple[list[Path], Report] | None:
    """Where this report is noted, and how; None where it could claim nothing, or its looks were planned."""
    if looks.plan is not None or not differences.p.notna().any():
        return None
    places = [where for where in looks.places if not (where / LOOKS_JSON).is_file()]
    return places, Report(now(), metric, looks.runs, looks.seeds)


def over_looks(
    plan: Plan,
    blocks: pd.DataFrame,
    last_seed: pd.Series,
    table_of: Callable[[pd.DataFrame, float], pd.DataFrame],
) -> pd.DataFrame:
    """The pairs of a planned sweep: of each, the row of the newest look that decided it, else of its last look.

    All looks together claim falsely in at most 5 % of sweeps, and all their intervals hold at once in 95 %, because
    the levels of the looks add up to 5 %. So a claim of any look may be kept. A pair has a look only if both
    configurations trained for it: with old runs alone, a later and higher level would be a second chance.

    Args:
        blocks: results, `(blocks, configurations)`, with a level `seed` in the index unless they are empty.
        last_seed: configuration -> the highest seed with which it began to train.
        table_of: makes `Judgement.differences` of some rows of `blocks`, for this many questions.

    Returns:
        as `Judgement.differences`; before the first look, nothing is claimed in it.
    """
    seeds = blocks.index.get_level_values("seed") - plan.first_seed if "seed" in blocks.index.names else pd.Index([])
    if not plan.looks:
        first = min(plan.levels)
        table = table_of(blocks[seeds < first], ALPHA / plan.levels[first])
        table = table.assign(verdict=Verdict.WITHHELD, reason=str(Silence.PLANNED))
        table[[*SURE, "seeds_low", "seeds_high"]] = math.nan
        return table
    kept: dict[frozenset[str], dict[str, Any]] = {}  # of each pair, its row
    before = 0  # seeds of the previous look
    for look in plan.looks:
        table = table_of(blocks[seeds < look.seeds], ALPHA / look.level)
        for row in table.to_dict("records"):
            pair = frozenset((row["a"], row["b"]))
            trained = min(last_seed[row["a"]], last_seed[row["b"]]) - plan.first_seed >= before
            # what was decided stays so until a later look decides again
            if pair not in kept or (trained and (row["verdict"] in DECIDED or kept[pair]["verdict"] not in DECIDED)):
                kept[pair] = row
        before = look.seeds
    return pd.DataFrame(list(kept.values()), columns=table.columns)


def looks_sentence(looks: Looks) -> str:
    """What was done because of the looks, and why; '' where there was none."""
    plan = looks.plan
    if plan is None and not looks.earlier:
        return ""
    level = f"{looks.level:.3g}"
    if plan is None:
        times = [f"{report.seeds} on {report.time[:10]}" for report in looks.earlier[:3]]
        more = f" and {len(looks.earlier) - 3} more" if len(looks.earlier) > 3 else ""
        return (
            f"Seeds were added after {plural(len(looks.earlier), 'look')} at fewer ({'; '.join(times)}{more}). Each "
            "look is a further chance to see a difference that is not there, so the "
            f"{1 + len(looks.earlier)} looks share the 5 %: this one claims at level {level}, and p and intervals are "
            "corrected for that. seed=until_decided plans the looks in advance."
        )
    planned = list(plan.levels)
    at = f"{', '.join(map(str, planned[:-1]))} and {planned[-1]} seeds"
    if not plan.looks:
        return f"The looks were planned in advance, at {at}; none has been made, so nothing is claimed yet."
    return (
        f"The looks were planned in advance, at {at}. The last one, at {plan.looks[-1].seeds} seeds, claims at level "
        f"{level}; each pair has the verdict of the newest look that decided it. p and intervals are corrected for "
        "that: all looks together claim falsely in at most 5 % of such sweeps."
    )


@dataclass(frozen=True)
class Conclusion:
    """What a look decides of the question who is best, and whether the rest is behind or equivalent.

    Attributes:
        leader: who is better than, or equivalent to, every other; '' where that is not decided.
        stopped: the configurations that need no more seeds.
        claims: of pairs, in words.
    """

    leader: str
    stopped: list[str]
    claims: list[str]


def conclude(ranking: pd.DataFrame, tuned: Sequence[str], grid: bool, differences: pd.DataFrame) -> Conclusion:
    """As `Judgement` has them. Where only one configuration has a result, it leads.

    A configuration whose pairs are all decided stops, and one whose runs all diverged. Of a grid, only the latter:
    more seeds may change which rate validation chooses.
    """
    verdicts: dict[str, dict[str, Verdict]] = {name: {} for name in tuned}
    claims = []
    for row in differences.to_dict("records"):
        a, b, verdict = row["a"], row["b"], row["verdict"]
        if a in verdicts and b in verdicts:
            verdicts[a][b] = verdict
            verdicts[b][a] = OPPOSITE.get(verdict, verdict)
    good = (Verdict.BETTER, Verdict.EQUIVALENT)
    leaders = [name for name in tuned if all(verdicts[name].get(other) in good for other in tuned if other != name)]
    leader = max(leaders, key=lambda name: list(verdicts[name].values()).count(Verdict.BETTER), default="")
    shown = [leader] if leader else tuned
    for name in shown:
        if better := [other for other in tuned if verdicts[name].get(other) == Verdict.BETTER]:
            claims.append(f"{name} is better than {names(better)}")
    for k, name in enumerate(shown):
        rest = tuned if leader else tuned[k + 1 :]
        if equal := [other for other in rest if verdicts[name].get(other) == Verdict.EQUIVALENT]:
            claims.append(f"{name} is equivalent to {names(equal)}")
    if len(tuned) == 1:
        claims.append(f"{leader} alone has a result")
    hopeless = list(ranking.configuration[(ranking.n == 0) & (ranking.diverged > 0)])
    settled = [name for name in tuned if all(verdicts[name].get(other) in DECIDED for other in tuned if other != name)]
    return Conclusion(leader, [*hopeless, *([] if grid else settled)], claims)
