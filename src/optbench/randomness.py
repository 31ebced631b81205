"""Random numbers of training: a function of the seed, the process and the batch, whatever was drawn before."""

import random

import numpy as np
import pytorch_lightning as pl
import torch


def batch_seed(seed: int, trainer: pl.Trainer, stream: int = 0) -> int:
    """A seed below 2**63 for the batch that this process trains on; streams have nothing to do with each other."""
    return hash((seed, stream, trainer.global_rank, trainer.fit_loop.epoch_loop.total_batch_idx)) & 0x7FFFFFFFFFFFFFFF


def reseed(seed: int) -> None:
    """Seed every global generator: PyTorch's on all devices, Python's and NumPy's."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
