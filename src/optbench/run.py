"""The story of one run: seed, data, net, classifier, trainer, fit, test once, record."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger

from optbench.callbacks.epoch_history import rounded
from optbench.distributed.supervisor import supervise_ranks
from optbench.records.metrics import SHOWN
from optbench.records.record import RunRecord
from optbench.recovery.checkpoint import load_weights, read_checkpoint
from optbench.recovery.session import Session, open_session
from optbench.training import build, provenance
from optbench.training.averaging import weights_to_train_on
from optbench.training.checks import (
    check,
    check_choices,
    check_ckpt_path,
    check_metrics,
    check_optimizer,
    check_trainer,
)


def run(cfg: DictConfig) -> float:
    """Train, test once, and leave a record, however the run ends. A run that is in the folder already resumes.

    Returns the best value of `monitor`, for sweepers that search; infinitely bad for a run that diverged.
    """
    with open_session(cfg) as session:
        if not session.has_ended:
            train_and_test(session.cfg, session)
    return session.record.objective()


def train_and_test(cfg: DictConfig, session: Session) -> None:
    """One run, in the order in which things happen; fills `session.record` on the way."""
    record, history = session.record, session.history
    check_choices(record.overrides)
    check(cfg, session.typed)
    build.set_up_libraries(cfg)
    provenance.reset_peak_memory()

    data = build.build_data(cfg)
    check_metrics(cfg, data.classes)
    net = build.build_net(cfg, data.image_shape, data.classes)
    build.initialize_net(net, data)
    provenance.describe_inputs(record, data, net)
    hashes = provenance.input_hashes(data, net)

    classifier = build.build_classifier(cfg, net, data.classes)
    optimizer = check_optimizer(classifier, cfg.trainer)
    resumes_at = session.resume_point()
    if cfg.ckpt_path and resumes_at:
        del hashes["initial_weights"]  # they came from a file that is no longer needed
    elif cfg.ckpt_path:
        checkpoint = read_checkpoint(Path(cfg.ckpt_path), "ckpt_path")
        trained = weights_to_train_on(checkpoint)
        load_weights(classifier, {"state_dict": trained}, Path(cfg.ckpt_path), "ckpt_path")
        check_ckpt_path(checkpoint, optimizer, cfg)
        hashes["initial_weights"] = provenance.weights_sha256(net)
    session.check_hashes(hashes)
    if cfg.compile:
        net.compile()

    start, step = resumes_at or (cfg.ckpt_path, 0 if session.resumed else None)
    history.path = build.metrics_path(cfg)
    loggers = build.build_loggers(cfg, step)
    trainer = build.build_trainer(cfg, session.folder, [history, *build.build_callbacks(cfg)], loggers)
    check_trainer(trainer, cfg, net, data.mixes)
    record.device = provenance.describe_device(trainer)

    with supervise_ranks(trainer, session.folder):
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=start, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
        finally:
            record.take_epochs(history.rows)
            record.steps = trainer.global_step  # also those of an epoch that broke off
            provenance.add_peak_memory(record, trainer)

        if cfg.test_weights != "none":  # a search must not know the test set
            started = time.perf_counter()
            record.tested = build.choose_weights(cfg.test_weights, classifier, trainer)
            trainer.test(classifier, datamodule=data, verbose=False)
            record.test = test_metrics(trainer)
            record.seconds["testing"] = round(time.perf_counter() - started, 3)
            history.add_test(record.tested["epoch"], record.test)
        log_hyperparameters(cfg, record, trainer)


def test_metrics(trainer: pl.Trainer) -> dict[str, float | None]:
    found = trainer.callback_metrics.items()
    return {key: rounded(float(value)) for key, value in found if key.startswith("test/")}


def log_hyperparameters(cfg: DictConfig, record: RunRecord, trainer: pl.Trainer) -> None:
    """What TensorBoard's HPARAMS compares; it takes final metrics only together with the hyperparameters."""
    values: dict[str, Any] = {
        group: record.choices[group]
        for group in ("data", "augmentation", "model", "optimizer", "scheduler", "averaging")
    }
    for group in ("model", "optimizer"):
        values |= {f"{group}.{key}": value for key, value in record.config[group].items() if not key.startswith("_")}
    keys = ("seed", "data.batch_size", "trainer.max_epochs", "weight_decay_on", "label_smoothing", "l1")
    values |= {key: OmegaConf.select(cfg, key) for key in keys}
    metrics = {f"test/{name}": record.test[f"test/{name}"] for name in SHOWN if record.test}
    metrics |= {f"val/best_{name}": record.best[f"val/{name}"] for name in SHOWN if f"val/{name}" in record.best}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values, metrics, step=record.steps)
            logger.save()  # the process may end before a thread has written them
        else:
            logger.log_hyperparams(values)
