"""Any classifier of torchvision or timm by its name, fitted to the images and classes of the data.

Nothing is downloaded: every network starts from random weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from torch import nn

from optbench.records.wording import first_line, near, text

SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 256, 299)  # tried, to say what a network needs
# What a network raises that images of this size do not suit: it divides by no pixel, or finds no place.
FAILURES = (RuntimeError, AssertionError, ValueError, ArithmeticError, LookupError, AttributeError)
ImageShape = tuple[int, int, int]
Build = Callable[[int, int], nn.Module]  # from height and width


def torchvision_net(
    image_shape: ImageShape,
    classes: int,
    name: str,
    small_images: bool,
    weights: None,
    options: Mapping[str, Any],
) -> nn.Module:
    """A network of `torchvision.models`: images `(B, 3, H, W)` in, logits `(B, classes)` out.

    Args:
        small_images: for ResNets: the first layers keep the images' size, as He et al. 2015 do for CIFAR-10. With its
            usual ones, made for 224 pixels, the network leaves one pixel of 32.
        weights: null. Anything else is refused.
        options: further arguments of the network's builder, such as `dropout`.

    Raises:
        ValueError: for an unknown name, what the builder refuses, images that are too small, or weights.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    check_request(name, known, weights, options, "torchvision")
    if type(small_images) is not bool:
        raise ValueError(f"model.small_images={small_images} must be true or false.")

    def build(height: int, width: int) -> nn.Module:
        arguments = dict(options)
        if name.startswith("vit_"):
            arguments.setdefault("image_size", height)
        if name in ("googlenet", "inception_v3"):
            arguments = {"aux_logits": False, "init_weights": True, **arguments}  # one output, as all others
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **arguments)

    if small_images:
        return fitted(lambda *size: with_small_stem(build(*size), name), image_shape, name, classes)
    return fitted(build, image_shape, name, classes)


def with_small_stem(net: nn.Module, name: str) -> nn.Module:
    if not isinstance(net, torchvision.models.ResNet):
        raise ValueError(
            f"model.small_images=true is for ResNets; model.name={name} is none. Use model.small_images=false."
        )
    net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    net.maxpool = nn.Identity()
    return net


def timm_net(image_shape: ImageShape, classes: int, name: str, weights: None, options: Mapping[str, Any]) -> nn.Module:
    """A network of the package timm: images `(B, 3, H, W)` in, logits `(B, classes)` out.

    Args:
        weights: null. Anything else is refused.
        options: further arguments of the network's builder, such as `patch_size`.

    Raises:
        ValueError: for an unknown name, what the builder refuses, images that are too small, or weights.
    """
    try:
        import timm  # an extra: torchvision's networks must not need it
    except ImportError as error:
        raise ValueError(
            f"model.name={name} needs the package timm. It is the extra `networks`: pip install timm."
        ) from error
    # a name of another kind would fetch its configuration
    check_request(name, timm.list_models(), weights, options, "timm")
    if "checkpoint_path" in options:
        raise ValueError(
            f"model.options.checkpoint_path={options['checkpoint_path']} would load weights. Runs start from random "
            "weights, which are the same for every optimizer at one seed: leave it out."
        )
    sized = timm.get_pretrained_cfg(name).fixed_input_size  # type: ignore[union-attr]

    def build(height: int, width: int) -> nn.Module:
        size = {"img_size": (height, width)} if sized else {}
        return timm.create_model(name, pretrained=False, num_classes=classes, **{**size, **options})

    return fitted(build, image_shape, name, classes)


def check_request(name: str, known: list[str], weights: Any, options: Any, library: str) -> None:
    if name not in known:
        raise ValueError(
            f"model.name={name} is no network of {library}{near(str(name), known)} It has {len(known)}, such as "
            f"{', '.join(known[:: len(known) // 5][:5])}."
        )
    if weights is not None:
        raise ValueError(
            f"model.weights={weights} would have to be downloaded. Runs start from random weights, which are the same "
            "for every optimizer at one seed: use model.weights=null."
        )
    if not isinstance(options, Mapping):
        raise ValueError(
            f"model.options={text(options)} must be a mapping from arguments to values, such as {{dropout: 0.3}}."
        )


def fitted(build: Build, image_shape: ImageShape, name: str, classes: int) -> nn.Module:
    """Build a network, and try it on images of the data's size."""
    _, height, width = image_shape
    try:
        net = build(height, width)
        shape = outputs(net, height, width)
    except TypeError as error:
        raise ValueError(f"model.options: {name} refuses its arguments: {str(error).rstrip('.')}.") from error
    except FAILURES as error:
        if str(error).startswith("model."):
            raise
        larger = [side for side in SIZES if side > min(height, width) and works(build, side)][:1]
        needs = f"It works with {larger[0]} x {larger[0]}." if larger else "Another model.name may."
        raise ValueError(
            f"model.name={name} cannot take images of {height} x {width} pixels ({first_line(error)}). {needs}"
        ) from error
    if shape is None:
        raise ValueError(f"model.name={name} gives more than one output for an image, so it is no plain classifier.")
    if shape != (2, classes):
        raise ValueError(
            f"model.name={name} gives {' x '.join(map(str, shape[1:]))} numbers for an image instead of {classes}, one "
            "for each class. Check model.options."
        )
    return net


def outputs(net: nn.Module, height: int, width: int) -> torch.Size | None:
    """The shape of what it gives for two images; None where that is no tensor."""
    training = net.training
    with torch.no_grad():
        given = net.eval()(torch.zeros(2, 3, height, width))
    net.train(training)
    return given.shape if isinstance(given, torch.Tensor) else None


def works(build: Build, side: int) -> bool:
    try:
        outputs(build(side, side), side, side)
    except FAILURES:
        return False
    return True
