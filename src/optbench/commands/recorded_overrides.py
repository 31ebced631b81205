"""Overrides that a sweep's multirun.yaml recorded, before they become part of a command again."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from optbench.commands.hydra_internals import override_values
from optbench.records.configuration import as_list
from optbench.records.trust import CONFIGS, WRITERS, Trust, check_targets, entries

# a launcher's values that are commands, environments or places
LAUNCHER_CODE = re.compile(r"\b(setup|python|additional_parameters|runtime_env|env\w*|submitit_folder|_\w+_)\b")

RESOLVER = re.compile(r"\$\{[^}]*:")  # such as ${oc.env:HOME}, which can make anything; ${optimizer.lr} cannot
ELSEWHERE = re.compile(r"^[/~]|\.\.|://")  # an absolute path, one that leaves its folder, or an address


def check_overrides(task: Iterable[Any], hydra: Iterable[Any], source: Path, trust: Trust) -> None:
    """Refuse overrides that could run commands.

    Args:
        task, hydra: the overrides of the run's configuration, and of Hydra's own.
        source: the multirun.yaml, for the error.

    Raises:
        ValueError: with the first override that is not allowed, and what to do.
    """
    for override in task:
        key, values = parsed(override, source)
        if not all(is_harmless(key, value) for value in values) or re.search(r"(^|@)hydra\b", key):
            refuse(override, source, "type all settings of the sweep again")
        for value in values:
            check_targets({key: value}, source, trust)
    for override in hydra:
        key, values = parsed(override, source)
        if not (values and all(is_plain_setting(key, value) for value in values)):
            refuse(override, source, "type it again")


def is_harmless(key: str, value: Any) -> bool:
    """Whether an override of a run reads no configuration from elsewhere, resolves nothing, and writes nowhere else."""
    if key in ("resume", "trust") and value:  # a run would build what its own record names
        return False
    is_choice = (CONFIGS / key.split("@")[0]).is_dir() and not isinstance(value, dict)
    if is_choice and not all(re.fullmatch(r"[\w-]+", str(name)) for name in as_list(value)):
        return False  # a path would read a file from elsewhere
    texts = [text for _, text in entries({key: value}) if isinstance(text, str)]
    if any(RESOLVER.search(text) for text in texts):
        return False
    writes = key.split(".")[0] in (*WRITERS, "output_dir")
    return not writes or not any(ELSEWHERE.search(text) for text in texts)


def is_plain_setting(key: str, value: Any) -> bool:
    """Whether an override of Hydra's own sets a plain value of the launcher or the sweeper."""
    if key == "hydra/launcher":
        return value in ["basic", *(path.stem for path in (CONFIGS / key).glob("*.yaml"))]
    if key == "hydra/sweeper":
        return value in ("basic", "grid", "tune")
    if not re.match(r"hydra\.(launcher|sweeper)\.", key) or LAUNCHER_CODE.search(key):
        return False
    if not is_harmless(key.removeprefix("hydra.sweeper.params."), value):  # those are overrides of the runs
        return False
    if key == "hydra.sweeper.search":  # lines of search spaces, which only Hydra's own parser reads
        return isinstance(value, list) and all(re.fullmatch(r"[\w .,:+()=-]*", str(line)) for line in value)
    if key.endswith(".address"):  # of a Ray cluster, which gets the code and the data
        return value in ("auto", "local")
    # a line end in a partition's name would be a line of the script that sbatch runs
    plain = value is None or isinstance(value, int | float | str)
    return plain and bool(re.fullmatch(r"[\w .,:+-]*", str(value)))


def parsed(override: Any, source: Path) -> tuple[str, list[Any]]:
    """Its key, and the values that it gives it: several in a sweep."""
    try:
        if not isinstance(override, str) or override.startswith("-"):
            raise ValueError(f"{override!r} is no override")
        return override_values(override)
    except (HydraException, ValueError) as error:
        raise ValueError(f"{source} has an override that cannot be read: {override!r:.80}.") from error


def refuse(override: str, source: Path, advice: str) -> None:
    raise ValueError(f"{source} sets {override}, which could run commands. If you trust it, {advice} in this command.")
