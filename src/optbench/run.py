"""The story of one run: seed, data, net, classifier, callbacks, trainer, fit, test once, record."""

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from optbench import record as records
from optbench.callbacks.divergence_guard import Diverged
from optbench.checkpoint import load_weights, read_checkpoint
from optbench.classifier import Classifier
from optbench.cli import PROJECT, in_sweep, metric_mode, near
from optbench.data.datamodule import ImageDataModule
from optbench.metrics import monitorable
from optbench.optimizers import build_optimizer, is_number
from optbench.record import MetricsCSV, RunRecord, Stopwatch
from optbench.schedulers import build_scheduler

log = logging.getLogger(__name__)

WHOLE_NUMBERS = {  # the least of what nobody else checks; a group that is off has none of its keys
    "seed": 0,
    "trainer.max_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": -1,
    "scheduler.patience": 0,
    "scheduler.cooldown": 0,
    "callbacks.early_stopping.patience": 0,
    "callbacks.histograms.every_n_epochs": 1,
    "callbacks.figures.examples": 1,
    "data.shapes_seed": 0,
}


def run(cfg: DictConfig) -> float:
    """Train, test once, and leave a record, however the run ends.

    Returns the best value of `monitor`, for sweepers that search; infinitely bad for a run that diverged.
    """
    began = time.perf_counter()
    folder = Path(cfg.output_dir)
    hydra = HydraConfig.get()
    record = RunRecord(
        started=records.now(),
        overrides=list(hydra.overrides.task),
        choices={group: str(name) for group, name in hydra.runtime.choices.items() if not group.startswith("hydra/")},
        monitor=cfg.monitor,
        seed=cfg.seed,
        versions=records.versions(),
        git=records.describe_git(PROJECT),
        config=OmegaConf.to_container(cfg, resolve=True),
    )
    write(record, folder)
    try:
        train_and_test(cfg, record, folder, began)
        record.status = "completed"
    except Diverged as error:
        record.status, record.diverged_at_step = "diverged", error.step
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C into SystemExit
        record.status = "interrupted"
        raise KeyboardInterrupt from error
    except BaseException as error:
        record.fail(error)
        raise
    finally:
        record.seconds["total"] = round(time.perf_counter() - began, 3)
        write(record, folder)
    conclude(record, folder)
    worst = float("inf") if metric_mode(cfg.monitor) == "min" else -float("inf")
    value = record.best.get(cfg.monitor) if record.status == "completed" else None
    return worst if value is None else value


def train_and_test(cfg: DictConfig, record: RunRecord, folder: Path, began: float) -> None:
    """One run, in the order in which things happen; fills `record` on the way."""
    check(cfg)
    silence_lightning()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)

    data = build_data(cfg)
    check_metrics(cfg, monitorable(data.classes))
    net = build_net(cfg, data)
    record.classes, record.skipped_images = list(data.classes), list(data.imageset.skipped)
    record.input = {
        "shape": list(data.image_shape),
        "scale": data.scale.flatten().tolist(),
        "shift": data.shift.flatten().tolist(),
    }
    record.images = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    record.parameters = records.count_parameters(net)
    record.hashes = {
        "data": data.imageset.sha256,
        "split": data.split_sha256,
        "initial_weights": records.weights_sha256(net),
        "batch_order": data.order_sha256(),
    }

    classifier = Classifier(
        net,
        data.classes,
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        scheduler=instantiate(cfg.scheduler, _convert_="all"),
        monitor=cfg.monitor,
        weight_decay_on=cfg.weight_decay_on,
    )
    try_out(classifier)
    if cfg.ckpt_path:
        load_weights(classifier, read_checkpoint(Path(cfg.ckpt_path), "ckpt_path"), Path(cfg.ckpt_path), "ckpt_path")
    if cfg.compile:
        net.compile()

    stopwatch, callbacks = Stopwatch(), build_callbacks(cfg)
    loggers = [instantiate(logger, _convert_="all") for logger in (cfg.logger or {}).values() if logger]
    history = next((logger for logger in loggers if isinstance(logger, MetricsCSV)), MetricsCSV())
    if history not in loggers:
        loggers.append(history)
    trainer = build_trainer(cfg, callbacks=[stopwatch, *callbacks], logger=loggers, default_root_dir=folder)
    record.device = records.describe_device(trainer)

    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
    finally:
        record.take_epochs(history.rows, lower_is_better=metric_mode(cfg.monitor) == "min")
        record.steps = trainer.global_step
        record.peak_memory_mb = records.peak_memory_mb(trainer.strategy.root_device)
        if stopwatch.started is not None:
            record.seconds["startup"] = round(stopwatch.started - began, 3)
            record.seconds["training"] = round(stopwatch.stopped - stopwatch.started, 3)

    started = time.perf_counter()
    record.tested = choose_weights(cfg.test_weights, classifier, trainer)
    trainer.test(classifier, datamodule=data, verbose=False)
    record.test = {
        key: records.shortened(float(value))
        for key, value in trainer.callback_metrics.items()
        if key.startswith("test/")
    }
    record.seconds["testing"] = round(time.perf_counter() - started, 3)
    history.add_test(record.tested["epoch"], record.test)
    log_hyperparameters(cfg, record, loggers)


def check(cfg: DictConfig) -> None:
    """Refuse what no class below could name by its key.

    Raises:
        ValueError: with a sentence for the first value that is not allowed.
    """
    trainer = cfg.trainer
    for key, least in WHOLE_NUMBERS.items():
        value = OmegaConf.select(cfg, key, default=least)
        if type(value) is not int or value < least:
            raise ValueError(f"{key}={value} must be a whole number of at least {least}.")
    if cfg.seed >= 2**32:
        raise ValueError(f"seed={cfg.seed} must be a whole number from 0 to {2**32 - 1}.")
    for limit in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        if not (is_number(trainer[limit]) and trainer[limit] > 0):
            raise ValueError(
                f"trainer.{limit}={trainer[limit]} must be a number of batches, at least 1, or a part of them above "
                "0.0 and up to 1.0."
            )
    if type(cfg.compile) is not bool:
        raise ValueError(f"compile={cfg.compile} must be true or false.")
    if cfg.test_weights not in ("best", "last"):
        raise ValueError(f"test_weights={cfg.test_weights} is not known: use best or last.")
    if cfg.matmul_precision not in ("highest", "high", "medium"):
        raise ValueError(f"matmul_precision={cfg.matmul_precision} is not known: use highest, high or medium.")
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={trainer.accelerator}: PyTorch finds no GPU on this machine. Use trainer=cpu, or "
            "leave trainer.accelerator=auto, which takes a GPU where there is one."
        )
    cores = os.cpu_count() or 1
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and isinstance(trainer.devices, int) and trainer.devices > cores:
        raise ValueError(
            f"trainer.devices={trainer.devices} on the CPU would start as many processes on {cores} cores; use at most "
            f"trainer.devices={cores}."
        )
    if in_sweep() and isinstance(trainer.devices, int) and trainer.devices > 1:
        raise ValueError(
            f"trainer.devices={trainer.devices} with -m: the processes of one run would start the sweep again. Use one "
            "device a run in a sweep, or start the runs one by one without -m."
        )


def check_metrics(cfg: DictConfig, known: list[str]) -> None:
    """Refuse to watch a metric that is not measured."""
    watched = {"monitor": str(cfg.monitor)}
    for name, callback in (cfg.callbacks or {}).items():
        if isinstance(callback, DictConfig) and callback.get("monitor"):
            watched[f"callbacks.{name}.monitor"] = callback.monitor
    for key, metric in watched.items():
        if metric not in known:
            raise ValueError(
                f"{key}={metric} is not measured{near(metric, known)} There are, with val/ or train/ before them: "
                f"{', '.join(name[4:] for name in known if name.startswith('val/'))}."
            )


def build_data(cfg: DictConfig) -> ImageDataModule:
    augmentation = instantiate(cfg.augmentation, _convert_="all")
    data: ImageDataModule = instantiate(cfg.data, augmentation=augmentation, _convert_="all")
    data.prepare_data()
    data.setup()
    return data


def build_net(cfg: DictConfig, data: ImageDataModule) -> nn.Module:
    net: nn.Module = instantiate(cfg.model, image_shape=data.image_shape, classes=len(data.classes), _convert_="all")
    return net


def try_out(classifier: Classifier) -> None:
    """Whatever optimizer and scheduler refuse, they refuse before loggers and checkpoints write anything."""
    optimizer = build_optimizer(classifier.optimizer, classifier.net, classifier.weight_decay_on)
    if classifier.scheduler is not None:
        build_scheduler(classifier.scheduler, optimizer, total_steps=1000)


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """A callback set's entries in their order; an entry may make several callbacks, and null is none."""
    built = [instantiate(callback, _convert_="all") for callback in (cfg.callbacks or {}).values() if callback]
    return [callback for entry in built for callback in (entry if isinstance(entry, list) else [entry])]


def build_trainer(cfg: DictConfig, **parts: Any) -> pl.Trainer:
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in parts["callbacks"])
    checkpoint = any(isinstance(callback, ModelCheckpoint) for callback in parts["callbacks"])
    trainer: pl.Trainer = instantiate(
        cfg.trainer, enable_progress_bar=bar, enable_checkpointing=checkpoint, _convert_="all", **parts
    )
    return trainer


def choose_weights(test_weights: str, classifier: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """Put the weights to be tested into the classifier, and say which they are."""
    checkpoint = next(
        (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path), None
    )
    if test_weights == "last" or checkpoint is None:
        if test_weights == "best":
            log.warning("No checkpoint was kept (callbacks.checkpoint), so the last weights are tested.")
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
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.callbacks.model_summary").setLevel(logging.INFO)
    for message in (
        ".*does not have many workers.*",  # batches are slices of a tensor: no worker is faster
        ".*LeafSpec.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",  # ckpt_path of another run
        ".*You defined a `validation_step` but have no `val_dataloader`.*",
    ):
        warnings.filterwarnings("ignore", message)


@rank_zero_only
def write(record: RunRecord, folder: Path) -> None:
    record.write(folder)


@rank_zero_only
def conclude(record: RunRecord, folder: Path) -> None:
    """The last lines of a run that is not one of a sweep."""
    if in_sweep():
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
