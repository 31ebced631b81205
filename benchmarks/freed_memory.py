"""What it gains that glibc keeps freed memory for the next step (`training.memory.keep_freed`).

    python benchmarks/freed_memory.py [--steps 20] [--rounds 3] [overrides]

Bare steps on 128 random images, each way in processes of its own, in turn. Overrides are those of train.py, such as
model=resnet18. A fault is a page of 4 KB that the system has to clear; memory is the most that the process had.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "src"))

WAYS = ("given back", "kept")


def measure(way: str, steps: int, overrides: list[str]) -> dict[str, float]:
    """Per step: milliseconds and page faults; of the process: MB."""
    import torch
    import torch.nn.functional as F
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from optbench.commands import resolvers  # noqa: F401  # configs/ needs them
    from optbench.training import build, memory
    from optbench.training.optimizers import build_optimizer

    if way == "kept":
        memory.keep_freed()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", ["output_dir=.", *overrides])
    net = build.build_net(cfg, (3, 32, 32), tuple("abcdefghij"))
    optimizer = build_optimizer(instantiate(cfg.optimizer, _convert_="all"), net, "all")
    images, labels = torch.randn(128, 3, 32, 32), torch.arange(128) % 10
    times, faults = [], []
    for _ in range(steps + 3):  # three to warm up
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - began))
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": statistics.median(times[3:]), "faults": statistics.median(faults[3:]), "MB": most}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments, overrides = parser.parse_known_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.steps, overrides)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way in WAYS:
            again = [sys.executable, __file__, "--way", way, "--steps", str(arguments.steps), *overrides]
            found[way].append(json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout))
    name = " ".join(overrides)
    for way, rounds in found.items():
        medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        print(f"{name}  {way:10}  " + "  ".join(f"{value:,.0f} {key}" for key, value in medians.items()))
    ratios = [kept["ms"] / back["ms"] for back, kept in zip(*found.values(), strict=True)]
    print(f"{name}  kept / given back x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
