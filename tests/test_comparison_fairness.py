"""What the records prove to be equal and what not, what is left out or withheld for it, and how that reads."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.fairness import Claim, Item, same, unfair
from sweeps import write_run, write_sweep


def ledger(comparison: Comparison) -> dict[str, tuple[bool | None, str]]:
    return {claim.item: (claim.equal, claim.text) for claim in comparison.judgement.ledger}


def pair(folder: Path, *changes: dict[str, Any], seeds: int = 3) -> Path:
    """Adam and SGD; the runs of SGD differ in `changes`, one dictionary a seed or one for all."""
    for seed in range(seeds):
        write_run(folder / f"adam-{seed}", "adam", seed, 0.55 + seed / 1000, started=f"2026-01-01T0{seed}:00:00+00:00")
        change = {"started": f"2026-01-02T0{seed}:00:00+00:00"} | (changes[seed % len(changes)] if changes else {})
        write_run(folder / f"sgd-{seed}", "sgd", seed, 0.50 + seed**2 / 1000, **change)
    return folder


def test_a_fair_comparison(tmp_path: Path) -> None:
    comparison = compare([str(pair(tmp_path))])
    assert (
        comparison.words.violations == [] and comparison.words.times_withheld == "" and comparison.words.skipped == []
    )
    assert comparison.judgement.ledger == [
        Claim(Item("Images"), True, "da7a (hash of all images and labels)"),
        Claim(Item("Validation split"), True, "5911 (hash of the split)"),
        Claim(Item("Test images"), True, "60"),
        Claim(Item("Network"), True, "mlp"),
        Claim(Item("Initial weights"), True, "the same for every configuration at each of 3 seeds (hashes)"),
        Claim(Item("Batch order"), True, "the same for every configuration at each of 3 seeds (hashes)"),
        Claim(Item("Seeds"), True, "0, 1, 2"),
        Claim(Item("Most epochs allowed"), True, "5"),
        Claim(Item("Batch size"), True, "50"),
        Claim(Item("Trainable parameters"), True, "1000"),
        Claim(Item("Chosen by"), True, "val/loss (monitor)"),
        Claim(Item("Weights tested"), True, "last"),
        Claim(Item("Test set read"), True, "once by each run"),
        Claim(Item("Device"), True, "a CPU, 1 thread"),
        Claim(Item("Host"), True, "here"),
        Claim(Item("Runs at the same time"), True, "none of these runs shared its host with another of them"),
        Claim(Item("Training code"), True, "c0de (hash, or commit)"),
        Claim(Item("Commit"), True, "0000000000 (+: with uncommitted changes)"),
        Claim(Item("Versions"), True, "python 3.11.7, torch 2.15.0, torchvision 0.29.2, pytorch-lightning 2.6.6"),
        Claim(
            Item("Settings that come along"),
            False,
            "optimizer.lr varies only along with optimizer. optimizer.lr: adam 0.001, sgd 0.04",
        ),
    ]


def test_one_seed_is_told_in_the_singular(tmp_path: Path) -> None:
    claims = ledger(compare([str(pair(tmp_path, seeds=1))]))
    same = (True, "the same for every configuration at the one seed (hashes)")
    assert claims["Initial weights"] == claims["Batch order"] == same
    assert claims["Seeds"] == (True, "0")


# Other images


@pytest.mark.parametrize(
    ("changes", "what", "item", "text"),
    [
        ({"hashes": {"data": "0ther"}}, "data set", "Images", "da7a (hash of all images and labels)"),
        ({"hashes": {"split": "0ther"}}, "split", "Validation split", "5911 (hash of the split)"),
        ({"images": {"test": 30}}, "test subset", "Test images", "60"),
        ({"config": {"trainer.limit_test_batches": 1}}, "test subset", "Test images", "60"),
        (
            {"hashes": {"data": "x", "split": "y"}},
            "data set and split",
            "Images",
            "da7a (hash of all images and labels)",
        ),
    ],
)
def test_runs_on_other_images_are_left_out(
    tmp_path: Path, changes: dict[str, Any], what: str, item: str, text: str
) -> None:
    folder = pair(tmp_path / "sweep")
    before = compare([str(folder)])
    write_run(folder / "other", "sgd", 3, 0.9, **changes)
    write_run(folder / "other2", "sgd", 4, 0.9, **changes)
    comparison = compare([str(folder)], by=["optimizer"])
    assert comparison.words.violations[0] == (
        f"2 runs were measured on another {what} and are left out of every figure: other, other2. "
        "The figures are of the 6 runs on 270 training, 30 validation and 60 test images, which is what most runs had."
    )
    runs = comparison.facts.runs.set_index("run")
    assert runs.note["other"] == f"left out: another {what}" and not runs.used["other"]
    shown = comparison.judgement.ranking[["configuration", "n", "mean", "low", "completed"]]
    assert shown.equals(before.judgement.ranking[["configuration", "n", "mean", "low", "completed"]])
    assert (
        comparison.judgement.differences.equals(before.judgement.differences)
        and comparison.words.answer == before.words.answer
    )
    assert comparison.judgement.targets.equals(before.judgement.targets) and len(comparison.facts.curves) == len(
        before.facts.curves
    )
    assert ledger(comparison)[item] == (True, text)


def test_a_single_run_on_other_data_is_told_in_the_singular(tmp_path: Path) -> None:
    pair(tmp_path)
    write_run(tmp_path / "other", "sgd", 3, hashes={"split": "0ther"})
    assert compare([str(tmp_path)]).words.violations == [
        "1 run was measured on another split and is left out of every figure: other. The figures are of the "
        "6 runs on 270 training, 30 validation and 60 test images, which is what most runs had."
    ]


def test_a_run_on_other_data_repeats_nothing(tmp_path: Path) -> None:
    """The same command, later, on images that had changed meanwhile."""
    pair(tmp_path)
    write_run(tmp_path / "later", "sgd", 0, 0.9, hashes={"data": "0ther"}, started="2027-01-01T00:00:00+00:00")
    comparison = compare([str(tmp_path)])
    assert comparison.judgement.ranking.n.to_list() == [3, 3]
    assert set(comparison.facts.runs.note) == {"", "left out: another data set"}


def test_where_most_runs_are_is_home(tmp_path: Path) -> None:
    """By the runs that finished: four that failed elsewhere don't move it."""
    pair(tmp_path)
    for k in range(7):
        write_run(tmp_path / f"x{k}", "sgd", k, status="failed", epochs=2, hashes={"data": "0ther"})
    comparison = compare([str(tmp_path)], by=["optimizer"])
    assert comparison.words.violations[0].startswith(
        "7 runs were measured on another data set and are left out of every figure: x0"
    )
    assert comparison.judgement.ranking.failed.sum() == 0  # nor do they count as failures here
    assert comparison.judgement.ranking.n.to_list() == [3, 3]


def test_a_run_that_has_not_read_its_images_is_not_on_other_data(tmp_path: Path) -> None:
    pair(tmp_path)
    write_run(tmp_path / "new", "sgd", 3, status="running", hashes={"data": ""}, epochs=0)
    assert compare([str(tmp_path)], by=["optimizer"]).words.violations == []


def test_part_of_the_test_set_by_all(tmp_path: Path) -> None:
    pair(tmp_path, {"config": {"trainer.limit_test_batches": 2}})
    for seed in range(3):
        limit = {"trainer.limit_test_batches": 2}
        write_run(tmp_path / f"adam-{seed}", "adam", seed, config=limit, started=f"2026-01-01T0{seed}:00:00+00:00")
    comparison = compare([str(tmp_path)])
    assert comparison.words.violations == [] and ledger(comparison)["Test images"] == (
        True,
        "60 (limit_test_batches=2)",
    )


# Other code


@pytest.mark.parametrize(
    ("changes", "item", "text"),
    [
        ({"hashes": {"code": "0ther"}}, "Training code", "c0de (3 runs), 0ther (3 runs)"),
        ({"versions": {"torch": "2.11"}}, "Versions", "torch: 2.11, 2.15.0"),
        ({"versions": {"pytorch-lightning": ""}}, "Versions", "pytorch-lightning: 2.6.6, not recorded"),
    ],
)
def test_other_code_is_never_paired(tmp_path: Path, changes: dict[str, Any], item: str, text: str) -> None:
    comparison = compare([str(pair(tmp_path, changes))])
    assert comparison.words.violations == [
        "The runs come from 2 versions of the code or of PyTorch; only runs of one version are paired, and 1 of 1 pair "
        "has too few of those for a claim."
    ]
    row = comparison.judgement.differences.iloc[0]
    assert (row.n, row.verdict) == (0, "withheld")
    assert list(comparison.judgement.ranking["rank"]) == [1, 1] and list(comparison.judgement.ranking.n) == [3, 3]
    assert ledger(comparison)[item] == (False, text)
    assert comparison.words.answer == [
        "adam has the best mean (55.10 % test/accuracy), but nothing can be said of it against sgd: fewer than three "
        "of their runs share a seed and a version of the code."
    ]


def test_a_commit_counts_where_the_code_has_no_hash(tmp_path: Path) -> None:
    blank, commit = {"hashes": {"code": ""}}, "1" * 40
    folder = pair(tmp_path, blank | {"git": {"commit": commit, "dirty": True}})
    for seed in range(3):
        write_run(folder / f"adam-{seed}", "adam", seed, **blank, git={"commit": commit})
    comparison = compare([str(folder)])
    assert comparison.judgement.differences.verdict[0] == "withheld"
    assert ledger(comparison)["Training code"] == (False, "1111111111 (3 runs), 1111111111+ (3 runs)")
    assert ledger(comparison)["Commit"] == (False, "1111111111 (3 runs), 1111111111+ (3 runs)")


def test_another_commit_alone_is_no_other_code(tmp_path: Path) -> None:
    """A commit changes with every word of the documentation; the hash of the code does not."""
    comparison = compare([str(pair(tmp_path, {"git": {"commit": "1" * 40}}))])
    assert comparison.words.violations == [] and comparison.judgement.differences.verdict[0] == "better"
    assert ledger(comparison)["Commit"] == (False, "0000000000 (3 runs), 1111111111 (3 runs)")


def test_runs_of_each_version_are_paired_among_themselves(tmp_path: Path) -> None:
    for seed in range(6):
        code = {"hashes": {"code": "new" if seed > 2 else "old"}}
        write_run(tmp_path / f"a{seed}", "adam", seed, 0.55 + seed % 3 / 1000, **code)
        write_run(tmp_path / f"s{seed}", "sgd", seed, 0.50, **code)
    write_run(tmp_path / "r", "rmsprop", 0, 0.5, hashes={"code": "new"})
    comparison = compare([str(tmp_path)])
    pairs = comparison.judgement.differences.set_index(["a", "b"])
    assert (pairs.n["adam", "sgd"], pairs.verdict["adam", "sgd"]) == (6, "better")
    assert pairs.n["adam", "rmsprop"] == 0  # seed 0 of adam is of the old code
    assert comparison.words.violations == [
        "The runs come from 2 versions of the code or of PyTorch; only runs of one version are paired."
    ]


# Other machines


def test_times_of_two_devices_are_withheld(tmp_path: Path) -> None:
    plain = compare([str(pair(tmp_path / "a"))])
    device = {"name": "H200", "accelerator": "cuda"}
    comparison = compare([str(pair(tmp_path / "b", {"device": device}))])
    assert comparison.words.times_withheld == (
        "Times are withheld: they come from different machines (3 runs on a CPU, 1 thread; 3 runs on H200). Steps and "
        "epochs can be compared."
    )
    for column in ("best_seconds", "epoch_seconds", "seconds", "total_seconds"):
        assert comparison.facts.runs[column].isna().all(), column
    for column in ("best_seconds", "epoch_seconds"):
        assert comparison.judgement.ranking[column].isna().all() and plain.judgement.ranking[column].notna().all()
    assert comparison.facts.curves.seconds.isna().all()
    missed = comparison.judgement.targets[comparison.judgement.targets.reached < comparison.judgement.targets.n]
    assert len(missed) and comparison.judgement.targets.seconds.isna().all()
    assert list(comparison.judgement.targets.steps) == list(plain.judgement.targets.steps)
    assert list(comparison.judgement.ranking.best_epoch) == list(plain.judgement.ranking.best_epoch) == [5.0, 5.0]
    assert list(comparison.facts.runs.steps) == [30] * 6
    assert comparison.judgement.profile.equals(plain.judgement.profile)  # it counts steps
    assert comparison.words.answer == plain.words.answer and comparison.words.violations == []
    assert ledger(comparison)["Device"] == (False, "a CPU, 1 thread (3 runs), H200 (3 runs)")


def test_threads_make_another_device(tmp_path: Path) -> None:
    comparison = compare([str(pair(tmp_path, {}, {"device": {"threads": 2}}, {}))])
    assert "(5 runs on a CPU, 1 thread; 1 run on a CPU, 2 threads)" in comparison.words.times_withheld


def test_a_device_of_a_run_that_does_not_count(tmp_path: Path) -> None:
    pair(tmp_path)
    write_run(tmp_path / "x", "sgd", 3, status="failed", device={"name": "H200"})
    assert compare([str(tmp_path)]).words.times_withheld == ""


def test_a_long_name_is_shown_whole_and_a_hash_by_its_first_digits() -> None:
    name = "2 x Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz, "
    assert same(Item.DEVICE, [f"{name}48 threads", f"{name}96 threads"]).text == (
        f"{name}48 threads (1 run), {name}96 threads (1 run)"
    )
    assert same(Item.IMAGES, ["0123456789abcdef" * 4] * 2).text == "0123456789"


def test_hosts(tmp_path: Path) -> None:
    comparison = compare([str(pair(tmp_path, {"device": {"host": "there"}}))])
    assert ledger(comparison)["Host"] == (False, "here (3 runs), there (3 runs)")
    assert comparison.words.times_withheld == ""


DAY = "2026-01-02T03:00:"


@pytest.fixture
def at_the_same_time(tmp_path: Path) -> Callable[..., tuple[bool | None, str]]:
    """What the ledger says of runs that take 7 s by `seconds.total`; `started` is in whole seconds: 2 s are allowed."""

    def told(*started: str, devices: Sequence[dict[str, Any]] = ()) -> tuple[bool | None, str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for k, begun in enumerate(started):
            write_run(folder / str(k), seed=k, started=begun, device=devices[k] if devices else {"cores": "3"})
        return ledger(compare([str(folder)]))["Runs at the same time"]

    return told


def test_runs_that_overlap(at_the_same_time: Callable[..., tuple[bool | None, str]]) -> None:
    """All on one core."""
    told = at_the_same_time
    alone = (True, "none of these runs shared its host with another of them")
    waited = "began while another ran on the same host, with more threads than cores or on the same GPU: seconds then "
    one = (False, f"1 run {waited}include waiting")
    assert told(f"{DAY}00+00:00", f"{DAY}07+00:00") == told(f"{DAY}00+00:00", f"{DAY}05+00:00") == alone
    assert told(f"{DAY}00+00:00", f"{DAY}04+00:00") == one
    hosts = [{"cores": "3", "host": "here"}, {"cores": "3", "host": "there"}]
    assert told(f"{DAY}00+00:00", f"{DAY}04+00:00", devices=hosts) == alone
    assert told(f"{DAY}00Z", "2026-01-02T04:00:01+01:00") == one  # the same moment elsewhere
    assert told(f"{DAY}00Z", f"{DAY}01Z", f"{DAY}02Z")[1].startswith("2 runs began while another ran on the same host")
    assert told(f"{DAY}00Z", "yesterday") == told(f"{DAY}00Z", "") == (None, "not recorded by every run")


GPU = {"accelerator": "cuda", "cores": "0-15", "threads": 8}


@pytest.mark.parametrize(
    ("devices", "equal"),
    [
        ([{"cores": "0-1"}] * 2, True),
        ([{"cores": "0-1"}] * 3, False),
        ([{"cores": "0-3", "threads": 2}] * 2, True),
        ([{"cores": "0-3", "threads": 4}, {"cores": "0-3", "threads": 1}], False),
        ([{"cores": "0-3", "threads": 4}, {"cores": "4-7", "threads": 4}], True),  # as SLURM divides a host
        ([{"cores": "0-3", "threads": 2, "devices": 2}] * 2, False),
        ([{"cores": "0"}, {"cores": "0"}, {"cores": "1-9"}], False),  # one core is idle, and two runs share another
        ([{"cores": "0-1"}, {"cores": "0-1", "threads": 2}, {"cores": "0-9"}], False),
        ([{}, {}], None),
        ([{}, {"cores": "0-1"}], None),
        ([{**GPU, "gpu": "a"}, {**GPU, "gpu": "b"}], True),
        ([{**GPU, "gpu": "a"}, {**GPU, "gpu": "a"}], False),
        ([{**GPU, "gpu": "a"}, {**GPU, "gpu": "b", "cores": "0-7"}], True),
        ([GPU, GPU], None),
        ([{**GPU, "gpu": "a"}, {**GPU, "threads": 4, "devices": 2, "gpu": "b"}], None),  # on which other GPU?
    ],
)
def test_runs_that_overlap_on_cores_of_their_own(
    at_the_same_time: Callable[..., tuple[bool | None, str]], devices: list[dict[str, Any]], equal: bool | None
) -> None:
    found, text = at_the_same_time(*[f"{DAY}00Z"] * len(devices), devices=devices)
    assert found is equal
    assert {True: "of its own", False: "include waiting", None: "is not recorded"}[equal] in text


def test_only_those_who_run_at_that_moment_share(at_the_same_time: Callable[..., tuple[bool | None, str]]) -> None:
    """Three runs on two cores, never three at once; then one more that does wait."""
    two = {"cores": "0-1"}
    began = [f"{DAY}00Z", f"{DAY}02Z", f"{DAY}05Z", f"{DAY}06Z"]
    pool = at_the_same_time(*began[:3], devices=[two] * 3)
    assert pool == (True, "2 runs began while another ran on the same host, each on cores or a GPU of its own")
    more = at_the_same_time(*began, devices=[*[two] * 3, {**two, "threads": 2}])
    assert more[0] is False and "3 runs began" in more[1] and ", 1 of them with more threads than cores" in more[1]


# The test set


def test_evaluations_are_counted(tmp_path: Path) -> None:
    def read(run: str, times: int) -> None:
        (tmp_path / run / "evaluation").mkdir(exist_ok=True)
        lines = ["time,checkpoint", *["2026-01-02T03:00:00+00:00,best"] * times]
        (tmp_path / run / "evaluation/reads.csv").write_text("\n".join(lines) + "\n")

    def told() -> tuple[bool | None, str]:
        return ledger(compare([str(tmp_path)]))["Test set read"]

    pair(tmp_path, seeds=2)
    read("adam-0", 0)
    assert told() == (True, "once by each run")
    read("adam-0", 1)
    assert told() == (False, "once by 3 runs, 2 times by 1 run")
    for run in ("adam-0", "adam-1", "sgd-0", "sgd-1"):
        read(run, 2)
    assert told() == (False, "3 times by each run")
    (tmp_path / "adam-0/evaluation/reads.csv").write_bytes(b"\xff\xfe")
    assert told() == (False, "once by 1 run, 3 times by 3 runs")


# Seeds, budgets, settings


def test_unequal_seeds(tmp_path: Path) -> None:
    pair(tmp_path)
    write_run(tmp_path / "more", "adam", 7, started="2026-02-01T00:00:00+00:00")
    claims = ledger(compare([str(tmp_path)]))
    assert claims["Seeds"] == (False, "adam: 0, 1, 2, 7; sgd: 0, 1, 2. Pairs use the seeds that both have.")


def test_many_seeds_and_configurations(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", {"adam": 0.5}, seeds=range(25))
    assert ledger(compare([str(tmp_path / "a")]))["Seeds"][1].endswith("17, 18, 19 … (25)")
    write_sweep(tmp_path / "b", dict.fromkeys("abcdefg", 0.5), seeds=(0,))
    text = ledger(compare([str(tmp_path)]))["Seeds"][1]
    assert text.startswith("adam: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; a: 0; ") and "; and 2 more. Pairs use" in text


def test_weights_and_batches_that_differ(tmp_path: Path) -> None:
    comparison = compare([str(pair(tmp_path, {"hashes": {"initial_weights": "other"}}, {}, {}))])
    claims = ledger(comparison)
    assert claims["Initial weights"] == (False, "differ between configurations at 1 of 3 seeds")
    assert claims["Batch order"][0] is True


def test_budgets(tmp_path: Path) -> None:
    changes = {"config": {"trainer.max_epochs": 9, "data.batch_size": 64}, "parameters": {"trainable": 7}}
    claims = ledger(compare([str(pair(tmp_path, changes))], by=["optimizer"]))
    assert claims["Most epochs allowed"] == (False, "5 (3 runs), 9 (3 runs)")
    assert claims["Batch size"] == (False, "50 (3 runs), 64 (3 runs)")
    assert claims["Trainable parameters"] == (False, "1000 (3 runs), 7 (3 runs)")
    implied = "data.batch_size, optimizer.lr, trainer.max_epochs vary only along with optimizer"
    assert claims["Settings that come along"] == (False, f"{implied}. optimizer.lr: adam 0.001, sgd 0.04")


def test_trials(tmp_path: Path) -> None:
    def write(name: str, *rates: float) -> None:
        for lr in rates:
            write_run(tmp_path / f"{name}-{lr}", name, overrides=[f"optimizer.lr={lr}"], config={"optimizer.lr": lr})

    write("adam", 0.1, 0.01)
    write("sgd", 0.1, 0.01)
    assert ledger(compare([str(tmp_path)]))["Configurations tried"] == (True, "adam 2, sgd 2")
    write("sgd", 1.0)
    assert ledger(compare([str(tmp_path)]))["Configurations tried"] == (False, "adam 2, sgd 3")
    assert "Configurations tried" not in ledger(compare([str(tmp_path)], by=["optimizer"]))


def test_records_that_tell_little(tmp_path: Path) -> None:
    for k, name in enumerate(("adam", "sgd")):
        record = write_run(tmp_path / name, name, k)
        for key in ("device", "versions", "git", "hashes", "images", "parameters", "tested"):
            setattr(record, key, {})
        record.started, record.monitor = "", ""
        record.config = {"trainer": 3}
        record.write(tmp_path / name)
    claims = ledger(compare([str(tmp_path)]))
    unknown = {item for item, (equal, text) in claims.items() if equal is None and text.startswith("not recorded")}
    assert unknown == set(claims) - {"Seeds", "Test set read", "Network"}
    assert claims["Initial weights"] == (None, "not recorded by every run")
    write_run(tmp_path / "rmsprop", "rmsprop", 0)
    claims = ledger(compare([str(tmp_path)]))
    assert claims["Images"] == (None, "da7a (hash of all images and labels); not recorded by 2 runs")
    assert claims["Versions"][0] is False and claims["Versions"][1].startswith("python: 3.11.7, not recorded; ")


def test_each_sentence_reads_well(tmp_path: Path) -> None:
    """No `1 runs`, no Python in the text."""
    folder = pair(tmp_path, {"device": {"name": "H200"}, "hashes": {"code": "x", "initial_weights": "y"}}, {}, seeds=2)
    write_run(folder / "odd", "sgd", 9, hashes={"split": "z"})
    comparison = compare([str(folder)])
    told = (
        [claim.text for claim in comparison.judgement.ledger]
        + comparison.words.violations
        + comparison.words.notes
        + comparison.words.answer
    )
    for sentence in [*told, comparison.words.times_withheld]:
        for mistake in ("1 runs", "1 seeds", "1 pairs", "1 threads", "None", "nan", "('", "['", "  ", ".."):
            assert f" {mistake}" not in f" {sentence}", sentence


def test_unequal_budgets_and_unpaired_runs_are_violations(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / f"a{seed}", "adam", seed, 0.5 + seed / 1000, epochs=2, overrides=["trainer.max_epochs=2"])
        hashes = {"initial_weights": f"other{seed}", "batch_order": f"b{seed}"}
        write_run(tmp_path / f"s{seed}", "sgd", seed, 0.6, epochs=12, hashes=hashes)
    violations = " ".join(compare([str(tmp_path)]).words.violations)
    assert "Most epochs allowed: not equal (2 (3 runs), 12 (3 runs)). No claim is made across them." in violations
    (pair,) = compare([str(tmp_path)]).judgement.differences.itertuples()
    assert pair.verdict == "withheld" and pair.difference > 0.09 and np.isnan([pair.p, pair.low, pair.p_adjusted]).all()
    assert compare([str(tmp_path)]).words.answer[0].endswith("their runs were allowed different numbers of epochs.")
    assert compare([str(tmp_path)], by=["trainer.max_epochs"]).judgement.differences.verdict[0] == "better"
    assert "Initial weights: not equal" in violations and "Batch order" not in violations
    by_epochs = compare([str(tmp_path)], by=["trainer.max_epochs"]).words.violations
    assert not any("Most epochs" in sentence for sentence in by_epochs)


@pytest.mark.parametrize(
    ("key", "silenced"), [("trainer.max_epochs", True), ("trainer.precision", False), ("trainer", True)]
)
def test_only_the_key_itself_or_its_group_explains_unequal_epochs(tmp_path: Path, key: str, silenced: bool) -> None:
    """Unequal epochs are no mistake where epochs are compared; where precision is, they are one."""
    for seed in range(3):
        for epochs, precision in ((5, "32-true"), (9, "16-mixed")):
            write_run(
                tmp_path / f"{precision}-{seed}",
                "adam",
                seed,
                0.5 + seed / 1000,
                config={"trainer.max_epochs": epochs, "trainer.precision": precision},
                choices={"trainer": precision},
                overrides=[f"trainer.precision={precision}", f"trainer.max_epochs={epochs}", f"trainer={precision}"],
            )
    comparison = compare([str(tmp_path)], by=[key])
    assert ledger(comparison)["Most epochs allowed"] == (False, "9 (3 runs), 5 (3 runs)")
    told = "Most epochs allowed: not equal (9 (3 runs), 5 (3 runs)). No claim is made across them."
    assert (told not in comparison.words.violations) == silenced
    assert [claim.item for claim in comparison.judgement.unequal] == [Item.MAX_EPOCHS] * (not silenced)


@pytest.mark.parametrize(
    ("item", "by", "silenced"),
    [
        (Item.NETWORK, "model.hidden_sizes", True),
        (Item.NETWORK, "model", True),
        (Item.NETWORK, "experiment", True),
        (Item.NETWORK, "model_size", False),
        (Item.INITIAL_WEIGHTS, "model", False),  # within each network they must be the same
        (Item.INITIAL_WEIGHTS, "data.batch_size", False),
        (Item.PARAMETERS, "model", False),
        (Item.BATCH_ORDER, "data.batch_size", True),
        (Item.BATCH_ORDER, "data.normalization", False),
        (Item.BATCH_SIZE, "data", True),
        (Item.CHOSEN_BY, "monitor", True),
        (Item.WEIGHTS_TESTED, "test_weights_of", False),
        (Item.TEST_SET_READ, "data", False),
        (Item.HOST, "optimizer", True),  # this one is no violation at all
    ],
)
def test_what_explains_that_something_is_not_equal(item: Item, by: str, silenced: bool) -> None:
    claim = Claim(item, False, "a and b")
    assert unfair([claim], ["optimizer", by]) == ([] if silenced else [claim])
    assert unfair([Claim(item, True, "a"), Claim(item, None, "")], ["optimizer"]) == []


def test_where_batches_differ_times_are_counted_in_epochs(tmp_path: Path) -> None:
    """A step of a larger batch sees more images, so the fewest steps would be no merit."""
    for seed in range(3):
        for size in (50, 100):
            settings = {"overrides": [f"data.batch_size={size}"], "config": {"data.batch_size": size}}
            write_run(tmp_path / f"{size}-{seed}", "adam", seed, 0.5, **settings)
    assert compare([str(tmp_path)]).judgement.time_unit == "epochs"
    assert compare([str(tmp_path / "50-0"), str(tmp_path / "50-1")]).judgement.time_unit == "steps"


# Networks


def architectures(folder: Path, changes: Mapping[tuple[str, str, int], dict[str, Any]] | None = None) -> Path:
    """Two networks with two optimizers; `changes` are of the runs of a network, an optimizer and a seed."""
    sizes = {"mlp": 1000, "convnet": 300}
    for k, (model, name, seed) in enumerate(product(sizes, ("adam", "sgd"), range(3))):
        settings: dict[str, Any] = {
            "choices": {"model": model},
            "overrides": [f"model={model}"],
            "parameters": {"trainable": sizes[model]},
            "hashes": {"initial_weights": f"{model}{seed}"},
            "config": {"model": {"channels": [32]} if model == "convnet" else {"layers": ["64 relu"], "dropout": 0.2}},
        }
        for key, change in (changes or {}).get((model, name, seed), {}).items():
            settings[key] = settings[key] | change if isinstance(change, dict) else change
        accuracy = 0.5 + 0.1 * (model == "convnet") + ((7 * k) % 5) / 1000
        write_run(folder / f"{model}-{name}-{seed}", name, seed, accuracy, **settings)
    return folder


def test_other_networks_have_other_weights(tmp_path: Path) -> None:
    comparison = compare([str(architectures(tmp_path))])
    assert comparison.facts.by == ["model", "optimizer"] and comparison.words.violations == []
    claims = ledger(comparison)
    assert claims["Network"] == (False, "convnet (6 runs), mlp (6 runs)")
    assert claims["Initial weights"] == (
        True,
        "the same for every configuration of one network at each of 3 seeds (hashes)",
    )
    assert claims["Trainable parameters"] == (True, "the same in every run of one network: convnet 300, mlp 1000")


def test_within_one_network_the_weights_must_match(tmp_path: Path) -> None:
    odd = {("convnet", "sgd", 1): {"hashes": {"initial_weights": "other"}}}
    comparison = compare([str(architectures(tmp_path, odd))])
    assert ledger(comparison)["Initial weights"] == (
        False,
        "of convnet: differ between configurations at 1 of 3 seeds",
    )
    assert [claim.item for claim in comparison.judgement.unequal] == [Item.INITIAL_WEIGHTS]


def test_within_one_network_the_number_of_parameters_must_match(tmp_path: Path) -> None:
    odd = {("convnet", "sgd", seed): {"parameters": {"trainable": 301}} for seed in range(3)}
    comparison = compare([str(architectures(tmp_path / "a", odd))])
    assert ledger(comparison)["Trainable parameters"] == (False, "300 (3 runs), 301 (3 runs), 1000 (6 runs)")
    assert [claim.item for claim in comparison.judgement.unequal] == [Item.PARAMETERS]
    unknown = {("convnet", "sgd", 0): {"parameters": {"trainable": None}}}
    comparison = compare([str(architectures(tmp_path / "b", unknown))])
    assert ledger(comparison)["Trainable parameters"] == (
        None,
        "the same in every run of one network: convnet 300, mlp 1000; not recorded by 1 run",
    )
    assert comparison.words.violations == []


def test_networks_that_nobody_compares(tmp_path: Path) -> None:
    """Averaged over the same networks, optimizers can be compared; each with a network of its own, they cannot."""
    comparison = compare([str(architectures(tmp_path))], by=["optimizer"])
    assert comparison.words.violations == [] and comparison.facts.averaged == ["model"]
    assert ledger(comparison)["Network"] == (True, "the same 2 in every configuration: convnet, mlp")
    mixed = [f"{tmp_path}/mlp-adam-*", f"{tmp_path}/convnet-sgd-*"]
    assert compare(mixed, by=["optimizer"]).words.violations == [
        "Network: not equal (convnet (3 runs), mlp (3 runs)). What is claimed here may be due to that."
    ]
    assert compare(mixed).words.violations == [], "what was typed is compared"
