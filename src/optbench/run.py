"""The story of one run: seed, data, net, classifier, callbacks, trainer, fit, test once, record."""

import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from optbench import provenance
from optbench.callbacks.divergence_guard import Diverged
from optbench.checkpoint import CheckpointFiles, latest, load_weights, read_checkpoint, sweep_up
from optbench.checks import check, check_ckpt_path, check_metrics, check_optimizer, check_trainer
from optbench.classifier import Classifier
from optbench.cli import PROJECT, in_sweep, metric_mode
from optbench.data.datamodule import ImageDataModule
from optbench.distributed import WholeBatchNorm
from optbench.history import MetricsCSV, Stopwatch, shortened
from optbench.interruption import Interrupted, signals
from optbench.metrics import monitorable
from optbench.processes import mute_others, rank, together, write
from optbench.record import METRICS, RunRecord
from optbench.resume import ENDED, earlier, exclusive, own_configuration

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float:
    """Train, test once, and leave a record, however the run ends. A run that is there already goes on.

    Returns the best value of `monitor`, for sweepers that search; infinitely bad for a run that diverged.
    """
    stopwatch, folder = Stopwatch(), Path(cfg.output_dir)
    mute_others()
    for key in ("data.root", "data.cache_dir", "ckpt_path"):  # the record must hold wherever it is read
        if isinstance(path := OmegaConf.select(cfg, key), str) and path:
            OmegaConf.update(cfg, key, str(Path(path).expanduser().absolute()))
    first = not rank()  # of the processes of this run
    with signals.handled(), exclusive(folder) if first else nullcontext():
        record = earlier(cfg, folder) if first else RunRecord.read(folder)  # which the first has begun
        resumed = record is not None
        if record is None:
            record = begin(cfg)
        elif record.status in ENDED:
            log.info("%s has %s before: nothing is left to do.", folder, record.status)
            return record.objective()
        elif cfg.resume is not None:
            cfg = own_configuration(record, folder)
        record.status, record.error = "running", None
        write(record, folder)
        try:
            train_and_test(cfg, record, folder, stopwatch, resumed)
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
            record.seconds |= {part: round(seconds, 3) for part, seconds in stopwatch.seconds().items()}
            write(record, folder)
            conclude(record, folder)
        return record.objective()


def begin(cfg: DictConfig) -> RunRecord:
    """What stands fixed before a run does anything."""
    hydra = HydraConfig.get()
    return RunRecord(
        started=provenance.now(),
        overrides=list(hydra.overrides.task),
        choices={group: str(name) for group, name in hydra.runtime.choices.items() if not group.startswith("hydra/")},
        monitor=cfg.monitor,
        seed=cfg.seed,
        versions=provenance.versions(),
        git=provenance.describe_git(PROJECT),
        hashes={"code": provenance.code_sha256(PROJECT / "src")},
        config=OmegaConf.to_container(cfg, resolve=True),
    )


def train_and_test(cfg: DictConfig, record: RunRecord, folder: Path, stopwatch: Stopwatch, resumed: bool) -> None:
    """One run, in the order in which things happen; fills `record` on the way."""
    check(cfg)
    silence_lightning()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no one reads it
    provenance.reset_peak_memory()

    data = build_data(cfg)
    check_metrics(cfg, monitorable(data.classes))
    net = build_net(cfg, data.image_shape, data.classes)
    record.classes, record.skipped_images = list(data.classes), list(data.imageset.skipped)
    record.input = {
        "shape": list(data.image_shape),
        "scale": data.scale.flatten().tolist(),
        "shift": data.shift.flatten().tolist(),
    }
    record.images = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    record.parameters = provenance.count_parameters(net)
    hashes = {
        "data": data.imageset.sha256,
        "split": data.split_sha256,
        "initial_weights": provenance.weights_sha256(net),
        "batch_order": data.order_sha256(),
    }

    classifier = Classifier(
        net,
        data.classes,
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        scheduler=instantiate(cfg.scheduler, _convert_="all"),
        monitor=cfg.monitor,
        weight_decay_on=cfg.weight_decay_on,
        seed=cfg.seed,
    )
    optimizer = check_optimizer(classifier)
    own = go_on(record, folder) if resumed else None
    start, step = own or (cfg.ckpt_path, 0 if resumed else None)
    if cfg.ckpt_path and own:
        del hashes["initial_weights"]  # they came from a file that is no longer needed
    elif cfg.ckpt_path:
        checkpoint = read_checkpoint(Path(cfg.ckpt_path), "ckpt_path")
        load_weights(classifier, checkpoint, Path(cfg.ckpt_path), "ckpt_path")
        check_ckpt_path(checkpoint, optimizer, cfg)
        hashes["initial_weights"] = provenance.weights_sha256(net)
    check_same(record.hashes, hashes)
    record.hashes |= hashes
    if cfg.compile:
        net.compile()

    callbacks, loggers = build_callbacks(cfg), build_loggers(cfg, step)
    history = next((logger for logger in loggers if isinstance(logger, MetricsCSV)), stopwatch.history)
    if history not in loggers:
        loggers.append(history)
    stopwatch.history = history
    trainer = build_trainer(cfg, callbacks=[stopwatch, *callbacks], logger=loggers, default_root_dir=folder)
    check_trainer(trainer, cfg, net)
    record.device = provenance.describe_device(trainer)

    with together(trainer, folder):
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=start, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
        finally:
            record.take_epochs(history.rows, lower_is_better=metric_mode(cfg.monitor) == "min")
            record.steps = trainer.global_step  # also those of an epoch that broke off
            peak = provenance.peak_memory_mb(trainer.strategy.root_device)
            record.peak_memory_mb = {key: max(mb, record.peak_memory_mb.get(key, 0.0)) for key, mb in peak.items()}

        started = time.perf_counter()
        record.tested = choose_weights(cfg.test_weights, classifier, trainer)
        trainer.test(classifier, datamodule=data, verbose=False)
        record.test = {
            key: shortened(float(value)) for key, value in trainer.callback_metrics.items() if key.startswith("test/")
        }
        record.seconds["testing"] = round(time.perf_counter() - started, 3)
        history.add_test(record.tested["epoch"], record.test)
        log_hyperparameters(cfg, record, loggers)


def build_data(cfg: DictConfig) -> ImageDataModule:
    augmentation = instantiate(cfg.augmentation, _convert_="all")
    data: ImageDataModule = instantiate(cfg.data, augmentation=augmentation, _convert_="all")
    data.prepare_data()
    data.setup()
    return data


def build_net(cfg: DictConfig, image_shape: tuple[int, int, int], classes: Sequence[str]) -> nn.Module:
    net: nn.Module = instantiate(cfg.model, image_shape=image_shape, classes=len(classes), _convert_="all")
    return net


def build_loggers(cfg: DictConfig, step: int | None) -> list[Logger]:
    """A run that goes on from `step` lets TensorBoard forget what an earlier part of it wrote from there on."""
    built = []
    for logger in (cfg.logger or {}).values():
        if logger:
            forget = step is not None and logger._target_.endswith("TensorBoardLogger")
            built.append(instantiate(logger, _convert_="all", **({"purge_step": step} if forget else {})))
    return built


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """A callback set's entries in their order; an entry may make several callbacks, and null is none."""
    built = [instantiate(callback, _convert_="all") for callback in (cfg.callbacks or {}).values() if callback]
    return [callback for entry in built for callback in (entry if isinstance(entry, list) else [entry])]


def build_trainer(cfg: DictConfig, **parts: Any) -> pl.Trainer:
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in parts["callbacks"])
    checkpoint = any(isinstance(callback, pl.callbacks.Checkpoint) for callback in parts["callbacks"])
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        enable_progress_bar=bar,
        enable_checkpointing=checkpoint,
        use_distributed_sampler=False,  # the datamodule shares out the images
        # within SLURM, too, the processes of a run are started here, and nobody else puts it back in line
        plugins=[CheckpointFiles(), WholeBatchNorm(), LightningEnvironment()],
        _convert_="all",
        **parts,
    )
    return trainer


def choose_weights(test_weights: str, classifier: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """Put the weights to be tested into the classifier, and say which they are."""
    checkpoint = next(
        (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor and c.best_model_path),
        None,
    )
    if test_weights == "last" or checkpoint is None:
        if test_weights == "best":
            log.warning("No checkpoint was kept (callbacks.best_checkpoint), so the last weights are tested.")
        return {"checkpoint": "last", "epoch": trainer.current_epoch}
    path = Path(checkpoint.best_model_path)
    content = read_checkpoint(path, "test_weights")
    load_weights(classifier, content, path, "test_weights")
    return {"checkpoint": "best", "epoch": content["epoch"] + 1}


def log_hyperparameters(cfg: DictConfig, record: RunRecord, loggers: list) -> None:
    """What TensorBoard's HPARAMS compares; it takes final metrics only together with the hyperparameters."""
    values = {group: record.choices[group] for group in ("data", "augmentation", "model", "optimizer", "scheduler")}
    for group in ("model", "optimizer"):
        values |= {f"{group}.{key}": value for key, value in record.config[group].items() if not key.startswith("_")}
    keys = ("seed", "data.batch_size", "trainer.max_epochs", "weight_decay_on")
    values |= {key: OmegaConf.select(cfg, key) for key in keys}
    shown = ("loss", "accuracy")
    metrics = {key: record.test[key] for key in (f"test/{name}" for name in shown)}
    metrics |= {f"val/best_{name}": record.best[f"val/{name}"] for name in shown if f"val/{name}" in record.best}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values, metrics, step=record.steps)
        else:
            logger.log_hyperparams(values)


def silence_lightning() -> None:
    """What Lightning tells that the record states, and warns of that this project has decided."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.callbacks.model_summary").setLevel(logging.INFO)
    for message in (
        ".*does not have many workers.*",  # batches are slices of a tensor: no worker is faster
        ".*LeafSpec.*",
        ".*The `srun` command is available on your system.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",  # ckpt_path of another run
        ".*your dataloader is not resumable.*",  # it is: ImageDataModule skips what the epoch had
        ".*You defined a `validation_step` but have no `val_dataloader`.*",
    ):
        warnings.filterwarnings("ignore", message)


def check_same(before: dict[str, str], now: dict[str, str]) -> None:
    """Raises ValueError where a run that goes on would not be the one that began; a new one has no hashes yet."""
    for key in now:
        if before.get(key, now[key]) != now[key]:
            raise ValueError(
                f"This is no longer the run that began here: the hash of {key} in summary.json is another. Bring back "
                "images and code as they were to go on with it, or start a new run."
            )


def go_on(record: RunRecord, folder: Path) -> tuple[str, int] | None:
    """The checkpoint that a run goes on from and its step; None where it begins anew. The record notes it."""
    rank_zero_only(sweep_up)(folder)
    found = latest(folder)
    code = provenance.code_sha256(PROJECT / "src")
    if record.hashes.get("code", code) != code:
        log.warning("The code has changed since this run began: no run of one version will be paired with it.")
        record.hashes["code"] += f"+{code}"
    step = found[1]["global_step"] if found else 0
    record.resumed.append({"time": provenance.now(), "step": step})
    if found is None:
        log.info("No checkpoint to go on from: the run begins anew.")
        rank_zero_only((folder / METRICS).unlink)(missing_ok=True)
        return None
    log.info("Going on from %s, after step %s.", found[0].name, step)
    return str(found[0]), step


@rank_zero_only
def conclude(record: RunRecord, folder: Path) -> None:
    """The last lines of a run that is not one of a sweep."""
    if in_sweep() or record.status == "failed":
        return
    if record.status == "interrupted":
        log.info("Interrupted. python src/train.py resume=%s goes on.", shlex.quote(str(folder)))
        return
    if record.status == "diverged":
        log.info("Diverged: the loss was no longer finite at step %s.", record.diverged_at_step)
    else:
        log.info(
            "Test accuracy %.4f, loss %.4f with the %s weights (epoch %s); %.1f s of training.",
            record.test["test/accuracy"],
            record.test["test/loss"],
            record.tested["checkpoint"],
            record.tested["epoch"],
            record.seconds["training"],
        )
    log.info("Everything lies in %s", folder)
