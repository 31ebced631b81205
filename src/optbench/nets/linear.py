"""Softmax regression on pixels: the floor that a network has to beat."""

import math

from torch import Tensor, nn

from optbench.nets.initialization import keras_dense


class Linear(nn.Module):
    """Images `(B, C, H, W)` in, logits `(B, classes)` out."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.head = keras_dense(nn.Linear(math.prod(image_shape), classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))
