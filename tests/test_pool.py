"""Devices, the order of jobs, processes that end, fail, hang and are stopped, and a sweep as a user types it."""

import heapq
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import typed
from conftest import PROJECT, SMALL, Result
from optbench.commands.hydra_internals import compose_job, resolved_group
from optbench.pool import composition, preload
from optbench.pool.devices import CPU, GPU, Job, Queue, gpus, memory_left, parse_gpus, threads
from optbench.pool.launch import PoolSettings, devices_there, devices_wanted, fit_memory
from optbench.pool.processes import Pool, Run
from optbench.pool.table import last_line, last_row, outcome, tail, why_failed
from optbench.training import build

# Devices


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0,1,2", ["0", "1", "2"]),
        (" 3 , 1", ["3", "1"]),
        ("GPU-8f3a-1,GPU-9b", ["GPU-8f3a-1", "GPU-9b"]),
        ("MIG-a1,MIG-b2", ["MIG-a1", "MIG-b2"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("2,2,3", ["2", "3"]),
        ("none", []),
    ],
)
def test_visible_devices(monkeypatch: pytest.MonkeyPatch, visible: str, found: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found


def test_the_drivers_list() -> None:
    listed = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef)\n"
        "  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-e9ab1c93)\n"
    )
    assert parse_gpus(listed) == ["MIG-c6d4f1ef", "MIG-cba663e8", "1"]
    assert parse_gpus("No devices were found\n") == []


def asked(text: str) -> DictConfig:
    trainer = OmegaConf.create(f"{{{text}}}")
    assert isinstance(trainer, DictConfig)
    return trainer


@pytest.mark.parametrize(
    ("trainer", "there", "wanted"),
    [
        ("accelerator: auto, devices: 1", 2, (GPU, 1)),
        ("accelerator: auto, devices: 1", 0, (CPU, 1)),
        ("accelerator: cpu, devices: 2", 2, (CPU, 2)),
        ("accelerator: gpu, devices: 2", 2, (GPU, 2)),
        ("accelerator: gpu, devices: -1", 3, (GPU, 3)),
        ("accelerator: cuda, devices: auto", 3, (GPU, 3)),
        ("accelerator: auto, devices: auto", 0, (CPU, 1)),
        ("accelerator: gpu, devices: '2'", 2, (GPU, 2)),
        ("accelerator: gpu, devices: [0, 1]", 2, (GPU, 2)),
        ("accelerator: gpu, devices: 0", 2, (GPU, 1)),  # the Trainer refuses it, with its own words
    ],
)
def test_how_many_devices_a_run_wants(trainer: str, there: int, wanted: tuple[str, int]) -> None:
    free = {GPU: dict.fromkeys(map(str, range(there)), 1), CPU: {"0": 1, "1": 1}}
    assert devices_wanted(asked(trainer), free) == wanted


@pytest.mark.parametrize(
    ("trainer", "sentence"),
    [
        ("accelerator: gpu, devices: 3", "trainer.devices=3 wants more GPUs at once than there are. Use at most"),
        ("accelerator: cpu, devices: 2", "trainer.devices=2 on the CPU takes .* or hydra.launcher.workers=2."),
        ("accelerator: gpu, devices: [1]", r"trainer.devices=\[1\] names devices, .* trainer.devices=1."),
        ("accelerator: gpu, devices: '0,2'", "trainer.devices=0,2 names devices, .* trainer.devices=2."),
    ],
)
def test_devices_that_no_run_can_get(trainer: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        devices_wanted(asked(trainer), {GPU: {"0": 1, "1": 1}, CPU: {"0": 1}})


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.pool.devices.cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    share = threads(3)
    assert (share["OMP_NUM_THREADS"], share["MKL_NUM_THREADS"]) == ("5", "2")
    assert threads(99)["OMP_NUM_THREADS"] == "1"


# The order of jobs, by a simulated clock


def job(number: int = 0, code: str = "", folder: Path = Path(), **wants) -> Job:
    return Job(number, [sys.executable, "-c", code], folder, title=f"job {number}", **wants)


def simulate(jobs: list[Job], free: dict[str, dict[str, int]], lengths: list[float]) -> dict[int, tuple]:
    """For each job: start, end, devices. Fails if devices are idle while the first job that waits would fit."""
    queue, now = Queue(jobs, free), 0.0
    running: list[tuple] = []
    events: dict[int, tuple] = {}
    while True:
        while taken := queue.take():
            started, devices = taken
            end = now + lengths[started.number]
            events[started.number] = (now, end, devices)
            heapq.heappush(running, (end, started.number, started.kind, devices))
        for kind, waiting in queue.waiting.items():
            assert not waiting or sum(map(bool, queue.free[kind].values())) < waiting[0].wanted
        if not running:
            return events
        now, _, kind, devices = heapq.heappop(running)
        queue.give_back(kind, devices)


def busiest(events: dict[int, tuple]) -> Counter:
    """For each device the most jobs that it had at a time."""
    most: Counter = Counter()
    for start, _, devices in events.values():
        for device in devices:
            at_once = sum(begin <= start < end for begin, end, theirs in events.values() if device in theirs)
            most[device] = max(most[device], at_once)
    return most


@pytest.mark.parametrize("per_device", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_devices_are_busy_and_never_shared_beyond_measure(per_device: int, seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.expovariate(1) for _ in range(60)]
    events = simulate([job(i, kind=GPU) for i in range(60)], {GPU: dict.fromkeys("0123", per_device)}, lengths)
    assert busiest(events) == dict.fromkeys("0123", per_device)
    loads = [0.0] * 4 * per_device  # greedy list scheduling: each job to whoever is free first
    for length in lengths:
        heapq.heapreplace(loads, loads[0] + length)
    assert max(end for _, end, _ in events.values()) <= max(loads) / 0.95


def test_a_job_on_two_devices_has_two_and_is_not_overtaken() -> None:
    wanted = [1, 2, 1, 1, 2, 1]
    jobs = [job(i, kind=GPU, wanted=count) for i, count in enumerate(wanted)]
    events = simulate(jobs, {GPU: {"0": 1, "1": 1}}, [1.0] * 6)
    assert [events[i][0] for i in range(6)] == [0, 1, 2, 2, 3, 4]
    assert all(len(set(events[i][2])) == count for i, count in enumerate(wanted))
    assert max(busiest(events).values()) == 1


def test_a_job_on_all_gpus_keeps_none_from_the_cpu() -> None:
    jobs = [job(0, kind=GPU), job(1, kind=GPU, wanted=2), job(2, kind=CPU)]
    events = simulate(jobs, {GPU: {"0": 1, "1": 1}, CPU: {"0": 1}}, [2.0, 1.0, 1.0])
    assert [events[i][0] for i in range(3)] == [0, 2, 0]


# Processes


class Witness:
    """Notes what happens; in the real pool, the display."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.looks: Callable[[list[Run]], None] = lambda running: None

    def started(self, run: Run) -> None:
        self.events.append(("start", run.job.number))

    def ended(self, run: Run) -> None:
        self.events.append(("end", run.job.number))

    def look(self, running: list[Run], waiting: int) -> None:
        self.looks(running)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., dict[int, Run]]:
    """Runs Python code on pretended GPUs: `work("print(1)", "1/0")`; the runs by their numbers."""

    def call(*codes: str, devices: int = 2, wanted: int = 1, witness: Witness | None = None, **limits) -> dict:
        jobs = [job(i, code, tmp_path / str(i), kind=GPU, wanted=wanted) for i, code in enumerate(codes)]
        free = {GPU: dict.fromkeys(map(str, range(devices)), 1)}
        call.witness = witness or Witness()  # type: ignore[attr-defined]
        return {run.job.number: run for run in Pool(Queue(jobs, free), call.witness, **limits).work()}  # type: ignore[attr-defined]

    return call


def printed(run: Run) -> str:
    return (run.job.folder / "output.log").read_text()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


SHOW = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
ON_TERM = "import signal, time; signal.signal(signal.SIGTERM, {}); print('ready', flush=True); time.sleep(60)"
STUBBORN = ON_TERM.format("signal.SIG_IGN")
# a process in the group that outlives the first one, as a rank of DDP would
RANK = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"


def test_every_process_sees_its_devices_alone(work) -> None:
    runs = work(*[SHOW] * 4)
    assert all(printed(run).strip() == run.devices[0] for run in runs.values())
    assert {run.devices[0] for run in runs.values()} == {"0", "1"}
    assert printed(work(SHOW, wanted=2)[0]).endswith("0,1\n")


def test_failures_are_told_and_stop_nobody(work) -> None:
    runs = work(
        "print('x')",
        "import sys; print('\\nmonitor=x is not\\nmeasured.', file=sys.stderr); sys.exit(1)",
        "import os; os.kill(os.getpid(), 9)",
        "raise SystemExit(3)",
    )
    assert [runs[i].failed for i in range(4)] == [False, True, True, True]
    assert outcome(runs[0]).startswith("ended in ")
    assert outcome(runs[1]) == "failed: monitor=x is not measured."
    assert why_failed(runs[2]) == "killed by SIGKILL, possibly out of memory."
    assert why_failed(runs[3]) == "exit status 3, and nothing printed."


def test_fail_fast_stops_the_others(work) -> None:
    runs = work("import time; time.sleep(60)", "raise SystemExit(1)", SHOW, fail_fast=True)
    assert sorted(runs) == [0, 1]  # the third never started
    assert runs[0].status == -signal.SIGTERM and outcome(runs[0]) == "stopped because run 1 failed."
    assert [runs[i].failed for i in range(2)] == [False, True]


def test_a_run_that_takes_too_long(work) -> None:
    politely = ON_TERM.format("lambda *_: exit(0)")
    runs = work(politely, STUBBORN, SHOW, timeout=1, grace=0.5)
    assert runs[0].status == 0 and runs[0].failed and outcome(runs[0]) == "failed: timed out after 1 s."
    assert runs[1].status == -signal.SIGKILL and outcome(runs[1]) == "failed: timed out after 1 s."
    assert not runs[2].failed


def test_a_run_that_cannot_be_started_lets_the_others_stop_in_peace(work, tmp_path: Path) -> None:
    (tmp_path / "2").write_text("a file where its folder should be")
    witness = Witness()
    output = tmp_path / "0" / "output.log"
    once_0_is_ready = f"while 'ready' not in open({str(output)!r}).read(): pass"
    with pytest.raises(FileExistsError, match=str(tmp_path / "2")):
        work(ON_TERM.format("lambda *_: exit(print('saved'))"), once_0_is_ready, SHOW, SHOW, witness=witness)
    assert output.read_text() == "ready\nsaved\n"
    assert witness.events == [("start", 0), ("start", 1), ("end", 1), ("end", 0)]  # and run 3 never starts


def test_what_a_run_leaves_behind_dies_with_it(work) -> None:
    rank = int(printed(work(RANK)[0]))
    wait_for(lambda: not alive(rank))


@pytest.mark.parametrize(
    ("signals", "ends_as", "status"),
    [
        ([signal.SIGINT], KeyboardInterrupt, 7),
        ([signal.SIGTERM], SystemExit, 7),
        ([signal.SIGINT, signal.SIGINT], KeyboardInterrupt, -signal.SIGKILL),
    ],
)
def test_interrupting(work, signals: list[int], ends_as: type[BaseException], status: int) -> None:
    once = len(signals) == 1
    witness, left = Witness(), list(signals)
    seen: list[Run] = []

    def interrupt(running: list[Run]) -> None:
        if left:  # later one may have ended, and the other not yet
            seen[:] = running
            if all("ready" in printed(run) for run in running):
                os.kill(os.getpid(), left.pop(0))

    witness.looks = interrupt
    code = ON_TERM.format("lambda *_: exit(7)") if once else STUBBORN
    with pytest.raises(ends_as) as error:
        work(code, code, SHOW, witness=witness)
    assert [run.status for run in seen] == [status] * 2
    assert witness.said == ["Stopping: running jobs save a checkpoint and stop; Ctrl-C again stops them now."]
    assert ("start", 2) not in witness.events
    if ends_as is SystemExit:
        assert error.value.args == (143,)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_survives_a_pool_that_is_killed(tmp_path: Path) -> None:
    """The pool, a run that it starts, and a rank that the run starts, tied as src/train.py ties them."""
    rank = "import os, time; from optbench.pool.processes import die_with_parent; die_with_parent(); "
    rank += "print('rank', os.getpid(), flush=True); time.sleep(60)"
    run = (
        "import os, subprocess, sys, time; from optbench.pool.processes import die_with_parent; die_with_parent(); "
        f"print('run', os.getpid(), flush=True); subprocess.Popen([sys.executable, '-c', {rank!r}]); time.sleep(60)"
    )
    pool = (
        "from pathlib import Path; from optbench.pool.devices import *; from optbench.pool.processes import Pool\n"
        "class Nobody: started = ended = look = say = lambda *_: None\n"
        f"jobs = [Job(i, [{sys.executable!r}, '-c', {run!r}], Path({str(tmp_path)!r}) / str(i)) for i in range(2)]\n"
        "Pool(Queue(jobs, {CPU: {'0': 1, '1': 1}}), Nobody()).work()"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    parent = subprocess.Popen([sys.executable, "-c", pool], env=environment)
    logs = [tmp_path / str(i) / "output.log" for i in range(2)]
    wait_for(lambda: all(log.exists() and "rank" in log.read_text() for log in logs))
    pids = [int(word) for log in logs for word in log.read_text().split() if word.isdecimal()]
    assert len(pids) == 4 and all(map(alive, pids))
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(map(alive, pids)))


def test_nobody_ties_itself_to_a_parent_that_has_gone(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "OPTBENCH_PARENT": "999999999"}
    code = "from optbench.pool.processes import die_with_parent; die_with_parent(); print('here')"
    late = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (late.returncode, late.stdout) == (-signal.SIGKILL, "")
    del environment["OPTBENCH_PARENT"]
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# Forked runs


def forked(folder: Path, work: Callable[[], None], **limits) -> Run:
    environment = {"OMP_NUM_THREADS": "3"}
    jobs = [Job(0, [sys.executable, "train.py", "seed=7"], folder, work=work, kind=GPU, environment=environment)]
    (run,) = Pool(Queue(jobs, {GPU: {"5": 1}}), Witness(), **limits).work()
    return run


def test_a_forked_run_is_as_a_typed_one(tmp_path: Path) -> None:
    def work() -> None:
        print(sys.argv[1:], os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"])
        print("session", os.getsid(0) == os.getpid(), "parent", os.environ["OPTBENCH_PARENT"] == str(os.getpid()))
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.pthread_sigmask(signal.SIG_BLOCK, []))
        print("an error", file=sys.stderr)
        subprocess.run(["echo", "a child"])
        raise SystemExit(3)

    run = forked(tmp_path, work)
    assert (run.status, run.failed) == (3, True)
    printed_lines = sorted(printed(run).splitlines())
    assert printed_lines == sorted(
        ["['seed=7'] 5 3", "session True parent True", "True set()", "an error", "a child"]
    ), printed_lines
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])  # here, too


def test_an_error_of_a_forked_run(tmp_path: Path) -> None:
    run = forked(tmp_path, lambda: print(1 / 0))
    assert run.status == 1 and "ZeroDivisionError" in why_failed(run)


def test_a_signal_ends_a_forked_run(tmp_path: Path) -> None:
    def work() -> None:
        print("step 7 of 9\nstep 8 of 9", flush=True)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
        os.kill(os.getpid(), signal.SIGHUP)

    assert why_failed(forked(tmp_path, work)) == "killed by SIGHUP; its last line: step 8 of 9"
    (tmp_path / "output.log").write_text("")
    (tmp_path / "train.log").write_text("epoch 1\nepoch 2\n")
    assert last_line(tmp_path) == "epoch 2"


def test_what_a_forked_run_leaves_behind_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.pool.processes.PATIENCE", 0.2)

    def work() -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        print(sleeper.pid, flush=True)
        threading.Thread(target=time.sleep, args=[60], name="uploader").start()
        threading.Thread(target=time.sleep, args=[0.01], name="soon over").start()

    run = forked(tmp_path, work)
    assert run.status == 0 and run.elapsed < 30
    pid, sentence = printed(run).splitlines()
    assert sentence == "The run has ended, but not its threads uploader: they are killed."
    wait_for(lambda: not alive(int(pid)))


@pytest.mark.parametrize(("code", "status"), [(None, 0), ("no more", 1), (3, 3)])
def test_a_forked_run_that_exits_and_leaves_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | str | None, status: int
) -> None:
    monkeypatch.setattr("optbench.pool.processes.PATIENCE", 0.1)

    def work() -> None:
        threading.Thread(target=time.sleep, args=[60], name="uploader").start()
        sys.exit(code)

    run = forked(tmp_path, work)
    assert run.status == status and printed(run).startswith("no more\nThe run" if code == "no more" else "The run")


def test_a_forked_run_that_does_not_stop(tmp_path: Path) -> None:
    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    run = forked(tmp_path, work, timeout=0.3, grace=0.2)
    assert run.status == -signal.SIGKILL and outcome(run) == "failed: timed out after 0.3 s."


# What is composed and loaded ahead


def compose_sweep(jobs: list[list[str]]) -> None:
    """As the launcher calls it; prints what the processes that help have made, and what this one makes."""
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", ["hydra.sweep.dir=/nowhere"], run_mode=RunMode.MULTIRUN)
        config.hydra.sweep.dir = "/nowhere"
        helped = composition.compose_elsewhere(config, list(enumerate(jobs, 3)))
        print([[cfg.seed, cfg.hydra.job.num, cfg.hydra.runtime.output_dir] for cfg in helped])
        alone = [compose_job(config, job, number, loader) for number, job in enumerate(jobs, 3)]
        same = list(map(OmegaConf.to_container, helped)) == list(map(OmegaConf.to_container, alone))
        print(same, preload.not_forkable() == "", not active_children())
        composition.compose_jobs(config, jobs, 3, loader)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_jobs_are_composed_by_other_processes(tmp_path: Path) -> None:
    jobs = [["optimizer=sgd", f"seed={seed}"] for seed in (5, 6, 7)]
    typed_code = typed.Process(compose_sweep, jobs, folder=tmp_path).result()
    first, second = typed_code.stdout.splitlines()
    folders = [
        [seed, number, f"/nowhere/{number}_optimizer=sgd,seed={seed}"] for number, seed in enumerate((5, 6, 7), 3)
    ]
    assert (first, second) == (str(folders), "True True True"), typed_code.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_job_that_cannot_be_composed(tmp_path: Path) -> None:
    typed_code = typed.Process(compose_sweep, [["seed=1"], ["optimizer=sgdd"]], folder=tmp_path).result()
    assert (typed_code.stdout.splitlines()[0], typed_code.returncode) == ("[]", 1)
    assert "Could not find 'optimizer/sgdd'" in typed_code.stderr


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        return compose("train", [*SMALL, *overrides], return_hydra_config=True)


def test_images_are_read_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "images_read", {})
    groups = [resolved_group(configuration(f"seed={seed}", "data.batch_size=10"), "data") for seed in (0, 1)]
    preload.read_images(groups)
    one, two = (build.build_data(configuration(f"seed={seed}")) for seed in (3, 4))
    assert one.imageset is two.imageset and one.imageset is next(iter(build.images_read.values()))
    other = build.build_data(configuration("data.shapes_seed=1"))
    assert other.imageset is not one.imageset and len(build.images_read) == 1
    preload.read_images([resolved_group(configuration("data.train_size=200"), "data")])  # a single run reads its own
    assert len(build.images_read) == 1


def test_images_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One source: the sweep ends before a run starts. Several: its own runs say it."""
    monkeypatch.setattr(build, "images_read", {})
    good = resolved_group(configuration(), "data")
    bad = {**good, "train_size": 50_001}
    with pytest.raises(ValueError, match=r"data\.train_size=50001 cannot be drawn"):
        preload.read_images([bad, bad])
    preload.read_images([bad, bad, good, good])
    assert len(build.images_read) == 1


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=[30], daemon=True).start()",
            "starts a thread",
        ),
        ("import torch; torch.cuda.is_initialized = lambda: True", "starts CUDA"),
        ("raise RuntimeError('broken')", ""),
    ],
)
def test_a_module_that_does_not_survive_a_fork(tmp_path: Path, code: str, sentence: str) -> None:
    (tmp_path / "theirs.py").write_text(code + "\nclass Loud: ...\n")
    typed_code = typed.Process(say_preload, str(tmp_path), folder=tmp_path).result()
    expected = f"Importing theirs {sentence}, which a forked run would lack.\n" if sentence else "\n"
    assert (typed_code.stdout, typed_code.returncode) == (expected, 0), typed_code.stderr


def say_preload(folder: str) -> None:
    sys.path.insert(0, folder)
    print(preload.preload([configuration("+callbacks.theirs._target_=theirs.Loud")]))


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.pool.launch.memory_left", lambda: 0.7e9)
    slots = dict.fromkeys("01234567", 1)
    fit_memory(PoolSettings(None, 1, None, 30, False), slots, 1)
    assert list(slots) == ["0", "1", "2"]
    fit_memory(PoolSettings(None, 1, None, 30, False), slots, 3)
    assert len(slots) == 3
    sentence = (
        "hydra.launcher.workers=8 runs at a time need at least 0.20 GB of memory each, 1.6 GB together; 0.7 GB are "
        "left. Use at most hydra.launcher.workers=3."
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fit_memory(PoolSettings(8, 1, None, 30, False), slots, 1)
    assert memory_left() > 1e7


def test_one_run_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.pool.launch.cores", lambda: 4)
    settings, trainer = PoolSettings(None, 2, None, 30, False), asked("accelerator: cpu, devices: 1")
    assert len(devices_there(settings, [trainer] * 9)[CPU]) == 4
    assert len(devices_there(settings, [trainer] * 2)[CPU]) == 2  # each has two cores
    assert len(devices_there(settings, [asked("accelerator: cpu, devices: 3")])[CPU]) == 3


# What a person sees


def test_progress_comes_from_the_last_whole_row(tmp_path: Path) -> None:
    assert last_row(tmp_path) == {}
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/loss\n")
    assert last_row(tmp_path) == {}
    path.write_text("epoch,step,val/loss\n" + "1,6,2.5\n" * 5000 + "2,12,1.5\n3,18,1.")
    assert last_row(tmp_path) == {"epoch": "2", "step": "12", "val/loss": "1.5"}
    path.unlink()
    path.mkdir()  # any file that cannot be read
    assert (last_row(tmp_path), tail(path)) == ({}, "")


# As a user types it


@pytest.fixture
def pooled(train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A sweep from this process, which has threads: its runs are fresh processes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(*arguments: str, name: str = "fresh") -> Result:
        return train("-m", "hydra/launcher=pool", *arguments, name=name)

    return call


def start(folder: Path, *arguments: str) -> typed.Process:
    """`python src/train.py -m …`: its runs are forked."""
    place = {"folder": folder.parent, "cwd": folder.parent, "env": {**os.environ, "CUDA_VISIBLE_DEVICES": ""}}
    return typed.script("train", "-m", *SMALL, *arguments, f"hydra.sweep.dir={folder.name}", **place)


def sweep(folder: Path, *arguments: str) -> Result:
    done = start(folder, *arguments).result()
    return Result(done.returncode, done.stdout, done.stderr, folder)


def story(folder: Path) -> dict:
    """A run's record without what two runs of the same configuration do not share: folder, times, memory."""
    record = json.loads((folder / "summary.json").read_text().replace(str(folder.parent), ""))
    for key in ("started", "seconds", "targets", "error", "peak_memory_mb"):
        del record[key]
    for row in (record["final"], record["best"]):
        row.pop("seconds", None), row.pop("epoch_seconds", None)
    return record


def test_a_sweep_leaves_the_records_of_the_serial_launcher(train, pooled, tmp_path) -> None:
    settings = ["optimizer=adam", "optimizer.lr=0.01,0", r"hydra.sweep.subdir='${hydra.job.num} it\'s, a=b'"]
    result, serial = sweep(tmp_path / "pool", *settings), train("-m", *settings, name="serial")
    assert (result.status, serial.status) == (1, 1)
    assert result.sentence == "1 of 2 runs failed (1); output.log in their folders says why."
    for name in ("0 it's, a=b", "1 it's, a=b"):
        assert story(result.folder / name) == story(serial.folder / name)
        assert (result.folder / name / ".hydra" / "overrides.yaml").is_file()
    assert "a Python of its own" not in result.out  # they were forked
    assert re.search(
        r"^[12] of 2  \[0\] optimizer.lr=0.01: completed in \S+ s, val/loss \d.\d+, test/acc", result.out, re.M
    )
    assert "[1] optimizer.lr=0: failed: optimizer.lr=0 is no learning rate" in result.out
    log = result.folder / "1 it's, a=b" / "output.log"
    assert f"[1] optimizer.lr=0 failed: {' '.join(log.read_text().split())} See {log}" in result.out

    there = str(result.folder / "0 it's, a=b").replace("'", r"\'")
    again = pooled("optimizer.lr=0.01", f"hydra.sweep.subdir='{there}'")
    assert again.status == 0 and again.out == "1 of 1 runs have their results already.\n"


def test_fresh_processes_leave_the_same(train, pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "1")  # alone on the machine, the run would have all cores
    fresh, serial = pooled("seed=3"), train("-m", "seed=3", name="serial")
    assert (fresh.status, serial.status) == (0, 0)
    why = "This process has a thread already, which a forked run would lack. So each run starts a Python of its own,"
    assert fresh.out.startswith(why)
    (one,), (other,) = (list(result.folder.glob("0_*")) for result in (fresh, serial))
    assert story(one) == story(other)


def test_a_run_on_two_devices(tmp_path: Path) -> None:
    result = sweep(tmp_path / "pool", "hydra.launcher.workers=2", "trainer=ddp", "trainer.accelerator=cpu", "seed=3")
    assert result.status == 0, result.err
    (folder,) = (path for path in result.folder.iterdir() if path.is_dir())
    record = json.loads((folder / "summary.json").read_text())
    assert (record["status"], record["device"]["devices"], record["seed"]) == ("completed", 2, 3)


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


LONG = ("trainer.max_epochs=500", "callbacks.early_stopping=null")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
def test_kill_9_of_a_run_and_of_the_pool(tmp_path: Path) -> None:
    pool = start(tmp_path / "pool", "hydra.launcher.workers=2", "seed=0,1", *LONG)
    wait_for(lambda: len(list((tmp_path / "pool").glob("*/checkpoints/last.ckpt"))) == 2)
    first, second = children(pool.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not alive(first))
    wait_for(lambda: "killed by SIGKILL" in pool.printed[0].read_text())
    assert re.search(
        r"1 of 2  \[[01]\] seed=[01]: failed: killed by SIGKILL, possibly out of memory; its last line: \S+ .* epoch",
        pool.printed[0].read_text(),
    )
    assert alive(second)
    os.kill(pool.pid, signal.SIGKILL)
    wait_for(lambda: not alive(second))
    assert pool.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
def test_ctrl_c_of_a_sweep_of_forked_runs(tmp_path: Path) -> None:
    pool = start(tmp_path / "pool", "hydra.launcher.workers=1", "seed=0,1", *LONG)
    wait_for(lambda: len(list((tmp_path / "pool").glob("0*/checkpoints/last.ckpt"))) == 1)
    pool.send_signal(signal.SIGINT)
    done = pool.result()
    assert done.stderr == "\nInterrupted.\n"
    assert done.returncode == 130 and "[0] seed=0: stopped." in done.stdout
    (record,) = (tmp_path / "pool").glob("*/summary.json")  # the second run never started
    assert json.loads(record.read_text())["status"] == "interrupted"
    assert f"To resume: python src/train.py -m resume={tmp_path / 'pool'}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("hydra.launcher.workers=0", "hydra.launcher.workers=0 must be a whole number of at least 1."),
        ("hydra.launcher.workers=two", "hydra.launcher.workers=two must be a whole number of at least 1."),
        ("hydra.launcher.jobs_per_device=0", "hydra.launcher.jobs_per_device=0 must be a whole number of at least 1."),
        ("hydra.launcher.jobs_per_device=null", "hydra.launcher.jobs_per_device=null must be a whole number"),
        ("hydra.launcher.timeout=-1", "hydra.launcher.timeout=-1 must be a number of seconds above 0, or null."),
        ("hydra.launcher.grace=soon", "hydra.launcher.grace=soon must be a number of seconds of at least 0."),
        ("hydra.launcher.fail_fast=maybe", "hydra.launcher.fail_fast=maybe must be true or false."),
        ("hydra.launcher.worker=2", "hydra.launcher.worker is not a key of the configuration; did you mean"),
        ("hydra/launcher=pol", "hydra/launcher=pol is not known; did you mean pool?"),
        ("hydra.launcher.workers=1 trainer.devices=2", "trainer.devices=2 on the CPU takes as many of the runs that"),
        ("trainer.accelerator=gpu", "trainer.accelerator=gpu: no GPU is visible. Use trainer=cpu."),
        ("hydra.sweep.subdir=here", "hydra.sweep.subdir gives several runs the same folder,"),
        ("optimizer=adam,adamm", "optimizer=adamm is not known; did you mean adam?"),
        ("optimizer.lr=0.1,0.2 optimizer.foo=1", "optimizer.foo is not a key of the configuration."),
    ],
)
def test_mistakes_are_found_before_a_run_starts(pooled, arguments: str, sentence: str) -> None:
    result = pooled("seed=0,1", *arguments.split())
    assert result.status == 1 and result.sentence.startswith(sentence)
    assert {path.name for path in result.folder.rglob("*")} <= {"multirun.yaml"}
