import csv
import math
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from conftest import NAMES, ToyDataModule, toy_net, toy_trainer
from optbench.callbacks.epoch_history import EpochHistory, rounded
from optbench.training.classifier import Classifier


def fit(path: Path | None, **settings) -> EpochHistory:
    history = EpochHistory(path)
    trainer = toy_trainer(max_epochs=2, callbacks=[history], log_every_n_steps=1, **settings)
    classifier = Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=0.5), lambda_lr())
    trainer.fit(classifier, datamodule=ToyDataModule())
    trainer.test(classifier, datamodule=ToyDataModule(), verbose=False)
    history.add_test(1, {key: float(value) for key, value in trainer.callback_metrics.items() if "test/" in key})
    return history


def lambda_lr() -> partial:
    return partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)


def test_metrics_csv_has_a_row_an_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    history = fit(path)
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
    assert seconds[1] <= history.seconds()["training"] < history.seconds()["total"]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_without_a_path_the_rows_are_kept_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = fit(None)
    assert [row["epoch"] for row in history.rows] == [1, 2] and not list(tmp_path.iterdir())


def test_each_row_is_on_disk_when_its_epoch_ends(tmp_path):
    history = EpochHistory(tmp_path / "metrics.csv")
    module = SimpleNamespace(log_dict=lambda *_, **__: None)
    trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 1}])], callback_metrics={})
    history.on_train_start(trainer, module)
    history.on_train_epoch_start(trainer, module)
    for epoch in range(2):
        trainer.current_epoch, trainer.global_step = epoch, 6 + 6 * epoch
        trainer.callback_metrics = {"train/loss_step": torch.tensor(3.0), "val/loss": torch.tensor(0.1)}
        history.on_train_epoch_end(trainer, module)
        trainer.callback_metrics |= {"train/loss": torch.tensor(0.2), "GPU": torch.tensor(3.0)}
        history.on_train_epoch_start(trainer, module)
        lines = (tmp_path / "metrics.csv").read_text().splitlines()
        assert lines == ["epoch,step,train/loss,val/loss,test/loss", "1,6,0.2,0.1,", "2,12,0.2,0.1,"][: epoch + 2]
    trainer.callback_metrics = {"test/loss": torch.tensor(9.0)}
    history.on_train_end(trainer, module)  # nothing was trained since
    assert len(history.rows) == 2
    history.add_test(2, {"test/loss": 0.3, "test/unknown": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,6,0.2,0.1,", "2,12,0.2,0.1,0.3"]


def test_the_stopwatch_stops_when_training_breaks_off():
    watch = EpochHistory()
    watch.on_train_start(None, None)
    assert watch.seconds()["training"] == 0
    time.sleep(0.002)
    watch.on_exception(None, None, KeyboardInterrupt())
    assert watch.seconds()["total"] >= watch.seconds()["training"] >= 0.002


def test_numbers_have_the_digits_of_a_float32():
    assert rounded(float(torch.tensor(0.2395))) == 0.2395
    assert rounded(12345678.9) == 12345680.0
    assert math.isnan(rounded(math.nan))
