"""All that leans on Hydra's and OmegaConf's internals. `tests/test_commands_hydra_internals.py` names the version
with which a part of it breaks."""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, ValueType
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from optbench.records.wording import first_line

HIDDEN = ("hydra", "_target_", "_partial_")  # keys that no message offers


def parse_arguments(arguments: Sequence[str]) -> Any:
    """Hydra's own reading of a command line: `overrides`, `multirun`, `help`, `cfg`, `config_name`, …"""
    return get_args_parser().parse_args(list(arguments))


def override_values(override: str) -> tuple[str, list[Any]]:
    """The key of an override as `key@package`, without + and ~, and its values: several where it asks for a sweep.

    Values are what a run is given, without quotes. glob(...) has none here: it names choices of a group that exist.

    Raises:
        HydraException: where it cannot be read.
    """
    parsed = OverridesParser.create().parse_override(override)
    if parsed.value_type == ValueType.GLOB_CHOICE_SWEEP:
        values: list[Any] = []
    else:
        values = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else [parsed.value()]
    return parsed.get_key_element().lstrip("+~"), [Override._convert_value(value) for value in values]


@dataclass(frozen=True)
class Interval:
    """All numbers between two; `log`: on a logarithmic scale; `whole`: only whole ones."""

    low: float
    high: float
    log: bool
    whole: bool


Values = list[Any]


def sweep_values(key: str, text: str) -> Interval | Values:
    """What Hydra's sweep syntax lets a key be.

    Raises:
        ValueError: where it is no sweep, or one that has neither an interval nor values.
    """
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException as error:
        raise ValueError(first_line(error)) from error
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None
        if unknown := value.tags - {"log"}:
            raise ValueError(f"the tag {min(unknown)} is not known: there is log")
        return Interval(low, high, "log" in value.tags, isinstance(low, int) and isinstance(high, int))
    if not override.is_sweep_override() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ValueError("it names one value, not several")
    assert isinstance(value, ChoiceSweep | RangeSweep)
    if value.tags:
        raise ValueError("tag(…) belongs to an interval")
    return [Override._convert_value(each) for each in override.sweep_iterator()]


def written(value: Any) -> str:
    """A value as an override has it."""
    return Override._get_value_element_as_str(value)


def is_multirun() -> bool:
    """Whether -m was typed, and the runs take place in this process or in one that a launcher's library started."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def in_sweep() -> bool:
    """Whether this run is one of several that -m started: in this process, or in one that knows its number."""
    return is_multirun() or (HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num"))


# one job of a sweep


def compose_job(
    config: DictConfig, overrides: Sequence[str], number: int, loader: ConfigLoader | None = None
) -> DictConfig:
    """What Hydra's launcher makes of one job of a sweep; its folder is in `hydra.runtime.output_dir`."""
    setup_globals()  # the resolvers that the configuration of a sweep's job needs, such as ${now:}
    cfg = (loader or GlobalHydra.instance().config_loader()).load_sweep_config(config, list(overrides))
    with open_dict(cfg):
        cfg.hydra.job.id = cfg.hydra.job.num = number
    with answers_for_hydra(cfg):  # the folder's name may ask
        folder = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir).absolute()
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(folder)
    return cfg


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The configuration without the group `hydra`, as Hydra gives it to a task."""
    task = copy.deepcopy(cfg)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


def resolved_job(cfg: DictConfig) -> Any:
    """The same as plain dictionaries, with every `${...}` replaced."""
    with answers_for_hydra(cfg):
        return OmegaConf.to_container(without_hydra(cfg), resolve=True)


def resolved_group(cfg: DictConfig, group: str) -> dict[str, Any]:
    """One group of the configuration as plain dictionaries, with every `${...}` replaced."""
    with answers_for_hydra(cfg):
        return cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True))


@contextmanager
def answers_for_hydra(cfg: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` ask this configuration."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def run_alone(cfg: DictConfig, context: HydraContext, task: TaskFunction) -> None:
    """What Hydra does for a job of a sweep that is typed as a command of its own; raises what the task raises."""
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.mode, cfg.hydra.run.dir = RunMode.RUN, cfg.hydra.runtime.output_dir
    run_job(task, cfg, "hydra.run.dir", None, context).return_value  # noqa: B018


# what became of a job


def job_error(job: JobReturn) -> BaseException | None:
    """What a job raised, without `JobReturn.return_value`, which writes a line of its own before it raises."""
    return cast(BaseException, job._return_value) if job.status == JobStatus.FAILED else None


def job_return(outcome: float | Exception) -> JobReturn:
    """What a sweeper is told of a job: its value, or why there is none. Its configuration is in its folder."""
    return JobReturn(
        status=JobStatus.FAILED if isinstance(outcome, Exception) else JobStatus.COMPLETED, _return_value=outcome
    )


JOB_ERROR = "Error executing job with overrides: "


class WithoutJobErrors:
    """A text stream that drops the line that Hydra writes, with all overrides, before it raises a job's error."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith(JOB_ERROR) else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def without_job_errors() -> Iterator[None]:
    """The error itself is told once, as a sentence."""
    with redirect_stderr(cast(TextIO, WithoutJobErrors(sys.stderr))):
        yield


# a configuration's keys


def root_of(node: DictConfig) -> DictConfig:
    return cast(DictConfig, node._get_root())


def keys_below(node: Any, path: str = "") -> Iterator[str]:
    """The dotted keys of all single values below a node, but for those of Hydra itself."""
    if not isinstance(node, DictConfig):
        yield path
    elif not node._is_none() and not node._is_interpolation():
        for key in node:
            if key not in HIDDEN:
                yield from keys_below(node._get_node(key), f"{path}.{key!s}".lstrip("."))
