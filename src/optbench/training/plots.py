"""Figures of one run, for TensorBoard and evaluate.py."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


def image_grid(images: Tensor, titles: Sequence[str], columns: int = 8) -> Figure:
    """uint8 images `(N, 3, H, W)`, each under its title."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.75 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, title in zip(figure.axes, images, titles, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=10)
    return figure


def confusion(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
    """Counts `(classes, classes)`: rows are the true class, columns the predicted one."""
    return multiclass_confusion_matrix(logits, labels, num_classes=len(classes), validate_args=False)


def confusion_figure(matrix: Tensor, classes: Sequence[str]) -> Figure:
    """Colours show the fraction of each true class, numbers the counts (up to 20 classes)."""
    n = len(classes)
    figure = Figure(figsize=(2.5 + 0.5 * n, 2 + 0.5 * n) if n <= 20 else (12, 11), layout="constrained")
    axes = figure.subplots()
    fraction = matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    image = axes.imshow(fraction.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    if n <= 20:
        axes.set_xticks(range(n), classes, rotation=45, ha="right")
        axes.set_yticks(range(n), classes)
        for row in range(n):
            for column in range(n):
                colour = "white" if fraction[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(int(matrix[row, column])), ha="center", va="center", color=colour, fontsize=10
                )
    return figure


def confidently_wrong(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices of the wrong predictions with the highest probability, most confident first."""
    probability, predicted = logits.softmax(1).max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = probability[wrong].argsort(descending=True, stable=True)
    return wrong[order[:count]]
