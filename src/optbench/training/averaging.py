"""Training with one set of weights, and evaluating another: averages of them.

Schedule-Free optimizers (Defazio et al. 2024) average by themselves; `averaging=ema`, `averaging=swa` and
`averaging=lookahead` do it for any other.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from optbench.records.wording import is_number

State = dict[str, Tensor]
Batches = Callable[[], Iterable[Tensor]]


def averages(optimizer: Any) -> bool:
    """Whether an optimizer has to be told if it trains or evaluates."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


class EvaluatedWeights:
    """The weights to evaluate, beside those that training goes on with.

    Validation and checkpoints see the first. Training goes on with the very weights that it had, so a validation or a
    checkpoint more changes no number.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._step, self._evaluated, self._trained = -1, State(), State()

    def compute(self) -> State:
        """The weights to evaluate. It may leave anything in the net, which gets its own weights back."""
        raise NotImplementedError

    def at(self, step: int) -> State:
        """What to evaluate after so many steps; the net keeps what it trains with."""
        if step != self._step:
            with torch.inference_mode(False), torch.no_grad():  # Lightning validates in inference mode
                trained = copy_of(self.net)
                self._evaluated, self._step = self.compute(), step
                self.net.load_state_dict(trained)
        return self._evaluated

    def trained(self) -> State:
        """What training goes on with, also while the net has the others."""
        return self._trained or self.net.state_dict()

    def show(self, step: int) -> None:
        """Let the net have them, until `hide`."""
        evaluated = self.at(step)
        with torch.inference_mode(False):
            self._trained = copy_of(self.net)
            self.net.load_state_dict(evaluated)

    def hide(self) -> None:
        with torch.inference_mode(False):
            self.net.load_state_dict(self._trained)
        self._trained = State()


class OptimizersAverage(EvaluatedWeights):
    """The average that a Schedule-Free optimizer has, with BatchNorm's statistics for it.

    `optimizer.eval()` computes it from the weights that train, `optimizer.train()` computes them back, which rounds:
    here they are kept instead.

    Args:
        batches: the images from which BatchNorm's statistics are taken: in training it has seen other weights.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, batches: Batches) -> None:
        super().__init__(net)
        self.optimizer, self.batches = optimizer, batches
        optimizer.train()  # type: ignore[attr-defined]

    def compute(self) -> State:
        self.optimizer.eval()  # type: ignore[attr-defined]
        update_bn(self.batches(), self.net)
        evaluated = copy_of(self.net)
        self.optimizer.train()  # type: ignore[attr-defined]
        return evaluated


class Average(EvaluatedWeights):
    """An average of the weights after the steps of training, or some of them.

    Not Lightning's WeightAveraging: it leaves the average out of checkpoints that hold weights alone, such as
    best.ckpt, and torch's AveragedModel makes the host wait for the device at each step.

    Attributes:
        count: how many steps are in it so far; with none it is the net's own weights.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.average, self.count, self._taken = State(), 0, 0

    def weight(self, step: int) -> float | None:
        """How much the weights after this step count in the average; None: not at all."""
        raise NotImplementedError

    def take(self, step: int) -> None:
        """Let the weights after `step` steps into the average, once: a batch that only adds gradients makes no step."""
        if step <= self._taken:
            return
        self._taken, self._step = step, -1  # what a checkpoint asked for before is out of date
        weight = self.weight(step)
        if weight is None:
            return
        self.count += 1
        state = self.net.state_dict()
        if not self.average:
            self.average = {name: tensor.clone() for name, tensor in state.items()}
            return
        for name, tensor in state.items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, weight)
            else:  # how many batches BatchNorm has seen
                self.average[name].copy_(tensor)

    def compute(self) -> State:
        if self.average:
            self.net.load_state_dict(self.average)
        return copy_of(self.net)

    def resume(self, average: State, count: int, step: int) -> None:
        """Continue from what a checkpoint of that step holds."""
        self.count, self._taken = count, step
        if count:
            device = next(self.net.parameters()).device
            self.average = {name: tensor.to(device, copy=True) for name, tensor in average.items()}
            self._evaluated, self._step = self.average, step  # it has its BatchNorm statistics already


class MovingAverage(Average):
    """The exponential moving average of weights and of BatchNorm's statistics (`averaging=ema`).

    After t steps the last weights count 1 - min(decay, t / (t + 9)), so that the first ones are soon forgotten.

    Raises:
        ValueError: for a decay outside (0, 1).
    """

    def __init__(self, net: nn.Module, batches: Batches, total_steps: int, decay: float) -> None:
        if not is_number(decay) or not 0 < decay < 1:
            raise ValueError(
                f"averaging.decay={decay} must be between 0 and 1: what the average keeps of itself at a step, for "
                "example 0.999."
            )
        super().__init__(net)
        self.decay = decay

    def weight(self, step: int) -> float:
        return 1 - min(self.decay, step / (step + 9))


class TailAverage(Average):
    """The plain mean of the weights of the last steps (`averaging=swa`; Izmailov et al. 2018).

    Until then the weights themselves are evaluated. BatchNorm's statistics are taken anew from training images, because
    those of other weights do not fit.

    Args:
        start: the fraction of all steps after which it begins.

    Raises:
        ValueError: for a start outside [0, 1).
    """

    def __init__(self, net: nn.Module, batches: Batches, total_steps: int, start: float) -> None:
        if not is_number(start) or not 0 <= start < 1:
            raise ValueError(
                f"averaging.start={start} must be in [0, 1): the fraction of all steps before the average."
            )
        super().__init__(net)
        self.batches, self.first = batches, int(start * total_steps) + 1

    def weight(self, step: int) -> float | None:
        return 1 / (self.count + 1) if step >= self.first else None

    def resume(self, average: State, count: int, step: int) -> None:
        """A longer training, which has not reached its own `start` yet, begins its mean anew."""
        super().resume(average, count if step >= self.first else 0, step)

    def compute(self) -> State:
        evaluated = super().compute()
        if not self.average:
            return evaluated
        update_bn(self.batches(), self.net)
        return copy_of(self.net)


class Lookahead(Average):
    """Slow weights that follow those that train, which now and then begin again from them (`averaging=lookahead`).

    After every so many steps the slow weights, and BatchNorm's statistics with them, become keep x slow + (1 - keep) x
    trained, and training continues from there (Zhang et al. 2019, with k = `every` and alpha = 1 - `keep`). As in timm
    they begin as what the first `every` steps have trained.

    Not timm's or pytorch_optimizer's wrapper of an optimizer: a run would be validated with the weights that train, and
    `keep` could not grow.

    Args:
        every: steps of the optimizer.
        keep: the fraction that the slow weights keep of themselves, at the end of training.
        growth: after a fraction t of all steps they keep `keep` x t ** `growth`. 0 always keeps the same; with 3 the
            slow weights are hardly slow at first (Jordan 2024).

    Raises:
        ValueError: for a value that is not allowed.
    """

    def __init__(
        self, net: nn.Module, batches: Batches, total_steps: int, every: int, keep: float, growth: float
    ) -> None:
        if type(every) is not int or every < 1:
            raise ValueError(f"averaging.every={every} must be a whole number of steps, at least 1.")
        if not is_number(keep) or not 0 <= keep < 1:
            raise ValueError(
                f"averaging.keep={keep} must be in [0, 1): what the slow weights keep of themselves, for example 0.5."
            )
        if not is_number(growth) or growth < 0:
            raise ValueError(f"averaging.growth={growth} must be a number of at least 0; 0 keeps the same throughout.")
        super().__init__(net)
        self.total_steps, self.every, self.keep, self.growth = total_steps, every, keep, growth

    def weight(self, step: int) -> float | None:
        return None if step % self.every else 1 - self.keep * min(1.0, step / self.total_steps) ** self.growth

    def take(self, step: int) -> None:
        before = self.count
        super().take(step)
        if self.count > before:
            self.net.load_state_dict(self.average)


def weights_to_train_on(checkpoint: dict[str, Any]) -> State:
    """A checkpoint's `state_dict` has those to evaluate; where others train, they are beside it."""
    return checkpoint.get("trained", checkpoint["state_dict"])


def copy_of(net: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}
