"""All that leans on Lightning's internals: its loops' progress, its launcher's processes.

`tests/test_training_lightning_internals.py` names the version with which a part of it breaks.
"""

from subprocess import Popen
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
EPOCH, BATCH = "epoch_progress", "epoch_loop.batch_progress"  # what a checkpoint's loops count


def rank() -> int:
    """Which of the run's processes this is, known before there is a trainer."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


def batches_trained(trainer: pl.Trainer) -> int:
    """The number, from 0, of the batch that is being trained on, counted over all epochs."""
    return trainer.fit_loop.epoch_loop.total_batch_idx


def batches_done_before_restart(trainer: pl.Trainer | None) -> int:
    """How many batches of this epoch were trained before the run resumed inside it; 0 in every other epoch."""
    loop = trainer.fit_loop if trainer else None
    return loop.epoch_loop.batch_progress.current.completed if loop and loop.restarting else 0


def forget_restart(trainer: pl.Trainer) -> None:
    """At the end of an epoch within which it restarted, Lightning would leave the plateau schedule out."""
    if trainer.fit_loop.restarting:
        trainer.fit_loop.restarting = False


def logs_this_step(trainer: pl.Trainer) -> bool:
    """Whether Lightning passes what this step logs to the loggers: every `log_every_n_steps` steps."""
    return trainer._logger_connector.should_update_logs or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def skip_empty_hooks(trainer: pl.Trainer) -> None:
    """At each step Lightning calls every hook of every callback; a hook that is None it passes over."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for hook in STEP_HOOKS:
            if getattr(getattr(callback, hook), "__func__", None) is getattr(pl.Callback, hook):
                setattr(callback, hook, None)


def epochs_completed(trainer: pl.Trainer) -> int:
    return trainer.fit_loop.epoch_progress.current.completed


def count_completed_only(checkpoint: dict[str, Any], progress: str) -> None:
    """Undo what Lightning counts as it begins an epoch (EPOCH) or a step (BATCH): the checkpoint does not hold it.

    With '' nothing has begun: training has ended.
    """
    loops = checkpoint["loops"]["fit_loop"]
    if progress != BATCH:
        checkpoint["epoch"] = loops[EPOCH]["total"]["completed"] - 1  # the one that ended, from 0
    if progress:
        for counts in (loops[progress]["total"], loops[progress]["current"]):
            counts["ready"] = counts["completed"]
    if progress == BATCH:
        loops[BATCH]["is_last_batch"] = False


def epochs_of(checkpoint: dict[str, Any]) -> tuple[int, bool]:
    """How many epochs a checkpoint has trained, and whether it was taken within another one."""
    epochs = checkpoint["loops"]["fit_loop"][EPOCH]["total"]
    return epochs["processed"], epochs["started"] > epochs["processed"]


def starts_processes(trainer: pl.Trainer) -> bool:
    """Whether this process starts those of the run's other devices."""
    return hasattr(trainer.strategy.launcher, "procs")


def take_processes(trainer: pl.Trainer) -> list[Popen]:
    """The processes that Lightning has started since the last call.

    Lightning no longer watches them then: it would kill this process before this one can report the error.
    """
    launcher: Any = trainer.strategy.launcher
    processes = list(launcher.procs)
    launcher.procs.clear()
    return processes
