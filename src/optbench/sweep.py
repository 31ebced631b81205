"""What a sweep tells: a line as each run ends, and at the end the comparison, whatever became of its runs."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from optbench.record import SUMMARY

log = logging.getLogger(__name__)
started: list[tuple[Path, bool]] = []  # this process's sweep, once it has begun: its folder, and whether to compare


class SweepLines(Callback):
    """Hydra's hooks around a sweep. Hydra skips `on_multirun_end` when a run failed, hence `conclusion`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        started.append((Path(config.hydra.sweep.dir), config.compare is not False))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if started:
            log.info("[%s] %s", config.hydra.job.num, ", ".join(config.hydra.overrides.task) or "as configured")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if started and job_return.status == JobStatus.FAILED:
            from optbench.cli import sentence

            log.error("[%s] failed: %s", config.hydra.job.num, sentence(job_return._return_value))


@contextmanager
def conclusion(compare: Callable[[Path], object]) -> Iterator[None]:
    """Compare the runs of this process's sweep, if there was one and `compare` is on, when it ends or breaks off.

    Whatever goes wrong there is told and changes nothing of how the sweep ended.
    """
    try:
        yield
    finally:
        folder, wanted = started[0] if started else (Path(), False)
        runs_there = started and any(folder.glob(f"*/{SUMMARY}"))
        if runs_there and not wanted:
            print(f"Everything lies in {folder}")
        elif runs_there:
            try:
                compare(folder)
            except (Exception, KeyboardInterrupt) as error:
                from optbench.cli import paragraph, sentence

                why = "it was interrupted." if isinstance(error, KeyboardInterrupt) else sentence(error)
                advice = f"python src/compare.py runs={folder} tries again"
                print(
                    "\n" + paragraph(f"The runs are there, but not their comparison: {why} {advice}."), file=sys.stderr
                )
