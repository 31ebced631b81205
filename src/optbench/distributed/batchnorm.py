"""BatchNorm on several devices, one process each, that computes what one process computes on the whole batch."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.distributed import all_reduce, get_rank, get_world_size
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from optbench.distributed.ranks import gather


class WholeBatchNorm(TorchSyncBatchNorm):
    """BatchNorm over the whole batch, not over each process's part of it.

    On GPUs it is torch's SyncBatchNorm, which knows no other device. On CPUs every BatchNorm is given the rows of all
    processes and keeps its own rows of the result: the same module under the same name sees what it would see
    in one process, and all processes repeat its little work.
    """

    def __init__(self) -> None:
        self.hooks: list[RemovableHandle] = []

    def apply(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, pl.LightningModule)
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                self.hooks += [module.register_forward_pre_hook(gather_rows), module.register_forward_hook(keep_own)]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        while self.hooks:
            self.hooks.pop().remove()
        return super().revert(model)


class Gather(torch.autograd.Function):
    """The rows of all processes, as the whole batch has them; a row's gradient comes from all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        all_reduce(gradient)
        return own(gradient)


def own(rows: Tensor) -> Tensor:
    return rows[get_rank() :: get_world_size()]


def gather_rows(module: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
    return Gather.apply(*inputs) if module.training else None


def keep_own(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    return own(output) if module.training else None
