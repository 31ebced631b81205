"""Where a run's numbers come from: hashes of what it began with, versions, device, commit, memory."""

import hashlib
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")


def weights_sha256(net: nn.Module) -> str:
    """A hash of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def count_parameters(net: nn.Module) -> dict[str, int]:
    return {
        "trainable": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "statistics": sum(b.numel() for b in net.buffers() if b.is_floating_point()),
    }


def reset_peak_memory() -> None:
    """Let `peak_memory_mb` begin anew, so that a run of a sweep does not show the peak of the run before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux, proc(5): 5 sets VmHWM to what is resident now
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak memory of this process (resident) and of its GPU since `reset_peak_memory`, in 10^6 bytes.

    Where the system can't begin anew, `process` is missing.
    """
    peak = {}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(line for line in lines if line.startswith("VmHWM:"))
        peak["process"] = round(int(resident.split()[1]) * 1024 / 1e6, 1)
    if device.type == "cuda":
        peak["gpu"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return peak


def describe_device(trainer: pl.Trainer) -> dict[str, Any]:
    """What computed: enough to tell which times may be compared."""
    root = trainer.strategy.root_device
    return {
        "host": platform.node(),
        "accelerator": root.type,
        "name": torch.cuda.get_device_name(root) if root.type == "cuda" else cpu_name(),
        "devices": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def describe_git(project: Path) -> dict[str, Any]:
    """Commit and whether tracked files differ from it; empty where there is no git."""
    git = ["git", "-C", str(project)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "dirty": bool(status.stdout.strip())}


def code_sha256(source: Path) -> str:
    """A hash of what trains: every file of `src/` but those that only start runs or compare finished ones.

    A commit changes with each word of the documentation; two runs of one hash ran the same code, committed or not.
    """
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if not name.startswith(("optbench/comparison/", "optbench/pool/", "hydra_plugins/", "compare.py")):
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
