import copy
import csv
import json
import math
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import NAMES, PROJECT, ToyDataModule, toy_net, toy_trainer
from optbench import record as records
from optbench.classifier import Classifier
from optbench.record import MetricsCSV, RunRecord, Stopwatch, weights_sha256


def full() -> RunRecord:
    return RunRecord(
        status="completed",
        started="2026-01-02T03:04:05+00:00",
        overrides=["optimizer=sgd", "seed=1"],
        monitor="val/loss",
        seed=1,
        final={"epoch": 2, "val/accuracy/größe": 0.5},
        steps=12,
        skipped_images=["a.png"],
        input={"shape": [3, 4, 4]},
        config={"data": {"val_size": 0.1, "augmentation": None}},
    )


def test_what_was_written_is_read(tmp_path):
    full().write(tmp_path)
    assert RunRecord.read(tmp_path) == full()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert "größe" in text and text.endswith("}\n")


def test_nan_and_infinity_become_null(tmp_path):
    RunRecord(final={"val/loss": math.nan, "epoch": 1}, input={"scale": [math.inf, 1.0]}).write(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    found = RunRecord.read(tmp_path)
    assert (found.final, found.input) == ({"val/loss": None, "epoch": 1}, {"scale": [None, 1.0]})


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, broken):
    full().write(tmp_path)

    def no_space(*arguments) -> None:
        raise OSError("No space left on device")

    if broken == "replace":
        monkeypatch.setattr(Path, "replace", no_space)
    elif broken == "fsync":
        monkeypatch.setattr(records.os, "fsync", no_space)
    text = "\ud800" if broken == "write" else "new"  # what UTF-8 cannot encode
    with pytest.raises((OSError, UnicodeEncodeError)):
        records.write_atomically(tmp_path / "summary.json", text)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert RunRecord.read(tmp_path) == full()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "{folder} is no run: it has no summary.json. Give a run's folder, for example logs/train/runs/<run>."),
        ("", "{path} is not a run's record (JSONDecodeError: "),
        ('{"schema_version": 1, "sta', "{path} is not a run's record (JSONDecodeError: "),
        ("[1, 2]", "{path} is not a run's record (TypeError: "),
        ('{"accuracy": 0.5}', "{path} is not a run's record (KeyError: 'schema_version')."),
        ('{"schema_version": 99}', "{path} has schema version 99; this OptBench reads version 1."),
    ],
)
def test_what_is_no_record(tmp_path, text, sentence):
    path = tmp_path / "summary.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="summary") as error:
        RunRecord.read(tmp_path)
    assert str(error.value).startswith(sentence.format(folder=tmp_path, path=path))


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(
        ValueError, match=r"none is no folder\. Give a run's folder, for example logs/train/runs/<run>\.$"
    ):
        RunRecord.read(tmp_path / "none")


def test_keys_of_a_later_minor_version_are_passed_over(tmp_path):
    (tmp_path / "summary.json").write_text('{"schema_version": 1, "status": "completed", "weather": "fine"}')
    assert RunRecord.read(tmp_path) == RunRecord(status="completed")


def test_a_failure_is_noted_with_its_traceback():
    record = RunRecord()
    try:
        int("seven")
    except ValueError as error:
        record.fail(error)
    assert record.status == "failed" and record.error is not None
    assert record.error["type"] == "ValueError" and "'seven'" in record.error["message"]
    assert 'int("seven")' in record.error["traceback"]


def rows(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [
        {"epoch": k, "step": 6 * k, "seconds": 1.5 * k, "val/loss": loss, "val/accuracy": accuracy}
        for k, (loss, accuracy) in enumerate(values, 1)
    ]


EPOCHS = rows((2.0, 0.0999), (1.0, 0.15), (math.nan, 0.32), (1.0, 0.2), (1.5, 0.31))


@pytest.mark.parametrize(
    ("monitor", "lower", "best"), [("val/loss", True, 2), ("val/accuracy", False, 3), ("val/loss", False, 1)]
)
def test_the_best_epoch_is_the_first_best_by_monitor(monitor, lower, best):
    record = RunRecord(monitor=monitor)
    record.take_epochs(EPOCHS, lower)
    assert (record.epochs, record.steps, record.final, record.best["epoch"]) == (5, 30, EPOCHS[-1], best)
    assert record.best == EPOCHS[best - 1]


def test_targets_are_met_at_the_first_epoch_that_reaches_them():
    record = RunRecord(monitor="val/loss")
    record.take_epochs(EPOCHS, True)
    at = {k: {"epoch": k, "step": 6 * k, "seconds": 1.5 * k} for k in (1, 2, 3)}
    assert record.targets == {
        "0.05": at[1],
        "0.10": at[2],
        "0.15": at[2],
        **dict.fromkeys("0.20 0.25 0.30".split(), at[3]),
    }


def test_without_finite_epochs_nothing_is_best():
    record = RunRecord(monitor="val/loss")
    record.take_epochs([], True)
    assert (record.epochs, record.final, record.best, record.targets) == (0, {}, {}, {})
    record.take_epochs(rows((math.nan, math.nan)), True)
    assert (record.epochs, record.best, record.targets) == (1, {}, {})


def fit(path: Path | None, **settings) -> tuple[MetricsCSV, Stopwatch]:
    history, stopwatch = MetricsCSV(str(path) if path else None), Stopwatch()
    trainer = toy_trainer(max_epochs=2, logger=history, callbacks=[stopwatch], log_every_n_steps=1, **settings)
    classifier = Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=0.5), lambda_lr())
    trainer.fit(classifier, datamodule=ToyDataModule())
    trainer.test(classifier, datamodule=ToyDataModule(), verbose=False)
    history.add_test(1, {key: float(value) for key, value in trainer.callback_metrics.items() if "test/" in key})
    return history, stopwatch


def lambda_lr() -> partial:
    return partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)


def test_metrics_csv_has_a_row_an_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    history, stopwatch = fit(path)
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    names = ["accuracy", "ece", "f1", "loss", "top3_accuracy", *(f"accuracy/{name}" for name in NAMES)]
    measured = [f"{stage}/{name}" for names in (names[:5], names[5:]) for stage in ("train", "val") for name in names]
    test = [f"test/{name}" for name in names]
    assert list(table[0]) == ["epoch", "step", "seconds", "epoch_seconds", "lr", *measured, *test]
    assert [(row["epoch"], row["step"], row["lr"]) for row in table] == [("1", "6", "0.5"), ("2", "12", "0.25")]
    for row, kept in zip(table, history.rows, strict=True):
        assert {key: float(row[key]) for key in kept} == kept
        assert all(len(row[key].lstrip("0.").replace(".", "")) <= 7 for key in measured)  # as float32 has them
    assert all(0 <= float(table[0][key]) <= 100 for key in test)
    assert not any(table[1][key] for key in test)  # the weights of epoch 1 were tested
    seconds, each = ([row[key] for row in history.rows] for key in ("seconds", "epoch_seconds"))
    assert 0 < each[0] <= seconds[0] < seconds[1] and each[1] < seconds[1]
    assert stopwatch.started is not None
    assert seconds[1] <= stopwatch.stopped - stopwatch.started + 1e-6
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_without_a_path_the_rows_are_kept_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history, _ = fit(None)
    assert [row["epoch"] for row in history.rows] == [1, 2] and not list(tmp_path.iterdir())


def test_each_row_is_on_disk_when_its_epoch_ends(tmp_path):
    history = MetricsCSV(str(tmp_path / "metrics.csv"))
    for epoch in range(2):
        history.log_metrics({"train/loss_step": 3.0, "epoch": epoch}, step=4)
        history.log_metrics({"val/loss": torch.tensor(0.1), "epoch": epoch}, step=4)
        history.log_metrics({"train/loss": torch.tensor(0.2), "GPU": 3.0, "epoch": epoch}, step=5 + 6 * epoch)
        lines = (tmp_path / "metrics.csv").read_text().splitlines()
        assert lines == ["epoch,step,train/loss,val/loss,test/loss", "1,6,0.2,0.1,", "2,12,0.2,0.1,"][: epoch + 2]
    history.log_metrics({"test/loss": 9.0, "epoch": 2}, step=12)
    assert len(history.rows) == 2
    history.add_test(2, {"test/loss": 0.3, "test/unknown": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,6,0.2,0.1,", "2,12,0.2,0.1,0.3"]


def test_the_stopwatch_stops_when_training_breaks_off():
    watch = Stopwatch()
    watch.on_train_start(None, None)
    assert watch.started == watch.stopped
    time.sleep(0.002)
    watch.on_exception(None, None, KeyboardInterrupt())
    assert watch.stopped - watch.started >= 0.002


def test_numbers_have_the_digits_of_a_float32():
    assert records.shortened(float(torch.tensor(0.2395))) == 0.2395
    assert records.shortened(12345678.9) == 12345680.0
    assert math.isnan(records.shortened(math.nan))


def test_the_weights_hash_tells_every_change():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    found = [weights_sha256(net)]
    assert weights_sha256(net) == found[0]
    with torch.no_grad():
        net[0].weight[1, 2] += 1e-6
        found.append(weights_sha256(net))
        net[0].bias[0] = 0
        found.append(weights_sha256(net))
        net[1].running_mean[0] = 1
        found.append(weights_sha256(net))
        net[1].num_batches_tracked += 1
        found.append(weights_sha256(net))
    found.append(weights_sha256(copy.deepcopy(net).double()))
    renamed = nn.Sequential()
    for name, module in zip(("first", "second"), net, strict=True):
        renamed.add_module(name, module)
    found.append(weights_sha256(renamed))
    assert len(set(found)) == len(found) == 7


def test_parameters_are_counted_by_what_trains():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight.requires_grad_(False)
    assert records.count_parameters(net) == {"trainable": 6 + 2 + 4 + 2, "statistics": 4}


def test_what_computed_is_described(tmp_path):
    device = records.describe_device(toy_trainer())
    assert (device["accelerator"], device["devices"], device["precision"]) == ("cpu", 1, "32-true")
    assert device["name"] and device["threads"] == torch.get_num_threads()
    assert records.versions()["torch"].startswith(torch.__version__.split("+")[0])
    assert len(records.describe_git(PROJECT).get("commit", "0" * 40)) == 40
    assert records.describe_git(tmp_path) == {}
    assert records.peak_memory_mb(torch.device("cpu"))["process"] > 50


def test_peak_memory_is_that_of_one_run():
    """A run of a sweep must not show the peak of the run before it in the same process."""
    before = records.peak_memory_mb(torch.device("cpu"))["process"]
    big = torch.ones(100_000_000)  # 400 MB
    high = records.peak_memory_mb(torch.device("cpu"))["process"]
    assert high > before + 200 or high > big.nbytes / 1e6
    del big
    records.reset_peak_memory()
    assert 50 < records.peak_memory_mb(torch.device("cpu"))["process"] < high - 200
