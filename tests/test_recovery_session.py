"""What surrounds a run; `test_recovery_resume.py` interrupts whole runs."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from optbench.callbacks.epoch_history import EpochHistory
from optbench.records.record import RunRecord
from optbench.recovery.session import Session


def session(folder: Path, record: RunRecord) -> Session:
    return Session(DictConfig({}), folder, record, EpochHistory(), resumed=bool(record.hashes))


def test_a_run_that_is_killed_leaves_what_it_trained_on(tmp_path: Path) -> None:
    """SIGKILL lets nobody write a record: the hashes are there before the first step."""
    session(tmp_path, RunRecord(input={"shape": [3, 8, 8]})).check_hashes({"data": "a"})
    left = RunRecord.read(tmp_path)
    assert (left.status, left.hashes, left.input) == ("running", {"data": "a"}, {"shape": [3, 8, 8]})
    with pytest.raises(ValueError, match=r"the hash of data differs from the one in summary\.json"):
        session(tmp_path, left).check_hashes({"data": "b"})
    assert RunRecord.read(tmp_path).hashes == {"data": "a"}
