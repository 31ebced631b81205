"""What a run leaves behind in summary.json: its whole story. Reading one needs neither torch nor Lightning."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from optbench.records import metrics
from optbench.records.files import finite, write_atomically
from optbench.records.old_names import updated_choices, updated_configuration
from optbench.records.wording import resuming

SCHEMA_VERSION = 1
SUMMARY = "summary.json"
METRICS_CSV = "metrics.csv"
STATUSES = ("completed", "diverged", "failed", "interrupted", "running")
ENDED = STATUSES[:2]  # with a result: nothing is left to do


@dataclass
class RunRecord:
    """The content of summary.json.

    Attributes:
        status: `running`, then `completed`, `diverged`, `failed` or `interrupted`.
        final, best: the metrics of the last epoch and of the best one by `monitor`; `test`: those of the test set,
            read once with the weights that `tested` names (`checkpoint`, `epoch`).
        epochs, steps: completed.
        resumed: each time that the run resumed: `time`, and the `step` from which.
        seconds: `startup` (before the first step), `training` (with validation), `testing`, `total`; of a resumed run
            summed over all its parts, without work that was lost and repeated.
        targets: for each multiple of 0.05 that val/accuracy reached: the first `epoch`, `step` and `seconds`.
        hashes: SHA-256 of `code`, `data`, `split`, `initial_weights` and `batch_order`: equal in a fair comparison.
        device: what computed (its first process): `host`, `name`, `devices`, `threads`, the `cores` that it may use
            (`0-3,8`), `gpu` (a UUID), ….
        input: `shape` (C, H, W) of an image, and each channel's `scale` and `shift` from pixels to the network's input.
        parameters: `trainable`, and `statistics` that are not trained (BatchNorm's means and variances).
    """

    schema_version: int = SCHEMA_VERSION
    status: str = "running"
    started: str = ""
    resumed: list[dict[str, Any]] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    monitor: str = ""
    seed: int = 0
    final: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, float | None] = field(default_factory=dict)
    test: dict[str, float | None] = field(default_factory=dict)
    tested: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    diverged_at_step: int | None = None
    error: dict[str, str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    targets: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    input: dict[str, list] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    skipped_images: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    peak_memory_mb: dict[str, float] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    config: Any = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write summary.json whole or not at all."""
        write_atomically(folder / SUMMARY, json.dumps(finite(asdict(self)), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Read a run's summary.json.

        Raises:
            ValueError: where there is none, or it is not one that this version can read.
        """
        path = folder / SUMMARY
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder. Give a run's folder, for example logs/train/runs/<run>.")
        if not path.is_file():
            raise ValueError(
                f"{folder} is no run: it has no {SUMMARY}. Give a run's folder, for example logs/train/runs/<run>."
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a run's record ({type(error).__name__}: {error}).") from error
        if found != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {found}; this OptBench reads version {SCHEMA_VERSION}.")
        known = cls.__dataclass_fields__
        record = cls(**{key: value for key, value in content.items() if key in known})
        record.config = updated_configuration(record.config)
        record.choices = updated_choices(record.choices)
        return record

    @property
    def commit(self) -> str:
        """Ten digits, with a + where the code was changed and not committed; '' where there was no git."""
        return str(self.git.get("commit") or "")[:10] + ("+" if self.git.get("dirty") else "")

    def objective(self) -> float:
        """The best value of `monitor`, for sweepers that search; infinitely bad for a run that did not complete."""
        value = self.best.get(self.monitor) if self.status == "completed" else None
        worst = float("inf") if metrics.sign(self.monitor) < 0 else -float("inf")
        return worst if value is None else value

    def fail(self, error: BaseException) -> None:
        """Note how the run ended before its end."""
        self.status = "failed"
        text = "".join(traceback.format_exception(error))
        self.error = {"type": type(error).__name__, "message": str(error), "traceback": text}

    def take_epochs(self, rows: Sequence[dict[str, float]]) -> None:
        """Fill `final`, `best`, `epochs`, `steps` and `targets` from the rows of metrics.csv."""
        self.targets = {}
        if not rows:
            return
        self.epochs, self.steps = int(rows[-1]["epoch"]), int(rows[-1]["step"])
        self.final = dict(rows[-1])
        monitored = [row for row in rows if isfinite(row.get(self.monitor, float("nan")))]
        if monitored:
            best = max(monitored, key=lambda row: metrics.sign(self.monitor) * row[self.monitor])
            self.best = dict(best)
        for target in (percent / 100 for percent in range(5, 100, 5)):
            reached = next((row for row in rows if row.get("val/accuracy", 0.0) >= target), None)
            if reached:
                self.targets[f"{target:.2f}"] = {key: reached[key] for key in ("epoch", "step", "seconds")}


def has_result(folder: Path) -> bool:
    """Whether the run in this folder has a result. Divergence is one; a run with a broken record reports it itself."""
    try:
        return (folder / SUMMARY).is_file() and RunRecord.read(folder).status in ENDED
    except ValueError:
        return False


def runs_in(folder: Path) -> list[Path]:
    """The records of a sweep's runs, or of those of a tuning, whose phases have folders of their own."""
    return sorted([*folder.glob(f"*/{SUMMARY}"), *folder.glob(f"*/*/{SUMMARY}")])


def refuse_used_folder(folder: Path) -> None:
    """Raises ValueError where `folder` holds a run, unless it failed before its first step: nothing is lost there."""
    if not (folder / SUMMARY).is_file():
        return
    try:
        record = RunRecord.read(folder)
        lost = record.status != "failed" or record.steps > 0
    except ValueError:
        lost = True
    if lost:
        raise ValueError(
            f"{folder} holds a run already: {resuming(folder)} resumes it. To start a new run, give a different "
            "hydra.run.dir, or leave it out."
        )
