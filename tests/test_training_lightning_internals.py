"""The contract with Lightning: what `lightning_internals` takes from its loops is still there and means the same."""

import csv
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import torch

from conftest import NAMES, ToyDataModule, toy_net, toy_trainer
from optbench.training import lightning_internals as internals
from optbench.training.classifier import Classifier

LIGHTNING = (
    f"pytorch-lightning {version('pytorch-lightning')} differs from 2.6, on which "
    "optbench/training/lightning_internals.py rests: "
)


class Witness(pl.Callback):
    """Asks at every step and epoch."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.batches: list[int] = []
        self.epochs: list[int] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append(internals.epochs_completed(trainer))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.batches.append(internals.batches_trained(trainer))
        if self.path and trainer.global_step == 8:
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        internals.count_completed_only(checkpoint, internals.BATCH)


def fit(witness: Witness, data: ToyDataModule, **settings) -> pl.Trainer:
    trainer = toy_trainer(max_epochs=2, callbacks=[witness])
    trainer.fit(Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=0.1)), datamodule=data, **settings)
    return trainer


def test_loops_count_batches_and_epochs(tmp_path: Path):
    witness = Witness(tmp_path / "within.ckpt")
    trainer = fit(witness, ToyDataModule())
    assert witness.batches == list(range(12)), LIGHTNING + "epoch_loop.total_batch_idx."
    assert witness.epochs == [0, 1] and internals.epochs_completed(trainer) == 2, LIGHTNING + "epoch_progress."
    assert internals.batches_done_before_restart(trainer) == internals.batches_done_before_restart(None) == 0
    assert internals.rank() == 0, LIGHTNING + "rank_zero_only.rank."

    checkpoint = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert internals.epochs_of(checkpoint) == (1, True), LIGHTNING + "the epoch_progress of a checkpoint."
    progress = checkpoint["loops"]["fit_loop"][internals.BATCH]
    assert progress["current"]["ready"] == progress["current"]["completed"] == 2, LIGHTNING + "batch_progress."
    assert progress["is_last_batch"] is False

    class Asking(ToyDataModule):
        def train_order(self):
            order = super().train_order()
            order.done = lambda: asked.append(internals.batches_done_before_restart(self.trainer)) or 8 * asked[-1]
            return order

    asked: list[int] = []
    resumed = Witness()
    fit(resumed, Asking(), ckpt_path=tmp_path / "within.ckpt", weights_only=True)
    assert resumed.batches == list(range(8, 12)), LIGHTNING + "the batch after a restart."
    assert asked[-1] == 2, LIGHTNING + "fit_loop.restarting."


def test_an_epoch_that_is_over_is_counted_as_such(tmp_path: Path):
    trainer = fit(Witness(), ToyDataModule())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert internals.epochs_of(checkpoint) == (2, False), LIGHTNING + "the epoch_progress of a checkpoint."
    internals.count_completed_only(checkpoint, "")
    assert checkpoint["epoch"] == 1
    internals.forget_restart(trainer)
    assert trainer.fit_loop.restarting is False, LIGHTNING + "fit_loop.restarting."


def test_processes_are_taken_from_the_launcher():
    ddp = toy_trainer(strategy="ddp", devices=2)
    assert internals.starts_processes(ddp), LIGHTNING + "the launcher of ddp has no procs."
    process = SimpleNamespace()
    ddp.strategy.launcher.procs.append(process)
    assert internals.take_processes(ddp) == [process] and internals.take_processes(ddp) == []
    assert not internals.starts_processes(toy_trainer()), LIGHTNING + "one device has a launcher with procs."


class StepHooks(pl.Callback):
    """Counts one hook of a step."""

    calls = 0

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        self.calls += 1


def test_the_empty_hooks_of_a_step_are_not_called(monkeypatch):
    called = []
    for hook in internals.STEP_HOOKS:
        assert hasattr(pl.Callback, hook), LIGHTNING + hook
    counts, given = StepHooks(), pl.callbacks.LambdaCallback(on_after_backward=lambda *_: called.append("given"))
    trainer = toy_trainer(max_epochs=1, callbacks=[counts, given])
    internals.skip_empty_hooks(trainer)
    monkeypatch.setattr(trainer.profiler, "start", called.append)
    trainer.fit(Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=0.1)), datamodule=ToyDataModule())
    assert (counts.calls, called.count("given")) == (6, 6), LIGHTNING + "callable(hook) in _call_callback_hooks."
    assert called.count("[Callback]StepHooks.on_before_backward") == 6
    assert "[Callback]StepHooks.on_after_backward" not in called


def test_a_steps_loss_is_logged_when_lightning_passes_it_to_the_loggers(tmp_path: Path, monkeypatch):
    asked, log = [], Classifier.log

    def counted(self, name, *args, **options) -> None:
        asked.append(name)
        log(self, name, *args, **options)

    monkeypatch.setattr(Classifier, "log", counted)
    logger = pl.loggers.CSVLogger(tmp_path, "", "")
    trainer = toy_trainer(max_epochs=3, logger=logger, log_every_n_steps=4)
    trainer.fit(Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=0.1)), datamodule=ToyDataModule())
    rows = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    written = [int(row["step"]) for row in rows if row["train/loss_step"]]
    assert written == [3, 7, 11, 15], LIGHTNING + "_logger_connector.should_update_logs."
    assert asked.count("train/loss_step") == len(written)
