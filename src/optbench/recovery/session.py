"""What surrounds a run: its folder is locked, signals wait for a checkpoint, and it leaves a record however it ends."""

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from optbench.callbacks.divergence_guard import Diverged
from optbench.callbacks.epoch_history import EpochHistory
from optbench.commands.hydra_internals import in_sweep
from optbench.distributed.ranks import is_first, mute_others
from optbench.records.configuration import key_of, rebased, refuse_other_configuration
from optbench.records.record import ENDED, METRICS_CSV, SUMMARY, RunRecord, refuse_used_folder
from optbench.records.trust import Trust, check_places, check_record
from optbench.recovery.checkpoint import latest, sweep_up
from optbench.recovery.signals import Interrupted, signals
from optbench.training import provenance

log = logging.getLogger(__name__)


@dataclass
class Session:
    """A run in its folder.

    Attributes:
        cfg: what was typed, or for a run that resumes by `resume=<folder>`, what it began with.
        record: written to `folder` whenever its status changes.
        history: its epochs and seconds.
        resumed: the folder holds the run already, and it continues.
    """

    cfg: DictConfig
    folder: Path
    record: RunRecord
    history: EpochHistory
    resumed: bool

    @property
    def has_ended(self) -> bool:
        """Whether the run has a result already: nothing is left to do."""
        return self.record.status in ENDED

    @property
    def typed(self) -> set[str]:
        """The keys that the run's command line set."""
        return {key_of(override) for override in self.record.overrides}

    def resume_point(self) -> tuple[Path, int] | None:
        """The checkpoint from which this run resumes, and its step; None where it begins at the beginning."""
        if not self.resumed:
            return None
        if is_first():
            sweep_up(self.folder)
        found = latest(self.folder)
        code = provenance.own_code_sha256()
        if self.record.hashes.get("code", code) != code:
            log.warning("The code has changed since this run began: it will not be paired with runs of one version.")
            self.record.hashes["code"] += f"+{code}"
        step = found[1]["global_step"] if found else 0
        self.record.resumed.append({"time": provenance.now(), "step": step})
        if found is None:
            log.info("No checkpoint to resume from: the run begins anew.")
            if is_first():
                (self.folder / METRICS_CSV).unlink(missing_ok=True)
            return None
        log.info("Resuming from %s, after step %s.", found[0].name, step)
        return found[0], step

    def check_hashes(self, hashes: dict[str, str]) -> None:
        """Keep the hashes of a new run, also on the disk, where a run that is killed needs them.

        Raises:
            ValueError: where a run that resumes would not be the one that began.
        """
        if not is_first():  # the others get its weights; with fewer threads they may compute other last bits
            return
        for key, value in hashes.items():
            if self.record.hashes.get(key, value) != value:
                raise ValueError(
                    f"This is no longer the run that began here: the hash of {key} differs from the one in "
                    "summary.json. Restore images and code as they were to resume it, or start a new run."
                )
        self.record.hashes |= hashes
        write(self.record, self.folder)


@contextmanager
def open_session(cfg: DictConfig) -> Iterator[Session]:
    """Hold a run's folder for as long as it runs, and write its record however it ends.

    A run that diverges ends the block quietly: that is its result. Every other error is recorded and raised again.

    Raises:
        ValueError: where another process holds the folder, or the folder holds another run.
    """
    history, folder = EpochHistory(), Path(cfg.output_dir)
    mute_others()
    for key in ("data.root", "data.cache_dir", "ckpt_path"):  # the record must hold wherever it is read
        if isinstance(path := OmegaConf.select(cfg, key), str) and path:
            OmegaConf.update(cfg, key, str(Path(path).expanduser().absolute()))
    with signals.handled(), locked(folder) if is_first() else nullcontext():
        earlier = earlier_record(cfg, folder) if is_first() else RunRecord.read(folder)  # the first one has written it
        if earlier is not None and earlier.status in ENDED:
            log.info("%s has %s before: nothing is left to do.", folder, earlier.status)
            yield Session(cfg, folder, earlier, history, resumed=True)
            return
        if earlier is not None and cfg.resume is not None:
            cfg = own_configuration(earlier, folder, cfg.trust)
        record = earlier or new_record(cfg)
        record.status, record.error = "running", None
        write(record, folder)
        try:
            yield Session(cfg, folder, record, history, resumed=earlier is not None)
            record.status = "completed"
            (folder / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
        except Diverged as error:
            record.status, record.diverged_at_step = "diverged", error.step
        except (KeyboardInterrupt, SystemExit, Interrupted) as error:
            record.status = "interrupted"
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into SystemExit
                raise KeyboardInterrupt from error
            raise
        except BaseException as error:
            record.fail(error)
            raise
        finally:
            if (wandb := sys.modules.get("wandb")) and wandb.run:  # or the next run of a sweep would join this one
                wandb.finish()
            record.seconds |= {part: round(seconds, 3) for part, seconds in history.seconds().items()}
            write(record, folder)
            print_outcome(record, folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder: a lock that the system takes from a process when it dies.

    Raises:
        ValueError: where another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} is in use: another process is working on this run. Wait for it, or stop it first."
        ) from error
    try:
        yield
    finally:
        lock.release()


def earlier_record(cfg: DictConfig, folder: Path) -> RunRecord | None:
    """The record of the run that resumes in `folder`; None where a new one begins.

    A run of a sweep that finds itself there resumes: the sweep is resumed, or a launcher has started the run again.

    Raises:
        ValueError: where the folder holds another run, or `resume` was not given.
    """
    if cfg.resume is None and not in_sweep():
        refuse_used_folder(folder)
        return None
    if not (folder / SUMMARY).exists():
        return None
    try:
        record = RunRecord.read(folder)
    except ValueError as error:
        raise ValueError(f"{error} To begin this run anew, remove {folder}.") from error
    if cfg.resume is None:
        refuse_other_configuration(record.config, OmegaConf.to_container(cfg, resolve=True), folder)
    return record


def new_record(cfg: DictConfig) -> RunRecord:
    """What is known before a run does anything."""
    hydra = HydraConfig.get()
    choices = {group: str(name) for group, name in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    entries = [name for name, entry in (cfg.augmentation or {}).items() if entry]  # Hydra keeps no list of choices
    return RunRecord(
        started=provenance.now(),
        overrides=list(hydra.overrides.task),
        choices={**choices, "augmentation": "+".join(map(str, entries)) or "none"},
        monitor=cfg.monitor,
        seed=cfg.seed,
        versions=provenance.versions(),
        git=provenance.describe_git(),
        hashes={"code": provenance.own_code_sha256()},
        config=OmegaConf.to_container(cfg, resolve=True),
    )


def own_configuration(record: RunRecord, folder: Path, trust: Trust) -> DictConfig:
    """The configuration that a run began with, in the folder where it is now.

    Raises:
        ValueError: where it would build a class that is neither known nor trusted, or write elsewhere.
    """
    moved = rebased(record.config, record.config["output_dir"], str(folder))
    check_record(moved, folder, trust)
    check_places(moved, folder)
    config = OmegaConf.create(moved)
    assert isinstance(config, DictConfig)
    return config


def write(record: RunRecord, folder: Path) -> None:
    """The first process writes; another writes only its failure, which is there before the first one notices.

    A record that can't be written must not hide why the run ended.
    """
    if not is_first() and record.status != "failed":
        return
    try:
        record.write(folder)
    except OSError as error:
        if record.status in ("running", *ENDED):
            raise
        log.error("summary.json could not be written (%s): it still says that the run is running.", error.strerror)


def print_outcome(record: RunRecord, folder: Path) -> None:
    """The last lines of a run that is not one of a sweep."""
    if in_sweep() or record.status == "failed" or not is_first():
        return
    if record.status == "interrupted":
        log.info("Interrupted. To resume: python src/train.py resume=%s", shlex.quote(str(folder)))
        return
    if record.status == "diverged":
        log.info("Diverged: the loss was no longer finite at step %s.", record.diverged_at_step)
    elif not record.test:
        log.info("Completed without a test (test_weights=none); %.1f s of training.", record.seconds["training"])
    else:
        log.info(
            "Test accuracy %.4f, loss %.4f with the %s weights (epoch %s); %.1f s of training.",
            record.test["test/accuracy"],
            record.test["test/loss"],
            record.tested["checkpoint"],
            record.tested["epoch"],
            record.seconds["training"],
        )
    log.info("Everything is in %s", folder)
