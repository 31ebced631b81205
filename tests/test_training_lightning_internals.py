"""The contract with Lightning: what `lightning_internals` takes from its loops is still there and means the same."""

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
