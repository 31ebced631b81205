import sys

import pytest
import torch
from omegaconf import OmegaConf

from optbench.training.build import set_up_libraries


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_freed_memory_is_kept_for_the_next_step():
    import resource

    def pages_cleared() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10_000_000)  # 40 MB are 9,766 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    set_up_libraries(OmegaConf.create({"seed": 0, "matmul_precision": "highest"}))
    assert min(pages_cleared() for _ in range(20)) < 100  # not each time: other objects may take a part of the block
