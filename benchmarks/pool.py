"""What hydra/launcher=pool costs and gains: how busy devices are, the price of a process a run, runs side by side.

    python benchmarks/pool.py [--jobs 40] [--devices 4] [--runs 4] [overrides of the runs, for example optimizer=sgd]

First, processes that sleep for random times on pretended devices, against greedy list scheduling of the lengths that
were measured: no order of starting as a device becomes free is known beforehand to do better. Then a small sweep by
Hydra's own launcher, in one process, and by the pool with one worker. Then the pool with one and with two workers.
"""

import argparse
import heapq
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from optbench.pool.devices import CPU, Job, Queue, cores
from optbench.pool.processes import Pool, Run

TRAIN = str(Path(__file__).parents[1] / "src" / "train.py")
SMALL = [
    *("data=shapes", "data.train_size=2000", "data.test_size=500", "trainer=cpu", "trainer.max_epochs=2"),
    *("callbacks.figures=null", "callbacks.histograms=null", "logger=csv", "compare=false"),
]


class Nobody:
    def started(self, run: Run) -> None: ...

    def ended(self, run: Run) -> None: ...

    def look(self, running: list[Run], waiting: int) -> None: ...

    def say(self, text: str) -> None: ...


def utilisation(count: int, devices: int, seed: int) -> tuple[float, float, float]:
    """Seconds that the pool took, that greedy list scheduling would have, and the share of time devices were busy."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        jobs = [
            Job(i, [sys.executable, "-Sc", f"import time; time.sleep({chance.uniform(0.2, 2)})"], Path(name) / str(i))
            for i in range(count)
        ]
        pool = Pool(Queue(jobs, {CPU: {str(i): 1 for i in range(devices)}}), Nobody())
        began = time.monotonic()
        runs = sorted(pool.work(), key=lambda run: run.job.number)
        took = time.monotonic() - began
    loads = [0.0] * devices
    for run in runs:
        heapq.heapreplace(loads, loads[0] + run.elapsed)
    return took, max(loads), sum(run.elapsed for run in runs) / (took * devices)


def sweep(overrides: list[str], runs: int, *launcher: str) -> tuple[float, float]:
    """Seconds of a sweep, and the median of its runs' own seconds."""
    with tempfile.TemporaryDirectory() as name:
        seeds = "seed=" + ",".join(map(str, range(runs)))
        command = [sys.executable, TRAIN, "-m", *SMALL, *overrides, seeds, *launcher, f"hydra.sweep.dir={name}/sweep"]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.monotonic() - began
        records = [json.loads(path.read_text()) for path in Path(name).glob("sweep/*/summary.json")]
    assert len(records) == runs
    return took, statistics.median(record["seconds"]["total"] for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments, overrides = parser.parse_known_args()
    runs = arguments.runs
    print(f"{platform.processor() or platform.machine()}, {cores()} cores, Python {platform.python_version()}")

    for seed in range(arguments.rounds):
        took, greedy, busy = utilisation(arguments.jobs, arguments.devices, seed)
        print(
            f"{arguments.jobs} jobs on {arguments.devices} devices: {took:.2f} s, greedy optimum {greedy:.2f} s "
            f"({greedy / took:.1%} of it reached), devices busy {busy:.1%}"
        )
    ways = {
        "serial launcher": [],
        "pool, 1 worker": ["hydra/launcher=pool", "hydra.launcher.workers=1"],
        "pool, 2 workers": ["hydra/launcher=pool", "hydra.launcher.workers=2"],
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, launcher in ways.items():
            took, own = sweep(overrides, runs, *launcher)
            found[way].append(took)
            print(f"{way:16} {runs} runs: {took:6.2f} s; a run's own time: median {own:.2f} s", flush=True)
    serial, one, two = (statistics.median(found[way]) for way in ways)
    print(f"a process a run costs {(one - serial) / runs:.2f} s a run (medians of {arguments.rounds})")
    print(f"two workers: {one / two:.2f} x the runs of one worker, {serial / two:.2f} x those of the serial launcher")


if __name__ == "__main__":
    main()
