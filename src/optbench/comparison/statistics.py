"""How sure: intervals, paired differences, and what this number of seeds can tell. Why these: docs/comparison.md."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

ALPHA = 0.05  # of all sweeps without any true difference, at most this fraction claims one
POWER = 0.80
MOST_SEEDS = 1000
ROUNDING = 1e-6  # of a value: records have seven digits, so less is no spread but rounding
FEWEST = 3  # seeds for a claim: of two, the spread is hardly known
WILD = 30  # times the usual variance: a rate at which training breaks, not one that is a little restless
RESTLESS = 1.5  # times the variance of the others, for a baseline: chosen by simulation, docs/comparison.md
MOST_SHAFFER = 40  # configurations; with more, Shaffer's steps are hardly larger than Holm's


def mean_interval(sample: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; (nan, nan) for fewer than two values.

    It covers at every n (docs/comparison.md has the figures), where the bootstrap is far too narrow for a handful of
    seeds.
    """
    x = np.asarray(sample, float)
    if len(x) < 2:
        return np.nan, np.nan
    half = stats.t.ppf(1 - ALPHA / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def iqm(sample: Sequence[float]) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021)."""
    return float(stats.trim_mean(sample, 0.25)) if len(sample) else np.nan


def iqm_interval(sample: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the interquartile mean by its winsorized variance (Tukey and McLaughlin 1963, Yuen 1974).

    With two or three values nothing is cut, and it is the interval of the mean.
    """
    x = np.sort(np.asarray(sample, float))
    if len(x) < 2:
        return np.nan, np.nan
    cut = len(x) // 4
    kept = len(x) - 2 * cut
    squares = (len(x) - 1) * np.clip(x, x[cut], x[-1 - cut]).var(ddof=1)
    half = stats.t.ppf(1 - ALPHA / 2, kept - 1) * np.sqrt(squares / (kept * (kept - 1)))
    return iqm(sample) - float(half), iqm(sample) + float(half)


def compare_pairs(
    values: Floats,
    higher_is_better: bool,
    baseline: int | None = None,
    chosen: bool = False,
    questions: float = 1,
    margin: float = 0.0,
    gap: float = 0.0,
    rounding: Floats | None = None,
) -> pd.DataFrame:
    """The pairs of columns of `values`, paired by row: one family, in which at most ALPHA of all sweeps claims falsely.

    Args:
        values: `(blocks, configurations)`; a block is a seed (of one version of the code); nan where there is no
            result.
        baseline: a column: only its pairs are the family; None: all pairs are.
        chosen: the baseline was chosen by these values, as the best of them: p is corrected for all pairs then
            (Bonferroni), since any of them could have been looked at.
        questions: how many such families are asked at once, such as the times to several targets. A look that may
            claim falsely in a fraction `level` of sweeps is one of ALPHA / level.
        margin: pairs that are closer than that are equivalent.
        gap: the true difference that a further sweep is planned to find.
        rounding: the deviation of each value that its rounding alone makes, where that is coarse; no error is smaller.

    Returns:
        one row per pair of columns `i < j`: `i`, `j`, `n`, `difference` (i - j), `low`, `high`, `improvement`, `p`,
        `p_adjusted`, `equivalent` (bool), `p_wilcoxon`, `detectable`, `seeds_low`, `seeds_high`, as
        `Judgement.differences` describes them. A pair with fewer than FEWEST common seeds has no p, and is no part of
        the family.

    The error of a difference is the larger of two estimates: the pair's own spread over seeds, and the spread that all
    configurations share, estimated from what configuration and seed together leave over. The second alone has more
    power and is right where all spread alike; the first protects a configuration that spreads more than the rest. One
    that spreads WILD times as much (in variance) would spoil it for all: it is left out of it, and its pairs use their
    own spread alone. So do the pairs of a baseline that spreads RESTLESS times as much: it is in all of them. The pairs
    of a `chosen` one are judged as they are among all pairs.

    The intervals hold simultaneously (Bonferroni). p is corrected step by step, which sees a little more: where it
    claims a pair whose interval crosses zero, the interval ends at zero. So the three never contradict each other.
    Equivalence takes two one-sided tests (Schuirmann 1987), each at half of ALPHA as the ends of an interval are, and
    Holm's steps: where they find it, the interval ends at the margin.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    columns = values.shape[1]
    i, j = np.triu_indices(columns, 1)
    own, n = (np.full(len(i), np.nan) for _ in range(2))
    for part in small_parts(len(i), len(values)):
        gaps = values[:, i[part]] - values[:, j[part]]  # (blocks, pairs)
        n[part] = np.isfinite(gaps).sum(0)
        own[part] = deviation(gaps)
    spread = column_spread(np.where(n > 2, own, np.nan), i, j, columns)  # two seeds tell no spread
    testable = int(np.count_nonzero(n >= FEWEST))
    asked = np.full(len(i), True) if baseline is None else (i == baseline) | (j == baseline)
    i, j, n, own = (column[asked] for column in (i, j, n, own))
    difference, improvement = (np.full(len(i), np.nan) for _ in range(2))
    known = np.where(n > 0, n, np.nan)  # a pair without a common block has no mean
    for part in small_parts(len(i), len(values)):
        gaps = values[:, i[part]] - values[:, j[part]]
        there = np.isfinite(gaps)
        ahead = np.where(gaps == 0, 0.5, (gaps > 0) == higher_is_better)
        difference[part] = np.where(there, gaps, 0).sum(0) / known[part]
        improvement[part] = np.where(there, ahead, 0).sum(0) / known[part]
    calm = calm_columns(spread)
    shared, shared_df = residual_deviation(values[:, calm])
    pooled = calm[i] & calm[j] & (shared_df > 0)  # the pairs for which the spread of all counts, too
    if baseline is not None and not chosen and calm[baseline]:
        others = calm & (np.arange(columns) != baseline)
        usual_of_others, df_of_others = residual_deviation(values[:, others])
        if df_of_others and spread[baseline] > np.sqrt(2 * RESTLESS) * usual_of_others:
            pooled &= (i != baseline) & (j != baseline)
    df = np.where(pooled, shared_df, np.maximum(n - 1, 1))
    error = np.where(pooled, np.fmax(own, np.sqrt(2) * shared), own) / np.sqrt(np.maximum(n, 1))
    if rounding is not None:
        together = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
        rounded = np.where(together, rounding[:, i] ** 2 + rounding[:, j] ** 2, 0).sum(0)
        error = np.fmax(error, np.sqrt(rounded) / np.maximum(n, 1))
    # Without any spread the seed has no effect, and the samples are one sample: nothing can be told
    size = np.nan_to_num(np.abs(values)).max(0, initial=0)
    error[(error <= ROUNDING * np.maximum(size[i], size[j])) | (n < FEWEST)] = np.nan
    p = 2 * stats.t.sf(np.abs(difference) / error, df)
    closer = 2 * stats.t.sf((margin - np.abs(difference)) / error, df)
    tests = testable if chosen else int(np.isfinite(p).sum())
    alike = int(np.count_nonzero(np.isfinite(values).any(0) & calm))
    if chosen:
        corrected = tests * p
    elif baseline is None:
        corrected = shaffer(p, i, j)
    else:
        corrected = holm(p)
    p_adjusted = np.minimum(questions * corrected, 1)
    half = stats.t.ppf(1 - ALPHA / (2 * questions * tests), df) * error if tests else np.full(len(p), np.nan)
    usual = np.where(pooled, np.sqrt(2) * shared, own)
    usual[~np.isfinite(p) | (usual == 0)] = np.nan
    planned = [seeds_to_find(gap, usual, df, count, questions * tests) for count in (alike, 2)]
    claimed = p_adjusted < ALPHA
    equivalent = questions * (tests * closer if chosen else holm(closer)) < ALPHA
    least = np.where(claimed & (difference > 0), 0, np.where(equivalent, -margin, -np.inf))
    most = np.where(claimed & (difference < 0), 0, np.where(equivalent, margin, np.inf))
    return pd.DataFrame(
        {
            "i": i,
            "j": j,
            "n": n.astype(int),
            "difference": difference,
            "low": np.maximum(difference - half, least),
            "high": np.minimum(difference + half, most),
            "improvement": improvement,
            "p": p,
            "p_adjusted": p_adjusted,
            "equivalent": equivalent,
            "p_wilcoxon": wilcoxon(values, i, j),
            "detectable": error * noncentrality(df, questions * tests) if tests else np.nan,
            "seeds_low": np.where(pooled, planned[0][0], planned[1][0]),
            "seeds_high": np.where(pooled, planned[0][1], planned[1][1]),
        }
    )


def small_parts(pairs: int, blocks: int) -> list[NDArray[np.intp]]:
    """The numbers of the pairs in parts of some 2,000,000 differences: all at once might not fit into memory."""
    return np.array_split(np.arange(pairs), max(1, pairs * blocks // 2_000_000))


def deviation(values: Floats) -> Floats:
    """Standard deviation of each column without its nan; nan for fewer than two values. Squares of 1e200 are inf."""
    there = np.isfinite(values)
    n = there.sum(0)
    scale = np.abs(np.where(there, values, 0)).max(0, initial=0)
    scale = np.where(scale == 0, 1, scale)
    scaled = np.where(there, values / scale, 0)
    left = np.where(there, scaled - scaled.sum(0) / np.maximum(n, 1), 0)
    return np.where(n > 1, scale * np.sqrt((left**2).sum(0) / np.maximum(n - 1, 1)), np.nan)


def column_spread(own: Floats, i: NDArray[np.intp], j: NDArray[np.intp], columns: int) -> Floats:
    """How much each column spreads against the others, from the deviation `own` of each pair's differences.

    It is the median over its partners, so that one wild partner does not make it look wild; nan where none is known.
    """
    table = np.full((columns, columns), np.nan)
    table[i, j] = table[j, i] = own
    known = np.flatnonzero(np.isfinite(table).any(1))
    spread = np.full(columns, np.nan)
    spread[known] = np.nanquantile(table[known], 0.5, axis=1, method="lower")
    return spread


def calm_columns(spread: Floats) -> NDArray[np.bool_]:
    """Which columns do not spread WILD times as much as the usual one (in variance)."""
    known = spread[np.isfinite(spread)]
    usual = np.quantile(known, 0.5, method="lower") if len(known) else np.nan
    return ~(spread > np.sqrt(WILD) * usual)


def spread_alike(samples: Sequence[Sequence[float]]) -> float:
    """p of Bartlett's test (1937) that all samples spread alike; nan where fewer than two of them have three values.

    Without those that spread WILD times as much as the usual one, which `compare_pairs` keeps apart anyway.
    """
    known = [np.asarray(sample) for sample in samples if len(sample) >= FEWEST and np.ptp(sample) > 0]
    usual = np.median([deviation(sample) for sample in known]) if known else np.nan
    calm = [sample / usual for sample in known if deviation(sample) <= np.sqrt(WILD) * usual]
    return float(stats.bartlett(*calm).pvalue) if len(calm) > 1 else np.nan


def residual_deviation(values: Floats) -> tuple[float, int]:
    """Deviation and degrees of freedom of what `configuration + block` leaves over; (nan, 0) where nothing."""
    there = np.isfinite(values)
    there, values = there[:, there.any(0)], values[:, there.any(0)]
    if not there.size:
        return np.nan, 0
    scale = np.abs(values[there]).max() or 1.0
    n = there.sum(0)
    # Without the mean of each column only the blocks are left to fit: thousands of columns cost little
    y = np.where(there, values, 0) / scale  # squares of 1e200 are inf
    y -= np.where(there, y.sum(0) / n, 0)
    design = np.where(there, np.eye(len(values))[:, :, None] - there[:, None] / n, 0)  # (blocks, blocks, columns)
    solution, _, rank, _ = np.linalg.lstsq(design.reshape(len(design), -1).T, y.ravel(), rcond=None)
    left = y - np.tensordot(solution, design, 1)
    df = int(n.sum()) - there.shape[1] - int(rank)
    return (float(scale * np.sqrt((left**2).sum() / df)), df) if df > 0 else (np.nan, 0)


def wilcoxon(values: Floats, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
    """The signed-rank test's p for each pair: a check that assumes no normal distribution. nan below 3 seeds.

    Exact up to 50 seeds; where gaps tie, it rounds to the safe side. It can't be below 0.25 for 3 seeds and 0.06 for
    5, which is why claims don't rest on it.
    """
    p = np.full(len(i), np.nan)
    gaps = values[:, i] - values[:, j]
    there = np.isfinite(gaps)
    patterns = {column.tobytes(): column for column in there.T}
    for pattern in patterns.values():
        pairs = np.flatnonzero((there == pattern[:, None]).all(0) & (gaps != 0).any(0))
        if pattern.sum() >= 3 and len(pairs):
            # not scipy's `auto`: there a tie in one pair changes the method, and so p, of all of them
            method = "exact" if pattern.sum() <= 50 else "asymptotic"
            with np.errstate(invalid="ignore", divide="ignore"):
                p[pairs] = np.atleast_1d(stats.wilcoxon(gaps[pattern][:, pairs], axis=0, method=method).pvalue)
    return p


def holm(p: Floats) -> Floats:
    """p-values such that of all the claims below ALPHA any is false in at most ALPHA of cases (Holm 1979)."""
    return stepped(p, np.arange(np.isfinite(p).sum(), 0, -1))


def shaffer(p: Floats, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
    """The same for all pairs of k configurations, where hypotheses imply each other (Shaffer 1986, procedure S1).

    Once one pair of four differs, at most three of the other five can be equal: the second p is multiplied by 3, not
    by 5. Where some pairs have no p, and for many configurations, where it gains nothing, it is Holm's.
    """
    tested = np.isfinite(p)
    tests, k = int(tested.sum()), len(np.union1d(i[tested], j[tested]))
    if tests != k * (k - 1) // 2 or not 2 < k <= MOST_SHAFFER:
        return holm(p)
    possible = np.array(sorted(equal_pairs(k)))
    left = np.arange(tests, 0, -1)
    return stepped(p, possible[np.searchsorted(possible, left, side="right") - 1])


def stepped(p: Floats, multipliers: NDArray[np.int_]) -> Floats:
    """The smallest p times the first multiplier, and so on; never below one before it. nan stays nan."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: len(multipliers)]  # nan sorts last
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * multipliers), 1)
    return adjusted


@cache
def equal_pairs(k: int) -> frozenset[int]:
    """How many of the pairs of k configurations can be equal: those of any partition into groups of equals."""
    if k < 2:
        return frozenset({0})
    return frozenset(size * (size - 1) // 2 + rest for size in range(1, k + 1) for rest in equal_pairs(k - size))


def noncentrality(df: NDArray[np.int_], tests: float) -> Floats:
    """How many standard errors a true difference must measure to be found with POWER at Holm's first step.

    By Johnson and Welch's approximation (1940) of the noncentral t distribution: the true power is 0.80 to 0.82.
    """
    critical = stats.t.ppf(1 - ALPHA / (2 * tests), df)
    return np.asarray(critical * (1 - 1 / (4 * df)) + stats.norm.ppf(POWER) * np.sqrt(1 + critical**2 / (2 * df)))


def seeds_to_find(
    gap: float, deviation: Floats, df: NDArray[np.int_], configurations: int, tests: float
) -> tuple[Floats, Floats]:
    """Seeds per configuration that find a true difference `gap` with POWER: from, to; inf: over 1000.

    A range, because `deviation` (of one difference) is itself estimated from few runs: it is the interval of that
    deviation (chi-squared) in other units, and holds the true number in about four of five sweeps (docs/comparison.md).
    """
    least, most = (deviation * np.sqrt(df / stats.chi2.ppf(q, df)) for q in (0.9, 0.1))
    return seeds_needed(gap / least, configurations, tests), seeds_needed(gap / most, configurations, tests)


def middle(values: Sequence[float]) -> float:
    """The median, or the one below it: one of the values, also where some are infinite."""
    return float(np.quantile(values, 0.5, method="lower"))


def seeds_needed(effects: Floats, configurations: int, tests: float) -> Floats:
    """Seeds per configuration at which differences of that many standard deviations are found; inf: over 1000."""
    if not tests:
        return np.full(len(effects), np.nan)
    n = np.arange(FEWEST, MOST_SEEDS + 1)
    findable = noncentrality((configurations - 1) * (n - 1), tests) / np.sqrt(n)  # falls with n
    index = np.searchsorted(-findable, -np.nan_to_num(effects), side="left")
    needed = np.append(n.astype(float), np.inf)[index]
    return np.where(np.isfinite(effects), needed, np.nan)


def flattery(validation: Floats, test: Floats, higher_is_better: bool) -> float:
    """By how much the test mean of the column that validation chooses is better than its true mean, on average.

    Args:
        validation, test: `(seeds, candidates)` of the same runs; nan where there is no result.

    By 4,000 draws: the means as they are, with noise that has the spread and the correlation of the two metrics from
    run to run. 0 for one candidate; nan where the spread is unknown.
    """
    n, candidates = validation.shape
    if candidates < 2:
        return 0.0
    left = [
        x - np.nanmean(x, 0) - np.nanmean(x, 1, keepdims=True) + np.nanmean(x) if n > 1 else x * np.nan
        for x in (validation, test)
    ]
    noise = np.stack(left).reshape(2, -1)
    noise = noise[:, np.isfinite(noise).all(0)]
    df = (candidates - 1) * (n - 1)
    if noise.shape[1] < 2:
        return np.nan
    covariance = noise @ noise.T / df / n  # of two means
    draws = np.random.default_rng(0).multivariate_normal([0, 0], covariance, (4000, candidates), method="eigh")
    sign = 1 if higher_is_better else -1
    chosen = np.argmax(sign * (np.nanmean(validation, 0) + draws[..., 0]), axis=1)
    return float(sign * draws[np.arange(len(draws)), chosen, 1].mean())


def performance_profile(costs: pd.DataFrame) -> pd.DataFrame:
    """Dolan and Moré 2002: for each configuration, the fraction of problems that it solves within `ratio` x the best.

    Args:
        costs: one row per problem (a target at a seed), one column per configuration; inf: not solved; nan: not tried.

    Returns:
        `configuration`, `ratio`, `fraction`: the corners of each step function, beginning at ratio 1. Problems that
        nobody solved count for nobody.
    """
    solved = costs[np.isfinite(costs).any(axis=1)]
    ratios = solved.div(solved.min(axis=1), axis=0)
    finite = ratios.to_numpy()[np.isfinite(ratios.to_numpy())]
    last = finite.max() if len(finite) else 1.0
    rows = []
    for configuration in ratios:
        tried = ratios[configuration].dropna().to_numpy()
        if len(tried):
            corners = np.unique(np.concatenate([[1.0], tried[np.isfinite(tried)], [last]]))
            rows += [(configuration, float(ratio), float((tried <= ratio).mean())) for ratio in corners]
    return pd.DataFrame(rows, columns=["configuration", "ratio", "fraction"])
