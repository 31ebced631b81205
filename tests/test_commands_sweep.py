import json
import shutil
import signal
from pathlib import Path

import pytest
from test_recovery_resume import Killed, send, strike

from conftest import trained
from optbench.commands.sweep import compare_or_explain
from undisturbed import differences

SWEEP = ("-m", "optimizer=adam,sgd", "seed=0,1", "model.dropout=0.5", "trainer.max_epochs=2")  # 12 steps a run


def records(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/summary.json"))}


@pytest.fixture(scope="module")
def trained_sweep(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained") / "sweep", "-m", "optimizer=adam,sgd", "hydra/launcher=basic")


@pytest.fixture
def sweep(trained_sweep, tmp_path):
    """A copy of a sweep that has ended."""
    return Path(shutil.copytree(trained_sweep, tmp_path / "run"))


@pytest.fixture
def resume(command):
    """`python src/train.py -m resume=<folder>`"""
    return lambda *arguments: command("train", "-m", "resume={folder}", *arguments)


def test_a_sweep_resumes_where_it_stopped(train, resume, monkeypatch):
    whole = train(*SWEEP, name="whole")
    steps = []

    def third_run(self, *arguments):  # is killed in its second epoch
        steps.append(1)
        if len(steps) == 12 + 12 + 9:
            raise Killed
        return step(self, *arguments)

    from optbench.training.classifier import Classifier

    step = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", third_run)
    with pytest.raises(Killed):
        train(*SWEEP)
    monkeypatch.setattr(Classifier, "training_step", step)
    before = records(whole.folder.parent / "run")
    assert [json.loads(record)["status"] for record in before.values()] == ["completed", "completed", "failed"]
    resumed = resume()
    assert resumed.status == 0, resumed.err
    after = records(resumed.folder)
    assert list(after) == list(records(whole.folder)) and len(after) == 4
    finished = list(before)[:2]
    assert [after[name] for name in finished] == [before[name] for name in finished]
    assert resumed.out.count("has completed before: nothing is left to do.") == 2
    assert "Resuming from last.ckpt, after step 6." in resumed.out
    for name in after:
        assert differences(whole.folder / name, resumed.folder / name) == []
    assert [len(json.loads(record)["resumed"]) for record in after.values()] == [0, 0, 1, 0]
    again = resume()
    assert again.status == 0 and records(again.folder) == after


def test_what_was_typed_is_not_resolved(train, resume):
    sweep = train("-m", "seed=0,1", "data.split_seed=${seed}")
    assert sweep.status == 0, sweep.err
    before = records(sweep.folder)
    again = resume()
    assert again.status == 0, again.err
    assert records(again.folder) == before and again.out.count("nothing is left to do") == 2


def test_a_broken_record_spoils_its_own_run_alone(train, resume):
    sweep = train("-m", "seed=0,1,2")
    first, second, _ = sorted(sweep.folder.glob("*/summary.json"))
    first.write_text(first.read_text()[:100])
    second.unlink()
    again = resume()
    assert again.status == 1 and f"To begin this run anew, remove {first.parent}." in again.sentence
    assert json.loads(second.read_text())["status"] == "completed"


def test_a_signal_that_a_divergence_forestalls_is_not_forgotten(train, monkeypatch):
    from optbench.callbacks.divergence_guard import Diverged

    def diverge() -> None:
        send(signal.SIGINT)()
        raise Diverged(4)

    strike(monkeypatch, 3, diverge)
    stopped = train(*SWEEP)
    assert stopped.status == 130
    assert [json.loads(record)["status"] for record in records(stopped.folder).values()] == ["diverged"]


def test_what_failed_is_tried_again_and_what_diverged_is_not(train, resume, monkeypatch):
    sweep = ("-m", "optimizer=sgd", "optimizer.lr=0.1,1e38,0.2", "trainer.log_every_n_steps=1")

    def fail() -> None:
        raise RuntimeError("boom")

    strike(monkeypatch, 3, fail)
    first = train(*sweep)
    assert first.status == 1
    assert [json.loads(r)["status"] for r in records(first.folder).values()] == ["failed", "diverged", "completed"]
    resumed = resume()
    assert resumed.status == 0, resumed.err
    assert [json.loads(r)["status"] for r in records(first.folder).values()] == ["completed", "diverged", "completed"]
    assert "has diverged before: nothing is left to do." in resumed.out


@pytest.mark.usefixtures("unrendered")
def test_a_signal_ends_a_sweep_and_its_comparison_is_written(train, resume, monkeypatch):
    strike(monkeypatch, 3, send(signal.SIGTERM))
    stopped = train(*SWEEP, "compare=true")
    assert stopped.status == 143 and "Interrupted by SIGTERM." in stopped.err
    assert f"To resume: python src/train.py -m resume={stopped.folder}" in stopped.out
    assert (stopped.folder / "comparison" / "report.html").is_file()
    assert len(records(stopped.folder)) == 1


def test_a_changed_configuration_is_refused_with_the_difference(sweep, resume):
    path = next(sweep.glob("1_*/summary.json"))
    record = json.loads(path.read_text())
    record["config"]["optimizer"]["lr"], record["config"]["model"]["width"] = 0.5, 3
    path.write_text(json.dumps(record))
    (path.parent / "checkpoints" / "best.ckpt").unlink()
    before = records(sweep)
    refused = resume()
    assert refused.status == 1
    assert f"{path.parent} holds a run with another configuration:" in refused.sentence
    assert "model.width was 3, now it is null; optimizer.lr was 0.5, now it is 0.04." in refused.sentence
    assert records(sweep) == before and "[0]" not in refused.out


def test_a_sweep_in_the_folder_of_another_is_refused(train, monkeypatch):
    first = train("-m", "optimizer=adam,sgd")
    monkeypatch.setattr("shutil.rmtree", lambda *_: None)
    other = train("-m", "optimizer=adam,sgd", "optimizer.lr=0.3")
    assert other.status == 1
    assert records(first.folder).keys() <= records(other.folder).keys()
    same = train("-m", "optimizer=adam,sgd")
    assert same.status == 0 and same.out.count("nothing is left to do") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resume={folder}",), "is a sweep: add -m to resume it."),
        (("-m", "resume={folder}", "seed=0,1,2"), "so seed=0,1,2 cannot be given. Leave it out, or start a new sweep."),
    ],
)
def test_what_resume_refuses(sweep, command, arguments, words):
    refused = command("train", *arguments)
    assert refused.status == 1 and words in refused.sentence


def test_the_advice_can_be_typed(capsys):
    def broken(folder):
        raise ValueError("it broke.")

    compare_or_explain(broken, Path("my sweeps/first"))
    assert capsys.readouterr().err.split("To try again: ")[1].split() == [
        *("python", "src/compare.py", "'runs=my", "sweeps/first'")
    ]


def test_a_search_does_not_resume(sweep, command):
    path = sweep / "multirun.yaml"
    path.write_text(path.read_text().replace("optbench_pool.GridSweeper", "optuna_sweeper.OptunaSweeper"))
    refused = command("train", "-m", "resume={folder}")
    assert refused.status == 1 and "only sweeps over given values can resume" in refused.sentence


def test_a_record_of_a_sweep_that_lacks_what_was_typed(tmp_path: Path):
    from optbench.commands.resume import command

    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {hydra: []}}")
    with pytest.raises(ValueError, match=r"multirun.yaml cannot be read \(KeyError: 'task'\)\.$"):
        command(["-m", f"resume={tmp_path}"])


def test_a_folder_of_a_sweep_is_absolute_for_launchers_that_start_elsewhere():
    from optbench.commands.resume import command

    for key in ("hydra.sweep.dir", "+hydra.sweep.dir"):
        assert command(["-m", f"{key}=b"]) == ["-m", f"{key}='{Path('b').absolute()}'"]


def test_the_same_settings_and_another_launcher_may_be_given(sweep):
    from optbench.commands.resume import command

    plain = command(["-m", f"resume={sweep}"])
    plain.remove("hydra/launcher=basic")
    assert f"hydra.sweep.dir='{sweep}'" in plain and "optimizer=adam,sgd" in plain and "resume" not in str(plain)
    pool = command(["-m", f"resume={sweep}", "hydra/launcher=pool", "hydra.launcher.workers=2"])
    assert pool == ["-m", "hydra/launcher=pool", "hydra.launcher.workers=2", *plain[1:]]
    task = [argument for argument in plain if not argument.startswith(("-", "hydra"))]
    assert [a for a in command(["-m", *task, f"resume={sweep}"]) if a != "hydra/launcher=basic"] == plain
