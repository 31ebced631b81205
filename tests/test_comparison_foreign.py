"""What the columns and settings of other programs mean."""

import pytest

from optbench.comparison.factors import find_factors
from optbench.comparison.foreign import check_known, metric_key, nested, record_of, setting_of
from optbench.records import metrics


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("test/accuracy", "test/accuracy"),
        ("val_acc", "val/accuracy"),
        ("Val Acc", "val/accuracy"),
        ("validation/loss", "val/loss"),
        ("eval_loss", "val/loss"),
        ("training.loss", "train/loss"),
        ("train_loss_epoch", "train/loss"),
        ("val-err", "val/error"),
        ("test/ppl", "test/perplexity"),
        ("accuracy", "test/accuracy"),  # alone: of the test set
        (" Acc ", "test/accuracy"),
        ("loss", "test/loss"),
        ("return", "test/return"),
        ("test/accuracy/Cat", "test/accuracy/Cat"),
        ("val/psnr", "val/psnr"),  # the stage and a slash make it a metric
        ("val/acc_best", ""),
        ("train/loss_step", ""),
        ("train_size", None),
        ("test_split", None),
        ("training", None),
        ("optimizer", None),
        ("lr", None),
        ("val", None),
        ("max_step", None),
        ("", None),
    ],
)
def test_what_a_column_is(column: str, key: str | None) -> None:
    assert metric_key(column) == key


def test_a_metric_without_a_direction_is_not_compared() -> None:
    check_known("test/accuracy/cat", "t.csv")
    with pytest.raises(ValueError, match=r"^metric=val/psnr of t.csv: it is not known whether more of it is better"):
        check_known("val/psnr", "t.csv")


def test_metrics_of_other_programs_have_a_direction() -> None:
    assert [metrics.sign(f"test/{name}") for name in ("error", "perplexity", "return")] == [-1, -1, 1]
    assert not {*metrics.OTHERS} & {key.partition("/")[2] for key in metrics.monitorable(["cat"])}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("128", 128), ("true", True), ("False", False), ("", None), ("adam", "adam"), ("1_000", "1_000")],
)
def test_what_a_cell_is(text: str, value: object) -> None:
    assert setting_of(text) == value and type(setting_of(text)) is type(value)


def test_dotted_keys_are_groups() -> None:
    assert nested({"data.batch_size": 128, "data.x.y": 1, "lr": 0.1}) == {
        "data": {"batch_size": 128, "x": {"y": 1}},
        "lr": 0.1,
    }
    assert nested({"a": 1, "a.b": 2}) == {"a": 1, "a.b": 2}


def test_what_a_run_is_judged_by() -> None:
    """The test as it was measured last; validation at its best epoch."""
    rows = [
        {"epoch": 1.0, "step": 10.0, "val/accuracy": 0.4, "val/loss": 2.0, "test/accuracy": 0.3},
        {"epoch": 2.0, "step": 20.0, "val/accuracy": 0.6, "val/loss": 1.5, "test/accuracy": 0.5},
        {"epoch": 3.0, "step": 30.0, "val/accuracy": 0.5, "val/loss": 1.0, "test/accuracy": 0.45},
        {"epoch": 4.0, "step": 40.0, "train/loss": 0.9},
    ]
    record = record_of("t.csv", {"optimizer": "adam", "lr": 0.1}, 3, rows, "test/accuracy")
    assert (record.choices, record.config, record.seed) == ({"optimizer": "adam"}, {"lr": 0.1}, 3)
    assert record.test == {"test/accuracy": 0.45} and record.best["epoch"] == 2
    assert (record.epochs, record.steps, record.status, record.hashes) == (4, 40, "completed", {})
    assert record_of("t.csv", {}, 3, rows, "test/loss").best["epoch"] == 3


def test_origins_must_have_the_same_factors() -> None:
    def runs(origin: str, **settings: list) -> list:
        rows = zip(*settings.values(), strict=True)
        return [
            record_of(origin, dict(zip(settings, row, strict=True)), seed, [{"test/accuracy": 0.5}], "test/accuracy")
            for seed, row in enumerate(rows)
        ]

    here = runs("a.csv", optimizer=["adam", "sgd"], lr=[0.1, 0.2])
    there = runs("b.csv", optimizer=["adam", "lion"])
    factors = find_factors([*here, *there])
    assert factors.independent == {"optimizer": ["adam", "sgd", "adam", "lion"]} and factors.implied == {}
    with pytest.raises(ValueError) as error:
        find_factors([*runs("a.csv", lr=[0.1, 0.2]), *runs("b.csv", **{"optimizer.lr": [0.1, 0.2]})])
    assert str(error.value) == (
        "a.csv and b.csv cannot be compared: lr varies in the one, and the other has no such setting. Is it "
        "optimizer.lr there? Then give both the same name."
    )
    assert "task" in find_factors(runs("a.csv", task=["x", "y"])).independent  # a column is there on purpose
