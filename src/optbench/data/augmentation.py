"""Augmentation of a whole batch at once, on the device, each image by its own draw."""

import torch
from torch import Tensor


class CropFlip:
    """Zero padding and a random crop of the original size, then a horizontal flip (He et al. 2015, section 4.2).

    Args:
        padding: pixels on each side.
        flip: the probability of a flip.
    """

    def __init__(self, padding: int, flip: float) -> None:
        if not isinstance(padding, int) or padding < 0:
            raise ValueError(f"augmentation.padding={padding} must be a whole number of pixels, at least 0.")
        if not isinstance(flip, int | float) or not 0 <= flip <= 1:
            raise ValueError(f"augmentation.flip={flip} is a probability: it must be in [0, 1].")
        self.padding, self.flip = padding, flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`(B, C, H, W)` in and out, drawn from a CPU generator so that every device sees the same draw.

        After normalisation zero is mid-grey (symmetric) or the mean colour (standard).
        """
        batch, _, height, width = images.shape
        draws = torch.rand(3, batch, generator=generator)
        shift = (draws[:2] * (2 * self.padding + 1)).long().to(images.device, non_blocking=True)
        flipped = (draws[2] < self.flip).to(images.device, non_blocking=True)
        padded = torch.nn.functional.pad(images, (self.padding,) * 4)
        rows = shift[0, :, None] + torch.arange(height, device=images.device)  # (B, H)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = shift[1, :, None] + torch.where(flipped[:, None], width - 1 - columns, columns)  # (B, W)
        which = torch.arange(batch, device=images.device)[:, None, None]
        # Advanced indices on both sides of the channels put them last: (B, H, W, C)
        return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
