"""The processes of a run on several devices: the first speaks and writes for all, and they end together."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from optbench.cli import paragraph, sentence
from optbench.record import RunRecord
from optbench.resume import ENDED

log = logging.getLogger(__name__)


class ProcessFailed(ValueError):
    """The process of another device failed."""


def rank() -> int:
    """Which of the run's processes this is, known before there is a trainer."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


def mute_others() -> None:
    """Every process would say what the first one says."""
    if rank():
        logging.disable()
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def write(record: RunRecord, folder: Path) -> None:
    """The first process writes; of another only its failure is news, which lies there before the first one notices.

    A record that can't be written must not hide why the run ended.
    """
    if rank() and record.status != "failed":
        return
    try:
        record.write(folder)
    except OSError as error:
        if record.status in ("running", *ENDED):
            raise
        log.error("summary.json could not be written (%s): it still says that the run is running.", error.strerror)


@contextmanager
def together(trainer: pl.Trainer, folder: Path) -> Iterator[None]:
    """In the first process: when one fails, end all of them.

    Raises:
        ProcessFailed: instead of the broken connection, which is all that the first process sees of another's failure.
    """
    launcher: Any = trainer.strategy.launcher
    if rank() or not hasattr(launcher, "procs"):
        yield
        return
    others: list[Popen] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            last_look = over.wait(0.2)
            others.extend(launcher.procs)
            launcher.procs.clear()  # Lightning's own watch kills this process before it can tell anything
            if last_look:
                return
            failed = failure_of(others, folder)
            if failed and not over.wait(5):  # NCCL never tells that a process is gone
                record = RunRecord.read(folder)
                record.fail(failed)
                record.write(folder)
                end(others)
                print("\n" + paragraph(sentence(failed)), file=sys.stderr, flush=True)
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        over.set()
        watcher.join()
        failed, patience = None, time.monotonic() + 2
        while isinstance(error, Exception) and not failed and time.monotonic() < patience:
            time.sleep(0.1)
            failed = failure_of(others, folder)
        end(others)
        if failed and str(error) not in str(failed):  # else they all failed alike
            raise failed from error
        raise
    finally:
        over.set()


def failure_of(processes: Sequence[Popen], folder: Path) -> ProcessFailed | None:
    """The error of the first process that ended with one, as it stands in the record that it left in `folder`."""
    for number, process in enumerate(processes, 1):
        if not process.poll():
            continue
        error = RunRecord.read(folder).error
        if error is None:
            return ProcessFailed(f"The process of device {number} ended with status {process.returncode}.")
        failed = ProcessFailed(f"The process of device {number} failed. {error['type']}: {error['message']}")
        failed.add_note(error["traceback"])
        return failed
    return None


def end(processes: Sequence[Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()
