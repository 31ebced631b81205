"""Intervals, differences and their claims, each against another way to get there, and by simulation."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy import inf, nan
from numpy.testing import assert_allclose
from scipy import stats

from optbench.comparison.statistics import (
    compare_pairs,
    equal_pairs,
    flattery,
    holm,
    iqm,
    iqm_interval,
    mean_interval,
    noncentrality,
    performance_profile,
    residual_deviation,
    seeds_needed,
    seeds_to_find,
    shaffer,
    spread_alike,
    wilcoxon,
)

SD = 0.004  # of the accuracy from run to run, as on CIFAR-10


def table(seeds, configurations, seed=0, shared=0.0, sd=SD, missing=()):
    """Accuracies of 10,000 test images: (seeds, configurations); `shared`: deviation of what a seed does to all."""
    random = np.random.default_rng(seed)
    values = 0.54 + sd * random.standard_normal((seeds, configurations)) + shared * random.standard_normal((seeds, 1))
    values = np.round(values, 4)
    for place in missing:
        values[place] = nan
    return values


# Intervals of one configuration


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_the_interval_of_a_mean_is_students(n):
    sample = table(n, 1, seed=n)[:, 0]
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert_allclose(mean_interval(list(sample)), (expected.low, expected.high), rtol=1e-12)


@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_one_value_or_none_has_no_interval_and_equal_values_one_of_no_width(interval):
    assert np.isnan(interval([])).all()
    assert np.isnan(interval([0.5])).all()
    assert_allclose(interval([0.5] * 6), (0.5, 0.5))


@pytest.mark.parametrize(("n", "cut"), [(1, 0), (3, 0), (4, 1), (5, 1), (7, 1), (8, 2), (13, 3)])
def test_the_iqm_leaves_a_quarter_out_at_each_end(n, cut):
    sample = np.random.default_rng(n).permutation(np.arange(n) ** 2.0)
    assert_allclose(iqm(sample), np.mean(sorted(sample)[cut : n - cut]))
    assert np.isnan(iqm([]))


def test_the_iqms_interval_is_yuens():
    sample = [9.0, 1.0, 4.0, 2.0, 50.0, 3.0, 7.0, 5.0]  # winsorized: 3 3 3 4 5 7 7 7, of which 3 4 5 7 are kept
    squares = np.sum((np.array([3, 3, 3, 4, 5, 7, 7, 7]) - 39 / 8) ** 2)
    half = stats.t.ppf(0.975, 3) * np.sqrt(squares / (4 * 3))
    assert_allclose(iqm_interval(sample), (19 / 4 - half, 19 / 4 + half))
    # of two such samples, Yuen's test in scipy: its error of the difference is sqrt(2) of one sample's
    shifted = stats.ttest_ind(sample, np.array(sample) - 1, trim=0.25).statistic
    assert 1 / shifted == pytest.approx(np.sqrt(2) * half / stats.t.ppf(0.975, 3))


def test_where_nothing_is_cut_the_iqms_interval_is_the_means():
    assert_allclose(iqm_interval([0.51, 0.53, 0.52]), mean_interval([0.51, 0.53, 0.52]))


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_intervals_cover(n):
    """The mean's holds the truth in about 95 % of samples, the IQM's in 93.5 to 95 %."""
    samples = table(n, 1000, seed=1)
    low, high = np.array([mean_interval(sample) for sample in samples.T]).T
    assert 0.93 <= np.mean((low <= 0.54) & (high >= 0.54)) <= 0.97
    low, high = np.array([iqm_interval(sample) for sample in samples.T]).T
    assert 0.93 <= np.mean((low <= 0.54) & (high >= 0.54)) <= 0.97


# Differences


@pytest.mark.parametrize("missing", [(), [(0, 0), (3, 1)]], ids=["complete", "seeds missing"])
def test_two_configurations_are_the_paired_t_test(missing):
    values = table(7, 2, shared=0.01, missing=missing)
    (row,) = compare_pairs(values, True).itertuples()
    both = values[np.isfinite(values).all(1)]
    expected = stats.ttest_rel(both[:, 0], both[:, 1])
    interval = expected.confidence_interval(0.95)
    assert_allclose([row.p, row.low, row.high], [expected.pvalue, interval.low, interval.high], rtol=1e-9)
    assert row.p_adjusted == row.p
    assert (row.i, row.j, row.n) == (0, 1, len(both))
    assert_allclose([row.difference, row.improvement], [both[:, 0].mean() - both[:, 1].mean(), row.improvement])


def test_a_mean_of_differences_is_over_common_seeds_only():
    values = np.array([[0.5, 0.4, 0.1], [0.6, 0.4, 0.2], [0.9, nan, 0.2], [nan, 0.1, 0.4]])
    pairs = compare_pairs(values, True).set_index(["i", "j"])
    assert list(pairs.n) == [2, 3, 3]
    assert_allclose(pairs.difference, [0.15, 0.5, 0.2 / 3], atol=1e-12)
    assert_allclose(pairs.improvement, [1, 1, 2 / 3])
    assert_allclose(compare_pairs(values, False).improvement, [0, 0, 1 / 3])


def test_lower_can_be_better_and_an_equal_result_is_half_an_improvement():
    values = np.array([[0.1, 0.2], [0.2, 0.1], [0.1, 0.3], [0.3, 0.3]])
    higher, lower = (compare_pairs(values, higher_is_better=higher).iloc[0] for higher in (True, False))
    assert higher.improvement == pytest.approx(1.5 / 4)
    assert lower.improvement == pytest.approx(2.5 / 4)
    assert higher.drop("improvement").equals(lower.drop("improvement"))


def two_way(values):
    """What seed and configuration leave over, by taking off their means in turn until nothing changes."""
    values = pd.DataFrame(values).dropna(how="all").dropna(axis=1, how="all")
    left = values
    for _ in range(200):
        left = left.sub(left.mean(axis=1), axis=0)
        left = left - left.mean()
    df = int(values.notna().to_numpy().sum()) - sum(values.shape) + 1  # of a table whose parts hang together
    return float((left**2).sum().sum()) / df, df


@pytest.mark.parametrize(
    ("seeds", "configurations", "missing"),
    [
        (5, 4, ()),
        (3, 2, ()),
        (6, 5, [(0, 0), (1, 0), (5, 4), (2, 3)]),
        (4, 3, [(0, slice(None)), (slice(None), 1)]),
        (4, 3, [(slice(2), 0), (slice(2, 3), 2)]),
    ],
)
def test_the_shared_variance_is_that_of_the_two_way_analysis(seeds, configurations, missing):
    values = table(seeds, configurations, shared=0.01, missing=missing)
    deviation, df = residual_deviation(values)
    assert (deviation**2, df) == pytest.approx(two_way(values), rel=1e-9)


def test_seeds_without_anything_in_common_leave_nothing_over():
    apart = np.array([[0.5, nan], [0.6, nan], [nan, 0.7], [nan, 0.9]])
    spread, df = residual_deviation(apart)  # two tables: in each, seed and configuration explain all
    assert np.isnan(spread) and df == 0
    assert np.isnan(residual_deviation(np.full((3, 2), nan))[0])
    two_parts = np.full((6, 4), nan)
    two_parts[:3, :2], two_parts[3:, 2:] = table(3, 2, seed=1), table(3, 2, seed=2)
    assert residual_deviation(two_parts)[1] == 4
    assert list(compare_pairs(two_parts, True).query("n > 0")[["i", "j"]].itertuples(index=False, name=None)) == [
        (0, 1),
        (2, 3),
    ]


def test_the_error_of_a_difference_is_the_larger_of_own_and_shared_spread():
    values = table(6, 4, seed=3)
    values[:, 0] += 6 * (values[:, 0] - values[:, 0].mean())  # the first spreads much more than the rest
    spread, df = residual_deviation(values)
    pairs = compare_pairs(values, True).set_index(["i", "j"])
    assert df == 15
    for (i, j), pair in pairs.iterrows():
        gaps = values[:, i] - values[:, j]
        own, shared = gaps.std(ddof=1) / np.sqrt(6), np.sqrt(2 / 6) * spread
        assert (own > shared) == (i == 0)
        half = (pair.high - pair.low) / 2
        assert half == pytest.approx(stats.t.ppf(1 - 0.025 / 6, df) * max(own, shared))
        assert pair.p == pytest.approx(2 * stats.t.sf(abs(gaps.mean()) / max(own, shared), df))
        assert pair.detectable == pytest.approx(max(own, shared) * noncentrality(np.array(df), 6))


def test_holm_by_hand():
    assert_allclose(holm(np.array([0.02, 0.01, 0.03])), [0.04, 0.03, 0.04])
    assert_allclose(holm(np.array([0.01, nan, 0.6, 0.04])), [0.03, nan, 0.6, 0.08])
    assert_allclose(holm(np.array([0.4, 0.7])), [0.8, 0.8])
    assert_allclose(holm(np.array([0.9, 0.9])), [1, 1])
    assert np.isnan(holm(np.array([nan, nan]))).all()
    pairs = compare_pairs(table(4, 4) + [0.01, 0, 0.02, 0], True, baseline=2)
    assert list(zip(pairs.i, pairs.j, strict=True)) == [(0, 2), (1, 2), (2, 3)]
    assert_allclose(pairs.p_adjusted, holm(pairs.p.to_numpy()))


def test_shaffer_by_hand():
    """Of the pairs of four configurations 6, 3, 2, 1 or none can be equal; of three 3, 1 or none."""
    i, j = np.triu_indices(4, 1)
    p = np.array([0.001, 0.002, 0.01, 0.02, 0.03, 0.5])
    assert_allclose(shaffer(p, i, j), [0.006, 0.006, 0.03, 0.06, 0.06, 0.5])
    assert_allclose(shaffer(p[:3], *np.triu_indices(3, 1)), [0.003, 0.003, 0.01])
    p[5] = nan  # of a family with a hole any number of pairs can be equal
    assert_allclose(shaffer(p, i, j), holm(p))
    assert [sorted(equal_pairs(k)) for k in (2, 3, 5)] == [[0, 1], [0, 1, 3], [0, 1, 2, 3, 4, 6, 10]]
    pairs = compare_pairs(table(4, 4) + [0.01, 0, 0.02, 0], True)
    assert_allclose(pairs.p_adjusted, shaffer(pairs.p.to_numpy(), i, j))


def test_verdict_p_and_interval_never_contradict():
    """Also where a later step claims a pair whose simultaneous interval crosses zero: there it ends at zero."""
    ended = 0
    for seed in range(300):
        pairs = compare_pairs(table(5, 4, seed=seed) + [0.012, 0.006, 0, 0], True)
        claimed = pairs.p_adjusted < 0.05
        assert ((pairs.low < 0) & (pairs.high > 0) == ~claimed).all()
        assert ((pairs.low <= pairs.difference) & (pairs.difference <= pairs.high)).all()
        ended += int(((pairs.low == 0) | (pairs.high == 0)).sum())
    assert ended > 20


def test_several_questions_share_the_error():
    values = table(5, 3) + [0.01, 0, 0]
    one, four = (compare_pairs(values, True, questions=questions) for questions in (1, 4))
    assert_allclose(four.p_adjusted, np.minimum(4 * one.p_adjusted, 1))
    ratio = stats.t.ppf(1 - 0.025 / 12, 8) / stats.t.ppf(1 - 0.025 / 3, 8)
    width = [pairs.high[2] - pairs.low[2] for pairs in (four, one)]  # the two that are equal: no end at zero
    assert width[0] == pytest.approx(ratio * width[1])


def test_a_baseline_that_spreads_more_is_compared_by_its_own_spread():
    values = table(5, 4, seed=2)
    calm = compare_pairs(values + [0.02, 0, 0, 0], True, baseline=1)
    assert calm.p[0] != pytest.approx(stats.ttest_rel(values[:, 0] + 0.02, values[:, 1]).pvalue)
    values[:, 1] *= 4
    wide = compare_pairs(values, True, baseline=1)
    for pair in wide.itertuples():
        assert pair.p == pytest.approx(stats.ttest_rel(values[:, pair.i], values[:, pair.j]).pvalue)


@pytest.mark.parametrize("height", [1e200, 1e300])
def test_a_value_beyond_all_bounds_hides_nothing_of_the_others(height):
    """A loss that explodes at one seed has an endless variance: its configuration is kept apart."""
    values = table(5, 4) + [0.03, 0, 0, 0]
    values[2, 3] = height
    pairs = compare_pairs(values, False).set_index(["i", "j"])
    assert (pairs.p_adjusted[[(0, 1), (0, 2)]] < 0.05).all()
    assert (pairs.p_adjusted[[(0, 3), (1, 3), (2, 3)]] > 0.3).all()
    alone = compare_pairs(values[:, :3], False).set_index(["i", "j"])
    assert_allclose(pairs.loc[alone.index, "p"], alone.p)


def test_unequal_spreads():
    samples = list(table(5, 4).T)
    assert spread_alike(samples) == pytest.approx(stats.bartlett(*samples).pvalue)
    wide = [*samples[:3], 5 * samples[3]]
    assert spread_alike(wide) < 0.01
    assert spread_alike([*samples, 1e6 * samples[3]]) == pytest.approx(spread_alike(samples))  # kept apart anyway
    assert np.isnan(spread_alike([samples[0], [0.5, 0.5, 0.5], [0.1, 0.2], []]))


def test_wilcoxon_is_scipys_for_each_pair_alone():
    """Also where a neighbour has ties or other seeds: they must not change a pair's p."""
    values = table(9, 5, seed=4, missing=[(0, 3), (1, 3), (slice(7), 4)])
    values[0, 0] = values[0, 1]  # a difference of nothing
    i, j = np.triu_indices(5, 1)
    for p, first, second in zip(wilcoxon(values, i, j), i, j, strict=True):
        gaps = values[:, first] - values[:, second]
        gaps = gaps[np.isfinite(gaps)]
        if len(gaps) < 3:
            assert np.isnan(p)
        else:
            assert p == pytest.approx(stats.wilcoxon(gaps, method="exact").pvalue)
    tied = np.array([[0.2, 0.1], [0.2, 0.1], [0.3, 0.1], [0.3, 0.1], [0.3, 0.1]])
    assert wilcoxon(tied, i[:1], j[:1]) == pytest.approx(2 / 32)
    assert np.isnan(wilcoxon(np.full((5, 2), 0.3), i[:1], j[:1]))


def test_wilcoxon_of_very_many_seeds():
    values = table(80, 2)
    expected = stats.wilcoxon(values[:, 0] - values[:, 1], method="asymptotic").pvalue
    assert compare_pairs(values, True).p_wilcoxon[0] == pytest.approx(expected)


# What so many seeds can tell


def exact_power(effect, n, configurations):
    """Chance to find a difference of `effect` of its standard deviations, at Holm's first step."""
    tests, df = configurations * (configurations - 1) // 2, (configurations - 1) * (n - 1)
    critical = stats.t.ppf(1 - 0.025 / tests, df)
    return stats.nct.sf(critical, df, effect * np.sqrt(n))  # the wrong side is found in less than 0.1 %


@pytest.mark.parametrize("configurations", [2, 4, 10, 40])
def test_seeds_needed_have_the_promised_power(configurations):
    tests = configurations * (configurations - 1) // 2
    effects = np.array([0.2, 0.3, 0.7, 1.0, 1.5, 2.5, 4.0])
    needed = seeds_needed(effects, configurations, tests)
    for effect, n in zip(effects, needed, strict=True):
        assert exact_power(effect, n, configurations) >= 0.795
        assert n == 3 or exact_power(effect, n - 1, configurations) < 0.81
        assert n < 6 or exact_power(effect, n // 2, configurations) < 0.6
    few = seeds_needed(np.array([nan, 0.0, 1e-3, 1e3]), configurations, tests)
    assert_allclose(few, [nan, inf, inf, 3])


@pytest.mark.parametrize("n", [3, 8])
def test_the_seeds_to_find_a_gap_are_a_range_that_holds_in_four_of_five_sweeps(n):
    """Two configurations and a gap of 1.25 deviations of a run: 13 seeds find it."""
    (truth,) = seeds_needed(np.array([1.25 / np.sqrt(2)]), 2, 1)
    assert truth == 13
    gaps = np.random.default_rng(0).standard_normal((n, 2000)) * np.sqrt(2)
    low, high = seeds_to_find(1.25, gaps.std(0, ddof=1), np.full(2000, n - 1), 2, 1)
    assert 0.78 <= np.mean((low <= truth) & (truth <= high)) <= 0.88
    pairs = compare_pairs(table(n, 2), True, gap=0.005)
    assert pairs.seeds_low[0] < pairs.seeds_high[0]
    wider = compare_pairs(table(n, 2), True, gap=0.01)  # a larger gap takes fewer seeds
    assert wider.seeds_high[0] < pairs.seeds_high[0]


def test_equivalence_is_two_one_sided_tests_by_holms_steps():
    values = table(12, 4, seed=1)
    pairs, bare = (compare_pairs(values, True, margin=margin) for margin in (0.006, 0))
    error = (bare.high - bare.low) / 2 / stats.t.ppf(1 - 0.025 / 6, 33)
    p = 2 * np.maximum(
        stats.t.sf((0.006 - bare.difference) / error, 33), stats.t.sf((0.006 + bare.difference) / error, 33)
    )
    assert list(pairs.equivalent) == list(holm(np.asarray(p)) < 0.05) and pairs.equivalent.sum() > 3
    assert not bare.equivalent.any()
    inside = pairs[pairs.equivalent]
    assert (inside.low >= -0.006).all() and (inside.high <= 0.006).all()


@pytest.mark.parametrize(("n", "configurations"), [(3, 2), (5, 2), (5, 4), (10, 6)])
def test_a_detectable_difference_is_found_in_80_percent(n, configurations):
    values = table(n, configurations, seed=5)
    pair = compare_pairs(values, True).iloc[0]
    deviation = (
        (pair.high - pair.low)
        / 2
        / stats.t.ppf(1 - 0.025 / (configurations * (configurations - 1) / 2), (n - 1) * (configurations - 1))
        * np.sqrt(n)
    )
    assert 0.79 <= exact_power(pair.detectable / deviation, n, configurations) <= 0.82


def test_a_detectable_difference_is_found_when_it_is_there():
    """By simulation: the shared spread alone, so that nothing but chance is between promise and result."""
    n, k, df = 5, 4, 12
    detectable = noncentrality(np.array(df), 6) * SD * np.sqrt(2 / n)
    noise = np.random.default_rng(0).standard_normal((4000, n, k)) * SD
    left = noise - noise.mean(1, keepdims=True) - noise.mean(2, keepdims=True) + noise.mean((1, 2), keepdims=True)
    error = np.sqrt((left**2).sum((1, 2)) / df * 2 / n)
    gap = noise[..., 0].mean(1) - noise[..., 1].mean(1) + detectable
    assert np.mean(gap / error > stats.t.ppf(1 - 0.025 / 6, df)) == pytest.approx(0.80, abs=0.02)


# Edges: where nothing can be told, nothing is claimed


def claims(pairs):
    return int((pairs.p_adjusted < 0.05).sum())


@pytest.mark.parametrize(
    "values",
    [
        np.full((5, 3), 0.7),
        np.full((3, 2), 1 / 3) * 0.1,
        np.tile([0.5, 0.6, 0.7], (4, 1)),
        np.array([[0.7, 0.69], [0.71, 0.70], [0.72, 0.71]]),
        np.full((4, 3), nan),
        np.array([[0.5, 0.9, 0.1]]),
        np.array([[0.5, nan], [0.6, nan], [nan, 0.9], [nan, 0.9]]),
        np.array([[0.5, 0.9], [0.6, nan], [nan, 0.9]]),
        np.array([[0.5, inf], [0.6, inf], [0.7, inf]]),
    ],
    ids=[
        "all equal",
        "all equal, no round number",
        "no spread but a gap",
        "a constant gap",
        "no result",
        "one seed",
        "other seeds",
        "one common seed",
        "infinite",
    ],
)
def test_no_claim(values):
    pairs = compare_pairs(values, True)
    assert len(pairs) == values.shape[1] * (values.shape[1] - 1) // 2
    unknown = ["low", "high", "p", "p_adjusted", "detectable", "seeds_low", "seeds_high"]
    assert pairs[unknown].isna().all(axis=None)


def test_one_configuration_has_no_pairs():
    assert compare_pairs(table(5, 1), True).empty
    assert compare_pairs(np.empty((0, 0)), True).empty


def test_claims_need_three_seeds():
    two = compare_pairs(np.array([[0.9, 0.5], [0.91, 0.5]]), True)
    assert two[["low", "high", "p", "p_adjusted", "detectable"]].isna().all(axis=None) and two.n[0] == 2
    assert claims(compare_pairs(np.array([[0.9, 0.5], [0.91, 0.5], [0.9, 0.51]]), True)) == 1


def test_a_configuration_without_results_changes_nothing():
    values = table(5, 3) + [0.01, 0, 0]
    beside = compare_pairs(np.column_stack([values, np.full(5, nan)]), True)
    found, expected = (pairs.drop(columns=["i", "j"]).astype(float) for pairs in (beside, compare_pairs(values, True)))
    assert_allclose(found[found.n > 0], expected)


def test_configurations_with_one_seed_do_not_spoil_the_rest():
    values = table(5, 4, missing=[(slice(1, 5), 3)]) + [0.03, 0, 0, 0]
    pairs = compare_pairs(values, True)
    assert list(pairs.p.notna()) == [i < 3 and j < 3 for i, j in combinations(range(4), 2)]
    assert list(pairs.p_adjusted < 0.05) == [i == 0 and j < 3 for i, j in combinations(range(4), 2)]


def test_three_hundred_configurations():
    values = table(10, 300) + np.where(np.arange(300) == 7, 0.05, 0)
    pairs = compare_pairs(values, True)
    assert len(pairs) == 300 * 299 // 2
    claimed = pairs[pairs.p_adjusted < 0.05]
    assert len(claimed) == 299
    assert ((claimed.i == 7) | (claimed.j == 7)).all()


def test_the_best_of_many_is_corrected_for_all_pairs():
    """It was chosen by the same values, so its pairs are worth what they are among all pairs, and no more."""
    values = table(6, 30, missing=[(0, 3), (slice(0, 5), 4)]) + np.where(np.arange(30) == 7, 0.012, 0)
    every = compare_pairs(values, True, margin=0.02)
    every = every[(every.i == 7) | (every.j == 7)].reset_index(drop=True)
    best = compare_pairs(values, True, 7, chosen=True, margin=0.02)
    tests = 29 * 28 // 2  # without the one that has a single seed
    assert_allclose(best[["i", "j", "n", "difference", "p"]], every[["i", "j", "n", "difference", "p"]])
    assert_allclose(best.p_adjusted, np.minimum(tests * best.p, 1))
    assert 1 < (best.p_adjusted < 0.05).sum() <= (every.p_adjusted < 0.05).sum()
    assert (best.equivalent <= every.equivalent).all()
    open_ended = ((every[["low", "high"]] == 0) | (every[["low", "high"]].abs() == 0.02)).any(axis=1)
    assert_allclose(best[["low", "high"]][~open_ended], every[["low", "high"]][~open_ended])


# The promise: where nothing differs, at most 5 % of sweeps claim anything


def normal(random, shape):
    return random.standard_normal(shape)


def skewed(random, shape):
    """Most runs go well, some go rather badly."""
    return -(random.gamma(2, 1, shape) - 2) / np.sqrt(2)


def corrected(sweeps):
    """`p_adjusted` of every pair of many complete tables `(sweeps, seeds, 4)`, by the textbook's formulas, sorted."""
    _, n, k = sweeps.shape
    left = sweeps - sweeps.mean(1, keepdims=True) - sweeps.mean(2, keepdims=True) + sweeps.mean((1, 2), keepdims=True)
    df = (k - 1) * (n - 1)
    shared = 2 * (left**2).sum((1, 2)) / df
    i, j = np.triu_indices(k, 1)
    gaps = sweeps[..., i] - sweeps[..., j]
    error = np.sqrt(np.maximum(gaps.var(1, ddof=1), shared[:, None]) / n)
    p = np.sort(2 * stats.t.sf(np.abs(gaps.mean(1)) / error, df), axis=1)
    return np.maximum.accumulate(p * [6, 3, 3, 3, 2, 1], axis=1)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("noise", [normal, skewed])
def test_no_more_than_5_percent_of_sweeps_without_a_difference_claim_one(noise, correlation, n):
    random = np.random.default_rng(n)
    each, shared = noise(random, (20_000, n, 4)), noise(random, (20_000, n, 1))
    sweeps = np.round(0.54 + SD * (np.sqrt(1 - correlation) * each + np.sqrt(correlation) * shared), 4)
    p = corrected(sweeps)
    for sweep, expected in zip(sweeps[:40], p, strict=False):
        assert_allclose(np.sort(compare_pairs(sweep, True).p_adjusted), np.minimum(expected, 1), rtol=1e-6)
    assert np.mean(p[:, 0] < 0.05) <= 0.05


def test_a_large_difference_is_found():
    """Two deviations of a run, six seeds at each of which runs correlate by 0.5: found in four of five sweeps."""
    random = np.random.default_rng(0)
    runs = random.standard_normal((100, 6, 4)) + random.standard_normal((100, 6, 1))
    runs = np.round(0.54 + SD * (runs / np.sqrt(2) + [2, 0, 0, 0]), 4)
    assert np.mean([compare_pairs(sweep, True).p_adjusted[0] < 0.05 for sweep in runs]) >= 0.8


def test_one_that_breaks_does_not_spoil_what_is_known_of_the_others():
    """A configuration that spreads twenty times as much has no part in the spread that the others share."""
    random = np.random.default_rng(0)
    runs = random.standard_normal((5, 3)) * SD + [0.62, 0.60, 0.59]
    broken = np.column_stack([runs, 0.3 + 20 * SD * random.standard_normal(5)])
    alone, beside = (compare_pairs(table, True).set_index(["i", "j"]) for table in (runs, broken))
    assert_allclose(beside.loc[alone.index, "p"], alone.p)
    half = [(pairs.difference - pairs.low)[0, 1] for pairs in (beside, alone)]  # of six pairs and of three
    assert half[0] / half[1] == pytest.approx(stats.t.ppf(1 - 0.025 / 6, 8) / stats.t.ppf(1 - 0.025 / 3, 8))
    own = stats.ttest_rel(broken[:, 0], broken[:, 3])
    assert beside.loc[(0, 3), "p"] == pytest.approx(own.pvalue)
    assert (beside.loc[alone.index, "p_adjusted"] < 0.05).sum() >= 2


def test_what_validation_chose_flatters_by_as_much_as_the_two_metrics_correlate():
    """Five equal candidates, one seed's noise the same in both: the mean of the largest of five, 1.163 deviations."""
    random = np.random.default_rng(0)
    noise = SD * random.standard_normal((400, 5))
    noise = 0.5 + noise - noise.mean(0)  # equal means
    expected = 1.163 * SD / np.sqrt(400)
    assert flattery(noise, noise, True) == pytest.approx(expected, rel=0.05)
    assert flattery(1 - noise, 1 - noise, False) == pytest.approx(expected, rel=0.05)
    assert flattery(noise, random.permuted(noise, axis=0), True) == pytest.approx(0, abs=0.2 * expected)
    apart = noise + [0.1, 0, 0, 0, 0]  # nobody else could have been chosen
    assert flattery(apart, apart, True) == pytest.approx(0, abs=0.05 * expected)
    assert flattery(noise[:, :1], noise[:, :1], True) == 0 and np.isnan(flattery(noise[:1], noise[:1], True))


# How fast


def test_a_performance_profile_by_hand():
    costs = pd.DataFrame(
        {"adam": [100, 200, inf, inf, 30], "sgd": [200, 100, 50, inf, inf], "muon": [inf, 400, nan, nan, 90]}
    )
    profile = performance_profile(costs)  # the fourth problem was solved by nobody
    steps = {name: list(zip(rows.ratio, rows.fraction, strict=True)) for name, rows in profile.groupby("configuration")}
    assert steps == {
        "adam": [(1, 0.5), (2, 0.75), (4, 0.75)],
        "sgd": [(1, 0.5), (2, 0.75), (4, 0.75)],
        "muon": [(1, 0), (3, pytest.approx(1 / 3)), (4, pytest.approx(2 / 3))],
    }


@pytest.mark.parametrize(
    "costs",
    [pd.DataFrame(), pd.DataFrame({"a": [], "b": []}, dtype=float), pd.DataFrame({"a": [inf, nan], "b": [inf, inf]})],
    ids=["nothing", "no problems", "none solved"],
)
def test_a_performance_profile_of_nothing_is_empty(costs):
    assert performance_profile(costs).empty
    assert list(performance_profile(costs).columns) == ["configuration", "ratio", "fraction"]


def test_what_rounding_leaves_is_no_spread():
    """The same difference at both seeds, of values that a record rounded to seven digits."""
    accuracy = np.array([[0.55, 0.5166667], [0.5833333, 0.55]])
    accuracy = np.vstack([accuracy, [0.6, 0.5666667]])
    for values, higher in ((accuracy, True), (np.round(1 - accuracy, 7), False)):
        assert compare_pairs(values, higher).p.isna().all()
    assert compare_pairs(accuracy + [[1e-5, 0], [0, 0], [0, 0]], True).p[0] < 0.05
