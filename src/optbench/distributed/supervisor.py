"""The processes of a run on several devices end together: when one fails, the first ends all of them."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytorch_lightning as pl

from optbench.commands.errors import explain
from optbench.distributed.ranks import is_first
from optbench.records.record import RunRecord
from optbench.records.wording import paragraph
from optbench.training.lightning_internals import starts_processes, take_processes


class ProcessFailed(ValueError):
    """The process of another device failed."""


@contextmanager
def supervise_ranks(trainer: pl.Trainer, folder: Path) -> Iterator[None]:
    """In the first process: when one fails, end all of them.

    Raises:
        ProcessFailed: instead of the broken connection, which is all that the first process sees of another's failure.
    """
    if not (is_first() and starts_processes(trainer)):
        yield
        return
    others: list[Popen] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            last_look = over.wait(0.2)
            others.extend(take_processes(trainer))
            if last_look:
                return
            failed = failure_of(others, folder)
            if failed and not over.wait(5):  # NCCL never reports that a process is gone
                record = RunRecord.read(folder)
                record.fail(failed)
                record.write(folder)
                end(others)
                print("\n" + paragraph(explain(failed)), file=sys.stderr, flush=True)
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
    """The error of the first process that ended with one, as its record in `folder` has it."""
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
