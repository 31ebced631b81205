"""Ratios of times, and what is claimed of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.comparison.analysis import compare
from optbench.comparison.times import compare_times, reach_targets
from optbench.comparison.verdicts import Family
from optbench.records.files import write_csv
from sweeps import epoch_rows, write_run

ADAM, SGD = (4, 5, 6, 5), (8, 9, 13, 11)  # the epoch of twelve at which each seed reaches 50 %; sgd misses it once


def curves(times: dict[str, tuple[int, ...]], epochs: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ten steps an epoch; validation jumps from 40 to 55 %."""
    runs: list[tuple[str, int]] = []
    rows: list[tuple[float, ...]] = []
    for name, when in times.items():
        for seed, epoch in enumerate(when):
            rows += [(len(runs), at, 10 * at, 2.0 * at, 0.55 if at >= epoch else 0.4) for at in range(1, epochs + 1)]
            runs.append((name, seed))
    columns = ["row", "epoch", "step", "seconds", "val/accuracy"]
    return pd.DataFrame(runs, columns=["configuration", "seed"]), pd.DataFrame(rows, columns=columns)


def ratios(
    times: dict[str, tuple[int, ...]], targets: tuple[float, ...] = (0.5,), budgets: dict[str, int] | None = None
) -> pd.DataFrame:
    runs, its = curves(times)
    reached = reach_targets(its, "val/accuracy", targets)
    units = ["steps", "seconds"]
    return compare_times(reached, runs, runs.seed, its, list(times), None, Family.ALL, None, units, budgets or {})


def test_a_ratio_of_times_is_the_paired_t_test_of_their_logarithms() -> None:
    """A run that missed the target counts as the twelfth epoch, its last."""
    steps, seconds = ratios({"adam": ADAM, "sgd": SGD}).itertuples()
    test = stats.ttest_rel(np.log(ADAM), np.log(np.minimum(SGD, 12)))
    interval = test.confidence_interval(0.95)
    assert (steps.a, steps.b, steps.n, steps.verdict, steps.unit) == ("adam", "sgd", 4, "better", "steps")
    assert steps.p_adjusted == pytest.approx(test.pvalue)
    assert (steps.low, steps.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
    assert steps.ratio == pytest.approx(np.exp(np.mean(np.log(ADAM) - np.log(np.minimum(SGD, 12)))))
    assert steps.censored and not ratios({"adam": ADAM, "sgd": (8, 9, 12, 11)}).censored.any()
    assert (seconds.unit, seconds.ratio) == ("seconds", pytest.approx(steps.ratio))


def test_several_targets_share_the_error() -> None:
    one, two = (ratios({"adam": ADAM, "sgd": SGD}, targets).iloc[0] for targets in ((0.5,), (0.45, 0.5)))
    assert two.p_adjusted == pytest.approx(2 * one.p_adjusted) and two.low < one.low
    nobody = ratios({"adam": ADAM, "sgd": SGD}, (0.5, 0.9)).iloc[0]  # a target that nobody reached is no question
    assert nobody.p_adjusted == pytest.approx(one.p_adjusted)


def test_whole_epochs_are_no_precision() -> None:
    """The same epoch at every seed: the error is that of rounding, an epoch's twelfth in variance for each of two."""
    (same, _) = ratios({"adam": (4, 4, 4), "sgd": (5, 5, 5)}).itertuples()
    error = np.sqrt((1 / 4**2 + 1 / 5**2) / 12 / 3)
    assert same.p_adjusted == pytest.approx(2 * stats.t.sf(np.log(5 / 4) / error, 2))
    assert (same.verdict, ratios({"adam": (2, 2, 2), "sgd": (8, 8, 8)}).verdict[0]) == ("undecided", "better")


def test_no_ratio_is_claimed_of_unequal_budgets_or_of_two_seeds() -> None:
    (withheld, _) = ratios({"adam": ADAM, "sgd": SGD}, budgets={"adam": 1, "sgd": 2}).itertuples()
    assert withheld.verdict == "withheld" and np.isnan([withheld.p_adjusted, withheld.low]).all() and withheld.ratio < 1
    (equal, _) = ratios({"adam": (4, 4, 4), "sgd": (4, 4, 4)}).itertuples()
    assert (equal.verdict, equal.ratio, equal.p_adjusted) == ("undecided", 1, 1)
    assert ratios({"adam": (4, 5), "sgd": (8, 9)}).empty  # two seeds
    assert ratios({"adam": ADAM}).empty and ratios({"adam": ADAM, "sgd": SGD}, ()).empty


def test_the_answer_names_the_ratio(tmp_path: Path) -> None:
    for name, when in {"adam": ADAM, "sgd": SGD}.items():
        for seed, epoch in enumerate(when):
            folder = tmp_path / f"{name}{seed}"
            write_run(folder, name, seed, 0.5, epochs=12)
            rows = epoch_rows(0.5, 12, 0.001)
            rows = [row | {"val/accuracy": 0.55 if row["epoch"] >= epoch else 0.4} for row in rows]
            write_csv(folder / "metrics.csv", list(rows[0]), rows)
    comparison = compare([str(tmp_path)], targets=[0.5])
    row = comparison.judgement.times.iloc[0]
    expected = (
        f"To val/accuracy ≥ 50 %, adam needs {row.ratio:.2f} × the steps of sgd within the budget ({row.low:.2f} to "
        f"{row.high:.2f})."
    )
    assert expected in comparison.words.answer
    seen = compare([str(tmp_path)], baseline="adam", targets=[0.5])
    (slow, _) = seen.judgement.times.itertuples()
    assert (slow.a, slow.verdict, slow.ratio) == ("sgd", "worse", pytest.approx(1 / row.ratio))
