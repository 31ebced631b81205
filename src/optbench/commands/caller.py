"""Where a command was typed. Ray and SLURM start its runs elsewhere; their processes learn it from the environment."""

import json
import os
import sys
from pathlib import Path

CALLER = "OPTBENCH_CALLER"  # set by configs/hydra/launcher/ray.yaml and slurm.yaml


def describe() -> str:
    """The environment variable's value; it has no apostrophe, so that a shell takes it between two."""
    caller = {"arguments": sys.argv[1:], "folder": str(Path.cwd()), "home": str(Path.home())}
    return os.environ.get(CALLER) or json.dumps(caller).replace("'", "\\u0027")


def arguments() -> list[str]:
    """What was typed after the script's name."""
    return json.loads(os.environ[CALLER])["arguments"] if CALLER in os.environ else sys.argv[1:]


def go_there() -> None:
    """Let relative paths and `~` mean what they mean where the command was typed."""
    if CALLER in os.environ:
        caller = json.loads(os.environ[CALLER])
        os.chdir(caller["folder"])
        os.environ["HOME"] = caller["home"]
