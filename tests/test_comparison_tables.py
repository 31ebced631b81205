"""Runs from a table that any program can write, and tables that do not say what they are."""

import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import optbench
from conftest import PROJECT
from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.fairness import Item
from optbench.comparison.tables import read_table
from sweeps import write_sweep

HEADER = "optimizer,lr,seed,accuracy\n"
ROWS = [("adam", 0.001, seed, 0.55 + seed / 100) for seed in range(4)] + [
    ("sgd", 0.1, seed, 0.50 + seed / 100 + seed % 2 / 1000) for seed in range(4)
]
TIDY = HEADER + "".join(f"{','.join(map(str, row))}\n" for row in ROWS)


def write(folder: Path, text: str | bytes, name: str = "results.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ledger(comparison: Comparison) -> dict[str, tuple[bool | None, str]]:
    return {claim.item: (claim.equal, claim.text) for claim in comparison.judgement.ledger}


# What is read


def test_a_row_a_run(tmp_path: Path) -> None:
    path = write(tmp_path, TIDY)
    comparison = compare([str(path)])
    assert comparison.facts.by == ["optimizer"] and list(comparison.judgement.ranking.n) == [4, 4]
    assert list(comparison.judgement.ranking["mean"]) == pytest.approx([0.565, 0.5155])
    assert comparison.words.answer[0].startswith("adam is better in test/accuracy than sgd (+4.95 points")
    assert comparison.words.violations == [] and comparison.facts.curves.empty
    assert comparison.words.notes[-1] == (
        "results.csv: 8 rows are 8 runs. Factors: optimizer, lr. Metrics: test/accuracy (column accuracy)."
    )
    assert list(comparison.facts.runs.run[:2]) == ["results.csv:2", "results.csv:3"]
    assert set(comparison.facts.runs.command) == {""}  # nobody here can repeat it


def test_what_a_table_cannot_prove(tmp_path: Path) -> None:
    found = ledger(compare([str(write(tmp_path, TIDY))]))
    proven = {item for item, (equal, _) in found.items() if equal is not None}
    assert proven == {Item.SEEDS, Item.IMPLIED}
    assert found[Item.TEST_SET_READ] == (None, "not recorded by 8 runs")
    assert found[Item.RUNS_REPORTED][1].startswith("nothing shows whether runs are missing beside the 8 from tables")


CURVES = "optimizer,seed,epoch,step,seconds,val_loss,val_acc,test_acc\n" + "".join(
    f"{name},{seed},{epoch},{10 * epoch},{epoch / 2},{2 - gain * epoch},{10 * epoch * gain + seed},"
    f"{10 * epoch * gain + seed - 1 if epoch == 3 else ''}\n"
    for epoch in (3, 1, 2)  # in any order
    for name, gain in (("adam", 2), ("sgd", 1))
    for seed in (0, 1, 2)
)


def test_rows_of_a_run_are_its_curve(tmp_path: Path) -> None:
    comparison = compare([str(write(tmp_path, CURVES))])
    runs, curves = comparison.facts.runs, comparison.facts.curves
    assert len(runs) == 6 and len(curves) == 18 and set(runs.epochs) == {3} and set(runs.steps) == {30}
    first = curves[curves.row == 0]
    assert list(first.epoch) == [1, 2, 3] and list(first["val/accuracy"]) == pytest.approx([0.2, 0.4, 0.6])
    assert list(first.seconds) == [0.5, 1, 1.5] and list(runs.seconds) == [1.5] * 6
    assert runs.metric[0] == pytest.approx(0.59)  # per cent, as everything above 1 that should be a fraction
    assert "val/accuracy (column val_acc, in per cent)" in comparison.words.notes[-1]
    assert comparison.words.notes[-1].endswith("The rows of a run are its curve, by epoch, step and seconds.")
    assert not comparison.judgement.targets.empty and comparison.judgement.targets.steps.min() == 10


@pytest.mark.parametrize("clock", ["step", "seconds", "epoch"])
def test_one_clock_is_enough(tmp_path: Path, clock: str) -> None:
    rows = [f"{name},{seed},{t},{0.1 * t + seed / 50}" for name in "ab" for seed in (0, 1, 2) for t in (1, 2, 3)]
    comparison = compare(
        [str(write(tmp_path, f"method,seed,{clock},val/accuracy\n" + "\n".join(rows)))], metric="val/accuracy"
    )
    assert list(comparison.facts.curves.epoch[:3]) == [1, 2, 3] and len(comparison.facts.runs) == 6
    assert comparison.words.notes[-1].endswith("counted by rows.") is (clock != "epoch")


def test_values_are_values(tmp_path: Path) -> None:
    """0.1 and 0.10 are one configuration; an empty cell is none; a column with one word is words."""
    rows = ["a,0.1,,64,0,1", "a,0.10,,64,1,2", "b,1e-1,0.9,wide,0,3", "b,0.1,0.90,wide,1,4"]
    comparison = compare(
        [str(write(tmp_path, "Optimizer,lr,m,width,Seed,loss\n" + "\n".join(rows)))], metric="test/loss"
    )
    assert comparison.facts.by == ["Optimizer"] and list(comparison.judgement.ranking.configuration) == ["a", "b"]
    assert [record.choices["width"] for record in comparison.facts.records] == ["64", "64", "wide", "wide"]
    assert comparison.facts.factors.implied == {"width": ["64", "64", "wide", "wide"], "m": [None, None, 0.9, 0.9]}


def test_a_run_that_diverged_or_was_not_measured(tmp_path: Path) -> None:
    text = "optimizer,seed,loss\n" + "".join(
        f"{name},{seed},{loss}\n"
        for name, losses in (("a", "1 1.1 1.2 nan"), ("b", "2 2.1 2.2 2.3"), ("c", "3 3.1 3.2 inf"))
        for seed, loss in enumerate(losses.split())
    )
    ranking = compare([str(write(tmp_path, text + "d,0,4\nd,1,\n"))], metric="test/loss").judgement.ranking
    assert dict(zip(ranking.configuration, ranking.diverged, strict=True)) == {"a": 1, "b": 0, "c": 1, "d": 0}
    assert dict(zip(ranking.configuration, ranking.n, strict=True)) == {"a": 3, "b": 4, "c": 3, "d": 1}
    said = "optimizer,seed,status,loss\na,0,completed,1\na,1,failed,\na,2,Diverged,9\n"
    assert list(compare([str(write(tmp_path, said))], metric="test/loss").facts.runs.status) == [
        "completed",
        "failed",
        "diverged",
    ]


def test_a_column_that_was_measured_is_named(tmp_path: Path) -> None:
    text = "optimizer,seed,minutes,acc\na,0,12.3,91.5\na,1,12.9,91.7\nb,0,10.1,90.5\nb,1,9.9,90.1\n"
    path = str(write(tmp_path, text))
    comparison = compare([path], by=["optimizer"])
    assert list(comparison.judgement.ranking.n) == [2, 2] and comparison.judgement.ranking.best_epoch.isna().all()
    assert comparison.words.notes[-1].endswith(
        "No two runs share a value of minutes: if it was measured and not chosen, leave it out, or say with by= what "
        "is compared."
    )


def test_spaces_quotes_and_marks(tmp_path: Path) -> None:
    text = '\ufefforder, optimizer ,seed,accuracy\r\n"a, b", adam ,0.0,0.5\r\n\r\n"a, b",sgd,0,0.4\r\n'
    runs, _ = read_table(write(tmp_path, text), "test/accuracy")
    assert [run.record.choices for run in runs] == [{"order": "a, b", "optimizer": name} for name in ("adam", "sgd")]
    assert [run.place.name for run in runs] == ["results.csv:2", "results.csv:4"]


def test_pandas_writes_such_a_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["optimizer", "lr", "seed", "accuracy"])
    frame.to_csv(tmp_path / "results.csv", index=False)
    assert len(read_table(tmp_path / "results.csv", "test/accuracy")[0]) == 8


# What the documentation says


def test_the_loop_in_plain_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (PROJECT / "docs/comparison.md").read_text().partition("**From plain PyTorch.**")[2]
    monkeypatch.chdir(tmp_path)
    exec(section.split("```python\n")[1].split("```")[0], {})
    comparison = compare(["results.csv"])
    assert len(comparison.facts.runs) == 10 and len(comparison.facts.curves) == 50
    assert comparison.words.answer[0].startswith("adam is better in test/accuracy than sgd (+2.")
    said = comparison.words.notes[-1].replace(
        "val/accuracy (column val_accuracy)", "val/accuracy (column\n    val_accuracy)"
    )
    assert said in section


@pytest.mark.parametrize(
    ("name", "ahead", "behind", "p"),
    [
        (
            "value_embeddings",
            ("five value embeddings", 37, 2.9191153784, 0.00091560),
            ("three value embeddings", 28, 2.9197368214, 0.00078360),
            0.020,
        ),
        ("snoo", ("smoothed Muon + Snoo", 160, 2.919547, 0.000798), ("smoothed Muon", 160, 2.919750, 0.000768), 0.026),
    ],
)
def test_what_others_published(name: str, ahead: tuple, behind: tuple, p: float) -> None:
    """Numbers as their authors wrote them (tests/published/README.md), and the same order."""
    comparison = compare([str(PROJECT / f"tests/published/{name}.csv")], metric="val/loss")
    for row, (who, n, mean, sd) in zip(comparison.judgement.ranking.itertuples(), (ahead, behind), strict=True):
        assert (row.configuration, row.n) == (who, n)
        assert row.mean == pytest.approx(mean, abs=5e-7) and row.sd == pytest.approx(sd, abs=5e-7)
        assert (
            row.high < 2.92 or who == "three value embeddings"
        )  # published: each is below 2.92, that one by p = 0.043
    pair = comparison.judgement.differences.iloc[0]
    assert (pair.a, pair.b, pair.verdict) == (ahead[0], behind[0], "better") and pair.p == pytest.approx(p, abs=5e-4)


# What is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " is empty. Its first line must name the columns, for example optimizer,seed,accuracy."),
        ("\n\n", " is empty. "),
        (HEADER, " has no row below its first line."),
        (b"\xff\xfea\x00", " is not UTF-8 text (invalid start byte). Save it as CSV in UTF-8."),
        (TIDY.replace(",", ";"), ", line 1: the cells are separated by semicolons. Separate them by commas and write"),
        (TIDY.replace(",", "\t"), ", line 1: the cells are separated by tabs."),
        ("," + HEADER + "0,a,1,0,0.5\n", ", line 1: column 1 has no name. If pandas wrote its index there: "),
        ("seed,seed,accuracy\n0,0,1\n", ", line 1: there are two columns seed."),
        ("seed,Seed,accuracy\n0,0,1\n", ", line 1: columns seed and Seed both are seed. Leave one of them out"),
        ("seed,acc,test/accuracy\n0,0,1\n", ", line 1: columns acc and test/accuracy both are test/accuracy."),
        ("optimizer,accuracy\na,1\n", " has no column seed. Line 1 has optimizer, accuracy. Seeds are the samples of"),
        ("random_seed,accuracy\n0,1\n", "Rename random_seed to seed, if that is it."),
        ("optimizer,seed,acuracy\na,0,1\n", " has no metric. Line 1 has optimizer, seed, acuracy. A metric is a"),
        (HEADER + "a,1,0\n", ", line 2: 3 cells, and the first line has 4. A cell with a comma in it needs quotes"),
        (HEADER + 'a,1,0,0.5\n"a,1,0,0.5\n', ", line 3: unexpected end of data."),
        (HEADER + 'a,1,0,"0,85"\n', ", line 2, column accuracy: '0,85' is no number. Write 0.85 (a decimal point)."),
        (HEADER + "a,1,0,0.5\nb,1,0,good\n", ", line 3, column accuracy: 'good' is no number. Write a number, or"),
        (HEADER + "a,1,0,101\n", ", line 2, column accuracy: 101 must be a fraction (0 to 1) or per cent (0 to 100)."),
        (HEADER + "a,1,0,-0.1\n", ", line 2, column accuracy: -0.1 must be a fraction"),
        (HEADER + "a,1,,0.5\n", ", line 2, column seed: '' must be a whole number."),
        (HEADER + "a,1,0.5,0.5\n", ", line 2, column seed: '0.5' must be a whole number."),
        (HEADER + "a,1,x,0.5\n", ", line 2, column seed: 'x' must be a whole number."),
        (HEADER + "a,1,1e300,0.5\n", ", line 2, column seed: '1e300' must be a whole number."),
        ("seed,status,loss\n0,done,1\n", ", line 2, column status: 'done' must be one of completed, diverged, failed"),
        ("seed,epoch,loss\n0,,1\n", ", line 2, column epoch: it is empty, and says when the row was measured."),
        ("seed,epoch,loss\n0,-1,1\n", ", line 2, column epoch: -1 must be 0 or more."),
        (
            TIDY + "adam,1e-3,1,0.6\n",
            ": line 3 and line 10 are the same run (optimizer=adam, lr=0.001, seed=1). Give runs that were repeated "
            "seeds of their own. For curves, add a column epoch, step or seconds.",
        ),
        (
            "seed,epoch,loss\n0,1,1\n0,2,1\n0,1.0,2\n",
            ": line 2 and line 4 are the same run (seed=0, epoch 1). Give runs that were repeated seeds of their own.",
        ),
    ],
)
def test_tables_that_do_not_say_what_they_are(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as error:
        compare([str(path)])
    assert str(error.value).startswith(str(path)) and words in str(error.value) and len(str(error.value)) < 700


def test_metrics_that_are_not_there_or_have_no_direction(tmp_path: Path) -> None:
    path = str(write(tmp_path, "optimizer,seed,val/accuracy,test/psnr\na,0,0.5,30\n"))
    with pytest.raises(
        ValueError, match=r"^metric=test/loss was logged by no run. There are: test/psnr, val/accuracy\."
    ):
        compare([path], metric="test/loss")
    with pytest.raises(ValueError, match=r"^metric=test/psnr of .*results.csv: it is not known whether more of it is"):
        compare([path], metric="test/psnr")
    assert len(compare([path], metric="val/accuracy").facts.runs) == 1


# Several sources


def test_tables_beside_runs_of_this_project(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.55, "sgd": 0.5}, seeds=range(4))
    text = "optimizer,seed,test/accuracy\n" + "".join(f"lion,{seed},{0.6 + seed / 500}\n" for seed in range(4))
    comparison = compare([str(write(tmp_path, text)), str(sweep)])
    assert comparison.facts.by == ["optimizer"]
    ranking = comparison.judgement.ranking
    assert list(ranking.configuration) == ["lion", "adam", "sgd"] and list(ranking.n) == [4, 4, 4]
    assert list(comparison.judgement.differences.n) == [4, 4, 4]  # an unknown version of the code is not another one
    assert comparison.words.violations == []
    found = ledger(comparison)
    assert found[Item.IMAGES] == (None, "da7a (hash of all images and labels); not recorded by 4 runs")
    assert found[Item.INITIAL_WEIGHTS][0] is None and found[Item.TEST_SET_READ] == (None, "not recorded by 4 runs")
    write(tmp_path, text.replace("optimizer", "method"))
    with pytest.raises(ValueError, match=r"cannot be compared: optimizer varies in the one, and the other has no such"):
        compare([str(tmp_path / "results.csv"), str(sweep)])


def test_times_of_an_unknown_device_are_not_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", {"adam": 0.55}, seeds=range(2))
    path = str(write(tmp_path, "optimizer,seed,seconds,accuracy\nlion,0,9,0.5\nlion,1,9,0.6\n"))
    both = compare([path, str(tmp_path / "sweep")])
    assert "(2 runs on a CPU, 1 thread; 2 runs on an unknown device)" in both.words.times_withheld
    assert compare([path]).words.times_withheld == "" and list(compare([path]).facts.runs.seconds) == [9, 9]


def test_several_tables(tmp_path: Path) -> None:
    write(tmp_path, TIDY)
    write(tmp_path, TIDY.replace("adam", "lion"), "more.csv")
    assert len(compare([str(tmp_path / "*.csv")]).facts.runs) == 16
    again = compare([str(tmp_path / "results.csv"), str(write(tmp_path, TIDY, "again.csv"))])
    assert list(again.judgement.ranking.n) == [4, 4] and again.facts.runs.note.str.startswith("repeated by").sum() == 8


def test_the_library_reads_tables(tmp_path: Path) -> None:
    path = write(tmp_path, TIDY)
    runs = optbench.load_runs(path)
    assert list(runs.columns)[:5] == ["folder", "status", "seed", "optimizer", "lr"]
    assert list(runs["test/accuracy"]) == pytest.approx([row[3] for row in ROWS])
    assert runs.folder[0] == f"{path}:2"
    some = optbench.compare(runs[runs.seed < 3], by="optimizer")
    assert list(some.judgement.ranking.n) == [3, 3]
    assert optbench.compare(path).words.answer[0].startswith("adam is better")


def test_a_large_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{name},{lr},{seed},{epoch},{rng.random():.4f},{rng.random():.4f}"
        for name in ("adam", "sgd")
        for lr in (0.1, 0.01)
        for seed in range(50)
        for epoch in range(100)
    ]
    random.Random(0).shuffle(rows)
    path = write(tmp_path, "optimizer,lr,seed,epoch,val/loss,val/accuracy\n" + "\n".join(rows))
    begin = time.perf_counter()
    runs, reading = read_table(path, "val/accuracy")
    assert time.perf_counter() - begin < 10  # half a second, where nothing else runs
    assert len(runs) == 200 and reading.startswith("results.csv: 20000 rows are 200 runs.")
    assert [row["epoch"] for row in runs[0].epochs] == list(range(100))
