"""What varies between runs by itself, what varies with it, and what never counts."""

import pandas as pd

from optbench.comparison.factors import configuration_names, contestants_of, find_factors, networks, separate
from optbench.records.record import RunRecord


def record(*typed: str, seed: int = 0, choices: dict | None = None, **config) -> RunRecord:
    """A run with these overrides; a config's double underscore is a dot."""
    nested: dict = {"seed": seed}
    for key, value in config.items():
        group, _, name = key.partition("__")
        if name:
            nested.setdefault(group, {})[name] = value
        else:
            nested[group] = value
    return RunRecord(overrides=list(typed), seed=seed, choices=choices or {}, config=nested)


def test_a_group_is_a_factor_and_what_it_brings_along_is_implied() -> None:
    groups, factors, implied = find_factors(
        [
            record("optimizer=adam", choices={"optimizer": "adam"}, optimizer__lr=0.001, optimizer__betas=[0.9, 0.99]),
            record("optimizer=sgd", choices={"optimizer": "sgd"}, optimizer__lr=0.04),
            record("optimizer=sgd", seed=1, choices={"optimizer": "sgd"}, optimizer__lr=0.04),
        ]
    )
    assert groups == ["optimizer"]
    assert factors == {"optimizer": ["adam", "sgd", "sgd"]}
    assert implied == {"optimizer.lr": [0.001, 0.04, 0.04], "optimizer.betas": ["[0.9, 0.99]", None, None]}


def test_an_optimizer_and_its_learning_rate() -> None:
    runs = [
        record(f"optimizer={name}", f"optimizer.lr={lr}", choices={"optimizer": name}, optimizer__lr=lr)
        for name in ("adam", "sgd")
        for lr in (0.1, 0.01)
    ]
    groups, factors, implied = find_factors(runs)
    assert groups == ["optimizer"] and implied == {}
    assert factors == {"optimizer": ["adam", "adam", "sgd", "sgd"], "optimizer.lr": [0.1, 0.01, 0.1, 0.01]}


def test_a_single_key() -> None:
    runs = [record(f"model.dropout={x}", seed=s, model__dropout=x) for x in (0.0, 0.2) for s in (0, 1)]
    assert find_factors(runs) == ([], {"model.dropout": [0.0, 0.0, 0.2, 0.2]}, {})


def test_two_typed_keys_that_vary_together_are_both_named() -> None:
    runs = [record(f"model.dropout={x}", f"+model.width={x}", model__dropout=x, model__width=x) for x in (1, 2)]
    assert list(find_factors(runs)[1]) == ["model.dropout", "model.width"]


def test_a_key_that_an_experiment_sets_is_implied() -> None:
    runs = [
        record("experiment=exercise", choices={"experiment": "exercise"}, model__dropout=0.2, data__batch_size=64),
        record(choices={"experiment": "None"}, model__dropout=0.0, data__batch_size=50),
    ]
    groups, factors, implied = find_factors(runs)
    assert groups == ["experiment"] and list(factors) == ["experiment"]
    assert implied == {"model.dropout": [0.2, 0.0], "data.batch_size": [64, 50]}


def test_a_key_that_nobody_typed_and_nothing_explains() -> None:
    """The default in a YAML file changed between two runs."""
    runs = [record(seed=s, model__dropout=x, model__eps=x / 10) for s, x in ((0, 0.2), (1, 0.2), (0, 0.3))]
    _, factors, implied = find_factors(runs)
    assert factors == {"model.dropout": [0.2, 0.2, 0.3]}
    assert list(implied) == ["model.eps"]  # it could be either: the first one names both


def test_what_never_counts() -> None:
    def run(k: int) -> RunRecord:
        return record(
            f"seed={k}",
            f"data.root=/data{k}",
            "logger=csv",
            seed=k,
            choices={"logger": str(k), "debug": str(k)},
            output_dir=f"/logs/{k}",
            task=str(k),
            compare=bool(k),
            data__order_seed=k,
            data__root=f"/data{k}",
            data__workers=k + 5,
            logger__csv={"path": f"/logs/{k}/metrics.csv"},
            trainer__enable_progress_bar=bool(k),
            trainer__default_root_dir=f"/x{k}",
            callbacks__checkpoint={"dirpath": f"/logs/{k}/checkpoints"},
            callbacks__figures=None if k else {"every": 1},
        )

    assert find_factors([run(0), run(1), run(2)]) == ([], {}, {})


def test_an_order_seed_that_does_not_follow_the_seed_counts() -> None:
    runs = [record("data.order_seed=7", seed=s, data__order_seed=o) for s, o in ((0, 7), (1, 7), (0, 0))]
    assert find_factors(runs)[1] == {"data.order_seed": [7, 7, 0]}


def test_one_setting_written_in_two_ways() -> None:
    runs = [record("w.decay=0", seed=0, w__decay=0), record(seed=1, w__decay=0.0)]
    assert find_factors(runs)[1] == {}
    runs = [record(model__bias=True), record(model__bias=1)]
    assert find_factors(runs)[1] == {"model.bias": [True, 1]}
    batches = [record(trainer__limit_train_batches=1), record(trainer__limit_train_batches=1.0)]  # one batch; all
    assert find_factors(batches)[1] == {"trainer.limit_train_batches": ["1", "1.0"]}


# Networks have keys of their own


def net(model: str, *typed: str, optimizer: str = "adam", **config) -> RunRecord:
    choices = {"model": model, "optimizer": optimizer}
    return record(f"model={model}", f"optimizer={optimizer}", *typed, choices=choices, **config)


def nets() -> list[RunRecord]:
    """Three networks, of which each has other keys, with two optimizers."""
    return [
        net(model, optimizer=optimizer, **config)
        for model, config in (
            ("mlp", {"model__layers": ["512 relu"], "model__dropout": 0.2}),
            ("convnet", {"model__channels": [32, 64]}),
            ("linear", {"model___target_": "Linear"}),
        )
        for optimizer in ("adam", "sgd")
    ]


def test_the_keys_of_networks_are_no_factors_beside_them() -> None:
    factors = find_factors(nets())
    assert list(factors.independent) == ["model", "optimizer"] and factors.groups == ["model", "optimizer"]
    assert set(factors.implied) == {"model.layers", "model.dropout", "model.channels"}
    names = configuration_names(["model", "optimizer"], factors, nets())
    assert names == ["mlp adam", "mlp sgd", "convnet adam", "convnet sgd", "linear adam", "linear sgd"]
    assert networks(factors, nets()) == ["mlp", "mlp", "convnet", "convnet", "linear", "linear"]


def test_a_key_that_one_network_has_is_a_part_of_the_network() -> None:
    """Someone tried two sizes of the MLP, beside a network that has no layers to set."""
    runs = [
        net("mlp", f"model.layers={size}", optimizer=optimizer, model__layers=size)
        for size in ("a", "b")
        for optimizer in ("adam", "sgd")
    ]
    runs += [net("convnet", optimizer=optimizer, model__channels=[32]) for optimizer in ("adam", "sgd")]
    factors = find_factors(runs)
    by = list(factors.independent)
    assert by == ["model", "optimizer", "model.layers"]
    names = configuration_names(by, factors, runs)
    assert names[::2] == ["mlp adam layers=a", "mlp adam layers=b", "convnet adam"]
    varied = separate(by, factors, runs)
    assert list(varied) == ["model", "optimizer"]
    assert varied["model"][::2] == networks(factors, runs)[::2] == ["mlp layers=a", "mlp layers=b", "convnet"]
    contestants = contestants_of(pd.Series(names), by, factors)
    assert contestants["mlp adam layers=a"] == contestants["mlp adam layers=b"] == "mlp adam", "sizes are tuned"


def test_a_key_that_is_null_is_there() -> None:
    runs = [net("mlp", f"model.dropout={x}", model__dropout=x) for x in (None, 0.2)] + [net("linear")]
    factors = find_factors(runs)
    assert configuration_names(["model", "model.dropout"], factors, runs) == [
        "mlp dropout=null",
        "mlp dropout=0.2",
        "linear",
    ]


def test_the_network_of_runs_whose_model_is_the_same() -> None:
    runs = [net("mlp", f"model.dropout={x}", model__dropout=x) for x in (0.0, 0.2)]
    assert networks(find_factors(runs), runs) == ["mlp dropout=0", "mlp dropout=0.2"]
    assert networks(find_factors(runs[:1]), runs[:1]) == ["mlp"]
    assert networks(find_factors([record()]), [record()]) == [""], "a table without networks"


def test_contestants() -> None:
    factors = find_factors(nets())
    names = pd.Series(["mlp adam", "mlp sgd", "convnet adam", "convnet sgd", "linear adam", "linear sgd"])
    assert contestants_of(names, ["model"], factors)["mlp sgd"] == "mlp"
    assert contestants_of(names, ["optimizer"], factors)["mlp sgd"] == "sgd"
    assert contestants_of(names, ["model.layers"], factors)["mlp sgd"] == "mlp sgd"
