"""Every column of a comparison, computed again from the files alone; what counts, what is compared, and by what."""

import csv
import json
import math
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.times import choose_targets
from optbench.comparison.verdicts import Family, Verdict
from sweeps import epoch_rows, write_run, write_sweep

ALLOWED = {"trainer.max_epochs": 6}  # whatever a run came to

# Everything again, by hand


class Raw:
    """A run as its files tell it."""

    def __init__(self, folder: Path) -> None:
        self.summary = json.loads((folder / "summary.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            self.rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        self.name = self.summary["choices"]["optimizer"]
        self.seed = self.summary["seed"]
        self.finished = self.summary["status"] == "completed"

    def first(self, target: float, metric: str) -> tuple[float, float, float]:
        """Epoch, step and seconds at which validation was that good."""
        for row in self.rows:
            if row[metric] <= target if metric.endswith("loss") else row[metric] >= target:
                return row["epoch"], row["step"], row["seconds"]
        return math.inf, math.inf, math.inf


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four optimizers: unequal seeds, two runs that diverged, one that was best before its end."""
    folder = tmp_path_factory.mktemp("sweep")
    generator = np.random.default_rng(5)
    plan = {
        "adam": (0.550, range(5)),
        "sgd": (0.500, range(5)),
        "rmsprop": (0.543, range(4)),
        "adamw": (0.55, (1, 2, 4)),
    }
    for name, (mean, seeds) in plan.items():
        for seed in seeds:
            accuracy = round(mean + 0.02 * (seed - 2) / 10 + 0.004 * float(generator.standard_normal()), 4)
            status = "diverged" if (name, seed) in (("rmsprop", 3), ("sgd", 0)) else "completed"
            epochs = 2 if status == "diverged" else 5 + seed % 2
            write_run(folder / f"{name}-{seed}", name, seed, accuracy, epochs, status, config=ALLOWED)
    early = epoch_rows(0.547, 6, 0.001)[2]
    changes = {"best": early, "tested": {"epoch": 3}, "peak_memory_mb": {"process": 350.0}}
    write_run(folder / "adam-1", "adam", 1, 0.547, 6, config=ALLOWED, **changes)
    return folder


@pytest.fixture(scope="module")
def raw(sweep: Path) -> list[Raw]:
    return [Raw(folder) for folder in sweep.iterdir()]


@pytest.fixture(scope="module", params=["test/accuracy", "test/loss"])
def comparison(sweep: Path, request: pytest.FixtureRequest) -> Comparison:
    return compare([str(sweep)], metric=request.param)


def of(raw: Sequence[Raw], name: str, metric: str) -> dict[int, float]:
    return {run.seed: run.summary["test"][metric] for run in raw if run.name == name and run.finished}


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    mean, n = sum(values) / len(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def winsorized_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Tukey and McLaughlin (1963), Yuen (1974), a quarter from each side."""
    x, cut = sorted(values), len(values) // 4
    kept = x[cut : len(x) - cut]
    winsorized = [kept[0]] * cut + kept + [kept[-1]] * cut
    middle = sum(kept) / len(kept)
    squares = sum((value - statistics.mean(winsorized)) ** 2 for value in winsorized)
    half = stats.t.ppf(0.975, len(kept) - 1) * math.sqrt(squares / len(kept) / (len(kept) - 1))
    return middle, middle - half, middle + half


def test_ranking(comparison: Comparison, raw: list[Raw]) -> None:
    metric, validation = comparison.facts.metric, comparison.facts.validation
    assert set(comparison.judgement.ranking.configuration) == {"adam", "sgd", "rmsprop", "adamw"}
    for row in comparison.judgement.ranking.itertuples():
        mine = [run for run in raw if run.name == row.configuration]
        done = [run for run in mine if run.finished]
        values = list(of(raw, row.configuration, metric).values())
        assert row.n == row.completed == len(values)
        assert row.diverged == len(mine) - len(done) == int(row.configuration in ("rmsprop", "sgd"))
        assert row.failed == row.interrupted == row.running == 0
        assert (row.mean, row.low, row.high) == pytest.approx(t_interval(values), rel=1e-9)
        assert row.sd == pytest.approx(statistics.stdev(values))
        assert (row.iqm, row.iqm_low, row.iqm_high) == pytest.approx(winsorized_interval(values), rel=1e-6)
        best = [run.rows[2 if (run.name, run.seed) == ("adam", 1) else -1] for run in done]
        train = metric.replace("test/", "train/")
        gaps = [row_[train] - run.summary["test"][metric] for row_, run in zip(best, done, strict=True)]
        assert row.validation == pytest.approx(statistics.mean(r[validation] for r in best))
        assert row.gap == pytest.approx(statistics.mean(gaps))
        assert row.best_epoch == pytest.approx(statistics.mean(r["epoch"] for r in best))
        assert row.best_seconds == pytest.approx(statistics.mean(r["seconds"] for r in best))
        assert row.epoch_seconds == 1.5
        assert row.memory_mb == (310.0 if row.configuration == "adam" else 300.0)
    means = list(comparison.judgement.ranking["mean"])
    assert means == sorted(means, reverse=comparison.facts.higher_is_better)


def residuals(raw: Sequence[Raw], metric: str) -> tuple[float, int]:
    """What configuration and seed leave over, by fitting one after the other until nothing moves."""
    values = {(name, seed): y for name in NAMES for seed, y in of(raw, name, metric).items()}
    seeds = sorted({seed for _, seed in values})
    by_name, by_seed = dict.fromkeys(NAMES, 0.0), dict.fromkeys(seeds, 0.0)
    for _ in range(500):
        for name in NAMES:
            by_name[name] = statistics.mean(y - by_seed[s] for (n, s), y in values.items() if n == name)
        for seed in seeds:
            by_seed[seed] = statistics.mean(y - by_name[n] for (n, s), y in values.items() if s == seed)
    squares = sum((y - by_name[n] - by_seed[s]) ** 2 for (n, s), y in values.items())
    df = len(values) - len(NAMES) - len(seeds) + 1
    return squares / df, df


NAMES = ("adam", "sgd", "rmsprop", "adamw")


def test_differences(comparison: Comparison, raw: list[Raw]) -> None:
    metric, sign = comparison.facts.metric, 1 if comparison.facts.higher_is_better else -1
    shared, df = residuals(raw, metric)
    assert df == 15 - 4 - 5 + 1
    expected: dict[frozenset[str], dict] = {}
    for a, b in combinations(NAMES, 2):
        mine, theirs = of(raw, a, metric), of(raw, b, metric)
        gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        error = math.sqrt(max(statistics.variance(gaps), 2 * shared) / len(gaps))
        p = 2 * stats.t.sf(abs(statistics.mean(gaps)) / error, df)
        expected[frozenset((a, b))] = {"a": a, "gaps": gaps, "error": error, "p": p, "p_adjusted": math.nan}
    tested = sorted((pair for pair in expected.values() if len(pair["gaps"]) > 2), key=lambda pair: pair["p"])
    assert len(tested) == 4  # two pairs share two seeds only: a family with holes, so Holm 1979
    running = 0.0
    for k, pair in enumerate(tested):
        running = max(running, (4 - k) * pair["p"])
        pair["p_adjusted"] = min(1.0, running)

    assert len(comparison.judgement.differences) == 6
    for row in comparison.judgement.differences.itertuples():
        pair = expected[frozenset((row.a, row.b))]
        gaps = pair["gaps"] if row.a == pair["a"] else [-gap for gap in pair["gaps"]]
        mean, half = statistics.mean(gaps), stats.t.ppf(1 - 0.025 / 4, df) * pair["error"]
        assert row.n == len(gaps)
        assert sign * row.difference > 0  # the better one first
        if len(gaps) < 3:
            assert (
                row.verdict == "withheld" and math.isnan(row.p) and math.isnan(row.low) and math.isnan(row.detectable)
            )
            continue
        low, high = mean - half, mean + half
        if pair["p_adjusted"] < 0.05:  # never contradicts the claim
            low, high = (max(low, 0), high) if mean > 0 else (low, min(high, 0))
        assert (row.difference, row.low, row.high) == pytest.approx((mean, low, high), rel=1e-6)
        assert (row.p, row.p_adjusted) == pytest.approx((pair["p"], pair["p_adjusted"]), rel=1e-6)
        assert row.improvement == sum(sign * gap > 0 for gap in gaps) / len(gaps)
        wilcoxon = stats.wilcoxon(gaps, method="exact").pvalue if len(gaps) > 2 else math.nan
        assert row.p_wilcoxon == pytest.approx(wilcoxon, nan_ok=True)
        assert row.verdict == ("better" if pair["p_adjusted"] < 0.05 else "undecided")
        assert power(row.detectable / pair["error"], df) == pytest.approx(0.81, abs=0.01)
        if row.verdict == "undecided":
            assert row.seeds_low < row.seeds_high
        else:
            assert math.isnan(row.seeds_low)
    verdicts = {(row.a, row.b): row.verdict for row in comparison.judgement.differences.itertuples()}
    assert verdicts["adam", "sgd"] == verdicts["adamw", "sgd"] == "better" and "undecided" in verdicts.values()


def power(errors: float, df: int) -> float:
    """How often one of four true differences of so many standard errors is found at Holm's first step."""
    return float(stats.nct.sf(stats.t.ppf(1 - 0.025 / 4, df), df, errors))


def test_ranks_are_one_more_than_the_configurations_that_are_claimed_better(comparison: Comparison) -> None:
    claims = comparison.judgement.differences[comparison.judgement.differences.verdict == "better"]
    for row in comparison.judgement.ranking.itertuples():
        assert row.rank == 1 + (claims.b == row.configuration).sum()
    assert list(comparison.judgement.ranking["rank"]) == sorted(comparison.judgement.ranking["rank"])
    assert comparison.judgement.ranking.set_index("configuration")["rank"]["sgd"] > 1


def test_two_configurations_are_a_paired_t_test(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.53, "sgd": 0.5}, seeds=range(6), sd=0.02)
    raw = [Raw(run) for run in folder.iterdir()]
    mine, theirs = (of(raw, name, "test/accuracy") for name in ("adam", "sgd"))
    seeds = sorted(mine)
    test = stats.ttest_rel([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    row = compare([str(folder)]).judgement.differences.iloc[0]
    interval = test.confidence_interval(0.95)
    assert (row.a, row.b, row.n) == ("adam", "sgd", 6)
    assert (row.p, row.p_adjusted, row.low, row.high) == pytest.approx((test.pvalue, test.pvalue, *interval), rel=1e-6)


def test_targets_and_profile(comparison: Comparison, raw: list[Raw]) -> None:
    validation = comparison.facts.validation
    loss = validation == "val/loss"
    levels = list(dict.fromkeys(comparison.judgement.targets.target))
    assert levels == ([1.2, 1.1, 1.0, 0.9] if loss else [0.4, 0.45, 0.5, 0.55])
    assert len(comparison.judgement.targets) == 4 * len(levels)
    for row in comparison.judgement.targets.itertuples():
        mine = [
            run for run in raw if run.name == row.configuration
        ]  # those that diverged too: they may have reached it
        times = [run.first(row.target, validation) for run in mine]
        assert row.n == len(mine) and row.reached == sum(math.isfinite(epoch) for epoch, _, _ in times)
        for k, key in enumerate(("epochs", "steps", "seconds")):
            assert getattr(row, key) == statistics.median(time[k] for time in times)
    assert comparison.judgement.targets.reached.min() == 0 and math.isinf(comparison.judgement.targets.steps.max())

    ratios: dict[str, list[float]] = {name: [] for name in NAMES}
    for target in levels:
        for seed in range(5):
            steps = {run.name: run.first(target, validation)[1] for run in raw if run.seed == seed}
            best = min(steps.values())
            if math.isfinite(best):
                for name, cost in steps.items():
                    ratios[name].append(cost / best)
    last = max(ratio for found in ratios.values() for ratio in found if math.isfinite(ratio))
    for name in NAMES:
        corners = comparison.judgement.profile[comparison.judgement.profile.configuration == name]
        assert list(corners.ratio) == sorted({1.0, last, *(r for r in ratios[name] if math.isfinite(r))})
        shares = [sum(r <= ratio for r in ratios[name]) / len(ratios[name]) for ratio in corners.ratio]
        assert list(corners.fraction) == pytest.approx(shares)


def test_curves(comparison: Comparison, raw: list[Raw]) -> None:
    assert comparison.facts.curve_metrics == ["val/accuracy", "val/loss", "train/loss", "lr"]
    assert len(comparison.facts.curves) == sum(len(run.rows) for run in raw)
    for run in raw:
        mine = comparison.facts.curves[
            (comparison.facts.curves.configuration == run.name) & (comparison.facts.curves.seed == run.seed)
        ]
        for key in ("epoch", "step", "seconds", *comparison.facts.curve_metrics):
            assert list(mine[key]) == [row[key] for row in run.rows]


def test_sensitivity(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rates = {"adam": (0.0001, 0.001, 0.01), "sgd": (0.01, 0.1, 1.0)}
    peaks = {"adam": (0.50, 0.54, 0.51), "sgd": (0.48, 0.50, 0.53)}
    values: dict[tuple[str, float], list[float]] = {}
    for name, lrs in rates.items():
        for lr, mean in zip(lrs, peaks[name], strict=True):
            for seed in range(3):
                accuracy = round(mean + 0.002 * float(generator.standard_normal()), 4)
                status = "diverged" if (name, lr, seed) == ("sgd", 1.0, 2) else "completed"
                write_run(
                    tmp_path / f"{name}-{lr}-{seed}",
                    name,
                    seed,
                    accuracy,
                    status=status,
                    overrides=[f"optimizer.lr={lr}"],
                    config={"optimizer.lr": lr},
                )
                if status == "completed":
                    values.setdefault((name, lr), []).append(accuracy)
    (found,) = compare([str(tmp_path)]).judgement.sensitivities
    assert found.factor == "optimizer.lr" and found.log and len(found.points) == 6
    for row in found.points.itertuples():
        mine = values[str(row.line), row.x]
        assert (row.n, row.diverged) == (len(mine), 3 - len(mine))
        assert (row.mean, row.low, row.high) == pytest.approx(t_interval(mine))
        assert row.chosen_by == pytest.approx(statistics.mean(mine) + 0.005)
        assert row.best == ((row.line, row.x) in (("adam", 0.001), ("sgd", 0.1)))  # 1.0 is better but diverged once
    assert found.edges == []


# What is compared


def test_names_and_natural_order(tmp_path: Path) -> None:
    for k, (name, layers, lr, seed) in enumerate(
        [("adam", 2, 0.0001, 0), ("adam", 10, 0.0001, 0), ("sgd", 2, 1e-05, 0), ("sgd", 10, 1e-05, 1)]
    ):
        typed = [f"optimizer.lr={lr}", f"model.layers={layers}"]
        write_run(tmp_path / f"{k}", name, seed, overrides=typed, config={"optimizer.lr": lr, "model.layers": layers})
    comparison = compare([str(tmp_path)])
    assert comparison.facts.by == ["optimizer", "model.layers"]
    assert list(comparison.facts.runs.configuration) == [
        "adam layers=2",
        "adam layers=10",
        "sgd layers=2",
        "sgd layers=10",
    ]
    assert list(comparison.facts.runs["model.layers"]) == ["2", "10", "2", "10"]
    by_rate = compare([str(tmp_path)], by=["optimizer.lr"])  # implied keys can be asked for
    assert list(by_rate.facts.runs.configuration) == ["lr=0.0001"] * 2 + ["lr=1e-05"] * 2
    assert by_rate.facts.averaged == ["model.layers"]  # the rate fixes the optimizer
    assert comparison.facts.hues == {
        name: name.partition(" ")[0] for name in comparison.judgement.ranking.configuration
    }
    assert set(by_rate.facts.hues.values()) == {"lr=0.0001", "lr=1e-05"}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False], ["bias=true", "bias=false"]),
        ([None, 0.5], ["bias=null", "bias=0.5"]),
        ([1234567, 1234568], ["bias=1234567", "bias=1234568"]),
        ([0.1, 0.10000001], ["bias=0.1", "bias=0.10000001"]),
        ([[2, 3], [2]], ["bias=[2, 3]", "bias=[2]"]),
        (["<script>", 'it\'s, "a=b"\nü'], ["bias=<script>", 'bias=it\'s, "a=b"\nü']),
    ],
)
def test_values_in_names(tmp_path: Path, values: list, names: list[str]) -> None:
    for k, value in enumerate(values):
        write_run(tmp_path / str(k), overrides=[f"model.bias={value}"], config={"model.bias": value})
    comparison = compare([str(tmp_path)])
    assert list(comparison.facts.runs.configuration) == names and list(comparison.judgement.ranking.n) == [1, 1]
    assert comparison.facts.runs.overrides[1] == f"optimizer=adam, seed=0, model.bias={values[1]}"


def test_words_that_are_not_enough(tmp_path: Path) -> None:
    for k, (a, b) in enumerate([(1, 1), (1, 2), (2, 1)]):
        write_run(tmp_path / str(k), overrides=["a.rate=", "b.rate="], config={"a.rate": a, "b.rate": b})
    names = ["a.rate=1 b.rate=1", "a.rate=1 b.rate=2", "a.rate=2 b.rate=1"]
    assert list(compare([str(tmp_path)]).facts.runs.configuration) == names


def test_keys_that_are_called_like_columns(tmp_path: Path) -> None:
    for k in range(4):
        own = {"note": f"try {k // 2}", "configuration": k // 2, "used": 0, "metric": k // 2, "run": k // 2}
        write_run(tmp_path / str(k), seed=k % 2, overrides=[f"+{key}=…" for key in own], config=own)
    comparison = compare([str(tmp_path)], by=["note"])
    assert list(comparison.facts.runs.configuration) == ["note=try 0"] * 2 + ["note=try 1"] * 2
    assert list(comparison.facts.runs["note="]) == ["try 0", "try 0", "try 1", "try 1"]
    assert list(comparison.facts.runs.note) == [""] * 4 and comparison.facts.runs.used.all()
    assert len(compare([str(tmp_path)]).facts.by) == 4


def test_by_a_part_of_what_varies(tmp_path: Path) -> None:
    """The rest is averaged at each seed: three seeds are three samples, however many runs they had."""
    accuracies = {}
    for k, (name, dropout, seed) in enumerate(
        (name, dropout, seed) for name in ("adam", "sgd") for dropout in (0.0, 0.5) for seed in (0, 1, 2)
    ):
        accuracies[name, dropout, seed] = 0.5 + 0.01 * ((7 * k) % 5)
        write_run(
            tmp_path / str(k),
            name,
            seed,
            accuracies[name, dropout, seed],
            overrides=[f"model.dropout={dropout}"],
            config={"model.dropout": dropout},
        )
    assert compare([str(tmp_path)]).facts.by == ["optimizer", "model.dropout"]
    comparison = compare([str(tmp_path)], by=["optimizer", "optimizer"])
    assert (
        comparison.facts.by == ["optimizer"]
        and comparison.facts.averaged == ["model.dropout"]
        and comparison.words.violations == []
    )
    assert "model.dropout also varies and is averaged at each seed." in comparison.words.notes
    for row in comparison.judgement.ranking.itertuples():
        means = [(accuracies[row.configuration, 0.0, s] + accuracies[row.configuration, 0.5, s]) / 2 for s in range(3)]
        assert row.n == 3 and row.completed == 6
        assert (row.mean, row.low, row.high) == pytest.approx(t_interval(means))
    (tmp_path / "11/summary.json").unlink()
    (tmp_path / "8/summary.json").unlink()
    (tmp_path / "10/summary.json").unlink()
    (tmp_path / "9/summary.json").unlink()  # sgd now has dropout 0 alone
    assert compare([str(tmp_path)], by=["optimizer"]).words.violations == [
        "Not every configuration has the same values of model.dropout, over which its figures are averages."
    ]


def test_by_what_cannot_be_compared(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.5, "sgd": 0.4}, seeds=(0, 1))
    there, kept = " What varies: optimizer.", "it follows the seed, or says where and how a run is kept."
    for key, words in {
        "seed": "by=seed: seeds are the samples, not what is compared.",
        "optimizr": "by=optimizr is no key of these runs; did you mean optimizer?",
        "foo": "by=foo is no key of these runs.",
        "model.dropout": "by=model.dropout does not vary: it is 0.2 in every run.",
        "model": "by=model does not vary: it is mlp in every run.",
        "data.order_seed": f"by=data.order_seed is not compared: {kept}",
        "output_dir": f"by=output_dir is not compared: {kept}",
    }.items():
        with pytest.raises(ValueError) as error:
            compare([str(folder)], by=[key])
        assert str(error.value) == words + there


def test_baseline(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.55, "sgd": 0.5, "rmsprop": 0.45}, seeds=range(4))
    plain, seen = compare([str(folder)]), compare([str(folder)], baseline="sgd")
    assert [(row.a, row.b, row.verdict) for row in seen.judgement.differences.itertuples()] == [
        ("adam", "sgd", "better"),
        ("rmsprop", "sgd", "worse"),
    ]
    every = compare([str(folder)], baseline="sgd", pairs="all")
    assert list(every.judgement.differences.a) == ["adam", "rmsprop", "adam"]
    assert (seen.judgement.family, every.judgement.family) == (Family.BASELINE, Family.ALL)
    mine = plain.judgement.differences.set_index(["a", "b"]).loc[("sgd", "rmsprop")]
    turned = every.judgement.differences.set_index(["a", "b"]).loc[("rmsprop", "sgd")]
    assert (turned.difference, turned.low, turned.high) == (-mine.difference, -mine.high, -mine.low)
    assert (turned.improvement, mine.improvement) == (0.0, 1.0) and turned.p_adjusted == mine.p_adjusted
    pd.testing.assert_frame_equal(plain.judgement.ranking, seen.judgement.ranking)
    with pytest.raises(ValueError) as error:
        compare([str(folder)], baseline="smd")
    assert str(error.value) == "baseline=smd is no configuration here. There are: adam, sgd, rmsprop."
    with pytest.raises(ValueError, match=r"baseline=adan is no configuration here; did you mean adam\?"):
        compare([str(folder)], baseline="adan")


# What counts


def test_a_run_that_was_repeated(tmp_path: Path) -> None:
    """The newest that ended by itself counts, wherever its folder is; the others are named."""
    at = {"early": "2026-01-01T00:00:00+00:00", "late": "2026-02-01T00:00:00+00:00"}
    write_run(tmp_path / "z-first", "adam", 0, 0.1, config=ALLOWED, started=at["early"])
    write_run(tmp_path / "a-second", "adam", 0, 0.9, config=ALLOWED, started=at["late"])
    write_run(tmp_path / "b-failed", "adam", 1, status="failed", epochs=0, config=ALLOWED, started=at["late"])
    write_run(
        tmp_path / "c-again", "adam", 1, 0.8, config=ALLOWED, started=at["early"]
    )  # also where the clock went wrong
    write_run(tmp_path / "d", "sgd", 0, 0.5, config=ALLOWED)
    write_run(tmp_path / "e-blown", "sgd", 1, 0.5, epochs=2, status="diverged", config=ALLOWED, started=at["late"])
    write_run(tmp_path / "f-before", "sgd", 1, 0.5, config=ALLOWED, started=at["early"])
    write_run(tmp_path / "g", "rmsprop", 0, status="failed", epochs=0, config=ALLOWED)
    write_run(tmp_path / "h", "rmsprop", 0, status="interrupted", epochs=0, config=ALLOWED)
    comparison = compare([str(tmp_path)])
    runs = comparison.facts.runs.set_index("run")
    used = {"a-second", "c-again", "d"}
    assert set(runs.index[runs.used]) == used
    assert runs.note["z-first"] == "repeated by a-second"
    assert runs.note["b-failed"] == "no metrics.csv: no curves; repeated by c-again"
    assert runs.note["f-before"] == "repeated by e-blown"  # a divergence is a result
    assert "repeated" not in runs.note["g"] + runs.note["h"]
    ranking = comparison.judgement.ranking.set_index("configuration")
    assert (ranking["mean"]["adam"], ranking.n["adam"]) == (pytest.approx(0.85), 2)
    counts = ranking[["completed", "diverged", "failed", "interrupted"]]
    assert counts.loc["adam"].to_list() == [2, 0, 0, 0]
    assert counts.loc["sgd"].to_list() == [1, 1, 0, 0]
    assert counts.loc["rmsprop"].to_list() == [0, 0, 1, 1]
    assert ranking["rank"]["rmsprop"] == 0


def test_runs_of_several_sweeps(tmp_path: Path) -> None:
    first = write_sweep(tmp_path / "first", {"adam": 0.5, "sgd": 0.45}, seeds=(0, 1))
    second = write_sweep(tmp_path / "second", {"rmsprop": 0.48, "sgd": 0.4}, seeds=(0, 1, 2), started="2027")
    comparison = compare([str(first), str(second)])
    assert comparison.facts.sources == [str(first), str(second)]
    assert comparison.judgement.ranking.set_index("configuration").n.to_dict() == {"adam": 2, "rmsprop": 3, "sgd": 3}
    assert list(comparison.facts.runs.note[2:4]) == [
        "repeated by 3_optimizer=sgd,seed=0",
        "repeated by 4_optimizer=sgd,seed=1",
    ]
    unequal = "The configurations have unequal numbers of seeds: a mean is over all of its own, a difference over"
    assert any(note.startswith(unequal) for note in comparison.words.notes)
    assert set(comparison.judgement.differences.n) == {2, 3}


def test_a_sweep_that_is_still_running(tmp_path: Path) -> None:
    write_sweep(tmp_path / "ended", {"adam": 0.5, "sgd": 0.4}, seeds=(0, 1), config=ALLOWED)
    write_run(tmp_path / "now", "sgd", 2, status="running", epochs=2, config=ALLOWED)
    with (tmp_path / "now/metrics.csv").open("a") as file:
        file.write("3,18,4")  # at this moment
    comparison = compare([str(tmp_path)])
    row = comparison.facts.runs.set_index("run").loc["now"]
    assert row.status == "running" and not row.used and row.note == "metrics.csv is torn after 2 epochs"
    assert comparison.words.notes[0] == (
        "5 runs (4 completed, 1 running), compared by optimizer; seed (0, 1) numbers the samples."
    )
    assert (
        "Runs marked `running` are being written or were killed; they count once they have ended."
        in comparison.words.notes
    )
    assert comparison.judgement.ranking.set_index("configuration").running.to_dict() == {"adam": 0, "sgd": 1}
    assert set(comparison.facts.curves.configuration) == {"adam", "sgd"} and len(comparison.facts.curves) == 20


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted", "running"])
def test_nothing_has_finished(tmp_path: Path, status: str) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.5, "sgd": 0.4}, status=status)
    comparison = compare([str(folder)])
    assert list(comparison.judgement.ranking["rank"]) == [0, 0] and list(comparison.judgement.ranking.n) == [0, 0]
    assert list(comparison.judgement.ranking[status]) == [3, 3]
    assert list(comparison.judgement.differences.verdict) == ["unknown"] and comparison.judgement.ledger == []
    assert comparison.facts.curves.empty == (status != "diverged")
    assert compare([str(folder)], baseline="sgd").judgement.differences.b.to_list() == ["sgd"]


def test_a_survivor_is_not_claimed_to_be_better(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"adam": 0.6, "sgd": 0.5}, seeds=range(4), config=ALLOWED)
    write_run(tmp_path / "blown", "adam", 4, status="diverged", epochs=2, config=ALLOWED)
    write_run(tmp_path / "fine", "sgd", 4, 0.5, config=ALLOWED)
    row = compare([str(tmp_path)]).judgement.differences.iloc[0]
    assert (row.a, row.n, row.verdict) == ("adam", 4, "withheld") and row.difference > 0.09
    assert np.isnan([row.p, row.p_adjusted, row.low, row.high]).all()  # no number says what the verdict does not
    write_run(tmp_path / "fine", "sgd", 4, status="diverged", epochs=2, config=ALLOWED)
    assert compare([str(tmp_path)]).judgement.differences.verdict[0] == "better"


def test_seeds_that_only_one_of_them_has(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", {"adam": 0.6, "rmsprop": 0.5}, seeds=(0, 1, 2))
    write_sweep(tmp_path / "b", {"sgd": 0.5}, seeds=(3, 4, 5))
    pairs = compare([str(tmp_path)]).judgement.differences.set_index(["a", "b"])
    assert pairs.verdict["adam", "rmsprop"] == "better"
    apart = pairs.drop(("adam", "rmsprop"))
    assert set(apart.verdict) == {"withheld"} and set(apart.n) == {0} and apart.difference.isna().all()


def test_a_pair_is_seen_from_the_side_that_is_better_on_common_seeds(tmp_path: Path) -> None:
    """The mean of all seeds may say otherwise: one of them has a seed that the other lacks."""
    for name, values in {"adam": (0.50, 0.51, 0.80), "sgd": (0.52, 0.54)}.items():
        for seed, value in enumerate(values):
            write_run(tmp_path / f"{name}{seed}", name, seed, value)
    comparison = compare([str(tmp_path)])
    assert list(comparison.judgement.ranking.configuration) == ["adam", "sgd"]
    row = comparison.judgement.differences.iloc[0]
    assert (row.a, row.b, row.n, row.improvement) == ("sgd", "adam", 2, 1.0)
    assert row.difference == pytest.approx(0.025) and math.isnan(row.p) and math.isnan(row.low)  # two seeds


def test_what_is_at_most_one_sample(tmp_path: Path) -> None:
    comparison = compare([str(write_sweep(tmp_path, {"adam": 0.6, "sgd": 0.5}, sd=0))])
    assert list(comparison.judgement.differences.verdict) == ["unknown"] and list(
        comparison.judgement.ranking["rank"]
    ) == [1, 1]
    assert comparison.judgement.differences.difference[0] == pytest.approx(0.1)
    same = "Every seed gives exactly the same result: the seed has no effect here, and the samples count as one."
    assert same in comparison.words.notes


# Targets


def test_targets_that_were_asked_for(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"adam": 0.55, "sgd": 0.5})
    comparison = compare([str(folder)], targets=[0.3, 0.52])
    assert list(dict.fromkeys(comparison.judgement.targets.target)) == [0.3, 0.52]
    assert list(comparison.judgement.targets.reached) == [3, 3, 3, 0]


@pytest.mark.parametrize(
    ("validation", "values", "levels"),
    [
        ("val/accuracy", [[0.1, 0.95]], [0.2, 0.4, 0.6, 0.8]),
        ("val/accuracy", [[0.4, 0.5], [0.3, 0.55]], [0.35, 0.4, 0.45, 0.5, 0.55]),
        ("val/accuracy", [[0.5001, 0.5002]], [0.5002]),
        ("val/accuracy", [[math.nan, math.nan]], []),
        ("val/loss", [[2.3, 1.1]], [2.0, 1.8, 1.6, 1.4, 1.2]),
        ("val/loss", [[1e30, 1.1], [math.inf, math.nan, 2.0]], [3.5, 3.0, 2.5, 2.0, 1.5]),
        ("val/loss", [[math.inf, math.inf]], []),
        ("val/loss", [[0.2, 0.0001]], [0.15, 0.1, 0.05]),
        ("val/f1", [[0.5]], []),
    ],
)
def test_targets_chosen_from_the_data(validation: str, values: list[list[float]], levels: list[float]) -> None:
    rows = [{"row": k, "val/accuracy": v, "val/loss": v} for k, run in enumerate(values) for v in run]
    assert choose_targets(pd.DataFrame(rows), validation) == levels


def test_a_loss_that_explodes(tmp_path: Path) -> None:
    """A run that diverges leaves anything in metrics.csv."""
    folder = write_sweep(tmp_path, {"adam": 0.55, "sgd": 0.5}, config=ALLOWED)
    write_run(tmp_path / "blown", "sgd", 3, status="diverged", epochs=2, config=ALLOWED)
    (tmp_path / "blown/metrics.csv").write_text(
        "epoch,step,seconds,epoch_seconds,lr,train/loss,val/loss,val/accuracy\n"
        "1,6,1,1,0.1,1e300,1e30,0.1\n"
        "2,12,2,1,0.1,nan,inf,0.1\n"
    )
    for metric in ("test/loss", "test/accuracy"):
        comparison = compare([str(folder)], metric=metric)
        assert 3 <= comparison.judgement.targets.target.nunique() <= 5
        last = comparison.judgement.targets[comparison.judgement.targets.configuration == "sgd"]
        assert list(last.n) == [4] * len(last) and last.reached.max() == 3
    assert len(comparison.facts.curves) == 32 and math.isinf(comparison.facts.curves["val/loss"].max())


# Anything


def random_sweep(folder: Path, generator: np.random.Generator) -> int:
    optimizers = generator.permutation(["adam", "sgd", "rmsprop", "lion"])[: generator.integers(1, 4)]
    rates = (None, 0.1)[: generator.integers(1, 3)]
    written = 0
    for name in optimizers:
        for lr in rates:
            for seed in range(generator.integers(1, 4)):
                if generator.random() < 0.15:
                    continue
                status = generator.choice(["completed"] * 8 + ["diverged", "failed", "running", "interrupted"])
                changes = {}
                if generator.random() < 0.1:
                    changes["hashes"] = {str(generator.choice(["data", "code", "split"])): "other"}
                if generator.random() < 0.05:
                    changes["device"] = {"name": "another CPU"}
                write_run(
                    folder / str(written),
                    str(name),
                    seed,
                    round(float(generator.normal(0.5, 0.02)), int(generator.integers(1, 5))),
                    epochs=int(generator.integers(0, 4)),
                    status=str(status),
                    overrides=[f"optimizer.lr={lr}"] if lr else [],
                    config={"trainer.max_epochs": 3} | ({"optimizer.lr": lr} if lr else {}),
                    **changes,
                )
                written += 1
                if generator.random() < 0.05:
                    (folder / str(written - 1) / "summary.json").write_text("{")
    return written


@pytest.mark.parametrize("start", range(0, 60, 10))
def test_any_sweep(tmp_path: Path, start: int) -> None:
    for number in range(start, start + 10):
        generator = np.random.default_rng(number)
        folder = tmp_path / str(number)
        written = random_sweep(folder, generator)
        if not written:
            continue
        metric = str(generator.choice(["test/accuracy", "test/loss", "val/accuracy"]))
        try:
            comparison = compare([str(folder)], metric=metric)
        except ValueError as error:  # nothing can be read, or no run has an epoch with this metric
            assert "there is no run that can be read" in str(error) or "was logged by no run" in str(error)
            continue
        check(comparison, written)
        if number % 3 == 0:
            baseline = str(generator.choice(comparison.judgement.ranking.configuration))
            check(compare([str(folder)], baseline=baseline, metric=metric), written)


def check(comparison: Comparison, written: int) -> None:
    runs, ranking, pairs = comparison.facts.runs, comparison.judgement.ranking, comparison.judgement.differences
    assert len(runs) + len(comparison.words.skipped) == written
    assert set(runs.configuration) == set(ranking.configuration)
    tuned = comparison.judgement.tuned
    compared = tuned if (ranking.n > 0).sum() > len(tuned) else ranking.configuration
    compared = {*compared, *filter(None, [comparison.facts.baseline])}
    against = comparison.facts.baseline is not None
    assert len(pairs) == (len(compared) - 1 if against else len(compared) * (len(compared) - 1) / 2)
    assert (runs.status[runs.used] == "completed").all()
    assert not runs[runs.used].duplicated(["configuration", "seed"]).any()
    left_out = runs[(runs.status == "completed") & ~runs.used]
    assert left_out.note.str.contains("left out|repeated by").all()
    assert (
        set(left_out.index) <= comparison.facts.left_out.keys() and not runs.used[list(comparison.facts.left_out)].any()
    )

    assert ranking.n.sum() == runs.used.sum()
    ordered = ranking[ranking.n > 0]
    assert ((ordered.low <= ordered["mean"]) & (ordered["mean"] <= ordered.high) | (ordered.n < 2)).all()
    assert (ranking["rank"] == 0).equals((ranking.n == 0) | ~ranking.configuration.isin(compared))
    losses = dict.fromkeys(ranking.configuration, 0)
    sign = 1 if comparison.facts.higher_is_better else -1
    for pair in pairs.itertuples():
        assert pair.verdict in list(Verdict)
        if pair.n:
            assert not pair.low > pair.difference and not pair.difference > pair.high
        if pair.verdict not in ("unknown", "withheld"):
            assert pair.n >= 3 and (pair.p_adjusted < 0.05) == (pair.verdict in ("better", "worse"))
            assert (pair.low < 0 < pair.high) != (pair.verdict in ("better", "worse"))
        if pair.verdict in ("better", "worse"):
            assert (sign * pair.difference > 0) == (pair.verdict == "better")
            losses[pair.b if pair.verdict == "better" else pair.a] += 1
        assert (pair.seeds_low <= pair.seeds_high) == (pair.verdict == "undecided")
    ranks = ranking.set_index("configuration")["rank"]
    if against:
        assert set(pairs.b) <= {comparison.facts.baseline}
        losses |= {name: losses[name] + losses[comparison.facts.baseline] for name in pairs.a[pairs.verdict == "worse"]}
    assert all(ranks[name] in (0, 1 + lost) for name, lost in losses.items())
    assert comparison.words.answer and all(sentence.endswith((".", "?")) for sentence in comparison.words.answer)
    if comparison.words.times_withheld:
        assert comparison.judgement.targets.seconds.isna().all() and ranking.best_seconds.isna().all()


def test_targets_of_a_metric_that_has_no_curve_figure(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = tmp_path / str(seed)
        write_run(run, seed=seed, test={"test/f1": 0.4})
        table = (run / "metrics.csv").read_text().splitlines()
        values = ["val/f1", "0.1", "0.2", "0.3", "0.4", "0.5"]
        (run / "metrics.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(table, values, strict=True)) + "\n")
    comparison = compare([str(tmp_path)], metric="test/f1", targets=[0.25])
    (row,) = comparison.judgement.targets.to_dict("records")
    assert (row["target"], row["reached"], row["epochs"], row["steps"]) == (0.25, 2, 3, 18)
    assert comparison.facts.curve_metrics == ["val/accuracy", "val/loss", "train/loss", "lr"]


def test_a_choice_called_none_keeps_its_key(tmp_path: Path) -> None:
    for k, name in enumerate(["none", "crop_flip"]):
        write_run(tmp_path / str(k), overrides=[f"augmentation={name}"], choices={"augmentation": name})
    assert list(compare([str(tmp_path)]).facts.runs.configuration) == ["augmentation=none", "augmentation=crop_flip"]
