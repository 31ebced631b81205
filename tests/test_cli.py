import itertools
import json
import re
import shlex
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import PROJECT, SMALL, shell

TRAIN = str(PROJECT / "src" / "train.py")


START = """
import runpy, sys
for flags in ["--help"], ["--cfg", "job"]:
    sys.argv = [TRAIN, *flags]
    try:
        runpy.run_path(TRAIN, run_name="__main__")
    except SystemExit as end:
        assert not end.code
    loaded = {"torch", "pytorch_lightning", "rich.table"} & set(sys.modules)
    assert not loaded, (flags, loaded)
    print("-" * 20)
"""


def test_help_and_configuration_load_neither_torch_nor_lightning():
    result = shell(sys.executable, "-c", f"TRAIN = {TRAIN!r}\n{START}", cwd=PROJECT / "src")
    assert result.returncode == 0, result.stderr
    shown, configuration, _ = result.stdout.split("-" * 20)
    for group in ("augmentation", "callbacks", "data", "logger", "model", "optimizer", "scheduler", "trainer"):
        choices = ", ".join(sorted(path.stem for path in (PROJECT / "configs" / group).glob("*.yaml")))
        assert f"{group}: {choices}" in shown
    assert "python src/train.py -m optimizer=adam,sgd,rmsprop,adamw seed=0,1,2" in shown
    assert "weight_decay_on: all" in configuration


def test_train_and_evaluate_in_fresh_processes(tmp_path):
    """Other tests start commands where torch and Lightning have been imported."""
    trained = shell(sys.executable, TRAIN, *SMALL, f"hydra.run.dir={tmp_path}/run")
    assert trained.returncode == 0 and "Test accuracy" in trained.stdout, trained.stderr
    evaluated = shell(sys.executable, str(PROJECT / "src" / "evaluate.py"), f"run={tmp_path}/run")
    assert evaluated.returncode == 0, evaluated.stderr
    accuracy = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["test/accuracy"]
    assert f"{accuracy:.4f}" in evaluated.stdout


README = (PROJECT / "README.md").read_text()
COMMANDS = re.findall(r"^ {4}python src/train\.py(.*=.*)$", README, re.M)


@pytest.mark.parametrize("arguments", [line for line in COMMANDS if "<" not in line])
def test_the_commands_of_the_readme_work(arguments):
    overrides = OverridesParser.create().parse_overrides(shlex.split(arguments.replace(" -m ", " "), comments=True))
    swept = [
        list(o.sweep_string_iterator()) if o.is_sweep_override() else [o.get_value_element_as_str()] for o in overrides
    ]
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        for values in itertools.product(*swept):
            pairs = [f"{o.get_key_element()}={value}" for o, value in zip(overrides, values, strict=True)]
            cfg = compose("train", pairs)
            assert cfg.optimizer.lr > 0


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 8
