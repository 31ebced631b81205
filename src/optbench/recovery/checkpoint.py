"""Checkpoints: written whole or not at all, read as plain tensors only, and only if they are whole and fit."""

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from optbench.records.files import replacing
from optbench.records.old_names import updated_checkpoint
from optbench.records.wording import first_line

log = logging.getLogger(__name__)


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # where the disk is full, torch says that its archive has a wrong length
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), "ckpt_path")


def keep_previous(path: Path) -> None:
    """Let previous.ckpt be what last.ckpt is now, which stays until it is replaced."""
    if not path.exists():
        return
    link, previous = path.with_name(f".previous.{os.getpid()}"), path.with_name("previous.ckpt")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links: for a moment there is only the previous one
        path.replace(previous)
    else:
        link.replace(previous)


def sweep_up(folder: Path) -> None:
    """Remove the temporary files of a run's processes that were killed while they wrote."""
    for place in (folder, folder / "checkpoints"):
        for path in place.glob(".*.[0-9]*"):
            path.unlink(missing_ok=True)


def latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint from which a run in `folder` can resume; None where it has to start at the beginning.

    Logs what it skips, and why.
    """
    for name in ("last", "previous"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path, "resume")
            if not {"EpochHistory", "LastCheckpoint"} <= content.get("callbacks", {}).keys():
                raise ValueError(f"resume={path} was written by an older version and lacks what an exact resume needs.")
            relocate(content, path.parent)
            for best in best_models(content):
                read_checkpoint(best, "resume")
        except ValueError as error:
            log.warning("%s It is skipped.", error)
        else:
            return path, content
    return None


def best_models(checkpoint: dict[str, Any]) -> list[Path]:
    """The best checkpoints that existed when this one was written."""
    states = checkpoint.get("callbacks", {}).values()
    return [Path(state["best_model_path"]) for state in states if state.get("best_model_path")]


def relocate(checkpoint: dict[str, Any], folder: Path) -> None:
    """Let ModelCheckpoint's paths point into `folder`, where the checkpoint is now."""
    folder = Path(os.path.realpath(folder))  # as ModelCheckpoint has it

    def here(path: str) -> str:
        return path and str(folder / Path(path).name)

    for state in checkpoint.get("callbacks", {}).values():
        if "best_model_path" in state:
            paths = {key: here(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
            scores = {here(path): score for path, score in state["best_k_models"].items()}
            state |= {"dirpath": str(folder), **paths, "best_k_models": scores}


def resumes(trainer: pl.Trainer) -> bool:
    """Whether the checkpoint that is being loaded is the run's own: not another's, as `ckpt_path` may name it."""
    own = Path(trainer.default_root_dir, "checkpoints")
    return trainer.ckpt_path is not None and Path(trainer.ckpt_path).parent.resolve() == own.resolve()


def read_checkpoint(path: Path, key: str) -> dict[str, Any]:
    """Load a checkpoint onto the CPU with `weights_only=True`: a malicious pickle executes nothing.

    Args:
        key: the configuration key that named the file, for the error.

    Raises:
        ValueError: where the file is missing, truncated, damaged, or no checkpoint of a run.
    """
    if not path.is_file():
        raise ValueError(f"{key}={path} is no file. Give a checkpoint, for example <run folder>/checkpoints/last.ckpt.")
    try:
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:  # torch.load does not look at the checksums
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.filename:
            raise
        raise ValueError(f"{key}={path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # the first bytes of a text may be any of a pickle's instructions
        raise ValueError(
            f"{key}={path} cannot be read: it is truncated, or no checkpoint that PyTorch wrote ({first_line(error)})."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{key}={path} is no checkpoint of a run: it has no state_dict.")
    return updated_checkpoint(content)


def load_weights(module: nn.Module, checkpoint: dict[str, Any], path: Path, key: str) -> None:
    """Copy a checkpoint's weights into `module`.

    Raises:
        ValueError: where names or shapes differ, naming the first difference.
    """
    theirs, ours = checkpoint["state_dict"], module.state_dict()
    for name in [*ours, *theirs]:
        if name not in theirs:
            difference = f"it lacks {name}"
        elif name not in ours:
            difference = f"it has {name}, which this network lacks"
        elif theirs[name].shape != ours[name].shape:
            difference = f"its {name} is {tuple(theirs[name].shape)}, here it is {tuple(ours[name].shape)}"
        else:
            continue
        raise ValueError(
            f"{key}={path} is of another network: {difference}. Use the model.* values it was trained with."
        )
    module.load_state_dict(theirs)
