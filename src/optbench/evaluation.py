"""A finished run, again, from nothing but its folder."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn
from yaml import YAMLError

from optbench.commands.terminal import show
from optbench.data.datamodule import normalize
from optbench.data.image_folder import IMAGE_SUFFIXES, load_image
from optbench.records.configuration import as_list
from optbench.records.files import finite, write_atomically, write_csv
from optbench.records.record import RunRecord
from optbench.records.trust import Trust, check_record
from optbench.recovery.checkpoint import load_weights, read_checkpoint
from optbench.training.build import build_data, build_net
from optbench.training.measurement import measure
from optbench.training.plots import confusion, confusion_picture
from optbench.training.provenance import now

log = logging.getLogger(__name__)

BATCH = 1000
READS = "reads.csv"


def evaluate_run(
    run: str,
    checkpoint: str,
    images: str | ListConfig | None,
    overrides: str | Sequence[str] | None,
    trust: Trust = (),
) -> None:
    """Rebuild a run's data and network from its own record, load its weights, and write `<run>/evaluation/`.

    Raises:
        ValueError: where the folder is no run, has no such checkpoint, its model, data or augmentation is a class that
            may not be built, or `images` names no picture.
    """
    folder = Path(str(run)).expanduser()
    try:
        record = RunRecord.read(folder)
    except ValueError as error:
        raise ValueError(f"run={run}: {error}") from error
    path = find_checkpoint(folder, record, checkpoint, "checkpoint")
    content = read_checkpoint(path, "checkpoint")
    output = folder / "evaluation" / checkpoint
    net = restore(record, content, path, trust)
    if images is not None:
        classify(record, net, find_pictures([str(name) for name in as_list(images)]), output)
        return
    cfg = changed(record.config, overrides)
    data = build_data(cfg)
    if list(data.classes) != record.classes:
        raise ValueError(
            f"The classes of {cfg.data._target_} are no longer those of the run: {', '.join(data.classes)}."
        )
    if data.imageset.sha256 != record.hashes["data"]:
        log.warning("The images are no longer those of the run: some that it trained on may be among the test images.")
    logits = logits_of(net, data.test.images, record)
    mirrored = logits_of(net, data.test.images.flip(3), record) if cfg.get("test_flips") else None
    count_reading(output.parent / READS, checkpoint)
    report(logits, mirrored, data.test.labels, data.classes, content["epoch"] + 1, output)


def changed(config: Any, overrides: Any) -> DictConfig:
    """A run's configuration with `overrides`: key=value, or a list of them.

    Raises:
        ValueError: for anything else; OmegaConf's own error for a key that does not exist.
    """
    given = as_list(overrides)
    if wrong := [text for text in given if not isinstance(text, str) or "=" not in text]:
        raise ValueError(
            f"overrides={wrong[0]} must be key=value or a [list] of them: 'overrides=[\"data.root=/new\"]'."
        )
    known = OmegaConf.create(config, flags={"struct": True})  # a mistyped key is refused
    try:
        cfg = OmegaConf.merge(known, OmegaConf.from_dotlist(given))
    except YAMLError as error:
        raise ValueError(
            f"overrides={', '.join(given)} cannot be read as key=value, with the value in YAML."
        ) from error
    assert isinstance(cfg, DictConfig)
    return cfg


def find_checkpoint(folder: Path, record: RunRecord, weights: str, key: str) -> Path:
    """The file of a run's `best` or `last` weights.

    Args:
        key: the setting or argument that said which, for the error.

    Raises:
        ValueError: where `weights` is neither, or the run has no such file.
    """
    if weights not in ("best", "last"):
        raise ValueError(f"{key}={weights} is not known: use best or last.")
    path = folder / "checkpoints" / f"{weights}.ckpt"
    if not path.is_file():
        kept = [name for name in ("best", "last") if (folder / "checkpoints" / f"{name}.ckpt").is_file()]
        there = (
            f"use {key}={kept[0]}" if kept else "a run writes them as epochs end, unless callbacks.last_checkpoint=null"
        )
        raise ValueError(f"{key}={weights}: {folder} has no {path.name} (its status is {record.status}); {there}.")
    return path


def count_reading(path: Path, checkpoint: str) -> None:
    """A line each time the test set is read: a comparison tells how often that was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write(("time,checkpoint\n" if new else "") + f"{now()},{checkpoint}\n")


def restore(record: RunRecord, checkpoint: dict[str, Any], path: Path, trust: Trust = ()) -> nn.Module:
    """The run's network with the checkpoint's weights, ready to evaluate.

    Args:
        path: of the checkpoint, for errors.
        trust: classes that may be built besides those that `records.trust` allows.

    Raises:
        ValueError: where the record names a class that may not be built, or the weights are of another network.
    """
    built = {key: record.config.get(key) for key in ("model", "data", "augmentation")}
    check_record(built, path.parents[1], trust)
    channels, height, width = record.input["shape"]
    net = build_net(OmegaConf.create(record.config), (channels, height, width), record.classes)
    load_weights(nn.ModuleDict({"net": net}), checkpoint, path, "checkpoint")  # the names begin with net.
    return net.eval()


def logits_of(net: nn.Module, images: Tensor, record: RunRecord) -> Tensor:
    """uint8 images `(N, 3, H, W)` to logits `(N, classes)`, in batches, scaled as the run scaled them."""
    scale, shift = (torch.tensor(record.input[key]).view(-1, 1, 1) for key in ("scale", "shift"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device)
    with torch.inference_mode():
        parts = [net(normalize(batch.to(device), scale, shift)).float().cpu() for batch in images.split(BATCH)]
    return torch.cat(parts)


def report(
    logits: Tensor, mirrored: Tensor | None, labels: Tensor, classes: tuple[str, ...], epoch: int, output: Path
) -> None:
    """Print and write metrics.json, per_class.csv, confusion_matrix.csv and .png.

    Args:
        mirrored: the logits of the mirror images, for a run with test_flips.
    """
    values = {f"test/{name}": float(value) for name, value in measure(logits, labels, classes).items()}
    if mirrored is not None:
        values["test/flip_accuracy"] = float(((logits + mirrored).argmax(1) == labels).float().mean())
    matrix = confusion(logits, labels, classes)
    overall = {name: value for name, value in values.items() if name.count("/") == 1}

    show(f"Test set: {len(labels)} images, weights of epoch {epoch}", [overall])

    images, predictions, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    rows = [
        {
            "class": name,
            "images": int(images[k]),
            "accuracy": float(hits[k] / images[k]),
            "precision": float(hits[k] / predictions[k]),
            "most often taken for": classes[int((matrix[k] - torch.diag(hits)[k]).argmax())]
            if hits[k] < images[k]
            else "-",
        }
        for k, name in enumerate(classes)
    ]
    show("Per class", rows)
    columns = columns_of(classes, "true class")
    counts = [
        {"true class": name, **dict(zip(columns, row, strict=True))}
        for name, row in zip(classes, matrix.tolist(), strict=True)
    ]
    if len(classes) <= 20:
        show("Confusion matrix (columns: predicted class)", counts)

    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "metrics.json", json.dumps(finite({"epoch": epoch, **values}), indent=2) + "\n")
    write_csv(output / "per_class.csv", list(rows[0]), rows)
    write_csv(output / "confusion_matrix.csv", list(counts[0]), counts)
    confusion_picture(matrix, classes).save(output / "confusion_matrix.png")
    print(f"Written to {output}")


def columns_of(classes: Sequence[str], *taken: str) -> list[str]:
    """A column for each class, called by its name, or where another column has that name `<name> (class)`."""
    return [f"{name} (class)" if name in taken else name for name in classes]


def classify(record: RunRecord, net: nn.Module, pictures: list[Path], output: Path) -> None:
    """Print the three likeliest classes of each picture, and write all probabilities to predictions.csv."""
    images, readable, unreadable = read_pictures(pictures, record.input["shape"][1])
    for reason in unreadable:
        print(f"Skipped: {reason}", file=sys.stderr)
    probabilities = logits_of(net, images, record).softmax(1)
    columns = columns_of(record.classes, "image", "class")
    rows, shown = [], []
    for picture, row in zip(readable, probabilities, strict=True):
        best = row.argsort(descending=True)[:3].tolist()
        rows.append(
            {"image": str(picture), "class": record.classes[best[0]]}
            | {name: round(float(p), 6) for name, p in zip(columns, row, strict=True)}
        )
        shown.append(
            {"image": picture.name} | {f"{n}.": f"{record.classes[k]} {row[k]:.1%}" for n, k in enumerate(best, 1)}
        )
    show(f"{len(rows)} pictures", shown)
    output.mkdir(parents=True, exist_ok=True)
    write_csv(output / "predictions.csv", list(rows[0]), rows)
    print(f"All probabilities: {output / 'predictions.csv'}")


def read_pictures(pictures: Sequence[Path], size: int) -> tuple[Tensor, list[Path], list[str]]:
    """The readable pictures as uint8 `(N, 3, size, size)`, their paths, and a reason for each of the others.

    Raises:
        ValueError: where none is readable.
    """
    images, readable, unreadable = [], [], []
    for picture in pictures:
        try:
            images.append(torch.from_numpy(load_image(picture, size)))
            readable.append(picture)
        except ValueError as error:
            unreadable.append(str(error))
    if not images:
        raise ValueError(f"images: none of {len(pictures)} files is a picture, beginning with: {unreadable[0]}.")
    return torch.stack(images), readable, unreadable


def find_pictures(images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that `images=` names; of a folder, the pictures in it and below.

    Raises:
        ValueError: for no path, one that does not exist, or a folder without pictures.
    """
    found: list[Path] = []
    for name in [images] if isinstance(images, str | os.PathLike) else images:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise ValueError(f"images={path} is a folder without pictures.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(
                f"images={path} does not exist. Give a picture, a folder of pictures, or a [list] of them."
            )
    if not found:
        raise ValueError("images is empty. Give a picture, a folder of pictures, or a [list] of them.")
    return found
