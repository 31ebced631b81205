"""CIFAR-10 (Krizhevsky 2009) in its official form: found in a folder, or downloaded into it once.

torchvision knows the archive's address, files and checksums. Downloading and reading are done here: its own download
leaves a partial file under the final name and waits forever on a silent server; its reader copies every image twice.
"""

import hashlib
import logging
import pickle
import shutil
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import wrap_file
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5, check_integrity

from optbench.data.imageset import ImageSet

IMAGES_PER_BATCH = 10_000  # in each of the archive's five training files and its test file
ARCHIVE_BYTES = 170_498_071
TIMEOUT = 30.0  # seconds without a byte from the server

log = logging.getLogger(__name__)


class _IncompleteError(FileNotFoundError):
    """A file of the extracted archive is missing, or is not the official one."""


def read_cifar10(root: str, url: str | None = None) -> ImageSet:
    """All 50,000 training and 10,000 test images, `(N, 3, 32, 32)`.

    A complete `<root>/cifar-10-batches-py` is used as it is, without network and without writing. Otherwise the archive
    is downloaded from `url` (`http(s)://` or `file://`; None: the official address); an archive that is already in
    `root` is used instead. Every byte is verified before it is used.

    Raises:
        ConnectionError: the download was refused, timed out or was cut off.
        ValueError: the download is not the official archive, or `url` or `root` is not allowed.
        OSError: `root` cannot be read, or cannot be written when a download is needed.
    """
    if url is not None and not url.startswith(("http://", "https://", "file://")):
        raise ValueError(
            f"data.url={url} must start with http://, https:// or file:// and lead to a copy of {CIFAR10.filename}; "
            "data.url=null downloads from the official address."
        )
    if not root:
        raise ValueError("data.root is empty: it must name the folder that holds, or shall hold, cifar-10-batches-py.")
    home = Path(root).expanduser()
    if home.name == CIFAR10.base_folder:
        home = home.parent  # `root` may also be the folder itself
    if home.exists() and not home.is_dir():
        raise NotADirectoryError(f"data.root={root} is a file; it must be the folder that holds {CIFAR10.base_folder}.")

    folder = home / CIFAR10.base_folder
    try:
        return _read(folder)
    except _IncompleteError as incomplete:
        try:
            home.mkdir(parents=True, exist_ok=True)
            held = FileLock(home / ".cifar-10.lock").acquire()  # waits while another process downloads
        except OSError as error:
            raise OSError(
                f"CIFAR-10 is needed ({incomplete}), but data.root={root} cannot be written: {error}. {_WAY_OUT}"
            ) from error
    with held:
        try:
            return _read(folder)  # the other process has downloaded it
        except _IncompleteError as incomplete:
            _download(url or CIFAR10.url, home, incomplete)
        return _read(folder)


_WAY_OUT = (
    f"Use data=shapes (embedded, no download), data.root=<folder that holds {CIFAR10.base_folder}> or "
    f"data.url=<mirror of {CIFAR10.filename}, http(s):// or file://>."
)


def _read(folder: Path) -> ImageSet:
    train_images, train_labels = _read_batches(folder, CIFAR10.train_list)
    test_images, test_labels = _read_batches(folder, CIFAR10.test_list)
    meta = _unpickle(folder / CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    classes = tuple(name.decode() for name in meta[b"label_names"])
    return ImageSet(train_images, train_labels, test_images, test_labels, classes)


def _read_batches(folder: Path, files: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    images = np.empty((len(files) * IMAGES_PER_BATCH, 3, 32, 32), np.uint8)
    labels: list[int] = []
    for place, (name, md5) in zip(np.split(images, len(files)), files, strict=True):
        batch = _unpickle(folder / name, md5)
        place[:] = batch[b"data"].reshape(-1, 3, 32, 32)  # (10000, 3072), channels first already
        labels += batch[b"labels"]
        del batch  # or two of them are in memory at once
    return torch.from_numpy(images), torch.tensor(labels)


def _unpickle(path: Path, md5: str) -> Any:
    """Unpickles exactly the bytes that were verified: a pickle can run any code."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _IncompleteError(f"{path} is missing") from None
    except OSError as error:
        raise OSError(f"data.root={path.parent.parent}: {path} cannot be read: {error.strerror}. {_WAY_OUT}") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise _IncompleteError(f"{path} is damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2.4.0 to 2.4.4 warn of the old dtype in these files
        return pickle.loads(content, encoding="bytes")


def _download(url: str, home: Path, incomplete: _IncompleteError) -> None:
    """Puts the complete extracted folder into `home`, or raises and leaves `home` as it was."""
    folder = home / CIFAR10.base_folder
    partial = home / ".cifar-10.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    try:
        partial.mkdir()
        archive = home / CIFAR10.filename
        if not check_integrity(archive, CIFAR10.tgz_md5):
            archive = partial / CIFAR10.filename
            _fetch(url, archive)
        shutil.unpack_archive(archive, partial, filter="data")
        if folder.exists():  # incomplete: other files in it stay
            for file in (partial / CIFAR10.base_folder).iterdir():
                file.replace(folder / file.name)
        else:
            (partial / CIFAR10.base_folder).rename(folder)
    except (OSError, HTTPException, ValueError) as error:
        kind: type[Exception] = OSError  # of the disk, then
        if isinstance(error, ConnectionError | URLError | TimeoutError | HTTPException):
            kind = ConnectionError
        elif isinstance(error, ValueError):
            kind = ValueError
        reason = error.reason if type(error) is URLError else error
        raise kind(
            f"CIFAR-10 is needed ({incomplete}), but the download from {url} to data.root={home} failed: {reason}. "
            f"{_WAY_OUT}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(url: str, archive: Path) -> None:
    """Raises ConnectionError for a download that ends early, ValueError for one that is not the official archive."""
    log.info("Downloading CIFAR-10 (%.0f MB) from %s.", ARCHIVE_BYTES / 1e6, url)
    try:
        response = urlopen(Request(url, headers={"User-Agent": "optbench"}), timeout=TIMEOUT)
    except HTTPError as error:
        with error:  # it holds the connection
            raise ConnectionError(f"the server answered {error.code} {error.reason}") from None
    with response, archive.open("wb") as file:
        promised = int(response.headers.get("Content-Length") or 0)
        with _progress(response, promised or ARCHIVE_BYTES) as source:
            shutil.copyfileobj(source, file)
    received = archive.stat().st_size
    if received < promised:
        raise ConnectionError(f"it was cut off after {received:,} of {promised:,} bytes")
    md5 = calculate_md5(archive)
    if md5 != CIFAR10.tgz_md5:
        raise ValueError(f"its md5 is {md5}, the official archive's is {CIFAR10.tgz_md5}")


def _progress(response: BinaryIO, total: int) -> AbstractContextManager[BinaryIO]:
    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext(response)
    return wrap_file(response, total, description="CIFAR-10", console=console)
