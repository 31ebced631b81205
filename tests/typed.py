"""Commands as typed, each in a process of its own, which is forked from one that has loaded everything already.

A fresh Python takes seconds to import torch and Lightning; a copy of the one below has them at once. What a command
reads, prints and leaves, its signals and its exit status are those of a process that a person's shell starts.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
FORKS = multiprocessing.get_context("forkserver")


def draw_images() -> None:
    """Those of conftest.SMALL, for all runs of this process and of what is forked from it."""
    from optbench.training import build

    source = {"train_size": 300, "test_size": 60, "shapes_seed": 0}
    batches = {"batch_size": 50, "val_size": 0.1, "split_seed": 0, "order_seed": 0, "normalization": "symmetric"}
    build.read_ahead({"_target_": "optbench.data.datamodule.ShapesDataModule", **source, **batches})


class Process:
    """A command that runs; what it prints is in two files of `folder`, until `result` has read them.

    `place` has `cwd` and `env`, as subprocess has them.
    """

    def __init__(self, target: Callable[..., object], *arguments: Any, folder: Path, **place: Any) -> None:
        self.printed = [folder / f"printed.{os.urandom(4).hex()}.{stream}" for stream in ("out", "err")]
        self.process = FORKS.Process(
            target=alone, args=(target, arguments, self.printed), kwargs={"env": dict(os.environ), **place}
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def wait(self, timeout: float | None = 300) -> int:
        """The exit status; minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def result(self, timeout: float | None = 300) -> subprocess.CompletedProcess[str]:
        status = self.wait(timeout)
        out, err = (path.read_text(errors="replace") for path in self.printed)
        for path in self.printed:
            path.unlink()
        return subprocess.CompletedProcess([], status, out, err)


def script(name: str, *arguments: str, folder: Path, **place: Any) -> Process:
    """`python src/<name>.py <arguments>`."""
    return Process(run_script, str(PROJECT / "src" / f"{name}.py"), arguments, folder=folder, **place)


def run_script(path: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")


def alone(
    target: Callable[..., object],
    arguments: tuple[Any, ...],
    printed: list[Path],
    env: Mapping[str, str],
    cwd: Path = PROJECT,
) -> None:
    """In the new process: its own session, folder, environment and files, as a shell would give them."""
    os.setsid()
    for number, path in enumerate(printed, 1):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    target(*arguments)
