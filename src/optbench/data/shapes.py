"""The embedded data set, `data=shapes`: ten shapes on clutter in the exact form of CIFAR-10, the same everywhere."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.data.imageset import ImageSet

# The bytes are a contract, pinned by tests/test_data_shapes.py. Random numbers are hashes of integers, and floats meet
# only + - * / sqrt, min, max and floor, element by element: IEEE 754 rounds these alike on every machine. No sin, exp,
# sum or matmul here: their last bits depend on the processor.

Floats = NDArray[np.floating[Any]]  # float32 throughout, though mypy takes float32 - 0.5 for float64
Words = NDArray[np.uint64]

SIDE = 32
MAX_TRAIN, MAX_TEST = 50_000, 10_000
CHUNK = 50  # images drawn at once, of no effect on them: small enough for the cache, large enough for numpy
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's step

# The middle of a pixel, with the image spanning -1 to 1.
X = ((np.arange(SIDE, dtype=np.float32) + 0.5) * (2 / SIDE) - 1).reshape(1, 1, SIDE)
Y = X.reshape(1, SIDE, 1)


def make_shapes(train_size: int, test_size: int, seed: int) -> ImageSet:
    """Draws the first `train_size` of 50,000 training images and the first `test_size` of 10,000 test images.

    An image depends on `seed`, its set and its index alone, and every ten images in a row hold each class once.

    About as hard as CIFAR-10 for a multilayer perceptron. One run each, data and training seed 0, 45,000 training
    images, [-1, 1], no augmentation, batch 128, the last weights on all 10,000 test images, with
    `python src/train.py data=shapes test_weights=last` and:

        model=linear callbacks.early_stopping=null trainer.max_epochs=10         29.0 %  (train 42.9, validation 28.4)
        experiment=exercise                     (stops after 12 epochs)          59.0 %  (train 82.8, validation 60.2)
        model=convnet optimizer.lr=0.01 scheduler=onecycle trainer.max_epochs=2  86.5 %  (train 82.7, validation 87.2)

    The class exercise's MLP overfits visibly: its validation loss is lowest after 7 epochs, 1.236, and 1.433 after 11.

    Raises ValueError for a size out of range.
    """
    for key, size, most in (("data.train_size", train_size, MAX_TRAIN), ("data.test_size", test_size, MAX_TEST)):
        if not 1 <= size <= most:
            raise ValueError(f"{key}={size} cannot be drawn: data=shapes has 1 to {most}. Set {key} in that range.")
    return ImageSet(*_images_and_labels(train_size, seed, 0), *_images_and_labels(test_size, seed, 1), tuple(SHAPES))


def _images_and_labels(size: int, seed: int, split: int) -> tuple[Tensor, Tensor]:
    tens = np.arange(-(-size // 10), dtype=np.uint64)
    labels = Dice(seed, split + 2, tens).words(10).argsort(axis=1, kind="stable").ravel()[:size].astype(np.int64)
    images = np.empty((size, 3, SIDE, SIDE), np.uint8)

    def fill(start: int) -> None:
        indices = np.arange(start, min(start + CHUNK, size))
        images[indices] = _draw(Dice(seed, split, indices.astype(np.uint64)), labels[indices])

    with ThreadPoolExecutor(4) as threads:  # numpy lets go of the interpreter while it computes
        list(threads.map(fill, range(0, size, CHUNK)))
    return torch.from_numpy(images), torch.from_numpy(labels)


class Dice:
    """Random draws for a batch of images: each is a hash (splitmix64) of seed, stream, index and number of the draw."""

    def __init__(self, seed: int, stream: int, indices: Words) -> None:
        key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(stream))
        self.keys = _mix(key + indices * GOLDEN)[:, None]
        self.drawn = 0

    def words(self, count: int) -> Words:
        numbers = np.arange(self.drawn + 1, self.drawn + 1 + count, dtype=np.uint64)
        self.drawn += count
        return _mix(self.keys + numbers * GOLDEN)  # (images, count)

    def uniform(self, low: float, high: float) -> Floats:
        return self._fractions(1).reshape(-1, 1, 1) * (high - low) + low

    def colour(self, low: float, high: float, side: int = 1) -> Floats:
        fractions = self._fractions(3 * side * side).reshape(-1, 3, side, side)
        return fractions * (high - low) + low

    def noise(self) -> Floats:
        """Bell-shaped within -1 to 1: the sum of two bytes a value."""
        octets = self.words(3 * SIDE * SIDE // 4).astype("<u8").view(np.uint8).reshape(-1, 2, 3, SIDE, SIDE)
        return (octets[:, 0].astype(np.float32) + octets[:, 1]) * (1 / 255) - 1

    def _fractions(self, count: int) -> Floats:
        return (self.words(count) >> np.uint64(40)).astype(np.float32) * 2.0**-24


def _mix(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _draw(dice: Dice, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Ground, clutter, the shape, a bar across it, noise; every range was tuned for the figures of `make_shapes`."""
    brightness = dice.uniform(0.25, 0.75)[:, None]
    ground = brightness + dice.colour(-0.2, 0.2) + TINTS.T[labels][:, :, None, None]
    image = ground + _clouds(dice, 0.15) + _stripes(dice, 0.15)
    for _ in range(2):
        _paint(image, _box(dice, (0.08, 0.3), (0.08, 0.3)), dice.colour(0, 1))

    x, y = _frame(dice, shift=0.3, tilt=0.35)  # tilt: 39 degrees either way
    radius = dice.uniform(0.34, 0.62)
    x, y = x / radius, y / radius
    distance = np.empty_like(x)
    for label, shape in enumerate(SHAPES.values()):
        mine = labels == label
        distance[mine] = shape(x[mine], y[mine]) * radius[mine]
    sign = np.where(dice.uniform(0, 1) < 0.75, np.float32(1), np.float32(-1))  # mostly lighter than the ground
    contrast = (sign * dice.uniform(0.25, 0.5))[:, None]
    _paint(image, distance, ground + contrast + dice.colour(-0.2, 0.2) + _stripes(dice, 0.15))

    _paint(image, _box(dice, (0.04, 0.08), (0.2, 0.6)), dice.colour(0, 1))
    image += dice.noise() * 0.26
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _frame(dice: Dice, shift: float, tilt: float) -> tuple[Floats, Floats]:
    """Coordinates about a random centre, turned by a random angle whose half has a tangent up to `tilt`."""
    t = dice.uniform(-tilt, tilt)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    x, y = X - dice.uniform(-shift, shift), Y - dice.uniform(-shift, shift)
    return cos * x + sin * y, cos * y - sin * x


def _paint(image: Floats, distance: Floats, colour: Floats) -> None:
    """Lays `colour` (N, 3, ...) over `image` where `distance` (N, 32, 32) is negative, with a soft edge of a pixel."""
    cover = np.clip(0.5 - distance * (SIDE / 2), 0, 1)[:, None]
    image += cover * (colour - image)


def _clouds(dice: Dice, strength: float) -> Floats:
    """5 x 5 random colours, enlarged bilinearly."""
    places = (np.arange(SIDE, dtype=np.float32) + 0.5) * (4 / SIDE)
    left = np.floor(places).astype(np.int64)
    far = places - left.astype(np.float32)
    grid = dice.colour(-strength, strength, side=5)
    rows = grid[..., left] * (1 - far) + grid[..., left + 1] * far  # (N, 3, 5, 32)
    return rows[:, :, left] * (1 - far)[:, None] + rows[:, :, left + 1] * far[:, None]


def _stripes(dice: Dice, strength: float) -> Floats:
    x, _ = _frame(dice, shift=1, tilt=1)
    x = x * dice.uniform(1, 4)
    triangle_wave = abs(x - np.floor(x) - 0.5) * 4 - 1
    return triangle_wave[:, None] * dice.colour(-strength, strength)


def _box(dice: Dice, half_widths: tuple[float, float], half_heights: tuple[float, float]) -> Floats:
    x, y = _frame(dice, shift=1, tilt=1)
    return np.maximum(abs(x) - dice.uniform(*half_widths), abs(y) - dice.uniform(*half_heights))


# The shapes: signed distance to the outline, negative within, of a figure that fills the unit circle; y points down.


def _arrow(x: Floats, y: Floats) -> Floats:
    shaft = np.maximum(abs(x) - 0.22, abs(y - 0.35) - 0.55)
    head = np.maximum(0.7071 * (abs(x) - y - 0.95), y + 0.1)
    return np.minimum(shaft, head)


def _heart(x: Floats, y: Floats) -> Floats:
    x, y = abs(x), y - 0.1
    a, b = x - 0.4, y + 0.4
    return np.minimum(0.7071 * (x + abs(y) - 0.8), np.sqrt(a * a + b * b) - 0.5657)  # a square on its corner, two discs


def _star(x: Floats, y: Floats) -> Floats:
    x = abs(x)
    largest, second = np.maximum(y, -0.5878 * x - 0.809 * y), np.minimum(y, -0.5878 * x - 0.809 * y)
    for u, v in ((0.5878, -0.809), (0.9511, 0.309), (-0.9511, 0.309)):
        line = u * x + v * y
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return second - 0.34  # a point of a pentagram is beyond one of its five lines at most


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "arrow": _arrow,
    "circle": lambda x, y: np.sqrt(x * x + y * y) - 0.8,
    "crescent": lambda x, y: np.maximum(np.sqrt(x * x + y * y) - 0.9, 0.7 - np.sqrt((x - 0.45) * (x - 0.45) + y * y)),
    "cross": lambda x, y: np.maximum(np.maximum(abs(x), abs(y)) - 0.85, np.minimum(abs(x), abs(y)) - 0.27),
    "heart": _heart,
    "hourglass": lambda x, y: np.maximum(abs(y) - 0.85, 0.8 * abs(x) - 0.6 * abs(y) - 0.1),
    "ring": lambda x, y: abs(np.sqrt(x * x + y * y) - 0.65) - 0.2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.7,
    "star": _star,
    "triangle": lambda x, y: np.maximum(y - 0.2, 0.866 * abs(x) - 0.5 * (y - 0.2)) - 0.5,
}

# Each class prefers a ground, as ships prefer the sea: what a linear classifier can learn.
TINTS = 0.10 * np.array(
    [
        [1, -1, -1, 1, 1, -1, 1, 0, -1, 0],  # red
        [-1, 1, -1, 1, -1, 1, 0, -1, 1, 0],  # green
        [-1, -1, 1, -1, 1, 1, -1, 1, 0, 0],  # blue
    ],
    np.float32,
)
