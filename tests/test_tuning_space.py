import math
from itertools import islice

import pytest
from omegaconf import OmegaConf

from conftest import PROJECT
from optbench.records.tuning import Edge, Trial
from optbench.tuning.plan import read_lines, read_space
from optbench.tuning.space import draw, overrides_of, read_dimension


def dimension(text, name="optimizer.lr"):
    return read_dimension(name, text, "here")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("interval(2, 4)", [2.0, 3.0, 4.0]),
        ("tag(log, interval(1e-4, 1e-2))", [0.0001, 0.001, 0.01]),
        ("int(interval(1, 4))", [1, 3, 4]),
        ("choice(a, 0.1, true)", ["a", 0.1, True]),
        ("range(1, 7, 2)", [1, 3, 5]),
        ("8,16,32", [8, 16, 32]),
    ],
)
def test_the_lowest_the_middle_and_the_highest_place(text, ends):
    assert [dimension(text).at(place) for place in (0.0, 0.5, 1.0)] == ends


def test_one_minus_is_exact_to_six_digits():
    momentum = dimension("tag(log, interval(0.001, 0.1))", "1 - optimizer.momentum")
    assert [momentum.at(place) for place in (0.0, 0.5, 1.0)] == [0.999, 0.99, 0.9]
    assert momentum.at(0.123) == float(f"{1 - float(f'{0.001 * 100**0.123:.6g}'):.12g}")
    assert momentum.place(0.99) == pytest.approx(0.5) and momentum.name == "1 - optimizer.momentum"


def test_an_item_of_a_list_becomes_the_whole_list():
    cfg = OmegaConf.create({"optimizer": {"betas": [0.9, 0.999], "lr": 0.1, "mode": "x"}})
    values = {"optimizer.betas.0": 0.5, "optimizer.lr": 0.01, "optimizer.mode": "a b"}
    assert overrides_of(values, cfg) == ["optimizer.betas=[0.5,0.999]", "optimizer.lr=0.01", r"optimizer.mode=a\ b"]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_points_are_even_in_the_stated_scale_and_do_not_change(sampler):
    space = [dimension("tag(log, interval(1e-4, 1))"), dimension("choice(1, 2)", "model.depth")]
    points = list(islice(draw(space, sampler, "0 adam 0"), 400))
    places = sorted((math.log10(point["optimizer.lr"]) + 4) / 4 for point in points)
    distance = max(max(abs(place - k / 400), abs(place - (k + 1) / 400)) for k, place in enumerate(places))
    assert distance < 1.63 / math.sqrt(400)  # Kolmogorov-Smirnov's bound for p = 0.01
    assert 160 < sum(point["model.depth"] == 1 for point in points) < 240
    assert list(islice(draw(space, sampler, "0 adam 0"), 7)) == points[:7]
    assert next(draw(space, sampler, "1 adam 0")) != points[0]


def test_a_space_widens_on_the_side_that_is_asked_and_draws_beyond_what_it_was():
    old = dimension("tag(log, interval(1e-4, 1e-2))")
    new = old.widened(Edge.LARGEST)
    assert (new.text, new.values.low, new.values.high) == ("tag(log, interval(0.0001, 0.1))", 1e-4, 0.1)
    assert old.widened(Edge.SMALLEST).values.low == 1e-5
    points = list(islice(draw([new], "random", "x", [old]), 50))
    assert all(0.01 < point["optimizer.lr"] <= 0.1 for point in points)


def test_what_has_no_room_does_not_widen():
    depth = dimension("tag(log, int(interval(1, 8)))", "model.depth")
    assert depth.widened(Edge.SMALLEST) == depth  # a logarithmic scale has no 0
    batch = dimension("tag(log, int(interval(16, 256)))", "data.batch_size")
    assert batch.widened(Edge.SMALLEST).values.low == 4
    momentum = dimension("interval(0.5, 1)", "1 - optimizer.momentum")
    assert momentum.widened(Edge.LARGEST) == momentum
    dropout = dimension("interval(0, 0.5)", "model.dropout")
    assert dropout.widened(Edge.SMALLEST) == dropout
    assert dropout.widened(Edge.LARGEST).values.high == 0.75
    assert dropout.widened(Edge.LARGEST).widened(Edge.LARGEST).values.high == 0.875  # never 1, which drops all


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("optimizer.lr", "interval(2, 1)", "the lower end must be below the upper one."),
        ("optimizer.lr", "interval(1, 1)", "the lower end must be below the upper one."),
        ("optimizer.lr", "tag(log, interval(0, 1))", "a logarithmic scale must begin above 0."),
        ("optimizer.lr", "tag(log, interval(-1, 1))", "a logarithmic scale must begin above 0."),
        ("optimizer.lr", "range(5, 1)", "has no value: give at least one."),
        ("optimizer.lr", "0.1", "it names one value, not several"),
        ("optimizer.lr", "interval(1", "cannot be read"),
        ("optimizer.lr", "tag(lin, interval(1, 2))", "the tag lin is not known: there is log"),
        ("optimizer.lr", "tag(log, choice(1, 2))", "tag(…) belongs to an interval"),
        ("1 - optimizer.lr", "choice(a, b)", "1 - … needs numbers."),
        ("2 - optimizer.lr", "interval(1, 2)", "2 - optimizer.lr is no key."),
    ],
)
def test_what_a_space_refuses(name, text, words):
    with pytest.raises(ValueError) as error:
        dimension(text, name)
    assert words in str(error.value) and f"here: {name}: {text}" in str(error.value)


@pytest.mark.parametrize("optimizer", sorted(path.stem for path in (PROJECT / "configs" / "search").glob("*.yaml")))
def test_every_space_can_be_read_and_begins_with_the_rate(optimizer):
    space = read_space(optimizer, {})
    assert all(part.source == f"configs/search/{optimizer}.yaml" for part in space)
    assert (PROJECT / "configs" / "optimizer" / f"{optimizer}.yaml").is_file()


def test_a_key_of_no_group_can_be_searched():
    assert dimension("choice(all, weights)", "weight_decay_on").values == ["all", "weights"]
    assert Trial({"weight_decay_on": "all", "optimizer.betas.0": 0.9}).point == "weight_decay_on=all, betas.0=0.9"


def test_lines_of_the_command_replace_add_and_remove():
    taken = ["adam.1-optimizer.betas.0=null", "adam.optimizer.weight_decay=null"]
    given = read_lines([*taken, "adam.optimizer.lr=choice(1, 2)", "adam.model.dropout=0,0.5"])
    space = {part.name: part.text for part in read_space("adam", given["adam"])}
    assert space == {"optimizer.lr": "choice(1, 2)", "model.dropout": "0,0.5"}
    for name in ("optimizer.momentum", "1-optimizer.momentum"):
        (line,) = (part for part in read_space("momentum", {name: "interval(0.1, 0.9)"}) if "mom" in part.key)
        assert (line.one_minus, line.values.high) == (name.startswith("1"), 0.9)
    with pytest.raises(
        ValueError, match=r"search\.adam\.optimizer\.decay=null takes out what .* It has: optimizer\.lr, 1"
    ):
        read_space("adam", {"optimizer.decay": "null"})
    with pytest.raises(ValueError, match=r"optimizer\.betas and optimizer\.betas\.0 would set the same value"):
        read_space("adam", {"optimizer.betas": "choice([0.9,0.99],[0.8,0.99])"})
    with pytest.raises(ValueError, match=r"search\.adam cannot be read"):
        read_lines(["adam"])
