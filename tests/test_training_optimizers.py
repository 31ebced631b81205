import inspect
from functools import partial

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from conftest import PROJECT
from optbench.training.optimizers import build_optimizer, parameter_groups

FILES = sorted((PROJECT / "configs" / "optimizer").glob("*.yaml"))
OFF = {"weight_decay": 0, "amsgrad": False, "fused": True}
PRACTICE = {
    "adam": {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-7, **OFF},
    "adamw": {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-7, **OFF, "weight_decay": 0.004},  # Keras' AdamW decays
    "rmsprop": {"lr": 0.001, "alpha": 0.9, "eps": 1e-7, "momentum": 0, "centered": False, "weight_decay": 0},
    "sgd": {"lr": 0.04, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0, "fused": True},
}
NOT_HYPERPARAMETERS = {"params", "foreach", "maximize", "capturable", "differentiable", "decoupled_weight_decay"}


def optimizer_of(name: str, **changes) -> partial:
    return instantiate(OmegaConf.load(PROJECT / f"configs/optimizer/{name}.yaml"), _convert_="all", **changes)


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", PRACTICE)
def test_the_exercises_hyperparameters(name):
    built = build_optimizer(optimizer_of(name), small_net(), "all")
    assert type(built).__name__.lower() == name
    found = {key: built.defaults[key] for key in PRACTICE[name]}
    if "betas" in found:
        found["betas"] = tuple(found["betas"])
    assert found == PRACTICE[name]
    switches = {key: value for key, value in built.defaults.items() if key not in PRACTICE[name]}
    switches.pop("decoupled_weight_decay", None)  # what AdamW is
    assert not any(switches.values()), switches


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_spells_out_every_hyperparameter(path):
    optimizer = optimizer_of(path.stem)
    if not optimizer.func.__module__.startswith("torch.optim"):
        pytest.skip("not PyTorch's own")
    accepted = set(inspect.signature(optimizer.func).parameters) - NOT_HYPERPARAMETERS
    assert set(optimizer.keywords) == accepted


def steps_by_hand(name: str, w: np.ndarray, gradients: list[np.ndarray], lr: float, decay: float) -> np.ndarray:
    """The published update rules, in double precision."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        if name == "adamw":
            g, w = gradient, w * (1 - lr * decay)
        else:
            g = gradient + decay * w
        if name == "sgd":
            w = w - lr * g
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            w = w - lr * g / (np.sqrt(v) + 1e-7)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return w


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", PRACTICE)
def test_steps_equal_the_formula(name, decay):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(3, 4)), list(generator.normal(size=(3, 3, 4)) * 1e-3)
    gradients[0][0, 0] = 1e-7  # as small as eps
    net = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    net.weight.data = torch.from_numpy(start.copy())
    optimizer = build_optimizer(optimizer_of(name, lr=0.01, weight_decay=decay), net, "all")
    for gradient in gradients:
        net.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    expected = steps_by_hand(name, start, gradients, 0.01, decay)
    np.testing.assert_allclose(net.weight.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", PRACTICE)
@pytest.mark.parametrize("on", ["all", "weights"])
def test_which_parameters_decay(name, on):
    net = small_net()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(optimizer_of(name, lr=0.01, weight_decay=0.5), net, on).step()
    for parameter in net.parameters():
        assert bool((parameter < 1).all()) is (on == "all" or parameter.ndim > 1)


def test_frozen_parameters_stay_out():
    net = small_net()
    net[0].requires_grad_(False)
    for on in ("all", "weights"):
        given = [p for group in parameter_groups(net, on) for p in group["params"]]
        assert {id(p) for p in given} == {id(p) for p in [*net[1].parameters(), *net[2].parameters()]}


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        *(
            (
                name,
                {"lr": lr},
                f"optimizer.lr={lr} is no learning rate: it must be a number above 0, for example 0.001.",
            )
            for name, lr in [
                *((name, 0) for name in PRACTICE),
                *(("sgd", lr) for lr in (-0.1, "fast", float("nan"), float("inf"), None, True)),
            ]
        ),
        *(
            ("rmsprop", {key: value}, f"optimizer.{key}={value} must be a number of at least 0.")
            for key in ("weight_decay", "momentum", "eps", "alpha")
            for value in (-1.0, "little", float("nan"))
        ),
        ("sgd", {"dampening": "much"}, "optimizer.dampening=much must be a number of at least 0."),
        ("adam", {"amsgrad": "no"}, "optimizer.amsgrad=no must be true or false."),
        ("sgd", {"nesterov": 1}, "optimizer.nesterov=1 must be true or false."),
        ("rmsprop", {"centered": None}, "optimizer.centered=None must be true or false."),
        (
            "adam",
            {"betas": [1.5, 0.9]},
            "optimizer: Adam refuses its arguments: Invalid beta parameter at index 0: 1.5.",
        ),
        ("adam", {"betas": [0.9]}, "optimizer: Adam refuses its arguments: list index out of range."),
        (
            "sgd",
            {"nesterov": True},
            "optimizer: SGD refuses its arguments: Nesterov momentum requires a momentum and zero dampening.",
        ),
        (
            "sgd",
            {"alpha": 0.9},
            "optimizer: SGD refuses its arguments: SGD.__init__() got an unexpected keyword argument 'alpha'.",
        ),
    ],
)
def test_what_is_refused(name, changes, sentence):
    with pytest.raises(ValueError, match="optimizer") as error:
        build_optimizer(optimizer_of(name, **changes), small_net(), "all")
    assert str(error.value) == sentence


def test_an_unknown_weight_decay_on():
    with pytest.raises(ValueError, match=r"^weight_decay_on=biases is not known: use all or weights\.$"):
        parameter_groups(small_net(), "biases")
