"""The configurations of a sweep's jobs: composed by other processes while this one imports PyTorch."""

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from optbench.commands.hydra_internals import compose_job
from optbench.pool.devices import cores
from optbench.pool.preload import import_common, not_forkable
from optbench.pool.processes import PARENT, die_with_parent

Job = tuple[int, Sequence[str]]  # its number, its overrides


def compose_jobs(
    config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int, loader: ConfigLoader
) -> list[DictConfig]:
    """See `compose_job`. One job takes a tenth of a second, importing PyTorch some seconds: so both at once.

    Raises:
        Exception: what Hydra raises for the first job that cannot be composed.
    """
    jobs = list(enumerate(job_overrides, first))
    if len(jobs) > 1 and sys.platform == "linux" and not not_forkable():
        its_first = compose_job(config, jobs[0][1], first, loader)  # a mistake is most often in all of them
        if composed := compose_elsewhere(config, jobs[1:]):
            return [its_first, *composed]
    return [compose_job(config, job, number, loader) for number, job in jobs]


def compose_elsewhere(config: DictConfig, jobs: Sequence[Job]) -> list[DictConfig]:
    """In forked processes; nothing where one of them failed."""
    count = min(len(jobs), max(1, cores() - 1))  # one core imports
    with ProcessPoolExecutor(count, get_context("fork"), initializer=be_a_helper, initargs=(os.getpid(),)) as helpers:
        parts = [helpers.submit(compose_part, config, jobs[k::count]) for k in range(count)]
        import_common()
        if any(part.exception() for part in parts):
            return []
        composed = dict(pair for part in parts for pair in part.result())
    return [composed[number] for number, _ in jobs]


def be_a_helper(parent: int) -> None:
    """Gone with Ctrl-C, and with the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ[PARENT] = str(parent)
    die_with_parent()


def compose_part(config: DictConfig, jobs: Sequence[Job]) -> list[tuple[int, DictConfig]]:
    return [(number, compose_job(config, job, number)) for number, job in jobs]
