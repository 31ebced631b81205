"""What is chosen from scores. Plain functions of numbers: benchmarks/tuning.py simulates the whole procedure with them.

A score is the validation metric of a run, None where it diverged. `sign` is 1 where higher is better, else -1.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from optbench.records.tuning import Edge

Scores = Sequence[float | None]
OUTER = 0.2  # of an axis: what counts as its edge
FEWEST_BEST = 3  # trials that tell whether the best is on an edge


def best_first(scores: Scores, sign: int) -> list[int]:
    """The trials that did not diverge; of equal ones the first drawn comes first."""
    known = [(-sign * score, trial) for trial, score in enumerate(scores) if score is not None]
    return [trial for _, trial in sorted(known)]


def winner(scores: Mapping[int, Scores], sign: int) -> int | None:
    """Of the shortlist, the trial with the best mean over its seeds; one that diverged at a seed comes after all that
    did not. None where all diverged at every seed."""

    def key(trial: int) -> tuple[int, float]:
        known = [score for score in scores[trial] if score is not None]
        mean = sum(known) / len(known) if known else 0.0
        return len(scores[trial]) - len(known), -sign * mean

    alive = [trial for trial in scores if any(score is not None for score in scores[trial])]
    return min(alive, key=key, default=None)


def within(seconds: Sequence[float], budget: float) -> int:
    """How many trials, in the order in which they were drawn, end within the budget; at least the first."""
    return max(1, sum(total <= budget for total in accumulate(seconds)))


def edge(places: Sequence[float | None], scores: Scores, sign: int) -> Edge | None:
    """On which edge of its axis a search found its best: there, in the outer fifth, are the best trial and most of the
    best fifth of all trials (of the best three, where there are few).

    The best trial alone would say too much: where a setting does not matter, it is anywhere.

    Args:
        places: where each trial is on the axis, 0 to 1; the defaults may be outside.
    """
    ranked = best_first(scores, sign)
    best = [places[trial] for trial in ranked[: max(FEWEST_BEST, round(len(scores) * OUTER))]]
    if not best or best[0] is None:
        return None
    for side, outer in (
        (Edge.LARGEST, [p is not None and p >= 1 - OUTER for p in best]),
        (Edge.SMALLEST, [p is not None and p <= OUTER for p in best]),
    ):
        if outer[0] and sum(outer) > len(outer) / 2:
            return side
    return None
