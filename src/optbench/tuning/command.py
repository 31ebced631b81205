"""What `python src/tune.py …` means, as a command of Hydra's: `trials=50` is hydra.sweeper.trials=50, and so on."""

import re
from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from optbench.commands import resume
from optbench.commands.hydra_internals import parse_arguments
from optbench.records.configuration import key_of
from optbench.records.files import PROJECT
from optbench.records.trust import CONFIGS

SETTINGS = [
    str(key) for key in OmegaConf.load(CONFIGS / "hydra/sweeper/tune.yaml") if key not in ("_target_", "search")
]
FLAGS = ("run", "multirun", "help", "hydra_help", "cfg", "info", "shell_completion")


def command(arguments: Sequence[str]) -> list[str]:
    """The command line with what makes it a tuning; `resume=<folder>` becomes the command of that tuning.

    A job that the pool types as a command of its own stays as it is.

    Raises:
        ValueError: as `commands.resume.command`.
    """
    if any(key_of(argument) == "hydra.job.num" for argument in arguments):
        return list(arguments)
    spaces = [argument for argument in arguments if re.match(r"\+*search\.", argument)]
    found = [setting(argument) for argument in arguments if argument not in spaces]
    args = parse_arguments(found)
    if not any(getattr(args, flag) for flag in FLAGS):
        found.insert(0, "-m")
    if args.help:
        found.append("hydra/help=tune")
    if spaces:
        lines = [argument.lstrip("+").removeprefix("search.") for argument in spaces]
        texts = ",".join(QuotedString(line, Quote.single).with_quotes() for line in lines)
        found.append(f"hydra.sweeper.search=[{texts}]")
    if not resume.folder_named(args.overrides):
        found.append("hydra/sweeper=tune")
        if not any(key_of(override) == "hydra.sweep.dir" for override in args.overrides):
            place = PROJECT / "logs" / "tune" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{token_hex(4)}"
            found.append(f"hydra.sweep.dir={resume.quoted(place)}")
    return resume.command(found)


def setting(argument: str) -> str:
    """`hydra.sweeper.trials=50` of `trials=50` and of `+trials=50`; anything else as it is."""
    return f"hydra.sweeper.{argument.lstrip('+')}" if key_of(argument) in SETTINGS else argument
