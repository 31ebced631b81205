import copy
import os
import shutil
import subprocess

import pytest
import torch
from torch import nn

from conftest import PROJECT, toy_trainer
from optbench.training import provenance
from optbench.training.memory import keep_freed
from optbench.training.provenance import weights_sha256


def test_the_weights_hash_tells_every_change():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    found = [weights_sha256(net)]
    assert weights_sha256(net) == found[0]
    with torch.no_grad():
        net[0].weight[1, 2] += 1e-6
        found.append(weights_sha256(net))
        net[0].bias[0] = 0
        found.append(weights_sha256(net))
        net[1].running_mean[0] = 1
        found.append(weights_sha256(net))
        net[1].num_batches_tracked += 1
        found.append(weights_sha256(net))
    found.append(weights_sha256(copy.deepcopy(net).double()))
    renamed = nn.Sequential()
    for name, module in zip(("first", "second"), net, strict=True):
        renamed.add_module(name, module)
    found.append(weights_sha256(renamed))
    assert len(set(found)) == len(found) == 7


def test_parameters_are_counted_by_what_trains():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight.requires_grad_(False)
    assert provenance.count_parameters(net) == {"trainable": 6 + 2 + 4 + 2, "statistics": 4}


def test_what_computed_is_described(tmp_path):
    device = provenance.describe_device(toy_trainer())
    assert (device["accelerator"], device["devices"], device["precision"]) == ("cpu", 1, "32-true")
    assert device["name"] and device["threads"] == torch.get_num_threads()
    assert provenance.versions()["torch"].startswith(torch.__version__.split("+")[0])
    assert len(provenance.describe_git(PROJECT).get("commit", "0" * 40)) == 40
    assert provenance.describe_git(tmp_path) == {}
    assert provenance.versions() is provenance.versions()  # a process looks once, as for the hash of its code


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores it may use")
def test_the_cores_that_a_run_may_use(monkeypatch):
    def told(*cores: int) -> str:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cores))
        return provenance.describe_device(toy_trainer())["cores"]

    assert told(0, 1, 2, 3, 8) == "0-3,8" and told(5) == "5" and told(1, 3, 4) == "1,3-4"


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_commit_and_whether_tracked_files_differ(tmp_path):
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True).stdout

    def found() -> dict:
        provenance.describe_git.cache_clear()
        return provenance.describe_git(tmp_path)

    git("init")
    (tmp_path / "a.py").write_text("a = 1\n")
    git("add", "a.py")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD").strip()
    (tmp_path / "untracked.py").write_text("")
    assert found() == {"commit": commit, "dirty": False} and len(commit) == 40
    (tmp_path / "a.py").write_text("a = 2\n")
    assert provenance.describe_git(tmp_path)["dirty"] is False  # what a process runs does not change meanwhile
    assert found() == {"commit": commit, "dirty": True}
    assert provenance.peak_memory_mb(torch.device("cpu"))["process"] > 50


def test_peak_memory_is_that_of_one_run():
    """A run of a sweep must not show the peak of the run before it in the same process."""
    keep_freed()  # as every run does
    before = provenance.peak_memory_mb(torch.device("cpu"))["process"]
    big = torch.ones(100_000_000)  # 400 MB
    high = provenance.peak_memory_mb(torch.device("cpu"))["process"]
    assert high > before + 200 or high > big.nbytes / 1e6
    del big
    provenance.reset_peak_memory()
    assert 50 < provenance.peak_memory_mb(torch.device("cpu"))["process"] < high - 200


def test_the_code_hash_tells_what_trains(tmp_path):
    for folder in ("comparison", "callbacks", "data", "distributed", "nets", "training"):
        (tmp_path / folder).mkdir()
    (tmp_path / "run.py").write_text("a = 1\n")
    net = tmp_path / "nets" / "net.py"
    net.write_text('def f(x):\n    """Text."""\n    if x:\n        raise ValueError("no")\n    return 2 * x\n')
    before = provenance.code_sha256(tmp_path)
    (tmp_path / "comparison" / "page.py").write_text("b = 1\n")
    (tmp_path / "evaluation.py").write_text("b = 1\n")
    assert provenance.code_sha256(tmp_path) == before  # comparing does not train
    net.write_text('def f(x):  # words\n  if x:\n    raise ValueError(f"not {x}")\n  log.info("no")\n  return 2 * x\n')
    assert provenance.code_sha256(tmp_path) == before  # neither do words
    net.write_text("def f(x):\n    if x:\n        raise ValueError\n    return 3 * x\n")
    changed = provenance.code_sha256(tmp_path)
    net.rename(tmp_path / "nets" / "other.py")
    renamed = provenance.code_sha256(tmp_path)
    (tmp_path / "run.py").write_text("a = 2\n")
    assert len({before, changed, renamed, provenance.code_sha256(tmp_path)}) == 4
