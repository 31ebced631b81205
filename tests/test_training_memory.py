import sys

import pytest
import torch
from omegaconf import OmegaConf

from optbench.training.build import set_up_libraries
from optbench.training.memory import give_back

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")


def pages_cleared() -> int:
    """By the system, for a tensor of 40 MB: 9,766 pages if it is new memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_for_the_next_step_until_it_is_given_back():
    set_up_libraries(OmegaConf.create({"seed": 0, "matmul_precision": "highest"}))
    # not each time: other objects may take a part of the block
    assert min(pages_cleared() for _ in range(20)) < 100
    give_back()
    assert pages_cleared() > 9000
