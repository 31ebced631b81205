"""What varies between runs by itself, what varies with it, and what never counts."""

from optbench.comparison.factors import find_factors
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
