import math
import re
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from conftest import NAMES, PROJECT, ToyDataModule, toy_net, toy_trainer
from optbench.training.classifier import Classifier
from optbench.training.schedulers import build_scheduler, cosine_with_warmup, why_idle


def scheduler_of(name: str, **changes) -> partial:
    """A schedule of configs/scheduler, its interpolations of other groups replaced by `changes`."""
    cfg = OmegaConf.load(PROJECT / f"configs/scheduler/{name}.yaml")
    return instantiate(OmegaConf.merge(cfg, changes), _convert_="all")


class Rates(pl.Callback):
    """Notes the rate that each batch trains with, and makes up what `made/up` measures."""

    def __init__(self, made_up: list[float] | None = None) -> None:
        self.rates: list[float] = []
        self.made_up = made_up

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if self.made_up:
            pl_module.log("made/up", torch.tensor(self.made_up[trainer.current_epoch], dtype=torch.float64))


def rates_of(scheduler: partial | None, epochs: int, lr: float, made_up: list[float] | None = None) -> list[float]:
    """The rate at each of the 6 batches of each epoch."""
    rates = Rates(made_up)
    trainer = toy_trainer(max_epochs=epochs, callbacks=[rates], limit_val_batches=0)
    classifier = Classifier(toy_net(), NAMES, partial(torch.optim.SGD, lr=lr), scheduler, monitor="made/up")
    trainer.fit(classifier, datamodule=ToyDataModule())
    assert len(rates.rates) == 6 * epochs
    return rates.rates


def cosine_rates(steps: int, **settings) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    schedule = cosine_with_warmup(optimizer, steps, **settings)
    rates = []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_warms_up_in_a_line_and_comes_down_in_half_a_cosine():
    rates = cosine_rates(100, warmup=0.1, final_factor=0.2)
    assert rates[:11] == pytest.approx([0.5 * (k + 1) / 11 for k in range(11)])  # 0.0455 to the whole rate at step 10
    assert rates[55] == pytest.approx(0.5 * 0.6)  # half the way
    assert rates[32] == pytest.approx(0.5 * (0.2 + 0.8 * (1 + math.cos(math.pi * 22 / 90)) / 2))
    assert rates[100] == pytest.approx(0.5 * 0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_cosine_without_warmup_starts_at_the_whole_rate_and_ends_at_0():
    rates = cosine_rates(10, warmup=0.0, final_factor=0.0)
    assert (rates[0], rates[5], rates[10]) == pytest.approx((0.5, 0.25, 0.0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *(({"warmup": value, "final_factor": 0.0}, "scheduler.warmup=") for value in (-0.1, 1.0, math.nan)),
        *(({"warmup": 0.1, "final_factor": value}, "scheduler.final_factor=") for value in (-0.1, 1.5, math.nan)),
    ],
)
def test_what_cosine_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        cosine_rates(10, **settings)


def test_wsd_goes_up_stays_and_comes_down_in_lines():
    rates = rates_of(scheduler_of("wsd", warmup=1 / 6, decay=0.5, final_factor=0.1), 3, 0.8)
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6])
    assert rates[3:10] == pytest.approx([0.8] * 7)
    assert rates[10:] == pytest.approx([0.8 * (0.1 + 0.9 * left / 9) for left in range(8, 0, -1)])


def test_linear_is_a_triangle():
    rates = rates_of(scheduler_of("linear", warmup=1 / 3), 3, 0.7)
    assert rates[:6] == pytest.approx([0.7 * (k + 1) / 7 for k in range(6)])
    assert rates[6:] == pytest.approx([0.7 * left / 12 for left in range(12, 0, -1)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *(({"decay": value}, f"scheduler.decay={value} must be in (0, 1]") for value in (0, 1.5, "late")),
        ({"warmup": 1}, "scheduler.warmup=1 must be in [0, 1)"),
        ({"final_factor": -1}, "scheduler.final_factor=-1 must be in [0, 1]"),
    ],
)
def test_what_wsd_refuses(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        rates_of(scheduler_of("wsd", **settings), 1, 0.1)


def test_no_scheduler_and_the_constant_one_keep_the_rate():
    assert set(rates_of(None, 1, 0.04)) == {0.04}
    assert set(rates_of(scheduler_of("constant"), 7, 0.04)) == {0.04}


def test_cosine_steps_every_batch_of_the_whole_training():
    expected = [0.3 * (1 + math.cos(math.pi * step / 18)) / 2 for step in range(18)]
    assert rates_of(scheduler_of("cosine", warmup=0.0), 3, 0.3) == pytest.approx(expected)


def test_onecycle_steps_every_batch_of_the_whole_training():
    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

    top, low, end = 0.3, 0.3 / 25, 0.3 / 25 / 1e4
    peak = 0.3 * 18 - 1  # the step at the top
    expected = [
        between(low, top, k / peak) if k <= peak else between(top, end, (k - peak) / (17 - peak)) for k in range(18)
    ]
    rates = rates_of(scheduler_of("onecycle", max_lr=0.3), 3, 0.3)
    assert rates == pytest.approx(expected)
    assert (rates[0], rates[-1]) == pytest.approx((0.012, 1.2e-6))


def keras_reduce_lr_on_plateau(losses: list[float], lr: float) -> list[float]:
    """The rate of each epoch by the rules of Keras' ReduceLROnPlateau(patience=4, factor=.05, min_lr=.001)."""
    rates, best, wait = [], math.inf, 0
    for loss in losses:
        rates.append(lr)
        if loss < best - 1e-4:
            best, wait = loss, 0
            continue
        wait += 1
        if wait >= 4 and lr > 0.001:
            lr, wait = max(lr * 0.05, 0.001), 0
    return rates


LOSSES = [
    *(2.0, 1.5, 1.49995, 1.49992, 1.6, 1.49991),  # four epochs better by less than 1e-4: the rate falls
    *(1.4, 1.41, 1.42, 1.43, 1.3),  # three are too few
    *(1.31, 1.32, 1.33, 1.34),  # it falls again, to the lower limit
    *(1.35,) * 9,  # and no further
]


def test_the_exercises_plateau_is_kerass_with_patience_4():
    exercise = OmegaConf.load(PROJECT / "configs/experiment/exercise.yaml").scheduler
    settings = {"mode": "min", **exercise}
    expected = keras_reduce_lr_on_plateau(LOSSES, 0.04)
    assert sorted(set(expected)) == pytest.approx([0.001, 0.002, 0.04])
    rates = rates_of(scheduler_of("plateau", **settings), len(LOSSES), 0.04, LOSSES)
    assert rates[::6] == pytest.approx(expected)
    assert rates[::6] == rates[5::6]  # only between epochs
    # the exercise's other optimizers start at the lower limit
    assert set(rates_of(scheduler_of("plateau", **settings), 8, 0.001, [1.0] * 8)) == {0.001}


def test_the_default_plateau_halves_the_default_rate_at_the_third_epoch_without_improvement():
    rates = rates_of(scheduler_of("plateau", mode="min"), 12, 0.001, [1.0] * 12)[::6]
    assert rates == pytest.approx([0.001] * 4 + [0.0005] * 3 + [0.00025] * 3 + [0.000125] * 2)


@pytest.mark.parametrize(
    ("changes", "lr", "epochs", "why"),
    [
        ({}, 0.001, 30, ""),
        ({}, 0.001, 5, ""),
        ({}, 0.001, 4, "it acts after epoch 4 at the earliest, and trainer.max_epochs=4"),
        ({"min_lr": 0.001}, 0.001, 30, "scheduler.min_lr=0.001 is not below optimizer.lr=0.001"),
        ({"min_lr": 0.0}, 1e-8, 30, "its first step down from optimizer.lr=1e-08 is not above scheduler.eps=1e-08"),
    ],
)
def test_a_plateau_that_can_never_act_says_why(changes, lr, epochs, why):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr)
    schedule, _ = build_scheduler(scheduler_of("plateau", mode="min", **changes), optimizer, 10)
    assert why_idle(schedule, lr, epochs) == why
    for _ in range(epochs - 1):
        schedule.step(1.0)
    assert (optimizer.param_groups[0]["lr"] == lr) is bool(why)


@pytest.mark.parametrize(("name", "every_batch"), [("constant", False), ("cosine", True)])
def test_a_schedule_that_takes_total_steps_steps_every_batch(name, every_batch):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    assert build_scheduler(scheduler_of(name), optimizer, 10)[1] is every_batch


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "onecycle",
            {"max_lr": 0.3, "warmup": 0.1},
            "scheduler: OneCycleLR refuses its arguments: OneCycleLR.__init__() got an unexpected keyword argument "
            "'warmup'.",
        ),
        (
            "plateau",
            {"mode": "min", "factor": 1.5},
            "scheduler: ReduceLROnPlateau refuses its arguments: Factor should be < 1.0.",
        ),
        (
            "cosine",
            {"warmup": 2},
            "scheduler.warmup=2 must be in [0, 1): it is the fraction of all steps that warms up.",
        ),
    ],
)
def test_what_a_schedule_refuses(name, changes, sentence):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    with pytest.raises(ValueError, match="scheduler") as error:
        build_scheduler(scheduler_of(name, **changes), optimizer, 10)
    assert str(error.value) == sentence
