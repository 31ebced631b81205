"""Finished runs as a sweep leaves them, made without training: for the comparison's tests and benchmarks."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from optbench.comparison.analysis import Comparison
from optbench.records.files import write_csv
from optbench.records.record import RunRecord

LEARNING_RATES = {"adam": 0.001, "adamw": 0.001, "rmsprop": 0.001, "sgd": 0.04}


def write_run(
    folder: Path,
    optimizer: str = "adam",
    seed: int = 0,
    accuracy: float = 0.5,
    epochs: int = 5,
    status: str = "completed",
    overrides: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A run's folder with summary.json and metrics.csv.

    `accuracy` is that of the test set; validation rises to half a point above it in the last epoch. `config` holds
    dotted keys of the configuration; `changes` are fields of the record, dictionaries added to what stands there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "optimizer.lr": LEARNING_RATES.get(optimizer, 0.01),
        "model.dropout": 0.2,
        "trainer.max_epochs": epochs,
        "trainer.limit_test_batches": 1.0,
        "data.batch_size": 50,
        "data.order_seed": seed,
        "seed": seed,
        "output_dir": str(folder),
        "logger.csv.path": f"{folder}/metrics.csv",
        **(config or {}),
    }
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *groups, name = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    rows = epoch_rows(accuracy, epochs, values["optimizer.lr"])
    diverged = status == "diverged"
    record = RunRecord(
        status=status,
        started=f"2026-01-02T03:{seed % 60:02d}:00+00:00",
        overrides=[f"optimizer={optimizer}", f"seed={seed}", *overrides],
        choices={
            "data": "shapes",
            "model": "mlp",
            "optimizer": optimizer,
            "scheduler": "constant",
            "experiment": "None",
        },
        monitor="val/loss",
        seed=seed,
        steps=6 * epochs,
        diverged_at_step=6 * epochs if diverged else None,
        seconds={
            "startup": 1.0,
            "training": rows[-1]["seconds"] if rows else 0.0,
            "testing": 0.1,
            "total": 2.0 + epochs,
        },
        parameters={"trainable": 1000, "statistics": 0},
        classes=["a", "b"],
        images={"train": 270, "val": 30, "test": 60},
        hashes={
            "code": "c0de",
            "data": "da7a",
            "split": "5911",
            "initial_weights": f"w{seed}",
            "batch_order": f"b{seed}",
        },
        peak_memory_mb={"process": 300.0},
        device={
            "host": "here",
            "accelerator": "cpu",
            "name": "a CPU",
            "devices": 1,
            "threads": 1,
            "precision": "32-true",
        },
        versions={"python": "3.11.7", "torch": "2.15.0", "torchvision": "0.29.2", "pytorch-lightning": "2.6.6"},
        git={"commit": "0" * 40, "dirty": False},
        config=nested,
    )
    record.take_epochs(rows)
    if status == "completed":
        record.test = {"test/accuracy": accuracy, "test/loss": round(2 * (1 - accuracy), 6)}
        record.tested = {"checkpoint": "last", "epoch": epochs}
    if status == "failed":
        record.error = {"type": "ValueError", "message": "first line\nlast line", "traceback": "…"}
    for name, change in changes.items():
        setattr(record, name, getattr(record, name) | change if isinstance(change, dict) else change)
    record.write(folder)
    if rows:
        write_csv(folder / "metrics.csv", list(rows[0]), rows)
    return record


def epoch_rows(accuracy: float, epochs: int, lr: float) -> list[dict[str, float]]:
    """Curves that approach their end like most do."""
    rows = []
    for epoch in range(1, epochs + 1):
        reached = (1 - math.exp(-epoch)) / (1 - math.exp(-epochs))
        val = 0.1 + (accuracy + 0.005 - 0.1) * reached
        rows.append(
            {
                "epoch": epoch,
                "step": 6 * epoch,
                "seconds": 1.5 * epoch,
                "epoch_seconds": 1.5,
                "lr": lr,
                "train/accuracy": round(val + 0.03 * reached, 6),
                "train/loss": round(2 * (1 - val) - 0.06 * reached, 6),
                "val/accuracy": round(val, 6),
                "val/loss": round(2 * (1 - val), 6),
            }
        )
    return rows


def write_sweep(
    folder: Path,
    means: Mapping[str, float],
    seeds: Iterable[int] = (0, 1, 2),
    sd: float = 0.004,
    random_seed: int = 0,
    **settings: Any,
) -> Path:
    """A run for each optimizer of `means` (its true test accuracy) and seed, with normal noise of deviation `sd`."""
    generator = np.random.default_rng(random_seed)
    number = 0
    for optimizer, mean in means.items():
        for seed in seeds:
            accuracy = round(mean + sd * float(generator.standard_normal()), 4)
            write_run(folder / f"{number}_optimizer={optimizer},seed={seed}", optimizer, seed, accuracy, **settings)
            number += 1
    return folder


def changed(comparison: Comparison, **values: Any) -> Comparison:
    """The same comparison with other values in the fields of its parts.

    Sentences follow what they are about: none of a sensitivity or an interaction that is gone, and times that are
    withheld come from two devices.
    """
    facts, judgement, words = comparison.facts, comparison.judgement, comparison.words
    if "times_withheld" in values:
        values["devices"] = {"a CPU": 1, "a GPU": 1} if values["times_withheld"] else {"a CPU": 1}

    def own(part: Any) -> dict[str, Any]:
        return {field.name: values[field.name] for field in fields(part) if field.name in values}

    said = own(words)
    if "sensitivities" in values:
        said["sensitivities"] = words.sensitivities[: len(values["sensitivities"])]
    if "interaction" in values:
        said["interaction"] = words.interaction if values["interaction"] else ""
    if "importance" in values:
        said["importance"] = words.importance if values["importance"] else ""
    known = own(facts) | own(judgement) | said
    assert known.keys() == values.keys(), values.keys() - known.keys()
    return Comparison(replace(facts, **own(facts)), replace(judgement, **own(judgement)), replace(words, **said))
