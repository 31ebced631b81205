"""From images in memory to batches on the device: the split, the order, scaling and augmentation."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from optbench.data.augmentation import Augmentation, Draws
from optbench.data.imageset import ImageSet
from optbench.training.lightning_internals import batches_done_before_restart
from optbench.training.randomness import batch_seed, mix

Fetched = tuple[
    Tensor, Tensor, Tensor
]  # uint8 images (B, 3, H, W), labels (B,), and which images of the set they are (B,)
Batch = tuple[Tensor, Tensor]


class Images(Dataset):
    """Part of an ImageSet. A batch is one indexing of a tensor, not a list of images to stack.

    Args:
        own: which of a batch's images this process fetches; the others belong to other processes.
    """

    def __init__(self, images: Tensor, labels: Tensor, indices: Tensor, own: slice = slice(None)) -> None:
        self.images, self.labels, self.indices, self.own = images, labels, indices, own

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Fetched:
        where = self.indices[index]
        return self.images[where], self.labels[where], where

    def __getitems__(self, indices: list[int]) -> Fetched:
        where = self.indices[torch.tensor(indices[self.own], dtype=torch.int64)]
        return self.images.index_select(0, where), self.labels[where], where  # four times as fast as images[where]


def as_fetched(batch: Any) -> Any:
    """The collate function of a dataset that fetches whole batches."""
    return batch


def normalize(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """uint8 `(B, 3, H, W)` to float32 by each channel's scale and shift, `(3, 1, 1)`, on the images' own device."""
    # addcmul takes twice as long where it has to repeat a number along a row
    scale, shift = (
        part.to(images.device, non_blocking=True).expand(images.shape[1:]).contiguous() for part in (scale, shift)
    )
    pixels = images.to(torch.float32, copy=True)
    return torch.addcmul(shift, pixels, scale, out=pixels)  # a second block of memory takes a quarter longer


class TrainOrder(DistributedSampler):
    """Shuffled indices: a function of the seed and of the epoch, which Lightning sets.

    Args:
        done: called as an epoch begins; how many of its indices were trained on before the run resumed within it.
    """

    def __init__(self, dataset: Dataset, order_seed: int, done: Callable[[], int]) -> None:
        seed = order_seed * 1_000_003  # DistributedSampler adds the epoch: keep the seeds apart
        super().__init__(dataset, num_replicas=1, rank=0, shuffle=True, seed=seed)
        self.done = done

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self.done(), None)


class ImageDataModule(pl.LightningDataModule):
    """Images stay uint8 in memory; a batch becomes float, scaled and augmented on the device.

    Subclasses say where the images come from (`load`). Batches are `(B, 3, H, W)` float32 and `(B,)` int64; labels of
    training batches that are mixed are rows `(B, classes)` float32 that sum to 1.

    Args:
        batch_size: images a step, over all devices. A last batch of a single image is dropped, because BatchNorm
            cannot train on it.
        val_size: the fraction of the training images that validates, cut by `split_seed`.
        order_seed: shuffles the training images and draws the augmentation; both depend only on it and the epoch.
        normalization: `symmetric` scales to [-1, 1], `standard` by channel means and deviations of (some
            10,000 of) the training images.
        augmentation: of training batches, in this order: first those on pixels, then the others.

    Raises:
        ValueError: from the constructor or from `setup`, for a value that is not allowed.
    """

    imageset: ImageSet
    read_ahead: ImageSet | None = None  # what `load` would return, where this process has it already
    train: Images
    val: Images
    test: Images

    def __init__(
        self,
        batch_size: int,
        val_size: float,
        split_seed: int,
        order_seed: int,
        normalization: str,
        augmentation: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__()
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} must be a whole number of at least 1.")
        if not isinstance(val_size, int | float) or not 0 < val_size < 1:
            raise ValueError(
                f"data.val_size={val_size} must be between 0 and 1: it is the fraction of the training images that "
                "validates, for example data.val_size=0.1."
            )
        if normalization not in ("symmetric", "standard"):
            raise ValueError(f"data.normalization={normalization} is not known: use symmetric or standard.")
        for key, value in {"split_seed": split_seed, "order_seed": order_seed}.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"data.{key}={value} must be a whole number of at least 0.")
        self.batch_size, self.val_size, self.split_seed = batch_size, val_size, split_seed
        self.normalization, self.order_seed = normalization, order_seed
        self.augmentation = list(augmentation)
        if batch_size < 2 and self.mixes:
            raise ValueError(
                f"data.batch_size={batch_size} has no two images that the augmentation could mix. Use at least "
                "data.batch_size=2, or leave out mixup and cutmix."
            )

    @abstractmethod
    def load(self) -> ImageSet:
        """Read the images into memory."""

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "test"):  # Lightning calls it for fit and again for test
            return
        self.imageset = images = self.read_ahead or self.load()
        self.classes = images.classes
        count = len(images.train_images)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.split_seed))
        n_val = round(count * self.val_size)
        if n_val < 1 or n_val >= count:
            raise ValueError(
                f"data.val_size={self.val_size} of {count} training images leaves {count - n_val} to train on and "
                f"{n_val} to validate on; both need at least one image."
            )
        if self.batch_size > count - n_val:
            raise ValueError(
                f"data.batch_size={self.batch_size} is larger than the training set, which has {count - n_val} images "
                f"after {n_val} were cut for validation. Use at most data.batch_size={count - n_val}."
            )
        val, train = order[:n_val].sort().values, order[n_val:].sort().values
        self.split_sha256 = hashlib.sha256(val.numpy().tobytes()).hexdigest()
        self.train = Images(images.train_images, images.train_labels, train)
        self.val = Images(images.train_images, images.train_labels, val)
        self.test = Images(images.test_images, images.test_labels, torch.arange(len(images.test_images)))
        self.scale, self.shift = self._normalization()
        self.alternating = torch.rand(count, generator=torch.Generator().manual_seed(mix(self.order_seed))) < 0.5
        for part in self.augmentation:
            part.check(*self.image_shape[1:])

    @property
    def mixes(self) -> bool:
        """Whether labels of training batches are rows `(B, classes)`."""
        return any(part.mixes for part in self.augmentation)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.imageset.train_images.shape
        return channels, height, width

    def _normalization(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, each (3, 1, 1), that take uint8 pixels to what the network sees."""
        if self.normalization == "symmetric":
            return torch.full((3, 1, 1), 1 / 127.5), torch.full((3, 1, 1), -1.0)
        some = self.train.indices[:: max(1, len(self.train) // 10_000)]
        pixels = self.train.images[some].double()
        mean, deviation = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp_min(1.0)
        return (1 / deviation).float().view(3, 1, 1), (-mean / deviation).float().view(3, 1, 1)

    def normalize(self, images: Tensor) -> Tensor:
        return normalize(images, self.scale, self.shift)

    def transfer_batch_to_device(self, batch: Fetched, device: torch.device, dataloader_idx: int) -> Fetched:
        images, labels, where = batch
        on_gpu = device.type == "cuda"
        return images.to(device, non_blocking=on_gpu), labels.to(device, non_blocking=on_gpu), where

    def on_after_batch_transfer(self, batch: Fetched, dataloader_idx: int) -> Batch:
        images, labels, where = batch
        assert self.trainer is not None
        if not self.trainer.training or not self.augmentation:
            return self.normalize(images), labels
        generator = Draws()
        generator.manual_seed(batch_seed(self.order_seed, self.trainer, stream=1))
        generator.alternating = self.alternating[where] ^ bool(self.trainer.current_epoch % 2)
        if self.mixes:
            labels = F.one_hot(labels, len(self.classes)).float()
        for on_pixels in (True, False):
            for part in self.augmentation:
                if part.on_pixels is on_pixels:
                    images, labels = part(images, labels, generator)
            images = self.normalize(images) if on_pixels else images
        return images, labels

    def train_order(self) -> TrainOrder:
        return TrainOrder(
            self.train, self.order_seed, lambda: batches_done_before_restart(self.trainer) * self.batch_size
        )

    def order_sha256(self) -> str:
        """A hash of the first epoch's order and the batch size: with `order_seed` it fixes every later one
        (but for `trainer.overfit_batches`, which turns shuffling off)."""
        order = torch.tensor(list(self.train_order()))
        return hashlib.sha256(f"{self.batch_size}\n".encode() + order.numpy().tobytes()).hexdigest()

    def _loader(self, images: Images, batch_size: int, **options: Any) -> DataLoader:
        """Every process goes through the same batches and fetches its own images: process r of R has r, r + R, …

        So the batches together are those of one process, and no image comes twice.
        """
        trainer = self.trainer
        own = slice(trainer.global_rank, None, trainer.world_size) if trainer else slice(None)
        images = Images(images.images, images.labels, images.indices, own)
        return DataLoader(images, batch_size, collate_fn=as_fetched, **options)

    def train_dataloader(self) -> DataLoader:
        lonely = len(self.train) % self.batch_size == 1
        return self._loader(self.train, self.batch_size, sampler=self.train_order(), drop_last=lonely)

    def _eval_dataloader(self, images: Images) -> DataLoader:
        return self._loader(images, 1000 * (self.trainer.world_size if self.trainer else 1))

    def val_dataloader(self) -> DataLoader:
        return self._eval_dataloader(self.val)

    def test_dataloader(self) -> DataLoader:
        return self._eval_dataloader(self.test)


# The sources: each `load` imports its own reader, so that a run starts without what it does not need.


class CIFAR10DataModule(ImageDataModule):
    """`optbench.data.cifar10.read_cifar10` in batches."""

    def __init__(
        self,
        root: str,
        url: str | None,
        batch_size: int,
        val_size: float,
        split_seed: int,
        order_seed: int,
        normalization: str,
        augmentation: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__(batch_size, val_size, split_seed, order_seed, normalization, augmentation)
        self.root, self.url = str(root or ""), url and str(url)

    def load(self) -> ImageSet:
        from optbench.data.cifar10 import read_cifar10

        return read_cifar10(self.root, self.url)


class ImageFolderDataModule(ImageDataModule):
    """`optbench.data.image_folder.read_image_folder` in batches; `split_seed` also cuts the test set where it must."""

    def __init__(
        self,
        root: str,
        image_size: int,
        test_size: float,
        on_corrupt: str,
        workers: int,
        cache_dir: str,
        batch_size: int,
        val_size: float,
        split_seed: int,
        order_seed: int,
        normalization: str,
        augmentation: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__(batch_size, val_size, split_seed, order_seed, normalization, augmentation)
        for key, value in {"image_size": image_size, "test_size": test_size, "workers": workers}.items():
            if not isinstance(value, int | float):
                raise ValueError(f"data.{key}={value} must be a number.")
        self.root, self.image_size, self.test_size = str(root or ""), image_size, test_size
        self.on_corrupt, self.workers, self.cache_dir = on_corrupt, workers, cache_dir

    def load(self) -> ImageSet:
        from optbench.data.image_folder import read_image_folder

        return read_image_folder(
            self.root,
            image_size=self.image_size,
            test_size=self.test_size,
            split_seed=self.split_seed,
            on_corrupt=self.on_corrupt,
            workers=self.workers,
            cache_dir=self.cache_dir,
        )


class ShapesDataModule(ImageDataModule):
    """`optbench.data.shapes.make_shapes` in batches."""

    def __init__(
        self,
        train_size: int,
        test_size: int,
        shapes_seed: int,
        batch_size: int,
        val_size: float,
        split_seed: int,
        order_seed: int,
        normalization: str,
        augmentation: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__(batch_size, val_size, split_seed, order_seed, normalization, augmentation)
        for key, value in {"train_size": train_size, "test_size": test_size}.items():
            if type(value) is not int:
                raise ValueError(f"data.{key}={value} must be a whole number of images.")
        self.train_size, self.test_size, self.shapes_seed = train_size, test_size, shapes_seed

    def load(self) -> ImageSet:
        from optbench.data.shapes import make_shapes

        return make_shapes(self.train_size, self.test_size, self.shapes_seed)
