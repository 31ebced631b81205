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
    """Keeps the losses on the device until the host looks whether one is nan or infinite.

    It looks every `log_every_n_steps` steps and before validation, so nothing of a diverged network is validated
    or saved, and raises `Diverged`.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._losses: list[Tensor] = []  # since the last look, and the step of each
        self._steps: list[int] = []
        self._device = pl_module.device

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"])
        self._steps.append(max(1, trainer.global_step))
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
        finite = torch.stack(self._losses).isfinite().tolist() if self._losses else []
        first = next((step for step, well in zip(self._steps, finite, strict=True) if not well), 0)
        self._losses, self._steps = [], []
        steps = gather(torch.tensor([first], device=self._device))  # every process must leave together
        if steps.any():
            raise Diverged(int(steps[steps > 0].min()))
