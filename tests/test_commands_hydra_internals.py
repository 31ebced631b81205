"""The contract with Hydra and OmegaConf: what `hydra_internals` takes from them is still there and does the same."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from conftest import PROJECT
from optbench.commands import hydra_internals

RESTS = "on which optbench/commands/hydra_internals.py rests: "
HYDRA = f"hydra-core {version('hydra-core')} differs from 1.3.6 to 1.3.8, {RESTS}"
OMEGACONF = f"omegaconf {version('omegaconf')} differs from 2.3, {RESTS}"


def test_the_argument_parser_reads_what_a_person_types():
    args = hydra_internals.parse_arguments(["-m", "--config-name", "train", "optimizer=adam,sgd", "seed=0"])
    found = (args.overrides, args.multirun, args.config_name, args.cfg, args.help, args.hydra_help)
    assert found == (["optimizer=adam,sgd", "seed=0"], True, "train", None, False, False), HYDRA + "get_args_parser."


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("+model.layers=[16 relu,'8']", "model.layers", [["16 relu", "8"]]),
        ("optimizer@other=adam", "optimizer@other", ["adam"]),
        ("a='x','y'", "a", ["x", "y"]),
        ("a={b: 'x'},{b: [\"y\"]}", "a", [{"b": "x"}, {"b": ["y"]}]),
        ("seed=range(0,3)", "seed", [0, 1, 2]),
        ("optimizer=glob(*)", "optimizer", []),
        ("~a", "a", [None]),
    ],
)
def test_an_override_has_plain_values(override, key, values):
    found = hydra_internals.override_values(override)
    assert found == (key, values), HYDRA + "Override."
    assert {type(value) for value in found[1]} <= {str, int, list, dict, type(None)}, HYDRA + "Override._convert_value."


def test_hydra_writes_one_line_before_it_raises_the_error_of_a_job(tmp_path: Path):
    script = tmp_path / "job.py"
    script.write_text(
        "import hydra\n@hydra.main(version_base='1.3', config_path=None)\n"
        "def main(cfg): raise ValueError('mine')\nmain()\n"
    )
    command, environment = [sys.executable, str(script), f"hydra.run.dir={tmp_path}"], {"HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    first, *rest = done.stderr.splitlines()
    assert first.startswith(hydra_internals.JOB_ERROR) and rest[-1] == "ValueError: mine", HYDRA + "JobReturn's line."


def test_that_line_is_dropped_and_no_other(capsys):
    with hydra_internals.without_job_errors():
        job = JobReturn(overrides=["seed=0"], status=JobStatus.FAILED, _return_value=ValueError("mine"))
        with pytest.raises(ValueError, match="mine"):
            _ = job.return_value
        print("another line", file=sys.stderr)
        assert not sys.stderr.isatty()
    assert capsys.readouterr().err == "another line\n", HYDRA + "JobReturn.return_value."
    assert str(hydra_internals.job_error(job)) == "mine"
    job.status, job._return_value = JobStatus.COMPLETED, 0.5
    assert hydra_internals.job_error(job) is None and job.return_value == 0.5


def test_a_job_is_composed_as_the_launcher_does(tmp_path: Path):
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        overrides = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={tmp_path}", "optimizer=adam,sgd"]
        master = compose("train", overrides[:2], return_hydra_config=True)
        master.hydra.job.name, master.hydra.job.config_name = "train", "train"
        master.hydra.runtime.output_dir = "???"
        before = HydraConfig.instance().cfg
        job = hydra_internals.compose_job(master, ["optimizer=sgd", "seed=3"], 7)
        assert (job.hydra.job.num, job.seed, job.hydra.runtime.choices.optimizer) == (7, 3, "sgd"), HYDRA + "a job."
        assert Path(job.hydra.runtime.output_dir).parent == tmp_path
        assert Path(job.hydra.runtime.output_dir).name.startswith("7_")
        resolved = hydra_internals.resolved_job(job)
        assert resolved["output_dir"] == job.hydra.runtime.output_dir and "hydra" not in resolved
        assert HydraConfig.instance().cfg is before, HYDRA + "HydraConfig.instance().cfg."
    told = hydra_internals.job_return(0.25)
    assert (told.return_value, told.status) == (0.25, JobStatus.COMPLETED), HYDRA + "JobReturn."
    assert hydra_internals.job_return(ValueError()).status == JobStatus.FAILED


def test_keys_below_a_node():
    cfg = OmegaConf.create({"a": {"b": 1, "c": None, "_target_": "x"}, "d": "${a.b}", "hydra": {"e": 1}, "f": [1]})
    assert list(hydra_internals.keys_below(cfg)) == ["a.b", "a.c", "d", "f"], OMEGACONF + "nodes."
    assert hydra_internals.root_of(cfg.a) is cfg, OMEGACONF + "_get_root."
