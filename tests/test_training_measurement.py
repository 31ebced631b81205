import math

import numpy as np
import pytest
import torch
from torch import Tensor

from optbench.distributed.ranks import gather
from optbench.records.metrics import monitorable
from optbench.training.measurement import Predictions, measure


def by_hand(logits: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Every metric in numpy, in double precision."""
    z, y = logits.double().numpy(), labels.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    said, confidence = p.argmax(1), p.max(1)
    hits = said == y
    f1 = []
    for k in range(classes):
        both, either = np.sum((said == k) & (y == k)), np.sum(said == k) + np.sum(y == k)
        if either:  # a class that neither occurs nor is predicted does not count
            f1.append(2 * both / either)
    ece = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & (confidence < (k + 1) / 15 if k < 14 else confidence <= 1)
        if inside.any():
            ece += abs(hits[inside].mean() - confidence[inside].mean()) * inside.mean()
    values = {
        "loss": np.mean(-np.log(p[np.arange(len(y)), y])),
        "accuracy": hits.mean(),
        "top3_accuracy": np.mean([y[i] in np.argsort(-z[i], kind="stable")[:3] for i in range(len(y))]),
        "f1": np.mean(f1),
        "ece": ece,
    }
    for k in range(classes):
        values[f"accuracy/c{k}"] = hits[y == k].mean() if (y == k).any() else math.nan
    return {name: float(value) for name, value in values.items()}


def names(classes: int) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in range(classes))


def check(logits: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    found, expected = measure(logits, labels, names(classes)), by_hand(logits, labels, classes)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), name
    return found


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])  # unsure, middling and overconfident networks
def test_every_metric_agrees_with_numpy(classes, spread):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (997,), generator=generator)
    logits = spread * torch.randn(997, classes, generator=generator)
    logits[torch.arange(0, 997, 2), labels[::2]] += spread
    values = check(logits, labels, classes)
    assert 0.2 < values["accuracy"] < 0.95
    assert 0.005 < values["ece"] < 0.7


def test_a_class_without_images_is_nan_and_no_other():
    labels = torch.tensor([0, 0, 2, 3, 3, 3])
    logits = torch.eye(5)[torch.tensor([0, 1, 2, 3, 3, 0])] * 4
    values = check(logits, labels, 5)
    assert [float(values[f"accuracy/c{k}"]) for k in (0, 2, 3)] == pytest.approx([1 / 2, 1, 2 / 3])
    assert values["accuracy/c1"].isnan() and values["accuracy/c4"].isnan()
    # c1 was predicted, so it counts 0; c4 neither occurs nor was predicted
    assert float(values["f1"]) == pytest.approx((1 / 2 + 0 + 1 + 4 / 5) / 4)


def test_fewer_than_three_classes():
    logits, labels = torch.tensor([[2.0, 1.0], [3.0, -1.0], [0.0, 5.0]]), torch.tensor([0, 1, 1])
    assert float(check(logits, labels, 2)["top3_accuracy"]) == 1
    one = check(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), 1)
    assert (float(one["accuracy"]), float(one["loss"])) == (1, 0)


def test_logits_between_0_and_1_are_no_probabilities():
    logits = torch.tensor([[0.2, 0.9], [0.8, 0.1], [0.0, 1.0]])
    values = check(logits, torch.tensor([1, 0, 0]), 2)
    sure = [1 / (1 + math.exp(-gap)) for gap in (0.7, 0.7, 1.0)]  # bins 10, 10 and 10
    assert float(values["ece"]) == pytest.approx(abs(2 / 3 - sum(sure) / 3), abs=1e-6)


def test_a_probability_of_1_shares_the_last_bin():
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])  # 1.0 and wrong, 0.953 and right: 2 in the bin, 1 hit
    assert float(check(logits, torch.tensor([1, 0]), 2)["ece"]) == pytest.approx((1 + 0.952574) / 2 - 0.5, abs=1e-6)


def test_one_process_gathers_what_it_has():
    part = torch.arange(6).view(3, 2)
    assert gather(part) is part


def test_what_monitor_may_name_is_what_is_measured():
    measured = measure(torch.eye(2), torch.tensor([0, 1]), names(2))
    expected = {f"{stage}/{name}" for stage in ("val", "train") for name in measured}
    assert set(monitorable(names(2))) == expected
    assert monitorable(names(2))[0] == "val/loss"


def test_predictions_keep_an_epoch_in_order_and_begin_anew():
    predictions = Predictions()
    for epoch in range(2):
        batches = [torch.randn(size, 3) + epoch for size in (4, 4, 1, 7)]
        labels = [torch.arange(len(batch)) for batch in batches]
        for batch, label in zip(batches, labels, strict=True):
            predictions.add(batch.clone().requires_grad_(), label)
        kept, kept_labels = predictions.take()
        assert torch.equal(kept, torch.cat(batches))
        assert torch.equal(kept_labels, torch.cat(labels))
        assert not kept.requires_grad
