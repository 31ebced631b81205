"""What is measured of a classifier; `records.metrics` says what each number means, and how to add one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)


class Predictions:
    """The logits and labels of an epoch, on the device where they arise.

    Kept in one block that doubles when it is full: thousands of small tensors between the large ones that come and go
    would leave the memory in pieces.
    """

    def __init__(self) -> None:
        self.count = 0
        self.logits = self.labels = torch.empty(0)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Copy a batch: `(B, classes)` and `(B,)`."""
        end = self.count + len(labels)
        if end > len(self.labels):
            old = self.logits[: self.count], self.labels[: self.count]
            self.logits = logits.new_empty((2 * end, logits.shape[1]))
            self.labels = labels.new_empty(2 * end)
            if self.count:
                self.logits[: self.count], self.labels[: self.count] = old
        self.logits[self.count : end], self.labels[self.count : end] = logits.detach(), labels
        self.count = end

    def peek(self) -> tuple[Tensor, Tensor]:
        """All of it, valid until the next `add`."""
        return self.logits[: self.count], self.labels[: self.count]

    def take(self) -> tuple[Tensor, Tensor]:
        """The same, and forget it: the next `add` starts a new epoch."""
        whole, self.count = self.peek(), 0
        return whole


def measure(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """All metrics of `(N, classes)` logits and `(N,)` labels.

    `loss` (cross-entropy, nats), `accuracy`, `top3_accuracy`, `f1` (macro), `ece` (expected calibration error in 15
    bins, Guo et al. 2017) and `accuracy/<class>` (the recall of each class; nan where it has no image).
    """
    n = len(classes)
    options: dict[str, Any] = {"num_classes": n, "validate_args": False}
    # torchmetrics takes logits that are all in [0, 1] for probabilities, and gives a probability of 1 a bin of its own
    probabilities = logits.softmax(1).clamp_max(1 - 2**-24)
    values = {
        "accuracy": multiclass_accuracy(logits, labels, average="micro", **options),
        # torchmetrics' top_k takes four times as long
        "top3_accuracy": (logits.topk(min(3, n)).indices == labels[:, None]).any(1).float().mean(),
        "f1": multiclass_f1_score(logits, labels, average="macro", **options),
        "ece": multiclass_calibration_error(probabilities, labels, n_bins=15, **options),
    }
    hits = logits.argmax(1) == labels
    per_class = torch.zeros(n, device=logits.device).index_add_(0, labels, hits.float())
    per_class = per_class / torch.bincount(labels, minlength=n)
    values |= {f"accuracy/{name}": value for name, value in zip(classes, per_class, strict=True)}
    return {"loss": F.cross_entropy(logits, labels), **values}
