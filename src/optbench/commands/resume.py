"""Resuming a run or a sweep: what the command means, and whether the folder is still what it was.

Nothing here needs torch, so that a mistake is reported at once. `recovery.checkpoint` finds the checkpoint.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optbench.commands.hydra_internals import override_values, parse_arguments
from optbench.commands.recorded_overrides import check_overrides
from optbench.records.configuration import as_list, key_of, refuse_other_configuration
from optbench.records.record import SUMMARY, RunRecord, refuse_used_folder, runs_in
from optbench.records.trust import CONFIGS

QUOTES = "'\""
SWEEP = "multirun.yaml"  # Hydra's own record of a sweep


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that one with `resume=<folder>` stands for; any other stays as it is, but for relative folders.

    A run resumes in its folder, with the configuration in its record. A sweep is what its multirun.yaml says, in its
    folder; there each run checks what is left to do. Hydra's own settings, such as the launcher, may be given again.

    Raises:
        ValueError: where the folder is neither a run nor a sweep, or more settings are given.
    """
    args = parse_arguments(arguments)
    resumed = folder_named(args.overrides)
    if args.help or args.hydra_help or not resumed:
        refuse_folder_in_use(args.overrides)
        return list(map(with_absolute_folder, arguments))
    folder = Path(resumed.strip(QUOTES)).expanduser().absolute()
    is_sweep = holds_sweep(folder)
    if is_sweep and not args.multirun:
        raise ValueError(f"resume={folder} is a sweep: add -m to resume it.")
    if args.multirun and not is_sweep:
        raise ValueError(f"resume={folder} is a run: leave out -m to resume it.")
    settings = [override for override in args.overrides if not re.match(r"[+~]*(resume|trust|hydra[./].*)=", override)]
    others = [argument for argument in arguments if key_of(argument) != "resume" and argument not in settings]
    place = quoted(folder)
    if is_sweep:
        trust = [target for override in args.overrides if key_of(override) == "trust" for target in trusted(override)]
        others = [argument for argument in others if key_of(argument) != "trust"]  # it would name folders of the runs
        return sweep_command(folder, settings, others, f"hydra.sweep.dir={place}", bool(args.config_name), trust)
    RunRecord.read(folder)
    if args.cfg:
        raise ValueError(f"resume={folder} uses the run's own configuration; summary.json in it shows it.")
    if settings:
        raise ValueError(
            f"resume={folder} uses the run's own settings, so {' '.join(settings)} cannot be given. For a new "
            f"run from the weights of one that has completed, give ckpt_path={folder}/checkpoints/last.ckpt."
        )
    return [*others, f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]


def holds_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep, not a run.

    Raises:
        ValueError: where it holds neither.
    """
    if (folder / SUMMARY).is_file():
        return False
    if (folder / SWEEP).is_file():
        return True
    if (folder / ".hydra").is_dir():
        raise ValueError(f"resume={folder} ended before it was a run: nothing is recorded yet. Start it anew.")
    raise ValueError(
        f"resume={folder} is neither a run nor a sweep. Give the folder of one, for example "
        "logs/train/runs/<run>, or with -m logs/train/multiruns/<sweep>."
    )


def folder_named(overrides: Sequence[str]) -> str:
    """What `resume=` names, the last one if there are several; nothing where it is empty or null."""
    given = [override.partition("=")[2] for override in overrides if key_of(override) == "resume"]
    return "" if not given or given[-1] == "null" else given[-1]


def sweep_command(
    folder: Path, settings: Sequence[str], others: Sequence[str], place: str, named: bool, trust: Sequence[str]
) -> list[str]:
    """The command of the sweep again.

    Args:
        settings: those of the runs that were typed again: all of them, or none.
        others: flags and Hydra's own settings, which replace those it had.
        place: the override that names its folder.
        named: whether `others` name the configuration.
        trust: the targets that the user allows.

    Raises:
        ValueError: where multirun.yaml cannot be read or trusted, the sweep cannot resume, or settings differ.
    """
    try:
        hydra = OmegaConf.load(folder / SWEEP).hydra
        # what was typed, unresolved: ${seed} is another value in every run
        before: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
        typed, of_hydra = before["task"], before["hydra"]
        sweeper, source = hydra.sweeper._target_, hydra.job.config_name
    except (OSError, YAMLError, OmegaConfBaseException, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SWEEP} cannot be read ({type(error).__name__}: {error}).") from error
    if not isinstance(sweeper, str) or not sweeper.endswith(("BasicSweeper", "GridSweeper", "TuneSweeper")):
        raise ValueError(
            f"resume={folder}: only sweeps over given values can resume; this one searched with {sweeper}."
        )
    if settings and sorted(settings) != sorted(typed):
        raise ValueError(
            f"resume={folder} uses the sweep's own settings ({' '.join(typed)}), so "
            f"{' '.join(settings)} cannot be given. Leave it out, or start a new sweep."
        )
    replaced = {key_of(argument) for argument in others} | {"hydra.mode", "hydra.sweep.dir", "hydra.run.dir"}
    kept = [override for override in of_hydra if key_of(str(override)) not in replaced]
    check_overrides([] if settings else typed, kept, folder / SWEEP, trust)  # typed again, they are trusted
    if not (isinstance(source, str) and re.fullmatch(r"[\w-]+", source) and (CONFIGS / f"{source}.yaml").is_file()):
        raise ValueError(f"{folder / SWEEP} names the configuration {source!r:.60}, which is no file in configs/.")
    flags = [] if named or source == "train" else ["--config-name", source]
    return [*others, *flags, *kept, *typed, place]


def trusted(override: str) -> list[str]:
    """The targets of `trust=<target>` or `trust=[<target>,<target>]`."""
    _, values = override_values(override)
    return [str(target) for value in values for target in as_list(value)]


def with_absolute_folder(argument: str) -> str:
    """`hydra.sweep.dir` with an absolute path: Ray and SLURM start the runs of a sweep elsewhere."""
    key, _, folder = argument.partition("=")
    if key_of(argument) != "hydra.sweep.dir" or not folder or "$" in folder:
        return argument
    return f"{key}={quoted(Path(folder.strip(QUOTES)).expanduser().absolute())}"


def quoted(folder: Path) -> str:
    """As Hydra reads a value that may have spaces and brackets."""
    return "'" + str(folder).replace("'", "\\'") + "'"


def refuse_folder_in_use(overrides: Sequence[str]) -> None:
    """Raises ValueError where hydra.run.dir=<folder> names the folder of a run, whose files Hydra would overwrite.

    A process that a launcher or a run of several devices starts may use the folder: it is its own.
    """
    given = {key_of(override): override.partition("=")[2].strip(QUOTES) for override in overrides}
    is_own = "hydra.job.num" in given or "LOCAL_RANK" in os.environ
    if "hydra.run.dir" in given and not is_own:
        refuse_used_folder(Path(given["hydra.run.dir"]).expanduser().absolute())


def check_sweep(folder: Path, compose: Callable[[list[str], Path], Any]) -> None:
    """Refuse to resume a sweep whose configuration is no longer what it was, before anything starts.

    One run for each set of choices is enough to see that a file of the configuration has changed; each run looks
    again for itself.

    Args:
        compose: the resolved configuration for a run's overrides and folder.
    """
    seen = set()
    for path in runs_in(folder):
        try:
            record = RunRecord.read(path.parent)
        except ValueError:
            continue  # the run itself will say so
        choices = tuple(sorted(record.choices.items()))
        if choices not in seen:
            seen.add(choices)
            refuse_other_configuration(record.config, compose(record.overrides, path.parent), path.parent)
