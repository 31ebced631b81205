"""How often a tuning claims what is not there, how much its means flatter, what it finds, and what its search costs.

    python benchmarks/tuning.py                     # both sections; the second one trains for some minutes
    python benchmarks/tuning.py claims --tunings 500
    python benchmarks/tuning.py overhead

`claims` simulates search, shortlist and final with known truth: what is drawn and chosen is drawn and chosen by
optbench.tuning, and claims are those of optbench.comparison. An optimizer reaches 54 % at its best point; WIDTHS from
it on its axes (0 to 1), it is one point worse. A run differs from that by 0.4 points (standard deviation), its
validation and its test by 0.3 and 0.2 more. `overhead` times a tuning of short runs, one at a time. The
figures are in docs/tuning.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tables this small only lose by threads
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402

from optbench.comparison.statistics import ALPHA, compare_pairs  # noqa: E402
from optbench.comparison.tuning import beyond_luck, luck  # noqa: E402
from optbench.tuning.decisions import best_first, winner  # noqa: E402
from optbench.tuning.space import uniform  # noqa: E402

BEST, RUN, VALIDATION, TEST = 0.54, 0.004, 0.003, 0.002
# of the first axis, such as the rate over two decades: within a factor of 4 it costs one point; of the second one
WIDTHS = (0.15, 0.4)
MARGIN = 0.005
generator = np.random.default_rng(20260)


class Optimizer:
    """Its score at each point of its space: the best is somewhere in the middle half of each axis."""

    def __init__(self, name: str, best: float, dimensions: int, flat: bool) -> None:
        self.name, self.best, self.flat = name, best, flat
        self.place = generator.uniform(0.25, 0.75, dimensions)

    def truth(self, point: Sequence[float]) -> float:
        if self.flat:
            return self.best
        return max(0.1, self.best - 0.01 * float((((np.array(point) - self.place) / WIDTHS[: len(point)]) ** 2).sum()))

    def run(self, point: Sequence[float]) -> tuple[float, float]:
        """Validation and test of one more seed."""
        value = self.truth(point) + RUN * generator.standard_normal()
        noise = generator.standard_normal(2)
        return round(value + VALIDATION * noise[0], 4), round(value + TEST * noise[1], 4)


def tune(
    optimizer: Optimizer, number: int, trials: int, shortlist: int, seeds: int
) -> tuple[list[float], float, list[float]]:
    """The search's scores, the truth at the winner, and the winner's tests in the final."""
    defaults = list(np.clip(optimizer.place + generator.normal(0, 0.2, len(optimizer.place)), 0, 1))
    points = [defaults, *islice(uniform(len(optimizer.place), f"{number} {optimizer.name}"), trials - 1)]
    scores = [optimizer.run(point)[0] for point in points]
    best = best_first(scores, 1)[:shortlist]
    again = {trial: [scores[trial], *(optimizer.run(points[trial])[0] for _ in range(2))] for trial in best}
    chosen = winner(again if shortlist > 1 else {best[0]: [scores[best[0]]]}, 1)
    assert chosen is not None
    return scores, optimizer.truth(points[chosen]), [optimizer.run(points[chosen])[1] for _ in range(seeds)]


def simulate(
    tunings: int, gap: float, dimensions: int, trials: int, shortlist: int, seeds: int, flat: bool = False
) -> dict[str, float]:
    """Four optimizers, the first one better by `gap`."""
    claims = false = found = firm = firm_found = 0
    flattery, naive, short, differ = [], [], [], []
    for number in range(tunings):
        optimizers = [Optimizer(f"o{k}", BEST + gap * (k == 0), dimensions, flat) for k in range(4)]
        results = [tune(each, number, trials, shortlist, seeds) for each in optimizers]
        truths = np.array([truth for _, truth, _ in results])
        tests = np.array([its for _, _, its in results]).T  # (seeds, optimizers)
        pairs = compare_pairs(tests, True, margin=MARGIN)
        claimed = pairs[pairs.p_adjusted < ALPHA]
        claims += len(claimed) > 0
        i, j = claimed.i.to_numpy(), claimed.j.to_numpy()
        ahead = claimed.difference.to_numpy() > 0
        false += bool((ahead != (truths[i] > truths[j])).any()) if not flat else len(claimed) > 0
        half = np.fmax(claimed.high - claimed.difference, claimed.difference - claimed.low).to_numpy()
        lucks = [luck(scores, 1) for scores, _, _ in results]
        holds = np.array(
            [
                beyond_luck(d, h, [lucks[a], lucks[b]], len(pairs))
                for d, h, a, b in zip(claimed.difference, half, i, j, strict=True)
            ],
            bool,
        )
        right = (i == 0) & ahead & (gap > 0)
        firm += bool((holds & ~right).any())
        firm_found += bool((holds & right).sum() == 3)
        found += bool(gap and sum((i == 0) & ahead) == 3)
        flattery.append(tests.mean(0) - truths)
        naive.append(np.array([max(scores) for scores, _, _ in results]) - truths)
        short.append(np.array([each.best for each in optimizers]) - truths)
        differ.append(np.ptp(truths + np.array([BEST - each.best for each in optimizers])))
    bias = np.array(flattery)
    return {
        "claims": claims / tunings,
        "false": false / tunings,
        "found": found / tunings,
        "firm": firm / tunings,
        "firm_found": firm_found / tunings,
        "bias": float(bias.mean()),
        "error": float(bias.std() / math.sqrt(bias.size)),
        "naive": float(np.mean(naive)),
        "short": float(np.mean(short)),
        "differ": float(np.mean(differ)),
    }


CASES = (  # gap, dimensions, trials, shortlist, seeds, flat
    (0.0, 1, 20, 3, 5, True),
    (0.0, 1, 20, 3, 5, False),
    (0.0, 2, 20, 3, 5, False),
    (0.0, 2, 20, 1, 5, False),
    (0.0, 2, 50, 3, 5, False),
    (0.005, 1, 20, 3, 5, False),
    (0.01, 1, 20, 3, 5, False),
    (0.01, 1, 20, 3, 10, False),
    (0.02, 1, 20, 3, 5, False),
    (0.02, 2, 20, 3, 5, False),
)


def claims(tunings: int, rows: Sequence[int]) -> None:
    print(
        "| truth | axes | trials | shortlist | seeds | any claim | wrong about the points | "
        "wrong about the optimizers, no warning | finds the better one | without a warning | "
        "flattery of the final | of the search | short of the best | winners differ by |\n|" + "---|" * 14
    )
    for gap, dimensions, trials, shortlist, seeds, flat in [CASES[row] for row in rows]:
        began = time.perf_counter()
        found = simulate(tunings, gap, dimensions, trials, shortlist, seeds, flat)
        truth = "equal everywhere" if flat else f"one is {100 * gap:g} points better" if gap else "equal at their best"
        cells = [
            truth,
            *map(str, (dimensions, trials, shortlist, seeds)),
            *(f"{found[key]:.1%}" for key in ("claims", "false", "firm")),
            *(f"{found[key]:.0%}" if gap else "–" for key in ("found", "firm_found")),
            f"{100 * found['bias']:+.3f} ± {100 * found['error']:.3f}",
            *(f"{100 * found[key]:+.2f}" for key in ("naive", "short", "differ")),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


def overhead(trials: int) -> None:
    """One run at a time: the seconds of the search that no run was working."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tuning"
        command = [
            sys.executable, str(ROOT / "src" / "tune.py"), "experiment=quickstart", "optimizer=adam,sgd", "trainer=cpu",
            f"trials={trials}", "seeds=1", "shortlist=1", "compare=false", "hydra.launcher.workers=1",
            f"hydra.sweep.dir={folder}",
        ]  # fmt: skip
        began = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        runs = sorted((folder / "search").glob("*/summary.json"))
        work = sum(json.loads(path.read_text())["seconds"]["total"] for path in runs)
        first = min(path.stat().st_mtime for path in (folder / "search").glob("*/.hydra/config.yaml"))
        last = max(path.stat().st_mtime for path in runs)
        print(
            f"{len(runs)} runs, one at a time: {work:.1f} s of work in {last - first:.1f} s, "
            f"{(last - first) / work - 1:.1%} more. Before the first run: {first - began:.1f} s."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="claims, overhead")
    parser.add_argument("--tunings", type=int, default=2000, help="simulated for each row")
    parser.add_argument("--rows", type=int, nargs="*", help="of the table of claims, from 0; none: all")
    parser.add_argument("--trials", type=int, default=8, help="of each optimizer, for the overhead")
    arguments = parser.parse_args()
    sections = arguments.sections or ["claims", "overhead"]
    if "claims" in sections:
        claims(arguments.tunings, arguments.rows or range(len(CASES)))
    if "overhead" in sections:
        overhead(arguments.trials)


if __name__ == "__main__":
    main()
