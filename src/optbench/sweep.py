"""What a sweep tells: a line as each run ends, and at the end a table, whatever became of its runs."""

import logging
import math
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
    from rich.console import Console
    from rich.table import Table

    from optbench.record import SUMMARY, RunRecord

    def run_number(path: Path) -> tuple[int, str]:
        number = path.parent.name.partition("_")[0]
        return (int(number) if number.isdecimal() else -1, path.parent.name)

    rows = Table(title=f"Runs of {folder.name}", title_justify="left")
    rows.add_column("run")
    rows.add_column("status")
    for name in ("val acc.", "test acc.", "test loss", "epochs", "seconds"):
        rows.add_column(name, justify="right")
    paths = sorted(folder.glob(f"*/{SUMMARY}"), key=run_number)
    for path in paths:
        try:
            record = RunRecord.read(path.parent)
        except ValueError as error:
            rows.add_row(path.parent.name, f"unreadable: {error}")
            continue
        values = (record.best.get("val/accuracy"), record.test.get("test/accuracy"), record.test.get("test/loss"))
        shown = ["-" if value is None or not math.isfinite(value) else f"{value:.4f}" for value in values]
        seconds = record.seconds.get("training", math.nan)
        rows.add_row(
            ", ".join(record.overrides) or "as configured",
            record.status,
            *shown,
            str(record.epochs),
            "-" if math.isnan(seconds) else f"{seconds:.1f}",
        )
    console = Console(soft_wrap=False)
    if paths:
        console.print(rows)
    console.print("val acc. is that of the best epoch by `monitor`; seconds are those of training.", style="dim")
    print(f"Everything lies in {folder}\nCurves: tensorboard --logdir {folder}")
