import csv
import json
import math
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from conftest import SMALL
from optbench import run as run_module
from optbench.callbacks.divergence_guard import Diverged
from optbench.comparison.fairness import test_reads as reads_of_the_test_set
from optbench.records.record import RunRecord
from optbench.training.classifier import Classifier


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    return events


@pytest.fixture
def result(train):
    return train("trainer.max_epochs=2", "seed=3")


def test_a_run_leaves_its_record(result):
    summary = result.summary
    assert result.status == 0, result.err
    assert summary["status"] == "completed"
    assert summary["schema_version"] == 1
    assert summary["seed"] == 3
    assert summary["config"]["data"]["order_seed"] == 3
    assert "seed=3" in summary["overrides"]
    assert summary["choices"]["optimizer"] == "adam"
    assert (summary["epochs"], summary["steps"]) == (2, 12)  # 270 images in batches of 50
    assert summary["images"] == {"train": 270, "val": 30, "test": 60}
    assert all(len(summary["hashes"][name]) == 64 for name in ("data", "split", "initial_weights", "batch_order"))
    assert summary["parameters"] == {"trainable": 49642, "statistics": 32}
    assert summary["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert summary["device"]["accelerator"] == "cpu"
    assert summary["device"]["matmul_precision"] == "highest"
    seconds = summary["seconds"]
    assert seconds["total"] >= seconds["startup"] + seconds["training"] > 0
    assert summary["peak_memory_mb"]["process"] > 100
    assert sorted(path.name for path in (result.folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (result.folder / ".hydra" / "config.yaml").is_file()
    assert not [path for path in result.folder.iterdir() if path.name.startswith(".summary")]


def test_metrics_csv_tensorboard_and_summary_share_words_and_numbers(result):
    rows, summary, events = rows_of(result.folder), result.summary, events_of(result.folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["6", "12"]
    assert [float(row["lr"]) for row in rows] == [0.001, 0.001]
    assert float(rows[1]["seconds"]) > float(rows[0]["seconds"]) > 0
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1", "val/ece", "val/top3_accuracy"):
        column = [float(row[name]) for row in rows]
        assert column == pytest.approx([event.value for event in events.Scalars(name)], rel=1e-6)
        assert summary["final"][name] == column[-1]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert summary["best"]["epoch"] == int(best["epoch"]) == summary["tested"]["epoch"]
    for name in ("test/loss", "test/accuracy"):
        assert float(best[name]) == summary["test"][name]
        assert events.Scalars(name)[0].value == pytest.approx(summary["test"][name], rel=1e-6)
    assert [row["test/loss"] == "" for row in rows].count(True) == 1


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(train):
    first, second = (train("seed=1", "model.dropout=0.5", name=name) for name in ("first", "second"))
    other = train("seed=2", "model.dropout=0.5", name="other")

    def weights(result):
        return torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name
    times = ("seconds", "epoch_seconds")
    assert [{k: v for k, v in row.items() if k not in times} for row in rows_of(first.folder)] == [
        {k: v for k, v in row.items() if k not in times} for row in rows_of(second.folder)
    ]
    assert first.summary["hashes"] == second.summary["hashes"]
    assert first.summary["hashes"]["initial_weights"] != other.summary["hashes"]["initial_weights"]
    assert first.summary["hashes"]["batch_order"] != other.summary["hashes"]["batch_order"]
    assert first.summary["hashes"]["split"] == other.summary["hashes"]["split"]


def test_a_sweep_compares_like_with_like(train):
    result = train("-m", "optimizer=adam,sgd,rmsprop,adamw")
    assert result.status == 0, result.err
    folders = sorted(path.parent for path in result.folder.glob("*/summary.json"))
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert [summary["choices"]["optimizer"] for summary in summaries] == ["adam", "sgd", "rmsprop", "adamw"]
    assert [folder.name.split("_")[0] for folder in folders] == ["0", "1", "2", "3"]
    assert all(summary["hashes"] == summaries[0]["hashes"] for summary in summaries)
    assert len({summary["final"]["val/loss"] for summary in summaries}) == 4
    assert f"Everything is in {result.folder}" in result.out
    assert "epoch   1" not in result.out  # a sweep is quiet; train.log has the epochs
    assert "epoch   1  train/loss" in (folders[0] / "train.log").read_text()


def test_lists_of_augmentations_are_one_factor_and_older_records_read(train, command):
    sweep = train("-m", "augmentation=none,crop_flip,[crop_flip,cutout]", "logger=[csv,tensorboard]")
    assert sweep.status == 0, sweep.err
    paths = sorted(sweep.folder.glob("*/summary.json"))
    summaries = [json.loads(path.read_text()) for path in paths]
    names = ["none", "crop_flip", "crop_flip+cutout"]
    assert [summary["choices"]["augmentation"] for summary in summaries] == names
    assert len({summary["final"]["val/loss"] for summary in summaries}) == 3
    assert summaries[0]["hashes"] == summaries[2]["hashes"]

    summary = summaries[1]
    summary["config"]["augmentation"] = summary["config"]["augmentation"]["crop_flip"]  # as it was before lists
    paths[1].write_text(json.dumps(summary))
    assert command("evaluate", f"run='{paths[1].parent}'").status == 0
    compared = command("compare", f"runs={sweep.folder}")
    assert compared.status == 0, compared.err
    assert "test/accuracy by augmentation" in compared.out
    for name in names:
        assert f"augmentation={name} " in compared.out
    one = command("compare", f"runs={sweep.folder}", "baseline='augmentation=crop_flip+cutout'")
    assert one.status == 0, one.err


def test_a_run_that_diverges_has_a_result(train):
    result = train("optimizer=sgd", "optimizer.lr=1e38", "trainer.max_epochs=3", "trainer.log_every_n_steps=1")
    assert result.status == 0, result.err
    summary = result.summary
    assert summary["status"] == "diverged"
    assert 1 <= summary["diverged_at_step"] <= 6
    assert summary["test"] == {}
    assert summary["seconds"]["training"] > 0
    assert f"Diverged: the loss was no longer finite at step {summary['diverged_at_step']}" in result.out
    assert not (result.folder / "checkpoints").exists()


def test_ctrl_c_is_recorded_as_interrupted(train, monkeypatch):
    def press(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "on_train_epoch_end", press)
    result = train()
    assert result.status == 130
    assert result.summary["status"] == "interrupted"
    assert "Interrupted." in result.err


def test_a_bug_is_recorded_as_failed(train, monkeypatch):
    def broken(self, *args):
        raise RuntimeError("boom")

    monkeypatch.setattr(Classifier, "_look", broken)
    result = train()
    assert result.status == 1
    assert "Unexpected RuntimeError in test_run.py" in result.sentence
    assert result.summary["status"] == "failed"
    assert result.summary["error"]["message"] == "boom"
    assert "Traceback" in result.summary["error"]["traceback"]


def test_last_weights_are_tested_where_asked(train):
    best = train("trainer.max_epochs=3", "optimizer.lr=0.05", "monitor=train/loss", name="best")
    last = train("trainer.max_epochs=3", "optimizer.lr=0.05", "monitor=train/loss", "test_weights=last", name="last")
    assert best.summary["tested"]["checkpoint"] == "best"
    assert last.summary["tested"] == {"checkpoint": "last", "epoch": 3}


def test_a_run_need_not_read_the_test_set(train, monkeypatch):
    def read(self):
        raise AssertionError("the test set was read")

    monkeypatch.setattr("optbench.data.datamodule.ImageDataModule.test_dataloader", read)
    result = train("test_weights=none", "optimizer.lr=0.05")
    assert result.status == 0, result.err
    assert (result.summary["status"], result.summary["test"], result.summary["tested"]) == ("completed", {}, {})
    assert "val/accuracy" in result.summary["best"] and (result.folder / "checkpoints" / "best.ckpt").is_file()
    assert "Completed without a test (test_weights=none)" in result.out
    assert reads_of_the_test_set([result.folder], [RunRecord.read(result.folder)]).text == "never by each run"


def test_best_stays_and_last_is_replaced(train):
    falling = ("trainer.max_epochs=3", "monitor=train/loss", "callbacks.best_checkpoint.mode=max", "optimizer=sgd")
    folder = train(*falling).folder / "checkpoints"  # it learns, so the highest loss is the first epoch's
    best, last = (torch.load(folder / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (0, 2)
    assert "optimizer_states" not in best
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_without_callbacks_the_last_weights_are_tested_and_it_says_so(command):
    result = command("train", *(argument for argument in SMALL if "callbacks" not in argument), "callbacks=none")
    assert result.status == 0, result.err
    assert result.summary["tested"] == {"checkpoint": "last", "epoch": 1}
    assert "No checkpoint was kept" in result.out
    assert not (result.folder / "checkpoints").exists()


def test_a_checkpoint_resumes_where_it_was_saved(train):
    train = partial(train, "model.dropout=0")  # a checkpoint holds no random states
    whole = train("trainer.max_epochs=2", name="whole")
    half = train("trainer.max_epochs=1", name="half")
    rest = train("trainer.max_epochs=2", f"ckpt_path={half.folder}/checkpoints/last.ckpt", name="rest")
    assert rest.status == 0, rest.err
    names = ("train/loss", "val/loss", "val/accuracy")
    assert [rows_of(rest.folder)[-1][name] for name in names] == [rows_of(whole.folder)[-1][name] for name in names]
    assert rows_of(rest.folder)[-1]["step"] == "12"


def test_everything_tensorboard_shows(train):
    result = train(
        "trainer.log_every_n_steps=2",
        "callbacks.figures={_target_: optbench.callbacks.tensorboard_figures.Figures, examples: 6}",
        "callbacks.histograms={_target_: optbench.callbacks.histograms.Histograms, every_n_epochs: 1}",
    )
    assert result.status == 0, result.err
    events = events_of(result.folder)
    tags = events.Tags()
    assert {"images/training", "test/confusion_matrix", "test/most_confidently_wrong"} <= set(tags["images"])
    assert {"weights/layers.0.weight", "gradients/head.bias"} <= set(tags["histograms"])
    assert tags["graph"]
    assert {"train/loss_step", "lr_step", "lr", "seconds", "test/accuracy"} <= set(tags["scalars"])
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    start = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    assert start.hparams["optimizer"].string_value == "adam"
    assert start.hparams["optimizer.lr"].number_value == 0.001
    experiment = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    ).experiment
    assert {info.name.tag for info in experiment.metric_infos} >= {"test/accuracy", "val/best_loss"}


def test_the_run_ends_after_its_last_event_is_in_the_file(train, monkeypatch):
    """A process that was forked does not wait for the thread that writes them."""
    write = RecordWriter.write
    slowly = partial(time.sleep, 0.01)  # for each event
    monkeypatch.setattr(RecordWriter, "write", lambda self, event: (slowly(), write(self, event)))
    result = train("logger=tensorboard", "callbacks.histograms=null", "callbacks.figures=null")
    assert "val/best_loss" in events_of(result.folder).Tags()["scalars"], result.err


@pytest.mark.parametrize(("monitor", "worst"), [("val/loss", math.inf), ("val/accuracy", -math.inf)])
def test_run_returns_what_a_searching_sweeper_needs(train, monkeypatch, monitor, worst):
    values = []
    run = run_module.run
    monkeypatch.setattr(run_module, "run", lambda cfg: values.append(run(cfg)))
    result = train(f"monitor={monitor}", name="whole")
    assert values == [result.summary["best"][monitor]]

    def diverge(*args):
        raise Diverged(5)

    monkeypatch.setattr(run_module, "train_and_test", diverge)
    result = train(f"monitor={monitor}", name="diverged")
    assert values[1] == worst
    assert result.summary["diverged_at_step"] == 5


def test_a_compiled_network_trains_and_shows_its_graph(train, monkeypatch):
    import torch._dynamo

    compile_net = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compile_net(net, backend="eager"))  # needs no compiler
    result = train(
        "compile=true", "callbacks.figures={_target_: optbench.callbacks.tensorboard_figures.Figures, examples: 4}"
    )
    torch._dynamo.reset()
    assert result.status == 0, result.err
    assert events_of(result.folder).Tags()["graph"]
    weights = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "net.head.weight" in weights


def test_what_a_checkpoint_refuses(train):
    half = train("weight_decay_on=weights", name="half")
    checkpoint = f"ckpt_path={half.folder}/checkpoints/last.ckpt"
    more = ("trainer.max_epochs=2", "weight_decay_on=weights", checkpoint)
    for arguments, words in (
        ((*more, "trainer.max_epochs=1"), "has trained 1 epochs already: set trainer.max_epochs above 1"),
        ((*more, "optimizer=sgd"), "was trained with another optimizer: its dampening is None, here it is 0.0"),
        ((*more, "optimizer.lr=0.5"), "was trained with another optimizer: its lr is 0.001, here it is 0.5"),
        ((*more, "weight_decay_on=all"), "was trained with another weight_decay_on"),
    ):
        result = train(*arguments)
        assert result.status == 1
        assert words in result.sentence
    result = train("trainer.max_epochs=2", "weight_decay_on=weights", checkpoint.replace("last", "best"))
    assert "has the weights alone: use last.ckpt" in result.sentence
    assert train(*more).status == 0


def test_a_folder_takes_one_run(train, monkeypatch):
    first = train()
    monkeypatch.setattr("shutil.rmtree", lambda *args: None)
    again = train()
    assert again.status == 1
    assert "holds a run already" in again.sentence
    assert again.summary == first.summary


@pytest.mark.filterwarnings("ignore:.*noload.*")  # SQLAlchemy, of what MLflow does
def test_mlflow_on_a_local_store(train, tmp_path):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    result = train("logger=[csv,mlflow]", f"logger.mlflow.tracking_uri={store}")
    assert result.status == 0, result.err
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("optbench")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["optimizer"] == "adam"
    row = rows_of(result.folder)[0]
    assert run.data.metrics["val/accuracy"] == pytest.approx(float(row["val/accuracy"]), rel=1e-6)
    assert run.data.metrics["test/accuracy"] == pytest.approx(result.summary["test"]["test/accuracy"], rel=1e-6)
    assert run.info.status == "FINISHED"
    alone = train("logger=[mlflow]", f"logger.mlflow.tracking_uri={store}", name="alone")
    assert (alone.status, alone.summary["status"]) == (0, "completed"), alone.err
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard"])
def test_loggers_write_their_own_files_only(train, logger):
    result = train(f"logger={'none' if logger == 'none' else f'[{logger}]'}")
    assert result.status == 0, result.err
    assert (result.folder / "metrics.csv").exists() == (logger == "csv")
    assert bool(list(result.folder.glob("events*"))) == (logger == "tensorboard")
    assert result.summary["best"]["epoch"] == 1
