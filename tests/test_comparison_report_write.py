"""`compare.py` as typed, and the end of a sweep."""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import PROJECT, Result
from optbench import run as run_module
from optbench.comparison.report.write import compare_runs, place
from sweeps import write_run, write_sweep

FILES = ["report.html", "report.md", "statistics.csv", "summary.csv", "table.tex"]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison" / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_with_its_comparison(train):
    result = train("-m", "optimizer=adam,sgd", "seed=0,1", "compare=true")
    assert result.status == 0, result.err
    folder = result.folder / "comparison"
    assert sorted(path.name for path in folder.iterdir()) == ["figures", *FILES]
    assert {"ranking.png", "ranking.pdf", "curves.png"} <= {path.name for path in (folder / "figures").iterdir()}
    assert result.out.rstrip().endswith(f"Report: {folder / 'report.html'}")
    assert "test/accuracy by optimizer" in result.out
    for row in rows_of(result.folder):
        summary = json.loads((Path(row["folder"]) / "summary.json").read_text())
        assert float(row["metric"]) == summary["test"]["test/accuracy"]
        assert row["configuration"] == summary["choices"]["optimizer"]


@pytest.mark.usefixtures("unrendered")
def test_a_sweep_with_a_run_that_fails_and_one_that_diverges_is_compared_too(train):
    result = train("-m", "optimizer=sgd", "optimizer.lr=0.01,0,1e38", "trainer.log_every_n_steps=1", "compare=true")
    assert result.status == 1
    assert result.sentence == "optimizer.lr=0 is no learning rate: it must be a number above 0, for example 0.001."
    assert [row["status"] for row in rows_of(result.folder)] == ["completed", "failed", "diverged"]
    assert "Diverged: lr=1e+38 in its only run. Failed: lr=0 in its only run." in " ".join(result.out.split())


@pytest.mark.usefixtures("unrendered")
def test_a_sweep_that_is_interrupted_is_compared_too(train, monkeypatch):
    work, calls = run_module.train_and_test, []

    def stop_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        work(*args)

    monkeypatch.setattr(run_module, "train_and_test", stop_at_the_second)
    result = train("-m", "seed=0,1,2", "compare=true")
    assert result.status == 130
    assert [row["status"] for row in rows_of(result.folder)] == ["completed", "interrupted"]


def test_one_key_turns_it_off(train):
    result = train("-m", "seed=0,1", "compare=false")
    assert not (result.folder / "comparison").exists()
    assert result.out.rstrip().endswith(f"Everything is in {result.folder}")


def test_a_comparison_that_breaks_takes_nothing_with_it(train, monkeypatch):
    def broken(*args):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("optbench.comparison.report.write.write", broken)
    result = train("-m", "seed=0,1", "compare=true")
    assert result.status == 0
    assert "The runs are there, but not their comparison: output=" in result.sentence
    assert f"To try again: python src/compare.py runs={result.folder}" in result.sentence


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "a sweep", {"adam": 0.5, "sgd": 0.6, "rmsprop": 0.5})


@pytest.mark.usefixtures("unrendered")
def test_a_finished_sweep_again(command, sweep):
    result = command("compare", f"runs={sweep}", "baseline=adam", "target=[0.3,0.4]")
    assert result.status == 0, result.err
    folder = sweep / "comparison_baseline=adam,target=0.3+0.4"
    assert sorted(path.name for path in folder.iterdir()) == ["figures", *FILES]
    told = " ".join(result.out.split())
    assert (
        "is better in test/accuracy than the baseline adam." in told
        and "against the baseline adam is undecided" in told
    )
    with (folder / "statistics.csv").open(encoding="utf-8", newline="") as file:
        assert {row["target"] for row in csv.DictReader(file)} == {"", "0.3", "0.4"}


@pytest.mark.usefixtures("unrendered")
def test_several_sweeps_go_to_a_folder_of_their_own(command, sweep, tmp_path):
    other = write_sweep(tmp_path / "other", {"adamw": 0.5})
    result = command("compare", f"runs=[{sweep},{other}]", f"output={tmp_path}/out")
    assert result.status == 0, result.err
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (sweep / "comparison").exists()
    assert "adamw" in result.out


def test_another_question_does_not_replace_the_sweeps_own_report(sweep, monkeypatch, capsys, tmp_path):
    """adam and sgd at two rates: the sweep varied the optimizer and the rate."""
    monkeypatch.setattr("optbench.comparison.report.write.figures.save", lambda *args: None)
    monkeypatch.setattr("optbench.comparison.report.write.PROJECT", tmp_path)
    for name in ("adam", "sgd"):
        write_run(sweep / f"x-{name}", name, overrides=["optimizer.lr=0.5"], config={"optimizer.lr": 0.5})
    own = compare_runs(str(sweep))
    assert own == sweep / "comparison" and "stays as it is" not in capsys.readouterr().out
    report = (own / "report.html").read_bytes()
    for question, name in [
        ({"by": "optimizer"}, "by=optimizer"),
        ({"baseline": "adam lr=0.001"}, "baseline=adam_lr=0.001"),
        ({"metric": "test/loss"}, "metric=test_loss"),
        ({"margin": 0.01, "gap": 0.02, "pairs": "all"}, "pairs=all,margin=0.01,gap=0.02"),
    ]:
        folder = compare_runs(str(sweep), **question)
        assert folder == sweep / f"comparison_{name}" and (folder / "report.html").is_file()
        told = capsys.readouterr().out
        assert f"The sweep's own report stays as it is: {own / 'report.html'}" in told
        assert told.rstrip().endswith(f"Report: {folder / 'report.html'}")
    assert (own / "report.html").read_bytes() == report

    same = {"by": ["optimizer.lr", "optimizer"], "metric": "test/accuracy", "margin": 0.005, "gap": 0.005}
    assert compare_runs(str(sweep), **same) == own, "what the sweep's own report asks, in other words"
    assert compare_runs([str(sweep), str(sweep / "x-adam")]).parent == tmp_path / "logs" / "comparison"


def test_the_name_of_a_question_is_one_that_a_file_system_takes(tmp_path):
    own = tmp_path / "comparison"
    assert place(own, {"by": None}) == own
    assert place(own, {"baseline": "../ü lr=[1, 2]"}).name == "comparison_baseline=.._lr=_1,_2_"
    names = {place(own, {"baseline": "x" * 300 + end}).name for end in "ab"}
    assert len(names) == 2 and max(map(len, names)) < 150


@pytest.mark.usefixtures("unrendered")
def test_a_glob_and_a_running_sweep(command, sweep):
    write_run(sweep / "9_optimizer=adamw,seed=0", "adamw", status="running", epochs=2)
    result = command("compare", f"runs={sweep}/*", f"output={sweep}/out")
    assert result.status == 0, result.err
    assert "adamw" in result.out and "1 running" in (sweep / "out" / "report.md").read_text()


@pytest.mark.usefixtures("unrendered")
def test_the_terminal_names_the_best_of_many(sweep, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("optbench.comparison.report.write.MOST_ROWS", 1)
    compare_runs(str(sweep), output=str(tmp_path / "out"))
    out = capsys.readouterr().out
    table = out[: out.index("The best 1 of 3 configurations: report.md names them all.")]
    assert "sgd" in table and "adam" not in table
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| adam |" in report and "| sgd |" in report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "runs must be given: add runs=<value> to the command."),
        (["runs="], "runs is empty. Give a run's folder, a sweep's, a table"),
        (["runs=null"], "runs=null does not exist. Give a run's folder"),
        (["runs=5"], "runs=5 does not exist. Give a run's folder"),
        (["runs={sweep}", "by=5"], "by=5 is no key of these runs. What varies:"),
        (["runs=nowhere"], "runs=nowhere does not exist. Give a run's folder, a sweep's, a table"),
        (["runs={tmp}"], "holds no run: there is no summary.json in it or below."),
        (["runs={sweep}", "metric=test/acuracy"], "was logged by no run; did you mean test/accuracy? There are:"),
        (["runs={sweep}", "by=model.dropout"], "by=model.dropout does not vary: it is 0.2 in every run. What varies:"),
        (["runs={sweep}", "by=optimiser"], "by=optimiser is no key of these runs; did you mean optimizer?"),
        (["runs={sweep}", "by=seed"], "by=seed: seeds are the samples"),
        (["runs={sweep}", "baseline=adm"], "baseline=adm is no configuration here; did you mean adam? There are:"),
        (["runs={sweep}", "baseline=sgd lr=0.01"], "needs quotes of its own, inside those of the shell: "),
        (["runs={sweep}", "pairs=some"], "pairs=some must be all, or null: the pairs that the question is about."),
        (["runs={sweep}", "margin=5"], "margin=5 must be a fraction between 0 and 1, such as 0.005 for half a point"),
        (["runs={sweep}", "target=50"], "target=50 must be a fraction between 0 and 1, for example target=0.5"),
        (["runs={sweep}", "target=high"], "target=high must be a fraction between 0 and 1"),
        (["runs={sweep}", "metrc=test/loss"], "metrc is not a key of the configuration; did you mean metric?"),
        (["runs={sweep}", "output=/proc/none/here"], "/proc/none"),
    ],
)
def test_mistakes_end_with_a_sentence(
    command: Callable[..., Result], tmp_path: Path, sweep: Path, arguments: list[str], words: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = command("compare", *(argument.format(tmp=empty, sweep=sweep) for argument in arguments))
    assert result.status == 1
    assert words in result.sentence and "Traceback" not in result.err and "\n\n" not in result.err.strip()
    assert not (sweep / "comparison").exists()


README = (PROJECT / "README.md").read_text()
COMMANDS = re.findall(r"^ {4}python src/compare\.py (.*=.*)$", README, re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_work(command, tmp_path, monkeypatch, line):
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5, "sgd": 0.6})
    monkeypatch.setattr("optbench.comparison.report.write.write", lambda *args: None)
    table = tmp_path / "results.csv"
    table.write_text("optimizer,seed,accuracy\nadam,0,0.5\nadam,1,0.6\nsgd,0,0.4\nsgd,1,0.7\n")
    for folder in ("logs/train/multiruns/<sweep>", "<sweep>", "logs/train/runs"):
        line = line.replace(folder, str(sweep))
    line = line.replace("runs=results.csv", f"runs={table}")
    result = command("compare", *shlex.split(line, comments=True))
    assert result.status == 0, result.err
    assert "by optimizer" in result.out and "Report: " in result.out


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 4


def test_it_loads_neither_torch_nor_lightning(sweep):
    script = str(PROJECT / "src" / "compare.py")
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(PROJECT / 'src')!r})\n"
        f"sys.argv = ['compare.py', {f'runs={sweep.parent}'!r}]\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
        "assert not {'torch', 'pytorch_lightning', 'torchmetrics'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=sweep.parent)
    assert result.returncode == 0, result.stderr
