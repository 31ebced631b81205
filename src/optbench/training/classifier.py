"""The LightningModule: one shared step, metrics once per epoch, an optimizer and a schedule."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from optbench.distributed.ranks import batch_mean, gather
from optbench.records.metrics import SHOWN
from optbench.training.averaging import Average, EvaluatedWeights, OptimizersAverage, averages, weights_to_train_on
from optbench.training.lightning_internals import batches_trained, logs_this_step
from optbench.training.measurement import Predictions, measure
from optbench.training.optimizers import build_optimizer, parameter_groups
from optbench.training.randomness import batch_seed, mix, reseed
from optbench.training.schedulers import build_scheduler

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]
STATISTICS_BATCHES = 50  # from which BatchNorm gets its statistics for averaged weights, as schedulefree advises
NOISE = 2  # the stream of an optimizer's random numbers; 0 is the training step's, 1 the augmentation's


class Classifier(pl.LightningModule):
    """Trains `net` (images in, logits `(B, classes)` out) with cross-entropy.

    A label is a class, int64 `(B,)`, or where augmentation mixes images a share of each class, float `(B, classes)`.
    All metrics are of plain cross-entropy and of the class with the largest share: they can be compared between runs
    with and without mixing, smoothing and L1.

    Nothing in the training step makes the host wait for the device: the epoch's logits stay there (4 bytes x images x
    classes) and every metric is computed from them when the epoch ends.

    Args:
        optimizer: called with the parameter groups.
        scheduler: called with the optimizer; one that also takes `total_steps` steps every batch, any other every
            epoch. None: the rate stays.
        monitor: the metric that a plateau scheduler watches.
        weight_decay_on: `all` parameters or only `weights` (see `optimizers.parameter_groups`); so is `l1`.
        seed: of the random numbers that a training step draws (dropout's); see `randomness`. They are the same for
            every optimizer that is compared, and for a run that resumes from a checkpoint.
        label_smoothing: the fraction of a label that goes to all classes alike, in training.
        l1: the loss has so many times the sum of the absolute parameters added, in training.
        average: called with the net, images for BatchNorm's statistics, and the number of steps of the whole training;
            what it returns is evaluated instead of the net's own weights. A `Lookahead` also changes these.
        test_flips: also measure `test/flip_accuracy`: of the mean logits of an image and its mirror image.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable | None = None,
        monitor: str = "val/loss",
        weight_decay_on: str = "all",
        seed: int = 0,
        label_smoothing: float = 0.0,
        l1: float = 0.0,
        average: Callable[..., Average] | None = None,
        test_flips: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.classes = net, classes
        self.optimizer, self.scheduler = optimizer, scheduler
        self.monitor, self.weight_decay_on, self.seed = monitor, weight_decay_on, seed
        self.label_smoothing, self.l1, self.average, self.test_flips = label_smoothing, l1, average, test_flips
        self._penalized = parameter_groups(net, weight_decay_on)[0]["params"] if l1 else []
        # validation runs inside an epoch
        self._seen = {stage: Predictions() for stage in ("train", "val", "test", "test_flips")}
        self.test_logits = self.test_labels = torch.empty(0)
        self._batch = -1  # the last one that was trained on
        self._evaluated: EvaluatedWeights | None = None  # where other weights are evaluated than those that train
        self._loaded_average: tuple[dict[str, Tensor], int, int] | None = None  # of the checkpoint to start from

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What training minimizes, summed over this process's images."""
        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.label_smoothing)

    def _look(self, batch: Batch, stage: str) -> Tensor:
        """The logits of a batch, which are kept for the epoch's metrics."""
        images, labels = batch
        logits = self.net(images)
        self._seen[stage].add(logits, labels if labels.ndim == 1 else labels.argmax(1))
        return logits

    def _end_epoch(self, stage: str) -> None:
        logits, labels = (gather(part).cpu() for part in self._seen[stage].take())
        logits = logits.float()
        if stage == "test":
            self.test_logits, self.test_labels = logits, labels
        values = {name: value.to(self.device) for name, value in measure(logits, labels, self.classes).items()}
        for bar in (True, False):
            self.log_dict(
                {f"{stage}/{name}": value for name, value in values.items() if (name in SHOWN) is bar},
                prog_bar=bar,
                sync_dist=True,  # the same on every process already; keeps Lightning from warning
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        reseed(batch_seed(self.seed, self.trainer), self.device)
        before, self._batch = self._batch, batches_trained(self.trainer)
        again = self._batch == before  # SAM looks again: the same random numbers, and nothing is counted twice
        with frozen_statistics(self.net) if again else nullcontext():
            logits = self.net(images) if again else self._look(batch, "train")
        loss, mean = batch_mean(self.loss(logits, labels), len(labels))
        if self.l1:
            penalty = self.l1 * torch.stack([p.abs().sum() for p in self._penalized]).sum()
            loss, mean = loss + penalty, mean + penalty.detach()
        if not again and logs_this_step(self.trainer):  # at any other step Lightning would keep its books for nobody
            self.log("train/loss_step", mean, on_step=True, on_epoch=False)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(self._evaluated, Average):
            self._evaluated.take(self.trainer.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._look(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self._look(batch, "test")
        if self.test_flips:
            images, labels = batch
            self._seen["test_flips"].add((logits + self.net(images.flip(3))) / 2, labels)

    def on_train_epoch_end(self) -> None:
        self._end_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self._end_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._end_epoch("test")
        if self.test_flips:
            logits, labels = (gather(part) for part in self._seen["test_flips"].take())
            self.log("test/flip_accuracy", (logits.argmax(1) == labels).float().mean(), sync_dist=True)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if getattr(optimizer, "draws_numbers", False):  # the same ones in every process
            reseed(mix(self.seed, NOISE, batches_trained(self.trainer)), self.device)

    def on_validation_model_eval(self) -> None:
        super().on_validation_model_eval()
        if self._evaluated:
            self._evaluated.show(self.trainer.global_step)

    def on_validation_model_train(self) -> None:
        if self._evaluated:
            self._evaluated.hide()
        super().on_validation_model_train()

    def on_fit_end(self) -> None:  # also of a run that resumes after its last step
        if isinstance(self._evaluated, Average) and not self._evaluated.count:
            log.warning(
                "averaging: training ended after step %s, before the average began, so the last weights themselves are "
                "evaluated. A lower averaging.start (swa) or averaging.every (lookahead) lets it begin, and so may "
                "callbacks.early_stopping=null.",
                self.trainer.global_step,
            )
        if self._evaluated:  # test_weights=last tests what the net has now
            self._evaluated.show(self.trainer.global_step)

    def _images(self) -> Iterator[Tensor]:
        """Of some batches of the training set, always the same ones, without augmentation."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        reseed(mix(self.seed, NOISE, self.trainer.global_rank), self.device)  # dropout's
        for images, _, _ in islice(data.train_dataloader(), STATISTICS_BATCHES):
            yield data.normalize(images.to(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights to evaluate, and those that training goes on with where they differ.

        Within an epoch, also what its metrics will be computed from, of all processes.
        """
        if self._evaluated:
            if "optimizer_states" in checkpoint:
                checkpoint["trained"] = {f"net.{name}": tensor for name, tensor in self._evaluated.trained().items()}
                if isinstance(self._evaluated, Average):
                    checkpoint["averaged"] = self._evaluated.count  # steps
                    checkpoint["average"] = type(self._evaluated).__name__
            evaluated = self._evaluated.at(self.trainer.global_step)
            checkpoint["state_dict"] = {f"net.{name}": tensor for name, tensor in evaluated.items()}
        if self._seen["train"].count:
            checkpoint["seen"] = [gather(part).cpu() for part in self._seen["train"].peek()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "averaged" in checkpoint:
            average = {name.removeprefix("net."): tensor for name, tensor in checkpoint["state_dict"].items()}
            self._loaded_average = average, checkpoint["averaged"], checkpoint["global_step"]
        checkpoint["state_dict"] = weights_to_train_on(checkpoint)
        if "seen" in checkpoint:
            rank, processes = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device  # the net is still on the CPU
            self._seen["train"].add(*(part[rank::processes].to(device) for part in checkpoint["seen"]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.optimizer, self.net, self.weight_decay_on)
        if averages(optimizer):
            self._evaluated = OptimizersAverage(self.net, optimizer, self._images)
        if self.average:
            self._evaluated = average = self.average(self.net, self._images, self.trainer.estimated_stepping_batches)
            if self._loaded_average:
                average.resume(*self._loaded_average)
        if self.scheduler is None:
            return {"optimizer": optimizer}
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler, every_batch = build_scheduler(self.scheduler, optimizer, steps)
        settings: LRSchedulerConfigType = {
            "scheduler": scheduler,
            "interval": "step" if every_batch else "epoch",
            "name": "lr_step",  # LearningRateMonitor's tag
        }
        if isinstance(scheduler, ReduceLROnPlateau):
            settings["monitor"] = self.monitor
        return {"optimizer": optimizer, "lr_scheduler": settings}


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the batch, and leaves its running statistics alone."""
    tracking = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
