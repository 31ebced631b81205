"""What a step of each optimizer costs: milliseconds and bytes of state on the class exercise's network.

    python benchmarks/optimizers.py [--optimizers adam muon] [--steps 20] [--markdown]

One process, batches of 128 random images, gradients that are there already: what is timed is `optimizer.step()`, and
for SAM also its second pass through the network. The pass itself, forward and backward, is the first line. The mean is
over `--steps` steps after as many that warm up, so preconditioners that change every 10 or 20 steps are included.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from optbench.nets.mlp import MLP
from optbench.training.averaging import averages
from optbench.training.optimizers import build_optimizer

CONFIGS = Path(__file__).parents[1] / "configs"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def exercise() -> nn.Module:
    torch.manual_seed(0)
    model: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "model" / "mlp.yaml"))
    return MLP((3, 32, 32), 10, model["layers"], model["dropout"]).to(DEVICE)


def passes(net: nn.Module) -> Callable[[], None]:
    """Forward and backward on one batch."""
    images, labels = torch.randn(128, 3, 32, 32, device=DEVICE), torch.arange(128, device=DEVICE) % 10

    def closure() -> None:
        net.zero_grad()
        F.cross_entropy(net(images), labels).backward()

    return closure


def milliseconds(function: Callable[[], Any], steps: int) -> tuple[float, float]:
    """The mean and the median of so many calls."""
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.mean(times), statistics.median(times)


def state_bytes(part: Any) -> int:
    """Of all tensors in an optimizer's state, however deep."""
    if isinstance(part, torch.Tensor):
        return part.numel() * part.element_size()
    if isinstance(part, dict):
        return sum(map(state_bytes, part.values()))
    return sum(map(state_bytes, part)) if isinstance(part, list | tuple) else 0


def measure(name: str, steps: int) -> tuple[float, float, int]:
    net = exercise()
    optimizer: Any = build_optimizer(
        instantiate(OmegaConf.load(CONFIGS / "optimizer" / f"{name}.yaml"), _convert_="all"), net, "all"
    )
    if averages(optimizer):
        optimizer.train()
    closure, two = passes(net), getattr(optimizer, "two_passes", False)
    closure()

    def step() -> None:
        optimizer.step(closure) if two else optimizer.step()

    milliseconds(step, steps)
    mean, median = milliseconds(step, steps)
    if two:  # the first pass is everyone's
        one, _ = milliseconds(closure, steps)
        mean, median = mean - one, median - one
    return mean, median, state_bytes(optimizer.state_dict()["state"])


def main() -> None:
    known = sorted(path.stem for path in (CONFIGS / "optimizer").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    net = exercise()
    parameters = sum(p.numel() for p in net.parameters())
    milliseconds(passes(net), arguments.steps)
    mean, median = milliseconds(passes(net), arguments.steps)
    print(f"{parameters:,} parameters, {4 * parameters / 2**20:.1f} MiB; forward and backward: {median:.1f} ms")
    row = "| {} | {} | {} | {} |" if arguments.markdown else "{:20} {:>10} {:>10} {:>10}"
    print(row.format("optimizer", "mean ms", "median ms", "MiB state"))
    if arguments.markdown:
        print("|---|---|---|---|")
    for name in arguments.optimizers:
        mean, median, size = measure(name, arguments.steps)
        print(row.format(name, f"{mean:.1f}", f"{median:.1f}", f"{size / 2**20:.1f}"), flush=True)


if __name__ == "__main__":
    main()
