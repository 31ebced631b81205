"""The best weights and the last state of training, written once where they are the same."""

import os
from pathlib import Path

import pytorch_lightning as pl


class BestAndLast(pl.callbacks.ModelCheckpoint):
    """Lightning's ModelCheckpoint, which would write an epoch that is the best so far twice, as best and as last.

    The second file is a hard link to the first. Lightning replaces files and never writes into them, so neither changes
    with the other.
    """

    _written: tuple[int, str] = (-1, "")

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        step, path = self._written
        if step == trainer.global_step and path != filepath and trainer.world_size == 1 and link(path, filepath):
            self._last_checkpoint_saved = filepath
            return
        super()._save_checkpoint(trainer, filepath)
        self._written = (trainer.global_step, filepath)


def link(source: str, target: str) -> bool:
    """Replace `target` by a hard link to `source`; False where the file system has none."""
    temporary = Path(f"{target}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.hardlink_to(source)
        temporary.replace(target)
    except OSError:
        return False
    return True
