"""The real code against small archives in the official format, served by a web server on 127.0.0.1."""

import hashlib
import io
import logging
import pickle
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from optbench.data import cifar10
from optbench.data.cifar10 import read_cifar10

CLASSES = ("airplane", "automobile", "bird")
PER_BATCH = 4
WAYS_OUT = ("data=shapes", "data.root=<folder that holds cifar-10-batches-py>", "data.url=<mirror of ")
FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


PythonPickler: Any = pickle._Pickler  # the C one cannot be told how to write strings


class Python2Pickler(PythonPickler):
    """Strings and dtypes as in the official files; the odd `copy=2` makes every NumPy >= 2.4 warn, not just some."""

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, bytes):
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        else:
            super().save(value, save_persistent_id)

    def reducer_override(self, value: object) -> Any:
        return (np.dtype, ("u1", 0, 2)) if isinstance(value, np.dtype) else NotImplemented


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(FILES.index(name)).integers(0, 256, (PER_BATCH, 3072), np.uint8)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    contents = {
        name: pickled({
            b"batch_label": name.encode(), b"labels": [(i + place) % 3 for i in range(PER_BATCH)],
            b"data": pixels(name), b"filenames": [b"x.png"] * PER_BATCH,
        })
        for place, name in enumerate(FILES)
    }  # fmt: skip
    contents["batches.meta"] = pickled({b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(cifar10, "IMAGES_PER_BATCH", PER_BATCH)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in FILES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Answers every request with `status`, `sent` and, as the length it promises, `promised`."""

    status, sent, promised, delay = 200, b"", 0, 0.0
    requests = 0

    def serve(self, sent: bytes, status: int = 200, promised: int | None = None, delay: float = 0.0) -> str:
        self.sent, self.status, self.delay = sent, status, delay
        self.promised = len(sent) if promised is None else promised
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.promised))
        self.end_headers()
        time.sleep(self.server.delay)
        self.wfile.write(self.server.sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def left_in(root: Path) -> list[str]:
    """What a run left behind, but for the lock file."""
    return sorted(path.name for path in root.iterdir() if path.name != ".cifar-10.lock") if root.exists() else []


def test_download_then_start_without_a_server(archive: bytes, server: Server, tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    images = read_cifar10(str(root), server.serve(archive))
    assert images.train_images.shape == (20, 3, 32, 32) and images.test_images.shape == (4, 3, 32, 32)
    assert images.train_images.dtype == torch.uint8 and images.train_labels.dtype == torch.int64
    assert images.train_images.is_contiguous()
    expected = np.concatenate([pixels(name) for name in FILES[:5]]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images.train_images.numpy(), expected)
    assert np.array_equal(images.test_images.numpy(), pixels("test_batch").reshape(-1, 3, 32, 32))
    assert images.train_labels.tolist() == [(i + place) % 3 for place in range(5) for i in range(4)]
    assert images.test_labels.tolist() == [2, 0, 1, 2]
    assert images.classes == CLASSES
    assert left_in(root) == ["cifar-10-batches-py"]

    server.serve(b"", status=500)
    assert read_cifar10(str(root)).sha256 == images.sha256
    assert read_cifar10(str(root / "cifar-10-batches-py"), "http://127.0.0.1:1/").sha256 == images.sha256
    assert server.requests == 1


def test_warm_start_writes_nothing(archive: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(archive)
    with tarfile.open(tmp_path / "cifar.tar.gz") as tar:
        tar.extractall(tmp_path / "data", filter="data")
    before = sorted(tmp_path.rglob("*"))
    assert len(read_cifar10(str(tmp_path / "data")).train_images) == 20
    assert sorted(tmp_path.rglob("*")) == before


def test_file_url(archive: bytes, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror of cifar.tar.gz"
    mirror.write_bytes(archive)
    assert len(read_cifar10(str(tmp_path / "data"), mirror.as_uri()).train_images) == 20
    assert left_in(tmp_path / "data") == ["cifar-10-batches-py"] and mirror.read_bytes() == archive
    with pytest.raises(ConnectionError, match=r"file:///none/cifar-10-python.tar.gz .* No such file"):
        read_cifar10(str(tmp_path / "other"), "file:///none/cifar-10-python.tar.gz")


def test_an_archive_in_root_is_used(archive: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    assert len(read_cifar10(str(tmp_path), server.serve(b"", 404)).train_images) == 20
    assert server.requests == 0
    assert left_in(tmp_path) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        ({"status": 404}, ConnectionError, "the server answered 404 Not Found"),
        ({"cut": True}, ConnectionError, r"it was cut off after [\d,]+ of [\d,]+ bytes"),
        ({"damage": True}, ValueError, r"its md5 is \w{32}, the official archive's is \w{32}"),
        ({"delay": 0.5}, ConnectionError, "timed out"),
    ],
    ids=["404", "cut off", "wrong checksum", "silent server"],
)
def test_download_that_fails_leaves_nothing(
    archive: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any], kind: type[Exception], reason: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(cifar10, "TIMEOUT", 0.1)
    cut, damage = answer.pop("cut", False), answer.pop("damage", False)
    sent = archive[: len(archive) // 2] if cut else archive[:-1] + b"x" if damage else archive
    url = server.serve(sent, promised=len(archive), **answer)
    with pytest.raises(kind, match=reason) as caught:
        read_cifar10(str(tmp_path / "data"), url)
    message = str(caught.value)
    assert url in message and f"data.root={tmp_path / 'data'}" in message and "\n" not in message
    assert all(way in message for way in WAYS_OUT)
    assert left_in(tmp_path / "data") == []

    assert len(read_cifar10(str(tmp_path / "data"), server.serve(archive)).train_images) == 20


def test_connection_refused(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(CIFAR10, "url", url)
    with pytest.raises(ConnectionError, match=rf"from {url} .*Connection refused") as caught:
        read_cifar10(str(tmp_path))
    assert all(way in str(caught.value) for way in WAYS_OUT)
    assert left_in(tmp_path) == []


def test_leftovers_of_a_killed_run(archive: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive[:100])  # torchvision's, under the final name
    (tmp_path / ".cifar-10.partial" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / ".cifar-10.partial" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    assert len(read_cifar10(str(tmp_path), server.serve(archive)).train_images) == 20
    assert left_in(tmp_path) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_kill_during_the_download(
    archive: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cifar10.shutil, "unpack_archive", killed)
        with pytest.raises(KeyboardInterrupt):
            read_cifar10(str(tmp_path), server.serve(archive))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_incomplete_folder_is_completed(archive: bytes, server: Server, tmp_path: Path, name: str, damage: str) -> None:
    read_cifar10(str(tmp_path), server.serve(archive))
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "notes.txt").write_text("mine")
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"x")
    with pytest.raises(ConnectionError, match=f"{folder / name} is {damage}"):
        read_cifar10(str(tmp_path), server.serve(b"", status=503))
    assert len(read_cifar10(str(tmp_path), server.serve(archive)).train_images) == 20
    assert (folder / "notes.txt").read_text() == "mine"
    assert left_in(tmp_path) == ["cifar-10-batches-py"]


def test_a_strange_pickle_is_not_executed(archive: bytes, server: Server, tmp_path: Path) -> None:
    read_cifar10(str(tmp_path), server.serve(archive))
    target = tmp_path / "executed"
    malicious = f"cpathlib\nPath\n(V{target}\ntRp0\n0cpathlib\nPath.touch\n(g0\ntR.".encode()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(malicious)
    with pytest.raises(ConnectionError):
        read_cifar10(str(tmp_path), server.serve(b"", status=404))
    assert not target.exists()


def test_two_at_once_download_once(archive: bytes, server: Server, tmp_path: Path) -> None:
    url = server.serve(archive, delay=0.2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: read_cifar10(str(tmp_path), url), range(2))
    assert first.sha256 == second.sha256 and server.requests == 1
    assert left_in(tmp_path) == ["cifar-10-batches-py"]


def test_what_is_said_without_a_terminal(
    archive: bytes, server: Server, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url = server.serve(archive)
    with caplog.at_level(logging.INFO):
        read_cifar10(str(tmp_path), url)
    assert f"Downloading CIFAR-10 (170 MB) from {url}." in caplog.messages
    assert capfd.readouterr() == ("", "")


def test_root_that_cannot_be_used(archive: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match=f"data.root={file} is a file"):
        read_cifar10(str(file))
    with pytest.raises(OSError, match=f"data.root={file}/below cannot be written: .*Not a directory.*data=shapes"):
        read_cifar10(str(file / "below"))
    with pytest.raises(ValueError, match=r"data.root is empty"):
        read_cifar10("")


def test_full_disk(archive: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cifar10.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=f"data.root={tmp_path} failed: .*No space left") as caught:
        read_cifar10(str(tmp_path), server.serve(archive))
    assert not isinstance(caught.value, ConnectionError)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("url", ["/data/cifar-10-python.tar.gz", "ftp://127.0.0.1/cifar-10-python.tar.gz", ""])
def test_url_of_another_kind(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=rf"data.url={url} must start with http://, https:// or file://"):
        read_cifar10(str(tmp_path), url)
