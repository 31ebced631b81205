"""Planned looks and seeds that were added by hand: what is counted, and what a report claims then."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from optbench.comparison import statistics
from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.looks import conclude, over_looks
from optbench.comparison.report.write import compare_runs, note_look
from optbench.comparison.verdicts import Verdict
from optbench.records.looks import LEVELS, LOOKS_CSV, Look, Plan
from sweeps import write_run, write_sweep

MEANS = {"adam": 0.552, "sgd": 0.540}
LATER = "2199-01-01T00:00:00+00:00"  # after every report of these tests


def a_sweep(folder: Path, seeds: range, started: str = "2026-01-02T03:00:00+00:00", means=MEANS, **settings) -> Path:
    write_sweep(folder, means, seeds, random_seed=seeds.start, started=started, **settings)
    (folder / "multirun.yaml").touch()
    return folder


def report(*sources: Path, **settings) -> Comparison:
    """What a report says and notes, without its page and figures, which take seconds."""
    comparison = compare([str(source) for source in sources], **settings)
    note_look(comparison)
    return comparison


def pair(comparison: Comparison) -> pd.Series:
    (row,) = comparison.judgement.differences.to_dict("records")
    return pd.Series(row)


# Seeds added by hand


@pytest.mark.usefixtures("unrendered")
def test_seeds_that_are_added_after_a_report_are_counted_and_corrected(tmp_path: Path, capsys):
    first, second = a_sweep(tmp_path / "first", range(3)), a_sweep(tmp_path / "second", range(3, 5), LATER)
    plain = pair(compare([str(first), str(second)]))
    alone = report(first)
    assert alone.facts.looks.earlier == [] and "looks share" not in " ".join(alone.words.answer)
    compare_runs([str(first), str(second)], output=str(tmp_path / "report"))
    both = compare([str(first), str(second)])
    assert [look.seeds for look in both.facts.looks.earlier] == ["3 seeds of 2 configurations"]
    assert pair(both).p == pytest.approx(plain.p)
    assert pair(both).p_adjusted == pytest.approx(2 * plain.p_adjusted)
    assert pair(both).high - pair(both).low > plain.high - plain.low
    today = both.facts.looks.earlier[0].time[:10]
    said = f"Seeds were added after 1 look at fewer (3 seeds of 2 configurations on {today})."
    assert said in " ".join(capsys.readouterr().out.split()) and "claims at level 0.025," in both.words.answer[-1]
    assert said in (tmp_path / "report" / "report.md").read_text()
    assert said in (tmp_path / "report" / "report.html").read_text()


def test_reading_the_same_runs_again_is_no_look(tmp_path: Path):
    first, second = a_sweep(tmp_path / "first", range(3)), a_sweep(tmp_path / "second", range(3, 5), LATER)
    for _ in range(3):
        report(first)
        both = report(first, second)
    assert len(both.facts.looks.earlier) == 1
    assert compare([str(first)]).facts.looks.earlier == []  # nothing was added to these
    with (first / LOOKS_CSV).open(newline="") as file:
        assert [line["seeds"] for line in csv.DictReader(file)] == [
            "3 seeds of 2 configurations",
            "5 seeds of 2 configurations",
        ]


def test_every_look_counts_once(tmp_path: Path):
    first = a_sweep(tmp_path / "first", range(3))
    report(first)
    second = a_sweep(tmp_path / "second", range(3, 5), LATER)
    report(first, second)
    third = a_sweep(tmp_path / "third", range(5, 8), "2199-06-01T00:00:00+00:00")
    whole = report(first, second, third)
    assert [look.seeds[0] for look in whole.facts.looks.earlier] == ["3", "5"]
    plain = statistics.compare_pairs(
        whole.facts.runs.pivot_table("metric", "seed", "configuration")[["adam", "sgd"]].to_numpy(), True
    )
    assert pair(whole).p_adjusted == pytest.approx(min(3 * plain.p_adjusted[0], 1))


def test_what_is_no_earlier_look(tmp_path: Path):
    first = a_sweep(tmp_path / "first", range(3))
    added = a_sweep(tmp_path / "second", range(3, 5), LATER)
    planned_before = a_sweep(tmp_path / "third", range(3, 5), "2026-01-02T05:00:00+00:00")
    others = a_sweep(tmp_path / "others", range(3), LATER, {"rmsprop": 0.55})
    report(first, metric="test/loss")
    assert compare([str(first), str(added)]).facts.looks.earlier == []  # of another metric
    report(first)
    assert compare([str(first), str(planned_before)]).facts.looks.earlier == []  # these seeds were there already
    assert compare([str(first), str(others)]).facts.looks.earlier == []  # no configuration has more seeds
    assert len(compare([str(first), str(added)]).facts.looks.earlier) == 1


def test_a_record_without_a_time_is_compared_too(tmp_path: Path):
    first, second = a_sweep(tmp_path / "first", range(3)), a_sweep(tmp_path / "second", range(3, 5), "2027")
    report(first)
    assert report(first, second).facts.looks.earlier == []


def test_a_report_that_can_claim_nothing_is_no_look(tmp_path: Path):
    two = a_sweep(tmp_path / "two", range(2))
    report(two)
    assert not (two / LOOKS_CSV).exists()


def test_single_runs_are_known_by_their_own_folders(tmp_path: Path):
    for name in MEANS:
        for seed in range(3):
            write_run(tmp_path / "runs" / f"{name}{seed}", name, seed, 0.5 + 0.001 * seed ** (1 + (name == "adam")))
    report(tmp_path / "runs")
    for name in MEANS:
        write_run(tmp_path / "runs" / f"{name}3", name, 3, 0.5, started=LATER)
    assert len(report(tmp_path / "runs").facts.looks.earlier) == 1


# Planned looks


def planned(folder: Path, seeds: range, looks: int, **settings) -> Path:
    a_sweep(folder, seeds, **settings)
    plan = Plan([f"optimizer={name}" for name in settings.get("means", MEANS)])
    plan.looks = [Look(n, level, "2026-01-03T00:00:00+00:00", True) for n, level in list(LEVELS.items())[:looks]]
    plan.write(folder)
    return folder


@pytest.mark.parametrize("looks", [1, 2, 4])
def test_a_planned_report_claims_at_the_level_of_its_last_look(tmp_path: Path, looks: int):
    n, level = list(LEVELS.items())[looks - 1]
    folder = planned(tmp_path / "sweep", range(n), looks, sd=0.02, means={"adam": 0.54, "sgd": 0.54})  # too much noise
    table = compare([str(folder)]).facts.runs.pivot_table("metric", "seed", "configuration")[["adam", "sgd"]]
    plain = statistics.compare_pairs(table.to_numpy(), True, questions=0.05 / level, margin=0.005).iloc[0]
    found = report(folder)
    assert pair(found).verdict == Verdict.UNDECIDED
    assert pair(found).n == n and pair(found).p_adjusted == pytest.approx(plain.p_adjusted)
    assert pair(found).high - pair(found).low == pytest.approx(plain.high - plain.low)
    assert f"The last one, at {n} seeds, claims at level {level:.3g};" in found.words.answer[-1]
    assert not (folder / LOOKS_CSV).exists()  # its looks are in looks.json


def test_seeds_between_two_looks_claim_nothing_yet(tmp_path: Path):
    folder = planned(tmp_path / "sweep", range(4), 1)
    assert pair(compare([str(folder)])).n == 3


def test_before_the_first_look_nothing_is_claimed(tmp_path: Path):
    folder = planned(tmp_path / "sweep", range(3), 0, means={"adam": 0.9, "sgd": 0.5})
    found = compare([str(folder)])
    assert pair(found).verdict == Verdict.WITHHELD and pd.isna(pair(found).p) and pd.isna(pair(found).low)
    answer = " ".join(found.words.answer)
    assert "nothing can be said of it against sgd: the first of the planned looks has not been made yet." in answer


def test_a_planned_sweep_with_further_seeds_counts_its_looks(tmp_path: Path):
    folder, more = planned(tmp_path / "sweep", range(5), 2), a_sweep(tmp_path / "more", range(5, 9), LATER)
    found = report(folder, more)
    assert [look.seeds[0] for look in found.facts.looks.earlier] == ["3", "5"]
    assert pair(found).n == 9 and (more / LOOKS_CSV).exists() and not (folder / LOOKS_CSV).exists()


def test_a_damaged_plan_is_a_sentence(tmp_path: Path):
    folder = planned(tmp_path / "sweep", range(3), 1)
    (folder / "looks.json").write_text("{")
    with pytest.raises(ValueError, match="is no plan of looks"):
        compare([str(folder)])


def table(verdicts: dict[tuple[str, str], str], n: int, level: float) -> pd.DataFrame:
    rows = [{"a": a, "b": b, "verdict": Verdict(verdict), "n": n, "p": level} for (a, b), verdict in verdicts.items()]
    return pd.DataFrame(rows)


def test_a_pair_keeps_the_verdict_of_the_newest_look_that_decided_it_and_for_which_both_trained():
    plan = Plan(["a", "b", "c"], looks=[Look(n, LEVELS[n], "") for n in (3, 5, 7)])
    said = {
        3: {("a", "b"): "better", ("a", "c"): "better", ("b", "c"): "undecided"},
        5: {("a", "b"): "undecided", ("a", "c"): "equivalent", ("b", "c"): "undecided"},
        7: {("a", "b"): "better", ("c", "a"): "better", ("b", "c"): "undecided"},  # of no new run of c
    }
    blocks = pd.DataFrame(1.0, index=pd.Index(range(7), name="seed"), columns=["a", "b", "c"])

    def table_of(rows: pd.DataFrame, questions: float) -> pd.DataFrame:
        n = len(rows)
        assert questions == pytest.approx(0.05 / LEVELS[n])
        return table(said[n], n, LEVELS[n])

    found = over_looks(plan, blocks, pd.Series({"a": 6, "b": 6, "c": 4}), table_of)
    assert {frozenset((row.a, row.b)): (row.verdict, row.n) for row in found.itertuples()} == {
        frozenset("ab"): ("better", 7),
        frozenset("ac"): ("equivalent", 5),
        frozenset("bc"): ("undecided", 5),
    }


@pytest.mark.parametrize(
    ("verdicts", "leader", "stopped"),
    [
        ({"ab": "better", "ac": "equivalent", "bc": "undecided"}, "a", ["a"]),
        ({"ab": "better", "ac": "undecided", "bc": "worse"}, "", ["b"]),
        ({"ab": "undecided", "ac": "undecided", "bc": "undecided"}, "", []),
        ({"ab": "equivalent", "ac": "equivalent", "bc": "equivalent"}, "a", ["a", "b", "c"]),
        ({"ab": "withheld", "ac": "better", "bc": "better"}, "", ["c"]),
    ],
)
def test_what_a_look_decides(verdicts, leader, stopped):
    ranking = pd.DataFrame({"configuration": [*"abcd"], "n": [3, 3, 3, 0], "diverged": [0, 0, 0, 3]})
    differences = table({tuple(names): verdict for names, verdict in verdicts.items()}, 3, 0.05)
    found = conclude(ranking, [*"abc"], False, differences)
    assert (found.leader, sorted(found.stopped)) == (leader, sorted([*stopped, "d"]))  # d has diverged at every seed
    assert conclude(ranking, [*"abc"], True, differences).stopped == ["d"]  # of a grid, validation may choose anew
