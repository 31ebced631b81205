"""What records and checkpoints of earlier versions lack or call by other names. Whoever reads one gets today's."""

import re
from typing import Any

TARGETS = {
    "optbench.schedulers.cosine_with_warmup": "optbench.training.schedulers.cosine_with_warmup",
    "optbench.callbacks.figures.Figures": "optbench.callbacks.tensorboard_figures.Figures",
}
KEYS = {"callbacks.checkpoint": "callbacks.last_checkpoint"}
ADDED = {"averaging": None, "label_smoothing": 0.0, "l1": 0.0, "test_flips": False}  # and what runs did without
ADDED_TO = {"optbench.data.augmentation.CropFlip": {"borders": "zero"}}  # arguments of classes, likewise
ADDED_CHOICES = {"averaging": "none"}  # groups that runs did without
CALLBACKS = {"Stopwatch": "EpochHistory"}  # whose states a checkpoint has


def updated_configuration(config: Any, path: str = "") -> Any:
    """The same configuration in today's words."""
    if path == "augmentation" and isinstance(config, dict) and isinstance(config.get("_target_"), str):
        config = {entry_name(config["_target_"]): config}  # one augmentation, before there could be several
    if isinstance(config, list):
        return [updated_configuration(item, path) for item in config]
    if not isinstance(config, dict):
        return config
    updated = dict(ADDED) if not path and "trainer" in config else {}
    for key, value in config.items():
        here = f"{path}.{key}".lstrip(".")
        if key == "_target_" and isinstance(value, str):
            value = TARGETS.get(value, value)
        if here != "logger.csv._target_":  # metrics.csv is no logger any more
            updated[KEYS.get(here, here).rpartition(".")[2]] = updated_configuration(value, here)
    return ADDED_TO.get(str(updated.get("_target_")), {}) | updated


def updated_choices(choices: Any) -> Any:
    """The same choices, with those of groups that were not there yet. What is no run's choices stays as it is."""
    return {**ADDED_CHOICES, **choices} if isinstance(choices, dict) and "augmentation" in choices else choices


def entry_name(target: str) -> str:
    """`crop_flip` of `optbench.data.augmentation.CropFlip`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.rpartition(".")[2]).lower()


def updated_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same checkpoint with the states of its callbacks under today's names."""
    states = checkpoint.get("callbacks")
    if isinstance(states, dict):
        checkpoint["callbacks"] = {CALLBACKS.get(name, name): state for name, state in states.items()}
    return checkpoint
