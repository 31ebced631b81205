"""The processes of a run on several devices: which one this is, and how they add up what each has."""

import logging
import os
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import all_reduce, get_world_size
from torchmetrics.utilities.distributed import gather_all_tensors

from optbench.training.lightning_internals import rank


def is_first() -> bool:
    """Whether this process speaks and writes for all; known before there is a trainer."""
    return rank() == 0


def mute_others() -> None:
    """Every process would print what the first one prints."""
    if not is_first():
        logging.disable()
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gather(part: Tensor) -> Tensor:
    """The rows of every process in their original order, where process r of R has rows r, r + R, r + 2R, ..."""
    if not is_distributed():
        return part
    parts = gather_all_tensors(part)
    whole = part.new_empty((sum(len(p) for p in parts), *part.shape[1:]))
    for number, rows in enumerate(parts):
        whole[number :: len(parts)] = rows
    return whole


def batch_mean(total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and the mean loss of the whole batch, from the sum over this process's `count` images.

    DDP averages the processes' gradients as if each had as many images; in the last batch of an epoch some may have one
    less, or none.
    """
    if not is_distributed():
        mean = total / count
        return mean, mean.detach()
    whole = torch.stack([total.detach(), torch.full_like(total, count)])
    all_reduce(whole)
    return total * (get_world_size() / whole[1]), whole[0] / whole[1]
