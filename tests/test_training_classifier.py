import copy
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import ADAM, NAMES, ToyDataModule, toy_images, toy_net, toy_trainer
from optbench.callbacks.divergence_guard import DivergenceGuard
from optbench.callbacks.epoch_history import EpochHistory
from optbench.training.classifier import Classifier
from optbench.training.measurement import measure
from optbench.training.provenance import weights_sha256


def fit(net: nn.Module, epochs: int = 2, **settings) -> list[dict[str, float]]:
    """The epochs' metrics of a training on the toy images: 6 batches of 8 images per epoch."""
    history = EpochHistory()
    callbacks = [history, *settings.pop("callbacks", [])]
    trainer = toy_trainer(max_epochs=epochs, callbacks=callbacks, **settings)
    trainer.fit(Classifier(net, NAMES, ADAM), datamodule=ToyDataModule())
    return history.rows


def metrics_of(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if "/" in key} for row in rows]


def bare_loop(net: nn.Module, epochs: int) -> list[dict[str, float]]:
    """Training as a person would write it without Lightning, with the metrics at the end of each epoch."""
    data = ToyDataModule()
    data.setup()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    rows = []
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(48, generator=torch.Generator().manual_seed(epoch))
        where = data.train.indices[order]
        seen = []
        for batch in where.split(8):
            images, labels = data.images.train_images[batch], data.images.train_labels[batch]
            logits = net(data.normalize(images))
            optimizer.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            seen.append(logits.detach())
        net.eval()
        with torch.no_grad():
            val_logits = net(data.normalize(data.images.train_images[data.val.indices]))
        row: dict[str, float] = {}
        for stage, logits, labels in (
            ("train", torch.cat(seen), data.images.train_labels[where]),
            ("val", val_logits, data.images.train_labels[data.val.indices]),
        ):
            row |= {f"{stage}/{name}": float(value) for name, value in measure(logits, labels, NAMES).items()}
        rows.append(row)
    return rows


def test_a_fit_is_the_bare_loop():
    torch.manual_seed(0)
    net = toy_net()
    bare = copy.deepcopy(net)
    rows, expected = fit(net, 3), bare_loop(bare, 3)
    assert weights_sha256(net) == weights_sha256(bare)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["step"] for row in rows] == [6, 12, 18]
    for found, row in zip(metrics_of(rows), expected, strict=True):
        assert found == pytest.approx(row, rel=1e-6, abs=1e-7)
    assert rows[-1]["train/loss"] < 0.9 * rows[0]["train/loss"]  # it learns


def test_validation_inside_an_epoch_leaves_the_training_alone():
    torch.manual_seed(0)
    net = toy_net()
    twin = copy.deepcopy(net)
    once, thrice = fit(net), fit(twin, val_check_interval=2)
    assert weights_sha256(net) == weights_sha256(twin)
    assert metrics_of(once) == metrics_of(thrice)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit():
    def run(seed: int) -> tuple[str, list[dict[str, float]]]:
        pl.seed_everything(seed, verbose=False)
        net = toy_net(dropout=0.5)
        rows = fit(net)
        return weights_sha256(net), metrics_of(rows)

    first = run(3)
    torch.rand(7)  # what ran before does not matter
    assert run(3) == first
    assert run(4) != first


def test_the_test_sees_every_image_once_in_order():
    data, net = ToyDataModule(), toy_net()
    classifier = Classifier(net, NAMES, ADAM)
    trainer = toy_trainer()
    trainer.test(classifier, datamodule=data, verbose=False)
    with torch.no_grad():
        logits = net.eval()(data.normalize(data.images.test_images))
    assert torch.equal(classifier.test_logits, logits) and torch.equal(classifier.test_labels, data.images.test_labels)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    expected = measure(logits, data.images.test_labels, NAMES)
    assert logged == pytest.approx({f"test/{name}": float(value) for name, value in expected.items()})


class Waits(TorchDispatchMode):
    """Notes every operation that makes the host wait for a value, and the step at which it did."""

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__()
        self.trainer = trainer
        self.steps: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.steps.append(self.trainer.fit_loop.epoch_loop.total_batch_idx + 1)
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device_between_looks():
    trainer = toy_trainer(max_epochs=1, log_every_n_steps=4, callbacks=[DivergenceGuard()], limit_val_batches=0)
    with Waits(trainer) as waits:
        trainer.fit(Classifier(toy_net(), NAMES, ADAM), datamodule=ToyDataModule())
    # every log_every_n_steps and at the end of the epoch; 0 is the set-up
    assert set(waits.steps) - {0} == {4, 6}


def one_step(labels: torch.Tensor | None = None, **settings) -> tuple[torch.Tensor, torch.Tensor, nn.Sequential]:
    """The gradient of the weights from one batch, that batch's losses, and the net before the step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    data = ToyDataModule()
    if labels is not None:
        data.on_after_batch_transfer = lambda batch, _: (data.normalize(batch[0]), labels)
    gradients = []

    class Gradient(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            gradients.append(pl_module.net[1].weight.grad.clone())

    before = copy.deepcopy(net)
    classifier = Classifier(net, NAMES, ADAM, **settings)
    trainer = toy_trainer(max_steps=1, limit_val_batches=0, callbacks=[Gradient()])
    trainer.fit(classifier, datamodule=data)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:8]
    where = data.train.indices[order]
    logits = before(data.normalize(data.images.train_images[where]))
    return gradients[0], F.cross_entropy(logits, data.images.train_labels[where], reduction="none"), before


def gradient(loss: torch.Tensor, net: nn.Sequential) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss, next(iter(net[1].parameters())))
    return found


def test_label_smoothing_gives_a_part_of_each_label_to_all_classes():
    torch.manual_seed(0)
    found, losses, net = one_step(label_smoothing=0.3)
    data = ToyDataModule()
    data.setup()
    where = data.train.indices[torch.randperm(48, generator=torch.Generator().manual_seed(0))[:8]]
    even = -net(data.normalize(data.images.train_images[where])).log_softmax(1).mean(1)
    torch.testing.assert_close(found, gradient((0.7 * losses + 0.3 * even).mean(), net))


@pytest.mark.parametrize(("weight_decay_on", "penalized"), [("all", "both"), ("weights", "weights")])
def test_l1_adds_the_sign_of_each_parameter(weight_decay_on, penalized):
    found, losses, net = one_step(l1=0.01, weight_decay_on=weight_decay_on)
    torch.testing.assert_close(found, gradient(losses.mean(), net) + 0.01 * next(iter(net[1].parameters())).sign())
    classifier = Classifier(net, NAMES, ADAM, l1=0.01, weight_decay_on=weight_decay_on)
    assert len(classifier._penalized) == (2 if penalized == "both" else 1)


def test_labels_may_be_shares_of_classes():
    shares = torch.softmax(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), 1)
    found, _, net = one_step(labels=shares)
    data = ToyDataModule()
    data.setup()
    where = data.train.indices[torch.randperm(48, generator=torch.Generator().manual_seed(0))[:8]]
    loss = -(shares * net(data.normalize(data.images.train_images[where])).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found, gradient(loss, net))


def test_the_metrics_of_mixed_labels_are_of_the_largest_share():
    classifier = Classifier(toy_net(), NAMES, ADAM)
    shares = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    classifier._look((torch.randn(2, 3, 4, 4), shares), "train")
    assert classifier._seen["train"].take()[1].tolist() == [1, 0]


def test_an_epoch_that_resumes_keeps_its_predictions_where_training_computes():
    classifier, device = Classifier(toy_net(), NAMES, ADAM), torch.device("meta")  # for a GPU
    trainer = SimpleNamespace(global_rank=1, world_size=2, strategy=SimpleNamespace(root_device=device))
    classifier._trainer = trainer
    classifier.on_load_checkpoint({"state_dict": {}, "seen": [torch.zeros(7, 3), torch.zeros(7, dtype=torch.int64)]})
    logits, labels = classifier._seen["train"].peek()
    assert logits.device == labels.device == device and len(labels) == 3


def test_flips_at_the_test_have_a_metric_of_their_own():
    torch.manual_seed(1)
    data, net = ToyDataModule(toy_images(test=600)), toy_net()
    with_flips, without = (Classifier(net, NAMES, ADAM, test_flips=flips) for flips in (True, False))
    trainer = toy_trainer()
    trainer.test(with_flips, datamodule=data, verbose=False)
    found = {key: float(value) for key, value in trainer.callback_metrics.items()}
    trainer.test(without, datamodule=data, verbose=False)
    plain = {key: float(value) for key, value in trainer.callback_metrics.items()}
    images = data.normalize(data.images.test_images)
    with torch.no_grad():
        logits = (net.eval()(images) + net(images.flip(3))) / 2
    accuracy = float((logits.argmax(1) == data.images.test_labels).float().mean())
    assert found == pytest.approx({**plain, "test/flip_accuracy": accuracy})
    assert accuracy != plain["test/accuracy"]
