"""Going on where a run or a sweep stopped: what the command means, and whether the folder still is what it was.

Nothing here needs torch: a mistake is told at once.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optbench.cli import in_sweep
from optbench.record import SUMMARY, RunRecord, finite, leaves

SWEEP = "multirun.yaml"  # Hydra's own record of a sweep
ENDED = ("completed", "diverged")
IN_USE = (
    "{folder} holds a run already: resume={folder} goes on with it. For another, give another hydra.run.dir, or none."
)
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
    args = get_args_parser().parse_args(list(arguments))
    given = [override for override in args.overrides if name_of(override) == "resume"]
    if args.help or args.hydra_help or not given or given[-1].partition("=")[2] in ("", "null"):
        refuse_folder_in_use(args.overrides)
        return list(arguments)
    folder = Path(given[-1].partition("=")[2].strip("'\"")).expanduser().absolute()
    kind = "run" if (folder / SUMMARY).is_file() else "sweep" if (folder / SWEEP).is_file() else None
    if kind is None and (folder / ".hydra").is_dir():
        raise ValueError(f"resume={folder} ended before it was a run: nothing is recorded yet. Start it anew.")
    if kind is None:
        raise ValueError(
            f"resume={folder} is neither a run nor a sweep. Give the folder of one, for example "
            "logs/train/runs/<run>, or with -m logs/train/multiruns/<sweep>."
        )
    if (kind == "sweep") is not bool(args.multirun):
        advice = "add -m to go on with it" if kind == "sweep" else "leave out -m to go on with it"
        raise ValueError(f"resume={folder} is a {kind}: {advice}.")
    settings = [override for override in args.overrides if not re.match(r"[+~]*(resume|hydra[./].*)=", override)]
    others = [argument for argument in arguments if argument not in [*given, *settings]]
    place = "'" + str(folder).replace("'", "\\'") + "'"
    if kind == "sweep":
        return sweep_command(folder, settings, others, f"hydra.sweep.dir={place}", bool(args.config_name))
    RunRecord.read(folder)
    if args.cfg:
        raise ValueError(f"resume={folder} goes on with the run's own configuration; summary.json in it shows it.")
    if settings:
        raise ValueError(
            f"resume={folder} goes on with the run's own settings, so {' '.join(settings)} cannot be given. For a new "
            f"run from the weights of one that has completed, give ckpt_path={folder}/checkpoints/last.ckpt."
        )
    return [*others, f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]


def sweep_command(folder: Path, settings: Sequence[str], others: Sequence[str], place: str, named: bool) -> list[str]:
    """The command of the sweep again; `others` are flags and Hydra's own settings, which replace those it had."""
    try:
        hydra = OmegaConf.load(folder / SWEEP).hydra
        # what was typed, unresolved: ${seed} is another value in every run
        before: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
        sweeper, source = hydra.sweeper._target_, hydra.job.config_name
    except (OSError, YAMLError, OmegaConfBaseException, AttributeError) as error:
        raise ValueError(f"{folder / SWEEP} cannot be read: {error}.") from error
    if not sweeper.endswith("BasicSweeper"):
        raise ValueError(f"resume={folder}: only sweeps over given values go on; this one searched with {sweeper}.")
    if settings and sorted(settings) != sorted(before["task"]):
        raise ValueError(
            f"resume={folder} goes on with the sweep's own settings ({' '.join(before['task'])}), so "
            f"{' '.join(settings)} cannot be given. Leave it out, or start a new sweep."
        )
    replaced = {name_of(argument) for argument in others} | {"hydra.mode", "hydra.sweep.dir"}
    kept = [override for override in before["hydra"] if name_of(override) not in replaced]
    flags = [] if named or source == "train" else ["--config-name", source]
    return [*others, *flags, *kept, *before["task"], place]


def refuse_folder_in_use(overrides: Sequence[str]) -> None:
    """Before Hydra writes its own files over those of a run; what a process of a run or a launcher does is its own."""
    names = {name_of(override): override.partition("=")[2].strip("'\"") for override in overrides}
    folder = Path(names.get("hydra.run.dir", "")).expanduser().absolute()
    mine = "hydra.job.num" in names or "LOCAL_RANK" in os.environ
    if "hydra.run.dir" in names and not mine and (folder / SUMMARY).is_file():
        raise ValueError(IN_USE.format(folder=folder))


def name_of(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def check_sweep(folder: Path, compose: Callable[[list[str], Path], Any]) -> None:
    """Refuse to go on with a sweep whose configuration is no longer what it was, before anything starts.

    One run for each set of choices is enough to see that a file of the configuration has changed; each run looks
    again for itself.

    Args:
        compose: the resolved configuration for a run's overrides and folder.
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
            refuse_other(record, compose(record.overrides, path.parent), path.parent)


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
        raise ValueError(IN_USE.format(folder=folder))
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
