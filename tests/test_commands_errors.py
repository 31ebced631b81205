"""Mistakes that a person makes at the command: one paragraph that says what to do, exit status 1, no debris."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_utilities.core.imports import RequirementCache
from omegaconf import OmegaConf
from PIL import Image

import typed
from conftest import OPTIMIZERS, Result
from optbench.commands.errors import explain
from optbench.training.checks import check_trainer

Command = Callable[..., Result]


def refused(result: Result, *words: str) -> None:
    """One paragraph with these words on stderr; in the folder at most what says that, and why, the run failed."""
    assert result.status == 1
    assert "Traceback" not in result.err and "\n\n" not in result.err.strip()
    for word in words:
        assert word in result.sentence
    files = [path for path in result.folder.rglob("*") if path.is_file() and path.parent.name != ".hydra"]
    assert {path.name for path in files} <= {"summary.json", "train.log", "multirun.yaml", ".lock"}
    if (result.folder / "summary.json").is_file():
        assert result.summary["status"] == "failed" and result.summary["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        # a name that does not exist
        ("compare=maybe", "compare=maybe must be true or false."),
        ("optimizer=adamm", "optimizer=adamm is not known; did you mean adam? | are: adadelta, adafactor,"),
        ("optimizer=Adam", "optimizer=Adam is not known; did you mean adam?"),
        ("model=cnn", "model=cnn is not known. The choices of model are: | linear, mlp"),
        ("data=mnist", "data=mnist is not known. The choices of data are: cifar10,"),
        ("logger=[csv,foo]", "logger=foo is not known. The choices of logger are: csv, mlflow, none, tensorboard"),
        ("experiment=excercise", "experiment=excercise is not known; did you mean exercise?"),
        ("scheduler=null", "A group takes one of its choices, such as scheduler=constant | scheduler=null"),
        ("augmentation=[crop_flip,null]", "not null or a number. Check | augmentation=[crop_flip,null]"),
        # a key that does not exist
        ("model.drpout=0.3", "model.drpout is not a key of the configuration; did you mean model.dropout?"),
        ("optimzer=adam", "optimzer is not a key of the configuration; did you mean optimizer?"),
        ("epochs=3", "did you mean trainer.max_epochs? The keys of the configuration are: task, seed,"),
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("optimizer.batch_size=8", "did you mean data.batch_size? The keys of optimizer are: lr, betas,"),
        ("optimizer.foo=1", "optimizer.foo is not a key of the configuration. The keys of optimizer are: lr,"),
        ("optimizer.lr.foo=1", "optimizer.lr.foo is not a key of the configuration. The keys of optimizer.lr are: n"),
        ("callbacks.chekpoint=null", "did you mean callbacks.last_checkpoint?"),
        ("data.root=/tmp", "data.root is not a key of the configuration. The keys of data are: batch_size,"),
        ("hydra.foo=1", "hydra.foo: Key 'foo' not in 'HydraConf'."),
        ("model.dropout=${foo}", "Interpolation key 'foo' not found. Check | model.dropout=${foo}"),
        # what is no argument
        ("stray", "stray cannot be read. An argument is key=value without spaces around =;"),
        ("optimizer.lr:0.1", "optimizer.lr:0.1 cannot be read."),
        ("model.layers=[16", "model.layers=[16 cannot be read. | for example 'model.layers=[512 relu"),
        ("ckpt_path=~/last.ckpt", "with ~ needs quotes of its own, | of the shell: \"ckpt_path='~/last.ckpt'\"."),
        ("optimizer=adam,sgd", "optimizer=adam,sgd names several values. Add -m to run each of them"),
        # model
        ("model.dropout=1", "model.dropout=1 must be in [0, 1)"),
        ("model.dropout=-0.1", "model.dropout=-0.1 must be in [0, 1)"),
        ("model.dropout=abc", "model.dropout=abc must be in [0, 1)"),
        ("model.layers=[16 swish]", "model.layers: 'swish' in '16 swish' is not known. | relu, gelu, tanh, sigmoid"),
        ("model.layers=[]", "model.layers=[] must be a list of at least one hidden layer | model=linear has none."),
        ("model.layers=512", "model.layers=512 must be a list of at least one hidden layer, for example"),
        ("model.layers=[abc]", "model.layers: 'abc' must begin with its width, a whole number of at least 1."),
        ("~model.dropout", "model: | missing 1 required positional argument: 'dropout'. Check | ~model.dropout."),
        # optimizer and scheduler
        ("optimizer.lr=0", "optimizer.lr=0 is no learning rate: it must be a number above 0, for example 0.001."),
        ("optimizer.lr=1e-3x", "optimizer.lr=1e-3x is no learning rate"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1 must be a number of at least 0."),
        ("optimizer.betas=[0.9]", "optimizer: Adam refuses its arguments: | Check optimizer.betas=[0.9]."),
        ("optimizer.betas=0.9", "optimizer: Adam refuses its arguments: | Check optimizer.betas=0.9."),
        ("optimizer.amsgrad=maybe", "optimizer.amsgrad=maybe must be true or false."),
        ("+optimizer.foo=1", "optimizer.foo=1 is no hyperparameter of Adam. It has: lr, betas,"),
        ("optimizer=sgd optimizer.nesterov=true", "SGD | Nesterov momentum requires | Check optimizer.nesterov=true."),
        ("weight_decay_on=biases", "weight_decay_on=biases is not known: use all or weights."),
        ("scheduler.patience=-1", "scheduler.patience=-1 must be a whole number of at least 0."),
        ("scheduler.factor=2", "ReduceLROnPlateau refuses its arguments: Factor | Check scheduler.factor=2."),
        ("scheduler=cosine scheduler.warmup=2", "scheduler.warmup=2 must be in [0, 1)"),
        ("scheduler=onecycle scheduler.pct_start=3", "OneCycleLR refuses its arguments: | scheduler.pct_start=3."),
        # data and augmentation
        ("data.batch_size=0", "data.batch_size=0 must be a whole number of at least 1."),
        ("data.batch_size=abc", "data.batch_size=abc must be a whole number of at least 1."),
        ("data.batch_size=271", "data.batch_size=271 is larger than the training set, which has 270 images"),
        ("data.val_size=2", "data.val_size=2 must be between 0 and 1"),
        ("data.normalization=foo", "data.normalization=foo is not known: use symmetric or standard."),
        ("data.train_size=0", "data.train_size=0 cannot be drawn: data=shapes has 1 to 50000."),
        ("data.test_size=abc", "data.test_size=abc must be a whole number of images."),
        ("data.shapes_seed=abc", "data.shapes_seed=abc must be a whole number of at least 0."),
        ("augmentation=crop_flip augmentation.crop_flip.padding=-1", "crop_flip.padding=-1 must be a whole number"),
        (
            "augmentation=crop_flip augmentation.crop_flip.borders=mirrored augmentation.crop_flip.padding=32",
            "padding=32: mirrored borders must be narrower than the images | at most",
        ),
        ("augmentation=crop_flip augmentation.padding=2", "did you mean augmentation.crop_flip.padding?"),
        ("augmentation.padding=2", "augmentation=none has none. Choose one, as in augmentation=color_jitter"),
        ("augmentation=crop_flip,mixup", "names several values. Add -m | a list is written [a,b]."),
        ("augmentation=[crop_flip,foo]", "augmentation=foo is not known. The choices of augmentation are: color"),
        ("augmentation=[crop_flip,none]", "none]: none stands alone. | or augmentation=[crop_flip] without none"),
        ("augmentation=[none,crop_flip]", "none stands alone. Use augmentation=none for nothing, or"),
        ("augmentation=[mixup,mixup]", "augmentation=[mixup,mixup] names mixup twice, and it would act once."),
        ("augmentation=[]", "augmentation=[] leaves augmentation without a choice. | are: color_jitter, crop_flip,"),
        ("logger=[csv,none]", "logger=[csv,none]: none stands alone. Use logger=none for nothing, or logger=[csv]"),
        ("scheduler=[wsd,linear]", "is a list, and scheduler takes one choice. | or -m scheduler=wsd,linear"),
        ("+augmentation.mine=2", "augmentation.mine=2 is no subclass of optbench.data.augmentation.Augmentation"),
        ("augmentation=mixup augmentation.mixup.alpha=0", "augmentation.mixup.alpha=0 must be a number above 0"),
        (
            "experiment=exercise_plus augmentation=none",
            "augmentation.crop_flip has padding, but augmentation= does not choose crop_flip. | crop_flip=null",
        ),
        ("augmentation=cutout augmentation.cutout.size=33", "augmentation.cutout.size=33 is larger than the images"),
        ("augmentation=[crop_flip,mixup] data.batch_size=1", "data.batch_size=1 has no two images that | leave out m"),
        # trainer
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1 must be a whole number of at least 1."),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc must be a whole number of at least 1."),
        ("trainer.max_epochs=true", "trainer.max_epochs=true must be a whole number of at least 1."),
        ("trainer.precision=12", "trainer: Precision 12 is invalid. Allowed | '32-true' | trainer.precision=12."),
        ("trainer.devices=0", "trainer: `Trainer(devices=0)` | trainer.devices=0."),
        ("trainer.devices=9999", "trainer.devices=9999 on the CPU would start as many processes"),
        ("trainer.accelerator=foo", "trainer: You selected an invalid accelerator name: | Available names are:"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0 must be a number of batches, at least 1"),
        ("trainer.limit_val_batches=abc", "trainer.limit_val_batches=abc must be a number of batches, at least 1"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0 must be a whole number"),
        ("trainer.gradient_clip_val=abc", "trainer: `gradient_clip_val` should be | trainer.gradient_clip_val=abc."),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1 is no limit of a gradient's norm. It must be"),
        ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val=nan is no limit of a gradient's norm."),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true needs images of another | 32-true, or bf16-mixed"),
        ("+trainer.foo=1", "trainer: | unexpected keyword argument 'foo'. | +trainer.foo=1."),
        # callbacks, metrics, seeds
        ("callbacks.early_stopping.patience=-1", "callbacks.early_stopping.patience=-1 must be a whole number"),
        ("callbacks.early_stopping.patience=abc", "callbacks.early_stopping.patience=abc must be a whole number"),
        ("callbacks.early_stopping.mode=up", "callbacks.early_stopping: | Check callbacks.early_stopping.mode=up."),
        ("callbacks.best_checkpoint.monitor=val/acc", "callbacks.best_checkpoint.monitor=val/acc is not measured; did"),
        ("monitor=val/acc", "monitor=val/acc is not measured; did you mean val/accuracy? | loss, accuracy, top3"),
        ("monitor=null", "monitor=null is not measured. There are, with val/ or train/ before them: loss,"),
        ("seed=-1", "seed=-1 must be a whole number of at least 0."),
        ("seed=abc", "seed=abc must be a whole number of at least 0."),
        ("seed=4294967296", "seed=4294967296 must be a whole number from 0 to 4294967295."),
        ("test_weights=worst", "test_weights=worst is not known: use best, last or none."),
        ("matmul_precision=low", "matmul_precision=low is not known: use highest, high or medium."),
        ("compile=maybe", "compile=maybe must be true or false."),
        ("ckpt_path='~nobody9/a'", "A path that begins with ~ names no user of | Check ckpt_path='~nobody9/a'."),
        ("ckpt_path=/none.ckpt", "ckpt_path=/none.ckpt is no file. Give a checkpoint, for example"),
    ],
)  # fmt: skip
def test_one_mistake(train: Command, arguments: str, words: str) -> None:
    given = [arguments] if arguments.startswith("model.layers") else arguments.split()
    refused(train(*given), *words.split(" | "))


def test_a_device_with_one_image_has_nothing_to_mix() -> None:
    cfg = OmegaConf.create({"data": {"batch_size": 2}, "trainer": {"devices": 2}})
    trainer: Any = SimpleNamespace(world_size=2)
    check_trainer(trainer, cfg, torch.nn.Linear(1, 1), mixes=False)
    with pytest.raises(
        ValueError, match=r"data\.batch_size=2 leaves each of 2 devices one image.*data\.batch_size=4\.$"
    ):
        check_trainer(trainer, cfg, torch.nn.Linear(1, 1), mixes=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(train: Command) -> None:
    refused(train("trainer=gpu"), "trainer.accelerator=gpu: PyTorch finds no GPU on this machine. Use trainer=cpu")


def test_an_operation_that_is_not_deterministic() -> None:
    error = RuntimeError(
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, or …"
    )
    assert explain(error) == (
        "trainer.deterministic=true: adaptive_avg_pool2d_backward_cuda gives other last bits each time. Use another "
        "model.*, or trainer.deterministic=warn, with which the run cannot be repeated bit for bit."
    )


def test_an_error_from_nowhere() -> None:
    assert explain(KeyError("a")) == "Unexpected KeyError: 'a' (HYDRA_FULL_ERROR=1 shows the whole traceback.)"


def test_the_advice_after_a_full_disk_quotes_a_folder_with_a_space(tmp_path: Path) -> None:
    (tmp_path / "my run" / ".hydra").mkdir(parents=True)
    file = tmp_path / "my run" / "checkpoints" / "last.ckpt"
    assert explain(OSError(28, "No space left on device", str(file))) == (
        f"{file} cannot be written: No space left on device. Make room, or bring the disk back. "
        f"Then python src/train.py resume='{tmp_path}/my run' resumes from the last good checkpoint."
    )


def test_a_library_that_is_not_installed(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", RequirementCache("wandb>=9999"))
    refused(train("logger=wandb"), "logger.wandb: ", "pip install", "wandb", "Check logger=wandb.")


@pytest.mark.parametrize(("choice", "plugin"), [("ray", "hydra-ray-launcher"), ("slurm", "hydra-submitit-launcher")])
@pytest.mark.filterwarnings("ignore:\\s*'hydra/launcher/ray' is validated")
def test_a_launcher_that_is_not_installed(train: Command, choice: str, plugin: str) -> None:
    target = f"hydra_plugins.{plugin.replace('-', '_')}.missing.Launcher"
    result = train("-m", f"hydra/launcher={choice}", f"hydra.launcher._target_={target}")
    refused(result, f"hydra/launcher={choice} needs the extra: pip install '{plugin}>=")


def test_slurm_where_there_is_none(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    refused(train("-m", "hydra/launcher=slurm"), "hydra/launcher=slurm finds no SLURM on this machine:")


@pytest.mark.parametrize(
    ("arguments", "unknown"),
    [(["--lr", "0.1"], "--lr"), (["seed=0", "-m", "optimizer=adam,sgd"], "optimizer=adam,sgd")],
)
def test_flags(command: Command, arguments: list[str], unknown: str) -> None:
    result = command("train", *arguments)
    assert result.status == 1 and "Traceback" not in result.err
    assert f"unrecognized arguments: {unknown}" in result.err
    assert "Settings are key=value without dashes, after flags such as -m:" in result.sentence


def test_the_traceback_on_demand(tmp_path: Path) -> None:
    arguments = ("train", "data=shapes", "optimizer=adamm")
    plain = typed.script(*arguments, folder=tmp_path).result()
    assert plain.returncode == 1 and plain.stdout == ""
    assert (
        plain.stderr.split()
        == (
            f"optimizer=adamm is not known; did you mean adam? The choices of optimizer are: {', '.join(OPTIMIZERS)}."
        ).split()
    )
    full = typed.script(*arguments, folder=tmp_path, env={**os.environ, "HYDRA_FULL_ERROR": "1"}).result()
    assert full.returncode == 1
    assert "Traceback (most recent call last)" in full.stderr and "MissingConfigException" in full.stderr


# A sweep


def test_a_failing_run_does_not_stop_the_others(train: Command) -> None:
    result = train("-m", "optimizer.lr=0.01,0,0.02")
    assert result.status == 1 and "Traceback" not in result.err
    assert result.sentence == "optimizer.lr=0 is no learning rate: it must be a number above 0, for example 0.001."
    assert "[1] failed: optimizer.lr=0 is no learning rate" in result.out
    states = [json.loads(path.read_text())["status"] for path in sorted(result.folder.glob("*/summary.json"))]
    assert states == ["completed", "failed", "completed"]


def test_a_sweep_over_several_devices(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    refused(train("-m", "trainer=ddp", "seed=0,1"), "trainer.devices=2 with -m:", "Use hydra/launcher=pool")
    refused(train("-m", "optimizer=adam,adamm"), "optimizer=adamm is not known; did you mean adam?")


def test_a_batch_that_cannot_be_shared_out(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    sentence = "data.batch_size=49 cannot be divided evenly among 2 devices: use a multiple of 2."
    refused(train("trainer=ddp", "data.batch_size=49"), sentence)


# Folders


@pytest.mark.parametrize("name", ["file/run", "/proc/optbench"])
def test_a_folder_that_cannot_be_written(train: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    result = train(name=name)
    refused(result, f"{result.folder} cannot be used:", "hydra.run.dir=<folder>")
    assert (tmp_path / "file").read_text() == "mine"


# Somebody's pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data set of two classes: `<root>/{train,test}/{cat,dog}/<i>.png`."""
    root = tmp_path / "pictures"
    for folder, count in {"train/cat": 10, "train/dog": 10, "test/cat": 2, "test/dog": 2}.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i * 20, 0, 200)).save(root / folder / f"{i}.png")
    return root


@pytest.fixture
def train_on(command: Command, tmp_path: Path) -> Command:
    def call(root: Path | str, *arguments: str, name: str = "run") -> Result:
        small = (
            f"data=image_folder data.root={root} data.image_size=8 data.batch_size=4 data.cache_dir={tmp_path}/cache"
        )
        return command(
            "train", *small.split(), "trainer=cpu", "trainer.max_epochs=1", "model=linear", *arguments, name=name
        )

    return call


def test_a_folder_of_pictures_that_is_none(train_on: Command, command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    refused(command("train", "data=image_folder"), "data.root must be given: add data.root=<value> to the command.")
    refused(train_on(tmp_path / "none"), f"data.root={tmp_path}/none does not exist. The layout is", "/train/<class>/")
    refused(train_on(tmp_path / "empty"), f"data.root={tmp_path}/empty holds no folder train")
    refused(train_on(tmp_path / "file"), f"data.root={tmp_path}/file is a file, not a folder.")
    refused(train_on("null"), "data.root is empty: it must name a folder of pictures")


def test_a_folder_of_pictures_that_cannot_be_read(
    train_on: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(path: str) -> Iterator[os.DirEntry]:  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("optbench.data.image_folder.os.scandir", locked)
    refused(train_on(pictures), f"data.root={pictures}: {pictures} cannot be read (Permission denied).")


def test_pictures_that_cannot_be_read(train_on: Command, pictures: Path) -> None:
    (pictures / "train/dog/3.png").write_bytes(b"no picture")
    refused(
        train_on(pictures),
        f"data.root={pictures}: train/dog/3.png is corrupt: ",
        "Repair or remove it",
        "data.on_corrupt=skip",
    )
    result = train_on(pictures, "data.on_corrupt=skip", name="skipping")
    assert result.status == 0 and "1 of 24 pictures" in result.out
    assert result.summary["skipped_images"] == ["train/dog/3.png"]
    refused(train_on(pictures, "data.on_corrupt=ignore"), "data.on_corrupt=ignore is not allowed: it must be raise")
    for file in (pictures / "train/dog").iterdir():
        file.write_bytes(b"no picture")
    refused(
        train_on(pictures, "data.on_corrupt=skip"),
        "no picture in train/dog can be decoded. Put readable pictures there",
    )
    for file in (pictures / "train/dog").iterdir():
        file.unlink()
    refused(train_on(pictures), f"data.root={pictures}: train/dog holds no picture.")


def test_classes_that_differ(train_on: Command, pictures: Path) -> None:
    (pictures / "test/dog").rename(pictures / "test/dogs")
    refused(
        train_on(pictures), "the class folders of train and test must be the same, but dog is only in train and dogs"
    )


# CIFAR-10, of which tests/test_data_cifar10.py knows every case


class HalfAnArchive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4" if "wrong" in self.path else "8")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfAnArchive) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_that_fails(command: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for url, reason in {
            f"{closed}/cifar.tar.gz": "Connection refused",
            f"{server}/cifar.tar.gz": "it was cut off after 4 of 8 bytes",
            f"{server}/wrong.tar.gz": "the official archive's is",
        }.items():
            result = command("train", "trainer=cpu", f"data.root={tmp_path}/data", f"data.url={url}")
            refused(result, f"the download from {url} to data.root={tmp_path}/data failed:", reason)
            assert all(way in result.sentence for way in ("Use data=shapes", "data.root=<folder", "data.url=<mirror"))
            assert [path.name for path in (tmp_path / "data").iterdir()] == [".cifar-10.lock"]


# What an earlier run left


@pytest.fixture
def finished(train: Command) -> Path:
    result = train(name="finished")
    assert result.status == 0
    return result.folder


def test_weights_to_start_from(train: Command, finished: Path, tmp_path: Path) -> None:
    last, torn, other = finished / "checkpoints/last.ckpt", tmp_path / "torn.ckpt", tmp_path / "other.ckpt"
    torn.write_bytes(last.read_bytes()[:1000])
    torch.save({"weights": 1}, other)
    refused(train(f"ckpt_path={torn}"), f"ckpt_path={torn} cannot be read: it is truncated, or no checkpoint")
    refused(train(f"ckpt_path={other}"), f"ckpt_path={other} is no checkpoint of a run: it has no state_dict.")
    refused(train(f"ckpt_path={last}", "model.layers=[8]"), "is of another network:", "Use the model.* values it was")


def test_evaluating_what_is_not_there(command: Command, finished: Path, tmp_path: Path) -> None:
    evaluate = partial(command, "evaluate")
    refused(evaluate(), "run must be given: add run=<value> to the command.")
    refused(
        evaluate(f"run={tmp_path}/none"), f"run={tmp_path}/none:", "Give a run's folder, for example logs/train/runs/"
    )
    refused(evaluate(f"run={tmp_path}"), f"{tmp_path} is no run: it has no summary.json.")
    run = f"run={finished}"
    before = sorted(finished.rglob("*"))
    refused(evaluate(run, "checkpoint=first"), "checkpoint=first is not known: use best or last.")
    refused(
        evaluate(run, f"images={tmp_path}/no.png"), f"images={tmp_path}/no.png does not exist. Give a picture, a folder"
    )
    refused(evaluate(run, f"images={finished}/.hydra"), f"images={finished}/.hydra is a folder without pictures.")
    refused(
        evaluate(run, f"images={finished}/summary.json"), f"none of 1 files is a picture, beginning with: {finished}/"
    )
    refused(evaluate(run, "imges=x"), "imges is not a key of the configuration; did you mean images?")
    refused(evaluate(run, 'overrides=["data.val_size=2"]'), "data.val_size=2 must be between 0 and 1")
    refused(evaluate(run, 'overrides=["data.rot=2"]'), "data.rot is not a key of the configuration")
    (finished / "checkpoints/best.ckpt").unlink()
    refused(evaluate(run), "checkpoint=best:", "has no best.ckpt (its status is completed); use checkpoint=last.")
    shutil.rmtree(finished / "checkpoints")
    refused(
        evaluate(run), "has no best.ckpt (its status is completed); a run writes them as epochs end, unless callbacks."
    )
    assert set(finished.rglob("*")) <= set(before)
    (finished / "summary.json").write_text("{")
    refused(evaluate(run), f"{finished}/summary.json is not a run's record")


def test_a_dropout_that_no_layer_has_is_refused(train):
    layers = "model.layers=[16 relu]"
    refused(
        train(layers, "model.dropout=0.5"),
        "model.dropout=0.5 has no effect: no layer of model.layers says dropout. Leave it out, or name the layers",
    )
    assert train(layers).status == 0  # the default is no mistake
    assert train("model.dropout=0.5").status == 0


def test_a_folder_whose_run_failed_before_its_first_step_takes_another(train, monkeypatch):
    failed = train("optimizer.lr=0")
    assert failed.status == 1 and failed.summary["status"] == "failed" and failed.summary["steps"] == 0
    monkeypatch.setattr("shutil.rmtree", lambda *_: None)  # the fixture would empty the folder
    (failed.folder / "mine").touch()
    again = train()
    assert again.status == 0 and again.summary["status"] == "completed", again.err
    assert (again.folder / "mine").exists()
    third = train()
    assert third.status == 1 and "holds a run already" in third.sentence


def test_a_schedule_that_can_never_act_is_a_sentence_in_the_log(train):
    sentence = "The schedule can never change the learning rate: scheduler.min_lr=0.01 is not below optimizer.lr=0.001."
    short = "trainer.max_epochs=5", "trainer.limit_train_batches=1"
    assert sentence in " ".join(train("scheduler.min_lr=0.01", *short).out.split())
    assert "can never change" not in train(*short).out
