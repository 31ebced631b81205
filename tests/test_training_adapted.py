import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.backends import opt_einsum

from conftest import NAMES, ToyDataModule, optimizer_of, toy_net, toy_trainer
from optbench.callbacks.epoch_history import EpochHistory
from optbench.training.classifier import Classifier
from optbench.training.optimizers import build_optimizer
from optbench.training.provenance import weights_sha256


def fit(name: str, **changes) -> tuple[str, list[dict[str, float]]]:
    """The weights and BatchNorm's statistics after two epochs on the toy images with dropout, and the metrics."""
    pl.seed_everything(3, verbose=False)
    net, history = toy_net(dropout=0.5), EpochHistory()
    trainer = toy_trainer(max_epochs=2, callbacks=[history])
    trainer.fit(Classifier(net, NAMES, optimizer_of(name, **changes)), datamodule=ToyDataModule())
    return weights_sha256(net), [{key: row[key] for key in row if "/" in key} for row in history.rows]


def test_sam_without_a_radius_is_momentum_bit_for_bit():
    """The second look at a batch has the same dropout, and changes neither metrics nor BatchNorm's statistics."""
    weights, rows = fit("sam", rho=0.0)
    expected, metrics = fit("momentum", fused=False)
    assert weights == expected
    for row, other in zip(rows, metrics, strict=True):
        assert row == pytest.approx(other, rel=1e-6)
    assert fit("sam", rho=0.5)[0] != expected


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_steps_equal_the_formula(adaptive):
    generator = np.random.default_rng(0)
    start, curvature = generator.normal(size=(3, 4)), generator.uniform(1, 2, size=(3, 4))
    net = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    net.weight.data = torch.from_numpy(start.copy())
    optimizer = build_optimizer(optimizer_of("sam", lr=0.01, rho=0.1, adaptive=adaptive, weight_decay=0.1), net, "all")

    def closure() -> torch.Tensor:
        loss = (torch.from_numpy(curvature) * net.weight**2).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        return loss

    w, velocity = start, 0 * start
    for _ in range(3):
        loss = optimizer.step(closure)
        assert loss.item() == pytest.approx((curvature * w**2).sum() / 2)  # at the weights, not at the worst place
        g, scale = curvature * w, np.abs(w) if adaptive else 1.0
        worst = w + 0.1 * scale**2 * g / np.linalg.norm(scale * g)  # Foret et al. 2021; Kwon et al. 2021
        velocity = 0.9 * velocity + curvature * worst + 0.1 * w
        w = w - 0.01 * velocity
        np.testing.assert_allclose(net.weight.detach().numpy(), w, rtol=1e-6)  # the package's norm is float32


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "trainer.accumulate_grad_batches=2",
            "trainer.accumulate_grad_batches=2: SAM would compute its second gradient from one batch alone. Use "
            "trainer.accumulate_grad_batches=1, and a larger data.batch_size.",
        ),
        (
            "trainer.precision=16-mixed",
            "trainer.precision=16-mixed: SAM computes two gradients a step, and the scaling of the loss that 16 bits "
            "need allows one. Use bf16-mixed or 32-true.",
        ),
    ],
)
def test_what_sam_refuses(train, setting, sentence):
    result = train("optimizer=sam", setting)
    assert (result.status, result.sentence) == (1, sentence)


@pytest.mark.filterwarnings("ignore:.*opt_einsum.*")
def test_kron_is_that_of_timm_with_the_same_noise(monkeypatch):
    """Two packages from two authors; timm's compiles its functions, so it is told not to."""
    import timm.optim.kron

    monkeypatch.setattr(timm.optim.kron, "has_dynamo", False)
    torch.manual_seed(0)
    net = nn.Linear(4, 3, dtype=torch.float32)
    other = copy.deepcopy(net)
    optimizer = build_optimizer(optimizer_of("kron", lr=0.01, balance_prob=0.0), net, "all")
    reference = timm.optim.kron.Kron(other.parameters(), lr=0.01, decoupled_decay=True)
    for step in range(5):
        for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
            ours.grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(step))
            theirs.grad = ours.grad.clone()
        torch.manual_seed(step)
        optimizer.step()
        torch.manual_seed(step)
        reference.step()
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_kron_draws_the_same_noise_whatever_was_drawn_before(monkeypatch):
    before = fit("kron")
    step = Classifier.on_after_backward
    monkeypatch.setattr(Classifier, "on_after_backward", lambda self: (torch.rand(7), step(self)))
    assert fit("kron") == before


def test_kron_needs_opt_einsum(monkeypatch):
    monkeypatch.setattr(opt_einsum, "is_available", lambda: False)
    with pytest.raises(ValueError, match="optimizer") as error:
        build_optimizer(optimizer_of("kron"), toy_net(), "all")
    assert str(error.value) == (
        "optimizer: Kron refuses its arguments: it needs the package opt_einsum: pip install opt-einsum."
    )


def test_shampoo_saves_tensors_alone():
    net = nn.Linear(4, 3)
    optimizer = build_optimizer(optimizer_of("shampoo", shape_interpretation=False), net, "all")
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    weight = optimizer.state_dict()["state"][0]
    assert {key: sorted(part) for key, part in weight.items() if isinstance(part, dict)} == {
        "pre_conditioner": ["pre_conditioners", "statistics"],
        "graft": ["momentum", "statistics"],
    }
