"""Learning-rate schedules that torch.optim.lr_scheduler lacks."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float, final_factor: float) -> LambdaLR:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017) to `final_factor` x lr at `total_steps`.

    Args:
        warmup: the part of all steps that warms up, in [0, 1).
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"scheduler.warmup={warmup} must lie in [0, 1): it is the part of all steps that warms up.")
    if not 0 <= final_factor <= 1:
        raise ValueError(f"scheduler.final_factor={final_factor} must lie in [0, 1].")
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
