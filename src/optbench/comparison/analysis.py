"""A comparison in its three parts: what the runs say, what follows from it, and that in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optbench.comparison import tuning
from optbench.comparison.facts import Facts, gather
from optbench.comparison.judgement import Judgement, judge
from optbench.comparison.read import read_runs
from optbench.comparison.tuning import Tuning, finals_of, find_tuning
from optbench.comparison.words import Words, tell
from optbench.records import metrics
from optbench.records.wording import is_number


@dataclass(frozen=True)
class Comparison:
    """All that a report says. Each part is made from the one before it; `tuning` is what a search says, if any."""

    facts: Facts
    judgement: Judgement
    words: Words
    tuning: Tuning | None = None


def compare(
    sources: Sequence[str],
    by: Sequence[str] = (),
    baseline: str | None = None,
    metric: str = "test/accuracy",
    targets: Sequence[float] = (),
    pairs: str | None = None,
    margin: float | None = None,
    gap: float | None = None,
) -> Comparison:
    """Everything that a report says of the runs in or below `sources`, before anything is drawn or written.

    Raises:
        ValueError: where there are no runs, `by`, `baseline` or `metric` name what they do not have, `pairs` is not
            "all" or asks for every pair of too many, or `margin` or `gap` is no difference of the metric.
    """
    if pairs not in (None, "all"):
        raise ValueError(f"pairs={pairs} must be all, or null: the pairs that the question is about.")
    known = metrics.metric(metric).margin
    margin = known if margin is None else check_difference("margin", margin, metric)
    gap = margin if gap is None else check_difference("gap", gap, metric)
    folder = find_tuning(sources)
    runs = read_runs(sources if folder is None else [finals_of(folder)], metric)
    facts = gather(sources, runs, by, baseline, metric)
    judgement = judge(facts, margin, gap, targets, every_pair=pairs == "all")
    words = tell(facts, judgement, runs.skipped)
    comparison = Comparison(facts, judgement, replace(words, notes=[*words.notes, *facts.readings]))
    return comparison if folder is None else with_tuning(comparison, folder)


def with_tuning(comparison: Comparison, folder: Path) -> Comparison:
    """The comparison of a tuning's final runs, and what its search says."""
    facts, judgement, words = comparison.facts, comparison.judgement, comparison.words
    found = tuning.read_tuning(folder, facts)
    return Comparison(
        facts,
        replace(judgement, ledger=[*judgement.ledger, *tuning.budgets(found)]),
        replace(
            words,
            answer=[*words.answer, *tuning.answer(found, judgement)],
            notes=[*tuning.notes(found), *words.notes],
        ),
        found,
    )


def check_difference(key: str, size: float, metric: str) -> float:
    """`size` as a number.

    Raises:
        ValueError: for what is no difference of the metric.
    """
    fraction = metrics.metric(metric).is_fraction
    if not is_number(size) or not size > 0 or (fraction and size >= 1):
        example = "a fraction between 0 and 1, such as 0.005 for half a point" if fraction else "a number above 0"
        raise ValueError(f"{key}={size} must be {example}: it is a difference of {metric}.")
    return float(size)
