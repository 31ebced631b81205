"""Break runs and sweeps in every way at hand, resume them, and compare with runs that nobody disturbed.

python benchmarks/faults.py                                 # the whole campaign; docs/scaling.md quotes one
python benchmarks/faults.py --kills 4 --sweep-kills 2 --terms 2 --only kills,sweeps,terms

Two figures should be 0: finished work that was lost, and final results that differ from the undisturbed ones
(weights, optimizer, schedule, counters, metrics.csv, TensorBoard, record; see tests/undisturbed.py). What is found on
the way is counted as well: a file that is neither whole nor absent, a process that stayed behind, an exit status that
says nothing. The full disk and the OOM killer need Linux and root (a tmpfs, a memory cgroup); else they are left out.
"""

import argparse
import json
import logging
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "tests")]

from optbench.recovery.checkpoint import read_checkpoint  # noqa: E402
from undisturbed import differences  # noqa: E402

TRAIN = [sys.executable, str(PROJECT / "src" / "train.py")]
RUN = (
    "data=shapes data.train_size=2000 data.test_size=200 data.batch_size=50 trainer=cpu trainer.max_epochs=8 "
    "trainer.log_every_n_steps=5 callbacks.figures.examples=4 callbacks.last_checkpoint.every_n_steps=7"
).split() + ["model.layers=[64 relu batchnorm dropout, 64 tanh dropout]", "callbacks.early_stopping.patience=50"]
VARIANTS = ("optimizer=adam", "optimizer=sgd scheduler=cosine", "optimizer=rmsprop scheduler=onecycle",
            "optimizer=adamw augmentation=crop_flip")  # fmt: skip
MOMENTS = (0.5, 22.0)  # seconds from the start to a signal: the earliest and the latest
POOL = ["hydra/launcher=pool", "hydra.launcher.workers=2", "compare=false"]


class Campaign:
    """Counts of what was done and found; folders below `root`."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.count, self.notes = root, random.Random(seed), Counter[str](), list[str]()
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.environment.pop("OPTBENCH_PARENT", None)
        self.sessions = set[int]()

    def start(self, *arguments: str) -> subprocess.Popen:
        process = self.launch(arguments)
        self.sessions.add(process.pid)
        return process

    def launch(self, arguments: tuple[str, ...]) -> subprocess.Popen:
        """In a session of its own. The short form in tests/ replaces this by a fork, which is quicker."""
        with (self.root / "output.log").open("ab") as log:
            return subprocess.Popen(
                [*TRAIN, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self.environment,
            )

    def finding(self, what: str, detail: object) -> None:
        self.count[what] += 1
        self.notes.append(f"{what}: {detail}")
        print(f"  ! {what}: {detail}", flush=True)

    def compare(self, reference: Path, folder: Path) -> None:
        self.count["results compared"] += 1
        if found := differences(reference, folder):
            self.finding("results that differ", f"{folder.name}: {found[:3]}")

    def look(self, folder: Path, before: int) -> int:
        """What a fault left: every file that is there must be whole, no step that was saved may be gone."""
        step = 0
        for path in folder.rglob("*.ckpt"):
            try:
                content = read_checkpoint(path, "file")
                step = max(step, content["global_step"] if path.stem != "best" else 0)
            except ValueError as error:
                self.finding("torn files", error)
        for path in folder.rglob("summary.json"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                self.finding("torn files", f"{path}: {error}")
        if step < before:
            self.finding("finished work lost", f"{folder}: step {before} was saved, now {step}")
        return max(step, before)

    def nobody_left(self, folder: Path) -> None:
        time.sleep(0.2)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ends, or is somebody else's
                command = (process / "cmdline").read_bytes()[-200:]  # nothing: it is dead
                if command and (self.is_orphan(int(process.name)) or uses(process, folder)):
                    self.finding("processes left behind", command)
                    os.kill(int(process.name), signal.SIGKILL)

    def is_orphan(self, process: int) -> bool:
        """Whether one of the commands started it and has ended."""
        session = os.getsid(process)
        return session in self.sessions and not Path(f"/proc/{session}").exists()


def uses(process: Path, folder: Path) -> bool:
    """Whether a process has a file below the folder open, as a run of a pool has, which prints into its output.log.

    Its command line does not tell: it is forked, and has that of its pool.
    """
    return any(file.readlink().is_relative_to(folder) for file in (process / "fd").iterdir())


def runs_of(pool: int) -> list[int]:
    """The pool's children that have a session of their own."""
    children = map(int, Path(f"/proc/{pool}/task/{pool}/children").read_text().split())
    return [child for child in children if os.getsid(child) == child]


def status(folder: Path) -> str:
    path = folder / "summary.json"
    return json.loads(path.read_text())["status"] if path.is_file() else "none"


def disturb(it: Campaign, name: str, arguments: list[str], reference: Path, faults: int, signum: int) -> int:
    """Start a run, send it a signal at a random moment, resume it, until so many signals have hit; returns how many."""
    hits = number = 0
    while hits < faults:
        folder, number, step = it.root / f"{name}-{number}", number + 1, 0
        command = [*arguments, f"hydra.run.dir={folder}"]
        for _ in range(20):
            process = it.start(*command)
            try:
                process.wait(it.random.uniform(*MOMENTS))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signum) if signum == signal.SIGKILL else process.send_signal(signum)
                code = process.wait(60)
                hits += 1
                if signum == signal.SIGTERM and code not in (143, -15, 0):
                    it.finding("exit statuses that say nothing", code)
            step = it.look(folder, step)
            if status(folder) == "completed" or hits >= faults:
                break
            if (folder / "summary.json").is_file():
                command = [f"resume={folder}"]
            else:  # killed before it was a run
                shutil.rmtree(folder, ignore_errors=True)
        finish(it, command, folder)
        it.nobody_left(folder)
        it.compare(reference, folder)
        shutil.rmtree(folder)
    return hits


def finish(it: Campaign, command: list[str], folder: Path) -> None:
    if status(folder) == "completed":
        return
    if (folder / "summary.json").is_file():
        command = [f"resume={folder}"]
    if code := it.start(*command).wait(300):
        it.finding("runs that could not be resumed", f"{folder}: exit status {code}")


def kills(it: Campaign, args: argparse.Namespace) -> None:
    signals(it, args.kills, signal.SIGKILL, "SIGKILL to a run")


def terms(it: Campaign, args: argparse.Namespace) -> None:
    signals(it, args.terms, signal.SIGTERM, "SIGTERM to a run")


def signals(it: Campaign, faults: int, signum: int, what: str) -> None:
    """Two at a time, on two cores."""
    parts = [v for v in VARIANTS if faults >= len(VARIANTS)] or VARIANTS[:1]
    share = [faults // len(parts) + (k < faults % len(parts)) for k in range(len(parts))]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(
                disturb,
                it,
                f"{signal.Signals(signum).name}-{k}",
                [*RUN, *variant.split()],
                reference(it, k),
                n,
                signum,
            )
            for k, (variant, n) in enumerate(zip(parts, share, strict=True))
        ]
        for job in jobs:
            it.count[what] += job.result()


def reference(it: Campaign, variant: int) -> Path:
    """The undisturbed run of a variant, made once."""
    folder = it.root / f"reference-{variant}"
    if status(folder) != "completed" and (
        code := it.start(*RUN, *VARIANTS[variant].split(), f"hydra.run.dir={folder}").wait()
    ):
        raise SystemExit(f"The undisturbed run failed with status {code}; see {it.root / 'output.log'}")
    return folder


def sweep(args: argparse.Namespace) -> list[str]:
    """The arguments of a sweep of twice `args.sweep_seeds` runs."""
    seeds = ",".join(map(str, range(args.sweep_seeds)))
    return ["-m", *POOL, *RUN, "optimizer=adam,sgd", f"seed={seeds}"]


def whole_sweep(it: Campaign, args: argparse.Namespace) -> Path:
    """The undisturbed sweep, made once."""
    folder = it.root / "whole-sweep"
    if not folder.exists() and it.start(*sweep(args), f"hydra.sweep.dir={folder}").wait():
        raise SystemExit("The undisturbed sweep failed.")
    return folder


def sweeps(it: Campaign, args: argparse.Namespace) -> None:
    """A pool of two workers: kill -9 the pool, or one of its runs, at a random moment; resume the sweep."""
    whole, runs_in_all = whole_sweep(it, args), 2 * args.sweep_seeds
    latest = MOMENTS[1] / 2 + 1.2 * runs_in_all  # when the sweep is nearly over
    hits = number = 0
    while hits < args.sweep_kills:
        folder, number, completed = it.root / f"sweep-{number}", number + 1, dict[str, bytes]()
        command = [*sweep(args), f"hydra.sweep.dir={folder}"]
        for _ in range(20):
            process = it.start(*command)
            end = time.monotonic() + it.random.uniform(MOMENTS[0], latest)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            if process.poll() is None:
                if (runs := runs_of(process.pid)) and it.random.random() < 0.5:
                    os.kill(it.random.choice(runs), signal.SIGKILL)
                    it.count["SIGKILL to a run of a pool"] += 1
                    process.wait(900)  # the others continue
                else:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    it.count["SIGKILL to a pool"] += 1
                hits += 1
            it.nobody_left(folder)
            for path in folder.glob("*/summary.json"):
                it.look(path.parent, 0)
                if path.parent.name in completed and path.read_bytes() != completed[path.parent.name]:
                    it.finding("finished work lost", path)
                if status(path.parent) == "completed":
                    completed[path.parent.name] = path.read_bytes()
            if len(completed) == runs_in_all or hits >= args.sweep_kills:
                break
            if (folder / "multirun.yaml").is_file():
                command = ["-m", f"resume={folder}"]
        if len(completed) < runs_in_all and (code := it.start(*command).wait(600)):
            it.finding("sweeps that could not be resumed", code)
        for path in sorted(whole.glob("*/summary.json")):
            it.compare(path.parent, folder / path.parent.name)
        shutil.rmtree(folder)


CHANGES: dict[str, Callable[[int, bytes], bytes]] = {
    "cut off at": lambda at, content: content[:at],
    "a bit of": lambda at, content: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
    "zeros from": lambda at, content: content[:at] + bytes(len(content) - at),
}


def torn(it: Campaign, args: argparse.Namespace) -> None:
    """Files cut off, emptied and with bits turned, at each kind of byte: headers, pickle, tensors, directory, end."""
    reference(it, 0)
    source = it.root / "stopped"
    process = it.start(*RUN, *VARIANTS[0].split(), f"hydra.run.dir={source}")
    while not all((source / "checkpoints" / f"{name}.ckpt").exists() for name in ("best", "previous")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    size = (source / "checkpoints" / "last.ckpt").stat().st_size
    places = {
        "first header": 3,
        "name in the header": 40,
        "pickle": 400,
        "first tensor": size // 20,
        "middle": size // 2,
        "late tensor": size * 9 // 10,
        "directory": size - 200,
        "end of the directory": size - 20,
        "last byte": size - 1,
    }
    last = "checkpoints/last.ckpt"
    cases: list[tuple[str, str, Callable[[bytes], bytes]]] = [(last, "empty", lambda b: b"")]
    for place, at in places.items():
        cases += [(last, f"{what} the {place}", partial(change, at)) for what, change in CHANGES.items()]
    for file in ("checkpoints/best.ckpt", "metrics.csv", "train.log", "events"):
        cases += [(file, "empty", lambda b: b""), (file, "cut off", lambda b: b[: len(b) * 2 // 3])]

    def try_case(case: tuple[int, tuple[str, str, Callable[[bytes], bytes]]]) -> None:
        number, (file, how, change) = case
        folder = it.root / f"torn-{number}"
        shutil.copytree(source, folder)
        path = next(folder.glob("events*")) if file == "events" else folder / file
        path.write_bytes(change(path.read_bytes()))
        it.count["files torn"] += 1
        if code := it.start(f"resume={folder}").wait(300):
            it.finding("runs that could not be resumed", f"{file}, {how}: exit status {code}")
        elif file == "events":  # the curve has a gap where its file has one; the results have not
            found = [text for text in differences(reference(it, 0), folder) if not text.startswith("curves")]
            it.count["results compared"] += 1
            if found:
                it.finding("results that differ", f"{file}, {how}: {found[:3]}")
        else:
            before = len(it.notes)
            it.compare(reference(it, 0), folder)
            if len(it.notes) > before:
                it.notes[-1] += f" ({file}, {how})"
        shutil.rmtree(folder)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(try_case, enumerate(cases)))


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk(it: Campaign, args: argparse.Namespace) -> None:
    """A disk that fills up at a random moment, one that is read-only when a run resumes, and one that vanishes."""
    for number in range(args.disks):
        place = it.root / f"disk-{number}"
        kind = ("full", "read-only", "vanished")[number % 3]
        with tmpfs(place, "size=16m"):
            folder, ballast, elsewhere = place / "run", place / "ballast", place / "elsewhere"
            process = it.start(*RUN, *VARIANTS[0].split(), f"hydra.run.dir={folder}")
            while not (folder / "checkpoints" / "last.ckpt").exists() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(it.random.uniform(0, 2))
            if kind == "full":
                with ballast.open("wb") as file, suppress(OSError):
                    while True:
                        file.write(bytes(65536))
                        file.flush()
            elif kind == "read-only":  # a disk with files open for writing can't be made so
                process.kill()
                process.wait()
                subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
                process = it.start(f"resume={folder}")
            else:
                folder.rename(elsewhere)
            code = process.wait(120)
            it.count[f"disks {kind}"] += 1
            if code not in (0, 1):
                it.finding("exit statuses that say nothing", f"{kind}: {code}")
            if kind == "full":
                ballast.unlink()
            elif kind == "read-only":
                subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)  # what the run could still write
                elsewhere.rename(folder)
            it.look(folder, 0)
            finish(it, [], folder)
            it.compare(reference(it, 0), folder)


def oom(it: Campaign, args: argparse.Namespace) -> None:
    """A run of a pool that is moved into a memory cgroup, where its next pages are too many: the kernel kills it."""
    group, limit, events = cgroup()
    whole, folder = whole_sweep(it, args), it.root / "oom"
    process = it.start(*sweep(args), f"hydra.sweep.dir={folder}")
    while not (victims := runs_of(process.pid)):
        time.sleep(0.1)
    victim = it.random.choice(victims)
    time.sleep(1)
    (group / "cgroup.procs").write_text(str(victim))
    limit.write_text(str(2**20))
    process.wait(300)
    killed = dict(line.split() for line in events.read_text().splitlines())["oom_kill"]
    it.count["workers killed by the OOM killer"] += int(killed)
    done = [path for path in folder.glob("*/summary.json") if status(path.parent) == "completed"]
    if process.returncode != 1 or len(done) != 3:
        it.finding("exit statuses that say nothing", f"OOM: {process.returncode}, {len(done)} of 4 completed")
    if code := it.start("-m", f"resume={folder}").wait(300):
        it.finding("sweeps that could not be resumed", code)
    for path in sorted(whole.glob("*/summary.json")):
        it.compare(path.parent, folder / path.parent.name)


def cgroup() -> tuple[Path, Path, Path]:
    """A new memory cgroup, of version 1 or 2: its folder, where its limit stands, and where the kernel counts kills."""
    root = Path("/sys/fs/cgroup")
    version1 = (root / "memory").is_dir()
    if not version1:
        (root / "cgroup.subtree_control").write_text("+memory")
    group = (root / "memory" if version1 else root) / f"optbench-{os.getpid()}"
    group.mkdir()
    limit, events = ("memory.limit_in_bytes", "memory.oom_control") if version1 else ("memory.max", "memory.events")
    return group, group / limit, group / events


PARTS: dict[str, Callable[[Campaign, argparse.Namespace], None]] = {
    "kills": kills, "sweeps": sweeps, "terms": terms, "torn": torn, "disk": disk, "oom": oom,
}  # fmt: skip
FOUND = (
    "finished work lost",
    "results that differ",
    "torn files",
    "processes left behind",
    "runs that could not be resumed",
    "sweeps that could not be resumed",
    "exit statuses that say nothing",
)
NEED_ROOT = ("disk", "oom")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=80, help="SIGKILLs to single runs")
    parser.add_argument("--sweep-kills", type=int, default=24, help="SIGKILLs to sweeps and their runs")
    parser.add_argument("--sweep-seeds", type=int, default=2, help="of two optimizers: twice as many runs in a sweep")
    parser.add_argument("--terms", type=int, default=24, help="SIGTERMs to single runs")
    parser.add_argument("--disks", type=int, default=6, help="disks that fill up, become read-only, vanish")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # tells of every restart that it reads
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        it, began = Campaign(Path(root), args.seed), time.monotonic()
        for part in args.only.split(","):
            if part in NEED_ROOT and (sys.platform != "linux" or os.geteuid()):
                print(f"{part}: left out, it needs Linux and root", flush=True)
                continue
            print(f"{part} …", flush=True)
            PARTS[part](it, args)
            print(f"  {dict(it.count)}  {time.monotonic() - began:.0f} s", flush=True)
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores, seed {args.seed}")
    print("\n| what | number |\n| --- | ---: |")
    for what in [*(name for name in it.count if name not in FOUND), *FOUND]:
        print(f"| {what} | {it.count[what]} |")
    for note in it.notes:
        print(note)
    sys.exit(bool(it.notes))


if __name__ == "__main__":
    main()
