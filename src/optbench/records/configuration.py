"""The configuration in a record: its dotted keys, its folder, and what differs from another."""

import json
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any

from optbench.records.files import finite
from optbench.records.wording import text


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and values of a resolved configuration; a list is one value, as text."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(config, list | dict):
        yield path, json.dumps(config, ensure_ascii=False, default=str)
    else:
        yield path, config


def setting(config: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for word in key.split("."):
        config = config.get(word) if isinstance(config, dict) else None
    return config


def has(config: Any, key: str) -> bool:
    """Whether there is a value at a dotted key, be it None."""
    for word in key.split("."):
        if not isinstance(config, dict) or word not in config:
            return False
        config = config[word]
    return True


def identity(value: Hashable) -> Hashable:
    """What makes two values one setting: 0 and 0.0 are one, 1 and true are two."""
    return isinstance(value, bool), value


def as_list(value: Any) -> list[Any]:
    """What may be typed as one value, as several, or as null."""
    if value is None:
        return []
    return list(value) if isinstance(value, Collection) and not isinstance(value, str) else [value]


def key_of(override: str) -> str:
    """`optimizer.lr` of `+optimizer.lr=0.1`."""
    return override.lstrip("+~").partition("=")[0]


def rebased(config: Any, old: str, new: str) -> Any:
    """The configuration with the folder `old` replaced wherever a path begins with it."""
    if isinstance(config, dict):
        return {key: rebased(value, old, new) for key, value in config.items()}
    if isinstance(config, list):
        return [rebased(value, old, new) for value in config]
    inside = isinstance(config, str) and (config == old or config.startswith(old + "/"))
    return new + config[len(old) :] if inside else config


# What may differ when a run resumes: places (the images have a hash), and what does not concern the run itself.
FREE = ("output_dir", "resume", "compare", "trust", "data.root", "data.cache_dir", "data.url")


def refuse_other_configuration(recorded: Any, config: Any, folder: Path) -> None:
    """Raises ValueError, with what differs, unless the run recorded in `folder` has this configuration."""
    before, now = (dict(leaves(rebased(finite(c), c["output_dir"], ""))) for c in (recorded, config))
    differing = [key for key in {**before, **now} if key not in FREE and before.get(key) != now.get(key)]
    if differing:
        keys = sorted(differing)[:5]
        shown = "; ".join(f"{key} was {text(before.get(key))}, now it is {text(now.get(key))}" for key in keys)
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(
            f"{folder} holds a run with another configuration: {shown}{more}. Undo the change to resume it, or start "
            "anew in another folder (with -m, hydra.sweep.dir; else hydra.run.dir)."
        )
