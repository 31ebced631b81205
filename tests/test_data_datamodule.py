from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import ToyDataModule, toy_images
from optbench.data.augmentation import Augmentation, ColorJitter, CropFlip, CutMix, Cutout, MixUp, change_sharpness
from optbench.data.datamodule import as_fetched
from optbench.data.imageset import ImageSet
from optbench.training.randomness import batch_seed


def ready(images: ImageSet | None = None, **settings) -> ToyDataModule:
    data = ToyDataModule(images, **settings)
    data.setup()
    return data


def numbered(train: int) -> ImageSet:
    """Images whose label is their number in the training set."""
    images = toy_images(train, 5, classes=train)
    assert images.train_labels.tolist() == list(range(train))
    return images


def process(world_size: int, rank: int, training: bool = True, step: int = -1, epoch: int = 0) -> SimpleNamespace:
    """What of a trainer the datamodule reads; -1 is the first step."""
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=step), restarting=False)
    return SimpleNamespace(
        world_size=world_size, global_rank=rank, training=training, fit_loop=loop, current_epoch=epoch
    )


def first(data: ToyDataModule, count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """The first images of the training set as they are fetched."""
    return data.images.train_images[:count], data.images.train_labels[:count], torch.arange(count)


def batches(data: ToyDataModule, epoch: int = 0, world_size: int = 1, rank: int = 0) -> list[list[int]]:
    """The labels of each training batch."""
    data.trainer = process(world_size, rank)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [labels.tolist() for _, labels, _ in loader]


def flat(parts: list[list[int]]) -> list[int]:
    return [item for part in parts for item in part]


def test_the_split_is_cut_by_split_seed_alone():
    torch.manual_seed(5)  # what ran before does not matter
    first = ready(split_seed=1, order_seed=0)
    again = ready(split_seed=1, order_seed=9, batch_size=4, normalization="standard")
    other = ready(split_seed=2, order_seed=0)
    assert first.split_sha256 == again.split_sha256 != other.split_sha256
    assert torch.equal(first.val.indices, again.val.indices)
    assert first.val.indices.tolist() != other.val.indices.tolist()
    for data in (first, other):
        train, val = data.train.indices.tolist(), data.val.indices.tolist()
        assert (len(train), len(val), len(data.test)) == (48, 12, 20)
        assert sorted(train + val) == list(range(60)) and train == sorted(train) and val == sorted(val)
        assert torch.equal(data.test.images, data.images.test_images)


def test_every_training_image_comes_once_an_epoch():
    data = ready(numbered(60))
    for epoch in range(3):
        assert sorted(flat(batches(data, epoch))) == data.train.indices.tolist()
        assert [len(batch) for batch in batches(data, epoch)] == [8] * 6


def test_the_order_is_made_by_order_seed_and_epoch_alone():
    images = numbered(60)
    data = ready(images, order_seed=3)
    third = batches(data, 2)
    torch.manual_seed(11)
    fresh = ready(images, order_seed=3)
    assert batches(fresh, 2) == third  # not of what happened before
    assert flat(batches(ready(images, order_seed=3, batch_size=16), 2)) == flat(third)
    orders = {tuple(flat(batches(ready(images, order_seed=seed), epoch))) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_hashes_tell_what_differs():
    base, images = ready(), toy_images()
    assert base.order_sha256() == ready(normalization="standard").order_sha256()
    assert base.order_sha256() != ready(order_seed=1).order_sha256()
    assert base.order_sha256() != ready(batch_size=16).order_sha256()
    assert base.imageset.sha256 == toy_images().sha256 != toy_images(seed=1).sha256
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        changed = toy_images()
        getattr(changed, part)[(3,) + (0,) * (getattr(changed, part).ndim - 1)] += 1
        assert changed.sha256 != images.sha256, part
    renamed = ImageSet(*(getattr(images, part) for part in list(images.__dataclass_fields__)[:4]), ("a", "b", "c"))
    assert renamed.sha256 != images.sha256


def test_symmetric_takes_pixels_to_minus_one_to_one():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    values = ready().normalize(pixels)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, (pixels.double() / 127.5 - 1).float(), rtol=0, atol=2e-7)
    assert (values.min(), values.max()) == pytest.approx((-1, 1), abs=2e-7)


def test_standard_uses_the_training_images_alone():
    data = ready(normalization="standard")
    train = data.normalize(data.images.train_images[data.train.indices])
    assert train.mean((0, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(train.std((0, 2, 3)), torch.ones(3), rtol=1e-5, atol=0)
    changed = toy_images()
    changed.train_images[data.val.indices] = 255
    changed.test_images[:] = 0
    other = ready(changed, normalization="standard")
    assert torch.equal(other.scale, data.scale) and torch.equal(other.shift, data.shift)


@pytest.mark.parametrize("normalization", ["symmetric", "standard"])
def test_every_pixel_is_scaled_and_shifted_with_one_rounding(normalization):
    """As addcmul does, however its operands are laid out: a change of a bit would change every run."""
    data = ready(normalization=normalization)
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3 * 2).view(2, 3, 16, 16)
    exact = pixels.double() * data.scale.double() + data.shift.double()
    assert torch.equal(data.normalize(pixels), exact.float())
    assert torch.equal(data.normalize(pixels), torch.addcmul(data.shift, pixels.float(), data.scale))


def test_standard_survives_a_constant_channel():
    images = toy_images()
    images.train_images[:, 1] = 7
    data = ready(images, normalization="standard")
    assert not data.normalize(images.train_images)[:, 1].any()


@pytest.mark.parametrize(
    ("train", "batch_size", "sizes"),
    [(60, 8, [8] * 6), (60, 47, [47]), (60, 13, [13, 13, 13, 9]), (61, 48, [48]), (20, 1, [1] * 16)],
)
def test_a_last_batch_of_one_image_is_dropped(train, batch_size, sizes):
    data = ready(toy_images(train), batch_size=batch_size)
    assert [len(labels) for _, labels, _ in data.train_dataloader()] == sizes
    assert len(data.train_dataloader()) == len(sizes)


def test_a_batch_is_one_indexing():
    data = ready()
    images, labels, where = data.train.__getitems__([5, 0, 5])
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (3, 3, 4, 4), torch.int64)
    for row, index in enumerate((5, 0, 5)):
        image, label, _ = data.train[index]
        assert torch.equal(images[row], image) and labels[row] == label
        assert torch.equal(image, data.images.train_images[data.train.indices[index]])
    assert torch.equal(data.images.train_images[where], images)
    assert as_fetched((images, labels))[0] is images
    assert data.train_dataloader().collate_fn is as_fetched


@pytest.mark.parametrize(
    ("train", "batch_size", "replicas"),
    [(60, 8, 2), (60, 10, 2), (61, 6, 2), (61, 48, 3), (65, 50, 5)],  # a share less, none at all, one image dropped
)
def test_the_processes_batches_together_are_the_single_processs(train, batch_size, replicas):
    data = ready(numbered(train), batch_size=batch_size)
    for epoch in (0, 3):
        alone = batches(data, epoch)
        ranks = [batches(data, epoch, replicas, rank) for rank in range(replicas)]
        assert {len(parts) for parts in ranks} == {len(alone)}
        for k, batch in enumerate(alone):
            assert [parts[k] for parts in ranks] == [batch[rank::replicas] for rank in range(replicas)]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_evaluation_meets_every_image_once(replicas):
    images = numbered(61)
    data = ready(images)
    for loader_of, expected in ((data.val_dataloader, data.val.indices.tolist()), (data.test_dataloader, [*range(5)])):
        seen = []
        for rank in range(replicas):
            data.trainer = process(replicas, rank)
            seen.append([int(label) for _, labels, _ in loader_of() for label in labels])
        assert sorted(flat(seen)) == expected
        assert seen[0] == expected[::replicas]


class Noted(Augmentation):
    """Writes down what it gets, and draws a number."""

    def __init__(self, name: str, notes: list, on_pixels: bool = False, mixes: bool = False) -> None:
        self.name, self.notes, self.on_pixels, self.mixes = name, notes, on_pixels, mixes

    def check(self, height: int, width: int) -> None:
        self.notes.append((self.name, height, width))

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self.notes.append((self.name, images.dtype, labels.dtype, float(torch.rand((), generator=generator))))
        return images, labels


def test_pixels_come_first_and_each_stage_has_the_order_of_the_list():
    notes: list = []
    parts = [Noted("a", notes), Noted("b", notes, on_pixels=True), Noted("c", notes), Noted("d", notes, on_pixels=True)]
    data = ready(augmentation=parts)
    assert notes == [(name, 4, 4) for name in "abcd"] and not data.mixes
    notes.clear()
    raw = first(data)
    data.trainer = process(1, 0)
    images, labels = data.on_after_batch_transfer(raw, 0)
    assert torch.equal(images, data.normalize(raw[0])) and labels is raw[1]
    generator = torch.Generator().manual_seed(batch_seed(data.order_seed, data.trainer, stream=1))
    draws = [float(torch.rand((), generator=generator)) for _ in range(4)]  # one generator for all, in their order
    assert notes == [
        ("b", torch.uint8, torch.int64, draws[0]),
        ("d", torch.uint8, torch.int64, draws[1]),
        ("a", torch.float32, torch.int64, draws[2]),
        ("c", torch.float32, torch.int64, draws[3]),
    ]


def test_labels_are_rows_where_one_part_mixes():
    notes: list = []
    data = ready(augmentation=[Noted("first", notes), Noted("mix", notes, mixes=True)])
    raw = first(data)
    data.trainer = process(1, 0)
    _, labels = data.on_after_batch_transfer(raw, 0)
    assert data.mixes and [note[2] for note in notes[2:]] == [torch.float32] * 2
    assert labels.shape == (8, 3) and torch.equal(labels.argmax(1), raw[1])
    data.trainer = process(1, 0, training=False)
    assert data.on_after_batch_transfer(raw, 0)[1] is raw[1]


def test_each_process_mixes_its_own_rows():
    data = ready(numbered(60), augmentation=[MixUp(1.0)])
    raw = first(data)
    mixed = []
    for rank in range(2):
        data.trainer = process(2, rank)
        images, labels = data.on_after_batch_transfer(tuple(part[rank::2] for part in raw), 0)
        own = data.normalize(raw[0][rank::2])
        share = float(labels[0, rank])
        torch.testing.assert_close(images, share * own + (1 - share) * own.roll(1, 0))
        mixed.append(share)
    assert mixed[0] != mixed[1]


def test_only_training_batches_are_augmented():
    data = ready(augmentation=[CropFlip(2, 0.5, "zero")])
    raw = first(data)

    def batch(rank: int = 0, training: bool = True, step: int = -1) -> Tensor:
        data.trainer = process(2, rank, training, step)
        return data.on_after_batch_transfer(raw, 0)[0]

    plain = data.normalize(raw[0])
    assert torch.equal(batch(training=False), plain)
    drawn = batch()
    assert not torch.equal(drawn, plain)
    torch.manual_seed(3)
    assert torch.equal(batch(), drawn)  # drawn by order_seed, process and step alone
    assert not torch.equal(batch(step=0), drawn) and not torch.equal(batch(rank=1), drawn)
    data.order_seed = 1
    assert not torch.equal(batch(), drawn)
    data.augmentation = []
    assert torch.equal(batch(), plain)


def test_an_image_is_flipped_in_every_second_epoch():
    """Half of them begin with the first one; whatever the batches, the order and the processes."""
    flips: dict[int, list[dict[int, bool]]] = {}
    for order_seed, batch_size, world_size in ((0, 8, 1), (0, 20, 2), (1, 8, 1)):
        numbers = numbered(400)
        numbers.train_images.random_(generator=torch.Generator().manual_seed(0))
        data = ready(numbers, order_seed=order_seed, batch_size=batch_size)
        data.augmentation = [CropFlip(0, "alternating", "zero")]
        plain = data.normalize(data.images.train_images)
        epochs: list[dict[int, bool]] = []
        for epoch in range(4):
            epochs.append({})
            for rank in range(world_size):
                data.trainer = process(world_size, rank, epoch=epoch)
                loader = data.train_dataloader()
                loader.sampler.set_epoch(epoch)
                for batch in loader:
                    images, labels = data.on_after_batch_transfer(batch, 0)
                    for image, number in zip(images, labels.tolist(), strict=True):
                        flipped = torch.equal(image, plain[number].flip(2))
                        assert flipped or torch.equal(image, plain[number])
                        epochs[-1][number] = flipped
        assert epochs[0] == epochs[2] and epochs[1] == epochs[3]
        assert all(epochs[1][number] is not flipped for number, flipped in epochs[0].items())
        assert len(epochs[0]) == 320 and 130 < sum(epochs[0].values()) < 190
        assert flips.setdefault(order_seed, epochs) == epochs
    assert flips[0] != flips[1]


class BlockingCopies(TorchDispatchMode):
    """Counts copies to another device that make the host wait until they are done."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("device") not in (None, args[0].device):
            self.count += not kwargs.get("non_blocking")
        return function(*args, **kwargs)


def test_no_batch_makes_the_host_wait_for_the_device():
    """`meta` stands for a GPU: it has no values, so whatever would have to wait for one is an error."""
    parts = [
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        CropFlip(1, 0.5, "zero"),
        CropFlip(1, "alternating", "mirrored"),
        Cutout(2, 1.0),
        MixUp(1.0),
        CutMix(1.0),
    ]
    data = ready(augmentation=parts)
    data.trainer = process(1, 0)
    pixels = torch.empty(8, 3, 4, 4, dtype=torch.uint8, device="meta")
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    with BlockingCopies() as copies:
        images, labels = data.on_after_batch_transfer((pixels, labels, torch.arange(8)), 0)
        change_sharpness(pixels, torch.empty(8, 1, 1, 1, device="meta"))
    assert (images.device.type, images.shape, labels.shape) == ("meta", (8, 3, 4, 4), (8, 3))
    assert copies.count == 0


def test_crop_flip_alone_is_what_it_was_before_there_were_lists():
    """Of one seed and batch: the rows, columns and flips of earlier versions."""
    data = ready(augmentation=[CropFlip(1, 0.5, "zero")])
    data.trainer = process(1, 0)
    numbers = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(8, 3, 4, 4)
    out, labels = data.on_after_batch_transfer((numbers, torch.arange(8), torch.arange(8)), 0)
    assert torch.equal(labels, torch.arange(8))
    corners = ((out[:, 0, 1:3, 1:3] + 1) * 127.5).round().int().flatten(1)
    assert corners.tolist() == [
        [5, 4, 9, 8],
        [9, 8, 13, 12],
        [7, 6, 11, 10],
        [11, 10, 15, 14],
        [0, 1, 4, 5],
        [8, 9, 12, 13],
        [6, 5, 10, 9],
        [7, 6, 11, 10],
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"batch_size": 1, "augmentation": [MixUp(1.0)]},
            "data.batch_size=1 has no two images that the augmentation could mix. Use at least data.batch_size=2, or",
        ),
        ({"augmentation": [Cutout(5, 1.0)]}, "augmentation.cutout.size=5 is larger than the images, which are 4 x 4"),
        *(
            ({"batch_size": value}, f"data.batch_size={value} must be a whole number of at least 1.")
            for value in (0, -8, 2.5, "many", True)
        ),
        *(
            ({"val_size": value}, f"data.val_size={value} must be between 0 and 1")
            for value in (0, 1, -0.1, 7, "half", float("nan"), None)
        ),
        *(
            ({key: value}, f"data.{key}={value} must be a whole number of at least 0.")
            for key in ("split_seed", "order_seed")
            for value in (-1, 0.5, None, True)
        ),
        ({"normalization": "none"}, "data.normalization=none is not known: use symmetric or standard."),
        (
            {"val_size": 0.001},
            "data.val_size=0.001 of 60 training images leaves 60 to train on and 0 to validate on; both need at least "
            "one image.",
        ),
        (
            {"val_size": 0.999},
            "data.val_size=0.999 of 60 training images leaves 0 to train on and 60 to validate on; both need at least "
            "one image.",
        ),
        (
            {"batch_size": 49},
            "data.batch_size=49 is larger than the training set, which has 48 images after 12 were cut for validation. "
            "Use at most data.batch_size=48.",
        ),
    ],
)
def test_what_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=r"data|augmentation") as error:
        ready(**settings)
    assert str(error.value).startswith(sentence)


def test_setup_reads_the_images_once(monkeypatch):
    data = ready()
    monkeypatch.setattr(data, "load", None)
    data.setup("test")
    assert data.image_shape == (3, 4, 4) and data.classes == ("class0", "class1", "class2")
