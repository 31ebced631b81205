"""Where a configuration becomes an optimizer: its parameter groups, and the values that are refused."""

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn
from torch.optim import Optimizer

from optbench.records.wording import is_number, near

SCALARS = ("weight_decay", "momentum", "dampening", "eps", "alpha")  # 0 or more
SWITCHES = ("amsgrad", "nesterov", "centered")


def parameter_groups(net: nn.Module, weight_decay_on: str) -> list[dict]:
    """All parameters in one group, or those with one dimension (biases, norms) in a second without weight decay.

    Raises:
        ValueError: unless `weight_decay_on` is `all` or `weights`.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if weight_decay_on == "all":
        return [{"params": parameters}]
    if weight_decay_on == "weights":
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    raise ValueError(f"weight_decay_on={weight_decay_on} is not known: use all or weights.")


def build_optimizer(optimizer: Callable[..., Optimizer], net: nn.Module, weight_decay_on: str) -> Optimizer:
    """Call a `_partial_` optimizer on the parameters of `net`.

    Raises:
        ValueError: for a key that the optimizer does not have, a learning rate that is no number above 0, or what the
            optimizer itself refuses.
    """
    assert isinstance(optimizer, partial)
    known = hyperparameters(optimizer.func)
    for name, value in optimizer.keywords.items():
        if name not in known:
            raise ValueError(
                f"optimizer.{name}={value} is no hyperparameter of {optimizer.func.__name__}{near(name, known)} "
                f"It has: {', '.join(known)}."
            )
        if name == "lr" and not (is_number(value) and value > 0):
            raise ValueError(
                f"optimizer.lr={value} is no learning rate: it must be a number above 0, for example 0.001."
            )
        scalar = name in SCALARS and not isinstance(value, list)  # Adafactor has two eps
        if scalar and not (is_number(value) and value >= 0):
            raise ValueError(f"optimizer.{name}={value} must be a number of at least 0.")
        if name in SWITCHES and type(value) is not bool:
            raise ValueError(f"optimizer.{name}={value} must be true or false.")
    groups = parameter_groups(net, weight_decay_on)
    try:
        return optimizer(groups)
    except (TypeError, ValueError, IndexError) as error:
        text = str(error).rstrip(".")
        raise ValueError(f"optimizer: {optimizer.func.__name__} refuses its arguments: {text}.") from error


def hyperparameters(optimizer: Callable[..., Optimizer]) -> list[str]:
    """The names of a constructor's arguments, without what it would swallow as `**kwargs`."""
    parameters = inspect.signature(optimizer).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [name for name in named if name != "params"]
