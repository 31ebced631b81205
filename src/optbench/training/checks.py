"""Checks before training, for mistakes whose key the class that fails would not know.

`optimizers` checks optimizer.*, `schedulers` scheduler.*, the data modules data.*, the nets model.*
"""

import logging
import os
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR

from optbench.commands.hydra_internals import is_multirun, override_values
from optbench.records.looks import UNTIL_DECIDED
from optbench.records.metrics import monitorable
from optbench.records.trust import CONFIGS
from optbench.records.wording import is_number, near
from optbench.training.averaging import averages
from optbench.training.classifier import Classifier
from optbench.training.lightning_internals import epochs_of
from optbench.training.optimizers import build_optimizer, hyperparameters
from optbench.training.schedulers import build_scheduler, why_idle

log = logging.getLogger(__name__)

WHOLE_NUMBERS = {  # key: the smallest allowed value, where no class checks it; a group that is off has no keys
    "seed": 0,
    "trainer.max_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": -1,
    "scheduler.patience": 0,
    "scheduler.cooldown": 0,
    "callbacks.early_stopping.patience": 0,
    "data.shapes_seed": 0,
}

ONE_CHOICE = ("averaging", "data", "model", "optimizer", "scheduler")  # groups whose files describe one object


def check_choices(overrides: Sequence[str]) -> None:
    """Refuse lists of choices that Hydra merges into something else, without a word.

    Args:
        overrides: of the run, as they were typed.

    Raises:
        ValueError: for the first such list.
    """
    for override in overrides:
        group, values = override_values(override)
        for value in values if (CONFIGS / group).is_dir() else ():
            names = [str(name) for name in value] if isinstance(value, list) else []
            if group in ONE_CHOICE and len(names) > 1:
                raise ValueError(
                    f"{override} is a list, and {group} takes one choice. Use {group}={names[0]}, or -m "
                    f"{group}={','.join(names)} for one run with each."
                )
            if "none" in names and len(names) > 1:
                others = ",".join(name for name in names if name != "none")
                raise ValueError(
                    f"{override}: none stands alone. Use {group}=none for nothing, or {group}=[{others}] without none."
                )
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"{override} names {twice[0]} twice, and it would act once. Name it once.")


def check(cfg: DictConfig, typed: Collection[str]) -> None:
    """Refuse values whose key the class that fails would not know.

    Args:
        typed: the keys that the command line sets.

    Raises:
        ValueError: with a sentence for the first value that is not allowed.
    """
    trainer = cfg.trainer
    for key, least in WHOLE_NUMBERS.items():
        value = OmegaConf.select(cfg, key, default=least)
        if (key, value) == ("seed", UNTIL_DECIDED):
            raise ValueError(
                f"seed={value} adds seeds to a sweep of several configurations: add -m, as in python src/train.py -m "
                f"optimizer=adam,sgd seed={value} (with hydra/sweeper=grid, the default). For one run give a number."
            )
        if type(value) is not int or value < least:
            raise ValueError(f"{key}={value} must be a whole number of at least {least}.")
    if cfg.seed >= 2**32:
        raise ValueError(f"seed={cfg.seed} must be a whole number from 0 to {2**32 - 1}.")
    for limit in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        if not (is_number(trainer[limit]) and trainer[limit] > 0):
            raise ValueError(
                f"trainer.{limit}={trainer[limit]} must be a number of batches, at least 1, or a fraction of them "
                "above 0.0 and up to 1.0."
            )
    clip = trainer.gradient_clip_val
    if isinstance(clip, int | float) and not (is_number(clip) and clip > 0):
        raise ValueError(
            f"trainer.gradient_clip_val={clip} is no limit of a gradient's norm. It must be a number above 0, or null "
            "for no clipping."
        )
    if str(trainer.precision) in ("64", "64-true", "16-true", "bf16-true"):
        raise ValueError(
            f"trainer.precision={trainer.precision} needs images of another type than float32, which they are. Use "
            "32-true, or bf16-mixed or 16-mixed for faster products."
        )
    if not (is_number(cfg.label_smoothing) and 0 <= cfg.label_smoothing < 1):
        raise ValueError(
            f"label_smoothing={cfg.label_smoothing} must be in [0, 1): the fraction of a label that goes to all "
            "classes alike."
        )
    if not (is_number(cfg.l1) and cfg.l1 >= 0):
        raise ValueError(f"l1={cfg.l1} must be a number of at least 0.")
    for key in ("compile", "compare", "test_flips"):
        if type(cfg[key]) is not bool:
            raise ValueError(f"{key}={cfg[key]} must be true or false.")
    layers = OmegaConf.select(cfg, "model.layers")
    if "model.dropout" in typed and layers is not None and not any("dropout" in str(layer) for layer in layers):
        raise ValueError(
            f"model.dropout={cfg.model.dropout} has no effect: no layer of model.layers says dropout. Leave it out, or "
            "name the layers that drop units, for example 'model.layers=[512 relu dropout, 256 relu]'."
        )
    if cfg.test_weights in ("ema", "lookahead", "swa"):
        raise ValueError(
            f"test_weights={cfg.test_weights}: type averaging={cfg.test_weights}. The average is then validated, and "
            "test_weights=best or last is that of the best epoch, or where training ended."
        )
    if cfg.test_weights not in ("best", "last", "none"):
        raise ValueError(f"test_weights={cfg.test_weights} is not known: use best, last or none.")
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
    if OmegaConf.select(cfg, "callbacks.best_checkpoint.save_top_k", default=1) not in (0, 1):
        raise ValueError(
            "callbacks.best_checkpoint.save_top_k must be 1, or 0 to keep no best checkpoint: it is one file."
        )


def check_trainer(trainer: pl.Trainer, cfg: DictConfig, net: nn.Module, mixes: bool) -> None:
    """Refuse what depends on how many devices there are.

    Args:
        mixes: whether the augmentation mixes images.
    """
    if is_multirun() and trainer.world_size > 1:
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} with -m: the processes of one run would start the sweep again. Use "
            "hydra/launcher=pool, which starts every run by itself, or one device for each run."
        )
    if cfg.data.batch_size % trainer.world_size:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size} cannot be divided evenly among {trainer.world_size} devices: "
            f"use a multiple of {trainer.world_size}."
        )
    if mixes and cfg.data.batch_size < 2 * trainer.world_size:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size} leaves each of {trainer.world_size} devices one image, and mixup "
            f"and cutmix mix the images of one device. Use at least data.batch_size={2 * trainer.world_size}."
        )
    batchnorm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    if batchnorm and cfg.data.batch_size < 2:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size} is too small: BatchNorm needs two images a step. Use at least "
            "data.batch_size=2, or a network without batchnorm."
        )


def check_metrics(cfg: DictConfig, classes: Sequence[str]) -> None:
    """Refuse to watch a metric that is not measured."""
    known = monitorable(classes)
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


def check_optimizer(classifier: Classifier, trainer: DictConfig) -> Optimizer:
    """Whatever optimizer, scheduler and average refuse, they refuse before loggers and checkpoints write anything.

    A schedule that can never act within the run's epochs is a warning in the log, and so is one that is not needed.
    """
    optimizer = build_optimizer(classifier.optimizer, classifier.net, classifier.weight_decay_on)
    name = type(optimizer).__name__
    if averages(optimizer) and classifier.average:
        raise ValueError(f"averaging: {name} averages the weights by itself. Use averaging=none.")
    check_average(classifier)
    if getattr(optimizer, "two_passes", False):
        if trainer.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: {name} would compute its second "
                "gradient from one batch alone. Use trainer.accumulate_grad_batches=1, and a larger data.batch_size."
            )
        if str(trainer.precision).startswith("16"):
            raise ValueError(
                f"trainer.precision={trainer.precision}: {name} computes two gradients a step, and the scaling of the "
                "loss that 16 bits need allows one. Use bf16-mixed or 32-true."
            )
    if classifier.scheduler is not None:
        other = build_optimizer(classifier.optimizer, classifier.net, "all")
        schedule, _ = build_scheduler(classifier.scheduler, other, 1000)
        if averages(optimizer) and not isinstance(schedule, ConstantLR):
            log.warning("%s needs no schedule, and this run has one: scheduler=constant turns it off.", name)
        if why := why_idle(schedule, optimizer.param_groups[0]["lr"], trainer.max_epochs):
            log.warning("The schedule can never change the learning rate: %s.", why)
    return optimizer


def check_average(classifier: Classifier) -> None:
    average = classifier.average
    if isinstance(average, partial):
        try:
            average(classifier.net, list, 1000)
        except TypeError as error:
            raise ValueError(f"averaging: {average.func.__name__} refuses its arguments: {error}.") from error


def check_ckpt_path(checkpoint: dict[str, Any], optimizer: Optimizer, cfg: DictConfig) -> None:
    """Refuse a checkpoint that has nothing left to do, or whose optimizer would silently replace the one configured."""
    if "optimizer_states" not in checkpoint:
        raise ValueError(f"ckpt_path={cfg.ckpt_path} has the weights alone: use last.ckpt beside it.")
    done, within = epochs_of(checkpoint)
    if within:
        raise ValueError(
            f"ckpt_path={cfg.ckpt_path} was taken within an epoch, where only its own run can resume. Let that run "
            "end with resume=<its folder>, and take the last.ckpt that it leaves."
        )
    if done >= cfg.trainer.max_epochs:
        raise ValueError(
            f"ckpt_path={cfg.ckpt_path} has trained {done} epochs already: set trainer.max_epochs above {done}, now "
            f"{cfg.trainer.max_epochs}."
        )
    kept = checkpoint.get("average")  # the class of its average
    wanted = cfg.averaging and cfg.averaging._target_.rpartition(".")[2]
    if kept and wanted and kept != wanted:
        raise ValueError(
            f"ckpt_path={cfg.ckpt_path} has a {kept} of the weights, which this run would continue as a {wanted}. Use "
            "the same averaging, or averaging=none."
        )
    theirs, ours = checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups
    chosen = {*hyperparameters(type(optimizer)), "decoupled_weight_decay"}  # a group may have counters, too
    if len(theirs) != len(ours):
        raise ValueError(f"ckpt_path={cfg.ckpt_path} was trained with another weight_decay_on: use the same.")
    for their_group, our_group in zip(theirs, ours, strict=True):
        before = {**their_group, "lr": their_group.get("initial_lr", their_group["lr"])}
        for key in sorted((set(before) | set(our_group)) & chosen):
            old, new = (plain(group.get(key)) for group in (before, our_group))
            if old != new:
                raise ValueError(
                    f"ckpt_path={cfg.ckpt_path} was trained with another optimizer: its {key} is {old}, here it is "
                    f"{new}. Use the same optimizer.* values."
                )


def plain(value: Any) -> Any:
    """A hyperparameter as a checkpoint gives it back: lists and tuples alike."""
    return list(value) if isinstance(value, list | tuple) else value
