"""A small convolutional network that learns fast: airbench94's (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds")."""

from typing import Any

import torch
from torch import Tensor, nn

from optbench.records.wording import is_number

# the new batch has 0.4 of the average: few steps are enough for it
BATCHNORM: dict[str, Any] = {"affine": False, "eps": 1e-12, "momentum": 0.4}
PATCH = 2  # pixels a side of what the first layer sees


class AirBench(nn.Module):
    """Images `(B, C, H, W)` in, logits `(B, classes)` out; for images of at least 9 pixels a side.

    A first layer that whitens patches of 2 x 2 pixels: its filters are the principal components of the training images'
    patches, each with both signs, and stay as they are. Then a group for each entry of `widths`, which halves the side:
    convolution, pooling, BatchNorm, GELU, convolution, BatchNorm, GELU. BatchNorm shifts but does not scale. Then the
    largest value of each channel, and a linear map.

    Args:
        scale: of the logits; a ninth keeps them small as training starts.

    Raises:
        ValueError: for an empty list, a width below 1, a scale that is not above 0, or images that pooling would
            leave nothing of.
    """

    filters: Tensor

    def __init__(self, image_shape: tuple[int, int, int], classes: int, widths: list[int], scale: float) -> None:
        super().__init__()
        if not isinstance(widths, list) or not widths or not all(type(width) is int and width > 0 for width in widths):
            raise ValueError(
                f"model.widths={widths} must be a list of whole numbers of at least 1, such as [64, 256, 256]."
            )
        if not is_number(scale) or scale <= 0:
            raise ValueError(f"model.scale={scale} must be a number above 0, such as 0.1111: it multiplies the logits.")
        channels, height, width = image_shape
        least = 2 ** len(widths) + 1
        if min(height, width) < least:
            raise ValueError(
                f"model.widths={widths} halves the images {len(widths)} times and needs at least {least} x {least} "
                f"pixels; these have {height} x {width}. Use fewer widths, or larger images."
            )
        features = 2 * channels * PATCH**2
        self.register_buffer("filters", torch.zeros(features, channels, PATCH, PATCH))  # see `initialize`
        self.bias = nn.Parameter(torch.zeros(features))
        groups: list[nn.Module] = []
        for size in widths:
            groups.append(group(features, size))
            features = size
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(features, classes, bias=False)
        self.scale = scale

    def initialize(self, images: Tensor) -> None:
        """Take the filters from the patches of training images `(N, C, H, W)`, as the network will see them."""
        with torch.no_grad():
            # its last bits depend on the number of threads, and of grey images some components depend on them alone
            covariance = covariance_of_patches(images).mul_(2**30).round_().div_(2**30)
            variances, components = torch.linalg.eigh(covariance)
            # eigh leaves the sign open: a library's next version may choose another
            components = components * components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
            whitening = (components / (variances + 5e-4).sqrt()).T.reshape(-1, *self.filters.shape[1:])
            self.filters.copy_(torch.cat([whitening, -whitening]))

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        features = nn.functional.gelu(nn.functional.conv2d(images, self.filters, self.bias))
        return self.head(self.groups(features).amax((2, 3))) * self.scale  # (B, widths, h, w) -> (B, widths)


def covariance_of_patches(images: Tensor) -> Tensor:
    """Of the C x 4 values of a patch; a few images at a time, because all patches take eight times their memory."""
    size, count = images.shape[1] * PATCH**2, 0
    total, products = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for part in images.split(50):
        patches = nn.functional.unfold(part.double(), PATCH)  # (N, C x 4, places)
        patches = patches.transpose(0, 1).flatten(1)  # (C x 4, N x places)
        total, products, count = total + patches.sum(1), products + patches @ patches.T, count + patches.shape[1]
    return (products - total.outer(total) / count) / (count - 1)


def group(before: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(before, size),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(size, **BATCHNORM),
        Shift(size),
        nn.GELU(),
        convolution(size, size),
        nn.BatchNorm2d(size, **BATCHNORM),
        Shift(size),
        nn.GELU(),
    )


def convolution(before: int, size: int) -> nn.Conv2d:
    """3 x 3, which first passes its input on unchanged, as far as it has filters for that."""
    layer = nn.Conv2d(before, size, 3, padding=1, bias=False)  # BatchNorm has the bias
    nn.init.dirac_(layer.weight[:before].data)
    return layer


class Shift(nn.Module):
    """Adds a number of its own to each channel of `(B, C, H, W)`: the bias of a BatchNorm that has none.

    The number is 8 times its parameter. So is the gradient: SGD trains the number at 64 times the learning rate, as
    Jordan's does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return features + 8 * self.bias.view(-1, 1, 1)
