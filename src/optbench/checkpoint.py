"""Reading weights that somebody else may have written: as plain tensors only, and only if they fit."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


def read_checkpoint(path: Path, key: str) -> dict[str, Any]:
    """Load a checkpoint onto the CPU with `weights_only=True`: a malicious pickle executes nothing.

    Args:
        key: the configuration key that named the file, for the error.

    Raises:
        ValueError: where the file is missing, truncated, or no checkpoint of a run.
    """
    if not path.is_file():
        raise ValueError(f"{key}={path} is no file. Give a checkpoint, for example <run folder>/checkpoints/last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the first bytes of a text may be any of a pickle's instructions
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{key}={path} cannot be read: it is truncated, or no checkpoint that PyTorch wrote ({first_line})."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{key}={path} is no checkpoint of a run: it has no state_dict.")
    return content


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
