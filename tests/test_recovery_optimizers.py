from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from conftest import NAMES, OFTEN, OPTIMIZERS, ToyDataModule, optimizer_of, toy_net, toy_trainer
from optbench.callbacks.epoch_history import EpochHistory
from optbench.callbacks.last_checkpoint import LastCheckpoint
from optbench.recovery.checkpoint import CheckpointFiles, read_checkpoint
from optbench.training.classifier import Classifier
from undisturbed import same


class Killed(BaseException):
    pass


class Kill(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise Killed


def fit(name: str, folder: Path, kill: int = 0, resume: bool = False) -> dict:
    """Two epochs of six steps with dropout; last.ckpt after every second step. Returns what last.ckpt has."""
    pl.seed_everything(0, verbose=False)
    path = folder / "checkpoints" / "last.ckpt"
    classifier = Classifier(
        toy_net(dropout=0.5), NAMES, optimizer_of(name, **OFTEN.get(name, {})), weight_decay_on="weights"
    )
    trainer = toy_trainer(
        max_epochs=2,
        callbacks=[EpochHistory(), LastCheckpoint(str(path.parent), every_n_steps=2), Kill(kill)],
        plugins=[CheckpointFiles()],
        enable_checkpointing=True,
        default_root_dir=folder,
    )
    trainer.fit(classifier, datamodule=ToyDataModule(), ckpt_path=path if resume else None, weights_only=True)
    return read_checkpoint(path, "resume")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_killed_run_resumes_with_the_same_state_bit_for_bit(name, tmp_path):
    """Weights, and all that the optimizer keeps: tensors, numbers, and lists of both."""
    whole = fit(name, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(name, tmp_path / "killed", kill=9)  # within the second epoch, a step after the checkpoint
    resumed = fit(name, tmp_path / "killed", resume=True)
    assert resumed["global_step"] == whole["global_step"] == 12
    for key in ("state_dict", "optimizer_states"):
        assert same(resumed[key], whole[key]), key
    parts = [part for state in whole["optimizer_states"][0]["state"].values() for part in state.values()]
    assert any(torch.is_tensor(part) for part in parts) is (name != "sgd")  # which has no state
