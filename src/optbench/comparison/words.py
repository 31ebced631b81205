"""A comparison in sentences: its answer, what makes it unfair, what a reader should know."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from optbench.comparison import statistics
from optbench.comparison.answer import answer
from optbench.comparison.facts import Facts
from optbench.comparison.fairness import Item, another
from optbench.comparison.importance import importance_sentence
from optbench.comparison.judgement import MOST_ASKED, Judgement
from optbench.comparison.sensitivity import interaction_sentence, sensitivity_sentences
from optbench.comparison.verdicts import Family, Verdict
from optbench.records import metrics, wording
from optbench.records.configuration import key_of
from optbench.records.record import STATUSES
from optbench.records.wording import plural, some

PARTS = {"train": "training", "val": "validation", "test": "test"}
MAY_BE_DUE = "What is claimed here may be due to that."
MOST = 6  # commands in one sentence
UNLIKE = 0.01  # p of the test of equal spreads, below which the report warns


@dataclass(frozen=True)
class Words:
    """The sentences of a report.

    Attributes:
        answer: who is better, by how much, and how sure that is.
        violations: what makes this comparison unfair; `times_withheld`: why times are not compared, or ''.
        notes: what a reader should know.
        family: which pairs are compared, and what their intervals hold for.
        skipped: one for each folder that could not be read.
        sensitivities: for each of `Judgement.sensitivities`, one for each line.
        interaction, importance: '' where there is none.
    """

    answer: list[str]
    violations: list[str]
    times_withheld: str
    notes: list[str]
    family: str
    skipped: list[str]
    sensitivities: list[list[str]]
    interaction: str
    importance: str = ""


def tell(facts: Facts, judgement: Judgement, skipped: Sequence[str]) -> Words:
    return Words(
        answer=answer(facts, judgement),
        violations=violations(facts, judgement),
        times_withheld=times_withheld(facts),
        notes=notes(facts, judgement),
        family=family(facts, judgement),
        skipped=list(skipped),
        sensitivities=[sensitivity_sentences(item, facts.metric) for item in judgement.sensitivities],
        interaction=interaction_sentence(judgement.interaction) if judgement.interaction else "",
        importance=importance_sentence(judgement.importance) if judgement.importance else "",
    )


def times_withheld(facts: Facts) -> str:
    if not facts.times_withheld:
        return ""
    kinds = "; ".join(f"{plural(count, 'run')} on {name}" for name, count in facts.devices.items())
    return f"Times are withheld: they come from different machines ({kinds}). Steps and epochs can be compared."


def violations(facts: Facts, judgement: Judgement) -> list[str]:
    """What makes this comparison unfair, with what is withheld for it."""
    found = []
    for what in dict.fromkeys(facts.other_data.values()):
        names = [facts.runs.run[row] for row, different in facts.other_data.items() if different == what]
        verbs = ("was", "is") if len(names) == 1 else ("were", "are")
        found.append(
            f"{plural(len(names), 'run')} {verbs[0]} measured on {another(what)} and {verbs[1]} left out of every "
            f"figure: {some(names, 4)}. {kept(facts)}"
        )
    if judgement.code_versions > 1:
        pairs = judgement.differences
        apart = pairs[(pairs.verdict == Verdict.WITHHELD) & (pairs.n < statistics.FEWEST)]
        verb = "has" if len(apart) == 1 else "have"
        lost = f", and {len(apart)} of {plural(len(pairs), 'pair')} {verb} too few of those for a claim"
        found.append(
            f"The runs come from {judgement.code_versions} versions of the code or of PyTorch; only runs of one "
            f"version are paired{lost if len(apart) else ''}."
        )
    found += [
        f"{claim.item}: not equal ({claim.text}). "
        + ("No claim is made across them." if claim.item is Item.MAX_EPOCHS else MAY_BE_DUE)
        for claim in judgement.unequal
    ]
    if judgement.spread_alike < UNLIKE:
        spreads = judgement.ranking[judgement.ranking["rank"] > 0].sort_values("sd")
        least, most = (
            f"{row.configuration} {wording.difference(facts.metric, row.sd, sign=False)}"
            for row in (spreads.iloc[0], spreads[spreads.sd.notna()].iloc[-1])
        )
        found.append(
            f"The configurations do not spread alike: the standard deviation over seeds is from {least} to {most} "
            f"(Bartlett's test: p {wording.p_value(judgement.spread_alike)}, where below {UNLIKE} warns). With few "
            "seeds more than 5 % of such sweeps claim a false difference."
        )
    if judgement.uneven:
        found.append(
            f"Not every configuration has the same values of {', '.join(judgement.uneven)}, over which its figures "
            "are averages."
        )
    return found


def kept(facts: Facts) -> str:
    """Which images the figures are about, where some runs had others."""
    used = facts.runs.index[facts.runs.used]
    if not len(used):
        return "No other run has a result."
    record = facts.records[used[0]]
    sizes = [f"{record.images[part]} {name}" for part, name in PARTS.items() if part in record.images]
    images = f"{wording.joined(sizes)} images" if sizes else f"data {record.hashes.get('data', '')[:11]}"
    return f"The figures are of the {plural(len(used), 'run')} on {images}, which is what most runs had."


def family(facts: Facts, judgement: Judgement) -> str:
    """'' where there is no pair."""
    pairs, tuned = len(judgement.differences), len(judgement.tuned)
    if not pairs:
        return ""
    compared = {
        Family.ALL: f"all {pairs} pairs" if pairs > 1 else "the one pair",
        Family.WINNERS: f"the {plural(pairs, 'pair')} of the {tuned} tuned configurations",
        Family.BASELINE: f"{plural(pairs, 'configuration')} against the baseline {facts.baseline}",
        Family.LEADER: f"{judgement.against} with each of the {pairs} others, corrected for all pairs",
    }[judgement.family]
    complete = judgement.family is Family.ALL or len(judgement.ranking) > MOST_ASKED
    more = "" if complete else " pairs=all compares every pair."
    each = "" if pairs == 1 else " of all of them at once"
    within = wording.difference(facts.metric, judgement.margin, sign=False)
    return (
        f"Compared: {compared}, paired by seed. Of a hundred such sweeps without any difference, at most five claim "
        f"one. The 95 % intervals hold the true differences{each}. Equivalent: closer than {within} "
        f"(margin={wording.number(judgement.margin)}).{more}"
    )


def fresh_seeds(facts: Facts, judgement: Judgement) -> list[str]:
    """That a grid's winners flatter, by how much, and the commands that test them anew."""
    if math.isnan(judgement.flattery):
        return []
    least = 0.0001 if metrics.metric(facts.metric).is_fraction else 0.001
    about = f"about {wording.difference(facts.metric, judgement.flattery, sign=False)}"
    if judgement.flattery < least:
        about = f"less than {wording.difference(facts.metric, least, sign=False)}"
    used = facts.runs[facts.runs.used]
    seeds = sorted(set(used.seed))
    fresh = ",".join(str(max(seeds) + 1 + k) for k in range(len(seeds)))
    commands = []
    for name in judgement.tuned:
        record = facts.records[used.index[used.configuration == name][0]]
        typed = [override for override in record.overrides if key_of(override) != "seed"]
        commands.append(f"python src/train.py -m {shlex.join([*typed, f'seed={fresh}'])}")
    return [
        f"The means of the {len(judgement.tuned)} tuned configurations flatter, by {about} on average: the seeds that "
        f"chose them also test them. Fresh seeds do not: {'; '.join(commands[:MOST])}"
        + (f"; and {len(commands) - MOST} more." if len(commands) > MOST else ".")
    ]


def notes(facts: Facts, judgement: Judgement) -> list[str]:
    """What was taken for what, and what a reader should know."""
    frame, used = facts.runs, facts.runs[facts.runs.used]
    counts = ", ".join(f"{count} {status}" for status in STATUSES if (count := int((frame.status == status).sum())))
    what = f"compared by {', '.join(facts.by)}" if facts.by else "nothing varies but the seed"
    seeds = sorted(set(used.seed))
    shown = ", ".join(map(str, seeds[:10])) + (" …" if len(seeds) > 10 else "")
    found = [f"{plural(len(frame), 'run')} ({counts}), {what}; seed ({shown or 'none'}) numbers the samples."]
    if facts.averaged:
        verbs = ("varies", "is") if len(facts.averaged) == 1 else ("vary", "are")
        found.append(f"{', '.join(facts.averaged)} also {verbs[0]} and {verbs[1]} averaged at each seed.")
    found += fresh_seeds(facts, judgement)
    sizes = {n for n in judgement.ranking.n if n}
    if len(sizes) > 1:
        found.append(
            "The configurations have unequal numbers of seeds: a mean is over all of its own, a difference over "
            "those that both have."
        )
    if len(used) and used.groupby("configuration").metric.nunique().max() == 1 and max(sizes) > 1:
        found.append(
            "Every seed gives exactly the same result: the seed has no effect here, and the samples count as one."
        )
    if (frame.status == "running").any():
        found.append("Runs marked `running` are being written or were killed; they count once they have ended.")
    if judgement.ranking.diverged.any():
        found.append(
            "Means are over the runs that finished. A configuration with more diverged runs than another is never "
            "claimed to be better."
        )
    if facts.damaged:
        names = [facts.runs.run[row] for row in facts.damaged]
        found.append(f"Curves or part of them are missing from {plural(len(names), 'run')}: {some(names, 4)}.")
    return found
