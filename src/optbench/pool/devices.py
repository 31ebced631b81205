"""Which devices there are, and which run has which of them."""

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
CGROUP = Path("/sys/fs/cgroup")  # of this container (version 2)
GPU, CPU = "gpu", "cpu"  # the kinds of devices; one of the CPU is a slot: some of its cores


@dataclass(frozen=True)
class Job:
    """A command that wants `wanted` different devices of one kind for as long as it runs.

    `work` does the same in a process that is forked from this one, which saves the imports. None: it has to be typed.
    """

    number: int
    command: list[str]
    folder: Path
    work: Callable[[], None] | None = None
    title: str = ""
    kind: str = CPU
    wanted: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None  # of the whole run
    monitor: str = ""


class Queue:
    """Jobs that wait and devices that are free; no clock, no process. `take` until None, `give_back` as a job ends.

    First come, first served for each kind of device: a job that wants two devices is not overtaken by those behind it,
    which could keep it waiting for ever. Where every job wants one, no device is idle while a job waits for its kind.
    """

    def __init__(self, jobs: Iterable[Job], free: Mapping[str, Mapping[str, int]]) -> None:
        """`free`: for each kind its devices, and how many jobs each takes at a time."""
        self.free = {kind: dict(devices) for kind, devices in free.items()}
        self.waiting: dict[str, deque[Job]] = {kind: deque() for kind in free}
        for job in jobs:
            self.waiting[job.kind].append(job)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def take(self) -> tuple[Job, list[str]] | None:
        """The next job that can start, and its devices: those with the fewest jobs, the first among equals."""
        for kind, waiting in self.waiting.items():
            free = self.free[kind]
            devices = sorted((device for device in free if free[device]), key=lambda device: -free[device])
            if waiting and len(devices) >= waiting[0].wanted:
                job = waiting.popleft()
                taken = devices[: job.wanted]
                for device in taken:
                    free[device] -= 1
                return job, taken
        return None

    def give_back(self, kind: str, devices: Iterable[str]) -> None:
        for device in devices:
            self.free[kind][device] += 1

    def clear(self) -> None:
        """Nothing more starts."""
        for waiting in self.waiting.values():
            waiting.clear()


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists (numbers, `GPU-…`, `MIG-…`), or where it is not set, all GPUs of this machine.

    As CUDA does, it reads the list up to the first entry that is none, such as -1; a repeated one counts once.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return installed_gpus()
    entries = (entry.strip() for entry in visible.split(","))
    return list(dict.fromkeys(takewhile(lambda entry: re.match(r"\d+$|GPU-|MIG-", entry), entries)))


def installed_gpus() -> list[str]:
    """The GPUs of this machine, without a CUDA context, which would take memory from the runs."""
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        if listed.returncode == 0:
            return parse_gpus(listed.stdout)
    with single_threaded():
        import torch  # seconds, but it knows other drivers

    return [str(i) for i in range(torch.cuda.device_count())]


def parse_gpus(listed: str) -> list[str]:
    """`nvidia-smi -L` as entries of CUDA_VISIBLE_DEVICES: the number of a GPU, or the parts that MIG made of it."""
    found: list[str] = []
    for gpu in re.split(r"^(?=GPU \d+:)", listed, flags=re.M)[1:]:
        parts = re.findall(r"\(UUID: (MIG-[^)]+)\)", gpu)
        found += parts or [gpu[4 : gpu.index(":")]]
    return found


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_left() -> float:
    """Bytes that new processes can take: of this machine, or of the container's limit (Linux; elsewhere infinite)."""
    left = [float("inf")]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # no limit is `max`, which is no number
        left.append(int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text()))
    return min(left)


def threads(slots: int) -> dict[str, str]:
    """The environment of a run, where the cores are divided equally among so many slots.

    The number of threads depends on the machine and the whole sweep, not on how many runs are left: sums of floating
    point numbers may depend on it. Where the environment sets fewer threads, these stay.
    """
    count = max(1, cores() // slots)
    given = {name: os.environ.get(name, "") for name in THREADS}
    return {name: str(min(count, int(value)) if value.isdecimal() else count) for name, value in given.items()}


@contextmanager
def single_threaded() -> Iterator[None]:
    """Libraries that are imported here start no threads; a run that is forked sets how many it wants."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def label(kind: str, devices: list[str]) -> str:
    """`cuda:0`, `cuda:0, cuda:1`, `MIG-8f3a26b1`, `cpu`, `2 x cpu`."""
    if kind == CPU:
        return "cpu" if len(devices) == 1 else f"{len(devices)} x cpu"
    return ", ".join(f"cuda:{device}" if device.isdecimal() else device[:12] for device in devices)
