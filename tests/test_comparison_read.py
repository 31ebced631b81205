"""Finding and reading runs, and folders that hold something else."""

import json
import math
import os
from pathlib import Path

import pytest

from optbench.comparison.analysis import compare
from optbench.comparison.read import Damage, find_runs, read_metrics, read_runs
from optbench.records import metrics
from sweeps import write_run, write_sweep


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


# Where runs are


def test_folders_globs_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_sweep(tmp_path / "first", {"adam": 0.5, "sgd": 0.4}, seeds=range(6))
    second = write_sweep(tmp_path / "second", {"adam": 0.5}, seeds=[0])
    (first / "multirun.yaml").write_text("")
    (first / "comparison").mkdir()
    (first / "comparison/summary.csv").write_text("a\n")
    found = find_runs([str(first)])
    assert names(found)[:3] == ["0_optimizer=adam,seed=0", "1_optimizer=adam,seed=1", "2_optimizer=adam,seed=2"]
    assert names(found)[-2:] == ["10_optimizer=sgd,seed=4", "11_optimizer=sgd,seed=5"]  # not after 1_…
    assert find_runs([str(first / "*")]) == find_runs([str(first), str(first / "0_*"), str(first)]) == found
    assert len(find_runs([str(first), str(second)])) == len(find_runs([str(tmp_path / "*")])) == 13
    assert len(find_runs([str(tmp_path / "**/summary.json")])) == 13
    assert names(find_runs([str(first / "1*sgd*")])) == names(found)[-2:]
    assert find_runs([str(found[3])]) == find_runs([str(found[3] / "summary.json")]) == [found[3]]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_runs(["~/second"]) == find_runs([str(second)]) == find_runs(["~/sec*"])
    monkeypatch.chdir(tmp_path)
    assert find_runs(["second"]) == find_runs([str(second)])


def test_a_file_is_no_reason_to_look_around_it(tmp_path: Path) -> None:
    write_run(tmp_path / "other")
    write_run(tmp_path / "notes-1")
    (tmp_path / "notes.txt").write_text("")
    assert names(find_runs([str(tmp_path / "notes*")])) == ["notes-1"]
    with pytest.raises(ValueError, match=r"notes.txt holds no run"):
        find_runs([str(tmp_path / "notes.txt")])


def test_nothing_is_looked_for_inside_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "run/checkpoints/old")
    assert names(find_runs([str(tmp_path)])) == ["run"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5}, seeds=[0, 1])
    (sweep / "loop").symlink_to(sweep)
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "mine").symlink_to(sweep / "0_optimizer=adam,seed=0")
    assert names(find_runs([str(sweep)])) == ["0_optimizer=adam,seed=0", "1_optimizer=adam,seed=1"]
    assert names(find_runs([str(chosen)])) == ["0_optimizer=adam,seed=0"]
    assert len(find_runs([str(tmp_path)])) == len(find_runs([str(sweep), str(chosen)])) == 2  # each once
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert len(find_runs([str(tmp_path)])) == 2


def test_places_without_runs(tmp_path: Path) -> None:
    advice = (
        "Give a run's folder, a sweep's, a table such as results.csv, a glob such as 'logs/train/multiruns/*', or a "
        "[list] of them."
    )
    for source, words in (("none", "does not exist."), ("no*", "does not exist."), ("empty", "holds no run: there is")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError) as error:
            find_runs([str(tmp_path / source)])
        assert str(error.value).startswith(f"runs={tmp_path / source} {words}") and str(error.value).endswith(advice)


# What is in a folder


FOREIGN: list[tuple[str | bytes | dict, str]] = [
    ("", "summary.json is not a run's record (JSONDecodeError: "),
    ('{"schema_version": 1, "status": "comp', "summary.json is not a run's record (JSONDecodeError: "),
    ("[1, 2]", "summary.json is not a run's record (TypeError: "),
    ('"text"', "summary.json is not a run's record (TypeError: "),
    ("null", "summary.json is not a run's record (TypeError: "),
    ("{}", "summary.json is not a run's record (KeyError: 'schema_version')."),
    ('{"schema_version": 99}', "summary.json has schema version 99; this OptBench reads version 1."),
    ("[" * 100_000, "summary.json cannot be read: "),
    (b"\xff\xfe\x00binary", "summary.json is not a run's record (UnicodeDecodeError: "),
    ({"test": [1]}, "summary.json is not a run's record: test cannot be [1]."),
    ({"test": {"test/accuracy": "good"}}, "test cannot be {'test/accuracy': 'good'}."),
    ({"seed": "x"}, "seed cannot be 'x'."),
    ({"seed": None}, "seed cannot be None."),
    ({"epochs": 2.5}, "epochs cannot be 2.5."),
    ({"config": None}, "config cannot be None."),
    ({"config": [1]}, "config cannot be [1]."),
    ({"choices": 3}, "choices cannot be 3."),
    ({"choices": {"optimizer": ["adam"]}}, "choices cannot be {'optimizer': ['adam']}."),
    ({"overrides": None}, "overrides cannot be None."),
    ({"overrides": "optimizer=adam"}, "overrides cannot be 'optimizer=adam'."),
    ({"overrides": [1]}, "overrides cannot be [1]."),
    ({"hashes": {"data": [1]}}, "hashes cannot be {'data': [1]}."),
    ({"device": "cpu"}, "device cannot be 'cpu'."),
    ({"error": "it failed"}, "error cannot be 'it failed'."),
    ({"started": 12}, "started cannot be 12."),
    ({"status": "done"}, "summary.json has the unknown status 'done'."),
    (
        {"test": {"test/accuracy": 10**400}},
        "summary.json is not a run's record: test cannot be {'test/accuracy': 10000",
    ),
    ({"seed": 2**63}, "seed cannot be 9223372036854775808."),
]


def test_records_that_are_none(tmp_path: Path) -> None:
    """Each is named; the other runs are compared as if it were not there."""
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.55, "sgd": 0.5})
    whole = compare([str(sweep)])
    for k, (content, _) in enumerate(FOREIGN):
        bad = sweep / f"{100 + k}_bad"
        record = write_run(bad)
        if isinstance(content, dict):
            content = json.dumps(vars(record) | content)
        (bad / "summary.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    comparison = compare([str(sweep)])
    assert comparison.words.answer == whole.words.answer and len(comparison.facts.runs) == 6
    for k, (skipped, (_, words)) in enumerate(zip(comparison.words.skipped, FOREIGN, strict=True)):
        assert skipped.startswith(f"Left out: {sweep / f'{100 + k}_bad'}/summary.json ")
        assert words in skipped and len(skipped) < 400


def test_a_run_that_left_no_record(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "killed/.hydra").mkdir(parents=True)
    (tmp_path / "killed/.hydra/config.yaml").write_text("seed: 0\n")
    (tmp_path / "folder/summary.json").mkdir(parents=True)
    assert read_runs([str(tmp_path)], "test/accuracy").skipped == [
        f"Left out: {tmp_path / name} began as a run and has no summary.json." for name in ("folder", "killed")
    ]


def test_a_record_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "locked")
    read = Path.read_text

    def locked(path: Path, *args, **settings) -> str:  # root may read everything
        if path.parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **settings)

    monkeypatch.setattr(Path, "read_text", locked)
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert list(runs.frame.run) == ["good"]
    assert len(runs.skipped) == 1 and "locked/summary.json cannot be read: [Errno 13] Perm" in runs.skipped[0]


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/summary.json").write_text("[]")
    with pytest.raises(ValueError, match=r"there is no run that can be read\. Left out: .*run/summary\.json is not a"):
        read_runs([str(tmp_path)], "test/accuracy")


def test_a_record_of_an_older_or_newer_version_of_the_same_schema(tmp_path: Path) -> None:
    """Fields that are not there are empty, and fields nobody knows are passed over."""
    (tmp_path / "summary.json").write_text('{"schema_version": 1, "new": 1, "status": "completed", "seed": 3}')
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert runs.frame.seed[0] == 3 and math.isnan(runs.frame.metric[0]) and runs.frame.device[0] == ""
    ledger = {claim.item: claim.text for claim in compare([str(tmp_path)]).judgement.ledger}
    assert ledger == {}  # it has no result


HEADER = "epoch,step,seconds,epoch_seconds,lr,train/loss,val/loss,val/accuracy,test/accuracy\n"


@pytest.mark.parametrize(
    ("content", "rows", "note"),
    [
        (None, 0, "no metrics.csv: no curves"),
        ("", 0, "metrics.csv is no table of epochs: no curves"),
        ("a,b\n1,2\n", 0, "metrics.csv is no table of epochs: no curves"),
        (b"\xff\x00\xfe", 0, "metrics.csv cannot be read: no curves"),
        ("x" * 200_000, 0, "metrics.csv cannot be read: no curves"),  # more than the csv module takes for a cell
        (HEADER, 0, ""),
        (HEADER + "1,6,1.5,1.5,0.1,2,2,0.1,\n", 1, ""),
        (HEADER + "1,6,1.5,1.5,0.1,nan,inf,0.1,None\n", 1, ""),
        (HEADER + "1,6,1.5,1.5,0.1,2,2,0.1,\n2,12,3.0,1.", 1, "metrics.csv is torn after 1 epoch"),
        (HEADER + "1,6,1.5,1.5,0.1,2,2,0.1,\n2,12,3,1,0,2,2,x.,\n", 1, "metrics.csv is torn after 1 epoch"),
        (HEADER + "1,6,1.5,1.5,0.1,2,2,0.1,\n\n3,1", 1, "metrics.csv is torn after 1 epoch"),
        (HEADER + ",6,1.5,1.5,0.1,2,2,0.1,\n", 0, "metrics.csv is torn after 0 epochs"),
    ],
)
def test_metrics_that_are_torn(tmp_path: Path, content: str | bytes | None, rows: int, note: str) -> None:
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, damage = read_metrics(path)
    assert (len(found), damage.note(rows) if damage else "") == (rows, note)
    if rows:
        assert found[0]["step"] == 6 and "test/accuracy" not in found[0]
    write_run(tmp_path)
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert (runs.frame.note[0], len(runs.curves), runs.frame.metric[0]) == (note, rows, 0.5)  # that of summary.json


def test_a_sweep_without_curves(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, {"adam": 0.5, "sgd": 0.4})
    for path in sweep.glob("*/metrics.csv"):
        path.unlink()
    comparison = compare([str(sweep)])
    assert list(comparison.judgement.ranking.n) == [3, 3] and comparison.words.answer[0].startswith(
        "adam is better in test/accuracy"
    )
    assert comparison.facts.curves.empty and comparison.judgement.targets.empty and comparison.judgement.profile.empty
    told = "Curves or part of them are missing from 6 runs: 0_optimizer=adam,seed=0, 1_optimizer=adam,seed=1, "
    assert any(sentence.startswith(told) for sentence in comparison.words.notes)


def test_metrics_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()
    assert read_metrics(tmp_path / "metrics.csv") == ([], Damage.UNREADABLE)
    assert Damage.UNREADABLE.note(0) == "metrics.csv cannot be read: no curves"


def test_a_row_a_run(tmp_path: Path) -> None:
    write_run(
        tmp_path / "7_run",
        "sgd",
        seed=4,
        accuracy=0.6,
        overrides=["+note='it''s <b>, a=b'", "data.x=ü\n"],
        best={"epoch": 3, "seconds": 4.5, "val/accuracy": 0.58},
        tested={"epoch": 4},
        device={"name": None, "accelerator": "cuda", "devices": 2},
        git={"dirty": True},
        peak_memory_mb={"gpu": 99},
    )
    path = tmp_path / "7_run/metrics.csv"
    columns, *lines = (line.split(",") for line in path.read_text().splitlines())
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    for epoch, seconds in zip(rows, ("9.0", "1.0", "2.0", "3.0", "1.0"), strict=True):
        epoch["epoch_seconds"] = seconds
    path.write_text("\n".join(",".join(row) for row in [columns, *(epoch.values() for epoch in rows)]) + "\n")
    row = read_runs([str(tmp_path)], "test/accuracy").frame.iloc[0]
    assert row.drop(["gap", "folder", "command"]).to_dict() == {
        "run": "7_run",
        "seed": 4,
        "status": "completed",
        "note": "",
        "overrides": "optimizer=sgd, seed=4, +note='it''s <b>, a=b', data.x=ü\n",
        "error": "",
        "metric": 0.6,
        "validation": 0.58,
        "epochs": 5,
        "steps": 30,
        "best_epoch": 3.0,
        "best_seconds": 4.5,
        "epoch_seconds": 2.0,  # the median: the first epoch warms up
        "seconds": 7.5,
        "total_seconds": 7.0,
        "parameters": 1000.0,
        "memory_mb": 99.0,
        "device": "2 x cuda",
        "host": "here",
        "commit": "0000000000+",
        "started": "2026-01-02T03:04:00+00:00",
    }
    assert row.gap == pytest.approx(float(rows[3]["train/accuracy"]) - 0.6)  # with the weights that were tested
    seen = read_runs([str(tmp_path)], "val/accuracy").frame.iloc[0]
    assert seen.metric == 0.58 and seen.gap == pytest.approx(float(rows[2]["train/accuracy"]) - 0.58)
    assert row.command == (
        "python src/train.py optimizer=sgd seed=4 '+note='\"'\"'it'\"'\"''\"'\"'s <b>, a=b'\"'\"'' 'data.x=ü\n'"
    )


def test_a_failed_run_tells_its_last_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="failed", epochs=0)
    write_run(tmp_path / "b", status="failed", epochs=0, error={"message": None})
    assert list(read_runs([str(tmp_path)], "test/accuracy").frame.error) == ["ValueError: last line", ""]


def test_devices_have_names(tmp_path: Path) -> None:
    gpus = {"accelerator": "cuda", "name": "H200", "devices": 4}
    for k, device in enumerate(({"threads": 1}, {"threads": 2}, {"threads": None}, gpus)):
        write_run(tmp_path / str(k), device=device)
    found = list(read_runs([str(tmp_path)], "test/accuracy").frame.device)
    assert found == ["a CPU, 1 thread", "a CPU, 2 threads", "a CPU", "4 x H200"]


# The metric


def test_a_metric_that_nobody_logged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", test={"test/accuracy/cat": 0.1})
    with pytest.raises(ValueError) as error:
        read_runs([str(tmp_path)], "test/acuracy")
    assert str(error.value) == (
        "metric=test/acuracy was logged by no run; did you mean test/accuracy? There are: test/accuracy, test/loss, "
        "train/accuracy, train/loss, val/accuracy, val/loss. test/accuracy/cat and so on for single classes."
    )
    for metric in ("accuracy", "epoch", "lr", "seconds", "test/accuracy/dog", ""):
        with pytest.raises(ValueError, match=rf"metric={metric} was logged by no run"):
            read_runs([str(tmp_path)], metric)


def test_a_test_metric_before_any_run_has_tested(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="diverged")
    write_run(tmp_path / "b", status="running")
    assert read_runs([str(tmp_path)], "test/accuracy").frame.metric.isna().all()
    with pytest.raises(ValueError, match=r"metric=test/f2 was logged by no run"):
        read_runs([str(tmp_path)], "test/f2")
    write_run(tmp_path / "late/c", status="running", epochs=0)
    assert len(read_runs([str(tmp_path / "late")], "test/anything").frame) == 1  # nothing is known yet


def test_a_class_with_a_slash(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        scores = {"test/accuracy/żółw/a": 0.3 + seed / 10}
        write_run(tmp_path / str(seed), seed=seed, test=scores, best={"val/accuracy/żółw/a": 0.2 + seed / 10})
    comparison = compare([str(tmp_path)], metric="test/accuracy/żółw/a")
    assert comparison.facts.validation == "val/accuracy/żółw/a"
    assert comparison.judgement.ranking["mean"][0] == pytest.approx(0.4)
    assert comparison.judgement.ranking.validation[0] == pytest.approx(0.3)
    assert comparison.words.answer[0].startswith("This configuration reaches 40.00 % test/accuracy/żółw/a over 3 seeds")


def test_which_way_is_better() -> None:
    ways = {
        "test/accuracy": 1,
        "test/loss": -1,
        "test/ece": -1,
        "test/f1": 1,
        "test/accuracy/loss": 1,
        "val/accuracy/ece": 1,
        "val/loss": -1,
    }
    assert {metric: metrics.sign(metric) for metric in ways} == ways


def test_a_figure_that_is_not_finite_is_none(tmp_path: Path) -> None:
    write_run(tmp_path / "a", test={"test/loss": math.inf})  # written as null
    text = (tmp_path / "a/summary.json").read_text()
    (tmp_path / "a/summary.json").write_text(text.replace('"test/loss": null', '"test/loss": Infinity'))
    assert math.isnan(read_runs([str(tmp_path)], "test/loss").frame.metric[0])


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Its record is replaced as a whole, so the temporary file beside it is nobody's."""
    write_run(tmp_path / "a", status="running")
    (tmp_path / "a" / f".summary.json.{os.getpid()}").write_text("{")
    assert list(read_runs([str(tmp_path)], "test/accuracy").frame.status) == ["running"]
