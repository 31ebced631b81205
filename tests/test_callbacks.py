import copy
import logging
import math
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary, RichModelSummary, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from conftest import ADAM, NAMES, ToyDataModule, toy_net, toy_trainer
from optbench.callbacks.divergence_guard import Diverged, DivergenceGuard
from optbench.callbacks.epoch_history import EpochHistory
from optbench.callbacks.histograms import Histograms
from optbench.callbacks.progress import FILE_ONLY, EpochLines, progress, summary
from optbench.callbacks.tensorboard_figures import Figures
from optbench.training.classifier import Classifier
from optbench.training.provenance import weights_sha256


def fit(net: nn.Module, *callbacks: pl.Callback, optimizer: partial = ADAM, test: bool = False, **settings):
    trainer = toy_trainer(**{"max_epochs": 2, **settings}, callbacks=list(callbacks))
    classifier, data = Classifier(net, NAMES, optimizer), ToyDataModule()
    trainer.fit(classifier, datamodule=data)
    if test:
        trainer.test(classifier, datamodule=data, verbose=False)
    return trainer


def events(folder: Path) -> EventAccumulator:
    everything = dict.fromkeys(("histograms", "images", "scalars"), 0)
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def tensorboard(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False)


# DivergenceGuard


class Breaks(nn.Module):
    """A network whose output is nan or infinite at one training step, counted from 1."""

    def __init__(self, at: int, value: float = math.nan, training: bool = True) -> None:
        super().__init__()
        self.net, self.at, self.value, self.breaks_in, self.steps = toy_net(), at, value, training, 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        breaks = self.training is self.breaks_in and self.steps == self.at
        return self.net(images) + (self.value if breaks else 0)


@pytest.mark.parametrize(("at", "seen"), [(1, 4), (4, 4), (5, 6), (6, 6), (8, 10), (12, 12)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_step_without_a_finite_loss_is_named(at, seen, value):
    """Looks are at the fourth and the sixth, the last, batch of each epoch."""
    net = Breaks(at, value)
    still = partial(torch.optim.SGD, lr=1e-30)  # a nan at one step spoils no later one
    with pytest.raises(Diverged, match=f"^The loss was no longer finite at step {at}.$") as error:
        fit(net, DivergenceGuard(), optimizer=still, log_every_n_steps=4, gradient_clip_val=0)
    assert error.value.step == at
    assert net.steps == seen


def test_nothing_of_a_diverged_network_is_validated_or_saved(tmp_path):
    validated = []

    class Validations(pl.Callback):
        def on_validation_start(self, trainer, pl_module) -> None:
            validated.append(trainer.global_step)

    keep = ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_last=True, save_on_train_epoch_end=True)
    with pytest.raises(Diverged):
        fit(Breaks(8), keep, Validations(), DivergenceGuard(), enable_checkpointing=True)
    assert validated == [6]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6


def test_a_validation_loss_that_is_not_finite_ends_the_run_unsaved(tmp_path):
    """The last update of an epoch blew the weights up."""
    keep = ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_on_train_epoch_end=True)
    with pytest.raises(Diverged) as error:
        fit(Breaks(12, training=False), keep, DivergenceGuard(), enable_checkpointing=True)
    assert error.value.step == 12
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 6


def test_a_network_that_learns_is_left_alone():
    assert fit(toy_net(), DivergenceGuard(), log_every_n_steps=1).global_step == 12
    assert fit(toy_net(), DivergenceGuard(), limit_val_batches=0).global_step == 12


# Histograms


def histogram_of(tmp_path: Path, values: Tensor):
    with SummaryWriter(str(tmp_path)) as writer:
        Histograms._add(writer, "weights/w", values, step=7)
    (event,) = events(tmp_path).Histograms("weights/w")
    assert event.step == 7
    return event.histogram_value


@pytest.mark.parametrize("shape", [(1000,), (30, 40), (2, 3, 5, 7)])
def test_a_histogram_has_the_tensors_counts_sum_and_range(tmp_path, shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = histogram_of(tmp_path, values)
    exact = values.double().numpy().ravel()
    counts, edges = np.histogram(exact, bins=64)
    assert (found.num, found.min, found.max) == (exact.size, exact.min(), exact.max())
    assert found.sum == pytest.approx(exact.sum(), rel=1e-4, abs=1e-2)
    assert found.sum_squares == pytest.approx((exact**2).sum(), rel=1e-4)
    # TensorBoard drops the empty bins at both ends
    edges_of_counts = dict(zip(np.round(edges[1:], 4), counts, strict=True))
    for limit, count in zip(found.bucket_limit, found.bucket, strict=True):
        assert edges_of_counts[round(limit, 4)] == count
    assert sum(found.bucket) == exact.size


@pytest.mark.parametrize("value", [0.0, -2.5, 2.0**13, -(2.0**60)])
def test_a_constant_tensor_has_a_histogram(tmp_path, value):
    found = histogram_of(tmp_path, torch.full((5, 2), value))
    assert (found.num, sum(found.bucket), found.sum) == (10, 10, 10 * value)
    assert found.min < value < found.max
    assert found.max - found.min == pytest.approx(2e-6 * max(1, abs(value)), rel=1e-3)


def test_every_parameter_and_gradient_every_n_epochs(tmp_path):
    net = toy_net()
    fit(net, Histograms(2), logger=tensorboard(tmp_path), max_epochs=5)
    found = events(tmp_path)
    names = [name for name, _ in net.named_parameters()]
    assert sorted(found.Tags()["histograms"]) == sorted(
        f"{kind}/{n}" for kind in ("gradients", "weights") for n in names
    )
    for tag in found.Tags()["histograms"]:
        assert [event.step for event in found.Histograms(tag)] == [11, 23]


def test_the_weights_and_the_gradients_are_those_of_the_epochs_last_batch(tmp_path):
    gradients = {}

    class Last(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            gradients.update({name: p.grad.clone() for name, p in pl_module.net.named_parameters()})

    net = toy_net()
    fit(net, Last(), Histograms(1), logger=tensorboard(tmp_path), max_epochs=1)
    found = events(tmp_path)
    for name, parameter in net.named_parameters():
        for kind, tensor in (("weights", parameter.detach()), ("gradients", gradients[name])):
            (event,) = found.Histograms(f"{kind}/{name}")
            assert event.histogram_value.sum == pytest.approx(float(tensor.sum()), abs=1e-6), name
            assert event.histogram_value.sum_squares == pytest.approx(float(tensor.square().sum()), rel=1e-5), name


def test_nothing_is_computed_for_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(Histograms, "_add", None)
    fit(toy_net(), Histograms(1), logger=CSVLogger(tmp_path))


@pytest.mark.parametrize("value", [0, -1, 1.5, "often", None])
def test_what_histograms_refuse(value):
    with pytest.raises(ValueError, match="histograms=null turns histograms off") as error:
        Histograms(value)
    assert f"callbacks.histograms.every_n_epochs={value} must be a whole number" in str(error.value)


# Figures


def test_the_pages_of_tensorboard(tmp_path):
    still = partial(torch.optim.SGD, lr=1e-9)  # it learns nothing, so something is wrong
    fit(toy_net(), Figures(9), optimizer=still, logger=tensorboard(tmp_path), test=True)
    found = events(tmp_path)
    tags = found.Tags()
    assert sorted(tags["images"]) == ["images/training", "test/confusion_matrix", "test/most_confidently_wrong"]
    assert [event.step for event in found.Images("images/training")] == [11]  # counted from 0
    assert [event.step for event in found.Images("test/confusion_matrix")] == [12]
    for tag in tags["images"]:
        assert found.Images(tag)[0].encoded_image_string.startswith(b"\x89PNG")
    assert tags["graph"]
    operations = {node.op for node in found.Graph().node}
    assert {"aten::linear", "aten::batch_norm"} <= operations


class Untraceable(nn.Sequential):
    """A network that asks for what no trace can follow."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("this layer looks at its input.\nmore lines")
        return super().forward(images)


def test_a_network_without_a_graph_keeps_its_run(tmp_path, caplog):
    trainer = fit(Untraceable(toy_net()), Figures(4), logger=tensorboard(tmp_path), test=True)
    assert trainer.callback_metrics["test/accuracy"] >= 0
    assert "no graph of this network, which cannot be traced: this layer looks at its input" in caplog.text
    assert "more lines" not in caplog.text
    assert not events(tmp_path).Tags()["graph"] and "images/training" in events(tmp_path).Tags()["images"]


def test_figures_and_histograms_change_nothing_of_the_training(tmp_path):
    torch.manual_seed(0)
    net = toy_net(dropout=0.5)
    twin = copy.deepcopy(net)
    pl.seed_everything(1, verbose=False)
    fit(net, logger=False)
    pl.seed_everything(1, verbose=False)
    fit(twin, Figures(4), Histograms(1), logger=tensorboard(tmp_path))
    assert weights_sha256(net) == weights_sha256(twin)  # BatchNorm's statistics, too


def test_without_tensorboard_no_figure_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("optbench.callbacks.tensorboard_figures.image_grid", None)
    monkeypatch.setattr("optbench.callbacks.tensorboard_figures.confusion", None)
    fit(toy_net(), Figures(4), logger=CSVLogger(tmp_path), test=True)


def test_a_test_without_mistakes_has_no_page_of_them(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():  # class k has mean 50 + 60 k, in [-1, 1]: -0.6, -0.14, 0.33
        net[1].weight[:] = torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 48)
        net[1].bias[:] = torch.tensor([-18.0, 0.0, -4.5])
    still = partial(torch.optim.SGD, lr=1e-9)
    fit(net, Figures(4), optimizer=still, logger=tensorboard(tmp_path), test=True, max_epochs=1)
    assert sorted(events(tmp_path).Tags()["images"]) == ["images/training", "test/confusion_matrix"]


@pytest.mark.parametrize("value", [0, 2.5, "all"])
def test_what_figures_refuse(value):
    with pytest.raises(ValueError, match="figures") as error:
        Figures(value)
    assert str(error.value) == f"callbacks.figures.examples={value} must be a whole number of at least 1."


# Progress


@pytest.mark.parametrize(
    ("terminal", "in_sweep", "level", "bar", "table"),
    [
        (True, False, logging.INFO, True, RichModelSummary),
        (False, False, logging.INFO, False, ModelSummary),
        (True, True, FILE_ONLY, False, None),
        (False, True, FILE_ONLY, False, None),
    ],
)
def test_progress_fits_the_place(monkeypatch, terminal, in_sweep, level, bar, table):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    lines, *bars = progress(in_sweep)
    assert isinstance(lines, EpochLines) and lines.level == level
    assert [type(one) for one in bars] == [RichProgressBar] * bar
    assert [type(one) for one in summary(in_sweep, 2)] == ([table] if table else [])


def test_a_line_an_epoch(caplog):
    history = EpochHistory()
    with caplog.at_level(FILE_ONLY, "optbench"):
        fit(toy_net(), history, EpochLines(FILE_ONLY), max_epochs=3)
    lines = [record for record in caplog.records if record.name == "optbench.callbacks.progress"]
    assert [record.levelno for record in lines] == [FILE_ONLY] * 3
    for record, row in zip(lines, history.rows, strict=True):
        shown = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
        values = "  ".join(f"{name} {row[name]:.4f}" for name in shown)
        expected = f"epoch {row['epoch']:3d}  {values}  {row['epoch_seconds']:.1f} s"
        assert record.getMessage() == expected
        assert re.fullmatch(r"epoch   \d  train/loss \d\.\d{4}  .*  \d+\.\d s", expected)
