"""What a sweep prints: a line as each run ends and, however the sweep ends, the comparison of its runs."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from optbench.commands import caller
from optbench.commands.errors import explain
from optbench.commands.hydra_internals import compose_job, is_multirun, job_error, resolved_job
from optbench.commands.resume import check_sweep
from optbench.records.record import runs_in
from optbench.records.tuning import FINAL, TUNING
from optbench.records.wording import paragraph, resuming

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """What a command learns of the sweep that it runs, if it runs one."""

    folder: Path | None = None
    wants_comparison: bool = False


# Hydra makes SweepLines from its name, so it can't be given the Sweep of this command.
current: ContextVar[Sweep] = ContextVar("current")


class SweepLines(Callback):
    """Hydra's hooks around a sweep. Hydra skips `on_multirun_end` when a run failed, hence `conclude_sweep`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)

        def configuration(overrides: list[str], run: Path) -> Any:
            number = re.match(r"\d+", run.name)
            return resolved_job(compose_job(config, overrides, int(number[0]) if number else 0))

        try:
            check_sweep(folder, configuration)
        except ValueError as error:  # of which Hydra would make a warning
            print("\n" + paragraph(explain(error)), file=sys.stderr)
            sys.exit(1)
        sweep = current.get(Sweep())
        sweep.folder, sweep.wants_comparison = folder, config.compare is not False
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # or Ray takes one run's line for a repetition of another's
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # or it prints everything twice

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        caller.go_there()
        if is_multirun():
            log.info("[%s] %s", config.hydra.job.num, ", ".join(config.hydra.overrides.task) or "as configured")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if is_multirun() and (error := job_error(job_return)):
            log.error("[%s] failed: %s", config.hydra.job.num, explain(error))


@contextmanager
def conclude_sweep(compare: Callable[[Path], object], again: str = "python src/train.py -m") -> Iterator[None]:
    """Compare the runs of this command's sweep, if it runs one and `compare` is on, when it ends or breaks off.

    Of a tuning, compare its final runs, once there are some. `again` resumes it, with resume=<folder>.

    An error in the comparison is printed and does not change how the sweep ended.
    """
    sweep, complete = Sweep(), False
    before = current.set(sweep)
    try:
        yield
        complete = True
    finally:
        current.reset(before)
        folder = sweep.folder
        if folder is not None and any(runs_in(folder)):
            if sweep.wants_comparison and any(runs_in(folder / FINAL if (folder / TUNING).exists() else folder)):
                compare_or_explain(compare, folder)
            else:
                print(f"Everything is in {folder}")
            if not complete:
                print(f"To resume: {again} {resuming(folder)}")


def compare_or_explain(compare: Callable[[Path], object], folder: Path) -> None:
    try:
        compare(folder)
    except (Exception, KeyboardInterrupt) as error:
        why = "it was interrupted." if isinstance(error, KeyboardInterrupt) else explain(error)
        advice = f"To try again: python src/compare.py {shlex.quote(f'runs={folder}')}"
        print("\n" + paragraph(f"The runs are there, but not their comparison: {why} {advice}"), file=sys.stderr)
