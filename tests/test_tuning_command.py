import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import PROJECT
from optbench.tuning.command import SETTINGS
from optbench.tuning.command import command as hydras_command


def test_settings_of_a_tuning_are_those_of_its_sweeper():
    made = hydras_command(
        ["optimizer=adam,sgd", "trials=50", "budget=600", "trainer.max_epochs=3", "hydra.sweep.dir=/x"]
    )
    assert made[0] == "-m" and "hydra/sweeper=tune" in made
    assert {"hydra.sweeper.trials=50", "hydra.sweeper.budget=600", "trainer.max_epochs=3", "optimizer=adam,sgd"} < {
        *made
    }
    assert "hydra.sweeper.trials=50" in hydras_command(["optimizer=adam", "+trials=50"])


def test_each_tuning_has_a_folder_of_its_own():
    first, second = (hydras_command(["optimizer=adam"])[-1] for _ in range(2))
    assert first.startswith(f"hydra.sweep.dir='{PROJECT}/logs/tune/") and first != second


def test_lines_of_a_space_are_one_list_that_hydra_can_read():
    made = hydras_command(
        ["search.adam.optimizer.lr=tag(log, interval(1e-4, 1))", "+search.sgd.1-optimizer.momentum='choice(1)'"]
    )
    lines = next(argument for argument in made if argument.startswith("hydra.sweeper.search="))
    parsed = OverridesParser.create().parse_override(lines).value()
    assert parsed == ["adam.optimizer.lr=tag(log, interval(1e-4, 1))", "sgd.1-optimizer.momentum='choice(1)'"]


@pytest.mark.parametrize("flag", ["--help", "--cfg=job", "-m", "--hydra-help"])
def test_flags_stay_as_they_are(flag):
    assert hydras_command([flag, "optimizer=adam"]).count("-m") == (flag == "-m")


def test_the_help_is_that_of_a_tuning(command):
    shown = command("tune", "--help")
    assert shown.status == 0, shown.err
    assert "python src/tune.py optimizer=adam,sgd,rmsprop,adamw" in shown.out
    assert f"\n  {', '.join(SETTINGS)}\n" in shown.out


def test_a_job_that_the_pool_types_stays_as_it_is():
    job = ["--config-name", "train", "optimizer=adam", "hydra.run.dir='/x/search/adam_00'", "hydra.job.num=0"]
    assert hydras_command(job) == job


@pytest.mark.parametrize("nothing", ["resume=", "resume=null"])
def test_a_tuning_that_resumes_nothing_is_a_new_one(nothing):
    made = hydras_command(["optimizer=adam,sgd", nothing])
    assert "hydra/sweeper=tune" in made and made[-1].startswith(f"hydra.sweep.dir='{PROJECT}/logs/tune/")
