import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from optbench.training.plots import confidently_wrong, confusion, confusion_figure, image_grid


def png_size(figure: Figure) -> tuple[int, int]:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    with Image.open(file) as image:
        assert image.format == "PNG"
        return image.size


def test_confusion_counts_true_classes_in_rows():
    generator = torch.Generator().manual_seed(0)
    labels, logits = torch.randint(4, (200,), generator=generator), torch.randn(200, 5, generator=generator)
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (labels.numpy(), logits.argmax(1).numpy()), 1)
    found = confusion(logits, labels, "abcde")
    assert found.tolist() == expected.tolist()
    assert found[4].sum() == 0 and found.sum() == 200  # a class without images keeps its row


def test_the_most_confident_mistakes_come_first():
    right = torch.tensor([0, 1, 2, 0, 1, 2])
    said = torch.tensor([0, 2, 1, 1, 1, 0])  # images 1, 2, 3 and 5 are wrong
    confidence = torch.tensor([9.0, 2.0, 4.0, 2.0, 8.0, 3.0])
    logits = torch.nn.functional.one_hot(said, 3) * confidence[:, None]
    assert confidently_wrong(logits, right, 10).tolist() == [2, 5, 1, 3]  # equals in their order
    assert confidently_wrong(logits, right, 2).tolist() == [2, 5]
    assert confidently_wrong(logits, said, 2).tolist() == []


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (8, 1), (9, 2)])
def test_a_grid_shows_each_image_under_its_title(count, rows):
    images = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8)
    figure = image_grid(images, [f"image {k}" for k in range(count)])
    assert len(figure.axes) == 8 * rows
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [f"image {k}" for k in range(count)]
    for axes, image in zip(shown, images, strict=True):
        assert np.array_equal(axes.images[0].get_array(), image.permute(1, 2, 0).numpy())
    assert not any(axes.axison for axes in figure.axes)
    assert png_size(figure) == tuple(int(50 * inches) for inches in figure.get_size_inches())
    assert figure.get_figheight() == rows * image_grid(images[:1], [""]).get_figheight()


def test_a_confusion_figure_shows_shares_as_colours_and_counts_as_numbers():
    matrix = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 6]])
    figure = confusion_figure(matrix, ("cat", "dog", "eel"))
    axes, colourbar = figure.axes
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0.25, 0.75]]
    assert [(t.get_position(), t.get_text()) for t in axes.texts][:2] == [((0, 0), "3"), ((1, 0), "1")]
    assert [t.get_text() for t in axes.texts] == [str(n) for n in matrix.flatten().tolist()]
    assert [t.get_color() for t in axes.texts][::8] == ["white", "white"]  # on dark blue
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["cat", "dog", "eel"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert colourbar.get_ylabel() == "fraction of the true class"
    assert png_size(figure)[0] > 150


def test_many_classes_have_colours_alone():
    for n, texts in ((20, 400), (21, 0)):
        figure = confusion_figure(torch.eye(n, dtype=torch.int64), [f"c{k}" for k in range(n)])
        assert len(figure.axes[0].texts) == texts
    assert png_size(figure)[0] > 500
