import json
import os
import re
import subprocess
import sys

from conftest import PROJECT, SMALL, shell

TRAIN = str(PROJECT / "src" / "train.py")


def test_help_shows_groups_and_commands():
    result = shell(sys.executable, TRAIN, "--help")
    assert result.returncode == 0, result.stderr
    for group in ("augmentation", "callbacks", "data", "logger", "model", "optimizer", "scheduler", "trainer"):
        choices = ", ".join(sorted(path.stem for path in (PROJECT / "configs" / group).glob("*.yaml")))
        assert f"{group}: {choices}" in result.stdout
    assert "python src/train.py -m optimizer=adam,sgd,rmsprop,adamw seed=0,1,2" in result.stdout


def test_help_and_configuration_load_neither_torch_nor_lightning():
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--cfg', 'job']\n"
        "try:\n    runpy.run_path(sys.argv.pop(0) and PATH, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'pytorch_lightning', 'rich.table'} & set(sys.modules), sorted(sys.modules)"
    )
    code = code.replace("sys.argv.pop(0) and PATH", repr(TRAIN))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT / "src")
    assert result.returncode == 0, result.stderr
    assert "weight_decay_on: all" in result.stdout


def test_from_any_working_directory_and_relative_to_it(tmp_path):
    """A run in a process of its own, on two devices, from elsewhere; a relative output folder is the user's."""
    arguments = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=here"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TRAIN, *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["device"]["devices"] == 2
    assert summary["steps"] == 6  # the global batch is data.batch_size
    assert len((tmp_path / "here" / "metrics.csv").read_text().splitlines()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_every_command_of_the_readme_composes():
    """The configuration of every `python src/train.py ...` line in README.md and docs/ stands."""
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    lines = [line for page in pages for line in re.findall(r"^\s*python src/train\.py.*$", page.read_text(), re.M)]
    assert len(lines) >= 5
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    import shlex

    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        for line in lines:
            words = shlex.split(line, comments=True)[2:]
            overrides = [word for word in words if "=" in word and not word.startswith("hydra.")]
            if any("<" in word for word in overrides):
                continue
            for override in parser.parse_overrides(overrides):
                values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
                for value in values if override.is_sweep_override() else [None]:
                    text = f"{override.key_or_group}={value}" if value is not None else override.input_line
                    assert compose("train", [text]) is not None, line
