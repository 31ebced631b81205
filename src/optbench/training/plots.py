"""Pictures of one run in RGB, for TensorBoard and evaluate.py.

Drawn by Pillow: matplotlib took 0.4 s for 32 images and 0.2 s for a matrix.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

FONT = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 13)
LINE, GAP = 17, 10  # pixels


def image_grid(images: Tensor, titles: Sequence[str], columns: int = 8, cell: int = 128) -> Image.Image:
    """uint8 images `(N, 3, H, W)`, each under its title, in cells of so many pixels or, enlarged, a little less."""
    height, width = images.shape[2:]
    scale = cell / max(height, width)
    scale = int(scale) if scale > 1 else scale  # all pixels stay of one size
    size = round(width * scale), round(height * scale)
    lines = max(title.count("\n") + 1 for title in titles)
    across, down = cell + GAP, lines * LINE + size[1] + GAP
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * across + GAP, rows * down + GAP), "white")
    draw = ImageDraw.Draw(grid)
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        left, top = number % columns * across + GAP, number // columns * down + GAP
        for line, text in enumerate(title.split("\n"), lines - title.count("\n") - 1):
            draw.text((left, top + line * LINE), shortened(text, cell), "black", FONT)
        resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, resampling)
        grid.paste(picture, (left, top + lines * LINE))
    return grid


def shortened(text: str, width: int) -> str:
    """As much of a text as fits into so many pixels."""
    cuts = (text[:n] + "…" for n in range(len(text) - 1, -1, -1))
    return text if FONT.getlength(text) <= width else next(cut for cut in cuts if FONT.getlength(cut) <= width)


def confusion(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
    """Counts `(classes, classes)`: rows are the true class, columns the predicted one."""
    return multiclass_confusion_matrix(logits, labels, num_classes=len(classes), validate_args=False)


def confusion_picture(matrix: Tensor, classes: Sequence[str]) -> Image.Image:
    """Colours show the fraction of each true class, numbers the counts; names and numbers of up to 20 classes."""
    n, fraction = len(classes), matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    cell = 56 if n <= 20 else max(1, 800 // n)
    names = [shortened(name, 160) for name in classes] if n <= 20 else []
    margin = int(max((FONT.getlength(name) for name in names), default=0)) + 2 * GAP
    caption = (
        "rows: true class, columns: predicted class",
        "colour: fraction of the true class, white 0 to dark blue 1" + ("; numbers: images" if names else ""),
    )
    width = max(2 * margin + n * cell, *(int(FONT.getlength(line)) + 2 * GAP for line in caption))
    picture = Image.new("RGB", (width, margin + n * cell + 2 * GAP + len(caption) * LINE), "white")
    draw = ImageDraw.Draw(picture)
    colours = Image.fromarray(matplotlib.colormaps["Blues"](fraction.numpy(), bytes=True)[..., :3])
    picture.paste(colours.resize((n * cell, n * cell), Image.Resampling.NEAREST), (margin, margin))
    for k, name in enumerate(names):
        middle = margin + k * cell + cell // 2
        draw.text((margin - GAP, middle), name, "black", FONT, anchor="rm")
        slanted = Image.new("L", (margin, LINE))  # black: where nothing is drawn
        ImageDraw.Draw(slanted).text((0, 0), name, "white", FONT)
        slanted = slanted.rotate(45, Image.Resampling.BICUBIC, expand=True)
        picture.paste("black", (middle - GAP, margin - slanted.height), slanted)
        for column in range(n):
            colour = "white" if fraction[k, column] > 0.5 else "black"
            where = margin + column * cell + cell // 2, middle
            draw.text(where, str(int(matrix[k, column])), colour, FONT, anchor="mm")
    for line, text in enumerate(caption):
        draw.text((GAP, margin + n * cell + GAP + line * LINE), text, "black", FONT)
    return picture


def confidently_wrong(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices of the wrong predictions with the highest probability, most confident first."""
    probability, predicted = logits.softmax(1).max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = probability[wrong].argsort(descending=True, stable=True)
    return wrong[order[:count]]
