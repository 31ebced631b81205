"""A short form of benchmarks/faults.py: real processes, real signals."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import typed
from conftest import PROJECT
from optbench.commands import resolvers  # noqa: F401


@pytest.fixture
def faults(monkeypatch):
    """The campaign with processes that are forked, and with runs of a second or two."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    faults = importlib.import_module("faults")

    def launch(self, arguments):
        return typed.script("train", *arguments, folder=self.root, env=self.environment)

    monkeypatch.setattr(faults.Campaign, "launch", launch)
    monkeypatch.setattr(faults, "MOMENTS", (0.1, 1.5))
    monkeypatch.setattr(
        faults, "RUN", [*faults.RUN, "data.train_size=400", "data.test_size=60", "trainer.max_epochs=4"]
    )
    return faults


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc for processes that stayed behind")
def test_killed_and_terminated_runs_end_as_if_nothing_had_happened(faults, monkeypatch, capsys):
    arguments = "--only kills,terms --kills 2 --terms 2 --seed 5"
    monkeypatch.setattr(sys, "argv", ["faults.py", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        faults.main()
    out = capsys.readouterr().out
    assert end.value.code == 0, out
    figures = dict(line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| "))
    assert (figures["SIGKILL to a run"], figures["SIGTERM to a run"]) == ("2", "2")
    assert (figures["finished work lost"], figures["results that differ"]) == ("0", "0")
    assert int(figures["results compared"]) >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc for processes that stayed behind")
def test_a_process_that_stays_behind_is_found(faults, monkeypatch, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    campaign = faults.Campaign(tmp_path, 0)

    def launch(self, arguments):
        return subprocess.Popen(["sh", "-c", arguments[0]], start_new_session=True, cwd=tmp_path)

    monkeypatch.setattr(faults.Campaign, "launch", launch)
    child = "sleep 60 > /dev/null 2>&1 &"
    forked = "setsid sleep 60 > run/output.log 2>&1 &"  # as a run of a pool
    for number, command in enumerate(("true", child, forked)):
        campaign.start(command).wait()
        campaign.nobody_left(tmp_path / "run")
        assert campaign.count["processes left behind"] == number
        campaign.nobody_left(tmp_path / "run")  # it was killed
        assert campaign.count["processes left behind"] == number
        assert capsys.readouterr().out.count("sleep") == (number > 0)


def test_fifty_runs_of_the_same_second_get_fifty_folders():
    text = (PROJECT / "configs" / "train.yaml").read_text().replace("${now:%Y-%m-%d_%H-%M-%S}", "2026-01-02_03-04-05")
    hydra = OmegaConf.to_container(OmegaConf.create(text), resolve=False)["hydra"]
    names = set()
    for _ in range(50):
        cfg = OmegaConf.create({"task": "train", "single": hydra["run"]["dir"], "sweep": hydra["sweep"]["dir"]})
        assert cfg.single == cfg.single  # one run always means the same folder
        names |= {Path(cfg.single), Path(cfg.sweep)}
    assert len(names) == 100
