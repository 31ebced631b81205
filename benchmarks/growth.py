"""What grows with the number of runs: bytes of a run by file, and the seconds that tools take for many of them.

python benchmarks/growth.py [--runs 1000 10000] [overrides of the run, for example data=image_folder data.root=<folder>]

One run is trained; its folder, without checkpoints, is then multiplied.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
KINDS = {".ckpt": "checkpoints", ".csv": "metrics.csv", ".json": "summary.json", ".log": "train.log", ".yaml": ".hydra"}


def sizes(folder: Path) -> Counter[str]:
    """Bytes of a run's files by kind."""
    found = Counter[str]()
    for path in folder.rglob("*"):
        if path.is_file():
            kind = "TensorBoard" if path.name.startswith("events") else KINDS.get(path.suffix, "other")
            found[path.name if kind == "checkpoints" else kind] += path.stat().st_size
    return found


def multiply(run: Path, sweep: Path, runs: int) -> None:
    """Folders of runs that differ in optimizer.lr and seed, as a sweep leaves them."""
    record = json.loads((run / "summary.json").read_text())
    for number in range(len(list(sweep.glob("*/"))), runs):
        folder = sweep / f"{number}_run"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
        rate, seed = 0.001 * (1 + number // 5), number % 5
        record |= {"seed": seed, "overrides": [f"optimizer.lr={rate}", f"seed={seed}"]}
        record["config"]["optimizer"]["lr"], record["config"]["seed"] = rate, seed
        record["config"]["data"]["order_seed"] = seed
        (folder / "summary.json").write_text(json.dumps(record))


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


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
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10000])
    args, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="growth-") as root:
        run, sweep = Path(root, "run"), Path(root, "sweep")
        overrides = overrides or ["data=shapes", "data.train_size=2000", "data.test_size=200"]
        subprocess.run(
            [sys.executable, str(SRC / "train.py"), *overrides, f"hydra.run.dir={run}", "trainer.max_epochs=10"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print("| file of a run of 10 epochs | kB |\n| --- | ---: |")
        for kind, size in sizes(run).most_common():
            print(f"| {kind} | {size / 1e3:,.0f} |")
        print("\n| runs | MB without checkpoints | compare.py, s | TensorBoard lists all, s |")
        print("| ---: | ---: | ---: | ---: |")
        for runs in args.runs:
            multiply(run, sweep, runs)
            megabytes = sum(sizes(sweep).values()) / 1e6
            compared = seconds(sys.executable, str(SRC / "compare.py"), f"runs={sweep}", f"output={root}/comparison")
            print(f"| {runs:,} | {megabytes:,.0f} | {compared:.0f} | {tensorboard(sweep, runs):.0f} |", flush=True)
    print(f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
