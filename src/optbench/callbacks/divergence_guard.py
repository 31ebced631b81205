"""Ends a run whose loss is no longer finite, without making every step wait for the device."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from optbench.distributed.ranks import gather


class Diverged(Exception):
    """The loss was not finite at this step (counted from 1)."""

    def __init__(self, step: int) -> None:
        super().__init__(f"The loss was no longer finite at step {step}.")
        self.step = step


class DivergenceGuard(pl.Callback):
    """Remembers on the device at which step the loss first was nan or infinite.

    The host looks every `log_every_n_steps` steps and before validation, so nothing of a diverged network is validated
    or saved, and raises `Diverged`.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = torch.zeros((), dtype=torch.int64, device=pl_module.device)  # 0: none so far

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor = outputs["loss"]
        bad = ~torch.isfinite(loss) & (self._first == 0)
        self._first = torch.where(bad, max(1, trainer.global_step), self._first)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (batch_idx + 1) % every == 0 or trainer.is_last_batch:
            self._look()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not torch.isfinite(loss):  # the last update blew the weights up
            raise Diverged(trainer.global_step)

    def _look(self) -> None:
        steps = gather(self._first.view(1))  # every process must leave together
        if steps.any():
            raise Diverged(int(steps[steps > 0].min()))
