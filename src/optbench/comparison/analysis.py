"""A comparison in its three parts: what the runs say, what follows from it, and that in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optbench.comparison.facts import Facts, gather
from optbench.comparison.judgement import Judgement, judge
from optbench.comparison.read import read_runs
from optbench.comparison.words import Words, tell


@dataclass(frozen=True)
class Comparison:
    """All that a report says. Each part is made from the one before it."""

    facts: Facts
    judgement: Judgement
    words: Words


def compare(
    sources: Sequence[str],
    by: Sequence[str] = (),
    baseline: str | None = None,
    metric: str = "test/accuracy",
    targets: Sequence[float] = (),
    every_pair: bool = False,
) -> Comparison:
    """Everything that a report says of the runs in or below `sources`, before anything is drawn or written.

    Raises:
        ValueError: where there are no runs, or `by`, `baseline` or `metric` name what they do not have.
    """
    runs = read_runs(sources, metric)
    facts = gather(sources, runs, by, baseline, metric)
    judgement = judge(facts, targets, every_pair)
    words = tell(facts, judgement, runs.skipped)
    return Comparison(facts, judgement, replace(words, notes=[*words.notes, *facts.readings]))
