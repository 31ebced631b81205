"""What a step, an epoch and the ends of a run cost: OptBench, a bare PyTorch loop, and the usual way of a template.

    python benchmarks/epoch.py [--rounds 3] [--steps 350 36] [--epochs n] [--ways bare optbench template] [overrides]

Every round trains a network, by default the class exercise's, in each of the ways, one after another in one process,
and the medians of the rounds' ratios are printed. Without --epochs, long and short epochs have the same number of steps
in all: 2 epochs of 350 or 19 of 36. Overrides are those of train.py, such as model=resnet18 or optimizer=sgd.

bare      resident float tensors, a loop over index batches, a fused optimizer, loss and accuracy, and a test at the end
template  PIL images through torchvision transforms in a DataLoader, torchmetrics updated and logged every step, an
          optimizer that is not fused: what lightning-hydra-template does by default; without a test
optbench  `run` as `python src/train.py optimizer=... data=shapes` calls it, all default callbacks and loggers

step      the median time from one step to the next, without the first and last five of an epoch
epoch     the mean time from the first step of one epoch to that of the next
rest      from the last step of one epoch to the first of the next: validation and, for optbench, checkpoints, metrics,
          histograms, loggers; the median of a round's epochs
start     from the call to the first step, with the images in memory already
end       from the last step to the record, with the last validation and the test
"""

import argparse
import contextlib
import io
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

from optbench.commands import resolvers  # noqa: F401  # configs/ needs them
from optbench.data.datamodule import ImageDataModule, Images
from optbench.run import run
from optbench.training import build
from optbench.training.optimizers import build_optimizer


class Clock(pl.Callback):
    """When a run began, each of its steps, and its last step."""

    of_optbench: "Clock"

    def __init__(self) -> None:
        Clock.of_optbench = self
        self.epochs: list[list[float]] = []
        self.last_step = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, *_: Any) -> None:
        self.epochs[-1].append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        self.last_step = time.perf_counter()

    def seconds(self, began: float, ended: float) -> dict[str, float]:
        steps = [after - before for epoch in self.epochs for before, after in pairwise(epoch[5:-4])]
        starts = [epoch[0] for epoch in self.epochs]
        epoch, step = (starts[-1] - starts[0]) / (len(starts) - 1), statistics.median(steps)
        rest = statistics.median(after[0] - before[-1] - step for before, after in pairwise(self.epochs))
        return {"step": step, "epoch": epoch, "rest": rest, "start": starts[0] - began, "end": ended - self.last_step}


def configuration(images: int, epochs: int, overrides: list[str], folder: str) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parents[1] / "configs"), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "data=shapes",
                f"data.train_size={images}",
                f"trainer.max_epochs={epochs}",
                "callbacks.early_stopping.patience=1000",
                "+callbacks.clock._target_=__main__.Clock",
                f"output_dir={folder}",
                f"hydra.runtime.output_dir={folder}",
                *overrides,
            ],
            return_hydra_config=True,
        )
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def optbench(cfg: DictConfig, data: ImageDataModule) -> Clock:
    build.build_data = lambda cfg: data
    run(cfg)
    return Clock.of_optbench


def resident(data: ImageDataModule, part: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """All of a split as float images and labels on the device."""
    return data.normalize(part.images[part.indices].to(device)), part.labels[part.indices].to(device)


def bare(cfg: DictConfig, data: ImageDataModule) -> Clock:
    device, clock = torch.device("cuda" if torch.cuda.is_available() else "cpu"), Clock()
    net = build.build_net(cfg, data.image_shape, data.classes)
    build.initialize_net(net, data)
    net.to(device)
    optimizer = build_optimizer(instantiate(cfg.optimizer, _convert_="all"), net, "all")
    images, labels = resident(data, data.train, device)
    loss_sum, hits = torch.zeros((), device=device), torch.zeros((), device=device)

    def evaluate(images: Tensor, labels: Tensor) -> None:
        net.eval()
        with torch.no_grad():
            for x, y in zip(images.split(1000), labels.split(1000), strict=True):
                logits = net(x)
                loss_sum.add_(F.cross_entropy(logits, y))
                hits.add_((logits.argmax(1) == y).sum())
        float(loss_sum), float(hits)

    for _ in range(cfg.trainer.max_epochs):
        net.train()
        clock.epochs.append([])
        for batch in torch.randperm(len(images), device=device).split(cfg.data.batch_size):
            clock.on_train_batch_start()
            x, y = images[batch], labels[batch]
            logits = net(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(batch)
            hits += (logits.argmax(1) == y).sum()
        clock.on_train_batch_end()
        evaluate(*resident(data, data.val, device))
    evaluate(*resident(data, data.test, device))
    return clock


class PictureSet(Dataset):
    """One image at a time through PIL and transforms, as torchvision.datasets.CIFAR10 does."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transforms = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transforms(Image.fromarray(self.images[index])), self.labels[index]


class TemplateModule(pl.LightningModule):
    """lightning-hydra-template's MNISTLitModule, with this network."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.train_acc = torchmetrics.Accuracy(task="multiclass", num_classes=classes)
        self.val_acc = torchmetrics.Accuracy(task="multiclass", num_classes=classes)
        self.train_loss, self.val_loss = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()
        self.val_acc_best = torchmetrics.MaxMetric()

    def _step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        logits = self.net(x)
        return self.criterion(logits, y), torch.argmax(logits, dim=1), y

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, preds, targets = self._step(batch)
        self.train_loss(loss)
        self.train_acc(preds, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss, preds, targets = self._step(batch)
        self.val_loss(loss)
        self.val_acc(preds, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


def template(cfg: DictConfig, data: ImageDataModule) -> Clock:
    net, clock, folder = build.build_net(cfg, data.image_shape, data.classes), Clock(), cfg.output_dir
    pictures = PictureSet(data.imageset.train_images, data.imageset.train_labels)
    train, val = random_split(pictures, [len(data.train), len(data.val)])
    trainer = pl.Trainer(
        accelerator=cfg.trainer.accelerator,
        max_epochs=cfg.trainer.max_epochs,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock, pl.callbacks.ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True)],
        logger=[pl.loggers.CSVLogger(folder), pl.loggers.TensorBoardLogger(folder)],
    )
    size = cfg.data.batch_size
    trainer.fit(TemplateModule(net, len(data.classes)), DataLoader(train, size, shuffle=True), DataLoader(val, size))
    return clock


WAYS: dict[str, Callable[[DictConfig, ImageDataModule], Clock]] = {
    "bare": bare,
    "template": template,
    "optbench": optbench,
}


def measure(way: str, images: int, epochs: int, overrides: list[str], data: ImageDataModule) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cfg = configuration(images, epochs, overrides, folder)
        build.set_up_libraries(cfg)
        torch.use_deterministic_algorithms(False)  # optbench's trainer turns it on, for itself
        began = time.perf_counter()
        clock = WAYS[way](cfg, data)
        return clock.seconds(began, time.perf_counter())


def line(seconds: dict[str, float]) -> str:
    rest = "".join(f"  {part} {seconds[part]:.3f} s" for part in ("epoch", "rest", "start", "end"))
    return f"step {1000 * seconds['step']:.3f} ms{rest}"


def show(steps: int, rounds: dict[str, list[dict[str, float]]]) -> None:
    for way, seconds in rounds.items():
        medians = {part: statistics.median(second[part] for second in seconds) for part in seconds[0]}
        print(f"{steps:4} steps  {way:9} {line(medians)}")
    for other in rounds if "optbench" in rounds else ():
        if other == "optbench":
            continue
        pairs = list(zip(rounds["optbench"], rounds[other], strict=True))
        for part in ("step", "epoch"):
            ratios = [ours[part] / theirs[part] for ours, theirs in pairs]
            print(
                f"{steps:4} steps  optbench / {other}: {part} x {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})"
            )
        more = [(ours["rest"] - theirs["rest"]) / ours["epoch"] for ours, theirs in pairs]
        print(f"{steps:4} steps  optbench - {other}: rest {statistics.median(more):.1%} of an epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[350, 36], help="in an epoch")
    parser.add_argument("--epochs", type=int, help="of a round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="template always uses plain Adam")
    arguments, overrides = parser.parse_known_args()
    logging.disable()
    warnings.filterwarnings("ignore")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Lightning {pl.__version__} {' '.join(overrides)}"
    )
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
    build_data = build.build_data
    for steps in arguments.steps:
        images, epochs = -(-steps * 128 * 10 // 9), arguments.epochs or max(2, round(700 / steps))
        with tempfile.TemporaryDirectory() as folder:
            data = build_data(configuration(images, epochs, overrides, folder))
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
        for number in range(arguments.rounds + 1):
            for way, seconds in rounds.items():
                measured = measure(way, images, epochs if number else 2, overrides, data)
                if number:  # the first round warms up
                    seconds.append(measured)
                    print(f"round {number}: {way:9} {line(measured)}", flush=True)
        show(steps, rounds)


if __name__ == "__main__":
    main()
