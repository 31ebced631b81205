"""last.ckpt: everything that a run needs to resume, bit for bit as if it had never stopped."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from optbench.records.wording import is_number
from optbench.recovery.checkpoint import keep_previous, relocate, resumes
from optbench.recovery.signals import signals
from optbench.training.lightning_internals import BATCH, EPOCH, count_completed_only, forget_restart


class LastCheckpoint(Checkpoint):
    """Saves between epochs, between two steps where asked, and when training ends.

    Lightning's own checkpoint callback saves at the end of an epoch, before the plateau schedule has stepped and the
    epoch is logged: a run that resumes from it would differ. Here a checkpoint is taken when an epoch, or a step, is
    over in every respect: as the next one begins. A signal that asks the run to stop waits for that moment.

    Args:
        dirpath: the folder of last.ckpt and, until the run completes, of previous.ckpt, the one before.
        every_n_steps: also within an epoch; a killed run repeats at most so many steps. None: only between epochs.
        min_seconds: between epochs not before so many seconds have passed since training began or since the last save:
            short epochs would spend their time on the disk. A killed run repeats at most so many seconds and an epoch.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None, min_seconds: float = 0) -> None:
        if every_n_steps is not None and (type(every_n_steps) is not int or every_n_steps < 1):
            raise ValueError(
                f"callbacks.last_checkpoint.every_n_steps={every_n_steps} must be a whole number of at least 1, or "
                "null to save between epochs only."
            )
        if not is_number(min_seconds) or min_seconds < 0:
            raise ValueError(
                f"callbacks.last_checkpoint.min_seconds={min_seconds} must be a number of at least 0: the seconds from "
                "one checkpoint to the next."
            )
        self.path, self.every_n_steps, self.min_seconds = Path(dirpath) / "last.ckpt", every_n_steps, min_seconds
        self._over = ""  # the progress that is complete while it is being saved
        self._trained = False
        self._saved_step = 0  # nothing is lost where no step was made

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self._trained}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if resumes(trainer):
            relocate(checkpoint, self.path.parent)
            trainer.should_stop = checkpoint["callbacks"][self.state_key]["trained"]  # early stopping may have ended it
            self._saved_step = checkpoint["global_step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        signals.wait(True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        waited = time.monotonic() - self._saved_at >= self.min_seconds
        waited = trainer.strategy.reduce_boolean_decision(waited)  # a checkpoint takes all processes
        self._save_or_stop(trainer, EPOCH, waited, self._asked(trainer, 0))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # Lightning would not resume from within an epoch that has done nothing yet
            return
        if batch_idx % trainer.accumulate_grad_batches:  # gradients that are half added up are in no checkpoint
            return
        self._save_or_stop(trainer, BATCH, False, self._asked(trainer, batch_idx))

    def _save_or_stop(self, trainer: pl.Trainer, over: str, waited: bool, asked: int) -> None:
        every = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        # overfit_batches has its own order, which can't start within an epoch
        within = over == BATCH and trainer.overfit_batches  # type: ignore[attr-defined]
        if (waited or every or asked) and not within:
            self._save(trainer, over)
        if asked:
            signals.received = signals.received or asked
            signals.stop()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        forget_restart(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained, self._saved_step = True, -1  # once more, even where the last step was saved
        self._save(trainer, "")
        signals.wait(False)
        signals.stop()

    def _asked(self, trainer: pl.Trainer, batch_idx: int) -> int:
        """The signal that one of the processes received, 0 if none: all must leave at the same step."""
        own = signals.received or 0
        if trainer.world_size == 1:
            return own
        device = trainer.strategy.root_device
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # at each step a GPU would have to wait for the host
        if device.type != "cpu" and (batch_idx // trainer.accumulate_grad_batches) % every:
            return 0
        return int(trainer.strategy.reduce(torch.tensor(own, device=device), reduce_op="max"))

    def _save(self, trainer: pl.Trainer, over: str) -> None:
        if trainer.global_step == self._saved_step:
            return
        for logger in trainer.loggers:  # what is not on the disk now would be missing in the curves of a resumed run
            logger.save()
        if trainer.is_global_zero:
            keep_previous(self.path)
        self._over = over
        trainer.save_checkpoint(self.path)
        self._over, self._saved_step, self._saved_at = "", trainer.global_step, time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The next epoch or step has only been counted: it is not what the checkpoint holds."""
        count_completed_only(checkpoint, self._over)
