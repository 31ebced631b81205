"""What a person sees of a pool: a line as each run ends and, in a terminal, a live table of those that run."""

import csv
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optbench.commands.terminal import cell
from optbench.pool.processes import LOG, Run
from optbench.records.record import METRICS_CSV, RunRecord
from optbench.records.wording import plural, seconds


class Display:
    """Tells of the runs of a sweep: `with Display(12) as display:`."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.done = self.failed = 0
        self.began = time.monotonic()
        self.looked = 0.0
        self.live: Live | None = None

    def __enter__(self) -> "Display":
        if sys.stdout.isatty():
            # no refreshing thread beside the one that starts processes
            self.live = Live(console=Console(), auto_refresh=False, transient=True)
            self.live.start()
            self.live.update("Loading PyTorch and the images, once for all runs …", refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line above the table, which replaces stdout while it is shown."""
        print(text, flush=True)

    def started(self, run: Run) -> None:
        """The table shows it at the next look."""

    def ended(self, run: Run) -> None:
        self.done += 1
        self.failed += run.failed
        self.say(
            f"{self.done:{len(str(self.jobs))}} of {self.jobs}  [{run.job.number}] {run.job.title}: {outcome(run)}"
        )

    def look(self, running: list[Run], waiting: int) -> None:
        now = time.monotonic()
        if self.live and now - self.looked > 1:
            self.looked = now
            self.live.update(self.table(running, waiting), refresh=True)

    def table(self, running: list[Run], waiting: int) -> Table:
        elapsed = time.monotonic() - self.began
        rows = [(run, last_row(run.job.folder)) for run in running]
        parts = {"done": self.done - self.failed, "failed": self.failed, "running": len(rows), "waiting": waiting}
        title = ", ".join(f"{count} {word}" for word, count in parts.items() if count or word == "done")
        title += f" of {plural(self.jobs, 'run')}; {seconds(round(elapsed))}"
        progress = self.done + sum(fraction_done(run, row) for run, row in rows)
        if progress:
            title += f", about {seconds(round(elapsed * (self.jobs - progress) / progress))} left"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", justify="right")
        table.add_column("overrides", overflow="ellipsis", no_wrap=True)
        table.add_column("device", no_wrap=True)
        for column in ("epoch", " / ".join(sorted({run.job.monitor for run, _ in rows})), "elapsed"):
            table.add_column(column, justify="right", no_wrap=True)
        room = (self.live.console.height if self.live else 1000) - 6  # beside title, head and what is not shown
        for run, row in rows[:room]:
            epoch, value = row.get("epoch", "-"), number(row.get(run.job.monitor, ""))
            of = f"{epoch}/{run.job.epochs}" if run.job.epochs else epoch
            table.add_row(
                str(run.job.number), Text(run.job.title), run.place, of, cell(value), seconds(round(run.elapsed))
            )
        if len(rows) > room:
            table.add_row("", f"and {len(rows) - room} more")
        return table


def outcome(run: Run) -> str:
    """`completed in 12.3 s, val/loss 1.2345, test/accuracy 0.5321`, `diverged in 3.1 s`, `failed: killed by SIGBUS.`"""
    if run.failed:
        return f"failed: {why_failed(run)}"
    if run.status:
        return f"{run.stopped}."
    took = f"in {seconds(run.elapsed)}"
    try:
        record = RunRecord.read(run.job.folder)
    except ValueError:  # a command that keeps no record
        return f"ended {took}"
    metrics = {record.monitor: record.best.get(record.monitor), "test/accuracy": record.test.get("test/accuracy")}
    shown = [f", {name} {cell(value)}" for name, value in metrics.items() if value is not None]
    return f"{record.status} {took}{''.join(shown)}"


def why_failed(run: Run) -> str:
    """A sentence: the last paragraph of what it printed, where it ended by itself."""
    assert run.status is not None
    if run.timed_out:
        return f"{run.stopped}."
    if run.status < 0:
        name = signal.Signals(-run.status).name
        last = last_line(run.job.folder)
        why = f"killed by {name}" + ", possibly out of memory" * (name == "SIGKILL")
        return f"{why}; its last line: {last}" if last else f"{why}."
    printed = tail(run.job.folder / LOG).strip()
    paragraph = " ".join(printed.rpartition("\n\n")[2].split())[-500:]
    return paragraph or f"exit status {run.status}, and nothing printed."


def last_line(folder: Path) -> str:
    """What a run last printed, or if that is nothing, what it last logged."""
    logs = [folder / LOG, *(path for path in sorted(folder.glob("*.log")) if path.name != LOG)]
    return next((text.rpartition("\n")[2] for path in logs if (text := tail(path).strip())), "")


def fraction_done(run: Run, row: Mapping[str, str]) -> float:
    """The fraction of its epochs that a run has done; 0 where that is not known."""
    return (number(row.get("epoch", "")) or 0.0) / run.job.epochs if run.job.epochs else 0.0


def last_row(folder: Path) -> dict[str, str]:
    """The last whole row of a run's metrics.csv, or nothing."""
    path = folder / METRICS_CSV
    try:
        with path.open(encoding="utf-8") as file:
            header = file.readline()
    except OSError:  # there is none yet, or the disk has lost it for a moment
        return {}
    lines = tail(path).rpartition("\n")[0].splitlines()  # what comes after is being written
    if len(lines) < 2:
        return {}
    return next(csv.DictReader([header, lines[-1]]), {})


def tail(path: Path, size: int = 20_000) -> str:
    """The last bytes of a file, however long it is; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
