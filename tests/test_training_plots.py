import numpy as np
import pytest
import torch
from matplotlib import colormaps

from optbench.training.plots import FONT, confidently_wrong, confusion, confusion_picture, image_grid, shortened


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


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (8, 8, 1), (9, 8, 2)])
def test_a_grid_shows_each_image_under_its_title(count, columns, rows):
    images = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8)
    grid = np.asarray(image_grid(images, [f"image {k}" for k in range(count)]))
    assert (grid.dtype, grid.shape) == (np.uint8, (10 + rows * (17 + 128 + 10), 10 + columns * 138, 3))
    for k, image in enumerate(images):
        left, top = 10 + k % 8 * 138, 10 + k // 8 * 155
        enlarged = image.permute(1, 2, 0).repeat_interleave(32, 0).repeat_interleave(32, 1)
        assert np.array_equal(grid[top + 17 : top + 145, left : left + 128], enlarged)
        title = grid[top : top + 17, left : left + 128]
        assert title.min() < 50 and title[:, 60:].min() == 255  # written, and no wider than it is
    assert (grid[:, -10:] == 255).all() and (grid[-10:] == 255).all()


def test_titles_of_two_lines_end_at_their_image_and_long_ones_are_cut():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    grid = np.asarray(image_grid(images, ["a\nb", "c"]))
    first, second = (grid[10:27, left : left + 128] for left in (10, 148))
    assert first.min() < 50 and second.min() == 255  # the line that the second title lacks
    assert (np.asarray(image_grid(images, ["long " * 30, ""]))[10:27, 138:148] == 255).all()
    assert shortened("short", 100) == "short"
    assert shortened("a name that is too long", 100).startswith("a name") and shortened("long", 20).endswith("…")


@pytest.mark.parametrize(("shape", "size"), [((6, 9), (84, 126)), ((256, 512), (64, 128)), ((128, 96), (128, 96))])
def test_images_of_any_size_fit_into_a_grid(shape, size):
    grid = np.asarray(image_grid(torch.zeros(1, 3, *shape, dtype=torch.uint8), [""]))
    assert ((grid == 0).all(2).any(1).sum(), (grid == 0).all(2).any(0).sum()) == size


def test_a_confusion_matrix_shows_shares_as_colours_and_counts_as_numbers():
    matrix = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 6]])
    picture = np.asarray(confusion_picture(matrix, ("cat", "dog", "eel")))
    margin = int(max(FONT.getlength(name) for name in ("cat", "dog", "eel"))) + 20
    cells = picture[margin : margin + 3 * 56, margin : margin + 3 * 56].reshape(3, 56, 3, 56, 3).swapaxes(1, 2)
    shares = [[0.75, 0.25, 0], [0, 0, 0], [0, 0.25, 0.75]]
    assert np.array_equal(cells[:, :, 0, 0], colormaps["Blues"](np.array(shares), bytes=True)[..., :3])
    middles = cells[:, :, 20:36, 10:46].reshape(9, -1, 3).astype(int)
    assert [(middle.max() == 255, middle.min() == 0) for middle in middles[[0, 1]]] == [(True, False), (False, True)]
    assert np.array_equal(middles[2], middles[3]) and not np.array_equal(middles[1], middles[7])  # 0 and 0, 1 and 2
    names = [picture[margin + 56 * k : margin + 56 * (k + 1), : margin - 10] for k in range(3)]
    assert all(name.min() == 0 for name in names) and not np.array_equal(names[0], names[1])
    above = [picture[:margin, margin + 56 * k + 18 : margin + 56 * (k + 1) + 10] for k in range(3)]
    assert all(name.min() < 50 for name in above)


def test_many_classes_have_colours_alone():
    matrix = torch.eye(21, dtype=torch.int64)
    picture = np.asarray(confusion_picture(matrix, [f"c{k}" for k in range(21)]))
    cell = 800 // 21
    inside = picture[20 : 20 + 21 * cell, 20 : 20 + 21 * cell]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 2  # no numbers
    assert (picture[:20] == 255).all() and (picture[:, :20][: 20 + 21 * cell] == 255).all()  # no names
    assert len(np.unique(np.asarray(confusion_picture(matrix[:20, :20], list("abcdefghijklmnopqrst"))))) > 50
