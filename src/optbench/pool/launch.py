"""What Hydra asks of a launcher: its jobs as commands of the pool, and what became of them."""

import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, configure_log
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig

from optbench.commands.errors import report_errors
from optbench.commands.hydra_internals import job_return, run_alone
from optbench.pool.composition import compose_jobs
from optbench.pool.devices import CPU, GPU, Job, Queue, cores, gpus, memory_left, threads
from optbench.pool.preload import preload, shared_objects
from optbench.pool.processes import LOG, Pool, Run
from optbench.pool.table import Display, why_failed
from optbench.records.record import RunRecord, has_result
from optbench.records.wording import is_number

RUN_BYTES = 0.2e9  # what a run takes at least, beyond what all runs share
OURS = re.compile(r"[+~]*hydra[./](launcher|sweeper|sweep|mode|run\.dir|job\.num)\b")  # overrides no run shall see


@dataclass(frozen=True)
class PoolSettings:
    """The keys of configs/hydra/launcher/pool.yaml.

    Raises:
        ValueError: with a sentence for the first value that means nothing.
    """

    workers: int | None
    jobs_per_device: int
    timeout: float | None
    grace: float
    fail_fast: bool

    def __post_init__(self) -> None:
        if os.name != "posix":
            raise ValueError(
                "hydra/launcher=pool needs Linux or macOS, whose process groups it stops. Add hydra/launcher=basic."
            )
        for key in ("workers", "jobs_per_device"):
            value = getattr(self, key)
            unset = key == "workers" and value is None
            if not unset and not (type(value) is int and value >= 1):
                raise ValueError(f"hydra.launcher.{key}={value} must be a whole number of at least 1.")
        if self.timeout is not None and not (is_number(self.timeout) and self.timeout > 0):
            raise ValueError(f"hydra.launcher.timeout={self.timeout} must be a number of seconds above 0, or null.")
        if not (is_number(self.grace) and self.grace >= 0):
            raise ValueError(f"hydra.launcher.grace={self.grace} must be a number of seconds of at least 0.")
        if type(self.fail_fast) is not bool:
            raise ValueError(f"hydra.launcher.fail_fast={self.fail_fast} must be true or false.")


def launch(
    settings: PoolSettings,
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    largest_batch: int = 0,
) -> list[JobReturn]:
    """Run every job that has no result yet; a mistake in any of them is found before one starts.

    The results of those that failed raise the same error, which speaks for all of them.

    Args:
        task: what Hydra was asked to run; each job is a command of its script.
        config: of the sweep; `job_overrides` turn it into the configurations of its jobs.
        first: the number of the first job.
        largest_batch: of a sweep that launches its jobs in several batches, how many the largest has.
    """
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    configs = compose_jobs(config, job_overrides, first, context.config_loader)
    check_folders([folder_of(cfg) for cfg in configs])
    free = devices_there(settings, as_in_largest_batch([cfg.trainer for cfg in configs], largest_batch))
    jobs = jobs_of(configs, free, Path(inspect.getfile(task)).absolute(), largest_batch)
    to_run = [job for job in jobs if not has_result(job.folder)]
    with Display(len(to_run)) as display:
        if len(jobs) > len(to_run):
            display.say(f"{len(jobs) - len(to_run)} of {len(jobs)} runs have their results already.")
        if to_run:
            left = [configs[job.number - first] for job in to_run]
            if why_fresh := preload(left):
                display.say(f"{why_fresh} So each run starts a Python of its own, which takes some seconds.")
            else:
                works = (partial(work, cfg, context, task) for cfg in left)
                to_run = [replace(job, work=does) for job, does in zip(to_run, works, strict=True)]
            fit_memory(settings, free[CPU], max(job.wanted for job in to_run))
        pool = Pool(
            Queue(to_run, free),
            display,
            timeout=settings.timeout,
            grace=settings.grace,
            fail_fast=settings.fail_fast,
        )
        with shared_objects():
            runs = pool.work()
    return results(jobs, runs, settings.fail_fast)


def jobs_of(
    configs: Sequence[DictConfig], free: Mapping[str, Mapping[str, int]], script: Path, largest_batch: int = 0
) -> list[Job]:
    """What the pool has to do, with as many threads for each as there are cores for it in the largest batch."""
    wanted = [devices_wanted(cfg.trainer, free) for cfg in configs]
    at_once = sum(sum(free[kind].values()) for kind in {kind for kind, _ in wanted})
    in_all = sum(as_in_largest_batch([count for _, count in wanted], largest_batch))
    environment = threads(min(at_once, in_all))
    shared = set.intersection(*(set(cfg.hydra.overrides.task) for cfg in configs)) if len(configs) > 1 else set()
    return [
        Job(
            cfg.hydra.job.num,
            command_of(script, cfg),
            folder_of(cfg),
            title=" ".join(text for text in cfg.hydra.overrides.task if text not in shared) or "as configured",
            kind=kind,
            wanted=count,
            environment=environment,
            epochs=cfg.trainer.max_epochs,
            monitor=cfg.monitor,
        )
        for cfg, (kind, count) in zip(configs, wanted, strict=True)
    ]


def as_in_largest_batch(items: list[Any], largest_batch: int) -> list[Any]:
    """What jobs have, one item each, for as many jobs as the largest batch has: further ones are like the first."""
    return items + items[:1] * (largest_batch - len(items))


def results(jobs: Sequence[Job], runs: Sequence[Run], fail_fast: bool) -> list[JobReturn]:
    """What Hydra is told of each job. Those that failed are printed first."""
    failed = {run.job.number: run for run in runs if run.failed or not (run.stopped or has_result(run.job.folder))}
    for number, run in sorted(failed.items()):
        print(f"[{number}] {run.job.title} failed: {why_failed(run)} See {run.job.folder / LOG}", flush=True)
    error = ChildProcessError(
        f"{len(failed)} of {len(jobs)} runs failed ({', '.join(map(str, sorted(failed)))}); {LOG} in their folders "
        "says why." + " hydra.launcher.fail_fast=true stopped the others." * fail_fast
    )
    good = [job.number not in failed and has_result(job.folder) for job in jobs]
    return [
        job_return(RunRecord.read(job.folder).objective() if well else error)
        for job, well in zip(jobs, good, strict=True)
    ]


def work(cfg: DictConfig, context: HydraContext, task: TaskFunction) -> None:
    """One run, in its own process."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with report_errors():
        run_alone(cfg, context, task)


def folder_of(cfg: DictConfig) -> Path:
    return Path(cfg.hydra.runtime.output_dir)


def command_of(script: Path, cfg: DictConfig) -> list[str]:
    """The job as a person would type it: no sweep, so Lightning can start it again for the ranks of DDP."""
    hydra = cfg.hydra
    command = [sys.executable, str(script)]
    command += ["--config-name", hydra.job.config_name]
    flags = {"main": "--config-path", "command-line": "--config-dir"}
    for source in hydra.runtime.config_sources:
        if source.provider in flags and source.schema == "file":
            command += [flags[source.provider], source.path]
    command += [*hydra.overrides.task, *(text for text in hydra.overrides.hydra if not OURS.match(text))]
    folder = QuotedString(hydra.runtime.output_dir, Quote.single).with_quotes()
    return [*command, f"hydra.run.dir={folder}", f"hydra.job.num={hydra.job.num}"]


def devices_there(settings: PoolSettings, trainers: Sequence[DictConfig]) -> dict[str, dict[str, int]]:
    """For each kind its devices, and how many runs each takes at a time. Of the CPU, a device is one core or more."""
    ask = any(trainer.accelerator != CPU for trainer in trainers)  # which can take seconds
    slots = settings.workers or min(cores(), sum(as_number(trainer.devices) for trainer in trainers))
    return {
        GPU: dict.fromkeys(gpus() if ask else [], settings.jobs_per_device),
        CPU: dict.fromkeys(map(str, range(slots)), 1),
    }


def as_number(devices: Any) -> int:
    """`trainer.devices` as a number of processes; what is none, the Trainer itself refuses."""
    return max(1, int(devices)) if str(devices).isdecimal() else 1


def fit_memory(settings: PoolSettings, slots: dict[str, int], least: int) -> None:
    """No more slots of the CPU than the memory that is left has room for, but `least`.

    Raises:
        ValueError: where a person has asked for more.
    """
    left = memory_left()
    room = max(1, int(left / RUN_BYTES))
    if settings.workers is not None and settings.workers > room:
        raise ValueError(
            f"hydra.launcher.workers={settings.workers} runs at a time need at least {RUN_BYTES / 1e9:.2f} GB of "
            f"memory each, {settings.workers * RUN_BYTES / 1e9:.1f} GB together; {left / 1e9:.1f} GB are left. Use at "
            f"most hydra.launcher.workers={room}."
        )
    for slot in list(slots)[max(room, least) :]:
        del slots[slot]


def devices_wanted(trainer: DictConfig, free: Mapping[str, Mapping[str, int]]) -> tuple[str, int]:
    """Which kind of devices the Trainer will use, and how many; what is no number, the Trainer itself refuses.

    Raises:
        ValueError: if there are not as many.
    """
    accelerator, devices = trainer.accelerator, trainer.devices
    kind = GPU if accelerator in ("gpu", "cuda") or (accelerator == "auto" and free[GPU]) else CPU
    there, asked = len(free[kind]), f"trainer.devices={devices}"
    numbers = re.findall(r"\d+", str(devices)) if isinstance(devices, ListConfig) or "," in str(devices) else None
    if str(devices) in ("auto", "-1"):
        count = there if kind == GPU else 1
    elif numbers is not None:
        count = len(numbers)
        if numbers != [str(i) for i in range(count)]:
            raise ValueError(
                f"{asked} names devices, but hydra/launcher=pool chooses free ones and shows a run no others: "
                f"give their number, trainer.devices={count}."
            )
    else:
        count = as_number(devices)
    if kind == GPU and not there:
        raise ValueError(f"trainer.accelerator={accelerator}: no GPU is visible. Use trainer=cpu.")
    if count > there and kind == GPU:
        raise ValueError(
            f"{asked} wants more GPUs at once than there are. Use at most trainer.devices={there}, or list more in "
            "CUDA_VISIBLE_DEVICES if it is set."
        )
    if count > there:
        raise ValueError(
            f"{asked} on the CPU takes as many of the runs that hydra.launcher.workers allows at a time, which is "
            f"{there}. Use at most trainer.devices={there}, or hydra.launcher.workers={count}."
        )
    return kind, max(1, count)


def check_folders(folders: Sequence[Path]) -> None:
    """Refuse two runs in one folder, which here would write it at the same time."""
    for folder, count in Counter(folders).items():
        if count > 1:
            raise ValueError(
                f"hydra.sweep.subdir gives several runs the same folder, {folder}. Put ${{hydra.job.num}} into it."
            )
