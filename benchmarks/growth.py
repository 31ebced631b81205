"""What grows with the number of runs: seconds, memory and page of compare.py; bytes of a run; TensorBoard's seconds.

python benchmarks/growth.py                                     # 10 to 10,000 runs of a grid, and of one learning rate
python benchmarks/growth.py --runs 1000 --shapes grid --rounds 3 --settings pairs=all
python benchmarks/growth.py --runs 1000 --shapes grid --tensorboard data=image_folder data.root=<folder>

One run is trained, with the overrides that are given. Its record and its metrics.csv become those of as many runs as
are asked for: with other curves, results and settings, and five seeds for each configuration.

grid: four optimizers, each at up to 25 learning rates and 20 dropout rates. rate: one optimizer, so all are compared.
"""

import argparse
import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SRC))

import numpy as np  # noqa: E402

from optbench.records.record import METRICS_CSV, SUMMARY, RunRecord  # noqa: E402

KINDS = {".ckpt": "checkpoints", ".csv": "metrics.csv", ".json": "summary.json", ".log": "train.log", ".yaml": ".hydra"}
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SEEDS, DIVERGED = 5, 50  # one run of fifty diverges
SHAPES = ("grid", "rate")


def sizes(folder: Path) -> Counter[str]:
    """Bytes of a run's files by kind."""
    found = Counter[str]()
    for path in folder.rglob("*"):
        if path.is_file():
            kind = "TensorBoard" if path.name.startswith("events") else KINDS.get(path.suffix, "other")
            found[path.name if kind == "checkpoints" else kind] += path.stat().st_size
    return found


def settings_of(configuration: int, shape: str) -> tuple[str, dict[str, float]]:
    """The optimizer, and what else the sweep varies."""
    if shape == "rate":
        return "adam", {"optimizer.lr": float(f"{1e-5 * 1.004**configuration:.6g}")}
    step = configuration // len(OPTIMIZERS)
    rate, dropout = float(f"{1e-5 * 1.5 ** (step % 25):.3g}"), round(0.04 * (step // 25), 2)
    return OPTIMIZERS[configuration % len(OPTIMIZERS)], {"optimizer.lr": rate, "model.dropout": dropout}


def multiply(run: Path, sweep: Path, runs: int, shape: str, epochs: int, whole: bool) -> None:
    """Folders of runs as a sweep leaves them; `whole`: with all files but checkpoints, not only what is compared."""
    original = RunRecord.read(run)
    with (run / METRICS_CSV).open(newline="") as file:
        columns = next(csv.reader(file))
    scores = [k for k, name in enumerate(columns) if "/" in name and not name.startswith("test/")]
    losses = [k for k in scores if columns[k].endswith("/loss")]
    reached = 1 - np.exp(-np.linspace(0, 5, epochs))[:, None]
    for number in range(runs):
        generator = np.random.default_rng(number)
        seed, (optimizer, settings) = number % SEEDS, settings_of(number // SEEDS, shape)
        end = 0.5 - 0.02 * abs(math.log10(settings["optimizer.lr"]) + 2.5) + 0.004 * generator.standard_normal()
        diverged = number % DIVERGED == DIVERGED - 1
        table = np.full((epochs, len(columns)), np.nan)
        table[:, scores] = 0.1 + (end - 0.1) * reached + 0.01 * generator.standard_normal((epochs, len(scores)))
        table[:, losses] = 4 * (1 - table[:, losses])
        for name, values in {
            "epoch": np.arange(1, epochs + 1),
            "step": 15 * np.arange(1, epochs + 1),
            "epoch_seconds": 0.7 + 0.05 * generator.random(epochs),
            "lr": np.full(epochs, settings["optimizer.lr"]),
        }.items():
            table[:, columns.index(name)] = values
        table[:, columns.index("seconds")] = table[:, columns.index("epoch_seconds")].cumsum()
        cells = [["" if math.isnan(x) else f"{x:.7g}" for x in row] for row in table.tolist()]
        rows = [{name: float(x) for name, x in zip(columns, row, strict=True) if x} for row in cells]

        record = deepcopy(original)
        record.seed, record.choices["optimizer"] = seed, optimizer
        record.status = "diverged" if diverged else "completed"
        record.overrides = [f"optimizer={optimizer}", *(f"{key}={x}" for key, x in settings.items()), f"seed={seed}"]
        for key, value in {**settings, "seed": seed, "data.order_seed": seed}.items():
            *groups, name = key.split(".")
            place = record.config
            for group in groups:
                place = place[group]
            place[name] = value
        record.config["optimizer"]["_target_"] = f"torch.optim.{optimizer}"
        record.hashes |= {"initial_weights": f"w{seed}", "batch_order": f"b{seed}"}
        record.take_epochs(rows)
        record.test = {} if diverged else {key: round(end, 4) for key in original.test}
        record.tested = {} if diverged else {"checkpoint": "best", "epoch": record.best["epoch"]}

        folder = sweep / f"{number}_run"
        if whole:
            shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).write_text(json.dumps(asdict(record), indent=2))
        with (folder / METRICS_CSV).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *cells])


def measure(sweep: Path, settings: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, peak resident 10^6 bytes, and 10^6 bytes of report.html of one compare.py in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(SRC / "compare.py"), f"runs={sweep}", *settings], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"compare.py ended with status {status}.")
    return seconds, usage.ru_maxrss * 1024 / 1e6, (sweep / "comparison" / "report.html").stat().st_size / 1e6


def tensorboard(folder: Path, runs: int, port: int = 16006) -> float:
    """Seconds until TensorBoard has listed all runs."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).parent / "tensorboard"), "--logdir", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - began < 600:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=600) as answer:
                    if len(json.load(answer)) >= runs:
                        break
            except OSError:
                pass
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--settings", nargs="+", default=[], help="of compare.py, such as pairs=all")
    parser.add_argument("--tensorboard", action="store_true")
    args, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="growth-") as root:
        run = Path(root, "run")
        overrides = overrides or ["data=shapes", "data.train_size=2000", "data.test_size=200"]
        subprocess.run(
            [sys.executable, str(SRC / "train.py"), *overrides, f"hydra.run.dir={run}", "trainer.max_epochs=3"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print("| file of a run of 3 epochs | kB |\n| --- | ---: |")
        for kind, size in sizes(run).most_common():
            print(f"| {kind} | {size / 1e3:,.0f} |")
        print(f"\n{args.epochs} epochs a run, medians of {args.rounds}; {os.cpu_count()} cores\n")
        print("| sweep | runs | configurations | seconds | peak memory (MB) | report.html (MB) |", end="")
        print(" TensorBoard lists all (s) |" if args.tensorboard else "")
        print("| --- | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * args.tensorboard)
        for shape in args.shapes:
            for runs in args.runs:
                sweep = Path(root, f"{shape}-{runs}")
                multiply(run, sweep, runs, shape, args.epochs, whole=args.tensorboard)
                rounds = zip(*(measure(sweep, args.settings) for _ in range(args.rounds)), strict=True)
                seconds, memory, page = (statistics.median(column) for column in rounds)
                cells = [
                    shape,
                    f"{runs:,}",
                    f"{-(-runs // SEEDS):,}",
                    f"{seconds:.1f}",
                    f"{memory:,.0f}",
                    f"{page:.1f}",
                ]
                cells += [f"{tensorboard(sweep, runs):.0f}"] if args.tensorboard else []
                print(f"| {' | '.join(cells)} |", flush=True)
                shutil.rmtree(sweep)


if __name__ == "__main__":
    main()
