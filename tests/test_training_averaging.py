import csv
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from conftest import NAMES, ToyDataModule, optimizer_of, toy_net, toy_trainer
from optbench.callbacks.epoch_history import EpochHistory
from optbench.recovery.checkpoint import CheckpointFiles
from optbench.training.averaging import Average, Lookahead, MovingAverage, TailAverage
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


class Weights(pl.Callback):
    """The net's state after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # after the last one
        self.states.append({name: tensor.clone() for name, tensor in pl_module.net.state_dict().items()})


def averaged(
    average: Callable[..., Average] | None, **settings: Any
) -> tuple[Classifier, list, list[dict[str, float]]]:
    """Two epochs of six steps: the classifier, the states after each step but the last one, and the epochs' rows."""
    pl.seed_everything(0, verbose=False)
    weights, history = Weights(), EpochHistory()
    classifier = Classifier(toy_net(dropout=0.5), NAMES, optimizer_of("sgd"), average=average)
    toy_trainer(max_epochs=2, callbacks=[weights, history], **settings).fit(classifier, datamodule=ToyDataModule())
    return classifier, weights.states[1:], history.rows


def test_the_moving_average_is_that_of_every_step():
    classifier, states, rows = averaged(partial(MovingAverage, decay=0.7))
    _, plain, plain_rows = averaged(None)
    expected = {name: tensor.clone() for name, tensor in states[0].items()}
    for step, state in enumerate(states[1:], 2):
        keeps = min(0.7, step / (step + 9))
        for name in expected:
            if state[name].is_floating_point():
                expected[name] = keeps * expected[name] + (1 - keeps) * state[name]
    assert isinstance(classifier._evaluated, Average) and classifier._evaluated.count == 12
    keeps = min(0.7, 12 / 21)
    found = classifier.net.state_dict()
    last = {
        name: (found[name] - keeps * expected[name]) / (1 - keeps) for name in found if found[name].is_floating_point()
    }
    for name, tensor in averaged(None)[0].net.state_dict().items():  # where the same training ends without an average
        if tensor.is_floating_point():
            torch.testing.assert_close(last[name], tensor, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(found[name], tensor)  # batches seen
    for one, other in zip(states, plain, strict=True):  # training is what it is without
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in plain_rows]
    assert [row["val/loss"] for row in rows] != [row["val/loss"] for row in plain_rows]


def test_the_mean_of_the_last_steps_has_its_own_batchnorm_statistics():
    classifier, states, _ = averaged(partial(TailAverage, start=0.5))
    assert isinstance(classifier._evaluated, Average) and classifier._evaluated.count == 6
    plain, _, _ = averaged(None)
    found, last = classifier.net.state_dict(), plain.net.state_dict()
    for name, _ in classifier.net.named_parameters():
        mean = torch.stack([*(state[name] for state in states[6:11]), last[name]]).mean(0)
        torch.testing.assert_close(found[name], mean, rtol=1e-4, atol=1e-6)
    data = ToyDataModule()
    data.setup()
    outputs = [classifier.net[1](classifier.net[0](images)) for images in batches(data)]
    torch.testing.assert_close(found["2.running_mean"], torch.stack([part.mean(0) for part in outputs]).mean(0))


def test_before_the_tail_begins_the_weights_themselves_are_evaluated():
    _, _, rows = averaged(partial(TailAverage, start=0.5))
    _, _, plain = averaged(None)
    assert rows[0] == {**plain[0], **{key: rows[0][key] for key in rows[0] if "seconds" in key}}
    assert rows[1]["val/loss"] != plain[1]["val/loss"]


def test_a_tail_that_never_begins_is_a_warning(caplog):
    class Stops(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            trainer.should_stop = True

    for start, begins in ((0.25, True), (0.75, False)):
        classifier = Classifier(toy_net(), NAMES, optimizer_of("sgd"), average=partial(TailAverage, start=start))
        toy_trainer(max_epochs=2, callbacks=[Stops()]).fit(classifier, datamodule=ToyDataModule())
        assert ("before the average began" not in caplog.text) is begins
    assert "averaging: training ended after step 6, before the average began, so the last weights" in caplog.text


def test_lookahead_that_never_acts_is_a_warning(caplog):
    averaged(partial(Lookahead, every=12, keep=0.5, growth=0))
    assert "averaging" not in caplog.text
    averaged(partial(Lookahead, every=13, keep=0.5, growth=0))
    assert "averaging: training ended after step 12, before the average began, so the last weights" in caplog.text


def test_batches_that_only_add_gradients_do_not_count():
    classifier, _, _ = averaged(partial(MovingAverage, decay=0.9), accumulate_grad_batches=2)
    assert isinstance(classifier._evaluated, Average) and classifier._evaluated.count == 6


def test_a_checkpoint_taken_before_the_average_leaves_it_alone():
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, lambda: [], 4, 0.5)
    for step in (1, 2):
        nn.init.constant_(net.weight, float(step))
        average.at(step)  # as a callback that saves at the end of a batch
        average.take(step)
    assert float(average.at(2)["weight"]) == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)


@pytest.mark.parametrize("optimizer", ["sgd", "schedule_free_sgd"])
def test_a_checkpoint_taken_within_validation_has_the_weights_to_train_on(tmp_path, optimizer):
    class Saves(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            trainer.save_checkpoint(tmp_path / "before.ckpt")

        def on_validation_end(self, trainer, pl_module) -> None:  # as a user's ModelCheckpoint may
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    average = partial(MovingAverage, decay=0.9) if optimizer == "sgd" else None
    classifier = Classifier(toy_net(), NAMES, optimizer_of(optimizer), average=average)
    trainer = toy_trainer(max_epochs=1, callbacks=[Saves()], plugins=[CheckpointFiles()])
    trainer.fit(classifier, datamodule=ToyDataModule())
    before, within = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("before", "within"))
    for part in ("trained", "state_dict"):
        assert all(torch.equal(tensor, before[part][name]) for name, tensor in within[part].items())
    assert not torch.equal(within["trained"]["net.1.weight"], within["state_dict"]["net.1.weight"])


def test_a_mean_that_resumes_is_evaluated_as_it_was_saved():
    net, saved = toy_net(), {name: tensor + 1 for name, tensor in toy_net().state_dict().items()}
    average = TailAverage(net, lambda: pytest.fail("images were read"), 10, 0.5)
    average.resume(saved, 3, 8)
    found = average.at(8)
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_a_longer_training_begins_its_mean_anew():
    net = nn.Linear(1, 1, bias=False)
    average = TailAverage(net, lambda: [], 20, 0.5)
    average.resume({"weight": torch.full((1, 1), 9.0)}, 3, 8)  # of a training of 10 steps
    for step in range(9, 13):
        nn.init.constant_(net.weight, float(step))
        average.take(step)
        assert float(average.at(step)["weight"]) == (11.5 if step == 12 else step)


def regression(step: Callable[[nn.Linear, torch.optim.Optimizer], Callable[[int], Any]]) -> nn.Linear:
    """A layer after 17 steps; what `step` makes of it and of SGD with momentum is called to make each of them."""
    torch.manual_seed(0)
    net, images, labels = nn.Linear(6, 3), torch.randn(20, 6), torch.randn(20, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    go = step(net, optimizer)
    for number in range(1, 18):
        optimizer.zero_grad()
        F.mse_loss(net(images), labels).backward()
        go(number)
    return net


def test_lookahead_is_the_librarys():
    timm = pytest.importorskip("timm.optim.lookahead")
    slow: list[torch.Tensor] = []
    evaluated: list[torch.Tensor] = []

    def theirs(net: nn.Linear, optimizer: torch.optim.Optimizer) -> Callable[[int], Any]:
        lookahead = timm.Lookahead(optimizer, k=3, alpha=0.25)

        def go(number: int) -> None:
            lookahead.step()
            slow.append(optimizer.state[net.weight].get("lookahead_slow_buff", net.weight.detach()).clone())

        return go

    def ours(net: nn.Linear, optimizer: torch.optim.Optimizer) -> Callable[[int], Any]:
        average = Lookahead(net, lambda: [], 17, every=3, keep=0.75, growth=0)

        def go(number: int) -> None:
            optimizer.step()
            average.take(number)
            average.take(number)  # as where a batch only adds gradients: no step more
            before = net.weight.clone()
            evaluated.append(average.at(number)["weight"].clone())
            assert torch.equal(net.weight, before)  # training goes on with its own

        return go

    expected, found = regression(theirs), regression(ours)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(torch.stack(evaluated), torch.stack(slow))
    without = regression(lambda net, optimizer: lambda number: optimizer.step())
    assert not torch.allclose(found.weight, without.weight, rtol=0.01)


def test_slow_weights_keep_more_of_themselves_as_training_goes_on():
    net = nn.Linear(1, 1, bias=False)
    average = Lookahead(net, lambda: [], 10, every=4, keep=0.8, growth=3)
    slow = 4.0
    for step in range(1, 13):
        nn.init.constant_(net.weight, float(step))
        average.take(step)
        if step > 4 and step % 4 == 0:
            keeps = 0.8 * min(1, step / 10) ** 3
            slow = keeps * slow + (1 - keeps) * step
        if step % 4 == 0:
            assert net.weight.item() == pytest.approx(slow)
        assert float(average.at(step)["weight"]) == pytest.approx(step if step < 4 else slow)


def test_batchnorm_follows_the_slow_weights():
    """What training continues from has the very statistics of what is evaluated."""
    classifier, states, _ = averaged(partial(Lookahead, every=6, keep=0.5, growth=0))  # with the last step, too
    plain, _, _ = averaged(None)
    found, last, other = classifier.net.state_dict(), states[5], plain.net.state_dict()
    assert isinstance(classifier._evaluated, Lookahead) and classifier._evaluated.count == 2
    for name in ("1.weight", "2.running_mean", "2.running_var"):  # training itself was the same until the twelfth step
        torch.testing.assert_close(found[name], (last[name] + other[name]) / 2, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(tensor, classifier._evaluated.trained()[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "choice", ["ema averaging.decay=0.8", "swa averaging.start=0.4", "lookahead averaging.every=5 averaging.growth=1"]
)
@pytest.mark.parametrize("every_n_steps", ["null", "2"])
def test_a_killed_run_resumes_with_its_average(train, command, monkeypatch, choice, every_n_steps):
    settings = (
        *f"averaging={choice} trainer.max_epochs=3".split(),
        f"callbacks.last_checkpoint.every_n_steps={every_n_steps}",
    )
    whole = train(*settings, name="whole")
    assert whole.status == 0, whole.err

    class Killed(BaseException):
        pass

    step = Classifier.training_step

    def killed(self, batch, batch_idx):
        if self.trainer.global_step == 15:
            raise Killed
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Classifier, "training_step", killed)
        train(*settings)
    resumed = command("train", "resume={folder}")
    assert resumed.status == 0, resumed.err
    assert resumed.summary["resumed"][0]["step"] == (12 if every_n_steps == "null" else 14)
    assert differences(whole.folder, resumed.folder) == []


def test_best_and_last_have_the_average(train, command):
    result = train("averaging=ema", "averaging.decay=0.9", "trainer.max_epochs=2", "test_weights=best")
    assert result.status == 0, result.err
    evaluated = command("evaluate", f"run={result.folder}", "checkpoint=best")
    assert evaluated.status == 0, evaluated.err
    accuracy = result.summary["test"]["test/accuracy"]
    assert f"{accuracy:.4f}" in evaluated.out
    saved = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (saved["averaged"], saved["average"]) == (12, "MovingAverage")
    assert not torch.equal(saved["trained"]["net.head.weight"], saved["state_dict"]["net.head.weight"])
    checkpoint = f"ckpt_path={result.folder}/checkpoints/last.ckpt"
    further = train("trainer.max_epochs=3", checkpoint, name="further")
    assert further.status == 0, further.err
    trained = {name.removeprefix("net."): tensor for name, tensor in saved["trained"].items()}
    began_with = weights_sha256(SimpleNamespace(state_dict=lambda: trained))  # not with the average
    assert further.summary["hashes"]["initial_weights"] == began_with
    other = train("averaging=swa", "trainer.max_epochs=3", checkpoint, name="other")
    assert other.status == 1
    assert "has a MovingAverage of the weights, which this run would continue as a TailAverage." in other.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("averaging=ema averaging.decay=1", "averaging.decay=1 must be between 0 and 1"),
        ("averaging=swa averaging.start=1", "averaging.start=1 must be in [0, 1)"),
        ("averaging=lookahead averaging.every=0", "averaging.every=0 must be a whole number of steps, at least 1."),
        ("averaging=lookahead averaging.keep=1", "averaging.keep=1 must be in [0, 1): what the slow weights keep"),
        ("averaging=lookahead averaging.growth=-1", "averaging.growth=-1 must be a number of at least 0;"),
        ("averaging=lookahead optimizer=schedule_free_sgd", "averaging: SGDScheduleFree averages the weights by"),
        ("averaging=swa +averaging.decay=1", "averaging: TailAverage refuses its arguments: "),
        ("averaging=ema optimizer=schedule_free_sgd", "averaging: SGDScheduleFree averages the weights by itself."),
        ("test_weights=ema", "test_weights=ema: type averaging=ema."),
        ("test_weights=lookahead", "test_weights=lookahead: type averaging=lookahead."),
        ("label_smoothing=1", "label_smoothing=1 must be in [0, 1)"),
        ("l1=-1", "l1=-1 must be a number of at least 0."),
        ("test_flips=perhaps", "test_flips=perhaps must be true or false."),
    ],
)
def test_mistakes(train, arguments, words):
    result = train(*arguments.split())
    assert result.status == 1
    assert words in " ".join(result.err.split())
