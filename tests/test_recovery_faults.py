"""A short form of benchmarks/faults.py: real processes, real signals."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conftest import PROJECT, shell
from optbench.commands import resolvers  # noqa: F401


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc for processes that stayed behind")
def test_killed_and_terminated_runs_end_as_if_nothing_had_happened():
    result = shell(
        *(sys.executable, str(PROJECT / "benchmarks" / "faults.py"), "--only", "kills,terms"),
        *("--kills", "1", "--terms", "1", "--seed", "5"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = dict(line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| "))
    assert (figures["SIGKILL to a run"], figures["SIGTERM to a run"]) == ("1", "1")
    assert (figures["finished work lost"], figures["results that differ"]) == ("0", "0")
    assert int(figures["results compared"]) >= 2


def test_fifty_runs_of_the_same_second_get_fifty_folders():
    text = (PROJECT / "configs" / "train.yaml").read_text().replace("${now:%Y-%m-%d_%H-%M-%S}", "2026-01-02_03-04-05")
    hydra = OmegaConf.to_container(OmegaConf.create(text), resolve=False)["hydra"]
    names = set()
    for _ in range(50):
        cfg = OmegaConf.create({"task": "train", "single": hydra["run"]["dir"], "sweep": hydra["sweep"]["dir"]})
        assert cfg.single == cfg.single  # one run always means the same folder
        names |= {Path(cfg.single), Path(cfg.sweep)}
    assert len(names) == 100
