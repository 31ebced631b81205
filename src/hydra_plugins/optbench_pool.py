"""`hydra/launcher=pool` and `hydra/sweeper=grid`. Hydra imports this file whenever it starts: the rest loads later."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


class PoolLauncher(Launcher):
    """Runs in processes of their own, as many at a time as there are devices; see configs/hydra/launcher/pool.yaml."""

    def __init__(
        self, workers: int | None, jobs_per_device: int, timeout: float | None, grace: float, fail_fast: bool
    ) -> None:
        self.workers = workers
        self.jobs_per_device = jobs_per_device
        self.timeout = timeout
        self.grace = grace
        self.fail_fast = fail_fast
        self.largest_batch = 0  # of a sweep that has several: each run gets as many threads as the runs of that one

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence["JobReturn"]:
        from optbench.pool.launch import PoolSettings, launch

        settings = PoolSettings(self.workers, self.jobs_per_device, self.timeout, self.grace, self.fail_fast)
        task, config = self.task_function, self.config
        return launch(settings, self.hydra_context, task, config, job_overrides, initial_job_idx, self.largest_batch)


class GridSweeper(BasicSweeper):
    """All combinations of the given values, as Hydra's sweeper has them; `seed=until_decided` adds seeds by a plan."""

    def sweep(self, arguments: list[str]) -> Any:
        given = [*self._parse_config(), *arguments]
        if any("until_decided" in argument for argument in given):
            from optbench.commands import until_decided

            if until_decided.wanted(given):
                return until_decided.sweep(self, given)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Composing every job to see whether it can be composed: the pool does it anyway, before any of them starts."""
        if not isinstance(self.launcher, PoolLauncher):
            super().validate_batch_is_legal(batch)
