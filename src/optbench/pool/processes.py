"""A pool's processes: started as devices become free, watched, stopped, never left behind."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from optbench.pool.devices import GPU, Job, Queue, label

LOG = "output.log"  # of each run, in its folder: all that it prints
PARENT = "OPTBENCH_PARENT"  # the process that started this one, without which it dies
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TICK = 0.05  # seconds between two looks at the processes
PATIENCE = 10.0  # seconds for the threads of a run that has ended
STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Run:
    """A job that has started."""

    job: Job
    devices: list[str]
    process: subprocess.Popen | BaseProcess
    began: float
    seconds: float | None = None  # how long it took, once it has ended
    kill_at: float | None = None  # when a run that was asked to stop is killed
    stopped: str = ""  # how it was asked to: `stopped because run 3 failed`, `timed out after 60 s`
    timed_out: bool = False

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began if self.seconds is None else self.seconds

    @property
    def status(self) -> int | None:
        """The exit status; minus the signal that ended it; None while it runs."""
        return self.process.exitcode if isinstance(self.process, BaseProcess) else self.process.poll()

    @property
    def failed(self) -> bool:
        """Whether it went wrong by itself: one that was stopped because of another, or by a person, did not."""
        return self.timed_out or (bool(self.status) and not self.stopped)

    @property
    def place(self) -> str:
        return label(self.job.kind, self.devices)

    def ask_to_stop(self, why: str, grace: float) -> None:
        """SIGTERM, to the first process alone: Lightning passes it on, and ranks that get it twice wait for ever."""
        if self.kill_at is None:
            self.stopped, self.kill_at = why, time.monotonic() + grace
            self.process.terminate()

    def kill(self) -> None:
        """The whole group: the process, the ranks of DDP and all else that it has started."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError, PermissionError):  # all are gone; macOS says the second of zombies
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # one that was forked a moment ago has no group yet


class Observer(Protocol):
    """Who is told what happens."""

    def started(self, run: Run) -> None: ...

    def ended(self, run: Run) -> None: ...

    def look(self, running: list[Run], waiting: int) -> None:
        """Called at every tick."""

    def say(self, text: str) -> None: ...


class Pool:
    """Works off a queue in one thread, the main one, because children die with the thread that started them."""

    def __init__(
        self,
        jobs: Queue,
        observer: Observer,
        *,
        timeout: float | None = None,
        grace: float = 30,
        fail_fast: bool = False,
    ) -> None:
        self.jobs = jobs
        self.observer = observer
        self.timeout = timeout
        self.grace = grace
        self.fail_fast = fail_fast
        self.running: list[Run] = []
        self.ended: list[Run] = []

    def work(self) -> list[Run]:
        """Every run that started, in the order in which they ended.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once all runs have stopped; SystemExit(143) after SIGTERM. A second signal
                kills the runs at once.
            OSError: where a run cannot be started, as its folder cannot be made; the other runs are stopped first.
        """
        with noted(*STOPPING) as received:
            heard = 0
            cannot_start: OSError | None = None
            try:
                while True:
                    if len(received) > heard:
                        heard = len(received)
                        self.interrupt(again=heard > 1)
                    try:
                        while not received and (taken := self.jobs.take()):
                            self.start(*taken)
                    except OSError as error:
                        cannot_start = error
                        self.stop("stopped because another run could not be started")
                    if not self.running:
                        break
                    self.observer.look(self.running, len(self.jobs))
                    self.wait()
                    for run in list(self.running):
                        self.check(run)
            finally:
                for run in self.running:  # none, unless something went wrong here
                    run.kill()
        if cannot_start:
            raise cannot_start
        if received:
            raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(128 + received[0])
        return self.ended

    def wait(self) -> None:
        """Until a process that was forked ends, at most a tick."""
        forked = [run.process.sentinel for run in self.running if isinstance(run.process, BaseProcess)]
        if forked:
            connection.wait(forked, TICK)
        else:
            time.sleep(TICK)

    def start(self, job: Job, devices: list[str]) -> None:
        visible = ",".join(devices) if job.kind == GPU else ""
        environment = {**job.environment, "CUDA_VISIBLE_DEVICES": visible, PARENT: str(os.getpid())}
        job.folder.mkdir(parents=True, exist_ok=True)
        process = fork(job, environment) if job.work else execute(job, environment)
        run = Run(job, devices, process, time.monotonic())
        self.running.append(run)
        self.observer.started(run)

    def check(self, run: Run) -> None:
        """Take note of a run's end; enforce its time."""
        now = time.monotonic()
        if run.status is not None:
            run.seconds = now - run.began
            run.kill()  # what is left of its group
            self.running.remove(run)
            self.ended.append(run)
            self.jobs.give_back(run.job.kind, run.devices)
            self.observer.ended(run)
            if run.failed and self.fail_fast:
                self.stop(f"stopped because run {run.job.number} failed")
        elif run.kill_at is not None:
            if now > run.kill_at:
                run.kill()
        elif self.timeout is not None and now > run.began + self.timeout:
            run.timed_out = True
            run.ask_to_stop(f"timed out after {self.timeout:g} s", self.grace)

    def interrupt(self, again: bool) -> None:
        if again:
            for run in self.running:
                run.kill()
        else:
            self.stop("stopped")
            if self.running:
                self.observer.say("Stopping: running jobs save a checkpoint and stop; Ctrl-C again stops them now.")

    def stop(self, why: str) -> None:
        """Start nothing more, and ask what runs to stop."""
        self.jobs.clear()
        for run in self.running:
            run.ask_to_stop(why, self.grace)


def execute(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    """The job's command in a fresh process."""
    with (job.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,  # or the terminal's Ctrl-C would reach it too
        )


def fork(job: Job, environment: Mapping[str, str]) -> BaseProcess:
    """The job's work in a copy of this process; no signal gets lost while it is not yet ready for it."""
    process = multiprocessing.get_context("fork").Process(target=work_as_typed, args=(job, environment))
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    return process


def work_as_typed(job: Job, environment: Mapping[str, str]) -> None:
    """In a forked process: all that a process has which a person's shell starts, then the job's work."""
    assert job.work is not None
    os.setsid()
    os.environ.update(environment)
    with (job.folder / LOG).open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.argv = job.command[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    die_with_parent()
    status: Any = 0
    try:
        job.work()
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):  # sys.exit("a sentence")
            print(status, file=sys.stderr, flush=True)
            status = 1
    if names := threads_that_stay():
        print(
            f"The run has ended, but not its threads {', '.join(names)}: they are killed.", file=sys.stderr, flush=True
        )
        os._exit(status)
    sys.exit(status)


def threads_that_stay() -> list[str]:
    """The names of threads that do not end within PATIENCE; Python would wait for them for ever."""
    end = time.monotonic() + PATIENCE
    others = [thread for thread in threading.enumerate() if not (thread.daemon or thread is threading.main_thread())]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]


@contextmanager
def noted(*signals: signal.Signals) -> Iterator[list[int]]:
    """These signals end up in a list and interrupt nothing."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in signals}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Die when the process dies that OPTBENCH_PARENT names, and let the processes that this one starts die with it.

    The pool names itself for each of its runs; a run names itself for the ranks of DDP, which Lightning starts with
    its environment. Linux then kills the process when the thread dies that started it: start processes from the main
    one. A process whose parent died before this call, while Python was loading, has another parent and ends.
    """
    parent = int(os.environ.get(PARENT) or 0)
    if not parent:
        return
    os.environ[PARENT] = str(os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        die()


def watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
