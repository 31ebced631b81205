import numpy as np
import pytest
import torch

from optbench.data.augmentation import CropFlip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_by_one(images: torch.Tensor, padding: int, flip: float, seed: int) -> np.ndarray:
    """The slow reference: pad, cut and turn each image by itself."""
    down, right, turn = torch.rand(3, len(images), generator=seeded(seed)).numpy()
    height, width = images.shape[2:]
    done = []
    for k, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        top, left = int(down[k] * (2 * padding + 1)), int(right[k] * (2 * padding + 1))
        cut = padded[:, top : top + height, left : left + width]
        done.append(cut[:, :, ::-1] if turn[k] < flip else cut)
    return np.stack(done)


@pytest.mark.parametrize(("padding", "flip"), [(4, 0.5), (2, 0.0), (0, 0.5), (1, 1.0), (9, 0.5)])
def test_a_batch_is_augmented_image_by_image(padding, flip):
    images = torch.randn(16, 3, 6, 8, generator=seeded(0))
    out = CropFlip(padding, flip)(images, seeded(1))
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(out.numpy(), one_by_one(images, padding, flip, 1))


def test_no_padding_and_no_flip_change_nothing():
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(CropFlip(0, 0)(images, seeded(0)), images)
    assert torch.equal(CropFlip(0, 1)(images, seeded(0)), images.flip(3))


def test_every_offset_and_both_directions_are_equally_likely():
    images = torch.zeros(9000, 1, 9, 9)
    images[:, 0, 4, 4], images[:, 0, 4, 5] = 1, 2  # a point and its right neighbour
    out = CropFlip(1, 0.25)(images, seeded(0))[:, 0]
    rows, columns = (out == 1).nonzero()[:, 1], (out == 1).nonzero()[:, 2]
    flipped = (out == 2).nonzero()[:, 2] < columns
    offsets = torch.bincount((rows - 3) * 3 + columns - 3, minlength=9)
    assert len(offsets) == 9
    assert ((offsets - 1000).abs() < 120).all()  # four standard deviations
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.02)


def test_the_generator_alone_decides():
    images, augment = torch.randn(32, 3, 8, 8), CropFlip(4, 0.5)
    first = augment(images, seeded(7))
    torch.manual_seed(1)
    assert torch.equal(augment(images, seeded(7)), first)
    assert not torch.equal(augment(images, seeded(8)), first)


@pytest.mark.parametrize(
    ("padding", "flip", "sentence"),
    [
        (-1, 0.5, "augmentation.padding=-1 must be a whole number of pixels, at least 0."),
        (1.5, 0.5, "augmentation.padding=1.5 must be a whole number of pixels, at least 0."),
        (4, 1.5, "augmentation.flip=1.5 is a probability: it must be in [0, 1]."),
        (4, float("nan"), "augmentation.flip=nan is a probability: it must be in [0, 1]."),
        (4, "often", "augmentation.flip=often is a probability: it must be in [0, 1]."),
    ],
)
def test_what_is_refused(padding, flip, sentence):
    with pytest.raises(ValueError, match="augmentation") as error:
        CropFlip(padding, flip)
    assert str(error.value) == sentence
