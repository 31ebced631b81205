"""Optimizers that train with one set of weights and are evaluated with another: Schedule-Free (Defazio et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

State = dict[str, Tensor]


def averages(optimizer: Any) -> bool:
    """Whether an optimizer has to be told if it trains or evaluates."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


class EvaluatedWeights:
    """The weights to evaluate, and BatchNorm's statistics for them, beside those that training goes on with.

    `optimizer.eval()` computes the first from the second, `optimizer.train()` computes them back, which rounds. Here
    training goes on with the very weights that it had, so a validation or a checkpoint more changes no number.

    Args:
        batches: the images from which BatchNorm's statistics are taken: in training it has seen other weights.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, batches: Callable[[], Iterable[Tensor]]) -> None:
        self.net, self.optimizer, self.batches = net, optimizer, batches
        self._step, self._evaluated, self._trained = -1, State(), State()
        optimizer.train()  # type: ignore[attr-defined]

    def at(self, step: int) -> State:
        """What to evaluate after so many steps; the net keeps what it trains with."""
        if step != self._step:
            with torch.inference_mode(False), torch.no_grad():  # Lightning validates in inference mode
                trained = copy_of(self.net)
                self.optimizer.eval()  # type: ignore[attr-defined]
                update_bn(self.batches(), self.net)
                self._evaluated, self._step = copy_of(self.net), step
                self.optimizer.train()  # type: ignore[attr-defined]
                self.net.load_state_dict(trained)
        return self._evaluated

    def show(self, step: int) -> None:
        """Let the net have them, until `hide`."""
        evaluated = self.at(step)
        with torch.inference_mode(False):
            self._trained = copy_of(self.net)
            self.net.load_state_dict(evaluated)

    def hide(self) -> None:
        with torch.inference_mode(False):
            self.net.load_state_dict(self._trained)


def copy_of(net: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}
