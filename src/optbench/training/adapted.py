"""Optimizers of the package pytorch_optimizer that a run cannot use as they are."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_optimizer
import torch
from torch.backends import opt_einsum
from torch.optim import SGD

Closure = Callable[[], Any]


class SAM(pytorch_optimizer.SAM):
    """Momentum with the gradient from the worst place within `rho` (Foret et al. 2021).

    The closure computes loss and gradient. It runs twice a step: at the weights, and at the worst place nearby. The
    package's `step` expects the first gradient to be there already.
    """

    two_passes = True

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        dampening: float,
        nesterov: bool,
        rho: float,
        adaptive: bool,
        weight_decay: float,
        foreach: bool | None = None,
    ) -> None:
        settings: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, SGD, rho=rho, adaptive=adaptive, foreach=foreach, **settings)

    def step(self, closure: Closure | None = None) -> Any:
        if closure is None:
            return super().step()  # which refuses
        with torch.enable_grad():
            loss = closure()
        super().step(closure)
        return loss


class Kron(pytorch_optimizer.Kron):
    """PSGD with a preconditioner for each side of a matrix (Li 2018).

    Its noise comes from the global generators, which the classifier seeds before each step: alike in all processes of
    a run, and in a run that resumes.

    Raises:
        ValueError: without opt_einsum, where torch would multiply the preconditioners with each other first.
    """

    draws_numbers = True
    __signature__ = inspect.signature(pytorch_optimizer.Kron)

    def __init__(self, params: Iterable[dict[str, Any]], **settings: Any) -> None:
        if not opt_einsum.is_available():
            raise ValueError("it needs the package opt_einsum: pip install opt-einsum.")
        super().__init__(params, **settings)


class Shampoo(pytorch_optimizer.ScalableShampoo):
    """Shampoo in blocks, with the step size of another method (Gupta et al. 2018, Anil et al. 2020).

    The package keeps its state in objects of its own, which no checkpoint takes: here they are saved as the tensors
    that they have.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        moving_average_for_momentum: bool,
        nesterov: bool,
        block_size: int,
        shape_interpretation: bool,
        start_preconditioning_step: int,
        preconditioning_compute_steps: int,
        statistics_compute_steps: int,
        graft_type: int,
        matrix_eps: float,
        diagonal_eps: float,
        weight_decay: float,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            moving_average_for_momentum=moving_average_for_momentum,
            nesterov=nesterov,
            block_size=block_size,
            shape_interpretation=shape_interpretation,
            start_preconditioning_step=start_preconditioning_step,
            preconditioning_compute_steps=preconditioning_compute_steps,
            statistics_compute_steps=statistics_compute_steps,
            graft_type=graft_type,
            matrix_eps=matrix_eps,
            diagonal_eps=diagonal_eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
        )

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        states = saved["state"].items()
        saved["state"] = {number: {key: tensors_of(part) for key, part in state.items()} for number, state in states}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        loaded = {p: dict(state) for p, state in self.state.items()}
        self.state.clear()
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"]]
            for p in group["params"]:
                p.grad = torch.zeros_like(p) if p in loaded else None  # whose state the package makes
            self.init_group(group)
            for p, gradient in zip(group["params"], gradients, strict=True):
                p.grad = gradient
        for p, state in loaded.items():
            self.state[p]["momentum"] = state["momentum"]
            for part in ("pre_conditioner", "graft"):
                vars(self.state[p][part]).update(state[part])


def tensors_of(part: Any) -> Any:
    """A part of a state; of an object, its tensors and lists of tensors by name."""
    if isinstance(part, torch.Tensor):
        return part
    return {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
        or (isinstance(value, list) and value and all(isinstance(item, torch.Tensor) for item in value))
    }
