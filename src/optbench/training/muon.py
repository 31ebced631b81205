"""Muon for matrices and AdamW for all else, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.overrides import TorchFunctionMode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Muon(Optimizer):
    """`torch.optim.Muon` for weights with two dimensions, `torch.optim.AdamW` for all others (Jordan et al. 2024).

    Args:
        params: parameter groups; the two kinds of a group become groups of their own.
        ns_dtype: in which the momentum is made orthogonal, `float32` or `bfloat16`.

    Raises:
        ValueError: for an unknown `ns_dtype`, or what one of the two optimizers refuses.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        ns_coefficients: tuple[float, float, float],
        eps: float,
        adjust_lr_fn: str,
        ns_dtype: str,
        betas: tuple[float, float],
        adamw_eps: float,
        weight_decay: float,
    ) -> None:
        if ns_dtype not in DTYPES:
            raise ValueError(f"optimizer.ns_dtype={ns_dtype} is not known: use float32 or bfloat16.")
        self._dtype = DTYPES[ns_dtype]
        params = list(params)
        kinds = [[split(group, matrices) for group in params] for matrices in (True, False)]
        self._muon = torch.optim.Muon(
            kinds[0],
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            ns_coefficients=ns_coefficients,
            eps=eps,
            adjust_lr_fn=adjust_lr_fn,
            weight_decay=weight_decay,
        )
        self._adamw = AdamW(
            kinds[1], lr=lr, betas=betas, eps=adamw_eps, weight_decay=weight_decay, fused=can_fuse(kinds[1])
        )
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The two optimizers work on the groups and the state of this one."""
        self._muon.param_groups = [group for group in self.param_groups if "ns_steps" in group]
        self._adamw.param_groups = [group for group in self.param_groups if "ns_steps" not in group]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with InsteadOfBfloat16(self._dtype):
            self._muon.step()
        self._adamw.step()
        return loss


def split(group: dict[str, Any], matrices: bool) -> dict[str, Any]:
    """The group with only its matrices, or only its other parameters."""
    return {**group, "params": [p for p in group["params"] if (p.ndim == 2) is matrices]}


def can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Whether AdamW has one kernel for all parameters: not for an empty list of them."""
    return any(group["params"] for group in groups)


class InsteadOfBfloat16(TorchFunctionMode):
    """Tensors that are turned into bfloat16 turn into another type: `torch.optim.Muon` asks for bfloat16 always."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to and kwargs.get("dtype") is torch.bfloat16:
            kwargs = {**kwargs, "dtype": self.dtype}
        return func(*args, **kwargs)
