"""What a run leaves behind: summary.json, its whole story, and metrics.csv, one row an epoch."""

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

SCHEMA_VERSION = 1
SUMMARY = "summary.json"
METRICS = "metrics.csv"
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")


@dataclass
class RunRecord:
    """The content of summary.json.

    Attributes:
        status: `running`, then `completed`, `diverged`, `failed` or `interrupted`.
        final, best: the metrics of the last epoch and of the best one by `monitor`; `test`: those of the test set,
            read once with the weights that `tested` names (`checkpoint`, `epoch`).
        epochs, steps: completed.
        seconds: `startup` (before the first step), `training` (with validation), `testing`, `total`.
        targets: for each multiple of 0.05 that val/accuracy reached: the first `epoch`, `step` and `seconds`.
        hashes: SHA-256 of `data`, `split`, `initial_weights` and `batch_order`: what a fair comparison shares.
        input: `shape` (C, H, W) of an image, and each channel's `scale` and `shift` from pixels to the network's input.
        parameters: `trainable`, and `statistics` that are not trained (BatchNorm's means and variances).
    """

    schema_version: int = SCHEMA_VERSION
    status: str = "running"
    started: str = ""
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
            content = json.loads(path.read_text())
            found = content["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a run's record ({type(error).__name__}: {error}).") from error
        if found != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {found}; this OptBench reads version {SCHEMA_VERSION}.")
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in content.items() if key in known})

    def fail(self, error: BaseException) -> None:
        """Note how the run ended before its end."""
        self.status = "failed"
        text = "".join(traceback.format_exception(error))
        self.error = {"type": type(error).__name__, "message": str(error), "traceback": text}

    def take_epochs(self, rows: Sequence[dict[str, float]], lower_is_better: bool) -> None:
        """Fill `final`, `best`, `epochs`, `steps` and `targets` from the rows of metrics.csv."""
        if not rows:
            return
        self.epochs, self.steps = int(rows[-1]["epoch"]), int(rows[-1]["step"])
        self.final = dict(rows[-1])
        monitored = [row for row in rows if isfinite(row.get(self.monitor, float("nan")))]
        if monitored:
            sign = 1 if lower_is_better else -1
            best = min(monitored, key=lambda row: sign * row[self.monitor])
            self.best = dict(best)
        for target in (percent / 100 for percent in range(5, 100, 5)):
            reached = next((row for row in rows if row.get("val/accuracy", 0.0) >= target), None)
            if reached:
                self.targets[f"{target:.2f}"] = {key: reached[key] for key in ("epoch", "step", "seconds")}


def finite(value: Any) -> Any:
    """JSON has no nan and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class MetricsCSV(Logger):
    """A Lightning logger that keeps one row an epoch and, given a path, writes it to metrics.csv.

    Lightning logs an epoch in parts and the training metrics last: with them the row is complete. The test columns stay
    empty but in the row of the epoch whose weights were tested.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.path = Path(path) if path else None
        self.rows: list[dict[str, float]] = []
        self._row: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """summary.json has the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(key.startswith("test/") for key in metrics):
            return
        self._row |= {key: shortened(float(value)) for key, value in metrics.items() if self._is_column(key)}
        if "train/loss" not in metrics:
            return
        assert step is not None
        # Lightning counts both from 0; a reader counts epochs and steps that are done
        row = {**self._row, "epoch": int(self._row["epoch"]) + 1, "step": step + 1}
        self.rows.append({key: row[key] for key in sorted(row, key=column_order)})
        self._row = {}
        if self.path is None:
            return
        if len(self.rows) == 1:
            write_csv(self.path, self._columns(), [])
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns(), lineterminator="\n").writerow(self.rows[-1])

    @staticmethod
    def _is_column(key: str) -> bool:
        group = key.split("/")[0]
        return group in ("epoch", "seconds", "epoch_seconds", "lr", "train", "val") and not key.endswith("loss_step")

    def _columns(self) -> list[str]:
        columns = list(self.rows[0])
        return columns + ["test" + name[3:] for name in columns if name.startswith("val/")]

    @rank_zero_only
    def add_test(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Fill the test columns of the row of `epoch` (counted from 1)."""
        if self.path is None or not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or []), list(reader)
        for row in rows:
            if int(float(row["epoch"])) == epoch:
                row |= {key: str(value) for key, value in metrics.items() if key in columns}
        write_csv(self.path, columns, rows)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def shortened(value: float) -> float:
    """As many digits as a float32 carries: 0.2395 instead of 0.2395000010728836."""
    return float(f"{value:.7g}")


def column_order(key: str) -> tuple[int, int, str]:
    """Epoch, step, times, rate; then train and val; classes after the metrics over all classes."""
    first = ("epoch", "step", "seconds", "epoch_seconds", "lr")
    return (first.index(key) if key in first else len(first), key.count("/"), "" if key in first else key)


class Stopwatch(pl.Callback):
    """Logs, beside each epoch's metrics, the seconds of training so far, those of the epoch, and the learning rate."""

    started: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = self.stopped = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_started = time.perf_counter()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.started is not None
        self.stopped = now = time.perf_counter()
        values = {"seconds": now - self.started, "epoch_seconds": now - self._epoch_started, "lr": self._lr}
        pl_module.log_dict({key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stopped = time.perf_counter()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.stopped = time.perf_counter()


def weights_sha256(net: nn.Module) -> str:
    """A hash of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def count_parameters(net: nn.Module) -> dict[str, int]:
    return {
        "trainable": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "statistics": sum(b.numel() for b in net.buffers() if b.is_floating_point()),
    }


def reset_peak_memory() -> None:
    """Let `peak_memory_mb` begin anew, so that a run of a sweep does not show the peak of the run before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux, proc(5): 5 sets VmHWM to what is resident now
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak memory of this process (resident) and of its GPU since `reset_peak_memory`, in 10^6 bytes.

    Where the system can't begin anew, `process` is missing.
    """
    peak = {}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(line for line in lines if line.startswith("VmHWM:"))
        peak["process"] = round(int(resident.split()[1]) * 1024 / 1e6, 1)
    if device.type == "cuda":
        peak["gpu"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return peak


def describe_device(trainer: pl.Trainer) -> dict[str, Any]:
    """What computed: enough to tell which times may be compared."""
    root = trainer.strategy.root_device
    return {
        "host": platform.node(),
        "accelerator": root.type,
        "name": torch.cuda.get_device_name(root) if root.type == "cuda" else cpu_name(),
        "devices": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def describe_git(project: Path) -> dict[str, Any]:
    """Commit and whether tracked files differ from it; empty where there is no git."""
    git = ["git", "-C", str(project)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "dirty": bool(status.stdout.strip())}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
