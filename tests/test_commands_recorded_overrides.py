"""What a recorded sweep may set; `test_records_trust.py` types the commands."""

from pathlib import Path

import pytest

from optbench.commands.recorded_overrides import check_overrides

RUN = "torch.utils.collect_env.run"


@pytest.mark.parametrize(
    ("task", "hydra"),
    [
        # together they would let a run build what the record in its folder names
        (["resume=run"], []),
        ([f"trust={RUN}"], []),
        ([f"trust=[{RUN}]"], []),
        ([], ["+hydra.sweeper.params.resume=run"]),
        ([], [f"+hydra.sweeper.params.trust={RUN}"]),
    ],
)
def test_a_recorded_sweep_trusts_nothing(task, hydra):
    with pytest.raises(ValueError, match=r"multirun\.yaml sets .*(resume|trust)=.*, which could run commands\."):
        check_overrides(task, hydra, Path("multirun.yaml"), ())


def test_plain_settings_are_read():
    task = ["optimizer=adam,sgd", "seed=0,1", "resume=null", "trust=[]"]
    hydra = ["hydra/launcher=pool", "hydra.launcher.workers=2", "+hydra.sweeper.params.seed='0,1'"]
    check_overrides(task, hydra, Path("multirun.yaml"), ())
