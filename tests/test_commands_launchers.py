"""Runs in processes that know nothing but a pickle: SLURM's, with an sbatch and an srun of a few lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins

import typed
from conftest import PROJECT, SMALL

SBATCH = """#!/bin/sh
# The tasks of an array of two at once: in another folder, as somebody else, with no variable of the person who typed.
for task in 0 1; do
    (cd / && env -i PATH="$PATH" HOME=/nowhere SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task \\
        SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_JOB_NAME=optbench sh "$1" > "$1.$task" 2>&1 &)
done
echo Submitted batch job 7
"""
SRUN = """#!/bin/sh
shift 3  # --unbuffered --output <file>
exec "$@"
"""
MAY_DIFFER = {"started", "seconds", "epoch_seconds", "peak_memory_mb"}


def launcher(choice: str, *overrides: str) -> Any:
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", [f"hydra/launcher={choice}", *overrides], return_hydra_config=True)
    return cfg.hydra.launcher


@pytest.mark.filterwarnings("ignore:\\s*'hydra/launcher/ray' is validated")
def test_ray_takes_what_a_person_types():
    keys = launcher("ray", "hydra.launcher.ray.remote.num_gpus=0.25", "hydra.launcher.ray.init.address=auto").ray
    assert launcher("ray").ray.init.address == "local"  # null would join whichever cluster was started here last
    assert (keys.remote.num_gpus, keys.init.address, keys.remote.max_calls) == (0.25, "auto", 1)
    assert str(PROJECT / "src") == keys.init.runtime_env.env_vars.PYTHONPATH


def test_slurm_has_every_key_of_the_plugin():
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    Plugins.instance()
    ours = set(launcher("slurm"))
    assert ours <= set(config.SlurmQueueConf.__dataclass_fields__)
    assert set(config.SlurmQueueConf.__dataclass_fields__) - ours == {
        "cpus_per_gpu", "gpus_per_task", "mem_per_cpu", "mem_per_gpu"  # the same twice: a run is one task
    }  # fmt: skip


def test_a_worker_stands_where_the_command_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1", "task=it's"])
    code = (
        "import os; from optbench.commands import caller; caller.go_there(); "
        "print(os.getcwd(), os.path.expanduser('~'), caller.arguments())"
    )
    variable = launcher("ray").ray.init.runtime_env.env_vars.OPTBENCH_CALLER
    elsewhere = {"HOME": "/nowhere", "PYTHONPATH": str(PROJECT / "src"), "OPTBENCH_CALLER": variable}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=elsewhere, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path} {Path.home()} {sys.argv[1:]}\n", done.stderr


def test_slurm_gives_the_records_of_the_serial_launcher(tmp_path: Path):
    pytest.importorskip("submitit")
    here = tmp_path / "here"
    for name, text in {"sbatch": SBATCH, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    here.mkdir()
    launchers = {
        "serial": ["hydra/launcher=basic"],
        "slurm": ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"],
    }
    for name, overrides in launchers.items():
        arguments = ["-m", *SMALL, "optimizer=adam,sgd", f"hydra.sweep.dir={name}", *overrides]
        result = typed.script("train", *arguments, folder=tmp_path, cwd=here, env=environment).result()
        assert result.returncode == 0, result.stderr + result.stdout
    serial, slurm = (sorted((here / name).glob("[01]_*")) for name in ("serial", "slurm"))
    assert [run.name for run in serial] == [run.name for run in slurm] and len(slurm) == 2
    for ours, theirs in zip(slurm, serial, strict=True):
        assert record(ours) == record(theirs)
        assert (ours / "train.log").read_text().count("epoch   1") == 1


def record(run: Path) -> dict:
    """Without times and places."""

    def timeless(value):
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key not in MAY_DIFFER}
        return value.replace(str(run), "<run>") if isinstance(value, str) else value

    return timeless(json.loads((run / "summary.json").read_text()))
