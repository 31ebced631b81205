"""What a sweep costs beyond its arithmetic: OptBench, bare loops, and a template under two of Hydra's launchers.

    python benchmarks/sweep.py [--rounds 3] [--only quickstart,small,curve]
    pip install hydra-joblib-launcher     # for the second launcher; left out where it is missing

Each figure is the wall time of a whole command, from its start to its end, the ways one after another in each round.

bare             as many processes of one thread as there are cores, each with its part of the runs: PyTorch loops over
                 images in memory, fused optimizers, validation after each epoch and one test; nothing is kept or logged
optbench         `python src/train.py -m …` as typed, without the report of the sweep; `+ report` is with it
template         the usual way of a template (see benchmarks/epoch.py) under Hydra's basic launcher: one process
template joblib  the same under hydra-joblib-launcher, n_jobs = cores

quickstart: the runs of `make quickstart`. small: 32 runs of a 256-256 MLP, 10,000 images, 5 epochs. curve: 1 to 64 such
runs by OptBench alone. Both templates keep their images in memory between runs, too.
"""

import argparse
import functools
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from optbench.pool.devices import THREADS, cores  # noqa: E402

TRAIN, ME = str(PROJECT / "src" / "train.py"), str(Path(__file__).absolute())
QUICKSTART = ["experiment=quickstart", "optimizer=adam,sgd,rmsprop", "seed=0,1,2,3"]
SMALL = [
    *("data=shapes", "data.train_size=10000", "data.test_size=2000", "trainer=cpu", "trainer.max_epochs=5"),
    *("model.layers=[256 relu,256 relu]", "callbacks.early_stopping=null"),
]


def small(runs: int) -> list[str]:
    return [*SMALL, f"seed={','.join(map(str, range(runs)))}"]


def seconds(command: Sequence[str], **environment: str) -> float:
    """Of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return took


def ways(overrides: list[str]) -> dict[str, Any]:
    """Each way's name, and what times it."""

    def optbench(*more: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return seconds([sys.executable, TRAIN, "-m", *overrides, f"hydra.sweep.dir={folder}/sweep", *more])

    def template(*launcher: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            place = f"hydra.sweep.dir={folder}/sweep"
            return seconds([sys.executable, ME, "--template", "-m", *overrides, place, "compare=false", *launcher])

    found = {
        "bare": lambda: bare(overrides),
        "optbench": lambda: optbench("compare=false"),
        "optbench + report": optbench,
        "template": lambda: template("hydra/launcher=basic"),
    }
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        joblib = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores()}")
        found["template joblib"] = lambda: template(*joblib)
    return found


def bare(overrides: list[str]) -> float:
    """All processes at once; each takes every n-th run."""
    began = time.perf_counter()
    one_thread = {**os.environ, **dict.fromkeys(THREADS, "1")}
    count = cores()
    processes = [
        subprocess.Popen([sys.executable, ME, "--bare", str(k), str(count), *overrides], env=one_thread)
        for k in range(count)
    ]
    if sum(abs(process.wait()) for process in processes):
        raise SystemExit("The bare loops failed.")
    return time.perf_counter() - began


# What the processes do


@functools.cache
def images(cfg: Any) -> Any:
    from optbench.training.build import build_data

    return build_data(cfg)


def run_bare(part: int, parts: int, overrides: list[str]) -> None:
    """The runs `part`, `part + parts`, … of a sweep, one after another."""
    import itertools

    import torch
    import torch.nn.functional as F
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    import optbench.commands.resolvers  # noqa: F401
    from optbench.commands.hydra_internals import override_values
    from optbench.training import build
    from optbench.training.optimizers import build_optimizer

    read = list(map(override_values, overrides))
    axes = [[f"{key}={value}" for value in values] for key, values in read if len(values) > 1]
    fixed = [override for override, (_, values) in zip(overrides, read, strict=True) if len(values) == 1]
    data = None
    for jobs in itertools.islice(itertools.product(*axes), part, None, parts):
        with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
            cfg = compose("train", [*fixed, *jobs, "output_dir=/nowhere"])
        data = data or build.build_data(cfg)
        torch.manual_seed(cfg.seed)
        net = build.build_net(cfg, data.image_shape, data.classes)
        optimizer = build_optimizer(instantiate(cfg.optimizer, _convert_="all"), net, "all")
        x, y = data.normalize(data.train.images[data.train.indices]), data.train.labels[data.train.indices]
        for _ in range(cfg.trainer.max_epochs):
            net.train()
            for batch in torch.randperm(len(x)).split(cfg.data.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
            accuracy(net, data, data.val)
        accuracy(net, data, data.test)


def accuracy(net: Any, data: Any, part: Any) -> float:
    import torch

    net.eval()
    with torch.no_grad():
        hits = sum(
            int((net(data.normalize(part.images[rows])).argmax(1) == part.labels[rows]).sum())
            for rows in part.indices.split(1000)
        )
    return hits / len(part)


def run_template() -> None:
    """A Hydra application with this project's configuration, and the usual way of a template in place of its run."""
    import hydra
    import sweep  # this file: joblib's processes can import it

    import optbench.commands.resolvers  # noqa: F401

    hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="train")(sweep.template_job)()


IMAGES: dict[str, Any] = {}


def template_job(cfg: Any) -> float:
    import pytorch_lightning as pl
    import torch
    from epoch import PictureSet, TemplateModule
    from hydra.utils import instantiate
    from torch.utils.data import DataLoader, random_split

    from optbench.training import build

    build.quiet_lightning()
    if not IMAGES:
        IMAGES["data"] = build.build_data(cfg)
    data = IMAGES["data"]
    pl.seed_everything(cfg.seed, verbose=False)
    whole = PictureSet(data.imageset.train_images, data.imageset.train_labels)
    train, val = random_split(whole, [len(data.train), len(data.val)])
    test = PictureSet(data.imageset.test_images, data.imageset.test_labels)

    class Module(TemplateModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = instantiate(cfg.optimizer, **({"fused": False} if "fused" in cfg.optimizer else {}))
            return optimizer(self.parameters())

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

    size, folder = cfg.data.batch_size, cfg.output_dir
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=cfg.trainer.max_epochs,
        enable_progress_bar=False,
        callbacks=[
            pl.callbacks.ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True),
            pl.callbacks.EarlyStopping("val/acc", mode="max", patience=100),
            pl.callbacks.RichModelSummary(-1),
        ],
        logger=[pl.loggers.CSVLogger(folder), pl.loggers.TensorBoardLogger(folder)],
    )
    module = Module(build.build_net(cfg, data.image_shape, data.classes), len(data.classes))
    trainer.fit(module, DataLoader(train, size, shuffle=True), DataLoader(val, size))
    trainer.test(module, DataLoader(test, size), ckpt_path="best", verbose=False, weights_only=False)
    return float(trainer.callback_metrics["val/acc"])


# What is printed


def compare(name: str, overrides: list[str], rounds: int, chosen: list[str]) -> None:
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for way, measure in ways(overrides).items():
            if chosen and way not in chosen:
                continue
            found.setdefault(way, []).append(measure())
            print(f"{name} round {number + 1}: {way} {found[way][-1]:.1f} s", flush=True)
    for way, values in found.items():
        ratios = [own / theirs for own, theirs in zip(values, found["optbench"], strict=True)]
        print(
            f"{name}: {way:17} median {statistics.median(values):6.1f} s ({min(values):.1f} to {max(values):.1f}), "
            f"{statistics.median(ratios):.2f} x optbench"
        )


def curve(rounds: int) -> None:
    for runs in (1, 2, 4, 8, 16, 32, 64):
        values = [ways(small(runs))["optbench"]() for _ in range(rounds)]
        median = statistics.median(values)
        print(f"curve: {runs:2} runs: median {median:6.1f} s, {median / runs:5.2f} s for each run", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="quickstart,small,curve")
    parser.add_argument("--ways", nargs="+", default=[], help="some of those above, optbench among them; else all")
    arguments = parser.parse_args()
    import torch

    machine = platform.processor() or platform.machine()
    print(f"{machine}, {cores()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    chosen = arguments.only.split(",")
    if "quickstart" in chosen:
        compare("quickstart", QUICKSTART, arguments.rounds, arguments.ways)
    if "small" in chosen:
        compare("small", small(32), arguments.rounds, arguments.ways)
    if "curve" in chosen:
        curve(arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        run_bare(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    elif sys.argv[1:2] == ["--template"]:
        del sys.argv[1]
        run_template()
    else:
        main()
