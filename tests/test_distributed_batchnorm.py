import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import typed
from optbench.callbacks.divergence_guard import Diverged, DivergenceGuard
from optbench.distributed.batchnorm import WholeBatchNorm
from optbench.distributed.ranks import batch_mean


class Model(pl.LightningModule):
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def process(rank: int, world: int, meeting: str) -> None:
    """One of `world` processes: what it computes on its rows is what one process computes on all of them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    own = slice(rank, None, world)
    dimensions: list[tuple[Any, tuple[int, ...]]] = [
        (nn.BatchNorm1d(4, eps=1e-3, momentum=0.01), (4,)),
        (nn.BatchNorm2d(4), (4, 3, 2)),
    ]
    for norm, shape in dimensions:
        torch.manual_seed(1)
        nn.init.uniform_(norm.weight)
        alone, model = copy.deepcopy(norm), Model(nn.Sequential(norm))
        sync = WholeBatchNorm()
        assert sync.apply(model) is model
        for count in (7, 3, 2):  # of 3 processes one has more, all have the same, one has none
            images, weights = torch.randn(2, count, *shape) * 3 + 1
            images.requires_grad_()
            norm.zero_grad()
            alone.zero_grad()
            expected = alone(images)
            (expected * weights).sum().div(count).backward()
            whole_gradient, images.grad = images.grad, None
            found = model.net(images[own])
            loss, mean = batch_mean((found * weights[own]).sum(), len(found))
            loss.backward()
            torch.testing.assert_close(found, expected[own])
            torch.testing.assert_close(mean, (expected * weights).sum() / count)
            torch.testing.assert_close(images.grad[own], whole_gradient[own] * world)  # before DDP's average
            for parameter, reference in zip(norm.parameters(), alone.parameters(), strict=True):
                dist.all_reduce(parameter.grad)
                torch.testing.assert_close(parameter.grad / world, reference.grad)
            assert list(norm.state_dict()) == list(alone.state_dict())
            torch.testing.assert_close(norm.state_dict(), alone.state_dict())
        if rank == 0:  # alone, without waiting for the others
            norm.eval()
            torch.testing.assert_close(model.net(images), alone.eval()(images))
            assert sync.revert(model) is model
            norm.train()
            torch.testing.assert_close(model.net(images), alone.train()(images))
    guard, first = DivergenceGuard(), [math.inf, 7, 5][rank]  # the loss of each process is not finite from here on
    trainer: Any = SimpleNamespace(log_every_n_steps=100, is_last_batch=False)
    guard.on_train_start(trainer, model)
    for trainer.global_step in range(1, 10):
        loss = torch.tensor(math.nan if trainer.global_step >= first else 1.0)
        guard.on_train_batch_end(trainer, model, {"loss": loss}, None, trainer.global_step)
    with pytest.raises(Diverged, match="at step 5"):
        guard._look()
    guard._look()
    dist.barrier()
    dist.destroy_process_group()


def processes(world: int, meeting: str) -> None:
    torch.multiprocessing.start_processes(process, (world, meeting), nprocs=world, start_method="fork")


def test_three_processes_compute_what_one_does(tmp_path):
    done = typed.Process(processes, 3, str(tmp_path / "meeting"), folder=tmp_path).result()
    assert done.returncode == 0, done.stderr


def test_alone_it_is_the_plain_mean_bit_for_bit():
    for count in (1, 7, 128):
        torch.manual_seed(count)
        logits, labels = torch.randn(count, 10, requires_grad=True), torch.randint(10, (count,))
        F.cross_entropy(logits, labels).backward()
        gradient, logits.grad = logits.grad, None
        loss, mean = batch_mean(F.cross_entropy(logits, labels, reduction="sum"), count)
        loss.backward()
        assert torch.equal(loss, F.cross_entropy(logits, labels)) and torch.equal(mean, loss)
        assert torch.equal(logits.grad, gradient)
