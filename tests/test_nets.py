import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from conftest import PROJECT
from optbench.nets.mlp import ACTIVATIONS, MLP
from optbench.training.provenance import count_parameters

SHAPE = (3, 32, 32)


def net_of(*overrides: str, classes: int = 10) -> nn.Module:
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        model = compose("train", list(overrides)).model
    return instantiate(model, image_shape=SHAPE, classes=classes, _convert_="all")


def test_the_exercises_network_has_its_parameters():
    assert count_parameters(net_of()) == {"trainable": 5_951_114, "statistics": 4_352}


def test_the_exercises_layers_are_in_its_order():
    kinds = [type(module).__name__ for module in net_of().layers]
    assert (
        kinds
        == (
            "Linear ReLU BatchNorm1d Linear ReLU Linear GELU Dropout Linear ReLU Dropout BatchNorm1d "
            "Linear Tanh Linear Tanh"
        ).split()
    )


def test_kerass_initialisation_and_constants():
    net = net_of()
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            limit = math.sqrt(6 / (layer.in_features + layer.out_features))
            assert layer.weight.abs().max() <= limit
            assert float(layer.weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)
            assert not layer.bias.any()
        if isinstance(layer, nn.BatchNorm1d):
            assert (layer.eps, layer.momentum) == (1e-3, 0.01)
        if isinstance(layer, nn.GELU):
            assert layer.approximate == "none"


def test_dropout_sets_the_rate_wherever_a_layer_has_it():
    rates = [module.p for module in net_of("model.dropout=0.35").modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.35, 0.35]


def test_layers_from_the_command_line():
    net = net_of("model.layers=[64 batchnorm silu, 32]", classes=4)
    assert [type(module).__name__ for module in net.layers] == ["Linear", "BatchNorm1d", "SiLU", "Linear"]
    assert net(torch.zeros(2, *SHAPE)).shape == (2, 4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    assert isinstance(MLP((1, 2, 2), 3, [f"5 {activation}"], 0.0).layers[1], ACTIVATIONS[activation])


@pytest.mark.parametrize(
    ("layers", "dropout", "words"),
    [
        ([], 0.1, "model.layers=[] must be a list of at least one hidden layer"),
        (None, 0.1, "model.layers=None must be a list"),
        (["relu 12"], 0.1, "'relu 12' must begin with its width"),
        (["0 relu"], 0.1, "'0 relu' must begin with its width"),
        (["12 rleu"], 0.1, "'rleu' in '12 rleu' is not known"),
        (["12"], 1.0, "model.dropout=1.0 must be in [0, 1)"),
        (["12"], -0.1, "model.dropout=-0.1 must be in [0, 1)"),
        (["12"], "much", "model.dropout=much must be in [0, 1)"),
    ],
)
def test_what_the_mlp_refuses(layers, dropout, words):
    with pytest.raises(ValueError, match="model") as error:
        MLP(SHAPE, 10, layers, dropout)
    assert words in str(error.value)


@pytest.mark.parametrize(("model", "trainable"), [("linear", 3072 * 10 + 10), ("convnet", 94_762)])
def test_the_other_networks(model, trainable):
    net = net_of(f"model={model}", classes=10)
    assert net(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert count_parameters(net)["trainable"] == trainable


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("model.channels=[]", "model.channels=[] must be a list of whole numbers"),
        ("model.channels=[8, x]", "model.channels=[8, 'x'] must be a list of whole numbers"),
        ("model.channels=[1,1,1,1,1,1]", "leaves nothing of 32 x 32 pixels"),
    ],
)
def test_what_the_convnet_refuses(overrides, words):
    with pytest.raises(InstantiationException) as error:
        net_of("model=convnet", overrides)
    assert words in str(error.value)
