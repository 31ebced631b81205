import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from filelock import FileLock

import typed
from conftest import PROJECT, SMALL, Result, trained
from optbench.callbacks import last_checkpoint
from optbench.callbacks.last_checkpoint import LastCheckpoint
from optbench.records import files
from optbench.training.classifier import Classifier
from undisturbed import differences

FIGURES = (
    "callbacks.figures={_target_: optbench.callbacks.tensorboard_figures.Figures, examples: 4}",
    "callbacks.histograms={_target_: optbench.callbacks.histograms.Histograms, every_n_epochs: 1}",
)
EPOCHS = ("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "model.dropout=0.5")  # 6 steps per epoch


class Killed(BaseException):
    """As sudden as SIGKILL for the training loop; what a real one leaves is tested with processes."""


def strike(monkeypatch: pytest.MonkeyPatch, batch: int, what: Callable[[], object]) -> None:
    """Let something happen within the training step of a batch, counted from 0 over all epochs, once."""
    step = Classifier.training_step

    def training_step(self, *args):
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == batch:
            monkeypatch.setattr(Classifier, "training_step", step)
            what()
        return step(self, *args)

    monkeypatch.setattr(Classifier, "training_step", training_step)


def raise_killed() -> None:
    raise Killed


def send(signum: int) -> Callable[[], None]:
    return partial(os.kill, os.getpid(), signum)


@pytest.fixture
def resume_run(command):
    """`python src/train.py resume=<folder>`"""
    return lambda *arguments, name="run": command("train", "resume={folder}", *arguments, name=name)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained") / "whole", *EPOCHS)


@pytest.fixture
def whole(trained_run, tmp_path):
    """An undisturbed run of three epochs with six steps each."""
    return Result(0, "", "", Path(shutil.copytree(trained_run, tmp_path / "whole")))


def checkpoint(result: Result, name: str = "last") -> Path:
    return result.folder / "checkpoints" / f"{name}.ckpt"


def kill(train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, batch: int = 14, *arguments: str) -> None:
    strike(monkeypatch, batch, raise_killed)
    with pytest.raises(Killed):
        train(*(arguments or EPOCHS))


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "run"
    done = typed.Process(train_and_be_killed, folder, folder=folder.parent).result()
    assert done.returncode == 1 and "Killed" in done.stderr, done.stderr
    for events in folder.glob("*tfevents*"):  # made ten seconds ago: of one second, TensorBoard may read them last
        second = events.name.split(".")[3]
        events.rename(events.with_name(events.name.replace(second, str(int(second) - 10))))
    return folder.rename(folder.with_name("kept"))  # nothing is found where it was


def train_and_be_killed(folder: Path) -> None:
    strike(pytest.MonkeyPatch(), 14, raise_killed)
    typed.run_script(str(PROJECT / "src" / "train.py"), (*SMALL, *EPOCHS, f"hydra.run.dir={folder}"))


@pytest.fixture
def killed(killed_run, tmp_path):
    """A run that was killed in its third epoch; `resume_run` resumes it."""
    return Path(shutil.copytree(killed_run, tmp_path / "run"))


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [("adam", "plateau"), ("sgd", "cosine"), ("rmsprop", "onecycle"), ("adamw", "constant"), ("sgd", "plateau")],
)
def test_a_killed_run_resumes_bit_for_bit(train, resume_run, monkeypatch, optimizer, scheduler):
    arguments = [
        *EPOCHS,
        *FIGURES,
        f"optimizer={optimizer}",
        f"scheduler={scheduler}",
        "augmentation=[trivial_augment,crop_flip,mixup]",
        "augmentation.crop_flip.flip=alternating",
    ]
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)  # the steps of the figures are compared
    if scheduler == "plateau":
        arguments += ["scheduler.patience=0", "scheduler.threshold=1", "scheduler.min_lr=0"]  # acts after every epoch
    whole = train(*arguments, name="whole")
    assert whole.status == 0, whole.err
    for every_n_steps, step in {"null": 6, "2": 8}.items():
        kill(train, monkeypatch, 9, *arguments, f"callbacks.last_checkpoint.every_n_steps={every_n_steps}")
        resumed = resume_run()
        assert resumed.status == 0, resumed.err
        (entry,) = resumed.summary["resumed"]
        assert entry["step"] == step
        assert differences(whole.folder, resumed.folder) == []


def saves_of_last(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps after which last.ckpt is written from now on."""
    steps, save = [], pl.Trainer.save_checkpoint

    def save_checkpoint(self, path, *args, **options) -> None:
        if Path(path).name == "last.ckpt":
            steps.append(self.global_step)
        save(self, path, *args, **options)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", save_checkpoint)
    return steps


@pytest.mark.parametrize(
    ("arguments", "saved"),
    [
        ((), [12, 30, 36]),  # 12 s after training began, 12 s after that, and at the end
        (("callbacks.last_checkpoint.every_n_steps=5",), [5, 10, 15, 20, 25, 30, 35, 36]),
    ],
)
def test_epochs_that_are_shorter_than_min_seconds_share_a_checkpoint(train, monkeypatch, arguments, saved):
    every_four_seconds = SimpleNamespace(monotonic=partial(next, count(step=4)))  # at each epoch, and as one is saved
    if not arguments:
        monkeypatch.setattr(last_checkpoint, "time", every_four_seconds)
    steps = saves_of_last(monkeypatch)
    result = train("trainer.max_epochs=6", "callbacks.last_checkpoint.min_seconds=10", *arguments)
    assert result.status == 0, result.err
    assert steps == saved


def test_a_run_that_is_killed_before_min_seconds_begins_anew_and_a_signal_does_not_wait(
    train, resume_run, monkeypatch, whole
):
    kill(train, monkeypatch, 14, *EPOCHS, "callbacks.last_checkpoint.min_seconds=1000")
    assert not (whole.folder.parent / "run" / "checkpoints" / "last.ckpt").exists()
    strike(monkeypatch, 8, send(signal.SIGTERM))
    interrupted = resume_run()
    assert "begins anew" in interrupted.out
    assert torch.load(checkpoint(interrupted), weights_only=True)["global_step"] == 9
    resumed = resume_run()
    assert [entry["step"] for entry in resumed.summary["resumed"]] == [0, 9]
    assert differences(whole.folder, resumed.folder) == []


@pytest.mark.parametrize("fault", ["signal", "kill"])
def test_between_epochs_a_checkpoint_does_not_wait_where_it_is_needed(train, resume_run, monkeypatch, whole, fault):
    """The step that ends an epoch: a signal, or every_n_steps, asks for a checkpoint before the next epoch's first."""
    seldom = [*EPOCHS, "callbacks.last_checkpoint.min_seconds=1000"]
    if fault == "signal":
        strike(monkeypatch, 5, send(signal.SIGTERM))
        assert train(*seldom).status == 143
    else:
        kill(train, monkeypatch, 7, *seldom, "callbacks.last_checkpoint.every_n_steps=6")
    resumed = resume_run()
    assert [entry["step"] for entry in resumed.summary["resumed"]] == [6]
    assert differences(whole.folder, resumed.folder) == []


@pytest.mark.parametrize("value", [-1, "soon", True])
def test_what_min_seconds_refuses(value):
    with pytest.raises(ValueError, match=f"callbacks.last_checkpoint.min_seconds={value} must be a number"):
        LastCheckpoint("nowhere", min_seconds=value)


@pytest.mark.parametrize(("signum", "status"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130)])
def test_a_signal_waits_for_a_checkpoint_at_the_next_step(train, resume_run, monkeypatch, whole, signum, status):
    strike(monkeypatch, 8, send(signal.Signals[signum]))
    result = train(*EPOCHS)
    assert result.status == status
    assert f"Interrupted by {signum}." in result.err
    assert f"To resume: python src/train.py resume={result.folder}" in result.out
    assert (result.summary["status"], result.summary["steps"]) == ("interrupted", 9)
    assert torch.load(checkpoint(result), weights_only=True)["global_step"] == 9
    assert signal.getsignal(signal.Signals[signum]) in (signal.SIG_DFL, signal.default_int_handler)
    resumed = resume_run()
    assert resumed.status == 0, resumed.err
    assert "Resuming from last.ckpt, after step 9." in resumed.out
    assert differences(whole.folder, resumed.folder) == []
    assert [path.name for path in (resumed.folder / "checkpoints").iterdir() if "previous" in path.name] == []


@pytest.mark.parametrize(("accumulate", "looks"), [(1, [0, 5, 10]), (2, [0, 1, 10, 11])])
def test_processes_on_gpus_look_for_signals_every_few_steps(monkeypatch, accumulate, looks):
    """At the first step of every epoch, and where gradients are added up too; from the device of the processes."""
    asked = []

    def reduce(tensor, reduce_op):
        asked.append((batch, tensor.device.type))
        return tensor

    strategy = SimpleNamespace(root_device=torch.device("meta"), reduce=reduce)
    trainer = SimpleNamespace(world_size=2, strategy=strategy, log_every_n_steps=5, accumulate_grad_batches=accumulate)
    callback = LastCheckpoint("nowhere")
    monkeypatch.setattr("builtins.int", lambda value: value)
    for batch in range(12):
        callback._asked(trainer, batch)
    monkeypatch.undo()
    assert asked == [(batch, "meta") for batch in looks]


def test_another_run_does_not_resume_within_an_epoch(train, monkeypatch):
    strike(monkeypatch, 8, send(signal.SIGTERM))
    path = checkpoint(train(*EPOCHS))
    refused = train(*EPOCHS, f"ckpt_path={path}", name="another")
    assert refused.status == 1 and f"ckpt_path={path} was taken within an epoch" in refused.sentence


def test_a_second_signal_does_not_wait(train, monkeypatch):
    strike(monkeypatch, 8, lambda: [send(signal.SIGTERM)(), send(signal.SIGTERM)()])
    result = train(*EPOCHS)
    assert (result.status, result.summary["status"], result.summary["steps"]) == (143, "interrupted", 8)
    assert torch.load(checkpoint(result), weights_only=True)["global_step"] == 6  # the epoch's


def test_gradients_that_are_half_added_up_are_finished_first(train, resume_run, monkeypatch):
    arguments = (*EPOCHS, "trainer.accumulate_grad_batches=2", "callbacks.last_checkpoint.every_n_steps=1")
    whole = train(*arguments, name="whole")
    strike(monkeypatch, 8, send(signal.SIGTERM))  # the first of two batches
    interrupted = train(*arguments)
    assert torch.load(checkpoint(interrupted), weights_only=True)["global_step"] == 5
    assert resume_run().status == 0
    assert differences(whole.folder, interrupted.folder) == []


def test_a_run_can_stop_many_times(train, resume_run, monkeypatch, whole):
    strike(monkeypatch, 1, send(signal.SIGTERM))
    result = train(*EPOCHS)
    for batch in (3, 5, 6, 11, 12, 17):
        assert result.status == 143, (batch, result.err)
        strike(monkeypatch, batch, send(signal.SIGTERM))
        result = resume_run()
    assert result.status == 143 and resume_run().status == 0
    assert differences(whole.folder, result.folder) == []
    assert [entry["step"] for entry in resume_run().summary["resumed"]] == [2, 4, 6, 7, 12, 13, 18]


def test_seconds_add_up(train, resume_run, monkeypatch):
    strike(monkeypatch, 8, send(signal.SIGTERM))
    first = train(*EPOCHS).summary["seconds"]
    result = resume_run()
    seconds = result.summary["seconds"]
    assert all(seconds[part] > first[part] for part in ("startup", "training", "total"))
    assert seconds["total"] >= seconds["startup"] + seconds["training"] + seconds["testing"]
    rows = [result.summary["targets"], *(row.values() for row in [result.summary["final"]])]
    assert rows and result.summary["final"]["seconds"] <= seconds["training"] + 1e-3


def test_early_stopping_that_has_struck_is_not_forgotten(train, resume_run, monkeypatch):
    arguments = (*EPOCHS[1:], "trainer.max_epochs=9", "callbacks.early_stopping.patience=1", "optimizer.lr=0.3")
    whole = train(*arguments, name="whole")
    assert whole.summary["epochs"] < 9
    monkeypatch.setattr(Classifier, "test_step", lambda *_: raise_killed())
    with pytest.raises(Killed):
        train(*arguments)
    monkeypatch.undo()
    resumed = resume_run()
    assert resumed.status == 0, resumed.err
    assert differences(whole.folder, resumed.folder) == []


def test_a_moved_folder_resumes(train, resume_run, monkeypatch, whole, tmp_path):
    kill(train, monkeypatch)
    (tmp_path / "run").rename(tmp_path / "a folder, elsewhere=1")
    resumed = resume_run(name="a folder, elsewhere=1")
    assert resumed.status == 0, resumed.err
    assert differences(whole.folder, resumed.folder) == []
    assert not (tmp_path / "run").exists()


def test_without_a_checkpoint_it_starts_at_the_beginning(resume_run, killed, whole):
    shutil.rmtree(killed / "checkpoints")
    resumed = resume_run()
    assert "No checkpoint to resume from: the run begins anew." in resumed.out
    assert differences(whole.folder, resumed.folder) == []


def torn(content: bytes, how: str) -> bytes:
    """A checkpoint is a zip archive: the pickle first, then the tensors, then the directory."""
    middle = len(content) // 2
    return {
        "empty": b"",
        "one byte": content[:1],
        "header": content[:100],
        "half": content[:middle],
        "last byte": content[:-1],
        "zeros": content[:middle] + bytes(len(content) - middle),
        "a bit of a tensor": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": b"not a checkpoint at all",
    }[how]


@pytest.mark.parametrize(
    "how", ["empty", "one byte", "header", "half", "last byte", "zeros", "a bit of a tensor", "text"]
)
def test_a_damaged_checkpoint_is_passed_over(resume_run, killed, whole, how):
    path = killed / "checkpoints" / "last.ckpt"
    path.write_bytes(torn(path.read_bytes(), how))
    resumed = resume_run()
    assert resumed.status == 0, resumed.err
    assert "last.ckpt cannot be read" in resumed.out and "It is skipped." in resumed.out
    assert "Resuming from previous.ckpt, after step 6." in resumed.out
    assert differences(whole.folder, resumed.folder) == []


def test_a_damaged_best_checkpoint_is_trained_again(resume_run, killed, whole):
    path = killed / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    resumed = resume_run()
    assert "best.ckpt cannot be read" in resumed.out and "begins anew" in resumed.out
    assert differences(whole.folder, resumed.folder) == []


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


@pytest.mark.filterwarnings("ignore:.*weights_only.*")
@pytest.mark.usefixtures("unrendered")
def test_a_malicious_checkpoint_executes_nothing(resume_run, command, tmp_path, killed, whole):
    proof = tmp_path / "executed"
    for name in ("last", "best", "previous"):
        torch.save({"state_dict": {}, "evil": Malicious(proof)}, killed / "checkpoints" / f"{name}.ckpt")
    for name in ("last", "best"):
        refused = command("evaluate", f"run={tmp_path}/run", f"checkpoint={name}")
        assert refused.status == 1 and f"{name}.ckpt cannot be read" in refused.sentence
    assert command("compare", f"runs={tmp_path}", f"output={tmp_path}/comparison").status == 0
    resumed = resume_run()
    assert "begins anew" in resumed.out and differences(whole.folder, resumed.folder) == []
    assert not proof.exists()


def test_a_failed_run_is_tried_again(train, resume_run, monkeypatch, whole):
    def fail() -> None:
        raise OSError(5, "Input/output error")

    strike(monkeypatch, 8, fail)
    failed = train(*EPOCHS)
    assert (failed.status, failed.summary["status"]) == (1, "failed")
    resumed = resume_run()
    assert (resumed.summary["status"], resumed.summary["error"]) == ("completed", None)
    assert differences(whole.folder, resumed.folder) == []


def test_a_full_disk_leaves_the_last_good_checkpoint(train, resume_run, monkeypatch, whole):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    strike(monkeypatch, 11, lambda: monkeypatch.setattr(files.os, "fsync", full))
    failed = train(*EPOCHS)
    assert failed.status == 1
    assert ".ckpt cannot be written: No space left on device" in failed.sentence
    assert f"resume={failed.folder}" in failed.sentence
    assert "summary.json could not be written" in failed.out
    assert failed.summary["status"] == "running"
    monkeypatch.undo()
    resumed = resume_run()
    assert "Resuming from last.ckpt, after step 6." in resumed.out
    assert differences(whole.folder, resumed.folder) == []


def test_what_a_killed_process_was_writing_is_swept_up(resume_run, killed):
    for name in (".summary.json.77", "checkpoints/.last.ckpt.77", "checkpoints/.previous.77"):
        (killed / name).write_text("half")
    left = [path.name for path in resume_run().folder.rglob(".*") if path.is_file()]
    assert left == [".lock"]


def test_what_is_done_is_done(resume_run, whole):
    again = resume_run(name="whole")
    assert again.status == 0 and "has completed before: nothing is left to do." in again.out
    assert again.summary == whole.summary


def test_a_folder_has_one_process(resume_run, killed):
    before = (killed / "summary.json").read_bytes()
    with FileLock(killed / ".lock"):
        refused = resume_run()
    assert refused.status == 1 and "is in use: another process is working on this run." in refused.sentence
    assert (refused.folder / "summary.json").read_bytes() == before
    assert resume_run().status == 0


def test_it_must_be_the_run_that_began(resume_run, killed, monkeypatch):
    monkeypatch.setattr("optbench.data.datamodule.ImageDataModule.order_sha256", lambda self: "another")
    refused = resume_run()
    assert refused.status == 1
    assert (
        "no longer the run that began here: the hash of batch_order differs from the one in summary.json."
        in refused.sentence
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resume={folder}/nowhere",), "nowhere is neither a run nor a sweep. Give the folder of one, for example"),
        (("-m", "resume={folder}"), "is a run: leave out -m to resume it."),
        (("resume={folder}", "optimizer.lr=0.1"), "the run's own settings, so optimizer.lr=0.1 cannot be given."),
    ],
)
def test_what_resume_refuses(command, whole, arguments, words):
    refused = command("train", *arguments, name="whole")
    assert refused.status == 1
    assert words in refused.sentence
    assert not (whole.folder / "nowhere").exists()
