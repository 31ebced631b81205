"""metrics.csv: a row an epoch, with the times beside the metrics."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from optbench.checkpoint import resumes
from optbench.record import write_csv


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

    @rank_zero_only
    def go_on(self, rows: list[dict[str, float]]) -> None:
        """After these rows, whatever a run that was killed had written by then."""
        self.rows = list(rows)
        if self.path is not None and self.rows:
            write_csv(self.path, self._columns(), self.rows)

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


def shortened(value: float) -> float:
    """As many digits as a float32 carries: 0.2395 instead of 0.2395000010728836."""
    return float(f"{value:.7g}")


def column_order(key: str) -> tuple[int, int, str]:
    """Epoch, step, times, rate; then train and val; classes after the metrics over all classes."""
    first = ("epoch", "step", "seconds", "epoch_seconds", "lr")
    return (first.index(key) if key in first else len(first), key.count("/"), "" if key in first else key)


class Stopwatch(pl.Callback):
    """Logs, beside each epoch's metrics, the seconds of training so far, those of the epoch, and the learning rate.

    It takes times and the rows of `history` along in checkpoints: a resumed run goes on counting where the checkpoint
    was made, and repeats neither a row nor a second.
    """

    def __init__(self) -> None:
        self.history = MetricsCSV()
        self._began = time.perf_counter()
        self._before = dict.fromkeys(("startup", "training", "epoch"), 0.0)  # until the checkpoint
        self._lr = 0.0
        self._started: float | None = None

    def seconds(self) -> dict[str, float]:
        """`startup` and `training`, once it has begun, and `total` until now, of all parts of the run together."""
        before, now = self._before, time.perf_counter()
        seconds = {"total": before["startup"] + before["training"] + now - self._began}
        if self._started is not None:
            seconds["startup"] = before["startup"] + self._started - self._began
            seconds["training"] = before["training"] + self._stopped - self._started
        return seconds

    def state_dict(self) -> dict[str, Any]:
        self._stopped = now = time.perf_counter()
        times = {**self.seconds(), "epoch": now - self._epoch_started}
        return {"seconds": times, "lr": self._lr, "rows": self.history.rows}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if resumes(trainer):
            state = checkpoint["callbacks"][self.state_key]
            self._before, self._lr = state["seconds"], state["lr"]
            self.history.go_on(state["rows"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._stopped = time.perf_counter()
        self._epoch_started = self._started - self._before["epoch"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_started = time.perf_counter()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stopped = now = time.perf_counter()
        values = {"seconds": self.seconds()["training"], "epoch_seconds": now - self._epoch_started, "lr": self._lr}
        precise = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
        pl_module.log_dict(precise, sync_dist=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stopped = time.perf_counter()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stopped = time.perf_counter()
