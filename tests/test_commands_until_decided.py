"""A sweep that adds seeds until it is decided: what it launches, how it ends, how it resumes, what it refuses."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_pool import sweep as pool_sweep

from conftest import PROJECT
from optbench.commands import until_decided
from optbench.commands.hydra_internals import job_return
from optbench.comparison.analysis import compare
from optbench.pool.devices import THREADS
from optbench.pool.launch import PoolSettings, devices_there, jobs_of
from optbench.records import looks
from optbench.records.looks import LOOKS_JSON, Plan
from sweeps import write_run

THREE = ["optimizer=adam,rmsprop,sgd", "seed=until_decided"]
NOISE = [0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.8, 0.3, -0.3, 0.6]


class Launcher:
    """Writes the records of its jobs at once; `fail` is called before each."""

    def __init__(self, folder: Path, means: Mapping[str, float | None], fail=lambda number: None) -> None:
        self.folder, self.means, self.fail = folder, means, fail
        self.batches: list[list[str]] = []

    def launch(self, jobs, initial_job_idx):
        self.batches.append([" ".join(job) for job in jobs])
        for number, job in enumerate(jobs, initial_job_idx):
            values = dict(override.split("=") for override in job)
            name, seed = values["optimizer"], int(values["seed"])
            place = self.folder / f"{number}_{name}_{seed}"
            if not place.exists():
                self.fail(number)
                status = "diverged" if self.means[name] is None else "completed"
                # each optimizer has the noise in another order
                noise = NOISE[(seed * (3 if name == "sgd" else 1) + len(name)) % 10]
                accuracy = round((self.means[name] or 0.1) + 0.004 * noise, 4)
                write_run(place, name, seed, accuracy, status=status)
        return [job_return(0.0) for _ in jobs]


class Sweeper:
    """Of Hydra's BasicSweeper, what is used."""

    max_batch_size = None

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
        self.launcher = launcher
        self.hydra_context = type("Context", (), {"config_loader": None})()

    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    split_arguments = staticmethod(BasicSweeper.split_arguments)
    split_overrides_to_chunks = staticmethod(BasicSweeper.split_overrides_to_chunks)

    def validate_batch_is_legal(self, batch) -> None:
        assert OverridesParser.create().parse_overrides(batch[0])


def run(folder: Path, means: Mapping[str, float | None], arguments=THREE, **settings) -> Launcher:
    launcher = Launcher(folder, means, **settings)
    until_decided.sweep(Sweeper(folder, launcher), arguments)  # type: ignore[arg-type]
    return launcher


def seeds_of(batch: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for job in batch:
        name, seed = re.findall(r"=(\w+)", job)
        found.setdefault(name, []).append(int(seed))
    return found


def plan_of(folder: Path) -> Plan:
    plan = Plan.read(folder)
    assert plan is not None
    return plan


def each(names: list[str], seeds: list[int]) -> dict[str, list[int]]:
    return dict.fromkeys(names, seeds)


def test_it_ends_as_soon_as_the_best_is_decided(tmp_path: Path, capsys):
    launcher = run(tmp_path, {"adam": 0.60, "rmsprop": 0.58, "sgd": 0.56})
    assert [seeds_of(batch) for batch in launcher.batches] == [
        each(["adam", "rmsprop", "sgd"], [0, 1, 2]),
        each(["adam", "rmsprop", "sgd"], [3, 4]),
    ]
    plan = plan_of(tmp_path)
    assert [(look.seeds, look.decided, look.complete) for look in plan.looks] == [(3, False, True), (5, True, True)]
    assert " ".join(capsys.readouterr().out.split()).endswith(
        "Look 2 of 4, at 5 seeds each: adam is better than rmsprop and sgd. The question is decided, and the sweep "
        "ends. 15 of 30 runs are saved."
    )
    verdicts = compare([str(tmp_path)]).judgement.differences.set_index(["a", "b"]).verdict.to_dict()
    assert verdicts == dict.fromkeys([("adam", "rmsprop"), ("adam", "sgd"), ("rmsprop", "sgd")], "better")


def test_what_is_decided_stops_and_the_report_keeps_its_verdict(tmp_path: Path, capsys):
    launcher = run(tmp_path, MEANS)
    assert seeds_of(launcher.batches[1]) == each(["adam", "rmsprop", "sgd"], [3, 4])
    assert seeds_of(launcher.batches[2]) == each(["adam", "rmsprop"], [5, 6])
    assert seeds_of(launcher.batches[3]) == each(["adam", "rmsprop"], [7, 8, 9])
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "Look 2 of 4, at 5 seeds each: rmsprop is better than sgd; adam is better than sgd. sgd needs no more seeds. "
        "Next, adam and rmsprop train with seeds 5 and 6 (4 runs). 5 of 30 runs are saved so far."
    ) in out
    assert "rmsprop is equivalent to adam. The question is decided, and the sweep ends. 5 of 30 runs are saved." in out
    found = compare([str(tmp_path)])
    pairs = {frozenset((row.a, row.b)): row for row in found.judgement.differences.itertuples()}
    assert {key: (row.n, row.verdict) for key, row in pairs.items() if "sgd" in key} == {
        frozenset(("adam", "sgd")): (5, "better"),
        frozenset(("rmsprop", "sgd")): (5, "better"),
    }
    assert found.judgement.ranking.set_index("configuration").n.to_dict() == {"adam": 10, "rmsprop": 10, "sgd": 5}


def test_a_configuration_that_always_diverges_stops(tmp_path: Path, capsys):
    launcher = run(tmp_path, {"adam": 0.60, "rmsprop": 0.60, "sgd": None})
    assert "sgd" not in seeds_of(launcher.batches[1])
    assert "sgd needs no more seeds." in " ".join(capsys.readouterr().out.split())


class Killed(BaseException):
    """No handler of errors catches it."""


def story(folder: Path) -> dict:
    plan = json.loads((folder / LOOKS_JSON).read_text())
    for look in plan["looks"]:
        del look["time"]
    return plan


MEANS = {"adam": 0.60, "rmsprop": 0.60, "sgd": 0.58}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """A sweep that nobody disturbed."""
    return run(tmp_path_factory.mktemp("whole"), MEANS)


@pytest.mark.parametrize("at", [0, 9, 16])
def test_it_resumes_where_a_run_was_killed(tmp_path: Path, whole: Launcher, at: int):

    def kill(number: int) -> None:
        if number == at:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", MEANS, fail=kill)
    resumed = run(tmp_path / "killed", MEANS)
    assert resumed.batches == whole.batches and story(tmp_path / "killed") == story(whole.folder)
    runs = [sorted(path.name for path in folder.glob("*_*")) for folder in (whole.folder, tmp_path / "killed")]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
def test_it_resumes_where_it_was_killed_at_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Launcher, write: int
):
    count = 0

    def killed_after(self: Plan, folder: Path) -> None:
        nonlocal count
        count += 1
        written(self, folder)
        if count == write:
            raise Killed

    written = Plan.write
    monkeypatch.setattr(Plan, "write", killed_after)
    with pytest.raises(Killed):
        run(tmp_path / "killed", MEANS)
    monkeypatch.setattr(Plan, "write", written)
    resumed = run(tmp_path / "killed", MEANS)
    assert resumed.batches == whole.batches and story(tmp_path / "killed") == story(whole.folder)


def test_without_all_its_runs_there_is_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    launcher = Launcher(tmp_path, MEANS)
    launch = launcher.launch

    def last_one_fails(jobs, initial_job_idx):
        return [*launch(jobs, initial_job_idx)[1:], job_return(ChildProcessError("1 of 9 runs failed"))]

    monkeypatch.setattr(launcher, "launch", last_one_fails)
    with pytest.raises(ChildProcessError, match="1 of 9 runs failed"):
        until_decided.sweep(Sweeper(tmp_path, launcher), THREE)  # type: ignore[arg-type]
    assert plan_of(tmp_path).looks == [] and len(launcher.batches) == 1


def test_the_plan_of_another_sweep_is_refused(tmp_path: Path):
    Plan(["optimizer=adam", "optimizer=sgd"]).write(tmp_path)
    before = (tmp_path / LOOKS_JSON).read_text()
    with pytest.raises(
        ValueError, match=r"has the plan of another sweep \(looks.json: optimizer=adam; optimizer=sgd\)"
    ):
        run(tmp_path, MEANS)
    assert (tmp_path / LOOKS_JSON).read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "optimizer=adam", "seed=until_decided"), "compares configurations, and here is only one: give several"),
        (("-m", "optimizer=adam,sgd", "seed=until_decided,3"), "seed=until_decided,3 cannot be given together"),
        (
            ("-m", "optimizer=adam,sgd", "seed=until_decided", "seed=0,1"),
            "seed=until_decided seed=0,1 cannot be given together: seed=until_decided chooses the seeds itself, 0, 1,",
        ),
        (("seed=until_decided",), "seed=until_decided adds seeds to a sweep of several configurations: add -m, as in"),
    ],
)
def test_what_it_refuses(train, arguments, words):
    refused = train(*arguments)
    assert refused.status == 1 and words in refused.sentence
    assert not list(refused.folder.glob("*_*"))


@pytest.mark.usefixtures("unrendered")
def test_as_typed_with_the_serial_launcher(train, command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looks, "LEVELS", {3: 0.0003, 4: 0.0497})
    done = train("-m", "optimizer=adam,sgd", "seed=until_decided", "compare=true", "optimizer.lr=1e-9")
    assert done.status == 0, done.err
    runs = sorted(path.name[:1] for path in done.folder.glob("*_*"))
    assert runs == [*"01234567"]
    out = " ".join(done.out.split())
    assert (
        "Look 1 of 2, at 3 seeds each: nothing is decided. Next, adam and sgd train with seed 3 (2 runs). 0 of" in out
    )
    assert "Look 2 of 2, at 4 seeds each: nothing is decided. The plan ends here, and the question stays" in out
    assert (
        "The looks were planned in advance, at 3 and 4 seeds. The last one, at 4 seeds, claims at level 0.0497;" in out
    )
    before = {path: path.read_bytes() for path in done.folder.glob("*/summary.json")}
    again = command("train", "-m", "resume={folder}")
    assert again.status == 0, again.err
    assert again.out.count("nothing is left to do") == 8 and before == {p: p.read_bytes() for p in before}
    refused = command("train", "-m", "resume={folder}", "seed=0,1")
    assert refused.status == 1 and "so seed=0,1 cannot be given." in refused.sentence


def test_the_pool_forks_the_runs_of_every_batch(tmp_path: Path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    Plan(["optimizer=adam", "optimizer=sgd"], {3: 0.0003, 4: 0.0497}).write(folder)
    done = pool_sweep(folder, "optimizer=adam,sgd", "seed=until_decided", "optimizer.lr=1e-9")
    assert done.status == 0, done.err
    assert "a Python of its own" not in done.out and "Look 2 of 2, at 4 seeds each" in done.out
    records = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    assert {record["seed"] for record in records} == {0, 1, 2, 3} and len(records) == 8


def test_runs_of_a_smaller_batch_have_as_many_threads(monkeypatch: pytest.MonkeyPatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("optbench.pool.devices.cores", lambda: 8)
    monkeypatch.setattr("optbench.pool.launch.cores", lambda: 8)
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        config = compose("train", ["trainer=cpu"], return_hydra_config=True)
    config.hydra.overrides.task, config.hydra.job.num = ["optimizer=adam"], 0
    config.hydra.runtime.output_dir = "/nowhere"

    def threads_of(jobs: int, largest: int) -> str:
        configs = [config] * jobs
        free = devices_there(PoolSettings(None, 1, None, 0, False), [config.trainer] * max(jobs, largest))
        return jobs_of(configs, free, Path("train.py"), largest)[0].environment["OMP_NUM_THREADS"]

    assert [threads_of(4, 0), threads_of(2, 0), threads_of(2, 4)] == ["2", "4", "2"]
