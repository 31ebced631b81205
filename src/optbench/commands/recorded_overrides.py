"""Overrides that a sweep's multirun.yaml recorded, before they become part of a command again."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from optbench.commands.hydra_internals import override_values
from optbench.records.trust import CONFIGS, WRITERS, check_target, misplaced_targets, strings_in

# a launcher's values that are commands, environments or places
LAUNCHER_CODE = re.compile(r"\b(setup|python|additional_parameters|runtime_env|env\w*|submitit_folder|_\w+_)\b")


def check_overrides(task: Iterable[Any], hydra: Iterable[Any], source: Path, trust: Sequence[str] | str | None) -> None:
    """Refuse overrides that could run commands.

    Args:
        task, hydra: the overrides of the run's configuration, and of Hydra's own.
        source: the multirun.yaml, for the error.

    Raises:
        ValueError: with the first override that is not allowed, and what to do.
    """
    for override in task:
        key, values = parsed(override, source)
        if any(re.match(r"hydra\b", part) for part in key.split("@")):
            refuse(override, source)
        group = key.split("@")[0]
        for value in values:
            if (CONFIGS / group).is_dir():
                check_choice(override, value, source)
            for path, text in strings_in({key: value}):
                elsewhere = re.search(r"^[/~]|\.\.|://", text) and key.split(".")[0] in (*WRITERS, "output_dir")
                if elsewhere or re.search(r"\$\{[^}]*:", text):  # a resolver can make anything, ${optimizer.lr} cannot
                    refuse(override, source)
                if path.rpartition(".")[2] == "_target_":
                    check_target(path, text, source, trust)
            if any(misplaced_targets(value)):
                refuse(override, source)
    for override in hydra:
        key, values = parsed(override, source)
        plain = all(value is None or isinstance(value, int | float | str) for value in values)
        known = {"basic", *(path.stem for path in (CONFIGS / "hydra" / "launcher").glob("*.yaml"))}
        if key in ("hydra/launcher", "hydra/sweeper"):
            allowed = all(str(value) in (known if key == "hydra/launcher" else {"basic"}) for value in values)
        elif key.endswith(".address"):  # of a Ray cluster, which gets the code and the data
            allowed = key.startswith("hydra.launcher.") and all(value in ("auto", "local") for value in values)
        else:
            named = re.match(r"hydra\.(launcher|sweeper)\.", key) and not LAUNCHER_CODE.search(key)
            # a line end in a partition's name would be a line of the script that sbatch runs
            allowed = bool(named) and plain and all(re.fullmatch(r"[\w .,:+-]*", str(value)) for value in values)
        if not (allowed and values):
            refuse(override, source)


def parsed(override: Any, source: Path) -> tuple[str, list[Any]]:
    """Its key, and the values that it gives it: several in a sweep."""
    try:
        if not isinstance(override, str) or override.startswith("-"):
            raise ValueError(f"{override!r} is no override")
        return override_values(override)
    except (HydraException, ValueError) as error:
        raise ValueError(f"{source} has an override that cannot be read: {override!r:.80}.") from error


def check_choice(override: str, value: Any, source: Path) -> None:
    """A group's choice is a file in configs/; a path would read one from elsewhere."""
    names = value if isinstance(value, list) else [value]
    if not isinstance(value, dict) and not all(re.fullmatch(r"[\w-]+", str(name)) for name in names):
        refuse(override, source)


def refuse(override: str, source: Path) -> None:
    raise ValueError(
        f"{source} sets {override}, which could run commands. If you trust it, type it again in this command."
    )
