"""How often a comparison claims what is not there, how often it finds what is, and how well its intervals cover.

    python benchmarks/claims.py                     # every section, about 11 minutes on one core
    python benchmarks/claims.py false power         # some of them
    python benchmarks/claims.py --sweeps 500        # fewer simulated sweeps for each figure

Each section prints Markdown; the figures are in docs/comparison.md. Many sweeps are simulated at once: `engine` repeats
`optbench.comparison.statistics` for that, and is first checked against `compare_pairs` itself. A run's accuracy is that
of 10,000 test images (rounded to 0.01 points) around 54 %, with a standard deviation of 0.4 points from run to run.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
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
from optbench.comparison.looks import conclude, over_looks  # noqa: E402
from optbench.comparison.statistics import (  # noqa: E402
    ALPHA,
    POWER,
    RESTLESS,
    ROUNDING,
    WILD,
    Floats,
    compare_pairs,
    equal_pairs,
    iqm_interval,
    mean_interval,
    seeds_to_find,
)
from optbench.comparison.verdicts import Family, Verdict, difference_table  # noqa: E402
from optbench.records.looks import LEVELS, Look, Plan  # noqa: E402
from sweeps import write_run  # noqa: E402

Draw = Callable[[tuple[int, ...]], Floats]  # noise of mean 0 and deviation 1
MEAN, SD, CHANCE = 0.54, 0.004, 0.10
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SIZES, SEEDS = (2, 4, 8, 12, 20), (3, 5, 8, 10)
generator = np.random.default_rng(20260)


def normal(shape: tuple[int, ...]) -> Floats:
    return generator.standard_normal(shape)


def heavy(shape: tuple[int, ...]) -> Floats:
    return np.asarray(generator.standard_t(5, shape) / np.sqrt(5 / 3))


def skewed(shape: tuple[int, ...]) -> Floats:
    return -(generator.gamma(2, 1, shape) - 2) / np.sqrt(2)  # a tail of bad runs


def sweeps(
    count: int,
    n: int,
    configurations: int,
    draw: Draw = normal,
    correlation: float = 0,
    gaps: float | Floats = 0,
    spread: float | Floats = 1,
    collapse: float = 0,
) -> Floats:
    """Accuracies `(count, n seeds, configurations)`.

    `correlation` is that of two runs of one seed, `gaps` how many deviations each configuration is ahead, `spread` how
    many times each spreads as much as usual, `collapse` the fraction of runs that end at chance.
    """
    noise = np.sqrt(correlation) * draw((count, n, 1)) + np.sqrt(1 - correlation) * draw((count, n, configurations))
    values = MEAN + SD * (np.asarray(spread) * noise + np.asarray(gaps))
    values = np.where(generator.random(values.shape) < collapse, CHANCE + 0.003 * noise, values)
    return np.asarray(np.round(values, 4))


def first(size: float, configurations: int, other: float = 0) -> Floats:
    """One value for the first configuration, another for the rest."""
    return np.array([size] + [other] * (configurations - 1))


# The methods: the corrected p of each pair `(sweeps, pairs)`, or 0 where a difference is claimed and 1 where not


def engine(tables: Floats, baseline: bool = False) -> tuple[Floats, Floats, Floats]:
    """Difference, error and degrees of freedom of each pair, as `compare_pairs` computes them for complete tables.

    With `baseline`, of the pairs of the first configuration alone.
    """
    count, n, k = tables.shape
    i, j = np.triu_indices(k, 1)
    gaps = tables[..., i] - tables[..., j]
    own = gaps.var(1, ddof=1)
    square = np.full((count, k, k), np.nan)
    square[:, i, j] = square[:, j, i] = own
    # the median of the k - 1 partners; nan, itself, sorts last
    spread = np.sort(square, axis=2)[:, :, (k - 2) // 2]
    usual = np.sort(spread, axis=1)[:, (k - 1) // 2]
    calm = spread <= WILD * usual[:, None]
    shared, df = residual(tables, calm)
    both = calm[:, i] & calm[:, j] & (df > 0)[:, None]
    if baseline and k > 2:
        others = calm.copy()
        others[:, 0] = False
        quiet, known = residual(tables, others)
        restless = calm[:, 0] & (known > 0) & (spread[:, 0] > 2 * RESTLESS * quiet)
        both &= ~restless[:, None] | (i > 0)
    error = np.sqrt(np.where(both, np.maximum(own, 2 * shared[:, None]), own) / n)
    degrees = np.where(both, df[:, None], n - 1)
    asked = i == 0 if baseline else np.full(len(i), True)
    return gaps.mean(1)[:, asked], error[:, asked], degrees[:, asked]


def residual(tables: Floats, calm: Any) -> tuple[Floats, Any]:
    """Variance and degrees of freedom of what configuration and seed leave over, in each sweep's columns `calm`."""
    number = calm.sum(1)
    weights = calm[:, None, :] / np.maximum(number, 1)[:, None, None]
    rows = (tables * weights).sum(2, keepdims=True)
    left = tables - tables.mean(1, keepdims=True) - rows + rows.mean(1, keepdims=True)
    df = np.maximum(number - 1, 0) * (tables.shape[1] - 1)
    squares = (left**2 * calm[:, None, :]).sum((1, 2))
    return np.divide(squares, df, out=np.zeros(len(df)), where=df > 0), df


def p_values(difference: Floats, error: Floats, df: Floats) -> Floats:
    known = error > ROUNDING
    t = np.divide(np.abs(difference), error, out=np.zeros(error.shape), where=known)
    return np.where(known, 2 * stats.t.sf(t, df), 1.0)


def corrected(p: Floats, multipliers: Any) -> Floats:
    """Of each sweep, by a procedure that multiplies the smallest p first."""
    order = np.argsort(p, axis=1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, 1) * multipliers, axis=1)
    adjusted = np.empty(p.shape)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), 1)
    return adjusted


def shaffer_steps(k: int) -> Any:
    tests = k * (k - 1) // 2
    possible = np.array(sorted(equal_pairs(k)))
    return possible[np.searchsorted(possible, np.arange(tests, 0, -1), side="right") - 1]


def ours(tables: Floats) -> Floats:
    return corrected(p_values(*engine(tables)), shaffer_steps(tables.shape[2]))


def ours_holm(tables: Floats) -> Floats:
    p = p_values(*engine(tables))
    return corrected(p, np.arange(p.shape[1], 0, -1))


def ours_baseline(tables: Floats) -> Floats:
    """The others against the first."""
    p = p_values(*engine(tables, baseline=True))
    return corrected(p, np.arange(p.shape[1], 0, -1))


def paired_t(tables: Floats) -> Floats:
    """Student's paired t-test of each pair, corrected by Holm."""
    i, j = np.triu_indices(tables.shape[2], 1)
    gaps = tables[..., i] - tables[..., j]
    p = p_values(gaps.mean(1), gaps.std(1, ddof=1) / np.sqrt(gaps.shape[1]), np.array(gaps.shape[1] - 1))
    return corrected(p, np.arange(p.shape[1], 0, -1))


def tukey(tables: Floats) -> Floats:
    """Tukey's range test in a randomized block design."""
    _, n, k = tables.shape
    variance, _ = residual(tables, np.full((len(tables), k), True))
    i, j = np.triu_indices(k, 1)
    means = tables.mean(1)
    critical = range_quantile(k, (k - 1) * (n - 1))
    return np.where(np.abs(means[:, i] - means[:, j]) > critical * np.sqrt(variance / n)[:, None], 0.0, 1.0)


@cache
def range_quantile(k: int, df: float) -> float:
    return float(stats.studentized_range.ppf(1 - ALPHA, k, df))


def max_t(tables: Floats) -> Floats:
    """OptBench's statistic against the largest of all pairs in normal sweeps without a difference (Westfall, Young)."""
    difference, error, _ = engine(tables)
    t = np.divide(np.abs(difference), error, out=np.zeros(error.shape), where=error > ROUNDING)
    return np.where(t > largest_t(*tables.shape[1:]), 0.0, 1.0)


@cache
def largest_t(n: int, k: int) -> float:
    found = []
    for _ in range(10):
        difference, error, _ = engine(normal((2000, n, k)))
        found.append((np.abs(difference) / error).max(1))
    return float(np.quantile(np.concatenate(found), 1 - ALPHA))


def games_howell(tables: Floats) -> Floats:
    """Each pair by its own two variances, not paired (Games and Howell 1976)."""
    _, n, k = tables.shape
    i, j = np.triu_indices(k, 1)
    means, squares = tables.mean(1), tables.var(1, ddof=1) / n
    both = squares[:, i] + squares[:, j]
    df = np.divide(both**2 * (n - 1), squares[:, i] ** 2 + squares[:, j] ** 2, out=np.ones(both.shape), where=both > 0)
    grid = np.geomspace(n - 1, 2 * (n - 1), 8)  # the quantile is smooth in the degrees of freedom
    critical = np.interp(df, grid, [range_quantile(k, float(value)) for value in grid])
    return np.where(np.abs(means[:, i] - means[:, j]) > critical * np.sqrt(both / 2), 0.0, 1.0)


METHODS: dict[str, Callable[[Floats], Floats]] = {
    "OptBench": ours,
    "paired t + Holm": paired_t,
    "Tukey, blocks": tukey,
    "max-T": max_t,
    "Games–Howell": games_howell,
}


def check_engine() -> None:
    """The same figures as `compare_pairs`, of plain, wild and collapsing sweeps."""
    for k, n in ((2, 3), (4, 5), (7, 3)):
        for tables in (sweeps(12, n, k), sweeps(12, n, k, spread=first(12, k, 1)), sweeps(12, n, k, collapse=0.2)):
            for p, baseline in ((ours(tables), None), (ours_baseline(tables), 0)):
                for table, expected in zip(tables, p, strict=True):
                    pairs = compare_pairs(table, True, baseline)
                    if pairs.p.notna().all():
                        np.testing.assert_allclose(pairs.p_adjusted, expected, rtol=1e-6, atol=1e-12)


# The sections


def false_claims(count: int) -> str:
    """Where nothing differs: the fraction of sweeps in which anything is claimed."""
    cases: dict[str, Callable[[int], dict[str, Any]]] = {
        "normal": lambda k: {},
        "normal, r = 0.3": lambda k: {"correlation": 0.3},
        "normal, r = 0.5": lambda k: {"correlation": 0.5},
        "heavy tails (t, 5 df)": lambda k: {"draw": heavy},
        "skewed (gamma, shape 2)": lambda k: {"draw": skewed},
        "skewed, r = 0.5": lambda k: {"draw": skewed, "correlation": 0.5},
        "one run in ten collapses": lambda k: {"collapse": 0.1},
        "one spreads 3 x as much": lambda k: {"spread": first(3, k, 1)},
        "half spread 3 x as much": lambda k: {"spread": np.where(np.arange(k) < k // 2, 3.0, 1.0)},
    }
    mine, worst = [], []
    for name, case in cases.items():
        rows: dict[str, list[float]] = {method: [] for method in METHODS}
        for k in SIZES:
            row: dict[str, Any] = {"noise": name, "k": k}
            for n in SEEDS:
                tables = sweeps(count, n, k, **case(k))
                for method, p in METHODS.items():
                    rows[method].append(float((p(tables) < ALPHA).any(1).mean()))
                row[f"n = {n}"] = percent(rows["OptBench"][-1])
            mine.append(row)
        worst.append({"noise": name, **{method: percent(max(found)) for method, found in rows.items()}})
    against = []
    for name, wide in (("alike", 1.0), ("the baseline spreads 3 x", 3.0)):
        for k in SIZES:
            row = {"noise": name, "k": k}
            for n in SEEDS:
                tables = sweeps(count, n, k, spread=first(wide, k, 1))
                row[f"n = {n}"] = percent(float((ours_baseline(tables) < ALPHA).any(1).mean()))
            against.append(row)
    return (
        f"All pairs, OptBench:\n\n{markdown(mine)}\n\nThe worst of the {len(SIZES) * len(SEEDS)} cells:\n\n"
        f"{markdown(worst)}\n\nThe others against a baseline, OptBench:\n\n{markdown(against)}"
    )


def power(count: int) -> str:
    """One configuration two deviations ahead: how often that is found over a given one of the others."""
    rows = []
    for k, correlation in ((4, 0.0), (4, 0.3), (4, 0.5), (8, 0.0), (2, 0.0)):
        for n in (3, 4, 5, 6, 8, 10):
            tables = sweeps(count, n, k, correlation=correlation, gaps=first(2, k))
            row: dict[str, Any] = {"k": k, "r": correlation, "n": n}
            for name, method in {"OptBench": ours, "with Holm": ours_holm, **METHODS}.items():
                row[name] = percent(float((method(tables)[:, 0] < ALPHA).mean()))
            row["OptBench, baseline"] = percent(float((ours_baseline(tables)[:, 0] < ALPHA).mean()))
            rows.append(row)
    return markdown(rows)


def grid(count: int, rates: int = 5) -> str:
    """Four optimizers at five rates each, tuned by validation; the first optimizer is two deviations ahead, or none is.

    The mean of a rate is 0, 1, 2, 4 and 8 deviations below the optimizer's best. Validation and test of a run correlate
    by one half.
    """
    below = np.array([0, 1, 2, 4, 8.0])[:rates]
    rows = []
    for correlation in (0.0, 0.3):
        for n in SEEDS:
            row: dict[str, Any] = {"r": correlation, "n": n}
            for ahead in (2.0, 0.0):
                gaps = (np.array([ahead, 0, 0, 0])[:, None] - below).ravel()
                shared, seed = normal((count, n, 4 * rates)), normal((count, n, 1))
                noise = [np.sqrt(0.5) * shared + np.sqrt(0.5) * normal(shared.shape) for _ in range(2)]
                validation, test = (
                    np.round(MEAN + SD * (np.sqrt(correlation) * seed + np.sqrt(1 - correlation) * part + gaps), 4)
                    for part in noise
                )
                chosen = validation.mean(1).reshape(count, 4, rates).argmax(2) + rates * np.arange(4)  # (count, 4)
                winners = np.take_along_axis(test, chosen[:, None, :], axis=2)
                found = ours(winners) < ALPHA
                if not ahead:
                    row["false claims"] = percent(float(found.any(1).mean()))
                    flatter = (winners.mean(1) - MEAN) / SD + below[chosen % rates]
                    row["means flatter by (points)"] = f"{100 * SD * flatter.mean():.2f}"
                    continue
                every = ours_holm(test)  # of all 190 pairs
                index = {pair: at for at, pair in enumerate(combinations(range(4 * rates), 2))}
                at = np.array([index[a, b] for a, b in zip(chosen[:, 0], chosen[:, 1], strict=True)])
                row["winners"] = percent(float(found[:, 0].mean()))
                row["all 190 pairs, Holm"] = percent(float((every[np.arange(count), at] < ALPHA).mean()))
            rows.append(row)
    return markdown(rows)


def intervals(count: int) -> str:
    """How often all intervals of a family hold their true differences at once."""
    rows = []
    for k in (2, 4, 8, 20):
        truths: dict[str, Any] = {
            "all equal": np.zeros(k),
            "two groups, 2 sd apart": np.where(np.arange(k) < k // 2, 2.0, 0.0),
            "a ladder of 1 sd": np.arange(k, dtype=float)[::-1],
        }
        for name, truth in truths.items():
            row: dict[str, Any] = {"k": k, "truth": name}
            i, j = np.triu_indices(k, 1)
            for correlation in (0.0, 0.5):
                for n in (3, 5, 10):
                    tables = sweeps(count, n, k, correlation=correlation, gaps=truth)
                    difference, error, df = engine(tables)
                    claimed = ours(tables) < ALPHA
                    half = stats.t.ppf(1 - ALPHA / (2 * len(i)), df) * error
                    low, high = difference - half, difference + half
                    low = np.where(claimed & (difference > 0), np.maximum(low, 0), low)
                    high = np.where(claimed & (difference < 0), np.minimum(high, 0), high)
                    true = SD * (truth[i] - truth[j])
                    row[f"r = {correlation:g}, n = {n}"] = percent(
                        float(((low <= true) & (true <= high)).all(1).mean())
                    )
            rows.append(row)
    return markdown(rows)


def times(count: int, epochs: int = 20) -> str:
    """Times to a target, counted in whole epochs of at most 20: log-normal, 15 % from run to run.

    Where a run misses the target within the budget, its time is the budget. With five targets, five times the evidence
    is needed for a claim.
    """
    rows = []
    for k in (2, 4):
        for middle, name in ((8, "all reach it"), (epochs, "half miss it")):
            for n in (3, 5, 10):
                row: dict[str, Any] = {"k": k, "budget": name, "n": n}
                for faster in (1.0, 1.5):
                    log = np.log(middle) - first(np.log(faster), k) + 0.15 * normal((count, n, k))
                    difference, error, df = engine_of_times(log, epochs)
                    p = corrected(p_values(difference, error, df), shaffer_steps(k))
                    if faster == 1:
                        row["false, one target"] = percent(float((p < ALPHA).any(1).mean()))
                        half = stats.t.ppf(1 - ALPHA / (k * (k - 1)), df) * error
                        row["ratio 1 covered"] = percent(float((np.abs(difference) <= half).all(1).mean()))
                        row["false, five targets"] = percent(float(several_targets(log, epochs)))
                    else:
                        row["1.5 x found, one target"] = percent(float((p[:, 0] < ALPHA).mean()))
                        row["1.5 x found, as one of five"] = percent(float((5 * p[:, 0] < ALPHA).mean()))
                rows.append(row)
    return markdown(rows)


def engine_of_times(log: Floats, epochs: int) -> tuple[Floats, Floats, Floats]:
    """The same as `engine` of the logarithms of whole epochs, whose error is at least that of counting so."""
    _, n, k = log.shape
    reached = np.minimum(np.ceil(np.exp(log)), epochs)
    difference, error, df = engine(np.log(reached))
    i, j = np.triu_indices(k, 1)
    rounding = 1 / reached**2 / 12
    return difference, np.maximum(error, np.sqrt((rounding[..., i] + rounding[..., j]).mean(1) / n)), df


def several_targets(log: Floats, epochs: int) -> float:
    """Any claim at any of five targets, whose times are 0.4 to 1 x the last; each has some noise of its own."""
    claims = np.full(len(log), False)
    for part in (0.4, 0.55, 0.7, 0.85, 1.0):
        own = log + np.log(part) + 0.08 * normal(log.shape)
        p = corrected(p_values(*engine_of_times(own, epochs)), shaffer_steps(log.shape[2]))
        claims |= (5 * p < ALPHA).any(1)
    return float(claims.mean())


def equivalence(count: int, margin: float = 0.005) -> str:
    """How often "equivalent within 0.5 points" is said of two equals, and how often a verdict is false.

    The false ones: half of the configurations are exactly 0.5 points ahead, which is not within the margin.
    """
    rows = []
    for k in (2, 4):
        i, j = np.triu_indices(k, 1)
        apart = np.where(np.arange(k) < k // 2, margin / SD, 0.0)
        for correlation in (0.0, 0.3, 0.5):
            row: dict[str, Any] = {"k": k, "r": correlation}
            found = {
                n: equivalent(sweeps(count, n, k, correlation=correlation), margin)[:, 0].mean() for n in range(3, 26)
            }
            row |= {f"n = {n}": percent(float(found[n])) for n in (5, 8, 10, 15, 20)}
            row["seeds for 80 %"] = next((n for n, share in found.items() if share >= POWER), "> 25")
            wrong = []
            for n in (5, 10, 20):
                tables = sweeps(count, n, k, correlation=correlation, gaps=apart)
                equal = apart[i] == apart[j]
                false = np.where(equal, ours(tables) < ALPHA, equivalent(tables, margin))
                wrong.append(float(false.any(1).mean()))
            row["false verdicts (worst of n = 5, 10, 20)"] = percent(max(wrong))
            rows.append(row)
    return markdown(rows)


def equivalent(tables: Floats, margin: float) -> Any:
    """`(sweeps, pairs)`: whether a pair is called equivalent."""
    difference, error, df = engine(tables)
    p = 2 * stats.t.sf((margin - np.abs(difference)) / error, df)
    return corrected(p, np.arange(p.shape[1], 0, -1)) < ALPHA


def seeds(count: int, gap: float = 0.005) -> str:
    """How often the range of seeds that a pilot gives, to find 0.5 points, holds the true number."""
    rows = []
    for k in (2, 4, 8):
        for correlation in (0.0, 0.5):
            tests, ahead = k * (k - 1) // 2, first(gap / SD, k)
            found = (
                n
                for n in range(3, 60)
                if (ours(sweeps(count, n, k, correlation=correlation, gaps=ahead))[:, 0] < ALPHA).mean() >= POWER
            )
            truth = next(found)
            row: dict[str, Any] = {"k": k, "r": correlation, "seeds for 80 %": truth}
            for n in (3, 5, 8):
                variance, df = residual(sweeps(count, n, k, correlation=correlation), np.full((count, k), True))
                low, high = seeds_to_find(gap, np.sqrt(2 * variance), df, k, tests)
                holds = percent(float(((low <= truth) & (truth <= high)).mean()))
                row[f"range after n = {n} (median)"] = (
                    f"{np.median(low):.0f} to {np.median(high):.0f}; holds in {holds}"
                )
            rows.append(row)
    return markdown(rows)


def means(count: int) -> str:
    """How often the 95 % interval of one configuration holds the truth; the bootstrap's by a quarter of the sweeps."""
    rows = []
    for name, draw in {"normal": normal, "heavy tails (t, 5 df)": heavy, "skewed (gamma, shape 2)": skewed}.items():
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
    return markdown(rows)


def bootstrap(samples: Floats, method: str) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):  # BCa has no interval for three values of which two are equal
        found = stats.bootstrap(
            (samples,), np.mean, axis=-1, method=method, n_resamples=2000, batch=100, rng=generator
        ).confidence_interval
    return np.column_stack([found.low, found.high])


def held(found: Iterable[tuple[float, float]] | Floats, truth: float) -> str:
    low, high = np.array([interval for interval in found if np.isfinite(interval).all()]).T
    return percent(((low <= truth) & (truth <= high)).mean())


def until_decided(count: int) -> str:
    """seed=until_decided: looks at 3, 5, 7 and 10 seeds, beside a fixed ten. Gaps in sd; margin half a point (1.25 sd).

    "Ahead": the first configuration is ahead of the rest, which are equal. "Behind": the last one is behind.
    """
    rows = []
    for k in (2, 4, 8):
        for correlation in (0.0, 0.3):
            for gap, side in ((0, "none"), (1, "ahead"), (2, "ahead"), (4, "ahead"), (2, "behind"), (4, "behind")):
                if side == "behind" and k == 2:
                    continue
                gaps = first(gap, k) if side != "behind" else -first(gap, k)[::-1]
                tables = sweeps(count, max(LEVELS), k, correlation=correlation, gaps=gaps)
                found = planned(tables)
                i, j = np.triu_indices(k, 1)
                false = (found.claimed & (gaps[i] == gaps[j])) | (
                    found.equivalent & (np.abs(gaps[i] - gaps[j]) >= MARGIN / SD)
                )
                at = (0 if side == "ahead" else len(i) - 1) if gap else None
                used = found.seeds.mean()
                rows.append(
                    {
                        "k": k,
                        "r": correlation,
                        "gap": f"{gap} {side}" if gap else "0",
                        "false verdicts": percent(float(false.any(1).mean())),
                        "gap found": "" if at is None else percent(float(found.claimed[:, at].mean())),
                        "gap found with a fixed ten": ""
                        if at is None
                        else percent(float((ours(tables)[:, at] < ALPHA).mean())),
                        "decided": percent(float(found.decided.mean())),
                        "seeds each": f"{used:.1f}",
                        "saved": percent(1 - used / max(LEVELS)),
                    }
                )
    return markdown(rows)


def bad_noise(count: int) -> str:
    """seed=until_decided where nothing differs, with other noise: the fraction of sweeps with a false verdict."""
    cases: dict[str, Callable[[int], dict[str, Any]]] = {
        "normal": lambda k: {},
        "heavy tails (t, 5 df)": lambda k: {"draw": heavy},
        "skewed (gamma, shape 2)": lambda k: {"draw": skewed},
        "one run in ten collapses": lambda k: {"collapse": 0.1},
        "one spreads 3 x as much": lambda k: {"spread": first(3, k, 1)},
        "half spread 3 x as much": lambda k: {"spread": np.where(np.arange(k) < k // 2, 3.0, 1.0)},
        "half are exactly the margin ahead": lambda k: {"gaps": np.where(np.arange(k) < k // 2, MARGIN / SD, 0.0)},
    }
    rows = []
    for name, case in cases.items():
        row: dict[str, Any] = {"noise": name}
        for k in (2, 4, 8):
            found = planned(sweeps(count, max(LEVELS), k, **case(k)))
            i, j = np.triu_indices(k, 1)
            gaps = np.broadcast_to(case(k).get("gaps", 0.0), k)
            false = np.asarray(np.where(gaps[i] == gaps[j], found.claimed, found.equivalent))
            row[f"k = {k}"] = percent(float(false.any(1).mean()))
        rows.append(row)
    return markdown(rows)


MARGIN = 0.005


@dataclass
class Planned:
    """What seed=until_decided says of many sweeps. A verdict counts that any look gave.

    `claimed`, `equivalent`: `(sweeps, pairs)`; `seeds`: used, `(sweeps, configurations)`; `decided`: `(sweeps,)`.
    """

    claimed: Any
    equivalent: Any
    seeds: Any
    decided: Any


def planned(tables: Floats) -> Planned:
    """The whole procedure, as `commands.until_decided` and `comparison.looks` do it. `check_looks` compares the two."""
    count, _, k = tables.shape
    i, j = np.triu_indices(k, 1)
    claimed, equivalent = (np.full((count, len(i)), False) for _ in range(2))
    seeds = np.zeros((count, k), int)
    running, decided = np.full((count, k), True), np.full(count, False)
    kept = np.full(
        (count, len(i)), 0
    )  # the newest verdict of a look that decided: 2 i is better, -2 worse, 1 equivalent
    for n, level in LEVELS.items():
        open_ = ~decided & running.any(1)
        seeds[running & open_[:, None]] = n
        patterns, which = np.unique(seeds, axis=0, return_inverse=True)
        for number, lengths in enumerate(patterns):
            rows = np.flatnonzero((which.ravel() == number) & open_)
            if not len(rows):
                continue
            difference, error, df = unequal_engine(tables[rows, :n], lengths)
            p = corrected(p_values(difference, error, df), shaffer_steps(k))
            known = error > ROUNDING
            t = np.divide(MARGIN - np.abs(difference), error, out=np.full(error.shape, -np.inf), where=known)
            near = 2 * stats.t.sf(t, df)
            equal = corrected(near, np.arange(p.shape[1], 0, -1)) < level
            verdict = np.where(p < level, 2 * np.sign(difference), np.where(equal, 1, 0)).astype(int)
            trained = running[np.ix_(rows, i)] & running[np.ix_(rows, j)]
            take = trained & (verdict != 0)
            kept[rows] = np.where(take, verdict, kept[rows])
            claimed[rows] |= take & (np.abs(verdict) == 2)
            equivalent[rows] |= take & (verdict == 1)
        square: Any = np.zeros((count, k, k), int)
        square[:, i, j] = kept
        square[:, j, i] = np.where(np.abs(kept) == 2, -kept, kept)
        itself: Any = np.eye(k, dtype=bool)
        decided |= ((square > 0) | itself).all(2).any(1)
        running &= ~((square != 0) | itself).all(2)
    return Planned(claimed, equivalent, seeds, decided)


def unequal_engine(tables: Floats, lengths: Any) -> tuple[Floats, Floats, Floats]:
    """`engine` where each configuration has the first `lengths` seeds."""
    count, n, k = tables.shape
    if (lengths == n).all():
        return engine(tables)
    i, j = np.triu_indices(k, 1)
    there = np.arange(n)[:, None] < lengths  # (seeds, configurations)
    both = there[:, i] & there[:, j]
    common = both.sum(0)
    gaps = np.where(both, tables[..., i] - tables[..., j], 0)
    difference = gaps.sum(1) / common
    own = (np.where(both, gaps - difference[:, None], 0) ** 2).sum(1) / (common - 1)
    square = np.full((count, k, k), np.nan)
    square[:, i, j] = square[:, j, i] = own
    spread = np.sort(square, axis=2)[:, :, (k - 2) // 2]
    calm = spread <= WILD * np.sort(spread, axis=1)[:, (k - 1) // 2][:, None]
    shared, df = np.zeros(count), np.zeros(count)
    patterns, which = np.unique(calm, axis=0, return_inverse=True)
    for number, columns in enumerate(patterns):
        rows = which.ravel() == number
        seed, configuration = np.nonzero(there & columns)
        design = np.zeros((len(seed), n + k))
        design[np.arange(len(seed)), seed] = design[np.arange(len(seed)), n + configuration] = 1
        df[rows] = len(seed) - np.linalg.matrix_rank(design)
        if df[rows][0] > 0:
            left = np.eye(len(seed)) - design @ np.linalg.pinv(design)
            shared[rows] = ((tables[rows][:, seed, configuration] @ left) ** 2).sum(1) / df[rows]
    pooled = calm[:, i] & calm[:, j] & (df > 0)[:, None]
    error = np.sqrt(np.where(pooled, np.maximum(own, 2 * shared[:, None]), own) / common)
    return difference, error, np.where(pooled, df[:, None], common - 1)


def check_looks() -> None:
    """The same verdicts and seeds as the report's own code, of 40 sweeps of each kind."""
    for k in (2, 3, 5):
        names = [f"c{column}" for column in range(k)]
        tables = sweeps(40, max(LEVELS), k, gaps=np.linspace(0, 4, k), spread=first(3, k, 1))
        expected = planned(tables)
        for table, claimed, equivalent, seeds, decided in zip(
            tables, expected.claimed, expected.equivalent, expected.seeds, expected.decided, strict=True
        ):
            blocks = pd.DataFrame(table, columns=names, index=pd.Index(range(len(table)), name="seed"))
            plan, running, used, leader = Plan(names), names, dict.fromkeys(names, 0), ""
            said: set[tuple[str, str, str]] = set()
            for n, level in LEVELS.items():
                used |= dict.fromkeys(running, n)
                seen = blocks.where(blocks.index.to_numpy()[:, None] < np.array([used[name] for name in names]))
                ranking = pd.DataFrame({"configuration": names, "n": [used[name] for name in names], "diverged": 0})
                plan.looks.append(Look(n, level, ""))

                def table_of(rows: pd.DataFrame, questions: float, ranking: pd.DataFrame = ranking) -> pd.DataFrame:
                    family, metric = Family.ALL, "test/accuracy"
                    return difference_table(rows, ranking, None, family, None, MARGIN, MARGIN, metric, {}, questions)

                pairs = over_looks(plan, seen, pd.Series(used) - 1, table_of)
                said |= {(row.a, row.b, row.verdict) for row in pairs.itertuples()}
                found = conclude(ranking, names, False, pairs)
                leader, running = found.leader, [name for name in running if name not in found.stopped]
                if leader or not running:
                    break
            assert [used[name] for name in names] == list(seeds)
            assert bool(leader) == decided
            for number, (a, b) in enumerate(combinations(names, 2)):
                verdicts = {verdict for x, y, verdict in said if {x, y} == {a, b}}
                assert (Verdict.BETTER in verdicts) == claimed[number]
                assert (Verdict.EQUIVALENT in verdicts) == equivalent[number]


def added(count: int) -> str:
    """Seeds added by hand after each look at the report, until a first claim: uncorrected, and as OptBench corrects.

    "False": nothing differs. "Found": the first configuration is two sd ahead of one given other.
    """
    rules: dict[str, Callable[[int], float]] = {
        "uncorrected": lambda earlier: 1,
        "divided by the looks (OptBench)": lambda earlier: 1 / (1 + earlier),
        "halved each time": lambda earlier: 1 / 2**earlier,
        "divided by their square": lambda earlier: 1 / (1 + earlier) ** 2,
    }
    rows = []
    for k in (2, 4, 8):
        for looks in ((3, 5), (3, 5, 10), (3, 5, 8, 12, 20), tuple(range(3, 21))):
            name = ", ".join(map(str, looks)) if len(looks) < 6 else f"each from {looks[0]} to {looks[-1]}"
            row: dict[str, Any] = {"k": k, "looks at": name}
            for ahead in (0.0, 2.0):
                tables = sweeps(count, looks[-1], k, gaps=first(ahead, k))
                p = [ours(tables[:, :n]) if not ahead else ours(tables[:, :n])[:, :1] for n in looks]
                for rule, part in rules.items():
                    claims = [np.any(p_of < ALPHA * part(earlier), axis=1) for earlier, p_of in enumerate(p)]
                    row[f"{'found' if ahead else 'false'}, {rule}"] = percent(float(np.any(claims, axis=0).mean()))
            rows.append(row)
    return markdown(rows)


def written(count: int, seeds: int = 5) -> str:
    """The same through files: runs on disk, and what `compare` says of them; a tenth of the sweeps."""
    claimed, count = 0, count // 10
    for table in sweeps(count, seeds, len(OPTIMIZERS), correlation=0.3):
        with tempfile.TemporaryDirectory() as folder:
            for seed, optimizer in np.ndindex(table.shape):
                name = OPTIMIZERS[optimizer]
                write_run(Path(folder) / f"{name}_{seed}", name, seed, float(table[seed, optimizer]))
            verdicts = compare([folder]).judgement.differences.verdict
            assert len(verdicts) == len(list(combinations(OPTIMIZERS, 2)))
            claimed += bool(verdicts.isin(["better", "worse"]).any())
    return f"{claimed} of {count} reports ({percent(claimed / count)}) claim a difference"


SECTIONS: dict[str, Callable[[int], str]] = {
    "false": false_claims,
    "power": power,
    "grid": grid,
    "intervals": intervals,
    "times": times,
    "equivalence": equivalence,
    "seeds": seeds,
    "means": means,
    "until_decided": until_decided,
    "bad_noise": bad_noise,
    "added": added,
    "written": written,
}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows, dtype=object).fillna("")
    cells = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all of them if none is named")
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps for each figure")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - SECTIONS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    check_engine()
    check_looks()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}")
    for name in arguments.sections or SECTIONS:
        begun = time.process_time()
        # each section by itself gives the same figures as all of them
        generator.bit_generator.state = np.random.default_rng(20260).bit_generator.state
        title = (SECTIONS[name].__doc__ or "").split("\n")[0]
        print(f"\n## {name}: {title}\n\n{SECTIONS[name](arguments.sweeps)}")
        print(
            f"\n{arguments.sweeps} sweeps for each figure; {time.process_time() - begun:.0f} s of one core", flush=True
        )


if __name__ == "__main__":
    main()
