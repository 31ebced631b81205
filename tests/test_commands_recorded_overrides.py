"""What a recorded sweep may set; `test_records_trust.py` types the commands."""

from pathlib import Path

import pytest

from optbench.commands.recorded_overrides import check_overrides
from optbench.commands.resume import SWEEP, command

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


def test_settings_that_are_typed_again_are_trusted(tmp_path):
    task = ["optimizer=adam,sgd", "logger.csv.path=/elsewhere/metrics.csv"]
    (tmp_path / SWEEP).write_text(
        f"hydra: {{overrides: {{hydra: [], task: {task}}}, sweeper: {{_target_: GridSweeper}}, "
        "job: {config_name: train}}\n"
    )
    with pytest.raises(ValueError, match=r"If you trust it, type all settings of the sweep again in this command\.$"):
        command(["-m", f"resume={tmp_path}"])
    assert command(["-m", f"resume={tmp_path}", *task]) == ["-m", *task, f"hydra.sweep.dir='{tmp_path}'"]
