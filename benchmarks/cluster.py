"""A sweep through SLURM and through Ray, each set up from nothing on this machine, beside the same sweep run by run.

    apt-get install slurm-wlm munge                              # Debian, as root
    pip install 'hydra-submitit-launcher>=1.2,<1.3'
    python benchmarks/cluster.py slurm

    pip install 'hydra-ray-launcher>=1.2.2,<1.3' 'ray[default]>=2.60,<3'
    python benchmarks/cluster.py ray

Both need root: all servers live in namespaces of their own, which reach no network and end with this command. Runs give
way to a more urgent job, reach their time limit, lose their machine; their records must be those of runs that nothing
disturbed. The figures stand in docs/scaling.md. 5 minutes each on two cores.
"""

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TRAIN = str(Path(__file__).parents[1] / "src" / "train.py")
OVERRIDES = (
    "data=shapes data.train_size=4000 data.test_size=500 data.batch_size=50 trainer=cpu trainer.max_epochs=60 "
    "callbacks.figures=null callbacks.histograms=null callbacks.early_stopping=null compare=false "
    "optimizer=adam,sgd seed=0,1"
).split() + ["model.layers=[64 relu batchnorm dropout, 64 relu]"]
MAY_DIFFER = {"started", "resumed", "seconds", "epoch_seconds", "peak_memory_mb"}


class Trial:
    """A folder for the sweeps, which are typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.records: list[dict[str, Any]] = []

    def start(self, *command: str) -> subprocess.Popen:
        """A command, its output in a file of its name."""
        with (self.folder / "output.txt").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def do(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def sweep(self, name: str, *overrides: str, disturb: Callable[[Path], object] | None = None) -> None:
        """Run the sweep, disturb it once its first two runs have three epochs behind them, and compare its records."""
        began, folder = time.perf_counter(), self.folder / name.replace(": ", "-").replace(" ", "-")
        process = self.start(sys.executable, TRAIN, "-m", *OVERRIDES, f"hydra.sweep.dir={folder.name}", *overrides)
        if disturb:
            wait_for(lambda: sum(epochs(run) > 3 for run in folder.glob("[01]_*")) == 2, process)
            disturb(folder)
        if process.wait(600):
            sys.exit(f"{name} failed:\n{(self.folder / 'output.txt').read_text()[-5000:]}")
        seconds = time.perf_counter() - began
        runs = sorted(folder.glob("[0-9]*"))
        records = [essence(run) for run in runs]
        self.records = self.records or records
        equal = sum(a == b for a, b in zip(records, self.records, strict=True))
        steps = [[time["step"] for time in json.loads((run / "summary.json").read_text())["resumed"]] for run in runs]
        print(f"{name:34} {seconds:6.1f} s   {equal} of 4 records equal   runs went on at step {steps}", flush=True)
        for ours, theirs in zip(records, self.records, strict=True):
            for key in ours if ours != theirs else ():
                if ours[key] != theirs[key]:
                    print(f"    {key}: {ours[key]} is not {theirs[key]}")


def epochs(run: Path) -> int:
    log = run / "train.log"
    return log.read_text().count(" epoch ") if log.exists() else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    for _ in range(1200):
        if condition():
            return
        if process and process.poll() is not None:
            sys.exit("The sweep was over before it could be disturbed.")
        time.sleep(0.1)
    sys.exit("What was waited for did not come within two minutes.")


def essence(run: Path) -> dict[str, Any]:
    """A run's record without times and places."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key not in MAY_DIFFER}
        if isinstance(value, list):
            return [timeless(item) for item in value]
        return value.replace(str(run.resolve()), "<run>") if isinstance(value, str) else value

    record: dict[str, Any] = timeless(json.loads((run / "summary.json").read_text()))
    return record


SLURM_CONF = """
ClusterName=trial
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=3
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=0
PartitionName=grace Nodes=localhost PriorityTier=1 GraceTime=3
PartitionName=high Nodes=localhost PriorityTier=10 PreemptMode=OFF
"""


def slurm(trial: Trial) -> None:
    # Addresses are looked up only where there is one beside 127.0.0.1: this one, of the documentation's, leads nowhere.
    subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    folder = trial.folder
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder))
    trial.environment["SLURM_CONF"] = str(folder / "slurm.conf")
    places = [f"--{part}-file={folder}/munge.{part}" for part in ("key", "pid", "log", "seed")]
    trial.do("munged", "--force", f"--socket={folder}/munge.socket", *places)
    trial.do("slurmctld")
    ping = ["scontrol", "ping"]
    wait_for(lambda: subprocess.run(ping, env=trial.environment, capture_output=True).returncode == 0)
    trial.do("slurmd", "-N", "localhost")
    wait_for(lambda: "idle" in trial.do("sinfo", "--noheader", "--format=%t"))
    print(trial.do("slurmctld", "-V").strip())
    small = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]

    def urgent(_: Path) -> None:
        trial.do("srun", "--partition=high", "--ntasks=2", "--mem=100M", "sleep", "3")

    def at_the_limit(_: Path) -> None:  # what SLURM sends `signal_delay_s` before it
        for step in re.findall(r"\S+_\d+\.0", trial.do("squeue", "--steps", "--noheader", "--format=%i")):
            trial.do("scancel", "--signal=USR2", step)

    trial.sweep("slurm", *small)
    trial.sweep("slurm: a more urgent job", *small, disturb=urgent)
    trial.sweep("slurm: the same with 3 s of grace", *small, "hydra.launcher.partition=grace", disturb=urgent)
    limit = "hydra.launcher.timeout_min=10"  # with more, a signal so early is taken for giving way
    trial.sweep("slurm: the time limit", *small, limit, disturb=at_the_limit)


def ray(trial: Trial) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    trial.sweep("ray", "hydra/launcher=ray")
    address, token = "127.0.0.1:6390", secrets.token_hex(16)
    trial.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    elsewhere = {**trial.environment, "HOME": str(trial.folder / "home")}

    def node(*options: str) -> subprocess.Popen:
        command = [ray, "start", "--block", "--num-cpus=1", "--disable-usage-stats", *options]
        with (trial.folder / "nodes.txt").open("a") as log:
            return subprocess.Popen(command, cwd="/", env=elsewhere, stdout=log, stderr=log)

    def nodes() -> int:
        status = subprocess.run(
            [ray, "status", f"--address={address}"], env=trial.environment, capture_output=True, text=True
        )
        return len(re.findall(r"^ \d+ node_", status.stdout, re.MULTILINE))

    node("--head", "--node-ip-address=127.0.0.1", "--port=6390", "--include-dashboard=false")
    wait_for(lambda: nodes() == 1)
    second = node(f"--address={address}", "--node-ip-address=127.0.0.2")
    wait_for(lambda: nodes() == 2)
    cluster = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}"]
    trial.sweep("ray: a cluster of two nodes", *cluster)
    trial.sweep("ray: a node dies", *cluster, disturb=lambda _: kill(second.pid))


def kill(pid: int) -> None:
    """A process and all that it started, at once and without a word, as when a machine loses its power."""
    for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split():
        kill(int(child))
    os.kill(pid, 9)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # munged wants its socket reachable
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cluster", choices=("slurm", "ray"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        namespaces = ["unshare", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        sys.exit(subprocess.run([*namespaces, sys.executable, *sys.argv, "--inside"]).returncode)
    subprocess.run("ip link set lo up && hostname localhost", shell=True, check=True)
    with fresh_folder() as folder:
        trial = Trial(folder)
        trial.sweep("serial")
        {"slurm": slurm, "ray": ray}[arguments.cluster](trial)


if __name__ == "__main__":
    main()
