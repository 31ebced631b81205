"""Each operation against torchvision's on single images, and against a loop over images."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from conftest import PROJECT
from optbench.data import augmentation
from optbench.data.augmentation import (
    OPERATIONS,
    Augmentation,
    ColorJitter,
    CropFlip,
    CutMix,
    Cutout,
    Draws,
    MixUp,
    TrivialAugment,
)

FILES = sorted(path for path in (PROJECT / "configs" / "augmentation").glob("*.yaml") if path.stem != "none")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int, height: int = 12, width: int = 16, seed: int = 0) -> Tensor:
    """Smooth and noisy images, one of a single colour, and one that is grey."""
    images = torch.randint(0, 256, (count, 3, height, width), generator=seeded(seed), dtype=torch.uint8)
    images[::2] = F.avg_pool2d(images[::2].float(), 5, 1, 2).byte()
    images[0], images[1] = 90, images[1, :1]
    return images


def configured(name: str) -> Augmentation:
    """What configs/augmentation/<name>.yaml builds."""
    return instantiate(OmegaConf.select(OmegaConf.load(PROJECT / "configs" / "augmentation" / f"{name}.yaml"), name))


def batch_for(augment: Augmentation, count: int = 32, size: int = 32) -> tuple[Tensor, Tensor]:
    """Images and labels as the data module gives them."""
    images, labels = pixels(count, size, size, seed=3), torch.arange(count) % 4
    return (images if augment.on_pixels else images / 127.5 - 1), (
        F.one_hot(labels, 4).float() if augment.mixes else labels
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_augmentation_keeps_to_the_protocol(path):
    """One entry named as the file; images of one kind in and out, drawn from the generator, inputs untouched."""
    assert list(OmegaConf.load(path)) == [path.stem]
    augment = configured(path.stem)
    images, labels = batch_for(augment)
    before, state = (images.clone(), labels.clone()), torch.get_rng_state()
    out, targets = augment(images, labels, seeded(1))
    assert (out.shape, out.dtype) == (images.shape, images.dtype) and not torch.equal(out, images)
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])
    assert torch.equal(torch.get_rng_state(), state)  # not of the process's generator
    torch.manual_seed(5)
    again, same = augment(images, labels, seeded(1))
    assert torch.equal(again, out) and torch.equal(same, targets)
    assert not torch.equal(augment(images, labels, seeded(2))[0], out)
    if augment.mixes:
        assert targets.shape == (32, 4) and targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(32))
    else:
        assert targets is labels
    for count in (0, 1, 3):  # with several devices, one of them may have no image of the last batch
        assert augment(images[:count], labels[:count], seeded(1))[0].shape[0] == count


@pytest.mark.parametrize("name", ["color_jitter", "crop_flip", "cutout", "trivial_augment"])
def test_each_image_has_its_own_draw(name):
    """Many copies of one image become different images."""
    augment = configured(name)
    images, labels = batch_for(augment)
    out, _ = augment(images[4:5].expand_as(images), labels, seeded(0))
    assert len({image.numpy().tobytes() for image in out}) > 20


LABELS = torch.zeros(1, dtype=torch.int64)


def one_by_one(images: torch.Tensor, padding: int, flip: float, seed: int, mode: Any = "constant") -> np.ndarray:
    """The slow reference: pad, cut and turn each image by itself."""
    down, right, turn = torch.rand(3, len(images), generator=seeded(seed)).numpy()
    height, width = images.shape[2:]
    done = []
    for k, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode)
        top, left = int(down[k] * (2 * padding + 1)), int(right[k] * (2 * padding + 1))
        cut = padded[:, top : top + height, left : left + width]
        done.append(cut[:, :, ::-1] if turn[k] < flip else cut)
    return np.stack(done)


@pytest.mark.parametrize(("padding", "flip"), [(4, 0.5), (2, 0.0), (0, 0.5), (1, 1.0), (9, 0.5)])
def test_a_batch_is_augmented_image_by_image(padding, flip):
    images = torch.randn(16, 3, 6, 8, generator=seeded(0))
    out = CropFlip(padding, flip, "zero")(images, LABELS, seeded(1))[0]
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(out.numpy(), one_by_one(images, padding, flip, 1))


@pytest.mark.parametrize("padding", [0, 1, 5])
def test_borders_may_be_mirrored(padding):
    images = torch.randn(16, 3, 6, 8, generator=seeded(0))
    augment = CropFlip(padding, 0.5, "mirrored")
    augment.check(6, 8)
    out = augment(images, LABELS, seeded(1))[0]
    np.testing.assert_array_equal(out.numpy(), one_by_one(images, padding, 0.5, 1, "reflect"))


def test_alternating_flips_are_those_of_the_generator():
    images = torch.randn(4, 3, 6, 8, generator=seeded(0))
    draws = Draws()
    draws.manual_seed(1)
    draws.alternating = torch.tensor([True, False, False, True])
    out = CropFlip(2, "alternating", "zero")(images, LABELS, draws)[0].numpy()
    flips = [float(flip) for flip in draws.alternating]
    kept, flipped = (one_by_one(images, 2, flip, 1) for flip in (0.0, 1.0))
    np.testing.assert_array_equal(out, [(flipped if flip else kept)[k] for k, flip in enumerate(flips)])


def test_an_image_has_no_more_mirrored_pixels_than_it_has_pixels():
    CropFlip(9, 0.5, "zero").check(6, 8)
    with pytest.raises(ValueError, match="augmentation") as error:
        CropFlip(6, 0.5, "mirrored").check(6, 8)
    assert str(error.value) == (
        "augmentation.crop_flip.padding=6: mirrored borders must be narrower than the images, which are 6 x 8 pixels. "
        "Use at most augmentation.crop_flip.padding=5, or augmentation.crop_flip.borders=zero."
    )


def test_trivial_augment_needs_neighbours():
    with pytest.raises(ValueError, match=r"needs images of at least 3 x 3 pixels; these have 8 x 2"):
        TrivialAugment(31).check(8, 2)
    TrivialAugment(31).check(3, 3)
    for seed in range(20):
        TrivialAugment(31)(pixels(8, 3, 3, seed), LABELS, seeded(seed))


def test_no_padding_and_no_flip_change_nothing():
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(CropFlip(0, 0, "zero")(images, LABELS, seeded(0))[0], images)
    assert torch.equal(CropFlip(0, 1, "zero")(images, LABELS, seeded(0))[0], images.flip(3))


def test_every_offset_and_both_directions_are_equally_likely():
    images = torch.zeros(9000, 1, 9, 9)
    images[:, 0, 4, 4], images[:, 0, 4, 5] = 1, 2  # a point and its right neighbour
    out = CropFlip(1, 0.25, "zero")(images, LABELS, seeded(0))[0][:, 0]
    rows, columns = (out == 1).nonzero()[:, 1], (out == 1).nonzero()[:, 2]
    flipped = (out == 2).nonzero()[:, 2] < columns
    offsets = torch.bincount((rows - 3) * 3 + columns - 3, minlength=9)
    assert len(offsets) == 9
    assert ((offsets - 1000).abs() < 120).all()  # four standard deviations
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("centred", [(0, 0), (3, 5), (11, 15)])
def test_cutout_is_a_square_around_a_pixel(centred, monkeypatch):
    images = torch.rand(2, 3, 12, 16) + 1
    row, column = centred
    draws = torch.tensor([[row / 12 + 1e-4] * 2, [column / 16 + 1e-4] * 2, [0.3, 0.7]])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    out, _ = Cutout(4, 0.5)(images, LABELS, seeded(0))
    top, left = max(0, row - 2), max(0, column - 2)
    cut = reference.erase(images[0], top, left, row + 2 - top, column + 2 - left, torch.zeros(3, 1, 1))
    assert torch.equal(out[0], cut) and torch.equal(out[1], images[1])


def test_cutout_is_everywhere_and_as_often_as_asked():
    out, _ = Cutout(1, 0.25)(torch.ones(8000, 3, 4, 4), LABELS, seeded(0))
    gone = (out == 0).all(1)
    assert gone.sum((1, 2)).max() == 1
    assert gone.sum(0).float().mean() == pytest.approx(125, abs=10) and gone.sum(0).min() > 80


def affine(image: Tensor, **changes: Any) -> Tensor:
    return reference.affine(image, **({"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | changes))


def degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


# what torchvision's TrivialAugmentWide does with a strength and the same strength with a sign
REFERENCE = {
    "identity": lambda image, strength, signed: image,
    "shear_x": lambda image, _, signed: affine(image, shear=[degrees(0.99 * signed), 0.0], center=[0, 0]),
    "shear_y": lambda image, _, signed: affine(image, shear=[0.0, degrees(0.99 * signed)], center=[0, 0]),
    "translate_x": lambda image, _, signed: affine(image, translate=[int(32 * signed), 0]),
    "translate_y": lambda image, _, signed: affine(image, translate=[0, int(32 * signed)]),
    "rotate": lambda image, _, signed: reference.rotate(image, 135 * signed),
    "brightness": lambda image, _, signed: reference.adjust_brightness(image, 1 + 0.99 * signed),
    "saturation": lambda image, _, signed: reference.adjust_saturation(image, 1 + 0.99 * signed),
    "contrast": lambda image, _, signed: reference.adjust_contrast(image, 1 + 0.99 * signed),
    "sharpness": lambda image, _, signed: reference.adjust_sharpness(image, 1 + 0.99 * signed),
    "posterize": lambda image, strength, _: reference.posterize(image, round(8 - 6 * strength)),
    "solarize": lambda image, strength, _: reference.solarize(image, 255 * (1 - strength)),
    "autocontrast": lambda image, *_: reference.autocontrast(image),
    "equalize": lambda image, *_: reference.equalize(image),
}
EXACT = {"identity", "posterize", "solarize", "autocontrast", "equalize"}


@pytest.mark.parametrize("name", REFERENCE)
def test_an_operation_is_torchvisions_on_each_image(name):
    images = pixels(62)
    strength = torch.arange(31).repeat(2) / 30
    signed = strength * torch.tensor([1.0, -1.0]).repeat_interleave(31)
    out = OPERATIONS[name](images, strength.view(-1, 1, 1, 1), signed.view(-1, 1, 1, 1))
    there = [float(part) for part in strength], [float(part) for part in signed]
    expected = torch.stack([REFERENCE[name](*one) for one in zip(images, *there, strict=True)])
    off = (out.int() - expected.int()).abs()
    if "_" in name or name == "rotate":  # a pixel between two may be the other one
        assert float((off > 0).float().mean()) < 0.002
    else:
        assert off.max() <= (0 if name in EXACT else 1) and float((off > 0).float().mean()) < 0.01


def test_the_operations_are_those_of_torchvision():
    theirs = {"Color" if name == "Color" else name for name in v2.TrivialAugmentWide._AUGMENTATION_SPACE}
    ours = {"".join(word.capitalize() for word in name.split("_")) for name in OPERATIONS}
    renamed = {"Saturation": "Color", "Autocontrast": "AutoContrast"}
    assert {renamed.get(name, name) for name in ours} == theirs


def test_trivial_augment_draws_operation_strength_and_sign_evenly(monkeypatch):
    seen: Counter = Counter()

    def record(name):
        def operation(images: Tensor, strength: Tensor, signed: Tensor) -> Tensor:
            assert images.ndim == 4 and strength.shape == signed.shape == (len(images), 1, 1, 1)
            for a, b in zip(strength.flatten().tolist(), signed.flatten().tolist(), strict=True):
                seen[name, round(a * 3), b < 0 or (b == 0 and "-" in str(b))] += 1
                assert abs(b) == a
            return images + 1

        return operation

    monkeypatch.setattr(augmentation, "OPERATIONS", {name: record(name) for name in OPERATIONS})
    images = torch.arange(14 * 4 * 2 * 100).view(-1, 1, 1, 1).expand(-1, 3, 1, 1) % 200
    out, _ = TrivialAugment(4)(images, LABELS, seeded(0))
    assert torch.equal(out, images + 1)  # each in its place again
    assert len(seen) == 14 * 4 * 2
    assert min(seen.values()) > 60 and max(seen.values()) < 140


@pytest.mark.parametrize("turn", [-0.5, -0.31, -0.1, 0.0, 0.07, 0.25, 0.5])
def test_hue_turns_as_torchvisions(turn):
    images = pixels(30)
    out = augmentation.turn_hue(images, torch.full((30, 1, 1, 1), turn))
    expected = torch.stack([reference.adjust_hue(image, turn) for image in images])
    assert (out.int() - expected.int()).abs().max() <= 1
    if turn == 0:
        assert torch.equal(out, images)


def test_color_jitter_is_one_image_at_a_time(monkeypatch):
    images = pixels(20)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.tensor([3, 1, 0, 2]))
    out, _ = ColorJitter(0.4, 1.5, 0.8, 0.1)(images, LABELS, seeded(0))
    draws = torch.rand(4, 20, generator=seeded(0))  # the permutation drew nothing
    low, high = torch.tensor([0.6, 0.0, 0.2, -0.1]), torch.tensor([1.4, 2.5, 1.8, 0.1])
    factors = (low[:, None] + (high - low)[:, None] * draws).tolist()
    expected = []
    for k, image in enumerate(images):
        image = reference.adjust_hue(image, factors[3][k])
        image = reference.adjust_contrast(image, factors[1][k])
        image = reference.adjust_brightness(image, factors[0][k])
        expected.append(reference.adjust_saturation(image, factors[2][k]))
    off = (out.int() - torch.stack(expected).int()).abs()
    assert off.max() <= 10 and float(off.float().mean()) < 0.3  # a level of hue, times all factors


def test_color_jitter_of_nothing_changes_nothing():
    images = pixels(8)
    assert torch.equal(ColorJitter(0, 0, 0, 0)(images, LABELS, seeded(0))[0], images)


def test_mixup_is_a_mixture_with_the_image_before():
    images, labels = torch.randn(6, 3, 4, 4), F.one_hot(torch.arange(6), 6).float()
    shares = []
    for seed in range(40):
        out, targets = MixUp(0.5)(images, labels, seeded(seed))
        share = float(targets[2, 2])
        torch.testing.assert_close(targets[2, 1], torch.tensor(1 - share))
        torch.testing.assert_close(out, share * images + (1 - share) * images.roll(1, 0))
        shares.append(share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.2) and np.std(shares) == pytest.approx(0.354, abs=0.1)


def test_cutmix_is_a_box_of_the_image_before_and_its_share_of_the_label():
    numbers = torch.arange(6.0)
    images, labels = numbers.view(6, 1, 1, 1).expand(6, 3, 8, 8), F.one_hot(torch.arange(6), 6).float()
    sizes = set()
    for seed in range(20):
        out, targets = CutMix(1.0)(images, labels, seeded(seed))
        foreign = (out != images)[:, 0]
        assert (foreign == foreign[0]).all() and (out[1:][foreign[1:].unsqueeze(1).expand(-1, 3, -1, -1)] >= 0).all()
        torch.testing.assert_close(targets.diagonal(), torch.full((6,), 1 - float(foreign[0].float().mean())))
        height, width = foreign[0].any(1).sum(), foreign[0].any(0).sum()
        assert foreign[0].sum() == height * width  # a box
        sizes.add(int(foreign[0].sum()))
    assert len(sizes) > 8


def test_mixing_twice_mixes_the_labels_twice():
    images, labels = torch.randn(8, 3, 4, 4), F.one_hot(torch.arange(8), 8).float()
    generator = seeded(0)
    images, labels = CutMix(1.0)(*MixUp(1.0)(images, labels, generator), generator)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    assert (labels > 0).sum(1).max() == 3  # of the one before the one before, too


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (CropFlip, (-1, 0.5, "zero"), "crop_flip.padding=-1 must be a whole number of pixels, at least 0."),
        (CropFlip, (1.5, 0.5, "zero"), "crop_flip.padding=1.5 must be a whole number of pixels, at least 0."),
        (CropFlip, (4, 1.5, "zero"), "crop_flip.flip=1.5 must be a probability in [0, 1], or alternating."),
        (CropFlip, (4, float("nan"), "zero"), "crop_flip.flip=nan must be a probability in [0, 1], or alternating."),
        (CropFlip, (4, "often", "zero"), "crop_flip.flip=often must be a probability in [0, 1], or alternating."),
        (CropFlip, (4, 0.5, "black"), "crop_flip.borders=black is not known: use zero or mirrored."),
        (Cutout, (0, 1), "cutout.size=0 must be a whole number of pixels, at least 1."),
        (Cutout, (8, -0.1), "cutout.probability=-0.1 is a probability: it must be in [0, 1]."),
        (ColorJitter, (-1, 0, 0, 0), "color_jitter.brightness=-1 must be a number of at least 0."),
        (ColorJitter, (0, 0, None, 0), "color_jitter.saturation=None must be a number of at least 0."),
        (ColorJitter, (0, 0, 0, 0.6), "color_jitter.hue=0.6 must be in [0, 0.5]."),
        (
            TrivialAugment, (1,),
            "trivial_augment.strengths=1 must be a whole number of at least 2, from no change to the strongest.",
        ),
        (
            MixUp, (0,),
            "mixup.alpha=0 must be a number above 0, for example 0.2 or 1; augmentation.mixup=null mixes nothing.",
        ),
        (
            CutMix, ("a",),
            "cutmix.alpha=a must be a number above 0, for example 0.2 or 1; augmentation.cutmix=null mixes nothing.",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(kind, values, sentence):
    with pytest.raises(ValueError, match="augmentation") as error:
        kind(*values)
    assert str(error.value) == f"augmentation.{sentence}"


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 0.2, 1e6])
def test_any_alpha_above_zero_gives_numbers(alpha):
    images, labels = torch.randn(4, 3, 4, 4), torch.eye(4)
    for mix in (MixUp(alpha), CutMix(alpha)):
        out, targets = mix(images, labels, seeded(0))
        assert out.isfinite().all()
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
