import csv

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from conftest import NAMES, ToyDataModule, optimizer_of, toy_net, toy_trainer
from optbench.callbacks.epoch_history import EpochHistory
from optbench.recovery.checkpoint import CheckpointFiles
from optbench.training.classifier import Classifier
from optbench.training.provenance import weights_sha256
from undisturbed import differences

NAMES_OF = ["schedule_free_adamw", "schedule_free_sgd"]


def batches(data: ToyDataModule) -> list[torch.Tensor]:
    """The images of the first epoch, as they come."""
    order = torch.tensor(list(data.train_order()))
    return [data.normalize(data.images.train_images[data.train.indices[part]]) for part in order.split(8)]


@pytest.fixture(params=NAMES_OF)
def fitted(request, tmp_path):
    """Two epochs, and what they leave: trainer, classifier, rows, and a checkpoint written within a third epoch."""
    pl.seed_everything(0, verbose=False)
    classifier = Classifier(toy_net(), NAMES, optimizer_of(request.param, lr=0.1))
    history, within = EpochHistory(), Within(tmp_path / "within.ckpt")
    trainer = toy_trainer(max_epochs=2, callbacks=[history, within], plugins=[CheckpointFiles()])
    trainer.fit(classifier, datamodule=ToyDataModule())
    return trainer, classifier, history.rows, torch.load(within.path, weights_only=True)


class Within(pl.Callback):
    """Saves after eight steps, within the second epoch."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_step == 8:
            self.weights = [p.detach().clone() for p in pl_module.net.parameters()]
            trainer.save_checkpoint(self.path)
            assert all(map(torch.equal, self.weights, pl_module.net.parameters()))  # training goes on with the same


def test_a_checkpoint_has_the_average_to_evaluate_and_the_weights_to_train_on(fitted):
    _, classifier, _, saved = fitted
    (state,) = saved["optimizer_states"]
    (group,) = state["param_groups"]
    beta = group["betas"][0] if "betas" in group else group["momentum"]
    assert group["train_mode"] is True
    names = [f"net.{name}" for name, _ in classifier.net.named_parameters()]
    assert not all(torch.equal(saved["state_dict"][name], saved["trained"][name]) for name in names)
    for number, name in enumerate(names):
        x, y, z = saved["state_dict"][name], saved["trained"][name], state["state"][number]["z"]
        torch.testing.assert_close(y, (1 - beta) * z + beta * x, rtol=1e-4, atol=1e-6)  # Defazio et al. 2024


def test_batchnorm_has_the_statistics_of_the_averaged_weights(fitted):
    _, _, _, saved = fitted
    data, net = ToyDataModule(), toy_net()
    data.setup()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in saved["state_dict"].items()})
    flat, linear, norm = net[0], net[1], net[2]
    outputs = [linear(flat(images)) for images in batches(data)]
    means, variances = (
        torch.stack(part).mean(0) for part in zip(*((o.mean(0), o.var(0)) for o in outputs), strict=True)
    )
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert not torch.allclose(saved["trained"]["net.2.running_mean"], means, rtol=1e-3)


def test_validation_and_test_see_the_averaged_weights(fitted):
    """After training the net has them: `test_weights=last` tests them."""
    _, classifier, rows, _ = fitted
    data, net = ToyDataModule(), classifier.net.eval()
    data.setup()
    images, labels = data.images.train_images[data.val.indices], data.images.train_labels[data.val.indices]
    with torch.no_grad():
        loss = F.cross_entropy(net(data.normalize(images)), labels)
    assert rows[-1]["val/loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("name", NAMES_OF)
def test_validation_inside_an_epoch_leaves_the_training_alone(name):
    def fit(**settings) -> tuple[str, list[dict[str, float]]]:
        pl.seed_everything(0, verbose=False)
        net, history = toy_net(dropout=0.5), EpochHistory()
        trainer = toy_trainer(max_epochs=2, callbacks=[history], **settings)
        trainer.fit(Classifier(net, NAMES, optimizer_of(name)), datamodule=ToyDataModule())
        return weights_sha256(net), [{key: row[key] for key in row if "/" in key} for row in history.rows]

    assert fit() == fit(val_check_interval=2)


def test_a_network_without_batchnorm_reads_no_batch_for_it(monkeypatch):
    def images(self):
        yield pytest.fail("images were read")

    monkeypatch.setattr(Classifier, "_images", images)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    trainer = toy_trainer(max_epochs=1)
    trainer.fit(Classifier(net, NAMES, optimizer_of("schedule_free_sgd")), datamodule=ToyDataModule())


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_run_is_evaluated_with_the_weights_that_it_tested(train, command, weights):
    result = train("optimizer=schedule_free_adamw", "trainer.max_epochs=2", f"test_weights={weights}")
    assert result.status == 0, result.err
    assert "AdamWScheduleFree needs no schedule, and this run has one: scheduler=constant turns it off." in result.out
    evaluated = command("evaluate", f"run={result.folder}", f"checkpoint={weights}")
    assert evaluated.status == 0, evaluated.err
    with (result.folder / "evaluation" / weights / "per_class.csv").open() as file:
        accuracies = {f"test/accuracy/{row['class']}": float(row["accuracy"]) for row in csv.DictReader(file)}
    tested = {key: value for key, value in result.summary["test"].items() if key in accuracies}
    assert tested == pytest.approx(accuracies, abs=1e-6)


def test_a_run_that_was_killed_before_its_test_tests_the_averaged_weights(train, command, monkeypatch):
    settings = ("optimizer=schedule_free_adamw", "scheduler=constant", "test_weights=last")
    whole = train(*settings, name="whole")

    class Killed(BaseException):
        pass

    def killed(*_) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Classifier, "on_test_model_eval", killed)
        train(*settings)
    resumed = command("train", "resume={folder}")
    assert resumed.status == 0, resumed.err
    assert differences(whole.folder, resumed.folder) == []


def test_no_warning_without_a_schedule(train):
    result = train("optimizer=schedule_free_adamw", "scheduler=constant")
    assert result.status == 0 and "needs no schedule" not in result.out
