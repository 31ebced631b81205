"""The epochs of a run: one row for each, in metrics.csv, in the record and in checkpoints."""

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from optbench.distributed.ranks import is_first
from optbench.records.files import write_csv
from optbench.records.metrics import COLUMNS, column_order
from optbench.recovery.checkpoint import resumes


class EpochHistory(pl.Callback):
    """Keeps a row for each epoch that is complete, and the seconds; given a path, it writes metrics.csv.

    A row is complete when the next epoch begins or training ends: until then, Lightning may still add to its metrics.
    The test columns are empty, except in the row of the epoch whose weights were tested. Checkpoints hold rows and
    times: a resumed run continues both from where the checkpoint was made, and repeats neither a row nor a second.

    Attributes:
        path: of metrics.csv; None: no file.
        rows: `epoch` and `step` (both counted from 1), `seconds` of training so far, `epoch_seconds`, `lr` as the epoch
            began, then the metrics of train and val.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._began = time.perf_counter()
        self._before = dict.fromkeys(("startup", "training", "epoch"), 0.0)  # until the checkpoint
        self._lr = 0.0
        self._started: float | None = None  # when training began
        self._ended: tuple[int, int] | None = None  # epoch and step of the row that is not complete yet

    def seconds(self) -> dict[str, float]:
        """`startup` and `training`, once it has begun, and `total` until now, of all parts of the run together."""
        before, now = self._before, time.perf_counter()
        seconds = {"total": before["startup"] + before["training"] + now - self._began}
        if self._started is not None:
            seconds["startup"] = before["startup"] + self._started - self._began
            seconds["training"] = before["training"] + self._stopped - self._started
        return seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._stopped = time.perf_counter()
        self._epoch_started = self._started - self._before["epoch"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._complete_row(trainer.callback_metrics)
        self._epoch_started = time.perf_counter()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stopped = now = time.perf_counter()
        self._ended = trainer.current_epoch + 1, trainer.global_step
        values = {"seconds": self.seconds()["training"], "epoch_seconds": now - self._epoch_started, "lr": self._lr}
        precise = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
        pl_module.log_dict(precise, sync_dist=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._complete_row(trainer.callback_metrics)
        self._stopped = time.perf_counter()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stopped = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        self._stopped = now = time.perf_counter()
        times = {**self.seconds(), "epoch": now - self._epoch_started}
        return {"seconds": times, "lr": self._lr, "rows": self.rows}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not resumes(trainer):
            return
        state = checkpoint["callbacks"][self.state_key]
        self._before, self._lr, self.rows = state["seconds"], state["lr"], list(state["rows"])
        if self.rows:  # the file may have more, written by a run that was killed later
            self._write(self.rows)

    def _complete_row(self, metrics: Mapping[str, torch.Tensor]) -> None:
        if self._ended is None:
            return
        (epoch, step), self._ended = self._ended, None
        row = {key: rounded(float(value)) for key, value in metrics.items() if is_column(key)}
        row |= {"epoch": epoch, "step": step}
        self.rows.append({key: row[key] for key in sorted(row, key=column_order)})
        if len(self.rows) == 1:
            self._write(self.rows)
        elif self.path is not None and is_first():
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns(), lineterminator="\n").writerow(self.rows[-1])

    def _write(self, rows: Sequence[Mapping[str, float | None]]) -> None:
        if self.path is not None and is_first():
            write_csv(self.path, self._columns(), rows)

    def _columns(self) -> list[str]:
        columns = list(self.rows[0])
        return columns + ["test" + name[3:] for name in columns if name.startswith("val/")]

    def add_test(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Fill the test columns of the row of `epoch` (counted from 1)."""
        if not self.rows:
            return
        tested = {key: value for key, value in metrics.items() if key in self._columns()}
        self._write([{**row, **tested} if row["epoch"] == epoch else row for row in self.rows])


def is_column(key: str) -> bool:
    return key in COLUMNS or (key.startswith(("train/", "val/")) and not key.endswith("loss_step"))


def rounded(value: float) -> float:
    """As many digits as a float32 carries: 0.2395 instead of 0.2395000010728836."""
    return float(f"{value:.7g}")
