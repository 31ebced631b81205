"""Histograms of weights and gradients, as Keras' TensorBoard callback writes with histogram_freq."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class Histograms(pl.Callback):
    """Every parameter and the gradient of the epoch's last batch, to TensorBoard, every n epochs.

    Binned by torch on the tensor's own device: only the counts travel.
    """

    def __init__(self, every_n_epochs: int) -> None:
        if not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(
                f"callbacks.histograms.every_n_epochs={every_n_epochs} must be a whole number of at least 1; "
                "callbacks.histograms=null turns histograms off."
            )
        self.every_n_epochs = every_n_epochs

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the epoch's end would be too late: Lightning drops the gradients before it validates
        last = trainer.is_last_batch and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not last or not trainer.is_global_zero:
            return
        step = trainer.global_step - 1  # counted from 0, as all of Lightning's curves
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, parameter in pl_module.get_submodule("net").named_parameters():
                    self._add(logger.experiment, f"weights/{name}", parameter.detach(), step)
                    if parameter.grad is not None:
                        self._add(logger.experiment, f"gradients/{name}", parameter.grad, step)

    @staticmethod
    def _add(writer: SummaryWriter, tag: str, values: Tensor, step: int, bins: int = 64) -> None:
        values = values.float()
        low, high = (float(v) for v in torch.aminmax(values))
        if low == high:  # a histogram needs a width
            low, high = low - 1e-6 * max(1, abs(low)), high + 1e-6 * max(1, abs(high))
        # not torch.histc, which refuses to be deterministic on a GPU; eight bits, because memory traffic is what costs
        indices = (values - low).mul_(bins / (high - low)).clamp_(0, bins - 1).to(torch.uint8)
        counts = torch.bincount(indices.flatten(), minlength=bins)
        writer.add_histogram_raw(
            tag,
            min=low,
            max=high,
            num=values.numel(),
            sum=float(values.sum()),
            sum_squares=float(values.square().sum()),
            bucket_limits=torch.linspace(low, high, bins + 1)[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )
