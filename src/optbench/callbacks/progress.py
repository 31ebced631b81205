"""Progress: a live bar in a terminal, and one line per epoch, which in a sweep is only in the log."""

import logging
import sys

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary, RichModelSummary, RichProgressBar

from optbench.records.metrics import SHOWN
from optbench.training.lightning_internals import epochs_completed

log = logging.getLogger(__name__)
FILE_ONLY = 15  # below the terminal's level, INFO, and at that of train.log


class EpochLines(pl.Callback):
    """One line per epoch: `epoch 3  train/loss 1.401 ... val/accuracy 0.482  23.1 s`."""

    def __init__(self, level: int) -> None:
        self.level = level

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log_previous(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log_previous(trainer)

    def _log_previous(self, trainer: pl.Trainer) -> None:
        values = trainer.callback_metrics
        if "epoch_seconds" not in values:  # the first epoch is only beginning
            return
        shown = [f"{stage}/{name}" for stage in ("train", "val") for name in SHOWN]
        text = "  ".join(f"{name} {float(values[name]):.4f}" for name in shown if name in values)
        log.log(self.level, "epoch %3d  %s  %.1f s", epochs_completed(trainer), text, float(values["epoch_seconds"]))


def progress(in_sweep: bool) -> list[pl.Callback]:
    """The epoch lines and, in a terminal, a bar below them."""
    lines = EpochLines(FILE_ONLY if in_sweep else logging.INFO)
    watched = sys.stdout.isatty() and not in_sweep
    return [lines, RichProgressBar(leave=False)] if watched else [lines]


def summary(in_sweep: bool, max_depth: int) -> list[pl.Callback]:
    """The table of layers: a rich one in a terminal, a plain one elsewhere, none in a sweep."""
    if in_sweep:
        return []
    return [RichModelSummary(max_depth) if sys.stdout.isatty() else ModelSummary(max_depth)]
