import random

import numpy as np
import pytest
import torch

from optbench.training.randomness import mix, reseed


def test_a_seed_is_that_of_earlier_versions():
    """As `hash(numbers) & (2**63 - 1)` gave it in CPython 3.11: the numbers of a seed stay what they were."""
    assert mix(0, 0, 0, 0) == 5997146865798422254 == hash((0, 0, 0, 0)) & (2**63 - 1)
    assert mix(1, 1, 3, -1) == hash((1, 1, 3, -1)) & (2**63 - 1)
    assert (
        len({mix(seed, 0, rank, batch) for seed in range(10) for rank in range(4) for batch in range(-1, 50)}) == 2040
    )
    assert all(0 <= mix(seed, 1, 0, 7) < 2**63 for seed in range(100))


def test_a_step_draws_from_every_generator_the_same_again():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    reseed(mix(3, 0, 0, 1), torch.device("cpu"))
    first = draw()
    reseed(mix(3, 0, 0, 2), torch.device("cpu"))
    other = draw()
    reseed(mix(3, 0, 0, 1), torch.device("cpu"))
    assert draw() == first and not set(first) & set(other)
    assert torch.initial_seed() == mix(3, 0, 0, 1)  # as torch.manual_seed would have it


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU")
def test_a_step_on_a_gpu_draws_from_its_generator():
    device = torch.device("cuda", 0)
    reseed(5, device)
    first = torch.rand(3, device=device)
    torch.cuda.manual_seed(5)
    assert torch.equal(first, torch.rand(3, device=device))
