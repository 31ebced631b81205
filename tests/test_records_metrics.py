"""The one vocabulary of metrics: every part of the project asks it."""

import pytest
import torch
from omegaconf import OmegaConf

from optbench.commands import resolvers  # noqa: F401
from optbench.records import metrics, wording
from optbench.records.record import RunRecord
from optbench.training.measurement import measure


@pytest.mark.parametrize(
    ("key", "mode", "fraction", "title"),
    [
        ("val/loss", "min", False, "validation loss"),
        ("test/accuracy", "max", True, "test accuracy"),
        ("train/top3_accuracy", "max", True, "training top3 accuracy"),
        ("val/ece", "min", True, "validation ece"),
        ("val/accuracy/loss", "max", True, "validation accuracy loss"),  # a class that is called loss
        ("val/accuracy/ece", "max", True, "validation accuracy ece"),
        ("lr", "max", False, "learning rate"),
    ],
)
def test_what_a_metric_means(key, mode, fraction, title):
    assert metrics.mode(key) == mode == OmegaConf.create({"mode": f"${{metric_mode:{key}}}"}).mode
    assert metrics.sign(key) == (1 if mode == "max" else -1)
    assert metrics.metric(key).is_fraction is fraction and metrics.title(key) == title
    assert wording.value(key, 0.25) == ("25.00 %" if fraction else "0.2500")


def test_the_best_epoch_of_a_class_called_loss_is_that_of_its_highest_accuracy():
    record = RunRecord(monitor="val/accuracy/loss", status="completed")
    rows = [{"epoch": k, "step": k, "seconds": 1.0, "val/accuracy/loss": value} for k, value in ((1, 0.2), (2, 0.7))]
    record.take_epochs(rows)
    assert record.best["epoch"] == 2 and record.objective() == 0.7
    assert RunRecord(monitor="val/accuracy/loss", status="diverged").objective() == -float("inf")


def test_everything_that_is_measured_is_described_and_can_be_monitored():
    classes = ("loss", "cat")
    values = measure(torch.eye(2), torch.tensor([0, 1]), classes)
    assert {name.split("/")[0] for name in values} == set(metrics.METRICS)
    assert {f"val/{name}" for name in values} | {f"train/{name}" for name in values} == set(
        metrics.monitorable(classes)
    )
    assert set(metrics.SHOWN) <= set(metrics.METRICS)


def test_stages_and_axes():
    assert metrics.at("val", "test/accuracy/cat") == "val/accuracy/cat"
    assert metrics.is_logarithmic("val/loss", 0.1, 2.1) and not metrics.is_logarithmic("val/loss", 0.2, 2.1)
    assert not metrics.is_logarithmic("lr", 0.0, 0.1) and metrics.is_logarithmic("lr", 1e-4, 0.1)
    assert not metrics.is_logarithmic("val/accuracy", 0.001, 1.0)  # a fraction never


def test_a_value_reads_as_a_person_types_it():
    values = (None, True, False, 0.001, 1e-05, 128, "sgd", [1, 2], float("inf"))
    assert list(map(wording.text, values)) == [
        *("null", "true", "false", "0.001", "1e-05", "128", "sgd", "[1, 2]", "inf")
    ]
    assert wording.is_number(1) and wording.is_number(0.5)
    assert not any(map(wording.is_number, (True, "1", None, float("nan"), float("inf"), 10**400)))
