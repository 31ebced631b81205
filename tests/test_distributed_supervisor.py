import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from optbench.distributed.supervisor import ProcessFailed, supervise_ranks
from optbench.records.record import RunRecord


def trainer_of(*commands: str) -> Any:
    """A trainer whose launcher has started other processes."""
    started = [subprocess.Popen([sys.executable, "-c", command]) for command in commands]
    return SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=started)))


def test_the_error_of_another_process_takes_the_place_of_its_echo(tmp_path):
    record = RunRecord()
    try:
        raise TypeError("of device 2")
    except TypeError as error:
        record.fail(error)
    record.write(tmp_path)
    trainer = trainer_of("import time; time.sleep(60)", "raise SystemExit(1)")
    started = list(trainer.strategy.launcher.procs)
    with (
        pytest.raises(ProcessFailed, match=r"^The process of device 2 failed\. TypeError: of device 2") as failed,
        supervise_ranks(trainer, tmp_path),
    ):
        raise RuntimeError("Connection closed by peer")
    assert "raise TypeError" in failed.value.__notes__[0]
    assert all(process.poll() for process in started)  # none is left


def test_a_process_that_left_no_record(tmp_path):
    RunRecord().write(tmp_path)
    trainer = trainer_of("import os; os.kill(os.getpid(), 9)")
    with (
        pytest.raises(ProcessFailed, match=r"^The process of device 1 ended with status -9"),
        supervise_ranks(trainer, tmp_path),
    ):
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_of_the_first_process_ends_the_others(tmp_path, error):
    trainer = trainer_of("import time; time.sleep(60)")
    (other,) = trainer.strategy.launcher.procs
    began = time.monotonic()
    with pytest.raises(type(error)), supervise_ranks(trainer, tmp_path):
        raise error
    assert other.poll() == -9
    assert time.monotonic() - began < 10


def test_a_run_that_ends_well_leaves_the_others_to_end_by_themselves(tmp_path):
    trainer = trainer_of("import time; time.sleep(1)")
    (other,) = trainer.strategy.launcher.procs
    with supervise_ranks(trainer, tmp_path):
        pass
    assert other.wait(20) == 0
