import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import trained
from optbench.data.shapes import make_shapes


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained") / "run", "trainer.max_epochs=2", "test_flips=true")


@pytest.fixture
def run_folder(trained_run, tmp_path):
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_folder_is_enough(command, run_folder):
    summary = json.loads((run_folder / "summary.json").read_text())
    assert "test/flip_accuracy" in summary["test"]
    result = command("evaluate", f"run={run_folder}")
    assert result.status == 0, result.err
    metrics = json.loads((run_folder / "evaluation" / "best" / "metrics.json").read_text())
    assert metrics["epoch"] == summary["tested"]["epoch"]
    for name, value in summary["test"].items():
        assert metrics[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert f"{summary['test']['test/accuracy']:.4f}" in result.out
    command("evaluate", f"run={run_folder}", "checkpoint=last")
    assert [row["checkpoint"] for row in rows_of(run_folder / "evaluation" / "reads.csv")] == ["best", "last"]


def test_tables_agree_with_each_other(command, run_folder):
    command("evaluate", f"run={run_folder}", "checkpoint=last")
    folder = run_folder / "evaluation" / "last"
    matrix = rows_of(folder / "confusion_matrix.csv")
    counts = np.array([[int(row[name]) for name in list(row)[1:]] for row in matrix])
    assert counts.sum() == 60
    per_class = rows_of(folder / "per_class.csv")
    assert [row["class"] for row in per_class] == [row["true class"] for row in matrix]
    assert [int(row["images"]) for row in per_class] == counts.sum(1).tolist()
    assert [float(row["accuracy"]) for row in per_class] == pytest.approx((counts.diagonal() / counts.sum(1)).tolist())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/accuracy"] == pytest.approx(counts.trace() / 60)
    with Image.open(folder / "confusion_matrix.png") as picture:
        assert picture.width > 500


def test_ones_own_pictures(command, run_folder, tmp_path):
    images = make_shapes(20, 5, 0)
    pictures = tmp_path / "pictures"
    (pictures / "deeper").mkdir(parents=True)
    array = images.test_images[0].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(pictures / "as_tested.png")
    Image.fromarray(array).resize((100, 60)).convert("L").save(pictures / "deeper" / 'grey, "large".JPG')
    (pictures / "notes.txt").write_text("no picture")
    result = command("evaluate", f"run={run_folder}", f"images={pictures}")
    assert result.status == 0, result.err
    rows = rows_of(run_folder / "evaluation" / "best" / "predictions.csv")
    assert [row["image"] for row in rows] == [
        str(pictures / "as_tested.png"),
        str(pictures / 'deeper/grey, "large".JPG'),
    ]
    for row in rows:
        shares = {name: float(row[name]) for name in images.classes}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert row["class"] == max(shares, key=shares.__getitem__)
    assert rows[0]["class"] in result.out
    # the same picture through the network by hand
    weights = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    x = images.test_images[:1].float().flatten(1) / 127.5 - 1
    x = torch.relu(x @ weights["net.layers.0.weight"].T + weights["net.layers.0.bias"])
    x = (x - weights["net.layers.2.running_mean"]) / (weights["net.layers.2.running_var"] + 1e-3).sqrt()
    x = x * weights["net.layers.2.weight"] + weights["net.layers.2.bias"]
    x = torch.tanh(x @ weights["net.layers.3.weight"].T + weights["net.layers.3.bias"])
    shares = (x @ weights["net.head.weight"].T + weights["net.head.bias"]).softmax(1)[0]
    assert [float(rows[0][name]) for name in images.classes] == pytest.approx(shares.tolist(), abs=1e-5)


def test_a_class_may_be_called_class(command, run_folder, tmp_path):
    """Its probability has a column beside that of the predicted class."""
    record = json.loads((run_folder / "summary.json").read_text())
    record["classes"][:2] = ["class", "image"]
    (run_folder / "summary.json").write_text(json.dumps(record))
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    result = command("evaluate", f"run={run_folder}", f"images={tmp_path / 'black.png'}")
    assert result.status == 0, result.err
    (row,) = rows_of(run_folder / "evaluation" / "best" / "predictions.csv")
    assert list(row) == ["image", "class", "class (class)", "image (class)", *record["classes"][2:]]
    assert row["image"] == str(tmp_path / "black.png") and row["class"] in record["classes"]
    assert sum(float(share) for share in list(row.values())[2:]) == pytest.approx(1, abs=1e-4)


def test_data_that_moved(command, run_folder):
    result = command("evaluate", f"run={run_folder}", 'overrides=["data.test_size=30"]')
    assert result.status == 0, result.err
    assert "30 images" in result.out


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("images=5", "images=5 does not exist. Give a picture, a folder of pictures, or a [list] of them."),
        ("images=[1,null]", "images=1 does not exist. Give a picture"),
        ("overrides=5", "overrides=5 must be key=value or a [list] of them"),
        ("overrides=[data.root]", "overrides=data.root must be key=value or a [list] of them"),
        ("overrides=['data.root=[1']", "overrides=data.root=[1 cannot be read as key=value"),
        ("overrides=['data.rot=1']", "data.rot is not a key of the configuration"),
    ],
)
def test_mistakes_end_with_a_sentence(command, run_folder, argument, words):
    refused = command("evaluate", f"run={run_folder}", argument)
    assert refused.status == 1 and words in refused.sentence
    assert "Unexpected" not in refused.sentence
