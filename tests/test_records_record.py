import json
import math
from pathlib import Path

import pytest

from optbench.records import files
from optbench.records.record import RunRecord, refuse_used_folder


def full() -> RunRecord:
    return RunRecord(
        status="completed",
        started="2026-01-02T03:04:05+00:00",
        overrides=["optimizer=sgd", "seed=1"],
        monitor="val/loss",
        seed=1,
        final={"epoch": 2, "val/accuracy/größe": 0.5},
        steps=12,
        skipped_images=["a.png"],
        input={"shape": [3, 4, 4]},
        config={"data": {"val_size": 0.1, "augmentation": None}},
    )


def test_what_was_written_is_read(tmp_path):
    full().write(tmp_path)
    assert RunRecord.read(tmp_path) == full()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert "größe" in text and text.endswith("}\n")


def test_nan_and_infinity_become_null(tmp_path):
    RunRecord(final={"val/loss": math.nan, "epoch": 1}, input={"scale": [math.inf, 1.0]}).write(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    found = RunRecord.read(tmp_path)
    assert (found.final, found.input) == ({"val/loss": None, "epoch": 1}, {"scale": [None, 1.0]})


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, broken):
    full().write(tmp_path)

    def no_space(*arguments) -> None:
        raise OSError("No space left on device")

    if broken == "replace":
        monkeypatch.setattr(Path, "replace", no_space)
    elif broken == "fsync":
        monkeypatch.setattr(files.os, "fsync", no_space)
    text = "\ud800" if broken == "write" else "new"  # what UTF-8 cannot encode
    with pytest.raises((OSError, UnicodeEncodeError)):
        files.write_atomically(tmp_path / "summary.json", text)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert RunRecord.read(tmp_path) == full()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "{folder} is no run: it has no summary.json. Give a run's folder, for example logs/train/runs/<run>."),
        ("", "{path} is not a run's record (JSONDecodeError: "),
        ('{"schema_version": 1, "sta', "{path} is not a run's record (JSONDecodeError: "),
        ("[1, 2]", "{path} is not a run's record (TypeError: "),
        ('{"accuracy": 0.5}', "{path} is not a run's record (KeyError: 'schema_version')."),
        ('{"schema_version": 99}', "{path} has schema version 99; this OptBench reads version 1."),
    ],
)
def test_what_is_no_record(tmp_path, text, sentence):
    path = tmp_path / "summary.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="summary") as error:
        RunRecord.read(tmp_path)
    assert str(error.value).startswith(sentence.format(folder=tmp_path, path=path))


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(
        ValueError, match=r"none is no folder\. Give a run's folder, for example logs/train/runs/<run>\.$"
    ):
        RunRecord.read(tmp_path / "none")


def test_keys_of_a_later_minor_version_are_passed_over(tmp_path):
    (tmp_path / "summary.json").write_text('{"schema_version": 1, "status": "completed", "weather": "fine"}')
    assert RunRecord.read(tmp_path) == RunRecord(status="completed")


def test_a_failure_is_noted_with_its_traceback():
    record = RunRecord()
    try:
        int("seven")
    except ValueError as error:
        record.fail(error)
    assert record.status == "failed" and record.error is not None
    assert record.error["type"] == "ValueError" and "'seven'" in record.error["message"]
    assert 'int("seven")' in record.error["traceback"]


def rows(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [
        {"epoch": k, "step": 6 * k, "seconds": 1.5 * k, "val/loss": loss, "val/accuracy": accuracy}
        for k, (loss, accuracy) in enumerate(values, 1)
    ]


EPOCHS = rows((2.0, 0.0999), (1.0, 0.15), (math.nan, 0.32), (1.0, 0.2), (1.5, 0.31))


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", 2), ("val/accuracy", 3)])
def test_the_best_epoch_is_the_first_best_by_monitor(monitor, best):
    record = RunRecord(monitor=monitor)
    record.take_epochs(EPOCHS)
    assert (record.epochs, record.steps, record.final, record.best["epoch"]) == (5, 30, EPOCHS[-1], best)
    assert record.best == EPOCHS[best - 1]


def test_targets_are_met_at_the_first_epoch_that_reaches_them():
    record = RunRecord(monitor="val/loss")
    record.take_epochs(EPOCHS)
    at = {k: {"epoch": k, "step": 6 * k, "seconds": 1.5 * k} for k in (1, 2, 3)}
    assert record.targets == {
        "0.05": at[1],
        "0.10": at[2],
        "0.15": at[2],
        **dict.fromkeys("0.20 0.25 0.30".split(), at[3]),
    }


def test_without_finite_epochs_nothing_is_best():
    record = RunRecord(monitor="val/loss")
    record.take_epochs([])
    assert (record.epochs, record.final, record.best, record.targets) == (0, {}, {}, {})
    record.take_epochs(rows((math.nan, math.nan)))
    assert (record.epochs, record.best, record.targets) == (1, {}, {})


def test_the_advice_to_resume_quotes_a_folder_with_a_space(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    full().write(folder)
    with pytest.raises(ValueError, match=rf"holds a run already: resume='{folder}' resumes it\."):
        refuse_used_folder(folder)
