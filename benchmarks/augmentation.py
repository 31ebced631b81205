"""What the augmentation of one batch costs: milliseconds of one thread, against none.

    python benchmarks/augmentation.py [--batches 128 512] [--repeats 30] [--torchvision]

Images of 32 x 32 through `ImageDataModule.on_after_batch_transfer`, as in a run; `none` is what remains, normalization.
The medians are of the thread's own time, so that other work on the machine counts little. --torchvision also times the
transforms of torchvision.transforms.v2 on one image after the other, which is how each image gets a draw of its own.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import torchvision
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import v2

from optbench.data.augmentation import Augmentation
from optbench.data.datamodule import ImageDataModule
from optbench.data.imageset import ImageSet

CONFIGS = Path(__file__).parents[1] / "configs" / "augmentation"
ALONE = ["none", "crop_flip", "cutout", "color_jitter", "trivial_augment", "mixup", "cutmix"]
TOGETHER = [["crop_flip", "mixup"], ["trivial_augment", "crop_flip", "cutmix"]]
TORCHVISION: dict[str, tuple[Any, bool]] = {  # and whether it gets pixels
    "crop_flip": (v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]), False),
    "cutout": (v2.RandomErasing(p=1.0), False),
    "color_jitter": (v2.ColorJitter(0.4, 0.4, 0.4, 0.1), True),
    "trivial_augment": (v2.TrivialAugmentWide(), True),
}


class Noise(ImageDataModule):
    def load(self) -> ImageSet:
        images = torch.randint(0, 256, (700, 3, 32, 32), dtype=torch.uint8)
        return ImageSet(images, torch.arange(700) % 10, images[:10], torch.arange(10), tuple("abcdefghij"))


def step(names: list[str], batch_size: int) -> Callable[[], Any]:
    """What a training step does to a batch."""
    augmentation: list[Augmentation] = [
        instantiate(OmegaConf.select(OmegaConf.load(CONFIGS / f"{name}.yaml"), name))
        for name in names
        if name != "none"
    ]
    data = Noise(batch_size, 0.1, 0, 0, "symmetric", augmentation)
    data.setup()
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=0), restarting=False)
    trainer: Any = SimpleNamespace(training=True, global_rank=0, world_size=1, current_epoch=0, fit_loop=loop)
    data.trainer = trainer
    batch = next(iter(data.train_dataloader()))

    def augment() -> None:
        loop.epoch_loop.total_batch_idx += 1  # other draws
        data.on_after_batch_transfer(batch, 0)

    return augment


def one_by_one(transform: Any, images: Tensor) -> Callable[[], Any]:
    return lambda: torch.stack([transform(image) for image in images])


def milliseconds(function: Callable[[], Any], repeats: int) -> float:
    """The median of so many calls, after as many that warm up up to five."""
    times = []
    for _ in range(repeats + min(repeats, 5)):
        began = time.thread_time()
        function()
        times.append(1000 * (time.thread_time() - began))
    return statistics.median(times[-repeats:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--torchvision", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{os.cpu_count()} cores, one thread · {platform.processor() or platform.machine()} · Python "
        f"{platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}\n"
    )
    theirs = f" torchvision's, one image at a time, {args.batches[0]} |" if args.torchvision else ""
    print("| ms for a batch of |" + "".join(f" {size} |" for size in args.batches) + theirs)
    print("|---|" + "---|" * (len(args.batches) + args.torchvision))
    pixels = torch.randint(0, 256, (args.batches[0], 3, 32, 32), dtype=torch.uint8)
    for names in [*([name] for name in ALONE), *TOGETHER]:
        line = f"| `{names[0]}` |" if len(names) == 1 else f"| `[{','.join(names)}]` |"
        for size in args.batches:
            line += f" {milliseconds(step(names, size), args.repeats):.2f} |"
        if args.torchvision:
            transform, on_pixels = TORCHVISION.get(names[0], (None, False)) if len(names) == 1 else (None, False)
            images = pixels if on_pixels else pixels / 127.5 - 1
            took = milliseconds(one_by_one(transform, images), max(3, args.repeats // 6)) if transform else None
            line += f" {took:.1f} |" if took else " |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
