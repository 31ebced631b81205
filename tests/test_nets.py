import math
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from conftest import PROJECT, ToyDataModule, toy_images
from optbench.nets.airbench import AirBench, Shift, covariance_of_patches
from optbench.nets.libraries import fitted, timm_net, torchvision_net
from optbench.nets.mlp import ACTIVATIONS, MLP
from optbench.nets.residual_mlp import ResidualMLP
from optbench.training.build import initialize_net
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
        ([""], 0.1, "'' must begin with its width"),
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


TRAINABLE = {
    "linear": 3072 * 10 + 10,
    "convnet": 94_762,
    "residual_mlp": 3073 * 512 + 4 * (2 * 512 + 513 * 2048 + 2049 * 512) + 2 * 512 + 513 * 10,
    "airbench": 24 + (24 + 64) * 64 * 9 + (64 + 256) * 256 * 9 + 512 * 256 * 9 + 2 * (64 + 256 + 256) + 256 * 10,
    "resnet18": 11_173_962,
    "torchvision model.name=squeezenet1_1": 727_626,
    "timm": 578_474,
    "vit_tiny": 5_362_762,
}


@pytest.mark.parametrize(("model", "trainable"), TRAINABLE.items())
def test_the_other_networks(model, trainable):
    net = net_of(*f"model={model}".split(), classes=10)
    assert net.training
    assert net.eval()(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert count_parameters(net)["trainable"] == trainable


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("convnet model.channels=[]", "model.channels=[] must be a list of whole numbers"),
        ("convnet model.channels=[8,x]", "model.channels=[8, 'x'] must be a list of whole numbers"),
        ("convnet model.channels=[1,1,1,1,1,1]", "needs at least 64 x 64 pixels; these have 32 x 32"),
        ("residual_mlp model.width=0", "model.width=0 must be a whole number of at least 1."),
        ("residual_mlp model.stochastic_depth=1", "model.stochastic_depth=1 must be in [0, 1)"),
        ("airbench model.widths=[64,0]", "model.widths=[64, 0] must be a list of whole numbers of at least 1"),
        ("airbench model.widths=[8,8,8,8,8,8]", "needs at least 65 x 65 pixels; these have 32 x 32"),
        ("airbench model.scale=0", "model.scale=0 must be a number above 0, such as 0.1111"),
        ("airbench model.scale=large", "model.scale=large must be a number above 0, such as 0.1111"),
        ("torchvision model.name=resnet81", "model.name=resnet81 is no network of torchvision; did you mean resnet18?"),
        (
            "resnet18 model.name=squeezenet1_1",
            "model.small_images=true is for ResNets; model.name=squeezenet1_1 is none.",
        ),
        ("resnet18 model.weights=DEFAULT", "model.weights=DEFAULT would have to be downloaded."),
        ("resnet18 +model.options.depth=3", "model.options: resnet18 refuses its arguments: "),
        ("resnet18 model.options=null", "model.options=null must be a mapping from arguments to values"),
        ("vit_tiny model.options=3", "model.options=3 must be a mapping from arguments to values"),
        ("resnet18 model.small_images=no", "model.small_images=no must be true or false."),
        ("timm +model.options.checkpoint_path=a.pth", "model.options.checkpoint_path=a.pth would load weights."),
        ("timm model.name=hf-hub:someone/model", "model.name=hf-hub:someone/model is no network of timm."),
        ("vit_tiny +model.options.img_size=31", "model.name=vit_tiny_patch16_224 cannot take images of 32 x 32 pixels"),
    ],
)
def test_what_the_networks_refuse(overrides, words):
    with pytest.raises(InstantiationException) as error:
        net_of(*f"model={overrides}".split())
    assert words in str(error.value)


def test_a_residual_mlp_starts_as_a_linear_map_and_skips_blocks_in_training_alone():
    net = ResidualMLP((3, 4, 4), 5, width=8, blocks=2, expansion=2, stochastic_depth=0.5)
    images = torch.randn(4, 3, 4, 4)
    assert torch.equal(net(images), net.head(net.norm(net.embedding(images.flatten(1)))))
    assert [block.skip.p for block in net.blocks] == [0.25, 0.5]
    many = images[:1].repeat(400, 1, 1, 1)
    without = net(many)
    nn.init.normal_(net.blocks[1].down.weight)
    same = (net(many) - without).abs().amax(1) < 1e-5
    assert 0.4 < float(same.float().mean()) < 0.6
    assert not ((net.eval()(many) - without).abs().amax(1) < 1e-5).any()


def test_airbench_whitens_patches_and_passes_its_input_on():
    images = torch.rand(50, 3, 12, 12).cumsum(3)  # neighbouring pixels have much in common
    net = AirBench((3, 12, 12), 4, widths=[32, 8], scale=0.5)
    net.initialize(images)
    white = nn.functional.conv2d(images, net.filters[:12]).transpose(0, 1).flatten(1)
    assert torch.cov(white).diag() == pytest.approx(torch.ones(12), abs=0.1)
    assert torch.cov(white).fill_diagonal_(0).abs().max() < 1e-3
    assert torch.equal(net.filters[:12], -net.filters[12:])
    again = AirBench((3, 12, 12), 4, widths=[32, 8], scale=0.5)
    again.initialize(images)
    assert torch.equal(again.filters, net.filters)
    first = net.groups[0][0]
    seen = torch.randn(2, 24, 5, 5)
    assert torch.equal(first(seen)[:, :24], seen)  # its first filters copy
    assert [type(part).__name__ for part in net.groups[0]][2:4] == ["BatchNorm2d", "Shift"]
    assert list(net.groups[0][2].parameters()) == []


def test_airbenchs_shifts_learn_at_64_times_the_rate():
    shift, images = Shift(2), torch.randn(3, 2, 4, 4)
    step = torch.optim.SGD(shift.parameters(), lr=0.1)
    (shift(images)[:, 1] * 5).mean().backward()  # the gradient of channel 1's shift is 5
    step.step()
    added = shift(images) - images
    torch.testing.assert_close(added[:, 0], torch.zeros(3, 4, 4))
    torch.testing.assert_close(added[:, 1], torch.full((3, 4, 4), -5 * 0.1 * 64), rtol=1e-5, atol=1e-5)


def test_the_covariance_of_patches_is_that_of_all_images():
    images = torch.rand(120, 3, 5, 7).cumsum(3) - 2
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(1, 4, 5, 0, 2, 3).reshape(12, -1)
    torch.testing.assert_close(covariance_of_patches(images), torch.cov(patches.double()), rtol=1e-9, atol=1e-9)


def test_airbenchs_filters_are_the_same_however_the_patches_are_added_up():
    images = torch.rand(50, 1, 12, 12).cumsum(3).expand(-1, 3, -1, -1)  # grey: eight components have no variance
    nets = [AirBench((3, 12, 12), 4, widths=[8], scale=0.5) for _ in range(2)]
    nets[0].initialize(images)
    nets[1].initialize(images.flip(0))
    assert torch.equal(nets[0].filters, nets[1].filters)


def test_a_network_begins_with_images_from_the_whole_training_set():
    class Keeps(nn.Module):
        def initialize(self, images: torch.Tensor) -> None:
            self.images = images

    net = Keeps()
    for train, places in ((60, slice(None)), (2500, slice(None, None, 2))):
        data = ToyDataModule(toy_images(train))
        data.setup()
        initialize_net(net, data)
        assert torch.equal(net.images, data.normalize(data.train.images[data.train.indices[places]]))


def test_networks_of_libraries_take_other_shapes_and_many_classes():
    assert torchvision_net((3, 48, 64), 1000, "resnet18", True, None, {}).eval()(torch.zeros(1, 3, 48, 64)).shape == (
        1,
        1000,
    )
    assert timm_net((3, 24, 24), 2, "vit_tiny_patch16_224", None, {"patch_size": 6}).eval()(
        torch.zeros(1, 3, 24, 24)
    ).shape == (1, 2)


def test_without_timm_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"model.name=resnet18 needs the package timm. It is the extra `networks`"):
        timm_net((3, 32, 32), 10, "resnet18", None, {})


def test_a_network_of_a_library_that_gives_no_logit_for_each_class():
    words = r"model.name=flat gives 3072 numbers for an image instead of 10, one for each class. Check model.options."
    with pytest.raises(ValueError, match=words):
        fitted(lambda height, width: nn.Flatten(), SHAPE, "flat", 10)


def test_images_that_are_too_small_for_a_network_of_a_library():
    words = r"model.name=squeezenet1_1 cannot take images of 8 x 8 pixels \(.*\). It works with 32 x 32."
    with pytest.raises(ValueError, match=words):
        torchvision_net((3, 8, 8), 10, "squeezenet1_1", False, None, {})


def test_a_network_that_divides_by_the_pixels_that_are_not_there():
    def build(height: int, width: int) -> nn.Module:
        assert 64 % (height // 48) == 0
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 10))

    words = r"model.name=far cannot take images of 32 x 32 pixels \(integer .* zero\). It works with 48 x 48."
    with pytest.raises(ValueError, match=words):
        fitted(build, SHAPE, "far", 10)


def test_any_network_trains_one_step_of_its_own_loss():
    for net in (ResidualMLP(SHAPE, 3, 16, 2, 2, 0.1), AirBench(SHAPE, 3, [8, 8, 8], 0.1)):
        net.train()(torch.randn(4, *SHAPE)).square().sum().backward()
        assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
