"""What a sweep tells: a line as each run ends, and at the end a table, whatever became of its runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger(__name__)
started: list[Path] = []  # the folder of this process's sweep, once it has begun


class SweepLines(Callback):
    """Hydra's hooks around a sweep. Hydra skips `on_multirun_end` when a run failed, hence `table`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        started.append(Path(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if started:
            log.info("[%s] %s", config.hydra.job.num, ", ".join(config.hydra.overrides.task) or "as configured")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if started and job_return.status == JobStatus.FAILED:
            from optbench.cli import sentence

            log.error("[%s] failed: %s", config.hydra.job.num, sentence(job_return._return_value))


@contextmanager
def table() -> Iterator[None]:
    """Print the table of this process's sweep, if there was one, when it ends or breaks off."""
    try:
        yield
    finally:
        if started and started[0].is_dir():
            print_table(started[0])


def print_table(folder: Path) -> None:
    """A row a run that has a record: what it varied, how it ended, accuracy and loss, seconds."""
    from optbench.record import SUMMARY, RunRecord
    from optbench.terminal import show

    def run_number(path: Path) -> tuple[int, str]:
        number = path.parent.name.partition("_")[0]
        return (int(number) if number.isdecimal() else -1, path.parent.name)

    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob(f"*/{SUMMARY}"), key=run_number):
        try:
            record = RunRecord.read(path.parent)
        except ValueError as error:
            log.error("%s", error)
            continue
        seconds = record.seconds.get("training")
        rows.append(
            {
                "run": record.overrides,
                "status": record.status,
                "val/accuracy": record.best.get("val/accuracy"),
                "test/accuracy": record.test.get("test/accuracy"),
                "test/loss": record.test.get("test/loss"),
                "epochs": record.epochs,
                "seconds": None if seconds is None else f"{seconds:.1f}",
            }
        )
    if rows:
        common = set.intersection(*(set(row["run"]) for row in rows)) if len(rows) > 1 else set()
        for row in rows:
            row["run"] = ", ".join(part for part in row["run"] if part not in common) or "as configured"
        show("The runs (val/accuracy of the best epoch by `monitor`; seconds of training)", rows)
    print(f"Everything lies in {folder}\nCurves: tensorboard --logdir {folder}")
