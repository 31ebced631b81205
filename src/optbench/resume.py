"""Going on where a run or a sweep stopped: what the command means, and whether the folder still is what it was.

Nothing here needs torch: a mistake is told at once.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optbench.cli import in_sweep
from optbench.record import SUMMARY, RunRecord, finite, leaves

SWEEP = "multirun.yaml"  # Hydra's own record of a sweep
ENDED = ("completed", "diverged")
# What may differ when a run goes on: places (the images have a hash), and what does not concern the run itself.
FREE = ("output_dir", "resume", "compare", "data.root", "data.cache_dir", "data.url")


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that one with `resume=<folder>` stands for; any other is returned as it is.

    A run goes on in its folder, with the configuration in its record. A sweep is what its multirun.yaml says, in its
    folder, where each run finds out for itself what is left to do; Hydra's own settings, such as the launcher, may be
    given anew.

    Raises:
        ValueError: where the folder is not what it is taken for, or more settings are given.
    """
    given = [argument for argument in arguments if re.match(r"\+*resume=", argument)]
    if not given or given[-1].partition("=")[2] in ("", "null"):
        return list(arguments)
    folder = Path(given[-1].partition("=")[2].strip("'\"")).expanduser().absolute()
    multirun = any(argument in ("-m", "--multirun") for argument in arguments)
    kind = "run" if (folder / ".hydra").is_dir() else "sweep" if (folder / SWEEP).is_file() else None
    if kind is None:
        raise ValueError(
            f"resume={folder} is neither a run nor a sweep. Give the folder of one, for example "
            "logs/train/runs/<run>, or with -m logs/train/multiruns/<sweep>."
        )
    if (kind == "sweep") is not multirun:
        advice = "add -m to go on with it" if kind == "sweep" else "leave out -m to go on with it"
        raise ValueError(f"resume={folder} is a {kind}: {advice}.")
    settings = [a for a in arguments if a not in given and not re.match(r"-|\+*hydra[./]", a)]
    place = "'" + str(folder).replace("'", "\\'") + "'"
    if kind == "run":
        RunRecord.read(folder)
        if settings:
            raise ValueError(
                f"resume={folder} goes on with the run's own settings, so {' '.join(settings)} cannot be given. For a "
                f"new run from its weights, give ckpt_path={folder}/checkpoints/last.ckpt instead of resume."
            )
        others = [argument for argument in arguments if argument not in given]
        return [*others, f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]
    return sweep_command(arguments, given, settings, folder, place)


def sweep_command(
    arguments: Sequence[str], given: Sequence[str], settings: Sequence[str], folder: Path, place: str
) -> list[str]:
    try:
        hydra = OmegaConf.load(folder / SWEEP).hydra
        before, sweeper = hydra.overrides, hydra.sweeper._target_
        source, flags = hydra.job.config_name, []
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{folder / SWEEP} cannot be read: {error}.") from error
    if not sweeper.endswith("BasicSweeper"):
        raise ValueError(f"resume={folder}: only sweeps over given values go on; this one searched with {sweeper}.")
    if settings and sorted(settings) != sorted(before.task):
        raise ValueError(
            f"resume={folder} goes on with the sweep's own settings ({' '.join(before.task)}), so {' '.join(settings)} "
            "cannot be given. Leave it out, or start a new sweep."
        )
    anew = [a for a in arguments if a not in given and a not in settings]
    names = {name_of(argument) for argument in anew} | {"hydra.mode", "hydra.sweep.dir"}
    if source != "train" and not names & {"-cn", "--config-name"}:
        flags = ["--config-name", source]
    kept = [override for override in before.hydra if name_of(override) not in names]
    return [*anew, *flags, *kept, *before.task, f"hydra.sweep.dir={place}"]


def name_of(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def check_sweep(folder: Path, compose: Callable[[list[str]], Any]) -> None:
    """Refuse to go on with a sweep whose configuration is no longer what it was, before anything starts.

    One run for each set of choices is enough to see that a file of the configuration has changed; each run looks
    again for itself.

    Args:
        compose: the resolved configuration for a run's overrides.
    """
    seen = set()
    for path in sorted(folder.glob(f"*/{SUMMARY}")):
        try:
            record = RunRecord.read(path.parent)
        except ValueError:
            continue  # the run itself will say so
        choices = tuple(sorted(record.choices.items()))
        if choices not in seen:
            seen.add(choices)
            refuse_other(record, compose(record.overrides), path.parent)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the run's folder: a lock that the system takes from a process when it dies.

    Raises:
        ValueError: where another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} is in use: another process is working on this run. Wait for it, or stop it first."
        ) from error
    try:
        yield
    finally:
        lock.release()


def earlier(cfg: DictConfig, folder: Path) -> RunRecord | None:
    """The record of the run that goes on in `folder`; None where one begins.

    A run of a sweep that finds itself there goes on: the sweep is resumed, or a launcher has started the run again.

    Raises:
        ValueError: where the folder holds another run, or `resume` was not given.
    """
    if not (folder / SUMMARY).exists():
        return None
    if cfg.resume is None and not in_sweep():
        raise ValueError(
            f"{folder} holds a run already: resume={folder} goes on with it. For another, give another hydra.run.dir, "
            "or none."
        )
    try:
        record = RunRecord.read(folder)
    except ValueError as error:
        raise ValueError(f"{error} To begin this run anew, remove {folder}.") from error
    if cfg.resume is None:
        refuse_other(record, OmegaConf.to_container(cfg, resolve=True), folder)
    return record


def refuse_other(record: RunRecord, config: Any, folder: Path) -> None:
    """Raises ValueError, with what differs, unless the record is that of a run with this configuration."""
    before, now = (dict(leaves(rebased(finite(c), c["output_dir"], ""))) for c in (record.config, config))
    differing = [key for key in {**before, **now} if key not in FREE and before.get(key) != now.get(key)]
    if differing:
        keys = sorted(differing)[:5]
        shown = "; ".join(f"{key} was {typed(before.get(key))}, now it is {typed(now.get(key))}" for key in keys)
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(
            f"{folder} holds a run with another configuration: {shown}{more}. Take the change back to go on with it, "
            "or start anew in another folder (with -m, hydra.sweep.dir; else hydra.run.dir)."
        )


def typed(value: Any) -> str:
    """As in YAML: null, true, 0.1."""
    return value if isinstance(value, str) else json.dumps(value)


def own_configuration(record: RunRecord, folder: Path) -> DictConfig:
    """The configuration that a run began with, in the folder where it lies now."""
    config = OmegaConf.create(rebased(record.config, record.config["output_dir"], str(folder)))
    assert isinstance(config, DictConfig)
    return config


def rebased(config: Any, old: str, new: str) -> Any:
    """The configuration with the run's folder replaced wherever a path begins with it."""
    if isinstance(config, dict):
        return {key: rebased(value, old, new) for key, value in config.items()}
    if isinstance(config, list):
        return [rebased(value, old, new) for value in config]
    inside = isinstance(config, str) and (config == old or config.startswith(old + "/"))
    return new + config[len(old) :] if inside else config
