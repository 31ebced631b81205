"""Seconds per epoch: OptBench, a bare PyTorch loop, and the usual way of a template, side by side in one call.

    python benchmarks/epoch.py [--rounds 5] [--images 50000] [--optimizer adam]

Every round trains the class exercise's network for one epoch in each of the three ways, one after another on the same
machine, with a pass over the validation images, and the medians of the rounds' ratios are printed.

bare      resident float tensors, a loop over index batches, a fused optimizer, loss and accuracy at the epoch's end
template  PIL images through torchvision transforms in a DataLoader, torchmetrics updated and logged every step, an
          optimizer that is not fused: what lightning-hydra-template does by default
optbench  `trainer.fit` as `python src/train.py optimizer=... data=shapes` calls it, all default callbacks and loggers
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

from optbench.callbacks.epoch_history import EpochHistory
from optbench.data.datamodule import ImageDataModule, Images
from optbench.training import build
from optbench.training.optimizers import build_optimizer


def configuration(arguments: argparse.Namespace, folder: str) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parents[1] / "configs"), version_base="1.3"):
        return compose(
            "train",
            [
                "data=shapes",
                f"data.train_size={arguments.images}",
                f"optimizer={arguments.optimizer}",
                "trainer.max_epochs=1",
                f"output_dir={folder}",
            ],
        )


def optbench(cfg: DictConfig, data: ImageDataModule, net: nn.Module) -> float:
    history = EpochHistory(build.metrics_path(cfg))
    callbacks, loggers = [history, *build.build_callbacks(cfg)], build.build_loggers(cfg, None)
    trainer = build.build_trainer(cfg, Path(cfg.output_dir), callbacks, loggers)
    trainer.fit(build.build_classifier(cfg, net, data.classes), datamodule=data)
    return history.seconds()["training"]


def resident(data: ImageDataModule, part: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """All of a split as float images and labels on the device."""
    return data.normalize(part.images[part.indices].to(device)), part.labels[part.indices].to(device)


def bare(cfg: DictConfig, data: ImageDataModule, net: nn.Module) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = build_optimizer(instantiate(cfg.optimizer, _convert_="all"), net.to(device), "all")
    images, labels = resident(data, data.train, device)
    val_images, val_labels = resident(data, data.val, device)
    started = time.perf_counter()
    net.train()
    loss_sum, hits = torch.zeros((), device=device), torch.zeros((), device=device)
    for batch in torch.randperm(len(images), device=device).split(cfg.data.batch_size):
        x, y = images[batch], labels[batch]
        logits = net(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        hits += (logits.argmax(1) == y).sum()
    net.eval()
    with torch.no_grad():
        for x, y in zip(val_images.split(1000), val_labels.split(1000), strict=True):
            logits = net(x)
            loss_sum += F.cross_entropy(logits, y)
            hits += (logits.argmax(1) == y).sum()
    float(loss_sum), float(hits)
    return time.perf_counter() - started


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


def template(cfg: DictConfig, data: ImageDataModule, net: nn.Module, folder: str) -> float:
    pictures = PictureSet(data.imageset.train_images, data.imageset.train_labels)
    train, val = random_split(pictures, [len(data.train), len(data.val)])
    history = EpochHistory()
    trainer = pl.Trainer(
        accelerator=cfg.trainer.accelerator,
        max_epochs=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[history, pl.callbacks.ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True)],
        logger=[pl.loggers.CSVLogger(folder), pl.loggers.TensorBoardLogger(folder)],
    )
    size = cfg.data.batch_size
    trainer.fit(TemplateModule(net, len(data.classes)), DataLoader(train, size, shuffle=True), DataLoader(val, size))
    return history.seconds()["training"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=50_000, help="of which a tenth validates")
    parser.add_argument("--optimizer", default="adam", help="of bare and optbench; template always uses plain Adam")
    arguments = parser.parse_args()
    build.quiet_lightning()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as run.py
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.callbacks.model_summary").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        cfg = configuration(arguments, folder)
        data = build.build_data(cfg)
        steps = len(data.train_dataloader())
        ways = {
            "bare": lambda net: bare(cfg, data, net),
            "template": lambda net: template(cfg, data, net, folder),
            "optbench": lambda net: optbench(cfg, data, net),
        }
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, Lightning {pl.__version__}, {arguments.optimizer}, {steps} steps per epoch"
        )
        if torch.cuda.is_available():
            print(torch.cuda.get_device_name())
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds + 1):
            for name, way in ways.items():
                with contextlib.redirect_stdout(io.StringIO()):
                    pl.seed_everything(0, verbose=False)
                    torch.use_deterministic_algorithms(False)  # optbench's trainer turns it on, for itself
                    spent = way(build.build_net(cfg, data.image_shape, data.classes))
                if number:  # the first round warms up
                    seconds[name].append(spent)
            if number:
                print(f"round {number}: " + "  ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()))
    for name, values in seconds.items():
        print(f"{name:9} median {statistics.median(values):6.2f} s  {steps / statistics.median(values):7.1f} steps/s")
    for other in ("bare", "template"):
        ratios = [ours / theirs for ours, theirs in zip(seconds["optbench"], seconds[other], strict=True)]
        print(
            f"optbench / {other}: median {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
