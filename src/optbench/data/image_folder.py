"""Any folder of pictures, `<root>/train/<class>/*` and `<root>/test/<class>/*`, decoded once and kept in a cache."""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from optbench.data.imageset import ImageSet

# fmt: off
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pcx", ".pgm",
    ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)
# fmt: on
CACHE_VERSION = 1  # count up when decoding changes pixels, or the cache its format
BLOCK_BYTES = 2**22  # of decoded pictures: what a thread does at a time

log = logging.getLogger(__name__)


class _File(NamedTuple):
    path: str  # relative to root, such as train/cat/0001.jpg
    size: int
    mtime_ns: int
    label: int


@dataclass
class _Decoded:
    """The readable pictures of `train` or `test` in the order of the files, and why the others are not."""

    images: np.ndarray  # (N, 3, H, W) uint8
    corrupt: dict[str, str]  # file -> reason


def read_image_folder(
    root: str, image_size: int, test_size: float, split_seed: int, on_corrupt: str, workers: int, cache_dir: str
) -> ImageSet:
    """Every picture as RGB, `(N, 3, image_size, image_size)`; classes are the folders' names, sorted.

    Without `<root>/test`, the fraction `test_size` of each class is cut from train. The cut depends on `split_seed` and
    the file names alone. Other files than pictures, and hidden ones, are ignored; folders within a class are searched.

    Args:
        on_corrupt: `raise`, or `skip` to pass over pictures that cannot be decoded (`ImageSet.skipped` names them).
        workers: threads that decode; 0 means one for each core.
        cache_dir: keeps the decoded pictures, `image_size`² x 3 bytes each, until a file below `root` changes.

    Raises:
        ValueError: an argument that is not allowed, a folder that holds no data set, or a corrupt picture.
        FileNotFoundError, NotADirectoryError, PermissionError: `root` is missing, a file, or cannot be read.
    """
    _check_arguments(image_size, test_size, split_seed, on_corrupt, workers)
    home = Path(root).expanduser().resolve()
    try:
        classes, files = _list_files(root, home)
    except PermissionError as error:
        raise PermissionError(
            f"data.root={root}: {error.filename} cannot be read ({error.strerror}). Give yourself the right to "
            "read it, or choose another data.root."
        ) from error

    decoded = _load_or_decode(home, files, image_size, on_corrupt, workers, Path(cache_dir).expanduser())
    skipped = {path: reason for part in decoded.values() for path, reason in part.corrupt.items()}
    if skipped and on_corrupt == "raise":
        raise _corrupt_error(home, *next(iter(skipped.items())))
    if skipped:
        log.warning(
            "data.on_corrupt=skip: %d of %d pictures below %s cannot be decoded and are left out: %s%s",
            len(skipped), sum(map(len, files.values())), home, ", ".join(list(skipped)[:20]),
            ", ..." if len(skipped) > 20 else ".",
        )  # fmt: skip

    images = {split: part.images for split, part in decoded.items()}
    labels = {
        split: np.array([file.label for file in listed if file.path not in skipped], np.int64)
        for split, listed in files.items()
    }
    for split in files:
        counts = np.bincount(labels[split], minlength=len(classes))
        if empty := [f"{split}/{name}" for name, count in zip(classes, counts, strict=True) if count == 0]:
            raise ValueError(
                f"data.root={root}: no picture in {', '.join(empty)} can be decoded. Put readable pictures there, or "
                "remove the class everywhere."
            )
    if "test" not in files:
        in_test = _stratified_cut(root, classes, labels["train"], test_size, split_seed)
        images["test"], labels["test"] = images["train"][in_test], labels["train"][in_test]
        images["train"], labels["train"] = _keep_rows(images["train"], ~in_test), labels["train"][~in_test]

    def tensors(split: str) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images[split]), torch.from_numpy(labels[split])

    return ImageSet(*tensors("train"), *tensors("test"), classes=tuple(classes), skipped=tuple(skipped))


def load_image(path: str | os.PathLike[str], image_size: int) -> np.ndarray:
    """One picture, of any format and mode that Pillow reads, as RGB `(3, image_size, image_size)` uint8.

    Turned as its EXIF orientation says, transparency on white, 16 bits scaled to 8, of several frames the first. Both
    sides are scaled to `image_size`, for every shape of picture; a picture of that size keeps its pixels.

    Raises:
        ValueError: it cannot be read, is no picture, is torn, or is too large to be decoded safely.
    """
    from PIL import Image, ImageOps  # here, because a start from the cache needs no Pillow

    try:
        with Image.open(path) as file:
            if file.width * file.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
                raise Image.DecompressionBombError
            file.draft(None, (2 * image_size, 2 * image_size))  # a large JPEG is decoded at a half, quarter or eighth
            ImageOps.exif_transpose(file, in_place=True)
            picture: Image.Image = file
            if picture.mode.startswith("I"):  # 16 bits or more, which Pillow would clip at 255
                picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
            if picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
            return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))  # (H, W, 3) -> (3, H, W)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"{path} holds more than {Image.MAX_IMAGE_PIXELS:,} pixels: it could be a decompression bomb and is not "
            "decoded. Scale it down first."
        ) from None
    except Exception as error:  # Pillow's decoders answer broken files with nearly every kind of exception
        raise ValueError(f"{path} cannot be read as a picture ({error or type(error).__name__})") from error


def _check_arguments(image_size: int, test_size: float, split_seed: int, on_corrupt: str, workers: int) -> None:
    def whole(value: object, least: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    for right, key, value, allowed in (
        (whole(image_size, 1), "image_size", image_size, "a whole number of pixels, at least 1; CIFAR-10's is 32"),
        (
            0 < test_size < 1,
            "test_size",
            test_size,
            "above 0 and below 1: the fraction of train that becomes the test set",
        ),
        (whole(split_seed, 0), "split_seed", split_seed, "a whole number, at least 0"),
        (on_corrupt in ("raise", "skip"), "on_corrupt", on_corrupt, "raise (stop at it) or skip (leave it out)"),
        (whole(workers, 0), "workers", workers, "a number of threads; 0 is one for each core"),
    ):
        if not right:
            raise ValueError(f"data.{key}={value} is not allowed: it must be {allowed}.")


def _list_files(root: str, home: Path) -> tuple[list[str], dict[str, list[_File]]]:
    """Class names, and the pictures of `train` and, if there is one, `test`, by class and path."""
    layout = f"The layout is {root}/train/<class>/<picture> and, if there is a test set, {root}/test/<class>/<picture>."
    if not root:
        raise ValueError("data.root is empty: it must name a folder of pictures with train/<class>/ below it.")
    if not home.exists():
        raise FileNotFoundError(f"data.root={root} does not exist. {layout}")
    if not home.is_dir():
        raise NotADirectoryError(f"data.root={root} is a file, not a folder. {layout}")
    found = _folders(home)
    if "train" not in found:
        instead = f"only {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else "no folder at all"
        raise FileNotFoundError(
            f"data.root={root} holds no folder train, {instead}. {layout} Move the class folders into {root}/train."
        )

    classes = _folders(home / "train")
    if len(classes) < 2:
        raise ValueError(
            f"data.root={root}: {home}/train holds {len(classes)} class folders; at least 2 are needed. {layout}"
        )
    splits = ["train", "test"] if "test" in found else ["train"]
    if "test" in found and (tested := _folders(home / "test")) != classes:
        raise ValueError(
            f"data.root={root}: the class folders of train and test must be the same, but "
            f"{', '.join(sorted(set(classes) - set(tested))) or 'none'} is only in train and "
            f"{', '.join(sorted(set(tested) - set(classes))) or 'none'} only in test. Rename, add or remove folders; "
            "without a folder test, data.test_size cuts the test set from train."
        )
    files: dict[str, list[_File]] = {split: [] for split in splits}
    for split in splits:
        for label, name in enumerate(classes):
            pictures = sorted(_pictures(f"{home}/", f"{split}/{name}", label))
            if not pictures:
                raise ValueError(
                    f"data.root={root}: {split}/{name} holds no picture. Pictures end in "
                    f"{' '.join(IMAGE_SUFFIXES)}; put some there, or remove the class everywhere."
                )
            files[split] += pictures
    return classes, files


def _folders(parent: Path) -> list[str]:
    with os.scandir(parent) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _pictures(home: str, folder: str, label: int) -> Iterator[_File]:
    with os.scandir(home + folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
                status = entry.stat()
                yield _File(path, status.st_size, status.st_mtime_ns, label)
            elif entry.is_dir():
                yield from _pictures(home, path, label)


def _stratified_cut(root: str, classes: list[str], labels: np.ndarray, test_size: float, seed: int) -> np.ndarray:
    """Marks, as bool `(N,)`, the rounded fraction of each class that tests; at least one picture stays on each side."""
    in_test = np.zeros(len(labels), bool)
    for label, name in enumerate(classes):
        (rows,) = np.nonzero(labels == label)
        if len(rows) < 2:
            raise ValueError(
                f"data.root={root}: train/{name} holds a single readable picture, which cannot be divided between "
                "train and test. Add pictures, or make a folder test."
            )
        count = min(max(round(test_size * len(rows)), 1), len(rows) - 1)
        in_test[np.random.default_rng([seed, label]).permutation(rows)[:count]] = True
    return in_test


def _keep_rows(images: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """`images[keep]` without a second array: rows move towards the front, a block at a time."""
    (rows,) = np.nonzero(keep)
    for start in range(0, len(rows), 1024):
        block = rows[start : start + 1024]
        images[start : start + len(block)] = images[block]
    return images[: len(rows)]


def _load_or_decode(
    home: Path, files: dict[str, list[_File]], image_size: int, on_corrupt: str, workers: int, cache_dir: Path
) -> dict[str, _Decoded]:
    """From the cache; or decoded and written to the cache, by one process while others wait for it."""
    state = [CACHE_VERSION, image_size, {split: [file[:3] for file in listed] for split, listed in files.items()}]
    fingerprint = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    # One cache for each folder and size, so that a new one replaces the old.
    cache = cache_dir / f"{home.name[:40]}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}-{image_size}px"
    counts = {split: len(listed) for split, listed in files.items()}
    try:
        return _read_cache(cache, fingerprint, counts)
    except _CACHE_ERRORS:
        pass  # perhaps another process is writing it
    with ExitStack() as stack:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{cache}.lock"))
        except OSError:
            pass  # _write_cache says so
        try:
            return _read_cache(cache, fingerprint, counts)
        except (FileNotFoundError, NotADirectoryError):
            pass  # there is none yet
        except _CACHE_ERRORS as error:
            log.warning("The cache %s is made anew: %s", cache, error)
        log.info("Decoding %s pictures of %s, once.", " + ".join(map(str, counts.values())), home)
        decoded = {
            split: _decode(home, [file.path for file in listed], image_size, on_corrupt, workers)
            for split, listed in files.items()
        }
        try:
            _write_cache(cache, fingerprint, decoded)
        except OSError as error:
            log.warning("data.cache_dir=%s cannot be written (%s): the next start decodes again.", cache_dir, error)
        return decoded


def _decode(home: Path, paths: list[str], image_size: int, on_corrupt: str, workers: int) -> _Decoded:
    from PIL import Image

    Image.preinit()  # the common formats are tried first,
    Image.init()  # and none registers while threads read: two that did so at once would miss some
    images = np.empty((len(paths), 3, image_size, image_size), np.uint8)
    step = max(1, BLOCK_BYTES // (3 * image_size**2))

    def decode(start: int) -> dict[int, str]:
        corrupt = {}
        for row in range(start, min(start + step, len(paths))):
            try:
                images[row] = load_image(home / paths[row], image_size)
            except ValueError as error:
                if on_corrupt == "raise":
                    raise _corrupt_error(home, paths[row], str(error)) from error
                corrupt[row] = str(error)
        return corrupt

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        corrupt = {row: why for part in pool.map(decode, range(0, len(paths), step)) for row, why in part.items()}
    if corrupt:
        readable = np.ones(len(paths), bool)
        readable[list(corrupt)] = False
        images = _keep_rows(images, readable)
    return _Decoded(images, {paths[row]: reason for row, reason in corrupt.items()})


def _corrupt_error(home: Path, path: str, reason: str) -> ValueError:
    return ValueError(
        f"data.root={home}: {path} is corrupt: {reason}. Repair or remove it, or pass over such files with "
        "data.on_corrupt=skip."
    )


_CACHE_ERRORS = (OSError, ValueError, EOFError, KeyError, TypeError)  # what a torn .json or .npy can raise


def _write_cache(cache: Path, fingerprint: str, decoded: dict[str, _Decoded]) -> None:
    """`<cache>-train.npy`, `<cache>-test.npy`, then `<cache>.json`, which makes them valid. The lock is held."""
    index: dict[str, object] = {"fingerprint": fingerprint}
    partial = Path(f"{cache}.partial")
    try:
        for split, part in decoded.items():
            with partial.open("wb") as file:
                np.save(file, part.images)
            partial.replace(f"{cache}-{split}.npy")
            index[split] = {"crc32": zlib.crc32(part.images.data), "corrupt": part.corrupt}
        partial.write_text(json.dumps(index))
        partial.replace(f"{cache}.json")
    except OSError:
        with suppress(OSError):
            partial.unlink()  # a full disk would stay full
        raise


def _read_cache(cache: Path, fingerprint: str, counts: dict[str, int]) -> dict[str, _Decoded]:
    index = json.loads(Path(f"{cache}.json").read_text())
    if index["fingerprint"] != fingerprint:
        raise ValueError("files were added, removed or changed.")
    decoded = {}
    for split, count in counts.items():
        part = _Decoded(np.load(f"{cache}-{split}.npy"), index[split]["corrupt"])
        if len(part.images) + len(part.corrupt) != count or zlib.crc32(part.images.data) != index[split]["crc32"]:
            raise ValueError(f"{cache}-{split}.npy is torn.")
        decoded[split] = part
    return decoded
