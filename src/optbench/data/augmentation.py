"""Augmentation of a whole batch at once, on the device, each image by its own draw.

What torchvision's transforms draw, they draw once for a batch, so that all its images are changed alike; one image at
a time they take longer than the step that follows (docs/augmentation.md has the times).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import autocontrast, equalize, rgb_to_grayscale

from optbench.records.wording import is_number


class Draws(Generator):
    """The random numbers of one batch, from the CPU, so that every device sees the same ones.

    Attributes:
        alternating: `(B,)` bool, for each image: it changes from one epoch to the next. What it begins with is drawn
            once, from `data.order_seed`: true for about half of the images.
    """

    alternating: Tensor


class Augmentation:
    """One step of augmentation. A subclass overrides `__call__`, and what else differs.

    Attributes:
        on_pixels: whether it gets uint8 pixels, before normalization. Otherwise it gets float32 after it, where 0 is
            mid-grey (symmetric) or the mean colour (standard).
        mixes: whether it changes labels. It then gets them as rows `(B, classes)` that sum to 1, and returns such.
    """

    on_pixels = False
    mixes = False

    def check(self, height: int, width: int) -> None:
        """Raises ValueError for images that it cannot augment."""

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        """`(B, 3, H, W)` and their labels, in and out; what came in stays as it was.

        Every draw is from `generator`, so that runs are paired and resume exactly.
        """
        raise NotImplementedError


def is_probability(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def per_image(numbers: Tensor, images: Tensor) -> Tensor:
    """`(B,)` to `(B, 1, 1, 1)` on the images' device, ready to multiply."""
    return numbers.to(images.device, non_blocking=True).view(-1, 1, 1, 1)


BORDERS = {"zero": "constant", "mirrored": "reflect"}  # as torch.nn.functional.pad calls them


class CropFlip(Augmentation):
    """Padding and a random crop of the original size, then a horizontal flip (He et al. 2015, section 4.2).

    Args:
        padding: pixels on each side.
        flip: the probability of a flip. `alternating`: an image is flipped in every second epoch, about half of the
            images beginning with the first one, so that two epochs show each image both ways (Jordan 2024).
        borders: what the padding is: `zero`, or `mirrored` pixels of the image.
    """

    def __init__(self, padding: int, flip: float | Literal["alternating"], borders: str) -> None:
        if type(padding) is not int or padding < 0:
            raise ValueError(f"augmentation.crop_flip.padding={padding} must be a whole number of pixels, at least 0.")
        if flip != "alternating" and not is_probability(flip):
            raise ValueError(f"augmentation.crop_flip.flip={flip} must be a probability in [0, 1], or alternating.")
        if borders not in BORDERS:
            raise ValueError(f"augmentation.crop_flip.borders={borders} is not known: use {' or '.join(BORDERS)}.")
        self.padding, self.flip, self.borders = padding, flip, borders

    def check(self, height: int, width: int) -> None:
        if self.borders == "mirrored" and self.padding >= min(height, width):
            raise ValueError(
                f"augmentation.crop_flip.padding={self.padding}: mirrored borders must be narrower than the images, "
                f"which are {height} x {width} pixels. Use at most augmentation.crop_flip.padding="
                f"{min(height, width) - 1}, or augmentation.crop_flip.borders=zero."
            )

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = images.shape
        draws = torch.rand(3, batch, generator=generator)
        shift = (draws[:2] * (2 * self.padding + 1)).long().to(images.device, non_blocking=True)
        flipped = generator.alternating if isinstance(self.flip, str) else draws[2] < self.flip
        flipped = flipped.to(images.device, non_blocking=True)
        padded = F.pad(images, (self.padding,) * 4, BORDERS[self.borders])
        rows = shift[0, :, None] + torch.arange(height, device=images.device)  # (B, H)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = shift[1, :, None] + torch.where(flipped[:, None], width - 1 - columns, columns)  # (B, W)
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, H, W), of the padded image as one row
        # gather is five times as fast as indices for batch, row and column
        cut = padded.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, channels, -1))
        return cut.view(images.shape), labels


class Cutout(Augmentation):
    """A square of each image becomes 0 (DeVries & Taylor 2017). Its centre is any pixel: it may reach beyond the edge.

    Args:
        size: its side, in pixels.
        probability: that an image has one.
    """

    def __init__(self, size: int, probability: float) -> None:
        if type(size) is not int or size < 1:
            raise ValueError(f"augmentation.cutout.size={size} must be a whole number of pixels, at least 1.")
        if not is_probability(probability):
            raise ValueError(f"augmentation.cutout.probability={probability} is a probability: it must be in [0, 1].")
        self.size, self.probability = size, probability

    def check(self, height: int, width: int) -> None:
        if self.size > min(height, width):
            raise ValueError(
                f"augmentation.cutout.size={self.size} is larger than the images, which are {height} x {width} pixels. "
                f"Use at most augmentation.cutout.size={min(height, width)}; half of that is usual."
            )

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        batch, _, height, width = images.shape
        draws = torch.rand(3, batch, generator=generator)
        centres = (draws[:2] * torch.tensor([[height], [width]])).long()
        centres[:, draws[2] >= self.probability] = 2 * (height + width)  # too far away to be seen
        top, left = (centres - self.size // 2).to(images.device, non_blocking=True)
        rows = torch.arange(height, device=images.device) - top[:, None]  # (B, H)
        columns = torch.arange(width, device=images.device) - left[:, None]  # (B, W)
        inside = [(part >= 0) & (part < self.size) for part in (rows, columns)]
        return images.masked_fill(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0), labels


class MixUp(Augmentation):
    """Each image and label become a mixture with the one before in the batch, which is shuffled (Zhang et al. 2018).

    Args:
        alpha: the share is drawn from Beta(alpha, alpha), once for a batch: near 0 or 1 where alpha is small, and
            anything with 1.
    """

    mixes = True
    name, transform = "mixup", v2.MixUp

    def __init__(self, alpha: float) -> None:
        if not is_number(alpha) or alpha <= 0:
            raise ValueError(
                f"augmentation.{self.name}.alpha={alpha} must be a number above 0, for example 0.2 or 1; "
                f"augmentation.{self.name}=null mixes nothing."
            )
        self.mix = self.transform(alpha=float(alpha))

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the generator of the process
            torch.default_generator.manual_seed(seed)
            images, labels = self.mix(images, labels)
        return images, labels


class CutMix(MixUp):
    """A box of each image comes from the one before in the batch, and its label by the box's share (Yun et al. 2019).

    Args:
        alpha: the share that stays is drawn from Beta(alpha, alpha), the box's place evenly, both once for a batch.
    """

    name, transform = "cutmix", v2.CutMix


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in an order that is drawn once for a batch.

    Args:
        brightness, contrast, saturation: each image's factor is drawn evenly from 1 ± this, and is at least 0.
        hue: the turn of each image's colours is drawn evenly from ± this; 0.5 is half a circle.
    """

    on_pixels = True

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        for name, value in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
            if not is_number(value) or value < 0:
                raise ValueError(f"augmentation.color_jitter.{name}={value} must be a number of at least 0.")
        if not is_number(hue) or not 0 <= hue <= 0.5:
            raise ValueError(f"augmentation.color_jitter.hue={hue} must be in [0, 0.5].")
        self.ranges = [
            (change_brightness, max(0.0, 1 - brightness), 1 + brightness),
            (change_contrast, max(0.0, 1 - contrast), 1 + contrast),
            (change_saturation, max(0.0, 1 - saturation), 1 + saturation),
            (turn_hue, -hue, hue),
        ]

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(self.ranges), generator=generator).tolist()
        draws = torch.rand(len(self.ranges), len(images), generator=generator)
        for k in order:
            change, low, high = self.ranges[k]
            if low < high:
                images = change(images, per_image(low + (high - low) * draws[k], images))
        return images, labels


# Each takes uint8 images (B, 3, H, W) and a number for each of them, (B, 1, 1, 1), to uint8 images. The results are
# those of torchvision's functions of a single image and number.


def change_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return to_pixels(images * factor)


def change_contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = rgb_to_grayscale(images).float().mean((1, 2, 3), keepdim=True)
    return to_pixels((images * factor).add_(mean * (1 - factor)))  # lerp is slow with one number for a whole image


def change_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return to_pixels(torch.lerp(rgb_to_grayscale(images).float(), images.float(), factor))


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """By a fraction of a circle, -0.5 to 0.5. The largest and the smallest channel of a pixel keep their values."""
    red, green, blue = images.float().unbind(1)  # (B, H, W)
    high = torch.maximum(torch.maximum(red, green), blue)  # four times as fast as aminmax
    spread = high - torch.minimum(torch.minimum(red, green), blue)
    sector = torch.where(
        high == red, green - blue, torch.where(high == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    hue = sector.div_(spread.clamp_min(1)).add_(6 * turn[:, 0])  # six sectors are a circle
    channels = []
    for start in (5, 3, 1):  # red, green, blue: 0 and 4 sectors from there it begins and ends to shrink
        place = hue.add(start + 6).div_(6).frac_().mul_(6)  # 0 to 6, of a positive number
        share = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append(high - share * spread)
    return to_pixels(torch.stack(channels, 1).round_())


def change_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """The outermost pixels stay."""
    pixels = images.float()
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]).div_(13).expand(3, 1, 3, 3)
    kernel = kernel.to(images.device, non_blocking=True)
    smooth = F.conv2d(pixels, kernel, groups=3).round_()
    inner = pixels[:, :, 1:-1, 1:-1]
    inner.copy_(torch.lerp(smooth, inner, factor))
    return to_pixels(pixels)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the first bits of each pixel stay."""
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Pixels from the threshold up (1 is the brightest) are inverted."""
    return torch.where(images >= 255 * threshold, 255 - images, images)


def to_pixels(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def warp(
    images: Tensor,
    turn: Tensor | float = 0.0,
    shear_x: Tensor | float = 0.0,
    shear_y: Tensor | float = 0.0,
    right: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
) -> Tensor:
    """Turned anticlockwise by radians about the centre, sheared about the upper left corner, moved by pixels.

    The nearest pixel, and 0 beyond the edge.
    """
    count, _, height, width = images.shape
    turn, shear_x, shear_y, right, down = (
        torch.zeros(count, device=images.device) + (part.flatten() if isinstance(part, Tensor) else part)
        for part in (turn, shear_x, shear_y, right, down)
    )
    # where each pixel is from, counted from the centre; affine_grid counts in halves of the image
    x = turn.cos(), (shear_x - turn.sin()) * height / width, shear_x * height / width - right * 2 / width
    y = (shear_y + turn.sin()) * width / height, turn.cos(), shear_y * width / height - down * 2 / height
    matrix = torch.stack([*x, *y], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


# Of images, strength (0 to 1), and strength with a random sign.
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "identity": lambda images, *_: images,
    "shear_x": lambda images, _, signed: warp(images, shear_x=0.99 * signed),
    "shear_y": lambda images, _, signed: warp(images, shear_y=0.99 * signed),
    "translate_x": lambda images, _, signed: warp(images, right=(32 * signed).trunc()),
    "translate_y": lambda images, _, signed: warp(images, down=(32 * signed).trunc()),
    "rotate": lambda images, _, signed: warp(images, turn=math.radians(135) * signed),
    "brightness": lambda images, _, signed: change_brightness(images, 1 + 0.99 * signed),
    "saturation": lambda images, _, signed: change_saturation(images, 1 + 0.99 * signed),
    "contrast": lambda images, _, signed: change_contrast(images, 1 + 0.99 * signed),
    "sharpness": lambda images, _, signed: change_sharpness(images, 1 + 0.99 * signed),
    "posterize": lambda images, strength, _: posterize(images, (8 - 6 * strength).round()),
    "solarize": lambda images, strength, _: solarize(images, 1 - strength),
    "autocontrast": lambda images, *_: autocontrast(images),
    "equalize": lambda images, *_: equalize(images),
}


class TrivialAugment(Augmentation):
    """One of 14 operations with one strength, both drawn evenly for each image (Müller & Hutter 2021, wide space).

    As in torchvision's TrivialAugmentWide, a warped image takes the nearest pixels, and is black beyond the edge.

    Args:
        strengths: how many there are, from none to the strongest.
    """

    on_pixels = True

    def __init__(self, strengths: int) -> None:
        if type(strengths) is not int or strengths < 2:
            raise ValueError(
                f"augmentation.trivial_augment.strengths={strengths} must be a whole number of at least 2, from no "
                "change to the strongest."
            )
        self.strengths = strengths

    def check(self, height: int, width: int) -> None:
        if min(height, width) < 3:
            raise ValueError(
                "augmentation.trivial_augment sharpens pixels by their neighbours: it needs images of at least 3 x 3 "
                f"pixels; these have {height} x {width}. Use augmentation=crop_flip, or larger images."
            )

    def __call__(self, images: Tensor, labels: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        batch = len(images)
        which = torch.randint(len(OPERATIONS), (batch,), generator=generator)
        strength = torch.randint(self.strengths, (batch,), generator=generator) / (self.strengths - 1)  # 0 to 1
        sign = 2 * torch.randint(2, (batch,), generator=generator) - 1
        order, counts = which.argsort(stable=True), which.bincount(minlength=len(OPERATIONS)).tolist()
        parts = images.index_select(0, order.to(images.device, non_blocking=True)).split(counts)
        strengths, signed = (per_image(part[order], images).split(counts) for part in (strength, sign * strength))
        changed = torch.cat(
            [
                operation(*part) if len(part[0]) else part[0]
                for operation, *part in zip(OPERATIONS.values(), parts, strengths, signed, strict=True)
            ]
        )
        return changed.index_select(0, order.argsort().to(images.device, non_blocking=True)), labels
