"""How often a comparison claims what is not there, how often it finds what is, and how well its intervals cover.

    python benchmarks/claims.py [--sweeps 2000] [--written 300]

Simulated sweeps go through `optbench.comparison`, beside the textbook tests. A run's accuracy is that of 10,000 test
images (rounded to 0.01 points) around 54 %, with a standard deviation of 0.4 points from run to run. Prints Markdown;
the figures stand in docs/comparison.md. About 7 minutes on one core.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tables this small only lose by threads
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import scipy  # noqa: E402
from scipy import stats  # noqa: E402

from optbench.comparison.analysis import compare  # noqa: E402
from optbench.comparison.statistics import (  # noqa: E402
    ALPHA,
    POWER,
    Floats,
    compare_pairs,
    holm,
    iqm_interval,
    mean_interval,
)
from sweeps import write_run  # noqa: E402

Draw = Callable[[tuple[int, ...]], Floats]  # noise of mean 0 and deviation 1
MEAN, SD = 0.54, 0.004
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
generator = np.random.default_rng(20260)

NOISES: dict[str, Draw] = {
    "normal": lambda shape: generator.standard_normal(shape),
    "heavy tails (t, 5 df)": lambda shape: generator.standard_t(5, shape) / np.sqrt(5 / 3),
    "skewed (gamma, shape 2)": lambda shape: -(generator.gamma(2, 1, shape) - 2) / np.sqrt(2),  # a tail of bad runs
}


def sweeps(
    count: int,
    n: int,
    configurations: int,
    draw: Draw = NOISES["normal"],
    correlation: float = 0,
    gap: float = 0,
    spread: float = 1,
) -> Floats:
    """Accuracies `(count, n seeds, configurations)`.

    `correlation` is that of two runs of one seed, `gap` how many deviations the first configuration is ahead, `spread`
    how many times the first spreads as much as the others.
    """
    noise = np.sqrt(correlation) * draw((count, n, 1)) + np.sqrt(1 - correlation) * draw((count, n, configurations))
    noise[..., 0] = spread * noise[..., 0] + gap
    return np.asarray(np.round(MEAN + SD * noise, 4))


def ours(tables: Floats) -> Floats:
    """The corrected p of each pair, `(sweeps, pairs)`: what the report's claims rest on."""
    return np.array([compare_pairs(table, higher_is_better=True).p_holm for table in tables])


def paired_t(tables: Floats) -> Floats:
    """Student's paired t-test of each pair, corrected by Holm."""
    i, j = np.triu_indices(tables.shape[2], 1)
    gaps = tables[..., i] - tables[..., j]
    error = gaps.std(1, ddof=1) / np.sqrt(gaps.shape[1])
    t = np.divide(gaps.mean(1), error, out=np.full(error.shape, np.nan), where=error > 1e-12)
    return np.array([holm(row) for row in 2 * stats.t.sf(np.abs(t), gaps.shape[1] - 1)])


def tukey(tables: Floats) -> Floats:
    """Tukey's range test in a randomized block design; 0 where it claims a difference, else 1."""
    _, n, k = tables.shape
    left = tables - tables.mean(1, keepdims=True) - tables.mean(2, keepdims=True) + tables.mean((1, 2), keepdims=True)
    df = (k - 1) * (n - 1)
    error = np.sqrt((left**2).sum((1, 2)) / df / n)
    i, j = np.triu_indices(k, 1)
    means = tables.mean(1)
    critical = stats.studentized_range.ppf(1 - ALPHA, k, df)
    return np.where(np.abs(means[:, i] - means[:, j]) > critical * error[:, None], 0.0, 1.0)


TESTS: dict[str, Callable[[Floats], Floats]] = {"OptBench": ours, "paired t + Holm": paired_t, "Tukey, blocks": tukey}


def false_claims(count: int) -> pd.DataFrame:
    """Sweeps of four equal configurations: the share in which anything is claimed."""
    cases: dict[str, dict[str, Any]] = {name: {"draw": draw} for name, draw in NOISES.items()}
    cases["normal, seeds correlate by 0.5"] = {"correlation": 0.5}
    cases["normal, one spreads 3 x as much"] = {"spread": 3}
    cases["normal, one spreads 5 x as much"] = {"spread": 5}
    rows = []
    for name, case in cases.items():
        for n in (3, 5, 10):
            tables = sweeps(count, n, 4, **case)
            claimed = {test: np.nanmin(p(tables), axis=1) < ALPHA for test, p in TESTS.items()}
            rows.append({"noise": name, "n": n, **{test: percent(found.mean()) for test, found in claimed.items()}})
    return pd.DataFrame(rows)


def power(count: int) -> pd.DataFrame:
    """One configuration two deviations ahead: the chance to find that over a given one of the others, and over any."""
    rows = []
    for configurations, correlation in ((4, 0), (4, 0.5), (2, 0), (2, 0.5)):
        for n in range(3, 11):
            tables = sweeps(count, n, configurations, correlation=correlation, gap=2)
            row: dict[str, object] = {"configurations": configurations, "correlation": correlation, "n": n}
            for test, p in TESTS.items():
                if configurations == 2 and test != "OptBench":
                    continue  # with two, all three are the paired t-test
                found = p(tables)[:, : configurations - 1] < ALPHA  # the pairs of the first configuration
                row[f"{test}: a given"] = float(found.mean())
                row[f"{test}: any"] = float(found.any(1).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def enough(table: pd.DataFrame) -> pd.DataFrame:
    """The seeds at which 80 % are reached."""
    rows = []
    for case, group in table.groupby(["configurations", "correlation"], sort=False):
        group = group.set_index("n").drop(columns=["configurations", "correlation"]).dropna(axis=1)
        first = {test: next((n for n, share in group[test].items() if share >= POWER), "> 10") for test in group}
        rows.append(dict(zip(("configurations", "correlation"), case, strict=True)) | first)
    return pd.DataFrame(rows, dtype=object).fillna("")


def coverage(count: int) -> pd.DataFrame:
    """How often 95 % intervals hold the truth; the bootstrap's by a quarter of the sweeps."""
    rows = []
    for name, draw in NOISES.items():
        far = np.sort(draw((2_000_000,)))
        middle = far[len(far) // 4 : -len(far) // 4].mean()  # the true interquartile mean of this noise
        for n in (3, 5, 10, 20):
            samples = np.round(MEAN + SD * draw((count, n)), 4)
            few = samples[: count // 4]
            rows.append(
                {
                    "noise": name,
                    "n": n,
                    "mean, t (OptBench)": held(map(mean_interval, samples), MEAN),
                    "mean, BCa bootstrap": held(bootstrap(few, "BCa"), MEAN),
                    "mean, percentile bootstrap": held(bootstrap(few, "percentile"), MEAN),
                    "IQM (OptBench)": held(map(iqm_interval, samples), MEAN + SD * middle),
                }
            )
    return pd.DataFrame(rows)


def bootstrap(samples: Floats, method: str) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):  # BCa has no interval for three values of which two are equal
        found = stats.bootstrap(
            (samples,), np.mean, axis=-1, method=method, n_resamples=2000, batch=100, rng=generator
        ).confidence_interval
    return np.column_stack([found.low, found.high])


def held(intervals: Iterable[tuple[float, float]] | Floats, truth: float) -> str:
    low, high = np.array([interval for interval in intervals if np.isfinite(interval).all()]).T
    return percent(((low <= truth) & (truth <= high)).mean())


def written(count: int, seeds: int = 5) -> str:
    """The same through files: runs on disk, and what `compare` says of them."""
    claimed = 0
    for table in sweeps(count, seeds, len(OPTIMIZERS), correlation=0.3):
        with tempfile.TemporaryDirectory() as folder:
            for seed, optimizer in np.ndindex(table.shape):
                name = OPTIMIZERS[optimizer]
                write_run(Path(folder) / f"{name}_{seed}", name, seed, float(table[seed, optimizer]))
            verdicts = compare([folder]).judgement.differences.verdict
            assert len(verdicts) == len(list(combinations(OPTIMIZERS, 2)))
            claimed += bool(verdicts.isin(["better", "worse"]).any())
    return f"{claimed} of {count} reports ({percent(claimed / count)}) claim a difference"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def markdown(table: pd.DataFrame) -> str:
    cells = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |"
        for row in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps for each cell of each table")
    parser.add_argument("--written", type=int, default=300, help="sweeps that are written to disk and compared")
    arguments = parser.parse_args()
    begun = time.process_time()
    print(f"`python benchmarks/claims.py --sweeps {arguments.sweeps} --written {arguments.written}`")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}")
    print(f"\n## Claims where nothing differs: {arguments.sweeps} sweeps a cell, four configurations\n")
    print(markdown(false_claims(arguments.sweeps)), flush=True)
    print("\nThrough files, four configurations, 5 seeds:", written(arguments.written), flush=True)
    found = power(arguments.sweeps)
    shown = found.astype(dict.fromkeys(found.columns, object))
    for column in found.columns[3:]:
        shown[column] = ["" if np.isnan(share) else percent(share) for share in found[column]]
    print(f"\n## One configuration is two standard deviations of a run ahead: {arguments.sweeps} sweeps a row\n")
    print(markdown(shown))
    print(f"\nSeeds for {POWER:.0%}:\n")
    print(markdown(enough(found)), flush=True)
    print(f"\n## What 95 % intervals cover: {arguments.sweeps} samples a cell, for the bootstrap a quarter\n")
    print(markdown(coverage(arguments.sweeps)))
    print(f"\n{time.process_time() - begun:.0f} s of one core")


if __name__ == "__main__":
    main()
