"""The answer, sentence for sentence. Each says what the tables say, and no more."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from optbench.comparison import judgement
from optbench.comparison.analysis import compare
from optbench.comparison.report import tables
from optbench.comparison.verdicts import Family
from optbench.records.wording import joined
from sweeps import write_run, write_sweep

ALLOWED = {"trainer.max_epochs": 5}
SPREAD = (0.0, 0.001, -0.001, 0.002, -0.002)  # of each seed, the same for all
OWN = {"adam": (0, 1, -1, 0, 2), "sgd": (1, 0, 0, -1, -1), "rmsprop": (0, -1, 1, 2, 0), "lion": (2, 0, 1, -1, 0)}


def write(folder: Path, means: Mapping[str, float], seeds: Sequence[int] = (0, 1, 2), **settings: Any) -> str:
    """Runs whose spread is 0.1 points between optimizers at a seed; 0.002 of it is common to all."""
    for name, mean in means.items():
        for seed in seeds:
            accuracy = round(mean + SPREAD[seed % 5] + OWN.get(name, (0,) * 5)[seed % 5] / 1000, 6)
            write_run(folder / f"{name}-{seed}", name, seed, accuracy, config=ALLOWED, **settings)
    return str(folder)


def effect(row: Any) -> str:
    p = "p < 0.001" if row.p_adjusted < 0.001 else f"p = {row.p_adjusted:.3f}"
    low, high = 100 * row.low, 100 * row.high
    return f"{100 * row.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, {p}"


# A claim


def test_a_clear_winner(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path, {"adam": 0.55, "sgd": 0.50, "rmsprop": 0.53})])
    rows = {(row.a, row.b): row for row in comparison.judgement.differences.itertuples()}
    assert comparison.words.answer == [
        f"adam is better in test/accuracy than rmsprop ({effect(rows['adam', 'rmsprop'])}) and sgd "
        f"({effect(rows['adam', 'sgd'])}).",
        "Also: rmsprop is better than sgd.",
    ]


def test_two_optimizers(tmp_path: Path) -> None:
    """By hand: gaps of 4.9, 5.1 and 4.9 points; 4.967 ± 4.303 x 0.1155 / sqrt(3)."""
    (sentence,) = compare([write(tmp_path, {"adam": 0.55, "sgd": 0.50})]).words.answer
    assert sentence == (
        "adam is better in test/accuracy than sgd (+4.97 points, 95 % interval +4.68 to +5.25, p < 0.001)."
    )


def test_lower_is_better(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path, {"adam": 0.55, "sgd": 0.50})], metric="test/loss")
    assert comparison.words.answer == [
        "adam is better in test/loss than sgd (-0.0993, 95 % interval -0.1051 to -0.0936, p < 0.001)."
    ]
    folder = write(tmp_path / "close", {"adam": 0.5005, "sgd": 0.50})
    assert compare([folder], metric="test/loss").words.answer == [
        "adam has the best mean, and sgd is equivalent to adam within 0.0100."
    ]
    close = compare([folder], metric="test/loss", margin=0.001).words.answer[0]
    assert close == "adam has the best mean, but against sgd it is undecided: a difference of 0.0003 can be chance."


def test_several_are_undecided(tmp_path: Path) -> None:
    means = {"adam": 0.55, "rmsprop": 0.5495, "lion": 0.549, "sgd": 0.50}
    comparison = compare([write(tmp_path, means, seeds=range(5))], margin=0.001, gap=0.002)
    pairs = comparison.judgement.differences.set_index(["a", "b"])
    assert list(pairs.verdict["adam"]) == ["undecided", "undecided", "better"]
    low, high = pairs.seeds_low["adam", "lion"], pairs.seeds_high["adam", "lion"]
    assert 3 < low < high < 40
    assert comparison.words.answer[:4] == [
        f"adam is better in test/accuracy than sgd ({effect(pairs.loc['adam', 'sgd'])}).",
        "Against rmsprop and lion it is undecided: differences of 0.05 to 0.10 points can be chance.",
        "Also: rmsprop is better than sgd; lion is better than sgd.",
        f"To find a difference of 0.20 points takes {low:.0f} to {high:.0f} seeds each.",
    ]


def test_more_than_can_be_named(tmp_path: Path) -> None:
    means = {f"o{k}": 0.6 - 0.02 * k for k in range(7)}
    for seed in (0, 1, 2):
        for k, (name, mean) in enumerate(means.items()):
            write_run(tmp_path / f"{name}{seed}", name, seed, mean + 0.001 * ((k * 3 + seed * 5) % 4))
    first, also, faster = compare([str(tmp_path)]).words.answer
    assert faster.startswith("To val/accuracy ≥ ") and " × the steps of " in faster
    assert first.startswith("o0 is better in test/accuracy than o1 (+") and first.endswith(") and 2 more.")
    assert first.count("95 % interval") == 4
    assert also == (
        "Also: o1 is better than o2; o1 is better than o3; o1 is better than o4; o1 is better than o5; and 11 more "
        "pairs."
    )


# No claim


def test_undecided(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path, {"adam": 0.501, "sgd": 0.50})], margin=0.001)
    row = comparison.judgement.differences.iloc[0]
    assert comparison.words.answer == [
        "adam has the best mean, but against sgd it is undecided: a difference of 0.07 points can be chance.",
        f"To find a difference of 0.10 points takes {row.seeds_low:.0f} to {row.seeds_high:.0f} seeds each.",
        f"With 3 seeds each, a difference had to measure about {100 * row.detectable:.1f} points to be found.",
    ]


def test_equivalent_is_said_only_where_it_is_shown(tmp_path: Path) -> None:
    folder = write(tmp_path, {"adam": 0.501, "rmsprop": 0.50, "sgd": 0.50})
    assert compare([folder]).words.answer == [
        "adam has the best mean, and sgd and rmsprop are equivalent to adam within 0.50 points."
    ]
    (row,) = compare([folder], baseline="sgd", by=["optimizer"]).judgement.differences.query("a == 'adam'").itertuples()
    assert row.verdict == "equivalent" and -0.005 < row.low < 0 < row.high < 0.005
    seen = compare([folder], baseline="sgd").words
    assert seen.answer == ["adam and rmsprop are equivalent to the baseline sgd within 0.50 points."]
    assert "Equivalent: closer than 0.50 points (margin=0.005)." in seen.family
    with pytest.raises(ValueError, match=r"margin=2 must be a fraction between 0 and 1, such as 0.005"):
        compare([folder], margin=2)
    with pytest.raises(ValueError, match=r"gap=0 must be a number above 0: it is a difference of test/loss"):
        compare([folder], metric="test/loss", gap=0)


def test_equal_means_are_not_called_equal(tmp_path: Path) -> None:
    for seed, (adam, sgd) in enumerate([(0.501, 0.5), (0.5, 0.501), (0.5, 0.5)]):
        write_run(tmp_path / f"a{seed}", "adam", seed, adam)
        write_run(tmp_path / f"s{seed}", "sgd", seed, sgd)
    assert compare([str(tmp_path)], margin=0.0005).words.answer[0] == (
        "adam has the best mean, but against sgd it is undecided: the means are equal, but so few seeds cannot show "
        "that the configurations are."
    )


def test_one_seed(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path, {"adam": 0.55, "sgd": 0.50, "rmsprop": 0.53}, seeds=[0])])
    assert comparison.words.answer == [
        "With one seed each, nothing can be said about chance.",
        "In this one sample adam is ahead with 55.00 % test/accuracy (rmsprop 53.00 % and sgd 50.10 %).",
        "Run the same with several seeds, such as seed=0,1,2,3,4, to learn how sure that is.",
    ]
    write(tmp_path, dict.fromkeys(("a", "b", "c", "d"), 0.4), seeds=[0])
    assert compare([str(tmp_path)]).words.answer[1].endswith("50.10 %, a 40.00 %, b 40.00 % and 2 more).")


def test_two_seeds_are_too_few_for_a_claim(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path, {"adam": 0.55, "sgd": 0.50, "rmsprop": 0.45}, seeds=[0, 1])])
    assert comparison.words.answer == [
        "adam has the best mean (55.10 % test/accuracy), but nothing can be said of it against sgd and rmsprop: fewer "
        "than three of their runs share a seed and a version of the code."
    ]


def test_one_configuration(tmp_path: Path) -> None:
    nothing = "There is nothing to compare it with."
    assert compare([write(tmp_path, {"adam": 0.55}, seeds=[0])]).words.answer == [
        "This configuration reaches 55.00 % test/accuracy with its only seed; nothing can be said about chance.",
        nothing,
    ]
    assert compare([write(tmp_path, {"adam": 0.55}, seeds=[0, 1])]).words.answer == [
        "This configuration reaches 55.10 % test/accuracy over 2 seeds (95 % interval 53.83 to 56.37 %).",
        nothing,
    ]


def test_one_configuration_has_a_result(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55}, seeds=[0])
    write(tmp_path, {"sgd": 0.55}, seeds=[0, 1], status="diverged")
    write(tmp_path, {"rmsprop": 0.55}, seeds=[0], status="failed")
    assert compare([str(tmp_path)]).words.answer == [
        "adam reaches 55.00 % test/accuracy with its only seed; nothing can be said about chance.",
        "No other configuration has a result that counts.",
        "Diverged: sgd in all 2 runs.",
        "Failed: rmsprop in its only run.",
    ]


@pytest.mark.parametrize(
    ("statuses", "first"),
    [
        (("running", "running"), "No run has a result yet (2 running), so nothing can be said."),
        (("failed", "running"), "No run has a result yet (1 failed, 1 running), so nothing can be said."),
        (("interrupted", "diverged"), "No run has a result (1 diverged, 1 interrupted), so nothing can be said."),
    ],
)
def test_nothing_has_finished(tmp_path: Path, statuses: tuple[str, str], first: str) -> None:
    for name, status in zip(("adam", "sgd"), statuses, strict=True):
        write_run(tmp_path / name, name, status=status)
    answer = compare([str(tmp_path)]).words.answer
    assert answer[0] == first
    assert len(answer) == 1 + sum(status in ("failed", "diverged") for status in statuses)


def test_all_diverged(tmp_path: Path) -> None:
    assert compare([write(tmp_path, {"adam": 0.5, "sgd": 0.4}, status="diverged")], baseline="sgd").words.answer == [
        "No run has a result (6 diverged), so nothing can be said.",
        "Diverged: adam in all 3 runs; sgd in all 3 runs.",
    ]


def test_the_seed_has_no_effect(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.55, "sgd": 0.50}, sd=0)
    assert compare([str(folder)]).words.answer == [
        "adam has the best mean (55.00 % test/accuracy), but nothing can be said of it against sgd: their "
        "difference is the same at every seed, so chance cannot be judged."
    ]


def test_seeds_that_are_not_shared(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55, "rmsprop": 0.50}, seeds=[0, 1, 2])
    write(tmp_path, {"sgd": 0.45}, seeds=[7, 8])
    write(tmp_path, {"lion": 0.45}, seeds=[1])
    answer = compare([str(tmp_path)]).words.answer
    assert answer[0].startswith("adam is better in test/accuracy than rmsprop (+")
    assert answer[1:] == [
        "Nothing can be said of adam against lion and sgd: fewer than three of their runs share a seed and a "
        "version of the code."
    ]


# Divergence and failure


def test_a_survivor(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55, "sgd": 0.50})
    write_run(tmp_path / "blown", "adam", 3, status="diverged", epochs=2, config=ALLOWED)
    assert compare([str(tmp_path)]).words.answer == [
        "adam has the best mean (55.00 % test/accuracy), but nothing can be said of it against sgd: adam looks better, "
        "but more of its runs diverged.",
        "Diverged: adam in 1 of 4 runs.",
    ]
    seen = compare([str(tmp_path)], baseline="sgd").words.answer
    assert seen[0] == (
        "Nothing can be said of adam against the baseline sgd: adam looks better, but more of its runs diverged."
    )


def test_the_worse_one_diverged(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55, "sgd": 0.50})
    write_run(tmp_path / "blown", "sgd", 3, status="diverged", epochs=2, config=ALLOWED)
    write_run(tmp_path / "broken", "sgd", 4, status="failed", epochs=2, config=ALLOWED)
    answer = compare([str(tmp_path)]).words.answer
    assert answer[0].startswith("adam is better in test/accuracy than sgd (+")
    assert answer[1:] == ["Diverged: sgd in 1 of 5 runs.", "Failed: sgd in 1 of 5 runs."]


def test_more_failures_than_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55, "sgd": 0.50})
    write(tmp_path, dict.fromkeys("abcde", 0.5), seeds=[0], status="failed")
    said = compare([str(tmp_path)]).words.answer[-1]
    assert said == (
        "Failed: a in its only run; b in its only run; c in its only run; d in its only run; and 1 more configuration."
    )


# A baseline


def test_against_a_baseline(tmp_path: Path) -> None:
    write(tmp_path, {"adam": 0.55, "sgd": 0.50, "rmsprop": 0.5005, "lion": 0.45, "adamw": 0.549})
    write(tmp_path, {"muon": 0.6}, seeds=[0])
    comparison = compare([str(tmp_path)], baseline="sgd")
    rows = {row.a: row for row in comparison.judgement.differences.itertuples() if row.b == "sgd"}
    assert comparison.words.answer[:2] == [
        f"adam ({effect(rows['adam'])}) and adamw ({effect(rows['adamw'])}) are better in test/accuracy than the "
        "baseline sgd.",
        f"lion ({effect(rows['lion'])}) is worse in test/accuracy than the baseline sgd.",
    ]
    assert comparison.words.answer[2] == "rmsprop is equivalent to the baseline sgd within 0.50 points."
    assert comparison.words.answer[3:] == [
        "Nothing can be said of muon against the baseline sgd: fewer than three of their runs share a seed and a "
        "version of the code."
    ]


# Tuned


def tune(folder: Path, name: str, lr: float, mean: float, validation: float, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Runs of an optimizer at a learning rate, of which validation and test say different things."""
    for seed in seeds:
        accuracy = mean + SPREAD[seed] + OWN[name][seed] / 1000 + lr * seed / 100
        best = {"val/accuracy": validation + SPREAD[seed], "epoch": 5}
        write_run(
            folder / f"{name}-{lr}-{seed}",
            name,
            seed,
            round(accuracy, 6),
            overrides=[f"optimizer.lr={lr}"],
            config={"optimizer.lr": lr},
            best=best,
        )


TUNED = "Each optimizer is taken at its best configuration by val/accuracy; claims hold at that one."


def test_each_optimizer_at_its_best_by_validation(tmp_path: Path) -> None:
    """On the test set the other learning rates look better, and sgd would be ahead."""
    for name, means in {"adam": (0.53, 0.54, 0.56), "sgd": (0.50, 0.49, 0.58)}.items():
        for lr, mean, validation in zip((0.001, 0.01, 0.1), means, (0.50, 0.55, 0.51), strict=True):
            tune(tmp_path, name, lr, mean, validation)
    comparison = compare([str(tmp_path)])
    ranking = comparison.judgement.ranking
    assert list(ranking.configuration[:3]) == ["adam lr=0.01", "sgd lr=0.01", "sgd lr=0.1"]
    assert list(ranking["rank"]) == [1, 2, 0, 0, 0, 0]  # the others of the grid are not compared
    (row,) = comparison.judgement.differences.itertuples()
    assert len(compare([str(tmp_path)], pairs="all").judgement.differences) == 15
    assert comparison.words.answer == [
        TUNED,
        f"adam lr=0.01 is better in test/accuracy than sgd lr=0.01 ({effect(row)}).",
    ]
    seen = compare([str(tmp_path)], baseline="sgd lr=0.001")
    better, worse = seen.words.answer[1:]
    assert seen.words.answer[0] == TUNED
    assert better.startswith("adam lr=0.01 (+") and better.endswith(" than the baseline sgd lr=0.001.")
    assert worse.startswith("sgd lr=0.01 (-") and " is worse in test/accuracy than the baseline sgd " in worse


def test_the_winners_of_a_grid_flatter(tmp_path: Path) -> None:
    for name in ("adam", "sgd"):
        for lr in (0.001, 0.01):
            tune(tmp_path, name, lr, 0.53, 0.53)
    comparison = compare([str(tmp_path)])
    (note,) = [note for note in comparison.words.notes if "flatter" in note]
    assert note.startswith("The means of the 2 tuned configurations flatter, by less than 0.01 points on average")
    assert "python src/train.py -m optimizer=adam optimizer.lr=0.0" in note and " seed=3,4,5" in note
    assert not any("flatter" in note for note in compare([str(tmp_path)], by=["optimizer"]).words.notes)


def test_tuned_with_one_seed(tmp_path: Path) -> None:
    for name, means in {"adam": (0.53, 0.56, 0.2), "sgd": (0.50, 0.58, 0.2), "lion": (0.4, 0.4, 0.2)}.items():
        for lr, mean, validation in zip((0.001, 0.1, 1.0), means, (0.55, 0.51, 0.2), strict=True):
            tune(tmp_path, name, lr, mean, validation, seeds=[0])
    answer = compare([str(tmp_path)]).words.answer
    assert answer[1:3] == [
        TUNED,
        "In this one sample adam lr=0.001 is ahead with 53.00 % test/accuracy (sgd lr=0.001 50.10 % and lion "
        "lr=0.001 40.20 %).",
    ]
    assert answer[4] == (
        "Provisional: the best value is at the edge of what was tried (optimizer.lr for adam, lion and sgd); widen "
        "the range."
    )


def test_a_configuration_that_diverged_is_not_chosen(tmp_path: Path) -> None:
    for name in ("adam", "sgd"):
        for lr, validation in ((0.001, 0.5), (0.01, 0.52), (0.1, 0.6)):
            tune(tmp_path, name, lr, 0.55 if name == "adam" else 0.50, validation)
    for seed in (0, 1):
        typed = {"overrides": ["optimizer.lr=0.1"], "config": {"optimizer.lr": 0.1}}
        write_run(tmp_path / f"blown-{seed}", "sgd", 3 + seed, status="diverged", **typed)
    answer = compare([str(tmp_path)]).words.answer
    assert answer[1].startswith("adam lr=0.1 is better in test/accuracy than sgd lr=0.01 (+")
    assert answer[2] == "Diverged: sgd lr=0.1 in 2 of 5 runs."


def test_one_optimizer_alone_is_compared_at_all_its_rates(tmp_path: Path) -> None:
    for lr, mean in ((0.001, 0.5), (0.01, 0.55), (0.1, 0.45)):
        tune(tmp_path, "adam", lr, mean, mean)
    write_run(tmp_path / "sgd", "sgd", 0, status="failed", overrides=["optimizer.lr=0.1"], config={"optimizer.lr": 0.1})
    answer = compare([str(tmp_path)]).words.answer
    assert answer[0].startswith("adam lr=0.01 is better in test/accuracy than adam lr=0.001 (+")
    assert [sentence for sentence in answer[1:] if not sentence.startswith("To val/accuracy")] == [
        "Also: adam lr=0.001 is better than adam lr=0.1.",
        "Failed: sgd lr=0.1 in its only run.",
    ]


def test_rates_without_an_optimizer(tmp_path: Path) -> None:
    for lr, mean in ((0.001, 0.5), (0.01, 0.55), (0.1, 0.45)):
        tune(tmp_path, "adam", lr, mean, mean)
    answer = compare([str(tmp_path)]).words.answer
    assert answer[0].startswith("lr=0.01 is better in test/accuracy than lr=0.001 (+")
    assert TUNED not in answer


# More than can all be compared


def test_the_best_of_very_many_is_compared_with_each_of_the_others(tmp_path: Path, monkeypatch: Any) -> None:
    names = ["adam", "sgd", "rmsprop", "lion", "adagrad"]
    means = {name: 0.6 - 0.02 * k for k, name in enumerate(names)}
    folder = write(tmp_path, means)
    every = compare([folder])
    monkeypatch.setattr(judgement, "MOST_COMPARED", 4)
    comparison = compare([folder])
    assert (comparison.judgement.family, comparison.judgement.against) == (Family.LEADER, "adam")
    pairs = comparison.judgement.differences
    assert list(zip(pairs.a, pairs.b, strict=True)) == [("adam", name) for name in names[1:]]
    assert list(pairs.verdict) == ["better"] * 4 and list(comparison.judgement.ranking["rank"]) == [1, 2, 2, 2, 2]
    first = every.judgement.differences.head(4)
    assert list(pairs.low) == pytest.approx(list(first.low)) and list(pairs.high) == pytest.approx(list(first.high))
    assert (pairs.p_adjusted >= first.p_adjusted).all()
    assert set(comparison.judgement.times.a) | set(comparison.judgement.times.b) <= set(means)
    assert ((comparison.judgement.times.a == "adam") | (comparison.judgement.times.b == "adam")).all()
    assert comparison.words.answer[0].startswith("adam is better in test/accuracy than sgd (+")
    assert not any(sentence.startswith("Also") for sentence in comparison.words.answer)
    assert comparison.words.family.startswith(
        "Compared: adam with each of the 4 others, corrected for all pairs, paired by seed. "
    )
    assert comparison.words.family.endswith(" pairs=all compares every pair.")
    assert "Bold: better than every other configuration" in tables.latex(comparison)
    assert compare([folder], pairs="all").judgement.differences.equals(every.judgement.differences)
    assert compare([folder], baseline="lion").judgement.family is Family.BASELINE
    monkeypatch.setattr(judgement, "MOST_ASKED", 4)
    with pytest.raises(ValueError, match="pairs=all: 5 configurations have 10 pairs, and it compares those of at most"):
        compare([folder], pairs="all")


def test_a_survivor_does_not_stand_for_very_many(tmp_path: Path, monkeypatch: Any) -> None:
    """What has one seed, or lost runs, has a better mean; nothing could be claimed of it."""
    monkeypatch.setattr(judgement, "MOST_COMPARED", 4)
    write(tmp_path, {"adam": 0.5, "sgd": 0.5, "rmsprop": 0.5, "lion": 0.5})
    write(tmp_path, {"one": 0.7}, seeds=[0])
    write(tmp_path, {"lost": 0.6})
    write_run(tmp_path / "lost-3", "lost", 3, 0.6, status="diverged", config=ALLOWED)
    comparison = compare([str(tmp_path)])
    assert comparison.judgement.against == "lion"
    means = comparison.judgement.ranking.set_index("configuration")["mean"]
    assert list(means.sort_values().index[-3:]) == ["lion", "lost", "one"]
    assert comparison.words.answer[0].startswith(
        "lion has the best mean of those with three seeds and no diverged run, and sgd, adam and "
    )


# Words


def test_lists() -> None:
    assert joined(["a"]) == "a"
    assert joined(["a", "b"]) == "a and b"
    assert joined(["a", "b (x, y)", "c"]) == "a, b (x, y) and c"
    assert joined(["a", "b"], 3) == "a, b and 3 more"
    assert joined(["a, b=1 (x)", "b", "c"]) == "a, b=1 (x); b and c"


# Networks


def nets(
    folder: Path, means: Mapping[tuple[str, str], float], seeds: Sequence[int] = (0, 1, 2), rates: Sequence[float] = ()
) -> str:
    """Runs of networks with optimizers; a rate that is given takes away ten times itself."""
    for (model, name), mean in means.items():
        for seed, rate in product(seeds, rates or (0.0,)):
            noise = SPREAD[seed % 5] + OWN[name][(seed + len(model)) % 5] / 1000
            write_run(
                folder / f"{model}-{name}-{rate}-{seed}",
                name,
                seed,
                round(mean + noise - 10 * rate, 6),
                status="completed" if mean else "diverged",
                overrides=[f"model={model}", *([f"optimizer.lr={rate}"] if rates else [])],
                config=ALLOWED | ({"optimizer.lr": rate} if rates else {}),
                choices={"model": model},
                hashes={"initial_weights": f"{model}{seed}"},
            )
    return str(folder)


def by_network(comparison: Any) -> list[str]:
    return [sentence for sentence in comparison.words.answer if sentence.startswith("By network: ")]


def test_every_pair_of_network_and_optimizer_is_compared(tmp_path: Path) -> None:
    """Not each optimizer with the network that suits it best."""
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.47, ("conv", "adam"): 0.6, ("conv", "sgd"): 0.55}
    comparison = compare([nets(tmp_path, means)])
    assert comparison.judgement.family is Family.ALL and len(comparison.judgement.differences) == 6
    assert list(comparison.judgement.ranking["rank"]) == [1, 2, 3, 4]
    assert by_network(comparison) == [
        "By network: adam is best with conv and mlp. So adam is the best optimizer with each of these networks."
    ]


def test_claims_that_contradict_show_that_the_best_optimizer_depends_on_the_network(tmp_path: Path) -> None:
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.47, ("conv", "adam"): 0.55, ("conv", "sgd"): 0.6}
    assert by_network(compare([nets(tmp_path, means)])) == [
        "By network: sgd is best with conv; adam is best with mlp. So which optimizer is better depends on the network."
    ]


def test_a_claim_beside_none_shows_no_dependence(tmp_path: Path) -> None:
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.5, ("conv", "adam"): 0.6, ("conv", "sgd"): 0.55}
    assert by_network(compare([nets(tmp_path, means)], margin=0.0001)) == [
        "By network: adam is best with conv; it is undecided between adam and sgd with mlp. Whether the best optimizer "
        "depends on the network stays open: no two of these claims contradict."
    ]
    assert by_network(compare([str(tmp_path)], margin=0.02)) == [
        "By network: adam is best with conv; adam and sgd are equivalent with mlp. Whether the best optimizer "
        "depends on the network stays open: no two of these claims contradict."
    ]


def test_a_network_with_which_one_optimizer_diverged(tmp_path: Path) -> None:
    means = {
        **{("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.47, ("conv", "adam"): 0.6, ("conv", "sgd"): 0.55},
        **{("vit", "adam"): 0.4, ("vit", "sgd"): 0.0},
    }
    (sentence,) = by_network(compare([nets(tmp_path, means)]))
    assert sentence.startswith("By network: adam is best with conv and mlp; only adam has a result with vit. Whether")


def test_networks_with_one_seed_or_a_baseline_get_no_such_sentence(tmp_path: Path) -> None:
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.47, ("conv", "adam"): 0.6, ("conv", "sgd"): 0.55}
    assert by_network(compare([nets(tmp_path / "one", means, seeds=(0,))])) == []
    folder = nets(tmp_path / "three", means)
    assert by_network(compare([folder], baseline="mlp sgd")) == []
    assert by_network(compare([folder], by=["model"])) == []
    assert len(by_network(compare([folder], baseline="mlp sgd", pairs="all"))) == 1


def test_each_pair_of_network_and_optimizer_is_tuned(tmp_path: Path) -> None:
    means = {("mlp", "adam"): 0.5, ("mlp", "sgd"): 0.47, ("conv", "adam"): 0.6, ("conv", "sgd"): 0.55}
    comparison = compare([nets(tmp_path, means, rates=(0.001, 0.002))])
    assert comparison.judgement.tuned == [
        f"{model} {name} lr=0.001"
        for model, name in (("conv", "adam"), ("conv", "sgd"), ("mlp", "adam"), ("mlp", "sgd"))
    ]
    assert comparison.words.answer[0] == (
        "Each pair of network and optimizer is taken at its best configuration by val/accuracy; "
        "claims hold at that one."
    )
    assert len(by_network(comparison)) == 1
    claims = {str(claim.item): claim.text for claim in comparison.judgement.ledger}
    assert claims["Configurations tried"] == "conv adam 2, conv sgd 2, mlp adam 2, mlp sgd 2"
