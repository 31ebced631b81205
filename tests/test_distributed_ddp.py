"""trainer=ddp, in real processes: the numbers of one process, one voice, one record."""

import csv
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

import typed
from conftest import NAMES, OFTEN, OPTIMIZERS, PROJECT, SMALL, Result, ToyDataModule, optimizer_of, toy_trainer
from optbench.distributed.batchnorm import WholeBatchNorm
from optbench.training.classifier import Classifier

DDP = ["trainer=ddp", "trainer.accelerator=cpu"]


def processes(folder: Path, *arguments: str, path: Path = PROJECT) -> Result:
    """`python src/train.py` in a process of its own, called from the parent of `folder`.

    Lightning starts the second process: a fresh Python.
    """
    place = {"cwd": folder.parent, "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path)}}
    settings = [*SMALL, *DDP, f"hydra.run.dir={folder.name}", *arguments]
    done = typed.script("train", *settings, folder=folder.parent, **place).result()
    return Result(done.returncode, done.stdout, done.stderr, folder)


def rows(result: Result) -> list[dict[str, str]]:
    with (result.folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_processes_do_what_one_does(train, command, tmp_path):
    settings = [
        "data.train_size=304",  # 271 to train on: the last batch has 11 + 10 images
        "data.test_size=61",
        "data.val_size=0.11",
        "model.layers=[16 relu batchnorm, 16 tanh batchnorm]",
        "trainer.max_epochs=2",
        "callbacks.figures={_target_: optbench.callbacks.tensorboard_figures.Figures, examples: 4}",
        "callbacks.histograms={_target_: optbench.callbacks.histograms.Histograms, every_n_epochs: 1}",
    ]
    alone = train(*settings, name="alone")
    assert alone.status == 0, alone.err
    both = processes(tmp_path / "both", *settings)
    assert (both.status, both.err) == (0, ""), both.err

    one, two = alone.summary, both.summary
    assert (one["device"]["devices"], two["device"]["devices"]) == (1, 2)
    for key in ("status", "hashes", "images", "steps", "epochs", "parameters", "tested"):
        assert one[key] == two[key], key
    assert two["steps"] == 12
    assert list(one["test"]) == list(two["test"])
    assert two["test"] == pytest.approx(one["test"], rel=1e-4, abs=1e-6)
    assert len(rows(both)) == 2
    for row, other in zip(rows(alone), rows(both), strict=True):
        assert list(row) == list(other)
        for key in set(row) - {"seconds", "epoch_seconds"}:
            assert float(other[key] or "nan") == pytest.approx(
                float(row[key] or "nan"), rel=1e-4, abs=1e-6, nan_ok=True
            ), key

    for name in ("best.ckpt", "last.ckpt"):
        weights, others = (
            torch.load(result.folder / "checkpoints" / name, weights_only=True)["state_dict"]
            for result in (alone, both)
        )
        assert list(weights) == list(others)
        # where a gradient is nearly 0 its rounding decides what Adam makes of it: allow a tenth of one step
        torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-4)
    evaluation = command("evaluate", f"run={both.folder}")
    assert evaluation.status == 0, evaluation.err

    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "both"]
    here, there = (
        sorted(path.name.split("tfevents")[0] for path in result.folder.iterdir() if path.name != "evaluation")
        for result in (alone, both)
    )
    assert here == there  # no file more
    for text in (both.out, (both.folder / "train.log").read_text()):
        lines = [line for line in text.splitlines() if " val/loss " in line or "Test accuracy" in line]
        assert len(lines) == 3, text


def train_each(rank: int, port: int, folder: Path) -> None:
    """In one of two processes: a training with each optimizer, and the weights of the first process in `folder`."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0")
    for name in OPTIMIZERS:
        plugins = [WholeBatchNorm(), LightningEnvironment()]
        net = weights_after(name, strategy="ddp", devices=2, plugins=plugins, use_distributed_sampler=False)
        torch.save(net, folder / f"{name}.{rank}.pt")


# Eight images leave most of SOAP's axes undetermined, and rounding chooses them: only the side of three classes here.
CHANGES: dict[str, dict[str, Any]] = {**OFTEN, "soap": {**OFTEN["soap"], "max_precondition_dim": 3}}


class Double(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()


def weights_after(name: str, **settings: Any) -> dict[str, torch.Tensor]:
    """An epoch on the toy images in double precision.

    No bias before BatchNorm: its gradient is rounding alone, of which Adafactor and Lion would make whole steps.
    """
    pl.seed_everything(0, verbose=False)
    layers = nn.Linear(48, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
    net = nn.Sequential(Double(), nn.Flatten(), *layers).double()
    trainer = toy_trainer(max_epochs=1, **settings)
    trainer.fit(Classifier(net, NAMES, optimizer_of(name, **CHANGES.get(name, {}))), datamodule=ToyDataModule())
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def test_every_optimizer_does_in_two_processes_what_it_does_in_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [typed.Process(train_each, rank, port, tmp_path, folder=tmp_path) for rank in (0, 1)]
    alone = {name: weights_after(name) for name in OPTIMIZERS}
    for process in both:
        result = process.result()
        assert result.returncode == 0, result.stderr
    for name, expected in alone.items():
        first, second = (torch.load(tmp_path / f"{name}.{rank}.pt") for rank in (0, 1))
        torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert all(torch.equal(first[key], second[key]) for key in first), name  # the processes never drift apart


FAILS = """
import pytorch_lightning as pl

class Fails(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 2:
            raise OSError("the second device is on fire")
"""


def test_a_process_that_fails_ends_the_run(tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    result = processes(tmp_path / "run", "+callbacks.fails._target_=fails.Fails", path=tmp_path)
    assert result.status == 1
    assert result.sentence == "The process of device 1 failed. OSError: the second device is on fire"
    summary = result.summary
    assert (summary["status"], summary["epochs"]) == ("failed", 0)
    assert 'OSError("the second device is on fire")' in summary["error"]["traceback"]
    assert not list(result.folder.glob("*process*"))
