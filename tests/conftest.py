"""Small generated data, and the commands as a user types them."""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf, grammar_parser
from tensorboard.summary.writer import event_file_writer
from torch import nn

import typed
from optbench.commands import resolvers, resume  # noqa: F401  # configs/ needs the resolvers
from optbench.commands.errors import report_errors
from optbench.commands.sweep import conclude_sweep
from optbench.data.datamodule import ImageDataModule
from optbench.data.imageset import ImageSet
from optbench.training.build import quiet_lightning
from optbench.tuning import command as tuning

PROJECT = Path(__file__).parents[1]

os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (PROJECT / "src", PROJECT / "tests")))
typed.FORKS.set_forkserver_preload(["preloaded"])
torch.set_num_threads(1)  # the networks here are too small to share out
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start, too
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to Ctrl-C
for module in ("base", "_utils"):  # each run parses the expressions of configs/ again: a tenth of its time here
    setattr(sys.modules[f"omegaconf.{module}"], "parse", lru_cache(maxsize=None)(grammar_parser.parse))  # noqa: B010
typed.draw_images()
os.fsync = lambda fd: None  # as in preloaded.py
# TensorBoard reads the files of a folder by name, which ends with second, process and number: keep 9 before 10
event_file_writer._global_uid = event_file_writer.AtomicCounter(100_000)

SMALL = (  # with images that are drawn once; see typed.py
    "data=shapes data.train_size=300 data.test_size=60 data.batch_size=50 trainer=cpu trainer.max_epochs=1 "
    "callbacks.figures=null callbacks.histograms=null callbacks.last_checkpoint.min_seconds=0 compare=false"
).split() + ["model.layers=[16 relu batchnorm, 16 tanh dropout]"]


def toy_images(train: int = 60, test: int = 20, classes: int = 3, size: int = 4, seed: int = 0) -> ImageSet:
    """Noise whose mean grows with the class: anything that learns learns it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(train + test) % classes
    noise = torch.rand(train + test, 3, size, size, generator=generator) * 100
    images = (noise + labels.view(-1, 1, 1, 1) * 60).clamp(0, 255).to(torch.uint8)
    names = tuple(f"class{k}" for k in range(classes))
    return ImageSet(images[:train], labels[:train], images[train:], labels[train:], names)


class ToyDataModule(ImageDataModule):
    """A datamodule over images that are given."""

    def __init__(self, images: ImageSet | None = None, **batches) -> None:
        settings = {"batch_size": 8, "val_size": 0.2, "split_seed": 0, "order_seed": 0, "normalization": "symmetric"}
        super().__init__(**{**settings, **batches})
        self.images = images or toy_images()

    def load(self) -> ImageSet:
        return self.images


def optimizer_of(name: str, **changes: Any) -> partial:
    """What configs/optimizer/<name>.yaml builds, with some hyperparameters changed."""
    return instantiate(OmegaConf.load(PROJECT / f"configs/optimizer/{name}.yaml"), _convert_="all", **changes)


OPTIMIZERS = sorted(path.stem for path in (PROJECT / "configs" / "optimizer").glob("*.yaml"))
OFTEN: dict[str, dict[str, Any]] = {  # preconditioners that change within the twelve steps here
    "shampoo": {"start_preconditioning_step": 2, "preconditioning_compute_steps": 3, "shape_interpretation": False},
    "soap": {"precondition_frequency": 3},
    "kron": {"balance_prob": 0.5},
    "schedule_free_sgd": {"warmup_steps": 10},
}
NAMES = ("class0", "class1", "class2")
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)


def toy_net(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
    )


def toy_trainer(**settings) -> pl.Trainer:
    """The trainer of configs/trainer, on the CPU and quiet."""
    quiet_lightning()
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return instantiate(OmegaConf.load(PROJECT / "configs/trainer/default.yaml"), **{**quiet, **settings})


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over the libraries: it would look through all they hold, in every run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries would complain at the end that what is theirs has leaked


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: the other workers have enough to do beside it."""
    items.sort(key=lambda item: item.path.stem != "test_recovery_faults")


@dataclass
class Result:
    """What a command left."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def sentence(self) -> str:
        """The error as one line."""
        return " ".join(self.err.split())


def load_script(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(name)


@pytest.fixture
def quiet_after() -> Iterator[None]:
    """Takes back what a command tells Python's logging, which would outlive the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report's figures are drawn, but their files stay empty: to fill these takes most of a report's time."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, quiet_after: None
) -> Callable[..., Result]:
    """Runs `python src/<script>.py <arguments>` in this process, which is much quicker than a new one.

    The run's folder is `<tmp_path>/<name>`, a sweep's too; `{folder}` in an argument stands for it.
    """

    def call(script: str, *arguments: str, name: str = "run") -> Result:
        folder = tmp_path / name
        resuming = any(argument.startswith("resume=") for argument in arguments)
        trains = script in ("train", "tune")
        place = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"] if trains and not resuming else []
        if ("-m" in arguments or script == "tune") and not resuming and "hydra/launcher=" not in " ".join(arguments):
            arguments += ("hydra/launcher=basic",)  # this process has threads, so the pool could not fork from it
        arguments = tuple(argument.replace("{folder}", str(folder)) for argument in arguments)
        monkeypatch.setattr(sys, "argv", [str(PROJECT / "src" / f"{script}.py"), *arguments, *place])
        # Hydra composes everything once more to read hydra.mode, which nobody sets: a third of the time of a run here
        monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)
        monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # as typed: configs/ is found from the script's place
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.delenv("OPTBENCH_REPORTS_ERRORS", raising=False)
        if script == "train" and folder.is_dir() and not resuming:
            shutil.rmtree(folder)  # a folder takes one run
        status = 0
        capsys.readouterr()
        try:
            module = load_script(script)
            again = ["python src/tune.py"] if script == "tune" else []
            with conclude_sweep(getattr(module, "compare", print), *again), report_errors():
                if trains:
                    sys.argv[1:] = (resume if script == "train" else tuning).command(sys.argv[1:])
                module.main()
        except SystemExit as end:
            status = int(end.code or 0)
        finally:  # not by monkeypatch, which would bring them back
            os.environ.pop("HYDRA_FULL_ERROR", None)
            os.environ.pop("OPTBENCH_REPORTS_ERRORS", None)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err, folder)

    return call


@pytest.fixture
def train(command: Callable[..., Result]) -> Callable[..., Result]:
    """A small run: `train("optimizer=sgd")`."""

    def call(*arguments: str, name: str = "run") -> Result:
        flags = [argument for argument in arguments if argument.startswith("-")]  # before all settings
        return command("train", *flags, *SMALL, *(a for a in arguments if a not in flags), name=name)

    return call


def trained(folder: Path, *arguments: str) -> Path:
    """The folder of a small run or sweep, for fixtures that several tests copy."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    places = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
    done = typed.script("train", *flags, *SMALL, *arguments[len(flags) :], *places, folder=folder.parent).result()
    assert done.returncode == 0, done.stderr
    return folder


def shell(*arguments: str, cwd: Path = PROJECT, timeout: float = 300) -> subprocess.CompletedProcess:
    """A command in a process of its own."""
    return subprocess.run(arguments, cwd=cwd, timeout=timeout, capture_output=True, text=True)
