"""`data=shapes` is a contract of bytes: these tests say which, and what a user may ask of it."""

import pytest
import torch

from optbench.data.imageset import ImageSet
from optbench.data.shapes import make_shapes


@pytest.fixture(scope="module")
def small() -> ImageSet:
    return make_shapes(200, 100, seed=0)


def test_the_bytes_are_pinned(small: ImageSet) -> None:
    # Made anew only when the drawing changes on purpose, and then every figure measured on it is measured again.
    assert small.sha256 == "f2d0b6ae6bcce620cdcc2ce11d7ad2b665b8ca9a88e92ccf14640ffc355c4075"


def test_form_is_that_of_cifar10(small: ImageSet) -> None:
    assert small.train_images.shape == (200, 3, 32, 32)
    assert small.test_images.shape == (100, 3, 32, 32)
    assert small.train_images.dtype == small.test_images.dtype == torch.uint8
    assert small.train_labels.dtype == small.test_labels.dtype == torch.int64
    assert len(set(small.classes)) == 10
    assert small.classes[8] == "star"
    assert small.train_images.float().std() > 40  # of 255: pictures, not grey


@pytest.mark.parametrize("size", [1, 7, 150])
def test_fewer_images_are_the_first_of_more(small: ImageSet, size: int) -> None:
    fewer = make_shapes(size, size // 2 + 1, seed=0)
    assert torch.equal(fewer.train_images, small.train_images[:size])
    assert torch.equal(fewer.train_labels, small.train_labels[:size])
    assert torch.equal(fewer.test_images, small.test_images[: size // 2 + 1])
    assert torch.equal(fewer.test_labels, small.test_labels[: size // 2 + 1])


def test_classes_are_balanced_and_shuffled(small: ImageSet) -> None:
    assert small.train_labels.bincount().tolist() == [20] * 10
    assert small.test_labels.bincount().tolist() == [10] * 10
    orders = {tuple(ten.tolist()) for ten in small.train_labels.view(-1, 10)}
    assert len(orders) == 20


def test_no_image_occurs_twice_in_train_and_test(small: ImageSet) -> None:
    images = torch.cat([small.train_images, small.test_images]).flatten(1)
    assert len(images.unique(dim=0)) == 300
    assert not torch.equal(small.train_labels[:100], small.test_labels)


def test_another_seed_gives_other_images_and_labels(small: ImageSet) -> None:
    for seed in (1, -1, 2**63):
        other = make_shapes(200, 100, seed=seed)
        assert not (other.train_images == small.train_images).flatten(1).all(dim=1).any()
        assert not torch.equal(other.train_labels, small.train_labels)


def test_shapes_stand_out_from_the_ground() -> None:
    images = make_shapes(1000, 1, seed=0)
    grey = images.train_images.float().mean(dim=1)
    for label, name in enumerate(images.classes):
        picture = grey[images.train_labels == label].mean(dim=0)  # most shapes are lighter than their ground
        assert picture[8:24, 8:24].mean() > picture[:4].mean() + 3, name


@pytest.mark.parametrize(
    ("train_size", "test_size", "message"),
    [
        (0, 10, r"data\.train_size=0 .*1 to 50000.*[Ss]et data\.train_size"),
        (50_001, 10, r"data\.train_size=50001 .*1 to 50000"),
        (10, 0, r"data\.test_size=0 .*1 to 10000"),
        (10, 10_001, r"data\.test_size=10001 .*1 to 10000"),
    ],
)
def test_a_size_out_of_range_is_refused(train_size: int, test_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_shapes(train_size, test_size, seed=0)
