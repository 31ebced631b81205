from itertools import zip_longest

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf

from conftest import OPTIMIZERS, PROJECT, SMALL

TOGETHER = ("augmentation", "averaging", "callbacks", "logger", "model", "optimizer", "scheduler", "trainer")
ALONE = ("debug", "experiment")  # they change other groups
ELSEWHERE = {
    ("logger", "mlflow"): "makes a database; test_run.py does it",
    ("logger", "wandb"): "needs an account and a package that is no dependency",
    ("trainer", "gpu"): "needs a GPU",
    ("trainer", "ddp"): "starts processes; test_distributed_ddp.py does it",
}


def choices(group: str) -> list[str]:
    names = sorted(path.stem for path in (PROJECT / "configs" / group).glob("*.yaml"))
    return [name for name in names if (group, name) not in ELSEWHERE]


def runs() -> list[dict[str, str]]:
    """Choices by their groups: each choice is in one run, and as few runs as the largest group has choices."""
    several = zip_longest(*(choices(group) for group in TOGETHER))
    together = [{g: name for g, name in zip(TOGETHER, names, strict=True) if name} for names in several]
    return together + [{group: name} for group in ALONE for name in choices(group)]


@pytest.mark.parametrize("chosen", runs(), ids=lambda chosen: ",".join(f"{g}={name}" for g, name in chosen.items()))
@pytest.mark.filterwarnings("ignore:.*overfit but enabled.*")  # debug=overfit means it
def test_every_choice_of_every_group_trains(command, chosen):
    arguments = list(SMALL)
    drawn = {"callbacks", "debug", "experiment", "logger", "model"}  # with the figures that those may change
    if drawn & chosen.keys():
        arguments = [argument for argument in arguments if not argument.startswith("callbacks")]
    if {"experiment", "model"} & chosen.keys():  # some choose a network, and some networks are large
        arguments = [argument for argument in arguments if not argument.startswith("model")]
        arguments += ["data.train_size=60", "data.test_size=8", "data.batch_size=20"]
    for group, choice in chosen.items():
        arguments.append(f"{group}=[{choice}]" if group == "logger" and choice != "none" else f"{group}={choice}")
    result = command("train", *arguments)
    assert result.status == 0, result.err
    assert result.summary["status"] == "completed"
    recorded = {group: result.summary["choices"].get(group, choice) for group, choice in chosen.items()}
    assert recorded == chosen  # Hydra keeps no choice of a list


def test_every_choice_is_in_a_run():
    for group in TOGETHER + ALONE:
        assert sorted(run[group] for run in runs() if group in run) == choices(group)
        there = {path.stem for path in (PROJECT / "configs" / group).glob("*.yaml")}
        assert choices(group) and there - set(choices(group)) == {name for g, name in ELSEWHERE if g == group}


@pytest.mark.parametrize("choice", ["cifar10", "image_folder", "shapes"])
def test_every_data_set_has_the_same_batches(choice):
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        data = compose(
            "train", [f"data={choice}", "data.root=."] if choice == "image_folder" else [f"data={choice}"]
        ).data
    shared = {"batch_size": 128, "val_size": 0.1, "split_seed": 0, "normalization": "symmetric"}
    assert {key: data[key] for key in shared} == shared


def test_the_exercise_is_the_exercise():
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", ["experiment=exercise", "output_dir=."])
    assert (cfg.optimizer._target_, cfg.optimizer.lr, cfg.optimizer.momentum) == ("torch.optim.SGD", 0.04, 0.0)
    assert (cfg.data.batch_size, cfg.trainer.max_epochs, cfg.test_weights) == (128, 30, "last")
    assert (cfg.scheduler.factor, cfg.scheduler.patience, cfg.scheduler.min_lr) == (0.05, 3, 0.001)
    assert (cfg.callbacks.early_stopping.monitor, cfg.callbacks.early_stopping.patience) == ("val/loss", 5)


def test_gpu_states_its_precision():
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", ["trainer=gpu"])
    assert (cfg.trainer.accelerator, cfg.trainer.precision, cfg.matmul_precision) == ("gpu", "32-true", "high")
    assert cfg.trainer.deterministic is True


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val/loss", "min"), ("val/accuracy", "max"), ("val/ece", "min"), ("train/f1", "max")]
)
def test_monitor_sets_the_direction_everywhere(monitor, mode):
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", [f"monitor={monitor}", "output_dir=."])
    assert {cfg.callbacks.best_checkpoint.mode, cfg.callbacks.early_stopping.mode, cfg.scheduler.mode} == {mode}
    assert {cfg.callbacks.best_checkpoint.monitor, cfg.callbacks.early_stopping.monitor} == {monitor}


def test_every_optimizer_has_a_search_space():
    assert sorted(path.stem for path in (PROJECT / "configs/search").glob("*.yaml")) == OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_space_is_about_its_optimizer(name):
    """Keys that it has, in Hydra's syntax; every line holds the default, except that a log scale has no 0."""
    path = PROJECT / f"configs/search/{name}.yaml"
    assert path.read_text().startswith(f"# Space of {name}: ")
    space = OmegaConf.to_container(OmegaConf.load(path))
    cfg = OmegaConf.create({"optimizer": OmegaConf.load(PROJECT / f"configs/optimizer/{name}.yaml")})
    assert next(iter(space)) == "optimizer.lr"
    for line, text in space.items():
        key = line.removeprefix("1 - ")
        default = OmegaConf.select(cfg, key)
        assert default is not None, key
        values = OverridesParser.create().parse_override(f"{key}={text}").value()
        if not isinstance(values, IntervalSweep):
            assert default in values.list
            continue
        assert values.tags == {"log"} and 0 < values.start < values.end
        drawn = 1 - default if line != key else default
        assert values.start <= drawn <= values.end or (key, default) == ("optimizer.weight_decay", 0)
