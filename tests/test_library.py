import csv
import inspect
import os
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import optbench
from conftest import PROJECT, trained
from optbench.comparison.analysis import Comparison
from optbench.data.shapes import make_shapes
from optbench.records.old_names import updated_configuration
from optbench.records.record import RunRecord
from sweeps import write_run, write_sweep

DOCUMENT = (PROJECT / "docs" / "python.md").read_text()


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return trained(folder, "trainer.max_epochs=3", "optimizer=sgd", "optimizer.lr=5")


@pytest.fixture
def run(trained_run, tmp_path):
    """A real run, whose best epoch by `monitor` is not the last."""
    loaded = optbench.load_run(shutil.copytree(trained_run, tmp_path / "run"))
    assert loaded.record.best["epoch"] < loaded.record.epochs
    return loaded


def test_the_public_surface():
    assert optbench.__all__ == ["Run", "compare", "load_run", "load_runs"]
    assert {*optbench.__all__} <= {*dir(optbench)}
    for name in optbench.__all__:
        assert inspect.getdoc(getattr(optbench, name)), name
    public = {name for name in dir(optbench.Run) if not name.startswith("_")}
    assert public == {"classes", "history", "net", "predict", "trust"}  # beside the fields
    parameters = {
        function.__name__: [
            name if p.default is p.empty else f"{name}={p.default}"
            for name, p in inspect.signature(function).parameters.items()
        ]
        for function in (
            optbench.Run,
            optbench.load_run,
            optbench.load_runs,
            optbench.compare,
            optbench.Run.net,
            optbench.Run.predict,
        )
    }
    assert parameters == {
        "Run": ["folder", "record", "trust=()"],
        "load_run": ["folder", "trust=()"],
        "load_runs": ["runs"],
        "compare": [
            "runs",
            "by=None",
            "baseline=None",
            "metric=test/accuracy",
            "pairs=None",
            "margin=None",
            "gap=None",
        ],
        "net": ["self", "weights=best"],
        "predict": ["self", "images", "weights=best"],
    }
    with pytest.raises(AttributeError, match="no attribute 'load_rnu'"):
        optbench.load_rnu  # noqa: B018


def test_tables_and_comparisons_need_no_torch_and_write_nothing(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5, "sgd": 0.6})
    before = sorted((path, path.stat().st_mtime_ns) for path in sweep.rglob("*"))
    code = (
        "import sys, optbench\n"
        "assert 'load_runs' in dir(optbench)\n"
        "assert not {'pandas', 'torch', 'hydra', 'scipy'} & set(sys.modules)\n"
        "runs = optbench.load_runs('sweep')\n"
        "assert 'scipy' not in sys.modules\n"
        "optbench.load_run(runs.folder[0]).history\n"
        "print(*optbench.compare('sweep', by='optimizer').words.answer)\n"
        "assert not {'torch', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    result = subprocess.run(  # a notebook may be anywhere
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("sgd is better in test/accuracy than adam")
    assert sorted((path, path.stat().st_mtime_ns) for path in sweep.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [sweep]


def test_a_real_run(run, tmp_path):
    assert run.record == RunRecord.read(run.folder)
    assert run.folder.is_absolute()
    assert run.classes == run.record.classes
    accuracy = run.record.test["test/accuracy"]
    assert repr(run) == f"<Run run: completed, 3 epochs, test/accuracy {100 * accuracy:.2f} %>"

    with (run.folder / "metrics.csv").open(newline="") as file:
        columns, *lines = csv.reader(file)
    history = run.history
    assert list(history) == columns
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history.dtypes.map(lambda dtype: dtype.kind).tolist() == ["i", "i", *("f" for _ in columns[2:])]
    written = np.array([[float(cell or "nan") for cell in line] for line in lines])
    assert np.array_equal(history.to_numpy(dtype=float), written, equal_nan=True)

    shapes = make_shapes(300, 60, 0)
    assert run.record.tested["checkpoint"] == "best"
    table = run.predict(shapes.test_images)
    assert list(table) == ["class", *run.classes]
    assert table.index.tolist() == list(range(60))
    true_class = [run.classes[k] for k in shapes.test_labels]
    assert (table["class"] == true_class).mean() == pytest.approx(accuracy, abs=1e-6)
    assert table[run.classes].sum(axis=1).to_numpy() == pytest.approx(np.ones(60))
    assert (table[run.classes].idxmax(axis=1) == table["class"]).all()
    probability = table[run.classes].to_numpy()[range(60), shapes.test_labels]
    assert -np.log(probability).mean() == pytest.approx(run.record.test["test/loss"], rel=1e-4)

    for weights in ("best", "last"):
        net = run.net(weights)
        assert not net.training
        content = torch.load(run.folder / "checkpoints" / f"{weights}.ckpt", weights_only=True)["state_dict"]
        for name, tensor in net.state_dict().items():
            assert tensor.device.type == "cpu"
            assert torch.equal(tensor, content[f"net.{name}"]), name
    last = run.predict(shapes.test_images.numpy()[::-1], weights="last")[::-1]
    assert not np.allclose(last[run.classes], table[run.classes])
    with torch.inference_mode():
        # multiplied as the run does: dividing moves the last bits, which this network makes 5e-5 of a probability
        logits = run.net("last")(shapes.test_images.float() * (1 / 127.5) - 1)
    assert last[run.classes].to_numpy() == pytest.approx(logits.softmax(1).numpy(), abs=1e-5)

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    first, second = pictures / "a.png", pictures / "b.png"
    for k, path in enumerate((first, second)):
        Image.fromarray(shapes.test_images[k].permute(1, 2, 0).numpy()).save(path)
    for images in (pictures, str(pictures), [first, str(second)]):
        table_of_files = run.predict(images)
        assert table_of_files.index.tolist() == [str(first), str(second)]
        assert np.allclose(table_of_files[run.classes], table[run.classes][:2], atol=1e-6)
    (pictures / "torn.png").write_bytes(first.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"Left out: .*torn\.png cannot be read"):
        assert len(run.predict(pictures)) == 2


def test_images_that_do_not_fit(run, tmp_path):
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert run.predict(pixels[:0]).empty
    run.record.classes[0] = "class"
    assert list(run.predict(pixels))[:2] == ["class", "class"]
    expected = r"Give uint8 pixels of shape \(N, 3, 32, 32\)"
    for images, message in (
        (pixels.float(), rf"images has float32 pixels\. {expected}, from 0 to 255: predict does the scaling\."),
        (pixels[0], rf"shape \(3, 32, 32\)\. {expected}\. Of a single image, give images\[None\]\."),
        (pixels.permute(0, 2, 3, 1), r"Put the channels first: images\.permute\(0, 3, 1, 2\)\."),
        (np.zeros((2, 32, 32, 3), np.uint8), r"Put the channels first: images\.transpose\(0, 3, 1, 2\)\."),
        (pixels[..., 1:], rf"shape \(2, 3, 32, 31\)\. {expected}\.$"),
        ([pixels[0], pixels[1]], rf"images is a list\. {expected} as a tensor or an array, a picture file"),
        (None, r"images is a NoneType\. Give"),
        ([], r"images is empty\. Give a picture"),
        ("nowhere.png", r"images=nowhere\.png does not exist\. Give a picture"),
        (tmp_path / "run" / "checkpoints", r"is a folder without pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            run.predict(images)


def test_weights_that_are_not_there(tmp_path):
    record = write_run(tmp_path / "run", status="failed")
    run = optbench.load_run(str(tmp_path / "run"))
    record.config = updated_configuration(record.config)
    assert run.record == record
    assert repr(run) == "<Run run: failed, 5 epochs>"
    with pytest.raises(ValueError, match=r"^weights=bets is not known: use best or last\.$"):
        run.net("bets")
    with pytest.raises(
        ValueError, match=r"^weights=best: .*run has no best\.ckpt \(its status is failed\); a run writes them"
    ):
        run.predict(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"has no best\.ckpt .*; use weights=last\.$"):
        run.net()
    with pytest.raises(ValueError, match=r"^weights=.*last\.ckpt cannot be read: it is truncated"):
        run.net("last")


def test_a_run_from_someone_else(run):
    run.record.config["model"]["_target_"] = "subprocess.run"
    with pytest.raises(
        ValueError, match=r"model\._target_ is subprocess\.run, which no file .* add trust=subprocess\.run"
    ):
        run.net()
    run.record.config["model"]["_target_"] = "conftest.toy_net"
    run.record.write(run.folder)
    with pytest.raises(ValueError, match=r"add trust=conftest\.toy_net"):
        optbench.load_run(run.folder).net()
    with pytest.raises(Exception, match=r"toy_net\(\) got an unexpected keyword argument"):  # it was called
        optbench.load_run(run.folder, trust="conftest.toy_net").net()


def test_folders_that_are_no_run(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5})
    with pytest.raises(
        ValueError, match=r"sweep is no run, but holds 3 runs\. load_runs reads all of them; load_run ta"
    ):
        optbench.load_run(sweep)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is no run: it has no summary\.json\. Give a run's folder"):
        optbench.load_run(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"nowhere is no folder\. Give a run's folder"):
        optbench.load_run(tmp_path / "nowhere")
    (tmp_path / "begun" / ".hydra").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"begun began as a run and has no summary\.json\.$"):
        optbench.load_run(tmp_path / "begun")
    for content, message in (
        ("{", r"summary\.json is not a run's record"),
        ('{"schema_version": 1, "classes": 3}', r"summary\.json is not a run's record: classes cannot be 3\."),
        ('{"schema_version": 1, "status": "done"}', r"summary\.json has the unknown status 'done'\."),
    ):
        (tmp_path / "begun" / "summary.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            optbench.load_run(tmp_path / "begun")
    for function in (optbench.load_runs, optbench.compare):
        with pytest.raises(
            ValueError, match=r"runs=.*nowhere does not exist\. Give a run's folder, a sweep's, a table"
        ):
            function(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"runs=.*empty holds no run: there is no summary\.json in it or below"):
            function(tmp_path / "empty")
        with pytest.raises(ValueError, match=r"^runs is empty\. Give a run's folder"):
            function([])
        with pytest.raises(ValueError, match=r"^runs is a table without a column folder\. Give rows of the table"):
            function(pd.DataFrame({"seed": [0]}))


def test_torn_and_missing_histories(tmp_path):
    write_run(tmp_path, epochs=3)
    path = tmp_path / "metrics.csv"
    whole = optbench.load_run(tmp_path).history
    text = path.read_text()
    path.write_text(text.rstrip()[:-30])
    with pytest.warns(UserWarning, match=r"metrics\.csv is torn after 2 epochs\.$") as caught:
        pd.testing.assert_frame_equal(optbench.load_run(tmp_path).history, whole[:2])
    assert caught[0].filename == __file__
    for torn in (None, "", text.partition("\n")[0], "no table"):
        path.unlink(missing_ok=True) if torn is None else path.write_text(torn)
        with pytest.raises(
            ValueError, match=r"has no complete row in metrics\.csv \(its status is completed\)\. A run w"
        ):
            optbench.load_run(tmp_path).history  # noqa: B018


def test_the_table_of_runs_is_what_the_records_say(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5, "sgd": 0.6}, seeds=(0, 1))
    write_run(sweep / "4_failed", "sgd", 7, status="failed", epochs=0, overrides=["+status=mine"], config={"status": 1})
    (sweep / "5_torn").mkdir()
    (sweep / "5_torn" / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match=r"Left out: .*5_torn/summary\.json is not a run's record") as caught:
        table = optbench.load_runs(sweep)
    assert caught[0].filename == __file__
    assert list(table) == [
        *("folder", "status", "seed", "data", "model", "optimizer", "scheduler", "experiment"),
        *("status=", "optimizer.lr", "trainer.max_epochs"),
        *("test/accuracy", "test/loss", "val/accuracy", "val/loss"),
        *("epochs", "steps", "best_epoch", "seconds", "total_seconds"),
    ]
    assert len(table) == 5
    for row in table.to_dict("records"):
        run = optbench.load_run(row["folder"])
        record = run.record
        assert str(run.folder) == row["folder"]
        assert (row["status"], row["seed"], row["epochs"], row["steps"]) == (
            record.status,
            record.seed,
            record.epochs,
            record.steps,
        )
        assert {group: row[group] for group in record.choices} == record.choices
        assert row["optimizer.lr"] == record.config["optimizer"]["lr"]
        for key in ("test/accuracy", "test/loss"):
            assert row[key] == pytest.approx(record.test.get(key, np.nan), nan_ok=True)
        for key in ("val/accuracy", "val/loss"):
            assert row[key] == pytest.approx(record.best.get(key, np.nan), nan_ok=True)
        assert row["best_epoch"] == pytest.approx(record.best.get("epoch", np.nan), nan_ok=True)
        assert (row["seconds"], row["total_seconds"]) == (record.seconds["training"], record.seconds["total"])
    assert table.dtypes[["seed", "optimizer.lr", "test/accuracy", "epochs"]].map(lambda d: d.kind).tolist() == [*"iffi"]

    folders = sorted(path.parent for path in sweep.glob("*=*/summary.json"))
    for runs in (folders, list(map(str, folders)), f"{sweep}/*=*", table[table.status == "completed"]):
        assert optbench.load_runs(runs)["folder"].tolist() == list(map(str, folders))


def test_runs_without_test_accuracy_are_a_table_too(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("optimizer,seed,test_loss\nadam,0,0.5\nsgd,0,0.6\n")
    table = optbench.load_runs(path)
    assert table["test/loss"].tolist() == [0.5, 0.6] and "test/accuracy" not in table
    with pytest.raises(ValueError, match=r"metric=test/accuracy was logged by no run. There are: test/loss\."):
        optbench.compare(path)


def test_a_comparison(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"adam": 0.5, "sgd": 0.6, "rmsprop": 0.3})
    comparison = optbench.compare(sweep, by="optimizer", baseline="adam", metric="test/loss")
    assert isinstance(comparison, Comparison)
    assert (comparison.facts.by, comparison.facts.baseline, comparison.facts.metric) == (
        ["optimizer"],
        "adam",
        "test/loss",
    )
    assert comparison.judgement.ranking.configuration.tolist() == ["sgd", "adam", "rmsprop"]
    runs = optbench.load_runs(sweep)
    some = optbench.compare(runs[runs.optimizer != "rmsprop"], by=["optimizer"])
    assert some.judgement.ranking.configuration.tolist() == ["sgd", "adam"]
    means = runs.groupby("optimizer")["test/accuracy"].mean()
    assert some.judgement.ranking["mean"].tolist() == pytest.approx([means["sgd"], means["adam"]])
    with pytest.raises(ValueError, match=r"baseline=admw is no configuration here"):
        optbench.compare(sweep, by="optimizer", baseline="admw")
    with pytest.raises(ValueError, match=r"by=optimzer is no key of these runs; did you mean optimizer\?"):
        optbench.compare(sweep, by="optimzer")


def test_the_python_of_the_documentation(train, tmp_path, monkeypatch):
    result = train("-m", "optimizer=adam,sgd", "seed=0,1", "trainer.max_epochs=2", name="sweep")
    assert result.status == 0, result.err
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (40, 30), "red").save(pictures / "red.jpg")
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.M | re.S)
    assert len(blocks) >= 10
    code = "\n".join(blocks)
    for placeholder, real in {
        "logs/train/runs/<run>": next(result.folder.glob("0_*")),
        "logs/train/multiruns/<sweep>": result.folder,
        "<folder of pictures>": pictures,
    }.items():
        assert code.count(placeholder) == 1
        code = code.replace(placeholder, str(real))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {}
    exec(code, names)  # the page promises to work as written
    plt.close("all")
    assert len(names["comparison"].judgement.ranking) == 2
    assert len(names["epochs"]) == 8
    assert len(names["table"]) == 200


def test_the_documentation_names_the_whole_surface():
    for name in {*optbench.__all__} - {"Run"}:
        assert f"optbench.{name}(" in DOCUMENT
    for name in ("folder", "record", "classes", "history", "net(", "predict("):
        assert f"run.{name}" in DOCUMENT
