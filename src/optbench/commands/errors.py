"""Errors as one sentence for the person who typed the command, instead of a traceback."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from optbench.commands import caller
from optbench.commands.hydra_internals import HIDDEN, keys_below, root_of, without_job_errors
from optbench.records import wording
from optbench.records.files import PROJECT
from optbench.records.wording import first_line, near, paragraph
from optbench.recovery.signals import Interrupted

ARGUMENTS = "Settings are key=value without dashes, after flags such as -m: -m optimizer=adam,sgd seed=0,1"


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an error into one paragraph on stderr and exit status 1; HYDRA_FULL_ERROR=1 shows the traceback.

    Hydra prints errors in its own form unless HYDRA_FULL_ERROR is set, so it is set here. OPTBENCH_REPORTS_ERRORS tells
    child processes that this function set it, not the user.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and "OPTBENCH_REPORTS_ERRORS" not in os.environ:
        yield
        return
    os.environ.update(HYDRA_FULL_ERROR="1", OPTBENCH_REPORTS_ERRORS="1")
    with without_job_errors():
        try:
            yield
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            sys.exit(130)
        except Interrupted as interruption:
            # Lightning kills the first process where another ends with an error
            if os.environ.get("LOCAL_RANK", "0") != "0":
                sys.exit(0)
            print(f"\nInterrupted by {interruption}.", file=sys.stderr)
            sys.exit(interruption.exit_status)
        except SystemExit as end:
            if end.code == 2:  # the argument parser has said what it does not know
                print("\n" + paragraph(ARGUMENTS), file=sys.stderr)
                sys.exit(1)
            raise
        except Exception as error:
            print("\n" + paragraph(explain(error)), file=sys.stderr)
            sys.exit(1)


def explain(error: BaseException) -> str:
    """What went wrong, for the person who typed the command."""
    key = ""
    while isinstance(error, InstantiationException) and error.__cause__:  # Hydra wraps what a constructor raised
        found = re.search(r"full_key: (\S+)", str(error))
        error, key = error.__cause__, found[1] if found else key
    if isinstance(error, HydraException):
        return explain_override(error)
    if isinstance(error, OmegaConfBaseException):
        return explain_configuration(error)
    if told := explain_launcher(error) or explain_package(error):
        return told
    text = as_typed(str(error)).strip()
    group = re.match(r"\w*", key or text)[0]  # type: ignore[index]
    if key and f"{group}." not in text:  # a library's, which does not know our keys
        return f"{key}: {text.rstrip('.')}.{typed_arguments(key, group)}"
    if isinstance(error, OSError) and error.errno in STORAGE:
        return explain_storage(error)
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename} cannot be used: {error.strerror}. If it is the folder of a run, hydra.run.dir=<folder> "
            "(with -m, hydra.sweep.dir=<folder>) chooses another."
        )
    frames = traceback.extract_tb(error.__traceback__)
    in_defaults = bool(frames) and Path(frames[-1].filename).name == "defaults_list.py"
    if in_defaults or text.startswith("Config group override must be a string"):
        text = "A group takes one of its choices, such as scheduler=constant or callbacks=none, not null or a number."
        return text + typed_arguments()  # Hydra's complaints of scheduler=null and augmentation=[crop_flip,null]
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
        return text + (typed_arguments(group) if text.startswith(f"{group}: ") else "")
    if text.startswith("Could not determine home directory"):  # pathlib's word for ~name
        return "A path that begins with ~ names no user of this machine: write it in full." + typed_arguments(".*=.?~")
    if "does not have a deterministic implementation" in text:  # pooling of vgg11 or alexnet on a GPU
        return (
            f"trainer.deterministic=true: {text.split()[0]} gives other last bits each time. Use another model.*, or "
            "trainer.deterministic=warn, with which the run cannot be repeated bit for bit."
        )
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"Unexpected {type(error).__name__}{place}: {text} (HYDRA_FULL_ERROR=1 shows the whole traceback.)"


TYPED = {str(value): wording.text(value) for value in (None, True, False)}


def as_typed(text: str) -> str:
    """The text with `key=None` as a person types it, `key=null`, and so on; the name of a folder stays as it is."""
    # (?<!\S): at the beginning of a word, which may not be a path
    return re.sub(r"(?<!\S)([\w.]+)=(None|True|False)\b", lambda found: f"{found[1]}={TYPED[found[2]]}", text)


def explain_launcher(error: BaseException) -> str:
    """What a launcher or its cluster refuses; empty where the error is none of theirs."""
    text = str(error)
    if missing := re.match(r"Unknown plugin class : '(hydra_plugins\.\w+)", text):
        name, requirement = EXTRAS.get(missing[1], (missing[1], missing[1].replace("_", "-")))
        return f"hydra/launcher={name} needs the extra: pip install {requirement}"
    if text.startswith('Could not detect "srun"'):
        return "hydra/launcher=slurm finds no SLURM on this machine: type the command where sbatch and srun are there."
    if type(error).__module__ == "submitit.core.utils":
        if type(error).__name__ == "FailedJobError" and "sbatch" in text:
            return f"SLURM refused the job: {first_line(error)}.{typed_arguments('hydra.launcher')}"
        if lost := re.match(r"Job (\S+) .* with path (\S+)\s.*\(state: (\w+)\)", text, re.DOTALL):
            printed = Path(lost[2]).parent
            return (
                f"SLURM ended job {lost[1]} ({lost[3]}) before its run ended; what it printed is in {printed}. "
                f"python src/train.py -m {wording.resuming(printed.parent)} runs what is left."
            )
        if text.startswith("Job not requeued because: timed-out"):
            return (
                "The run reached the time limit once more than hydra.launcher.max_num_timeout allows: raise it, or "
                "hydra.launcher.timeout_min."
            )
    return ""


EXTRAS = {
    "hydra_plugins.hydra_ray_launcher": ("ray", "'hydra-ray-launcher>=1.2.2,<1.3' 'ray[default]>=2.60,<3'"),
    "hydra_plugins.hydra_submitit_launcher": ("slurm", "'hydra-submitit-launcher>=1.2,<1.3'"),
}


def explain_package(error: BaseException) -> str:
    """Which package a class of the configuration needs; empty where the error is another."""
    missing = re.match(r"Error loading '([\w.]+)':\s*ModuleNotFoundError\(.No module named '(\w+)'", str(error))
    if not missing or missing[2] not in ("timm", "pytorch_optimizer", "schedulefree"):
        return ""
    return (
        f"optimizer: {missing[1]} needs the package {missing[2]}. It is part of the extra `optimizers`: "
        "pip install timm pytorch-optimizer schedulefree opt-einsum."
    )


STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EFBIG)


def explain_storage(error: OSError) -> str:
    """A disk that is full or gone, of which the files are not to blame."""
    where = f"{error.filename} cannot be written: " if error.filename else ""
    run = next((folder for folder in Path(error.filename or "").parents if (folder / ".hydra").is_dir()), None)
    advice = f" Then python src/train.py {wording.resuming(run)} resumes from the last good checkpoint." if run else ""
    return f"{where}{error.strerror}. Make room, or bring the disk back.{advice}"


def typed_arguments(*keys: str) -> str:
    """A sentence with the arguments to check: those for keys below the first key, or else for that key, and so on.

    Without a key, all arguments; nothing where none fits.
    """
    found = [] if keys else list(caller.arguments())
    for start in (f"{key}{end}" for key in keys for end in (r"\.", r"\b")):
        found = found or [argument for argument in caller.arguments() if re.match(rf"[+~]*{start}", argument)]
    return f" Check {' '.join(found)}." if found else ""


def choices_of(group: str) -> list[str]:
    return sorted(file.stem for file in (PROJECT / "configs" / group).glob("*.yaml"))


def explain_override(error: HydraException) -> str:
    """Hydra's complaint about the command line, with the nearest existing name."""
    text, cause = first_line(error), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return explain_configuration(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        known = error.options or choices_of(group)
        return f"{group}={name} is not known{near(name, known)} The choices of {group} are: {', '.join(known)}."
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        special = re.search("[=~]", value)  # as in a configuration's name, or ~/images
        if special and not re.search(r"[\[\]{}()'\"]", value):
            return (
                f"{error.override} cannot be read: a value with {special[0]} needs quotes of its own, inside those of "
                f"the shell: \"{key}='{value}'\"."
            )
        return (
            f"{error.override} cannot be read. An argument is key=value without spaces around =; quote one with "
            "spaces or brackets as a whole, for example 'model.layers=[512 relu dropout, 256 relu]'."
        )
    if several := re.match(r"Ambiguous value for argument '(.*)'", text):
        return f"{several[1]} names several values. Add -m to run each of them; a list is written [a,b]."
    if unknown := re.search(r"Could not override '([^']+)'", text):
        groups = sorted(folder.name for folder in (PROJECT / "configs").iterdir() if folder.is_dir())
        return (
            f"{unknown[1]} is no key and no group of the configuration{near(unknown[1], groups)} "
            f"The groups are: {', '.join(groups)}. --help shows their choices."
        )
    return f"{text}.{typed_arguments()}"


def explain_configuration(error: OmegaConfBaseException) -> str:
    """A key that does not exist, a value of the wrong type, a value that must be given."""
    key, text, parent = error.full_key or "", first_line(error), error.parent_node
    if "is not in struct" in text and isinstance(parent, DictConfig):
        place, _, word = key.rpartition(".")
        emptied = rf"~{re.escape(key)}|{re.escape(key)}=\[\s*\]"
        typed = [each for each in caller.arguments() if re.fullmatch(emptied, each)]
        if typed and (offered := choices_of(key)):
            return (
                f"{typed[0]} leaves {key} without a choice. Give one, or leave the argument out for the default. The "
                f"choices of {key} are: {', '.join(offered)}."
            )
        keys = [str(name) for name in parent if name not in HIDDEN]
        if not keys and (choices := choices_of(place)):
            return (
                f"{key} is not a key of the configuration, because {place}=none has none. Choose one, as in "
                f"{place}={choices[0]}, and see its keys with --cfg job. The choices of {place} are: "
                f"{', '.join(choices)}."
            )
        known = {path.rpartition(".")[2]: path for path in keys_below(root_of(parent))}
        known |= {name: f"{place}.{name}".lstrip(".") for name in keys}
        return (
            f"{key} is not a key of the configuration{near(word, known)} The keys of {place or 'the configuration'} "
            f"are: {', '.join(keys) or 'none'}. A leading + adds a new one."
        )
    if "Missing mandatory value" in text:
        return f"{key} must be given: add {key}=<value> to the command."
    return f"{key}: {text}." if key else f"{text}.{typed_arguments()}"
