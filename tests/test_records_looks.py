"""looks.json and looks.csv: what they hold, and what becomes of damaged ones."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from optbench.records.looks import LEVELS, LOOKS_CSV, LOOKS_JSON, Look, Plan, Report, note_report, read_reports

FIRST = Report("2026-02-01T00:00:00+00:00", "test/accuracy", "abc", "3 seeds of 2 configurations")
SECOND = Report("2026-02-02T00:00:00+00:00", "test/accuracy", "def", "5 seeds of 2 configurations")


def test_the_levels_of_all_looks_add_up_to_five_percent():
    assert sum(LEVELS.values()) == pytest.approx(0.05) and list(LEVELS) == [3, 5, 7, 10]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path):
    plan = Plan(["optimizer=adam", "optimizer=sgd"])
    plan.looks.append(Look(3, LEVELS[3], "2026-02-01T00:00:00+00:00", True, False, ["optimizer=sgd"], "Look 1 of 4."))
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert Plan.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "change",
    [
        {"levels": {"3": 0.05, "5": 0.05}},  # more than 5 % together
        {"levels": {"3": "0.01"}},
        {"levels": {"5": 0.01, "3": 0.01}},
        {"looks": [{"seeds": 3}]},
        {"looks": [asdict(Look(4, 0.01, ""))]},
        {"configurations": None},
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, change: dict):
    Plan(["a", "b"]).write(tmp_path)
    content = json.loads((tmp_path / LOOKS_JSON).read_text())
    (tmp_path / LOOKS_JSON).write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=r"looks\.json is no plan of looks"):
        Plan.read(tmp_path)


def test_reports_are_appended_and_the_same_runs_once(tmp_path: Path):
    note_report([tmp_path], FIRST)
    before = (tmp_path / LOOKS_CSV).read_text()
    note_report([tmp_path], replace(FIRST, time="2026-03-01T00:00:00+00:00"))
    assert (tmp_path / LOOKS_CSV).read_text() == before
    note_report([tmp_path], SECOND)
    assert (tmp_path / LOOKS_CSV).read_text().startswith(before)
    assert read_reports(tmp_path) == [FIRST, SECOND]


def test_what_cannot_be_read_or_written_is_passed_over(tmp_path: Path):
    note_report([tmp_path], FIRST)
    with (tmp_path / LOOKS_CSV).open("a") as file:
        file.write("yesterday,test/accuracy,xyz,some\n2026-02-02T00:00:00+00:00,test/acc\n")  # the last one is torn
    assert read_reports(tmp_path) == [FIRST]
    no_folder = tmp_path / "no_folder"
    no_folder.touch()
    note_report([no_folder, tmp_path / "gone"], FIRST)
    assert read_reports(no_folder) == [] and not (tmp_path / "gone").exists()
