"""A residual MLP: an MLP that is deep, and still learns (Bachmann et al. 2023, "Scaling MLPs")."""

import math

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from optbench.records.wording import is_number


class ResidualMLP(nn.Module):
    """Images `(B, C, H, W)` in, logits `(B, classes)` out; blocks of inverted bottlenecks that add to their input.

    A linear map to `width`; `blocks` times x + down(gelu(up(norm(x)))), where up widens by `expansion`; a last norm and
    a linear map. The last map of a block starts at zero, so the network starts as a linear one.

    Args:
        stochastic_depth: how often the last block is left out for an image in training (Huang et al. 2016); earlier
            blocks in proportion to their place. 0: never.

    Raises:
        ValueError: for a size below 1, or a rate outside [0, 1).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        width: int,
        blocks: int,
        expansion: int,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        for key, value in {"width": width, "blocks": blocks, "expansion": expansion}.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"model.{key}={value} must be a whole number of at least 1.")
        if not is_number(stochastic_depth) or not 0 <= stochastic_depth < 1:
            raise ValueError(
                f"model.stochastic_depth={stochastic_depth} must be in [0, 1): it is how often the last block is left "
                "out in training."
            )
        self.embedding = nn.Linear(math.prod(image_shape), width)
        self.blocks = nn.ModuleList(
            Block(width, expansion, stochastic_depth * (place + 1) / blocks) for place in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.embedding(images.flatten(1))  # (B, C, H, W) -> (B, width)
        for block in self.blocks:
            features = block(features)
        return self.head(self.norm(features))


class Block(nn.Module):
    """What a block adds to its input `(B, width)`, and the sum."""

    def __init__(self, width: int, expansion: int, skipped: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.skip = StochasticDepth(skipped, "row")
        for parameter in self.down.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.skip(self.down(nn.functional.gelu(self.up(self.norm(features)))))
