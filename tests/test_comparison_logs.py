"""Runs from logs of Lightning: what is read, and files that are broken or hostile."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

import optbench
from optbench.comparison import logs, read
from optbench.comparison.analysis import compare
from optbench.comparison.logs import find_log, read_settings, read_yaml
from optbench.comparison.read import read_runs
from sweeps import write_run

HEADER = "epoch,step,test/acc,test/loss,train/acc,train/loss,val/acc,val/acc_best,val/loss"


def metrics_csv(accuracy: float) -> str:
    """Three epochs of ten steps and a test, in the way of Lightning's CSVLogger: a row for each moment."""
    rows = [HEADER]
    for epoch, val in enumerate((accuracy - 0.2, accuracy, accuracy - 0.1)):
        rows += [f"{epoch},{10 * epoch + 9},,,,,{val},{accuracy},{1 - val}"]
        rows += [f"{epoch},{10 * epoch + 9},,,{val + 0.05},{0.9 - val},,,"]
    return "\n".join([*rows, f"3,30,{accuracy - 0.01},{1 - accuracy},,,,,"]) + "\n"


def write_version(folder: Path, accuracy: float, **hparams: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "hparams.yaml").write_text("".join(f"{key}: {value}\n" for key, value in hparams.items()))
    (folder / "metrics.csv").write_text(metrics_csv(accuracy))
    return folder


CONFIG = """
task_name: train
seed: {seed}
data: {{_target_: src.data.MNIST, data_dir: "${{paths.data_dir}}", batch_size: 128}}
model:
  _target_: src.models.MNISTLitModule
  optimizer: {{_target_: torch.optim.{optimizer}, _partial_: true, lr: {lr}, betas: !!python/tuple [0.9, 0.99]}}
trainer: {{max_epochs: 3}}
paths: {{output_dir: "/somewhere/{seed}"}}
"""


def write_template_run(folder: Path, optimizer: str, seed: object, accuracy: float) -> Path:
    """What lightning-hydra-template leaves."""
    write_version(folder / "csv" / "version_0", accuracy, seed=99)
    lr = {"SGD": 0.1}.get(optimizer, 0.001)
    hydra = folder / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text(CONFIG.format(seed=seed, optimizer=optimizer, lr=lr))
    (hydra / "overrides.yaml").write_text(f"- model.optimizer._target_=torch.optim.{optimizer}\n- seed={seed}\n")
    (hydra / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {data: mnist, paths: default, hydra/launcher: basic}}}"
    )
    return folder


def write_template_sweep(folder: Path) -> Path:
    runs = [(name, seed, base + seed / 500) for name, base in (("Adam", 0.9), ("SGD", 0.8)) for seed in (0, 1, 2, 3)]
    for number, (optimizer, seed, accuracy) in enumerate(runs):
        write_template_run(folder / str(number), optimizer, seed, accuracy - number % 3 / 1000)
    return folder


def test_a_sweep_of_the_template(tmp_path: Path) -> None:
    comparison = compare([str(write_template_sweep(tmp_path / "logs/train/multiruns/sweep"))])
    assert comparison.facts.by == ["optimizer"] and list(comparison.judgement.ranking.configuration) == ["Adam", "SGD"]
    assert comparison.words.answer[0].startswith("Adam is better in test/accuracy than SGD (+10.02 points")
    assert comparison.words.skipped == comparison.words.violations == []
    assert comparison.words.notes[-1] == (
        "Logs of 8 runs: metrics are test/accuracy (column test/acc), test/loss, train/accuracy (column train/acc), "
        "train/loss, val/accuracy (column val/acc), val/loss."
    )
    ledger = {str(claim.item): (claim.equal, claim.text) for claim in comparison.judgement.ledger}
    assert ledger["Batch size"] == (True, "128") and ledger["Most epochs allowed"] == (True, "3")
    assert ledger["Images"] == (None, "not recorded")
    assert ledger["Settings that come along"][1].startswith("model.optimizer.lr varies only along with optimizer")


def test_logs_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = write_template_sweep(tmp_path)
    calls = []

    def counted(folder: Path) -> Path | None:
        calls.append(folder)
        return find_log(folder)

    monkeypatch.setattr(logs, "find_log", counted)
    monkeypatch.setattr(read, "find_log", counted)
    assert len(read_runs([str(sweep)], "test/accuracy").records) == len(calls) == len(set(calls)) == 8


def test_a_row_an_epoch(tmp_path: Path) -> None:
    """Both counted from 1, as this project counts; the test belongs to the last epoch."""
    write_template_run(tmp_path / "run", "Adam", 3, 0.9)
    runs = read_runs([str(tmp_path)], "test/accuracy")
    row = runs.frame.iloc[0]
    assert (row.run, row.seed, row.epochs, row.steps, row.best_epoch) == ("run", 3, 3, 30, 2)
    assert (row.metric, row.validation) == pytest.approx((0.89, 0.9))
    assert list(runs.curves.epoch) == [1, 2, 3] and list(runs.curves.step) == [10, 20, 30]
    assert list(runs.curves["val/accuracy"]) == pytest.approx([0.7, 0.9, 0.8])
    assert list(runs.curves["train/loss"]) == pytest.approx([0.2, 0.0, 0.1])


def test_versions_without_hydra(tmp_path: Path) -> None:
    for k, (lr, seed) in enumerate([(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]):
        write_version(tmp_path / f"lightning_logs/version_{k}", 0.5 + lr + seed / 100 - k / 1000, lr=lr, seed=seed)
    comparison = compare([str(tmp_path)])
    assert comparison.facts.by == ["lr"] and list(comparison.judgement.ranking.configuration) == ["lr=0.1", "lr=0.01"]
    assert list(optbench.load_runs(tmp_path)["lr"]) == [0.1, 0.1, 0.01, 0.01]


def test_the_last_version_of_a_run_that_was_started_again(tmp_path: Path) -> None:
    run = write_template_run(tmp_path / "run", "Adam", 0, 0.5)
    for version in (9, 10):
        write_version(run / f"csv/version_{version}", 0.5 + version / 100)
    assert read_runs([str(tmp_path)], "test/accuracy").frame.metric[0] == pytest.approx(0.59)


def write_events(folder: Path, scalars: Iterable[tuple[str, float, int]]) -> Path:
    writer = SummaryWriter(str(folder))
    for tag, value, step in scalars:
        writer.add_scalar(tag, value, step)
    writer.close()
    return folder


def test_event_files_of_tensorboard(tmp_path: Path) -> None:
    for seed in (0, 1):
        scalars = [("val_acc", 0.5, 9), ("epoch", 0, 9), ("val_acc", 0.6, 19), ("epoch", 1, 19), ("hp_metric", -1, 0)]
        folder = write_events(tmp_path / f"version_{seed}", [*scalars, ("test_acc", 0.55, 20), ("epoch", 2, 20)])
        (folder / "hparams.yaml").write_text(f"seed: {seed}\n")
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert list(runs.frame.metric) == pytest.approx([0.55, 0.55]) and list(runs.frame.steps) == [20, 20]
    assert list(runs.curves.epoch) == [1, 2, 1, 2] and list(runs.curves["val/accuracy"]) == pytest.approx(
        [0.5, 0.6] * 2
    )
    assert runs.curves.seconds.between(0, 60).all()


def test_per_cent_is_seen_over_all_runs(tmp_path: Path) -> None:
    """A run at chance has no value above 1, and is no run with 100 %."""
    for seed, accuracy in enumerate((55.0, 0.9)):
        folder = write_version(tmp_path / str(seed), 0.5, seed=seed)
        (folder / "metrics.csv").write_text(f"epoch,step,test_acc\n0,9,{accuracy}\n")
    assert list(read_runs([str(tmp_path)], "test/accuracy").frame.metric) == pytest.approx([0.55, 0.009])


def test_a_fraction_that_rounding_lifts_above_1_is_no_per_cent(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((1.0000001192092896, 0.9)):
        folder = write_version(tmp_path / str(seed), 0.5, seed=seed)
        (folder / "metrics.csv").write_text(f"epoch,step,test_acc\n0,9,{accuracy}\n")
    assert list(read_runs([str(tmp_path)], "test/accuracy").frame.metric) == pytest.approx([1, 0.9])


# Files that are broken or hostile


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metrics.csv", "", "metrics.csv is empty."),
        ("metrics.csv", "epoch,step,val/acc\n0,9,0.5\n1,19", "metrics.csv, line 3: 2 cells, and the first line has 3."),
        ("metrics.csv", "epoch,step,val/acc\n0,9,high\n", "metrics.csv, line 2, column val/acc: 'high' is no number."),
        ("metrics.csv", "epoch,step,loss\n0,9,1\n", "metrics.csv has no metric such as val/loss, val_acc or test/acc."),
        ("hparams.yaml", "lr: 0.1\n", "hparams.yaml has no seed that is a whole number (seed: None). Seeds are the"),
        ("hparams.yaml", "seed: true\n", "hparams.yaml has no seed that is a whole number (seed: True)."),
        ("hparams.yaml", "", "hparams.yaml must hold settings, each with its name."),
        ("hparams.yaml", "- 1\n", "hparams.yaml must hold settings, each with its name."),
        ("hparams.yaml", "seed: 1\nlr: [0.1\n", "hparams.yaml, line 3: did not find expected"),
        ("hparams.yaml", "seed: 1\n\tlr: 2\n", "hparams.yaml, line 2: found a tab character"),
        ("hparams.yaml", "seed: &a [*a]\n", "hparams.yaml is not YAML (RecursionError)."),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    write_version(tmp_path / "good", 0.5, seed=0)
    (write_version(tmp_path / "bad", 0.5, seed=1) / name).write_text(text)
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert list(runs.frame.run) == ["good"] and len(runs.skipped) == 1
    assert runs.skipped[0].startswith(f"Left out: {tmp_path / 'bad'}/{words}"), runs.skipped


def test_event_files_that_are_none(tmp_path: Path) -> None:
    write_version(tmp_path / "good", 0.5, seed=0)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "hparams.yaml").write_text("seed: 1\n")
    (bad / "events.out.tfevents.1.host").write_bytes(b"\x00\xff" * 500)
    runs = read_runs([str(tmp_path)], "test/accuracy")
    assert list(runs.frame.run) == ["good"] and runs.skipped[0].startswith(f"Left out: {bad}")


def test_nothing_in_yaml_is_executed(tmp_path: Path) -> None:
    """Tags and expressions are text; anchors that multiply end with a sentence."""
    mark = tmp_path / "executed"
    folder = write_version(tmp_path / "run", 0.5)
    (folder / "hparams.yaml").write_text(
        f"seed: 1\nwho: ${{oc.env:HOME}}\ncommand: !!python/object/apply:os.system ['touch {mark}']\n"
        "betas: !!python/tuple [0.9, 0.99]\nkind: !!python/name:os.system\nday: 2026-01-02\ndays: [2026-01-02]\n"
    )
    settings, _, seed = read_settings(folder)
    assert seed == 1 and settings["who"] == "${oc.env:HOME}" and settings["betas"] == "[0.9, 0.99]"
    assert settings["day"] == "2026-01-02" and settings["days"] == '["2026-01-02"]' and not mark.exists()
    bomb = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    bomb += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    (folder / "hparams.yaml").write_text("\n".join(bomb))
    with pytest.raises(ValueError, match=r"hparams.yaml has more than 10000 settings, or its anchors multiply them\.$"):
        read_yaml(folder / "hparams.yaml")


def test_a_run_of_this_project_that_was_killed_is_no_log(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    killed = tmp_path / "killed"
    (killed / ".hydra").mkdir(parents=True)
    (killed / ".hydra/config.yaml").write_text("seed: 0\n")
    (killed / "metrics.csv").write_text(metrics_csv(0.5))
    assert read_runs([str(tmp_path)], "test/accuracy").skipped == [
        f"Left out: {killed} began as a run and has no summary.json."
    ]


def test_logs_beside_a_table(tmp_path: Path) -> None:
    sweep = write_template_sweep(tmp_path / "sweep")
    table = tmp_path / "results.csv"
    table.write_text("optimizer,seed,accuracy\n" + "".join(f"Lion,{seed},{0.95 + seed / 900}\n" for seed in range(4)))
    comparison = compare([str(table), str(sweep)])
    assert list(comparison.judgement.ranking.configuration) == ["Lion", "Adam", "SGD"]
    assert list(comparison.judgement.differences.n) == [4, 4, 4]
