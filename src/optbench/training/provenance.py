"""Where a run's numbers come from: hashes of what it began with, versions, device, commit, memory."""

import ast
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from optbench.data.datamodule import ImageDataModule
from optbench.records.files import PROJECT
from optbench.records.record import RunRecord
from optbench.training.memory import give_back

COMPUTES = ("run.py", "callbacks", "data", "distributed", "nets", "training")  # what determines a run's numbers
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")


def weights_sha256(net: nn.Module) -> str:
    """A hash of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def input_hashes(data: ImageDataModule, net: nn.Module) -> dict[str, str]:
    """Hashes that are equal in a fair comparison; see `RunRecord.hashes`."""
    return {
        "data": data.imageset.sha256,
        "split": data.split_sha256,
        "initial_weights": weights_sha256(net),
        "batch_order": data.order_sha256(),
    }


def describe_inputs(record: RunRecord, data: ImageDataModule, net: nn.Module) -> None:
    """What a run trains, and on what: enough to evaluate it later."""
    record.classes, record.skipped_images = list(data.classes), list(data.imageset.skipped)
    record.input = {
        "shape": list(data.image_shape),
        "scale": data.scale.flatten().tolist(),
        "shift": data.shift.flatten().tolist(),
    }
    record.images = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    record.parameters = count_parameters(net)


def count_parameters(net: nn.Module) -> dict[str, int]:
    return {
        "trainable": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "statistics": sum(b.numel() for b in net.buffers() if b.is_floating_point()),
    }


def reset_peak_memory() -> None:
    """Start `peak_memory_mb` from what is used now, or a run of a sweep would show the peak of the run before."""
    give_back()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux, proc(5): 5 sets VmHWM to what is resident now
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak memory of this process (resident) and of its GPU since `reset_peak_memory`, in 10^6 bytes.

    Where the system can't be reset, `process` is missing.
    """
    peak = {}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(line for line in lines if line.startswith("VmHWM:"))
        peak["process"] = round(int(resident.split()[1]) * 1024 / 1e6, 1)
    if device.type == "cuda":
        peak["gpu"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return peak


def add_peak_memory(record: RunRecord, trainer: pl.Trainer) -> None:
    """Of a run that resumed, the largest of all its parts."""
    peak = peak_memory_mb(trainer.strategy.root_device)
    record.peak_memory_mb = {key: max(mb, record.peak_memory_mb.get(key, 0.0)) for key, mb in peak.items()}


def describe_device(trainer: pl.Trainer) -> dict[str, Any]:
    """The device that computed: enough to know which times can be compared, and whether runs shared it."""
    root = trainer.strategy.root_device
    gpu = {"gpu": str(torch.cuda.get_device_properties(root).uuid)} if root.type == "cuda" else {}
    return {
        "host": platform.node(),
        "accelerator": root.type,
        "name": torch.cuda.get_device_name(root) if root.type == "cuda" else cpu_name(),
        **gpu,
        "devices": trainer.world_size,
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        "precision": str(trainer.precision),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def usable_cores() -> str:
    """The numbers of the cores that this process may use, such as `0-3,8`."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    runs = [[core for _, core in its] for _, its in groupby(enumerate(sorted(usable)), lambda at: at[1] - at[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@cache
def describe_git(project: Path = PROJECT) -> dict[str, Any]:
    """Commit and whether tracked files differ from it, as this process first asked; empty where there is no git."""
    git = ["git", "-C", str(project), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        lines = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    commit = next(line.split()[-1] for line in lines if line.startswith("# branch.oid "))
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


@cache
def own_code_sha256() -> str:
    """The hash of the code that this process runs, whatever happens to the files meanwhile."""
    return code_sha256(PROJECT / "src" / "optbench")


def code_sha256(source: Path) -> str:
    """A hash of the code that computes: two runs of one hash, configuration and set of libraries compute the same.

    Files outside of COMPUTES do not count, nor do comments, docstrings and the messages of errors and of the log.
    """
    digest = hashlib.sha256()
    for place in COMPUTES:
        for path in sorted((source / place).rglob("*.py")) if (source / place).is_dir() else [source / place]:
            digest.update(f"\0{path.relative_to(source).as_posix()}\0".encode())
            for word in words_of(ast.parse(path.read_bytes())):
                digest.update(f"{word} ".encode())
    return digest.hexdigest()


def words_of(node: Any) -> Iterator[str]:
    """A syntax tree as words, the same in every version of Python, without what only a person reads."""
    if isinstance(node, list):
        for item in node:
            yield from words_of(item)
    elif not isinstance(node, ast.AST):
        yield repr(node)
    elif not (isinstance(node, ast.Expr) and (is_text(node.value) or is_log_call(node.value))):
        yield type(node).__name__
        if not isinstance(node, ast.Raise):
            for name, value in ast.iter_fields(node):
                if value not in (None, []):  # what a version of Python adds is empty where it is not used
                    yield name
                    yield from words_of(value)


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_log_call(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "log"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
