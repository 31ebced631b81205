"""What a sweep tells: a line as each run ends, and at the end the comparison, whatever became of its runs."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from optbench.cli import paragraph, sentence
from optbench.record import SUMMARY
from optbench.resume import check_sweep

log = logging.getLogger(__name__)
started: list[tuple[Path, bool]] = []  # this process's sweep, once it has begun: its folder, and whether to compare


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

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)

        def compose(overrides: list[str]) -> Any:
            loader = GlobalHydra.instance().config_loader()
            job = loader.load_configuration(config_name, [*overrides, "output_dir=."], run_mode=RunMode.RUN)
            OmegaConf.update(job, "hydra.job.num", 0)
            HydraConfig.instance().set_config(job)  # for `in_sweep`
            with flag_override(job, "struct", False):
                del job["hydra"]
            return OmegaConf.to_container(job, resolve=True)

        try:
            check_sweep(folder, compose)
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
