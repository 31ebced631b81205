"""The command as typed, with a launcher whose runs end at once; the last test trains."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

import typed
from conftest import SMALL
from optbench.commands.hydra_internals import job_return
from optbench.comparison.analysis import compare
from optbench.records.looks import Plan
from optbench.records.record import RunRecord
from optbench.records.tuning import Tuning
from optbench.tuning import phases
from sweeps import write_run

BEST = {"adam": 0.003, "sgd": 0.1}
DEFAULT = {"adam": 0.001, "sgd": 0.04}


class Killed(BaseException):
    """What kill -9 looks like from within: nothing is written any more."""


class Formula:
    """A launcher whose runs end at once: the nearer the rate is to BEST, the better; a little of it is chance.

    Attributes:
        runs: folder -> overrides, in the order in which they ran.
        kill_at: the number of the run that is killed.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, str]] = {}
        self.level = {"adam": 0.6, "sgd": 0.6}
        self.diverge: Callable[[str, float], bool] = lambda optimizer, rate: False
        self.seconds: Callable[[str], float] = lambda place: 10.0
        self.fail: Callable[[str], bool] = lambda place: False
        self.kill_at = -1

    def launch(self, folder: Path, jobs) -> list[JobReturn]:
        return [job_return(self.run(folder, dict(override.split("=", 1) for override in job))) for job in jobs]

    def run(self, folder: Path, job: dict[str, str]) -> float | Exception:
        place = job.pop("hydra.sweep.subdir").strip("'")
        if self.fail(place):
            return ChildProcessError(f"{place} broke")
        if len(self.runs) == self.kill_at:
            raise Killed
        assert place not in self.runs, "a run that has ended runs again"
        self.runs[place] = job
        optimizer = job["optimizer"]
        rate, seed = float(job.get("optimizer.lr", DEFAULT[optimizer])), int(job["seed"])
        accuracy = self.level[optimizer] - 0.05 * abs(math.log10(rate / BEST[optimizer])) + 0.001 * ((seed * 7) % 5 - 2)
        if place.startswith("final"):  # what can be compared, with chance of its own
            chance = 0.0005 * ((seed * len(optimizer) * 3) % 7 - 3)
            others = [f"{key}={value}" for key, value in job.items() if key not in ("optimizer", "seed")]
            return write_run(folder / place, optimizer, seed, accuracy + chance, overrides=others).objective()
        record = RunRecord(
            status="diverged" if self.diverge(optimizer, rate) else "completed",
            seconds={"training": self.seconds(place)},
            monitor="val/loss",
            best={"val/accuracy": accuracy, "val/loss": 1.0},
            final={"val/accuracy": accuracy - 0.1, "val/loss": 1.0},
        )
        (folder / place).mkdir(parents=True)
        record.write(folder / place)
        return record.objective()


@pytest.fixture
def formula(monkeypatch):
    found = Formula()

    original = phases.tune

    def tune(settings, search, arguments, config, loader, launch):
        folder = Path(config.hydra.sweep.dir)
        return original(settings, search, arguments, config, loader, lambda jobs, first: found.launch(folder, jobs))

    monkeypatch.setattr(phases, "tune", tune)
    monkeypatch.setattr("optbench.commands.sweep.check_sweep", lambda *_: None)  # of records with a configuration
    return found


@pytest.fixture
def tune(command, formula):
    """A tuning whose runs are formulas: `tune("optimizer=adam,sgd")`."""

    def call(*arguments, **names):
        if any(argument.startswith("resume=") for argument in arguments):
            return command("tune", *arguments, **names)
        budget = [] if any(argument.startswith("trials=") for argument in arguments) else ["trials=5"]
        return command("tune", "data=shapes", "compare=false", "seeds=2", *budget, *arguments, **names)

    return call


def record_of(result) -> Tuning:
    return Tuning.read(result.folder)


def test_search_shortlist_and_final(tune, formula):
    done = tune("optimizer=adam,sgd", "epochs=3", "trainer.max_epochs=7")
    assert done.status == 0, done.err
    assert list(formula.runs)[:4] == ["search/adam_00", "search/sgd_00", "search/adam_01", "search/sgd_01"]
    assert [sum(run.startswith(phase) for run in formula.runs) for phase in ("search", "shortlist", "final")] == [
        10,
        12,
        4,
    ]
    tuning = record_of(done)
    assert tuning.ended == ["search", "shortlist", "final"]
    adam = tuning.contestants[0]
    defaults = {"optimizer.lr": 0.001, "optimizer.betas.0": 0.9, "optimizer.weight_decay": 0}
    assert adam.trials[0].values == defaults and not adam.trials[0].overrides
    rates = [trial.values["optimizer.lr"] for trial in adam.trials]
    assert len(set(rates)) == 5 and all(1e-5 <= rate <= 1e-2 for rate in rates)
    distances = [abs(math.log(rate / 0.003)) for rate in rates]
    assert adam.winner == distances.index(min(distances)) == adam.shortlist[0] and len(adam.shortlist) == 3
    # equal budgets, no test before the final, and seeds that nothing was chosen with
    searched, final = formula.runs["search/adam_03"], formula.runs["final/adam_seed3"]
    assert (searched["trainer.max_epochs"], searched["test_weights"], searched["seed"]) == ("3", "none", "0")
    assert (final["trainer.max_epochs"], final["seed"]) == ("7", "3") and "test_weights" not in final
    assert float(final.get("optimizer.lr", DEFAULT["adam"])) == rates[adam.winner]
    tested = [run for run, job in formula.runs.items() if job.get("test_weights") != "none"]
    assert tested == ["final/adam_seed3", "final/sgd_seed3", "final/adam_seed4", "final/sgd_seed4"]
    shortlisted = {int(run.rpartition("seed")[2]) for run in formula.runs if run.startswith("shortlist")}
    assert shortlisted == {1, 2} and tuning.final_seeds == [3, 4]
    assert "The test set is not read." in done.out and "+tuned=adam" in done.out


def test_a_list_of_augmentations_is_a_choice(tune, formula):
    space = "search.adam.augmentation.crop_flip.padding=choice(2, 4)"
    done = tune("optimizer=adam", "augmentation=crop_flip,[crop_flip,mixup]", "trials=3", "shortlist=1", space)
    assert done.status == 0, done.err
    tuning = record_of(done)
    assert [its.name for its in tuning.contestants] == ["adam_crop_flip", "adam_crop_flip+mixup"]
    assert all("augmentation.crop_flip.padding" in its.trials[0].values for its in tuning.contestants)
    assert formula.runs["final/adam_crop_flip+mixup_seed3"]["augmentation"] == "[crop_flip,mixup]"
    tuned = OmegaConf.load(done.folder / "tuned" / "adam_crop_flip+mixup.yaml")
    assert list(tuned.augmentation) == ["crop_flip", "mixup"]


def test_the_final_adds_seeds_until_it_is_decided(tune, formula):
    formula.level["sgd"] = 0.58
    done = tune("optimizer=adam,sgd", "seeds=until_decided")
    assert done.status == 0, done.err
    finals = [run.partition("/")[2] for run in formula.runs if run.startswith("final")]
    assert finals == [
        f"{name}_seed{seed}" for seeds in ((3, 4, 5), (6, 7)) for seed in seeds for name in ("adam", "sgd")
    ]
    plan = Plan.read(done.folder / "final")
    assert plan.first_seed == 3 and [look.seeds for look in plan.looks] == [3, 5] and plan.looks[1].decided
    assert "up to 10 fresh seeds from 3 on, until it is decided" in done.out
    assert "Next, adam and sgd train with seeds 6 and 7 (4 runs)." in " ".join(done.out.split())
    assert "adam is better than sgd. The question is decided" in " ".join(done.out.split())
    assert record_of(done).ended == ["search", "shortlist", "final"]
    report = compare([str(done.folder)])
    assert report.judgement.ranking.n.to_list() == [5, 5] and report.tuning.final_seeds == [3, 4, 5, 6, 7]
    assert report.judgement.differences.verdict.to_list() == ["better"]


def test_a_final_with_looks_resumes_where_it_was_killed(tune, formula):
    formula.level["sgd"], formula.kill_at = 0.58, 10 + 12 + 7  # in the second look
    with pytest.raises(Killed):
        tune("optimizer=adam,sgd", "seeds=until_decided")
    formula.kill_at = -1
    done = tune("resume={folder}")
    assert done.status == 0, done.err
    assert sum(run.startswith("final") for run in formula.runs) == 10
    assert [look.seeds for look in Plan.read(done.folder / "final").looks] == [3, 5]


def test_a_winner_alone_needs_no_looks(tune, formula):
    formula.diverge = lambda optimizer, rate: optimizer == "sgd"
    done = tune("optimizer=adam,sgd", "seeds=until_decided")
    assert done.status == 0, done.err
    assert [run for run in formula.runs if run.startswith("final")] == [f"final/adam_seed{seed}" for seed in (3, 4, 5)]
    assert Plan.read(done.folder / "final") is None


def test_the_seed_moves_everything(tune):
    first, other = tune("optimizer=sgd"), tune("optimizer=sgd", "seed=10", name="other")
    a, b = record_of(first), record_of(other)
    assert (b.search_seed, b.shortlist_seeds, b.final_seeds) == (10, [11, 12], [13, 14])
    assert a.contestants[0].trials[1].values != b.contestants[0].trials[1].values


def test_a_killed_tuning_does_what_is_left_and_ends_the_same(tune, command, formula):
    whole = tune("optimizer=adam,sgd", name="whole")
    expected, runs = (whole.folder / "tuning.json").read_text(), dict(formula.runs)
    formula.runs, formula.kill_at = {}, 4  # within the search, then the shortlist, then the final
    with pytest.raises(Killed):
        tune("optimizer=adam,sgd")
    formula.kill_at = 15
    with pytest.raises(Killed):
        tune("resume={folder}")
    formula.kill_at = 23
    with pytest.raises(Killed):
        command("train", "-m", "resume={folder}")
    formula.kill_at = -1
    last = tune("resume={folder}")
    assert last.status == 0, last.err
    assert formula.runs == runs and (last.folder / "tuning.json").read_text() == expected
    again = tune("resume={folder}")
    assert again.status == 0 and formula.runs == runs and "4 of 4 runs have their results already." in again.out


def test_a_tuning_resumes_only_as_it_began(tune, monkeypatch):
    assert tune("optimizer=sgd").status == 0
    monkeypatch.setattr("shutil.rmtree", lambda *_: None)
    for change, words in (
        ("trials=6", "holds a tuning that began otherwise: trials was 5, now it is 6."),
        ("search.sgd.optimizer.lr='interval(0.1, 1)'", "the space of sgd was {'optimizer.lr': 'tag(log, "),
    ):
        other = tune("optimizer=sgd", change)
        assert other.status == 1 and words in other.sentence
    other = tune("resume={folder}", "optimizer=adam")
    assert other.status == 1 and "so optimizer=adam cannot be given" in other.sentence


def test_divergence_is_a_result_and_the_others_go_on(tune, formula):
    formula.diverge = lambda optimizer, rate: optimizer == "sgd" or rate > 0.002
    done = tune("optimizer=adam,sgd")
    assert done.status == 0, done.err
    assert "sgd: all 5 trials diverged. It has no winner; the others go on." in done.out
    adam, sgd = record_of(done).contestants
    assert sgd.winner is None and sgd.shortlist == [] and adam.winner is not None
    assert all(adam.trials[trial].values["optimizer.lr"] <= 0.002 for trial in adam.shortlist)
    assert [run for run in formula.runs if run.startswith("final")] == ["final/adam_seed3", "final/adam_seed4"]


def test_a_run_that_fails_ends_the_phase_and_is_tried_again(tune, formula):
    formula.fail = lambda place: place == "search/adam_02"
    failed = tune("optimizer=adam,sgd")
    assert failed.status == 1 and "search/adam_02 broke" in failed.sentence
    assert "search/sgd_04" in formula.runs and "shortlist/" not in str(list(formula.runs))
    assert f"To resume: python src/tune.py resume={failed.folder}" in failed.out
    formula.fail = lambda place: False
    assert tune("resume={folder}").status == 0 and "final/sgd_seed4" in formula.runs


def test_equal_seconds(tune, formula):
    formula.seconds = lambda place: 10.0 if place.startswith("search/adam") else 25.0
    done = tune("optimizer=adam,sgd", "budget=100", "shortlist=1")
    assert done.status == 0, done.err
    adam, sgd = record_of(done).contestants
    assert (adam.counted, sgd.counted) == (10, 4) and len(adam.trials) == 10 and len(sgd.trials) == 4


def test_trials_that_diverge_at_once_do_not_go_on_for_ever(tune, formula, monkeypatch):
    monkeypatch.setattr(phases, "MOST_TRIALS", 8)
    formula.seconds = lambda place: 0.0
    formula.diverge = lambda optimizer, rate: True
    done = tune("optimizer=adam,sgd", "budget=100", "shortlist=1")
    assert done.status == 0, done.err
    assert [len(its.trials) for its in record_of(done).contestants] == [8, 8]
    assert "adam: all 8 trials diverged. It has no winner" in done.out


def test_a_budget_in_seconds_widens_and_resumes_with_the_points_that_ran(tune, formula):
    took = {"search/sgd_00": 1.0}  # so short that an estimate from it alone would draw many trials
    formula.seconds = lambda place: took.get(place, 10.0)
    narrow = "search.sgd.optimizer.lr=tag(log, interval(1e-4, 1e-2))"
    arguments = "optimizer=sgd,adam", narrow, "search.adam.1-optimizer.betas.0=null", "budget=125", "widen=true"
    whole = tune(*arguments, name="whole")
    assert whole.status == 0, whole.err
    expected, runs = (whole.folder / "tuning.json").read_text(), dict(formula.runs)
    sgd = record_of(whole).contestants[0]
    assert sgd.widened and sgd.counted < len(sgd.trials)
    for number, trial in enumerate(sgd.trials[1:], 1):
        ran = formula.runs[f"search/sgd_{number:02d}"]["optimizer.lr"]
        assert float(ran) == trial.values["optimizer.lr"]
    formula.runs, formula.kill_at = {}, 3
    with pytest.raises(Killed):
        tune(*arguments)
    formula.kill_at = -1
    last = tune("resume={folder}")
    assert last.status == 0, last.err
    assert formula.runs == runs and (last.folder / "tuning.json").read_text() == expected


def test_what_is_on_an_edge_is_provisional_and_widens_where_asked(tune, formula):
    narrow = "search.sgd.optimizer.lr=tag(log, interval(1e-4, 1e-2))"
    provisional = tune("optimizer=adam,sgd", narrow, "trials=12", "search.adam.1-optimizer.betas.0=null")
    sgd = record_of(provisional).contestants[1]
    assert sgd.edges == {"optimizer.lr": "largest"} and sgd.axes[0].high == 0.01
    again = tune("resume={folder}")
    assert again.status == 0 and again.out.count("have their results already.") == 3, again.err
    assert "Provisional: sgd is best with optimizer.lr at its largest values." in provisional.out
    formula.runs.clear()
    wide = tune(
        "optimizer=adam,sgd", narrow, "trials=12", "widen=true", "search.adam.1-optimizer.betas.0=null", name="w"
    )
    assert wide.status == 0, wide.err
    adam, sgd = record_of(wide).contestants
    assert adam.counted == sgd.counted >= 18 and sgd.widened >= 1 and sgd.axes[0].high >= 0.1
    assert all(0.01 < trial.values["optimizer.lr"] <= 0.1 for trial in sgd.trials[12:18])


def test_other_settings_may_vary_and_what_is_typed_is_not_searched(tune, formula):
    done = tune("optimizer=adam", "scheduler=constant,cosine", "optimizer.betas=[0.8,0.99]", "trials=3")
    assert done.status == 0, done.err
    constant, cosine = record_of(done).contestants
    assert (constant.name, cosine.name) == ("adam_constant", "adam_cosine")
    assert list(constant.space) == ["optimizer.lr", "optimizer.weight_decay"]
    assert formula.runs["search/adam_cosine_02"]["optimizer.betas"] == "[0.8,0.99]"
    tuned = OmegaConf.load(done.folder / "tuned" / "adam_cosine.yaml")
    assert tuned.defaults == [{"override /optimizer": "adam"}, {"override /scheduler": "cosine"}]
    assert tuned.optimizer.betas == [0.8, 0.99]  # typed, so it was not searched, but it is a part of what was found
    short = f"--config-dir {done.folder} +tuned=adam_constant data=shapes compare=False"
    assert f"The same in short: python src/train.py {short}" in done.out


def test_values_that_vary_give_names_that_a_command_can_have(tune):
    done = tune(
        "optimizer=adam", "model.dropout=0.25,1e-1", "optimizer.betas=[0.9,0.99],[0.8,0.99]", "trials=1", "shortlist=1"
    )
    assert done.status == 0, done.err
    names = [its.name for its in record_of(done).contestants]
    assert names[0] == "adam_dropout-0.25_betas-0.9+0.99" and len(set(names)) == 4
    for name in names:
        assert OverridesParser.create().parse_override(f"+tuned={name}").value() == name
        assert (done.folder / "tuned" / f"{name}.yaml").is_file()


def test_the_last_weights_judge_where_they_are_tested(tune):
    done = tune("optimizer=sgd", "test_weights=last")
    assert record_of(done).last_weights and "val/accuracy 5" not in done.out.partition("Shortlist")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trials=0"], "trials=0 must be a whole number of at least 1."),
        (["trials=2"], "shortlist=3 is longer than trials=2: use at most shortlist=2."),
        (["seeds=1.5"], "seeds=1.5 must be a whole number of at least 1, or until_decided."),
        (["seeds=until_decided", "optimizer=adam"], "seeds=until_decided compares winners, and here is only one"),
        (["budget=long"], "budget=long must be trials, so that every optimizer has as many, or a number of seconds"),
        (["sampler=sobol"], "sampler=sobol is not known: use random or qmc."),
        (["widen=perhaps"], "widen=perhaps must be true or false."),
        (["metric=test/accuracy"], "metric=test/accuracy cannot choose a trial"),
        (["epochs=31"], "epochs=31 of a trial are more than the final has: use at most epochs=30"),
        (["seed=0,1"], "seed=0,1: a tuning takes one number"),
        (["test_weights=none"], "test_weights=none: the final tests its winners once, so use best or last."),
        (["trainer.max_epochs=5,10"], "trainer.max_epochs is 10 and 5: all that one tuning compares has the same."),
        (["test_weights=best,last"], "test_weights is best and last: all that one tuning compares has the same."),
        (["optimizer=adam,adam"], "adam is named 2 times: name each optimizer once."),
        (["optimizer=adam", "search.sdg.optimizer.lr=0.1,1"], "search.sdg is the space of no optimizer here"),
        (["search.adam.optimizer.rate=0.1,1"], "search.adam: optimizer.rate is no key of optimizer=adam"),
        (["search.adam.optimizer.rate=0.1,1"], "There are: optimizer.lr, optimizer.betas"),
        (
            ["search.adam.data.batch_size=interval(16, 256)"],
            "data.batch_size is 128, a whole number, and interval(16, 256) also has others. Write int(interval",
        ),
        (["search.adam.optimizer.betas.first=0.1,1"], "optimizer.betas.first is no key of optimizer=adam"),
        (
            ["search.adam.augmentation.crop_flip.padding=1,2"],
            "augmentation has no keys here: give augmentation a choice",
        ),
        (
            ["search.adam.optimizer.lr=interval(2, 1)"],
            "search.adam: optimizer.lr: interval(2, 1): the lower end must be",
        ),
        (["search.adam.optimizer.lr=tag(log, interval(0, 1))"], "a logarithmic scale must begin above 0."),
        (["search.adam.optimizer.fused=interval(0, 1)"], "optimizer.fused is True, no number"),
        (["search.adam.test_weights.x=best,last"], "test_weights.x cannot be searched."),
        (["search.adam.trainer.max_epochs=1,2"], "trainer.max_epochs cannot be searched."),
        (["optimizer.lr=interval(0, 1)"], "optimizer.lr=interval(0, 1) is a range to search: put it into a space"),
        (
            ["optimizer.lr=1", "optimizer.betas=[0.9,0.9]", "optimizer.weight_decay=0"],
            "every setting of its space is fixed",
        ),
        (["optimizer=adm"], "optimizer=adm is not known; did you mean adam?"),
    ],
)
def test_what_a_tuning_refuses(tune, formula, arguments, words):
    refused = tune(*arguments)
    assert refused.status == 1 and words in refused.sentence, refused.err
    assert formula.runs == {} and not (refused.folder / "tuning.json").exists()


def test_a_missing_space_is_named_with_those_there_are(tune, formula, monkeypatch, tmp_path):
    monkeypatch.setattr("optbench.tuning.plan.PROJECT", tmp_path)
    monkeypatch.setattr("optbench.tuning.plan.SPACES", tmp_path / "configs" / "search")
    (tmp_path / "configs" / "search").mkdir(parents=True)
    (tmp_path / "configs" / "search" / "adam.yaml").write_text("optimizer.lr: interval(1, 2)\n")
    refused = tune("optimizer=adam,sgd")
    assert refused.status == 1 and formula.runs == {}
    assert "optimizer=sgd has no search space. There are spaces for: adam." in refused.sentence
    assert "make configs/search/sgd.yaml with a line for each key" in refused.sentence
    assert tune("optimizer=adam,sgd", "search.sgd.optimizer.lr=0.1,0.2,0.3", "shortlist=1").status == 0


def test_a_tuning_of_real_runs_and_the_use_of_what_it_found(tmp_path):
    folder = tmp_path / "tuning"
    done = typed.script(
        "tune", *SMALL, "optimizer=adam,sgd", "trials=2", "seeds=1", "shortlist=1", f"hydra.sweep.dir={folder}",
        folder=tmp_path,
    ).result()  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"1 of 4  \[\d\] optimizer=", done.stdout)  # the pool: any of its runs may be the first to end
    for run in folder.glob("*/*/summary.json"):
        record = json.loads(run.read_text())
        assert record["status"] == "completed" and bool(record["test"]) is (run.parts[-3] == "final")
    again = typed.script("tune", f"resume={folder}", folder=tmp_path).result()
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("have their results already.") == 2
    used = typed.script(
        "train", "--config-dir", str(folder), *SMALL, "+tuned=sgd", "seed=3", f"hydra.run.dir={tmp_path / 'used'}",
        folder=tmp_path,
    ).result()  # fmt: skip
    assert used.returncode == 0, used.stderr
    mine, final = (
        json.loads((path / "summary.json").read_text()) for path in (tmp_path / "used", folder / "final/sgd_seed3")
    )
    assert mine["choices"]["optimizer"] == "sgd"
    assert (mine["test"], mine["hashes"]["initial_weights"]) == (final["test"], final["hashes"]["initial_weights"])
