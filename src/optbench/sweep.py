"""What a sweep tells: a line as each run ends, and at the end the comparison, whatever became of its runs."""

import copy
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from optbench.cli import paragraph, sentence
from optbench.record import SUMMARY
from optbench.resume import check_sweep

log = logging.getLogger(__name__)
started: list[tuple[Path, bool]] = []  # this process's sweep, once it has begun: its folder, and whether to compare


def compose(loader: ConfigLoader, config: DictConfig, overrides: list[str], number: int) -> DictConfig:
    """The configuration of one job of a sweep, its folder in `hydra.runtime.output_dir`, as Hydra's launcher has it."""
    cfg = loader.load_sweep_config(config, overrides)
    with open_dict(cfg):
        cfg.hydra.job.id = cfg.hydra.job.num = number
    with asked_by_hydra(cfg):  # by the folder's name, perhaps
        folder = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir).absolute()
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(folder)
    return cfg


def without_hydra(cfg: DictConfig) -> DictConfig:
    """What a task is given."""
    task = copy.deepcopy(cfg)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


@contextmanager
def asked_by_hydra(cfg: DictConfig) -> Iterator[None]:
    """Let `${hydra:…}` ask this configuration."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


class SweepLines(Callback):
    """Hydra's hooks around a sweep. Hydra skips `on_multirun_end` when a run failed, hence `conclusion`.

    The launchers of Ray and SLURM pickle it for the processes in which the runs take place, also on other machines:
    there it makes paths and messages what they are where the command was typed.
    """

    away = False

    def __getstate__(self) -> dict[str, Any]:
        return {"argv": sys.argv, "cwd": str(Path.cwd()), "home": str(Path.home())}

    def __setstate__(self, typed: dict[str, Any]) -> None:
        sys.argv = typed["argv"]
        os.chdir(typed["cwd"])
        os.environ["HOME"] = typed["home"]
        self.away = True

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)

        def configuration(overrides: list[str], run: Path) -> Any:
            number = re.match(r"\d+", run.name)
            job = compose(GlobalHydra.instance().config_loader(), config, overrides, int(number[0]) if number else 0)
            with asked_by_hydra(job):
                return OmegaConf.to_container(without_hydra(job), resolve=True)

        setup_globals()
        try:
            check_sweep(folder, configuration)
        except ValueError as error:  # of which Hydra would make a warning
            print("\n" + paragraph(sentence(error)), file=sys.stderr)
            sys.exit(1)
        started.append((folder, config.compare is not False))
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # or Ray takes one run's line for a repetition of another's
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # or it tells everything twice

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if started or self.away:
            log.info("[%s] %s", config.hydra.job.num, ", ".join(config.hydra.overrides.task) or "as configured")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if (started or self.away) and job_return.status == JobStatus.FAILED:
            log.error("[%s] failed: %s", config.hydra.job.num, sentence(job_return._return_value))


@contextmanager
def conclusion(compare: Callable[[Path], object]) -> Iterator[None]:
    """Compare the runs of this process's sweep, if there was one and `compare` is on, when it ends or breaks off.

    Whatever goes wrong there is told and changes nothing of how the sweep ended.
    """
    complete = False
    try:
        yield
        complete = True
    finally:
        folder, wanted = started[0] if started else (Path(), False)
        runs_there = started and any(folder.glob(f"*/{SUMMARY}"))
        if runs_there and not wanted:
            print(f"Everything lies in {folder}")
        elif runs_there:
            try:
                compare(folder)
            except (Exception, KeyboardInterrupt) as error:
                why = "it was interrupted." if isinstance(error, KeyboardInterrupt) else sentence(error)
                advice = f"python src/compare.py runs={folder} tries again"
                print(
                    "\n" + paragraph(f"The runs are there, but not their comparison: {why} {advice}."), file=sys.stderr
                )
        if runs_there and not complete:
            print(f"python src/train.py -m resume={shlex.quote(str(folder))} goes on.")
