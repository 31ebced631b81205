import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import OPTIMIZERS, PROJECT, optimizer_of
from formulas import RULES, H
from optbench.training.averaging import averages
from optbench.training.optimizers import build_optimizer, hyperparameters, parameter_groups

OFF = {"weight_decay": 0, "amsgrad": False, "fused": True}
PRACTICE = {
    "adam": {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-7, **OFF},
    "adamw": {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-7, **OFF, "weight_decay": 0.004},  # Keras' AdamW decays
    "rmsprop": {"lr": 0.001, "alpha": 0.9, "eps": 1e-7, "momentum": 0, "centered": False, "weight_decay": 0},
    "sgd": {"lr": 0.04, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0, "fused": True},
}
HOW = {"params", "foreach", "maximize", "capturable", "differentiable"}  # how it computes, and what never varies here


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


ELSEWHERE = {  # what a file leaves out, and why
    "adam": {"decoupled_weight_decay"},  # that is adamw
    "kron": {"mu_dtype", "precondition_dtype"},  # types that no file can name
    "soap": {"data_format"},  # of convolutions
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_file_spells_out_every_hyperparameter(name):
    optimizer = optimizer_of(name)
    fused = {"fused"} - set(optimizer.keywords)  # adadelta and others have the switch, and no kernel for it
    assert set(optimizer.keywords) == set(hyperparameters(optimizer.func)) - HOW - ELSEWHERE.get(name, set()) - fused


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_file_says_its_paper_and_how_weights_decay(name):
    lines = (PROJECT / f"configs/optimizer/{name}.yaml").read_text().splitlines()
    (decay,) = [line for line in lines if line.startswith("weight_decay:")]
    assert any(word in decay for word in ("coupled", "L2", "part of the update"))
    if name not in PRACTICE:
        assert lines[0].startswith("# ") and any(year in lines[0] for year in map(str, range(1964, 2026)))
    assert 5 <= len(lines) <= 18


def double_net(start: np.ndarray) -> nn.Linear:
    net = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    net.weight.data = torch.from_numpy(start.copy())
    return net


def step(optimizer: Any, parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
    def closure() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()

    if averages(optimizer):
        optimizer.train()
    optimizer.step(closure)


CHANGES = {  # to act at once, and on each side of a small matrix
    "shampoo": {"start_preconditioning_step": 1, "preconditioning_compute_steps": 1, "shape_interpretation": False}
}
PRECISION = {"muon": 1e-6, "shampoo": 1e-3, "nadam": 1e-6, "nadamw": 1e-6}  # partly in float32, roots by iteration


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_steps_equal_the_formula(name, decay):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(3, 4)), list(generator.normal(size=(8, 3, 4)) * 1e-3)
    if name not in ("soap", "shampoo"):  # whose matrices have eigenvalues that would be as small
        gradients[0][0, 0] = 1e-7  # as small as eps
    net = double_net(start)
    built = optimizer_of(name, lr=0.01, weight_decay=decay, **CHANGES.get(name, {}))
    optimizer = build_optimizer(built, net, "all")
    for gradient in gradients:
        step(optimizer, [net.weight], [torch.from_numpy(gradient)])
    if averages(optimizer):
        optimizer.eval()
    expected = RULES[name](start, gradients, H(built.keywords))
    np.testing.assert_allclose(net.weight.detach().numpy(), expected, rtol=PRECISION.get(name, 1e-9))


def test_every_optimizer_has_a_formula_or_a_test_of_its_own():
    assert set(OPTIMIZERS) - set(RULES) == {"kron", "sam"}  # test_training_adapted.py


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("on", ["all", "weights"])
def test_which_parameters_decay(name, on):
    """Two rates of decay give a parameter two values where it decays, and one where it does not."""
    quick = {"d0": 0.1} if name == "prodigy" else {}
    after = []
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        net = small_net()
        parameters = list(net.parameters())
        optimizer = build_optimizer(optimizer_of(name, lr=0.01, weight_decay=decay, **quick), net, on)
        for number in range(1, 6):
            for parameter in parameters:
                parameter.data.abs_().add_(0.1)
            step(optimizer, parameters, [(p.detach() + torch.rand_like(p)) / number for p in parameters])
        after.append([parameter.detach().clone() for parameter in parameters])
    for before, parameter in zip(*after, strict=True):
        decays = parameter.ndim > 1 or (on == "all" and name != "kron")
        assert torch.equal(parameter, before) is not decays


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_kernel_for_all_parameters_does_the_same(name):
    """fused where there is one, else foreach."""
    built = optimizer_of(name)
    parameters = inspect.signature(built.func).parameters
    switch = "fused" if "fused" in parameters else "foreach"
    if switch not in parameters:
        pytest.skip(f"{built.func.__name__} knows no foreach")
    after = []
    for value in (True, False):
        torch.manual_seed(0)
        net = small_net().double()
        optimizer = build_optimizer(partial(built, **{switch: value}), net, "weights")
        for _ in range(3):
            step(optimizer, list(net.parameters()), [torch.randn_like(parameter) for parameter in net.parameters()])
        after.append([parameter.detach().clone() for parameter in net.parameters()])
    torch.testing.assert_close(*after, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["soap", "ademamix", "prodigy", "kron"])
def test_no_constructor_swallows_an_unknown_key(name):
    with pytest.raises(
        ValueError, match=r"^optimizer\.wieght_decay=0\.1 is no hyperparameter of .* did you mean weight_"
    ):
        build_optimizer(optimizer_of(name, wieght_decay=0.1), small_net(), "all")


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
            "optimizer.alpha=0.9 is no hyperparameter of SGD. It has: lr, momentum, dampening, weight_decay, nesterov, "
            "maximize, foreach, differentiable, fused.",
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
