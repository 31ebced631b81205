"""How soon a command answers, how soon training begins, and how much memory a run takes.

    python benchmarks/start.py [--rounds 5] [overrides of the run, for example data=image_folder data.root=<folder>]

Every command runs in a process of its own, in turns; medians are printed.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

TRAIN = str(Path(__file__).parents[1] / "src" / "train.py")


class FirstStep(pl.Callback):
    """Notes when the first training step is done."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if not self.path.exists():
            self.path.write_text(str(time.time()))


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_step(overrides: list[str], folder: Path) -> float:
    """Seconds from the command to the end of the first step."""
    note = folder / "first_step"
    note.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    probe = f"+callbacks.first_step={{_target_: start.FirstStep, path: {note}}}"
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
    command = [sys.executable, TRAIN, *overrides, *limits, probe, f"hydra.run.dir={folder / str(time.time_ns())}"]
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return float(note.read_text()) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments, overrides = parser.parse_known_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.rounds + 1):
            spent = {
                "import hydra": seconds("-c", "import hydra"),
                "--help": seconds(TRAIN, "--help"),
                "--cfg job": seconds(TRAIN, "--cfg", "job"),
                "import torch, pytorch_lightning": seconds("-c", "import torch, pytorch_lightning"),
                "first step": first_step(overrides, folder),
            }
            for what, value in spent.items() if number else ():  # the first round warms up
                found.setdefault(what, []).append(value)
        subprocess.run(
            [sys.executable, TRAIN, *overrides, "trainer.max_epochs=2", f"hydra.run.dir={folder / 'whole'}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    for what, values in found.items():
        print(f"{what:32} median {statistics.median(values):6.2f} s  (from {min(values):.2f} to {max(values):.2f})")
    pairs = {
        name: [a / b for a, b in zip(found[name], found["import hydra"], strict=True)]
        for name in ("--help", "--cfg job")
    }
    for name, ratios in pairs.items():
        print(f"{name} / import hydra: median {statistics.median(ratios):.2f}")
    beyond = [a - b for a, b in zip(found["first step"], found["import torch, pytorch_lightning"], strict=True)]
    print(f"first step beyond importing torch and Lightning: median {statistics.median(beyond):.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"peak memory of the largest of these processes, a run of two epochs: {peak:.2f} GB")


if __name__ == "__main__":
    main()
