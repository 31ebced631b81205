"""What the commands share: the resolvers that the configs use, and errors as sentences instead of tracebacks."""

import difflib
import logging
import os
import re
import secrets
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

PROJECT = Path(__file__).parents[2]


def metric_mode(metric: str) -> str:
    """Whether a lower (`min`) or a higher (`max`) value of a metric such as `val/loss` is the better one."""
    return "min" if re.search(r"(^|/)(loss|ece)$", metric) else "max"


def in_sweep() -> bool:
    """Whether this run is one of several that -m started."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def folder_name(text: str) -> str:
    """Overrides as part of a folder's name: `optimizer=adam,seed=0` stays, separators and quotes do not."""
    return re.sub(r"[^\w.,=+-]+", "-", text)[:120].rstrip(".,-")


OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)
OmegaConf.register_new_resolver("metric_mode", metric_mode, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("in_sweep", in_sweep, replace=True)
# Two runs that start in the same second still get folders of their own.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)


class Console(logging.StreamHandler):
    """Writes to whatever stdout is at the moment: a live progress bar puts itself in its place and lets lines pass."""

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


@contextmanager
def sentences() -> Iterator[None]:
    """Turn an error into one paragraph on stderr and exit status 1; HYDRA_FULL_ERROR=1 shows the traceback.

    Hydra prints errors in its own form unless HYDRA_FULL_ERROR is set, so it is set here. The second variable tells
    processes that this one starts that it was not the user who did so.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and "OPTBENCH_SENTENCES" not in os.environ:
        yield
        return
    os.environ.update(HYDRA_FULL_ERROR="1", OPTBENCH_SENTENCES="1")
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        print("\n" + paragraph(sentence(error)), file=sys.stderr)
        sys.exit(1)


def sentence(error: BaseException) -> str:
    """What went wrong, for the person who typed the command."""
    cause: BaseException | None = error
    while isinstance(cause, InstantiationException):  # Hydra wraps what a constructor raised
        full_key = re.search(r"full_key: (\S+)", str(cause))
        error, cause = cause, cause.__cause__
        if isinstance(cause, TypeError) and full_key:
            return f"{full_key[1]}: {cause}. Check the keys that were added or changed below {full_key[1]}."
    error = cause or error
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return (
            f"{group}={name} is not known{near(name, error.options)} "
            f"The choices of {group} are: {', '.join(error.options)}."
        )
    if isinstance(error, HydraException):
        return override_sentence(error)
    if isinstance(error, OmegaConfBaseException):
        return config_sentence(error)
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Unexpected {type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}: {error} "
        "(HYDRA_FULL_ERROR=1 shows the whole traceback.)"
    )


def override_sentence(error: HydraException) -> str:
    """Hydra's complaint about the command line, with the nearest existing key."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return config_sentence(cause)
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown and "No match in the defaults list" in str(error):
        groups = sorted(p.name for p in (PROJECT / "configs").iterdir() if p.is_dir())
        return (
            f"{unknown[1]} is no key and no group of the configuration{near(unknown[1], groups)} "
            f"The groups are: {', '.join(groups)}. --help shows their choices."
        )
    return str(error)


def config_sentence(error: OmegaConfBaseException) -> str:
    """A key that does not exist, a value of the wrong type, a value that must be given."""
    parent = error.parent_node
    if "is not in struct" in str(error) and parent is not None:
        keys = [str(key) for key in parent if key not in ("_target_", "_partial_")]
        place = f"{error.full_key.rpartition('.')[0] or 'the configuration'}"
        return (
            f"{error.full_key} is not a key of the configuration{near(str(error.key), keys)} "
            f"The keys of {place} are: {', '.join(keys)}. A leading + adds a new one."
        )
    if "Missing mandatory value" in str(error):
        return f"{error.full_key} must be given: add {error.full_key}=<value> to the command."
    return f"{error.full_key}: {str(error).splitlines()[0]}" if error.full_key else str(error).splitlines()[0]


def near(word: str, known: list[str]) -> str:
    """`; did you mean "dropout"?`, or a full stop where nothing is near."""
    match = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {match[0]}?" if match else "."


def paragraph(text: str) -> str:
    """One paragraph, folded at 100 columns; words such as paths are never broken."""
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)
