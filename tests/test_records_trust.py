"""A run's folder is data: whoever made it, evaluate, resume and compare run none of it."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from conftest import trained
from optbench.records import trust
from sweeps import write_run

RUN = "torch.utils.collect_env.run"  # runs a command, and comes with PyTorch


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exists once something was run."""
    monkeypatch.setenv("SECRET", "s3cret")
    return tmp_path / "was run"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("trained") / "run", "optimizer=adam")


@pytest.fixture(scope="module")
def trained_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("trained") / "run", "-m", "optimizer=adam", "hydra/launcher=basic")


@pytest.fixture
def run_folder(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def payload(marker: Path, target: str = RUN, **more) -> dict:
    return {"_target_": target, "command": ["touch", str(marker)], **more}


def plant(folder: Path, key: str, value: object) -> None:
    """Set a dotted key of the configuration in summary.json."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    *groups, last = key.split(".")
    place = summary["config"]
    for group in groups:
        place = place[group]
    place[last] = value
    summary["status"] = "interrupted"
    path.write_text(json.dumps(summary))


def refused(result, *words: str) -> None:
    assert result.status == 1 and "Traceback" not in result.err
    for word in words:
        assert word in result.sentence


EVALUATED = [
    ("model", lambda marker: payload(marker), "model._target_ is torch.utils.collect_env.run"),
    ("data", lambda marker: payload(marker), "data._target_ is"),
    ("augmentation", lambda marker: payload(marker), "augmentation.run._target_ is"),  # as earlier versions had it
    ("augmentation", lambda marker: {"mine": payload(marker)}, "augmentation.mine._target_ is"),
    (
        "model",
        lambda marker: {
            "_target_": "torch.nn.Sequential",
            "_args_": [{"_target_": "torch.nn.Flatten"}, payload(marker)],
        },
        "model._args_.1._target_ is",
    ),
    ("model.layers", lambda marker: [[{"deep": payload(marker, _partial_=True)}]], "model.layers.0.0.deep._target_ is"),
    (
        "model",
        lambda marker: {"_target_": "subprocess.Popen", "args": ["touch", str(marker)]},
        "model._target_ is subprocess.Popen",
    ),
    (
        "model",
        lambda marker: {"_target_": "builtins.eval", "_args_": [f"open({str(marker)!r}, 'w')"]},
        "trust=builtins.eval",
    ),
    # by way of an allowed package, into what it has imported
    (
        "model",
        lambda marker: {"_target_": "optbench.pool.processes.subprocess.Popen", "args": ["touch", str(marker)]},
        "trust=optbench.pool.processes.subprocess.Popen",
    ),
    (
        "model",
        lambda marker: {"_target_": "optbench.records.files.os.system", "_args_": [f"touch '{marker}'"]},
        "trust=optbench.records.files.os.system",
    ),
    ("model", lambda marker: payload(marker, "torch.nn.utils.collect_env.run"), "trust=torch.nn.utils.collect_env.run"),
    # a function of ours is no class
    (
        "model",
        lambda marker: {"_target_": "optbench.records.files.write_atomically", "path": str(marker), "content": "x"},
        "trust=optbench.records.files.write_atomically",
    ),
    ("model._target_", lambda marker: [RUN], "must be a name such as torch.optim.Adam"),
    ("model.dropout", lambda marker: "${oc.env:SECRET}", "model.dropout=${oc.env:SECRET} is no recorded value"),
]


@pytest.mark.parametrize(("key", "value", "words"), EVALUATED)
def test_what_evaluate_does_not_build(command, run_folder, marker, key, value, words):
    plant(run_folder, key, value(marker))
    refused(command("evaluate", f"run={run_folder}"), words)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        *EVALUATED,
        ("optimizer", lambda marker: payload(marker, _partial_=True), "optimizer._target_ is"),
        ("scheduler", lambda marker: payload(marker, _partial_=True), "scheduler._target_ is"),
        ("callbacks.progress", lambda marker: payload(marker), "callbacks.progress._target_ is"),
        ("logger.tensorboard", lambda marker: payload(marker), "logger.tensorboard._target_ is"),
        ("trainer.profiler", lambda marker: payload(marker), "trainer.profiler._target_ is"),
        # elsewhere
        ("callbacks.last_checkpoint.dirpath", lambda marker: str(marker), "is outside of the run's folder"),
        ("callbacks.best_checkpoint.filename", lambda marker: "../../best", "is outside of the run's folder"),
        ("logger.csv.path", lambda marker: str(marker), "logger.csv.path="),
        ("callbacks.best_checkpoint.dirpath", lambda marker: "elsewhere", "is outside of the run's folder"),
        ("logger.tensorboard.save_dir", lambda marker: "~/elsewhere", "is outside of the run's folder"),
    ],
)
def test_what_resume_does_not_build(command, run_folder, marker, key, value, words):
    plant(run_folder, key, value(marker))
    refused(command("train", f"resume={run_folder}"), words)
    assert not marker.exists()


@pytest.fixture
def sweep(trained_sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_sweep, tmp_path / "run"))


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "multirun.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.mine={_target_: torch.utils.collect_env.run, command: [touch, '{marker}']}",
        "+hydra.callbacks.mine._target_=torch.utils.collect_env.run",
        "hydra.sweeper={_target_: torch.utils.collect_env.run, command: [touch, '{marker}']}",
        "hydra.launcher._target_=torch.utils.collect_env.run",
        "hydra/job_logging=../../../{evil}",
        "hydra.searchpath=[file://{evil}]",
        "+hydra.job.env_set.PYTHONSTARTUP={evil}",
        "hydra.launcher.setup=[touch]",
        "hydra.launcher.additional_parameters={wrap: touch}",
        "hydra.launcher.ray.init.runtime_env.py_executable={evil}",
        "hydra.launcher.ray.init.address=6.6.6.6:6379",
        "hydra.launcher.timeout=${oc.env:SECRET}",
        "hydra.launcher.partition='a\ntouch b'",
        "hydra.launcher.name='a;b'",
        "hydra/launcher@mine=pool",
        "hydra/launcher=glob(*)",
        "hydra/launcher=../../{evil}",
    ],
)
def test_what_hydra_is_not_told_by_a_recorded_sweep(command, sweep, marker, override):
    override = override.replace("{marker}", str(marker)).replace("{evil}", str(marker.parent / "evil"))
    edit(sweep, "    hydra:\n    - ", f"    hydra:\n    - {json.dumps(override)}\n    - ")
    refused(command("train", "-m", f"resume={sweep}"), "could run commands. If you trust it, type it again")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model={_target_: torch.utils.collect_env.run, command: [touch, '{marker}']}",
            "trust=torch.utils.collect_env.run",
        ),
        (
            "+callbacks.mine={_target_: torch.utils.collect_env.run}",
            "callbacks.mine._target_ is torch.utils.collect_env",
        ),
        ("model._target_=torch.nn.Flatten,torch.utils.collect_env.run", f"trust={RUN}"),
        ("model._target_=${oc.env:SECRET}", "could run commands"),
        (f"model._target_='torch.nn.Flatten','{RUN}'", f"trust={RUN}"),  # Hydra keeps the quotes of a sweep's values
        (f"model={{a: [{{_target_: '{RUN}'}}]}},linear", f"trust={RUN}"),
        ("experiment=../../../{evil}", "could run commands"),
        ("optimizer@hydra.callbacks.mine=sgd", "could run commands"),
        ("+callbacks.mine=${oc.decode:x}", "could run commands"),
        ("output_dir={evil}", "could run commands"),
        ("callbacks.last_checkpoint.dirpath={evil}", "could run commands"),
        ("logger=[csv,../{evil}]", "could run commands"),
        ("+hydra.callbacks.mine._target_=torch.utils.collect_env.run", "could run commands"),
        ("--config-dir={evil}", "has an override that cannot be read"),
        ("-cd={evil}", "has an override that cannot be read"),
    ],
)
def test_what_a_run_is_not_told_by_a_recorded_sweep(command, sweep, marker, override, words):
    override = override.replace("{marker}", str(marker)).replace("{evil}", str(marker.parent / "evil"))
    edit(sweep, "    task:\n    - ", f"    task:\n    - {json.dumps(override)}\n    - ")
    refused(command("train", "-m", f"resume={sweep}"), words)
    assert not marker.exists()


def test_a_recorded_sweep_names_no_configuration_elsewhere(command, sweep):
    edit(sweep, "    config_name: train\n", "    config_name: ../evil\n")
    refused(
        command("train", "-m", f"resume={sweep}"), "names the configuration '../evil', which is no file in configs/."
    )


def test_a_yaml_tag_makes_no_object(command, sweep, marker):
    (sweep / "multirun.yaml").write_text(f"hydra: !!python/object/apply:os.system ['touch \"{marker}\"']\n")
    refused(command("train", "-m", f"resume={sweep}"), "multirun.yaml cannot be read")
    assert not marker.exists()


def test_a_run_of_a_resumed_sweep_has_todays_configuration(command, sweep, marker):
    run = next(sweep.glob("0_*"))
    plant(run, "model", payload(marker))
    refused(command("train", "-m", f"resume={sweep}"), "holds a run with another configuration: ")
    assert not marker.exists()


@pytest.mark.usefixtures("unrendered")
def test_compare_builds_nothing(command, tmp_path, marker):
    for seed in range(2):
        bad = {"model._target_": RUN, "model.command": "=cmd|' /C calc'!A0"}
        write_run(tmp_path / "runs" / f"=1+{seed}", seed=seed, overrides=["+x=@SUM(1)"], config=bad)
    result = command("compare", f"runs={tmp_path / 'runs'}", f"output={tmp_path / 'report'}")
    assert result.status == 0, result.err
    with (tmp_path / "report" / "summary.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    texts = [cell for row in rows for cell in row]
    assert "'=1+0" in texts and not any(cell.startswith(("=", "@")) for cell in texts)
    for name in ("report.html", "report.md", "table.tex"):
        assert (tmp_path / "report" / name).is_file()
    assert not marker.exists()


def test_what_a_user_trusts_is_built(command, run_folder, marker):
    plant(run_folder, "augmentation", {"mine": payload(marker)})
    result = command("evaluate", f"run={run_folder}", f"trust={RUN}")
    assert marker.exists(), result.err
    marker.unlink()
    refused(command("evaluate", f"run={run_folder}", "trust=another.target"), f"trust={RUN}")
    command("train", f"resume={run_folder}", f"trust=[{RUN}]")
    assert marker.exists()


def test_a_sweep_that_is_trusted_is_the_same_sweep(command, sweep, marker):
    path = next(sweep.glob("0_*/summary.json"))
    before = path.read_bytes()
    edit(sweep, "    hydra:\n    - ", "    hydra:\n    - hydra.sweeper.max_batch_size=2\n    - ")
    result = command("train", "-m", f"resume={sweep}", f"trust={RUN}")
    assert result.status == 0 and "nothing is left to do" in result.out, result.err
    assert path.read_bytes() == before and len(list(sweep.glob("*/summary.json"))) == 1


def test_what_configs_name_is_trusted(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# mine\n_target_: my.package.Net\nwidth: 3\n")
    monkeypatch.setattr(trust, "CONFIGS", tmp_path)
    trust.check_record({"model": {"_target_": "my.package.Net"}}, tmp_path)
    with pytest.raises(ValueError, match=r"model\._target_ is my\.package\.Other, which no file in configs/ names"):
        trust.check_record({"model": {"_target_": "my.package.Other"}}, tmp_path)


@pytest.mark.parametrize("target", ["torch.optim.Adagrad", "torch.nn.Identity", "optbench.nets.mlp.MLP"])
def test_classes_of_the_libraries_are_trusted(target):
    assert trust.is_own_class(target)


@pytest.mark.parametrize(
    "target",
    ["torch.optim", "torch.nn.functional.relu", "torch.hub.load", "optbench.nope.X", "torch.nn.x-y", "os.system"],
)
def test_nothing_else_is(target):
    assert not trust.is_own_class(target)
