"""What was recorded before names changed still reads."""

import importlib
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from conftest import PROJECT
from optbench.records import old_names
from optbench.records.record import RunRecord


def test_every_new_name_is_there():
    for target in old_names.TARGETS.values():
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name), target


def test_a_record_of_an_earlier_version_has_todays_names(tmp_path):
    config = {
        "logger": {"csv": {"_target_": "optbench.history.MetricsCSV", "path": "metrics.csv"}},
        "scheduler": {"_target_": "optbench.schedulers.cosine_with_warmup", "_partial_": True, "warmup": 0.1},
        "callbacks": {
            "checkpoint": {"_target_": "optbench.callbacks.last_checkpoint.LastCheckpoint", "every_n_steps": 3},
            "figures": {"_target_": "optbench.callbacks.figures.Figures", "examples": 4},
        },
        "augmentation": {"_target_": "optbench.data.augmentation.CropFlip", "padding": 2, "flip": 0.5},
        "checkpoint": 1,
        "mine": [{"_target_": "optbench.callbacks.figures.Figures"}],
    }
    RunRecord(config=config).write(tmp_path)
    found = RunRecord.read(tmp_path).config
    assert found == {
        "logger": {"csv": {"path": "metrics.csv"}},
        "scheduler": {
            "_target_": "optbench.training.schedulers.cosine_with_warmup",
            "_partial_": True,
            "warmup": 0.1,
        },
        "callbacks": {
            "last_checkpoint": {"_target_": "optbench.callbacks.last_checkpoint.LastCheckpoint", "every_n_steps": 3},
            "figures": {"_target_": "optbench.callbacks.tensorboard_figures.Figures", "examples": 4},
        },
        "augmentation": {
            "crop_flip": {
                "_target_": "optbench.data.augmentation.CropFlip",
                "padding": 2,
                "flip": 0.5,
                "borders": "zero",
            },
        },
        "checkpoint": 1,
        "mine": [{"_target_": "optbench.callbacks.tensorboard_figures.Figures"}],
    }
    found["augmentation"]["crop_flip"]["borders"] = "mirrored"  # a key that is there stays
    assert instantiate(found["callbacks"]["figures"]).examples == 4
    assert old_names.updated_configuration(found) == found


def test_a_run_of_an_earlier_version_has_the_keys_of_today():
    """Or it would differ from a new one in settings that it did not have."""
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        cfg = compose("train", ["output_dir=."])
    today: Any = OmegaConf.to_container(cfg)
    assert {key: today[key] for key in old_names.ADDED} == old_names.ADDED
    before = {key: value for key, value in today.items() if key not in old_names.ADDED}
    assert old_names.updated_configuration(before) == today
    assert old_names.updated_configuration({**today, "l1": 0.5})["l1"] == 0.5


def test_a_run_of_an_earlier_version_has_the_choices_of_today(tmp_path):
    """Or a comparison with a new run would find that averaging varies, and its resumed test would fail."""
    before = {"augmentation": "none", "model": "mlp"}
    today = {**before, "averaging": "none"}
    for name, choices in {"before": before, "today": today, "ema": {**today, "averaging": "ema"}}.items():
        RunRecord(choices=choices).write(tmp_path)
        assert RunRecord.read(tmp_path).choices == {**today, **choices}, name


def test_a_checkpoint_of_an_earlier_version_has_todays_callbacks():
    state = {"seconds": {}, "lr": 0.1, "rows": []}
    old = {"state_dict": {}, "callbacks": {"Stopwatch": state, "LastCheckpoint": {}}}
    assert old_names.updated_checkpoint(old)["callbacks"] == {"EpochHistory": state, "LastCheckpoint": {}}
    weights = {"state_dict": {"a": torch.zeros(1)}}
    assert old_names.updated_checkpoint(weights) is weights and "callbacks" not in weights
