import os
from collections.abc import Callable
from functools import partial

import pytest

from optbench.classifier import Classifier
from undisturbed import differences

FIGURES = (
    "callbacks.figures={_target_: optbench.callbacks.figures.Figures, examples: 4}",
    "callbacks.histograms={_target_: optbench.callbacks.histograms.Histograms, every_n_epochs: 1}",
)
EPOCHS = ("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "model.dropout=0.5")  # 6 steps an epoch


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
def go_on(command):
    """`python src/train.py resume=<folder>`"""
    return lambda name="run", *arguments: command("train", "resume={folder}", *arguments, name=name)


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [("adam", "plateau"), ("sgd", "cosine"), ("rmsprop", "onecycle"), ("adamw", "constant"), ("sgd", "plateau")],
)
@pytest.mark.parametrize("every_n_steps", [None, 2])
def test_a_killed_run_goes_on_bit_for_bit(train, go_on, monkeypatch, optimizer, scheduler, every_n_steps):
    arguments = [
        *EPOCHS,
        *FIGURES,
        f"optimizer={optimizer}",
        f"scheduler={scheduler}",
        f"callbacks.checkpoint.every_n_steps={every_n_steps or 'null'}",
        "augmentation=crop_flip",
    ]
    if scheduler == "plateau":
        arguments += ["scheduler.patience=0", "scheduler.threshold=1", "scheduler.min_lr=0"]  # acts after every epoch
    whole = train(*arguments, name="whole")
    assert whole.status == 0, whole.err
    strike(monkeypatch, 9, raise_killed)
    with pytest.raises(Killed):
        train(*arguments)
    resumed = go_on()
    assert resumed.status == 0, resumed.err
    (entry,) = resumed.summary["resumed"]
    assert entry["step"] == (8 if every_n_steps else 6)
    assert differences(whole.folder, resumed.folder) == []
