"""The metric against a varied number, and two factors against each other: what is drawn and what is said."""

from math import nan

import numpy as np
import pandas as pd
import pytest

from optbench.comparison.analysis import compare
from optbench.comparison.sensitivity import (
    interaction,
    interaction_sentence,
    sensitivity,
    sensitivity_sentences,
)
from optbench.comparison.statistics import mean_interval
from sweeps import write_run

LR = "optimizer.lr"


def runs(*rows):
    """A frame of runs from (metric, validation[, seed[, status]]); a run that did not complete has no metric."""
    full = [(*row, *(0, "completed")[len(row) - 2 :]) for row in rows]
    frame = pd.DataFrame(full, columns=["metric", "validation", "seed", "status"])
    frame["used"] = frame.status == "completed"
    frame.loc[~frame.used, ["metric", "validation"]] = nan
    return frame


def line(factor, values, validation, metric=None, name="test/accuracy"):
    """Sensitivity of a single line; nan in `validation`: the run diverged."""
    rows = [
        (m, v, 0, "diverged" if np.isnan(v) else "completed")
        for m, v in zip(metric or validation, validation, strict=True)
    ]
    return sensitivity(factor, {factor: values}, [], runs(*rows), name)


def sentences(found, name="test/accuracy"):
    return sensitivity_sentences(found, name)


# A line


def test_a_line_in_numbers():
    frame = runs((0.5, 0.52, 0), (0.54, 0.54, 1), (0.4, 0.41, 0), (0.3, 0.31, 1, "diverged"), (0.3, 0.3, 0))
    found = sensitivity(LR, {LR: [0.01, 0.01, 0.1, 0.1, 0.001]}, [], frame, "test/accuracy")
    points = found.points
    assert list(points.columns) == ["line", "x", "n", "mean", "low", "high", "chosen_by", "diverged", "best"]
    assert list(points.x) == [0.001, 0.01, 0.1]
    assert list(points.n) == [1, 2, 1]
    assert list(points["mean"]) == pytest.approx([0.3, 0.52, 0.4])
    assert list(points.chosen_by) == pytest.approx([0.3, 0.53, 0.41])
    assert tuple(points.loc[1, ["low", "high"]]) == pytest.approx(mean_interval([0.5, 0.54]))
    assert points.loc[[0, 2], ["low", "high"]].isna().all(axis=None)
    assert list(points.diverged) == [0, 0, 1]
    assert list(points.best) == [False, True, False]
    assert sentences(found) == [
        "best at optimizer.lr=0.01 (val/accuracy 53.00 %, test/accuracy 52.00 %); no other value that was tried comes "
        "within one point of that. It diverged at 0.1."
    ]
    assert found.edges == []


def test_runs_of_one_seed_count_once():
    frame = runs((0.5, 0.5, 0), (0.6, 0.6, 0), (0.7, 0.7, 1), (0.1, 0.1, 0))
    points = sensitivity(LR, {LR: [0.1, 0.1, 0.1, 1.0]}, [], frame, "test/accuracy").points
    assert points.n[0] == 2
    assert points["mean"][0] == pytest.approx((0.55 + 0.7) / 2)


@pytest.mark.parametrize(
    ("factor", "values", "log"),
    [
        (LR, [0.001, 0.002, 0.003], True),
        ("optimizer.weight_decay", [0.0001, 0.001, 0.01], True),
        ("optimizer.weight_decay", [0, 0.001, 0.01], False),
        ("data.batch_size", [32, 64, 128], True),
        ("model.dropout", [0.1, 0.2, 0.5], False),
        ("model.width", [1, 10, 100], True),
        ("model.width", [10, 100, 200], False),
        ("model.shift", [-1.0, 0.0, 100.0], False),
    ],
)
def test_the_axis_is_logarithmic_where_values_are_chosen_so(factor, values, log):
    assert line(factor, values, [0.5, 0.6, 0.5]).log is log


@pytest.mark.parametrize("values", [["relu", "gelu"], [True, False], [None, 0.5], [float("inf"), 1.0], [0.1, 0.1]])
def test_without_two_numbers_there_is_no_sensitivity(values):
    assert line("model.something", values, [0.5, 0.6]) is None


def test_the_best_is_chosen_on_validation_not_on_test():
    found = line(LR, [0.001, 0.01, 0.1], validation=[0.5, 0.55, 0.53], metric=[0.5, 0.51, 0.58])
    assert list(found.points.best) == [False, True, False]
    assert sentences(found)[0].startswith("best at optimizer.lr=0.01 (val/accuracy 55.00 %, test/accuracy 51.00 %)")


def test_a_loss_is_best_where_it_is_lowest():
    found = line(LR, [0.001, 0.01, 0.1], validation=[1.41, 1.40, 2.0], name="test/loss")
    assert list(found.points.best) == [False, True, False]
    assert sentences(found, "test/loss") == [
        "best at optimizer.lr=0.01 (val/loss 1.4000, test/loss 1.4000); within 1 % of that from 0.001 to 0.01, a "
        "factor of 10."
    ]


@pytest.mark.parametrize(
    ("validation", "width"),
    [
        ([0.52, 0.542, 0.55, 0.54, 0.3], "within one point of that from 0.0003 to 0.003, a factor of 10."),
        ([0.541, 0.3, 0.55, 0.545, 0.3], "within one point of that from 0.001 to 0.003, a factor of 3."),
        ([0.5, 0.5, 0.55, 0.5, 0.5], "no other value that was tried comes within one point of that."),
        ([0.5, nan, 0.55, 0.545, 0.5], "a factor of 3. It diverged at 0.0003."),
    ],
    ids=["both sides", "not across a gap", "alone", "not across divergence"],
)
def test_the_width_within_one_point(validation, width):
    found = line(LR, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], validation)
    assert sentences(found)[0].endswith(width)


def test_zero_has_no_factor():
    found = line("optimizer.weight_decay", [0, 0.001, 0.01], [0.549, 0.55, 0.5])
    assert sentences(found)[0].endswith("within one point of that from 0 to 0.001.")


def test_a_value_at_which_any_seed_diverged_is_never_best():
    frame = runs((0.5, 0.5), (0.505, 0.505, 0), (0.5, 0.5, 1, "diverged"), (0.4, 0.4))
    found = sensitivity(LR, {LR: [0.01, 0.1, 0.1, 0.001]}, [], frame, "test/accuracy")
    assert list(found.points.x[found.points.best]) == [0.01]
    assert sentences(found)[0].endswith(
        "no other value that was tried comes within one point of that. It diverged at 0.1."
    )
    assert found.edges == []  # one more value was tried, and it was too large


def test_without_any_result_the_line_says_so():
    found = line(LR, [0.1, 1.0], [nan, nan])
    assert sentences(found) == ["no value of optimizer.lr gave a result without divergence. It diverged at 0.1, 1."]
    assert not found.points.best.any()
    assert found.edges == []
    assert found.points["mean"].isna().all()


@pytest.mark.parametrize(("validation", "which"), [([0.6, 0.5, 0.4], "smallest"), ([0.4, 0.5, 0.6], "largest")])
def test_a_best_value_on_the_edge_makes_the_ranking_provisional(validation, which):
    found = line(LR, [0.001, 0.01, 0.1], validation)
    assert sentences(found)[0].endswith(
        f"That is the {which} value tried: range too narrow, the ranking is provisional."
    )
    assert found.edges == [""]


def test_two_values_are_no_range():
    found = line(LR, [0.001, 0.01], [0.5, 0.6])
    assert found.edges == [] and sentences(found)[0].endswith("Two values cannot show where the best one is.")


def test_below_zero_there_is_nothing_to_try():
    assert line("optimizer.weight_decay", [0, 0.001, 0.01], [0.6, 0.5, 0.4]).edges == []
    assert line("optimizer.weight_decay", [0, 0.001, 0.01], [0.4, 0.5, 0.6]).edges == [""]


# Several lines


def test_each_combination_of_the_other_factors_is_a_line():
    factors = {
        "optimizer": ["adam"] * 3 + ["sgd"] * 3 + ["muon"],
        LR: [0.001, 0.01, 0.1] * 2 + [0.02],
        "model.dropout": [0.2] * 7,
    }
    frame = runs(*[(v, v) for v in (0.5, 0.55, 0.3, 0.4, 0.5, 0.52, 0.6)])
    found = sensitivity(LR, factors, ["optimizer"], frame, "test/accuracy")
    assert list(found.points.line.unique()) == ["adam dropout=0.2", "sgd dropout=0.2"]  # muon has one value only
    assert found.edges == ["sgd dropout=0.2"]
    first, second = sentences(found)
    assert first.startswith("adam dropout=0.2: best at optimizer.lr=0.01 (")
    assert second.startswith("sgd dropout=0.2: best at optimizer.lr=0.1 (")


def test_a_line_without_results_stands_beside_the_others():
    factors = {"optimizer": ["adam"] * 3 + ["sgd"] * 3, LR: [0.001, 0.01, 0.1] * 2}
    frame = runs((0.5, 0.5), (0.6, 0.6), (0.5, 0.5), *[(0, 0, 0, "diverged")] * 3)
    found = sensitivity(LR, factors, ["optimizer"], frame, "test/accuracy")
    assert list(found.points.best) == [False, True, False, False, False, False]
    assert sentences(found)[1] == (
        "sgd: no value of optimizer.lr gave a result without divergence. It diverged at 0.001, 0.01, 0.1."
    )


# Two factors against each other


def cells(values, validation=None, rows=("adam", "sgd"), columns=(0.001, 0.01, 0.1), **names):
    """Interaction of a grid; nan: that run diverged."""
    values = np.array(values)
    chosen = values if validation is None else np.array(validation)
    frame = runs(
        *[
            (m, v, 0, "diverged" if np.isnan(m) else "completed")
            for m, v in zip(values.ravel(), chosen.ravel(), strict=True)
        ]
    )
    a, b = names.get("a", "optimizer"), names.get("b", LR)
    factors = {b: [c for _ in rows for c in columns], a: [r for r in rows for _ in columns]}
    return interaction(factors, names.get("groups", ["optimizer"]), frame, "test/accuracy")


def test_the_interactions_share_by_hand():
    found = cells([[0.1, 0.2, 0.6], [0.3, 0.4, 0.2]])
    assert (found.rows, found.columns) == ("optimizer", LR)  # the group down, the number across
    assert list(found.grid.index) == ["adam", "sgd"]
    assert list(found.grid.columns) == ["0.001", "0.01", "0.1"]
    assert found.grid.to_numpy() == pytest.approx(np.array([[0.1, 0.2, 0.6], [0.3, 0.4, 0.2]]))
    # Mean 0.3; both rows have it; columns 0.2, 0.3, 0.4: they explain 2 x (0.01 + 0 + 0.01) = 0.04 of 0.16
    assert interaction_sentence(found) == (
        "The best optimizer.lr depends on optimizer: adam lr=0.1, sgd lr=0.01. Of the variation between the cells, "
        "25% is what optimizer and lr each add for themselves, 75% is their interaction."
    )


def test_the_chance_of_an_interaction_by_hand():
    """What both seeds do to every cell is no noise; then one cell of four changes alone, by 0.01 to each side."""
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.48, ("conv", "adam"): 0.51, ("conv", "sgd"): 0.51}
    frame = runs(
        *[(mean + k * 0.01, 0.5, seed, "completed") for mean in means.values() for seed, k in ((0, 1), (1, -1))]
    )
    factors = {"model": [m for m, _ in means for _ in "01"], "optimizer": [o for _, o in means for _ in "01"]}
    groups = ["model", "optimizer"]
    same = interaction(factors, groups, frame, "test/accuracy")
    assert same.fraction == pytest.approx(0.0001 / 0.0006) and same.chance == pytest.approx(0, abs=1e-12)
    assert interaction_sentence(same).endswith(
        "17% is their interaction. Chance alone makes less than 1% interaction: what is not larger shows nothing."
    )
    # residuals of 3/4 and three times 1/4 of 0.01 at each seed: squares of 0.00015 in 3 degrees of freedom, two seeds
    frame["metric"] = [*frame.metric[:2], *(x for mean in list(means.values())[1:] for x in (mean, mean))]
    noisy = interaction(factors, groups, frame, "test/accuracy")
    assert noisy.chance == pytest.approx(0.00015 / 3 / 2 / 0.0006)
    assert "Chance alone makes about 4% interaction" in interaction_sentence(noisy)


def test_factors_that_only_add_have_no_interaction():
    found = cells([[0.1, 0.4, 0.2], [0.2, 0.5, 0.3]])
    assert interaction_sentence(found) == (
        "The best optimizer.lr is 0.01 for every optimizer. Of the variation between the cells, 100% is what optimizer "
        "and lr each add for themselves, 0% is their interaction."
    )


def test_equal_cells_have_nothing_to_share():
    assert "variation" not in interaction_sentence(cells([[0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]))
    assert "variation" not in interaction_sentence(cells([[1 / 3] * 3, [1 / 3] * 3]))


def test_the_best_of_a_row_is_chosen_on_validation():
    found = cells([[0.1, 0.4, 0.2], [0.2, 0.5, 0.3]], validation=[[0.5, 0.4, 0.2], [0.6, 0.5, 0.3]])
    assert interaction_sentence(found).startswith("The best optimizer.lr is 0.001 for every optimizer.")


def test_a_grid_with_holes_leaves_their_columns_out():
    found = cells([[0.1, 0.2, 0.6], [0.3, 0.4, nan]])
    assert np.isnan(found.grid.loc["sgd", "0.1"])
    assert "adam lr=0.1, sgd lr=0.01" in interaction_sentence(found)
    assert interaction_sentence(found).endswith(
        "Of the variation between the cells (over the part of the grid without holes), 100% is what optimizer and lr "
        "each add for themselves, 0% is their interaction."
    )


def test_a_row_without_any_result_does_not_silence_the_others():
    found = cells([[0.1, 0.2], [0.3, 0.3], [nan, nan]], rows=("adam", "sgd", "muon"), columns=(0.01, 0.1))
    assert list(found.grid.index) == ["adam", "sgd", "muon"]
    assert "muon" not in interaction_sentence(found)
    # Mean 0.225: of 0.0275, rows explain 0.0225 and columns 0.0025
    assert "without holes), 91% is what" in interaction_sentence(found)


def test_a_cell_with_divergence_is_never_the_best():
    factors = {"optimizer": ["adam"] * 3 + ["sgd"] * 2, LR: [0.01, 0.1, 0.1, 0.01, 0.1]}
    frame = runs((0.5, 0.5), (0.9, 0.9), (0.9, 0.9, 1, "diverged"), (0.5, 0.5), (0.4, 0.4))
    found = interaction(factors, ["optimizer"], frame, "test/accuracy")
    assert interaction_sentence(found).startswith("The best optimizer.lr is 0.01 for every optimizer.")


def test_none_is_a_value_like_another():
    found = cells(
        [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]],
        columns=(None, 0.5, 1.0),
        a="model.dropout",
        b="trainer.gradient_clip_val",
        rows=(0.1, 0.2),
        groups=[],
    )
    assert found.grid.notna().all(axis=None)
    assert {*found.grid.index, *found.grid.columns} == {"0.1", "0.2", "null", "0.5", "1"}


def test_numbers_stand_in_order_and_words_as_they_came():
    found = cells([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]], rows=("sgd", "adam"), columns=(10.0, 2.0, 0.5))
    assert list(found.grid.index) == ["sgd", "adam"]
    assert list(found.grid.columns) == ["0.5", "2", "10"]
    assert list(found.grid.loc["sgd"]) == pytest.approx([0.3, 0.2, 0.1])


def test_where_there_is_no_grid_there_is_no_interaction():
    frame = runs((0.5, 0.5), (0.6, 0.6))
    assert interaction({LR: [0.1, 0.2]}, [], frame, "test/accuracy") is None
    assert cells([[0.1, 0.2, 0.3]], rows=("adam",)) is None
    assert cells([[0.1, nan, nan], [nan, nan, 0.3]]) is None  # less than half
    assert cells([[nan] * 3, [nan] * 3]) is None
    assert interaction({LR: [0.1, 0.2], "model.dropout": [0, 1], "a.b": [0, 1]}, [], frame, "test/accuracy") is None


# The whole way, from runs on disk


def write(folder, accuracy, seeds=(0, 1), optimizers=("adam",), key=LR, status="completed"):
    """Runs for each value of `accuracy` {value: test accuracy}; validation lies half a point above."""
    for optimizer in optimizers:
        for value, mean in accuracy.items():
            for seed in seeds:
                write_run(
                    folder / f"{optimizer}_{value}_{seed}_{status}",
                    optimizer,
                    seed,
                    round(mean + 0.001 * seed, 4),
                    status=status,
                    overrides=[f"{key}={value}"],
                    config={key: value},
                )


def test_a_sweep_of_learning_rates(tmp_path):
    write(tmp_path, {0.001: 0.5, 0.01: 0.54, 0.1: 0.51})
    found = compare([str(tmp_path)])
    (lr,) = found.judgement.sensitivities
    assert (lr.factor, lr.log, lr.edges) == (LR, True, [])
    assert list(lr.points.x) == [0.001, 0.01, 0.1]
    assert list(lr.points.n) == [2, 2, 2]
    assert list(lr.points["mean"]) == pytest.approx([0.5005, 0.5405, 0.5105])
    assert list(lr.points.best) == [False, True, False]
    assert found.judgement.interaction is None
    assert "Provisional" not in " ".join(found.words.answer)


def test_a_best_value_on_the_edge_stands_in_the_answer(tmp_path):
    write(tmp_path, {0.001: 0.5, 0.01: 0.54, 0.1: 0.56})
    found = compare([str(tmp_path)])
    assert found.words.answer[-1] == (
        "Provisional: the best value is at the edge of what was tried (optimizer.lr); widen the range."
    )


def test_two_optimizers_and_their_learning_rates(tmp_path):
    write(tmp_path, {0.001: 0.54, 0.01: 0.52, 0.1: 0.5}, optimizers=("adam",))
    write(tmp_path, {0.001: 0.45, 0.01: 0.5, 0.1: 0.49}, optimizers=("sgd",))
    write(tmp_path, {1.0: 0.1}, optimizers=("adam", "sgd"), status="diverged")
    found = compare([str(tmp_path)])
    (lr,) = found.judgement.sensitivities
    adam, sgd = found.words.sensitivities[0]
    assert adam.startswith("adam: best at optimizer.lr=0.001 (val/accuracy 54.55 %, test/accuracy 54.05 %)")
    assert "It diverged at 1." in adam and adam.endswith("the ranking is provisional.")
    assert sgd.startswith("sgd: best at optimizer.lr=0.01") and "range too narrow" not in sgd
    assert lr.edges == ["adam"]
    assert "(optimizer.lr for adam)" in found.words.answer[-1]
    assert list(lr.points.diverged) == [0, 0, 0, 2] * 2
    assert found.judgement.interaction.grid.shape == (2, 4)
    assert found.words.interaction.startswith("The best optimizer.lr depends on optimizer: adam lr=0.001, sgd lr=0.01.")


def test_weight_decay_with_none_at_all(tmp_path):
    write(tmp_path, {0.0: 0.55, 0.0001: 0.54, 0.001: 0.5}, key="optimizer.weight_decay")
    found = compare([str(tmp_path)])
    (decay,) = found.judgement.sensitivities
    assert (decay.log, decay.edges) == (False, [])
    assert found.words.sensitivities[0][0].startswith("best at optimizer.weight_decay=0 (")
