"""How compare.py grows with the number of runs: seconds, peak memory, size of the page.

python benchmarks/comparison.py                          # 10 to 1,000 made runs of 100 epochs, sizes in turn
python benchmarks/comparison.py --runs 1000 --rounds 3
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "tests")]

import numpy as np  # noqa: E402

from sweeps import write_run  # noqa: E402

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SEEDS = 5


def make_runs(folder: Path, count: int, epochs: int) -> None:
    """Four optimizers, as many learning rates as it takes, five seeds; one run of fifty diverges."""
    generator = np.random.default_rng(count)
    for number in range(count):
        seed, rest = number % SEEDS, number // SEEDS
        optimizer, step = OPTIMIZERS[rest % 4], rest // 4
        rate = float(f"{1e-4 * 1.15**step:.3g}")
        accuracy = round(0.5 - 0.01 * abs(step - 10) ** 0.5 + 0.004 * float(generator.standard_normal()), 4)
        write_run(
            folder / f"{number}_optimizer={optimizer},optimizer.lr={rate},seed={seed}",
            optimizer,
            seed,
            accuracy,
            epochs=epochs,
            status="diverged" if number % 50 == 49 else "completed",
            overrides=[f"optimizer.lr={rate}"],
            config={"optimizer.lr": rate},
        )


def measure(folder: Path) -> tuple[float, float, float]:
    """Seconds, peak resident 10^6 bytes, and 10^6 bytes of report.html of one compare.py in a process of its own."""
    command = [sys.executable, str(PROJECT / "src" / "compare.py"), f"runs={folder}"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"compare.py ended with status {status}.")
    return seconds, usage.ru_maxrss * 1024 / 1e6, (folder / "comparison" / "report.html").stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = {count: Path(temporary) / str(count) for count in arguments.runs}
        for count, folder in folders.items():
            make_runs(folder, count, arguments.epochs)
        found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in folders}
        for _ in range(arguments.rounds):
            for count, folder in folders.items():
                found[count].append(measure(folder))
    print(f"{arguments.epochs} epochs a run, median of {arguments.rounds} rounds\n")
    print("| runs | seconds | peak memory (MB) | report.html (MB) |\n|---|---|---|---|")
    for count, values in found.items():
        seconds, memory, size = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {count} | {seconds:.1f} | {memory:.0f} | {size:.1f} |")


if __name__ == "__main__":
    main()
