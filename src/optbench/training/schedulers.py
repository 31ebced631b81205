"""Where a configuration becomes a learning-rate schedule, and those that torch.optim.lr_scheduler lacks."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from optbench.records.wording import is_number


def build_scheduler(scheduler: Callable[..., Any], optimizer: Optimizer, total_steps: int) -> tuple[Any, bool]:
    """Call a `_partial_` schedule on an optimizer; and whether it steps every batch, for which it takes `total_steps`.

    Raises:
        ValueError: for what the schedule refuses.
    """
    assert isinstance(scheduler, partial)
    every_batch = "total_steps" in inspect.signature(scheduler.func).parameters
    try:
        return scheduler(optimizer, **({"total_steps": total_steps} if every_batch else {})), every_batch
    except (TypeError, ValueError) as error:
        if str(error).startswith("scheduler."):
            raise
        text = str(error).rstrip(".")
        raise ValueError(f"scheduler: {scheduler.func.__name__} refuses its arguments: {text}.") from error


def why_idle(schedule: Any, lr: float, epochs: int) -> str:
    """Why a schedule can never change a learning rate that starts at `lr` within so many epochs; '' where it can."""
    if not isinstance(schedule, ReduceLROnPlateau):
        return ""
    lowest, first = schedule.min_lrs[0], schedule.patience + 2  # the first epoch is the best so far
    if lowest >= lr:
        return f"scheduler.min_lr={lowest:g} is not below optimizer.lr={lr:g}"
    if lr - max(lr * schedule.factor, lowest) <= schedule.eps:
        return f"its first step down from optimizer.lr={lr:g} is not above scheduler.eps={schedule.eps:g}"
    if epochs <= first:
        return f"it acts after epoch {first} at the earliest, and trainer.max_epochs={epochs}"
    return ""


def cosine_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float, final_factor: float) -> LambdaLR:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017) to `final_factor` x lr at `total_steps`.

    Args:
        warmup: the fraction of all steps that warms up, in [0, 1).
    """
    check_fractions(warmup, final_factor)
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def warmup_stable_decay(
    optimizer: Optimizer, total_steps: int, warmup: float, decay: float, final_factor: float
) -> LambdaLR:
    """Up in a line, then the whole rate, then down in a line to `final_factor` x lr at `total_steps` (Hu et al. 2024).

    Args:
        warmup: the fraction of all steps that warms up, in [0, 1).
        decay: the fraction of all steps that comes down, in (0, 1]. Where both together are more than 1, the rate comes
            down from the end of the warm-up on.
    """
    check_fractions(warmup, final_factor)
    if not (is_number(decay) and 0 < decay <= 1):
        raise ValueError(f"scheduler.decay={decay} must be in (0, 1]: it is the fraction of all steps that comes down.")
    warmup_steps = round(warmup * total_steps)
    decay_steps = min(round(decay * total_steps), total_steps - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        left = min(1.0, max(0, total_steps - step) / max(1, decay_steps))
        return final_factor + (1 - final_factor) * left

    return LambdaLR(optimizer, factor)


def check_fractions(warmup: float, final_factor: float) -> None:
    if not (is_number(warmup) and 0 <= warmup < 1):
        raise ValueError(f"scheduler.warmup={warmup} must be in [0, 1): it is the fraction of all steps that warms up.")
    if not (is_number(final_factor) and 0 <= final_factor <= 1):
        raise ValueError(f"scheduler.final_factor={final_factor} must be in [0, 1].")
