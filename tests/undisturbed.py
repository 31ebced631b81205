"""What a run that was interrupted and resumed must share with one that was not: everything but times and places."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# places and times, and what Lightning neither restores nor reads: the score of the last save
NEUTRAL = r"path|dir|best_k|seconds|rows|current_score"
TIMES = ("seconds", "epoch_seconds")
DIFFER = ("started", "resumed", "seconds", "peak_memory_mb", "device", "overrides", "config", "git", "versions")


def differences(whole: Path, resumed: Path) -> list[str]:
    """Every difference between two runs of one configuration, in words; none where resuming was exact."""
    found = []
    for name in ("metrics", "summary", "checkpoints", "curves"):
        ours, theirs = (globals()[name](folder) for folder in (whole, resumed))
        for key in {**ours, **theirs}:
            if not same(ours.get(key), theirs.get(key)):
                found.append(f"{name} {key}: {str(ours.get(key))[:400]} != {str(theirs.get(key))[:400]}")
    return found


def same(a: Any, b: Any) -> bool:
    """Equality that looks into tensors; nan is nan."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def metrics(folder: Path) -> dict[str, Any]:
    """metrics.csv by row."""
    path = folder / "metrics.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"row {n}": {k: v for k, v in row.items() if k not in TIMES} for n, row in enumerate(rows, 1)}


def summary(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "summary.json").read_text())
    for key in ("final", "best", *content["targets"]):
        for time in TIMES:
            (content["targets"].get(key) or content.get(key, {})).pop(time, None)
    return {key: value for key, value in content.items() if key not in DIFFER}


def checkpoints(folder: Path) -> dict[str, Any]:
    """Weights, states of optimizer and schedule, counters of callbacks."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("checkpoints/*.ckpt")):
        content = torch.load(path, weights_only=True)
        for name, state in content.pop("callbacks", {}).items():
            kept = {key: value for key, value in state.items() if not re.search(NEUTRAL, key)}
            found[f"{path.name} {name.split('{')[0]}"] = kept
        found |= {f"{path.name} {key}": value for key, value in content.items()}
    return found


def curves(folder: Path) -> dict[str, Any]:
    """TensorBoard's points: step and value of scalars, step and counts of histograms, steps of images."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    found: dict[str, Any] = {
        tag: sorted((event.step, event.value) for event in events.Scalars(tag))  # files of one second are in any order
        for tag in tags["scalars"]
        if tag not in TIMES
    }
    for tag in tags["histograms"]:
        found[tag] = sorted((e.step, tuple(e.histogram_value.bucket)) for e in events.Histograms(tag))
    return found | {tag: sorted(event.step for event in events.Images(tag)) for tag in tags["images"]}
