"""From the configuration to the parts of a run: every group of `configs/` becomes an object here."""

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from optbench.data.augmentation import Augmentation
from optbench.data.datamodule import ImageDataModule
from optbench.data.imageset import ImageSet
from optbench.distributed.batchnorm import WholeBatchNorm
from optbench.recovery.checkpoint import CheckpointFiles, load_weights, read_checkpoint
from optbench.training.classifier import Classifier
from optbench.training.lightning_internals import skip_empty_hooks
from optbench.training.memory import keep_freed

log = logging.getLogger(__name__)


def set_up_libraries(cfg: DictConfig) -> None:
    """Seed every generator, and set what PyTorch and Lightning keep for the whole process."""
    quiet_lightning()
    keep_freed()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no one reads it
    if not torch.cuda.is_available():  # or, as Lightning sets it, each step of Adam looks for NVIDIA's library
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


BATCHES = ("batch_size", "val_size", "order_seed", "normalization")  # keys of `data` that change no image
images_read: dict[str, ImageSet] = {}  # by their source: what was read ahead, for all runs forked from this process


def source_of(data: Mapping[str, Any]) -> str:
    """The resolved group `data` without what changes no image; two runs of one source have the same images."""
    keys = {key: value for key, value in data.items() if key not in BATCHES}
    keys |= {key: str(Path(keys[key]).expanduser().absolute()) for key in ("root", "cache_dir") if keys.get(key)}
    return json.dumps(keys, sort_keys=True)


def read_ahead(data: Mapping[str, Any]) -> None:
    """Read the images of a source, and hash them."""
    module: ImageDataModule = instantiate(dict(data), _convert_="all")
    module.prepare_data()
    images = module.load()
    images.sha256  # noqa: B018  # kept in the ImageSet
    images_read[source_of(data)] = images


def build_data(cfg: DictConfig) -> ImageDataModule:
    data: ImageDataModule = instantiate(cfg.data, augmentation=build_augmentation(cfg), _convert_="all")
    source: Any = OmegaConf.to_container(cfg.data, resolve=True)
    data.read_ahead = images_read.get(source_of(source))
    data.prepare_data()
    data.setup()
    return data


def build_augmentation(cfg: DictConfig) -> list[Augmentation]:
    """The entries in their order; null is none.

    Raises:
        ValueError: for an entry that is no augmentation.
    """
    built = []
    for name, entry in (cfg.augmentation or {}).items():
        if entry is None:
            continue
        if isinstance(entry, DictConfig) and "_target_" not in entry:  # of an experiment whose choice was replaced
            raise ValueError(
                f"augmentation.{name} has {', '.join(map(str, entry))}, but augmentation= does not choose {name}. Add "
                f"it there, or type augmentation.{name}=null, which leaves it out."
            )
        part = instantiate(entry, _convert_="all") if isinstance(entry, DictConfig) else entry
        if not isinstance(part, Augmentation):
            raise ValueError(
                f"augmentation.{name}={OmegaConf.select(cfg, f'augmentation.{name}._target_', default=entry)} is no "
                "subclass of optbench.data.augmentation.Augmentation, which docs/augmentation.md shows how to write. "
                f"augmentation.{name}=null turns it off."
            )
        built.append(part)
    return built


def build_net(cfg: DictConfig, image_shape: tuple[int, int, int], classes: Sequence[str]) -> nn.Module:
    """`image_shape`: (C, H, W)."""
    net: nn.Module = instantiate(cfg.model, image_shape=image_shape, classes=len(classes), _convert_="all")
    return net


def initialize_net(net: nn.Module, data: ImageDataModule) -> None:
    """Show 1,000 training images, normalized, to a network that asks for them by having a method `initialize`."""
    initialize = getattr(net, "initialize", None)
    if callable(initialize):
        count = min(1000, len(data.train))
        places = torch.arange(count) * len(data.train) // count  # a folder's images come class by class
        initialize(data.normalize(data.train.images[data.train.indices[places]]))


def build_classifier(cfg: DictConfig, net: nn.Module, classes: tuple[str, ...]) -> Classifier:
    return Classifier(
        net,
        classes,
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        scheduler=instantiate(cfg.scheduler, _convert_="all"),
        monitor=cfg.monitor,
        weight_decay_on=cfg.weight_decay_on,
        seed=cfg.seed,
        label_smoothing=cfg.label_smoothing,
        l1=cfg.l1,
        average=instantiate(cfg.averaging, _convert_="all"),
        test_flips=cfg.test_flips,
    )


def metrics_path(cfg: DictConfig) -> Path | None:
    """Where `logger=csv` has metrics.csv written; None without it."""
    path = OmegaConf.select(cfg, "logger.csv.path")
    return Path(path) if path else None


def build_loggers(cfg: DictConfig, step: int | None) -> list[Logger]:
    """Lightning's loggers. metrics.csv has none: `callbacks.epoch_history.EpochHistory` writes it.

    Args:
        step: from which a run resumes; TensorBoard forgets what an earlier part of it wrote from there on.
    """
    built = []
    for name, logger in (cfg.logger or {}).items():
        if logger and name != "csv":
            forget = step is not None and logger._target_.endswith("TensorBoardLogger")
            built.append(instantiate(logger, _convert_="all", **({"purge_step": step} if forget else {})))
    return built


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """A callback set's entries in their order; an entry may make several callbacks, and null is none."""
    built = [instantiate(callback, _convert_="all") for callback in (cfg.callbacks or {}).values() if callback]
    return [callback for entry in built for callback in (entry if isinstance(entry, list) else [entry])]


def build_trainer(cfg: DictConfig, folder: Path, callbacks: list[pl.Callback], loggers: list[Logger]) -> pl.Trainer:
    """Files of the run go below `folder`."""
    if not loggers:  # it refuses a trainer without
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        use_distributed_sampler=False,  # the datamodule gives each process its images
        # within SLURM, too, Lightning starts the processes of a run and does not requeue it
        plugins=[CheckpointFiles(), WholeBatchNorm(), LightningEnvironment()],
        _convert_="all",
    )
    skip_empty_hooks(trainer)
    return trainer


def choose_weights(test_weights: str, classifier: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """Put the weights to be tested into the classifier, and say which they are: `checkpoint`, and their `epoch`."""
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


def quiet_lightning() -> None:
    """Silence what the record states anyway, and warnings of what this project has decided."""
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
