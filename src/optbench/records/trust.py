"""A run's folder is data, never code: what may be built from the configuration in a record.

A class may be built if a file of this checkout's configs/ names it, or if it belongs to optbench, torch.optim or
torch.nn. Anything else would let a folder from a stranger run commands; `trust=<target>` allows it by name.
"""

import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from optbench.records.configuration import as_list
from optbench.records.files import PROJECT

Trust = Sequence[str] | str | None  # targets that the user allows
CONFIGS = PROJECT / "configs"
PACKAGES = ("optbench", "torch.optim", "torch.nn")
# what a run writes without asking further: its places must be in its own folder, or below logs/
WRITERS = ("callbacks", "logger", "trainer")
PLACES = ("dirpath", "save_dir", "path", "default_root_dir")  # also where they are relative


def check_record(config: Any, source: Path, trust: Trust = ()) -> None:
    """Refuse a recorded configuration that would build a class that is not allowed, or read this machine's environment.

    Args:
        source: where it was recorded, for the error.
        trust: further targets that the user allows.

    Raises:
        ValueError: with the first target that is not allowed, its key, and the key that allows it.
    """
    for key, value in entries(config):
        if isinstance(value, str) and "${" in value:
            raise ValueError(
                f"{source}: {key}={value} is no recorded value: a record has the results of ${{...}}, not the "
                "expressions. The file was changed; do not use it."
            )
    check_targets(config, source, trust)


def check_targets(config: Any, source: Path, trust: Trust = ()) -> None:
    """Refuse a `_target_` that may not be built; arguments and error are those of `check_record`."""
    for key, target in entries(config):
        if key.rpartition(".")[2] != "_target_":
            continue
        if not isinstance(target, str):
            raise ValueError(f"{source}: {key}={target!r:.60} must be a name such as torch.optim.Adam.")
        if target not in as_list(trust) and target not in configured_targets(CONFIGS) and not is_own_class(target):
            raise ValueError(
                f"{source}: {key} is {target}, which no file in configs/ names and which is no class of optbench, "
                f"torch.optim or torch.nn. It could run any command. Only if you know who wrote it and "
                f"what it does: add trust={target}."
            )


def check_places(config: Any, folder: Path) -> None:
    """Refuse a recorded configuration that would write outside of the run's folder and of logs/.

    Raises:
        ValueError: with the first such key.
    """
    allowed = [Path(os.path.realpath(place)) for place in (folder, PROJECT / "logs")]
    for key, value in entries({group: config.get(group) for group in WRITERS}):
        if not isinstance(value, str):
            continue
        text = re.sub(r"^(sqlite|file):/{2,3}", "", value)
        named = key.rpartition(".")[2] in PLACES
        if not (named or Path(text).is_absolute() or text.startswith("~") or ".." in Path(text).parts):
            continue
        place = Path(os.path.realpath(Path(text).expanduser()))
        if not any(place.is_relative_to(one) for one in allowed):
            raise ValueError(
                f"{folder}: {key}={value} is outside of the run's folder. A run that resumes writes only there. "
                "Correct summary.json, or start a new run."
            )


def entries(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of everything below `config`, dictionaries and lists included."""
    if isinstance(config, dict):
        inside: Iterable[tuple[Any, Any]] = config.items()
    else:
        inside = enumerate(config) if isinstance(config, list | tuple) else ()
    for key, value in inside:
        here = f"{path}.{key}".lstrip(".")
        yield here, value
        yield from entries(value, here)


@cache
def configured_targets(configs: Path) -> set[str]:
    """What the files of configs/ name."""
    found: set[str] = set()
    for path in configs.rglob("*.yaml"):
        found |= set(re.findall(r"^\s*_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"), re.M))
    return found


def is_own_class(target: str) -> bool:
    """Whether it is a class that PACKAGES define. Only their modules are imported to find out."""
    package = next((name for name in PACKAGES if target.startswith(f"{name}.")), None)
    words = target.split(".")
    if package is None or not all(word.isidentifier() for word in words):
        return False
    for count in range(len(words) - 1, package.count("."), -1):
        try:
            found: Any = importlib.import_module(".".join(words[:count]))
        except ImportError:
            continue
        for word in words[count:]:
            found = getattr(found, word, None)
        home = getattr(found, "__module__", None) or ""
        return inspect.isclass(found) and f"{home}.".startswith(f"{package}.")
    return False
