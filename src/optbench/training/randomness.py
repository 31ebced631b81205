"""Random numbers of training: a function of seed, process and batch, not of what was drawn before."""

import random

import numpy as np
import pytorch_lightning as pl
import torch

from optbench.training.lightning_internals import batches_trained


def batch_seed(seed: int, trainer: pl.Trainer, stream: int = 0) -> int:
    """A seed below 2**63 for the batch that this process trains on; streams have nothing to do with each other."""
    return mix(seed, stream, trainer.global_rank, batches_trained(trainer))


def mix(*numbers: int) -> int:
    """One number below 2**63 from several, each from -1 to 2**61 - 2: the rounds of xxHash64.

    Earlier versions had `hash(numbers) & (2**63 - 1)`. This is the same number, also with -1 (before the first batch),
    but it no longer rests on how CPython hashes a tuple.
    """
    mask, prime1, prime2, prime5 = 2**64 - 1, 11400714785074694791, 14029467366897019727, 2870177450012600261
    total = prime5
    for number in numbers:
        total = total + (-2 if number == -1 else number) * prime2 & mask
        total = (total << 31 | total >> 33) & mask
        total = total * prime1 & mask
    return (total + (len(numbers) ^ prime5 ^ 3527539) & mask) & (2**63 - 1)


def reseed(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from: of the CPU, of the device it computes on, Python's and NumPy's.

    Not `torch.manual_seed`, which also visits every other device, and formats a traceback before CUDA is in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
