import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.comparison import tuning
from optbench.comparison.analysis import compare
from optbench.comparison.fairness import Item
from optbench.comparison.report import page_tuning, palette
from optbench.comparison.report.page import render
from optbench.comparison.report.tables import markdown
from optbench.comparison.tuning import CONFIDENCE, chances, luck, tuning_curve
from optbench.records.tuning import Axis, Contestant, Trial, Tuning, final_folder, search_folder, shortlist_folder
from sweeps import write_run

pytest.importorskip("opda")


def trials_of(scores, seconds=10.0):
    return pd.DataFrame({"score": scores, "seconds": [seconds] * len(scores)}, dtype=float)


def test_a_curve_begins_with_the_defaults_and_never_falls():
    curve = tuning_curve(trials_of([0.5, 0.3, 0.6, 0.55, math.nan]), "val/accuracy", exact=True)
    assert list(curve.k) == [1, 2, 3, 4, 5] and list(curve.seconds) == [10, 20, 30, 40, 50]
    assert tuple(curve.loc[0, ["low", "median", "high"]]) == (0.5, 0.5, 0.5)
    assert (curve["median"].diff().dropna() >= 0).all() and (curve.low <= curve["median"]).all()
    assert curve.low[1] == 0.5 and curve.high[4] == 1.0  # draws this few may all be worse, or reach anything


def test_a_loss_is_a_curve_that_falls():
    curve = tuning_curve(trials_of([1.5, 1.3, 1.6, 1.2, math.nan]), "val/loss", exact=True)
    assert curve["median"][0] == 1.5 and (curve["median"].diff().dropna() <= 0).all()
    assert (curve.low <= curve["median"]).all() and (curve["median"] <= curve.high).all() and curve.low[4] == 0


def test_without_independent_draws_there_is_no_band():
    curve = tuning_curve(trials_of([0.5, 0.3, 0.6]), "val/accuracy", exact=False)
    assert curve.high[1:].isna().all() and curve["median"].notna().all()


def test_only_divergence_has_no_curve():
    curve = tuning_curve(trials_of([math.nan] * 4), "val/accuracy", exact=True)
    assert curve["median"].isna().all()


def test_bands_hold_for_every_number_of_trials_at_once():
    """Of draws from a known distribution, the true median of the best of k leaves its band in 5 % of tunings."""
    generator, n, missed = np.random.default_rng(0), 15, 0
    k = np.arange(1, n + 1)
    truth = 0.5 ** (1 / k)  # of uniform draws
    for _ in range(400):
        low, _, high = tuning.median_of_best(generator.random(n), k, 1.0, band=True)
        missed += bool(((truth < low) | (truth > high)).any())
    assert missed <= stats.binom.ppf(0.999, 400, 1 - CONFIDENCE)
    assert missed > 0  # and they are no wider than they must be


def test_chances_are_those_of_drawing_again():
    values = {"a": [0.5, 0.1, 0.2, 0.9], "b": [0.4, 0.5, 0.6, 0.7], "c": [0.5, -math.inf, 0.3, 0.5]}
    found = chances({name: pd.Series(scores) for name, scores in values.items()})
    assert list(found.k) == [1, 2, 3, 4]
    assert found.drop(columns="k").sum(axis=1).to_numpy() == pytest.approx(1)
    assert list(found.loc[0, ["a", "b", "c"]]) == pytest.approx([0.5, 0, 0.5])  # the defaults, of which two tie
    generator = np.random.default_rng(0)
    wins = np.zeros(3)
    for _ in range(20_000):
        best = np.array([max(its[0], *generator.choice(its[1:], 2)) for its in values.values()])
        wins += (best == best.max()) / (best == best.max()).sum()
    assert list(found.loc[2, ["a", "b", "c"]]) == pytest.approx(wins / 20_000, abs=0.015)


@pytest.fixture
def folder(tmp_path):
    return tuned(tmp_path, adamw=0.5)


def tuned(tmp_path, adamw):
    """A tuning of adam, adamw and sgd: adamw does worse than adam, sgd diverged, adam's rate is on an edge."""
    settings = {
        "trials": 4, "seeds": 3, "shortlist": 2, "shortlist_seeds": 2, "epochs": None, "budget": "trials",
        "sampler": "random", "widen": False, "metric": "val/accuracy", "seed": 0,
    }  # fmt: skip
    contestants = []
    for name, level in (("adam", 0.6), ("adamw", adamw), ("sgd", 0.5)):
        rates = [0.001, 0.01, 0.003, 0.0001]
        trials = [Trial({"optimizer.lr": rate}, [f"optimizer.lr={rate}"] * (k > 0)) for k, rate in enumerate(rates)]
        contestants.append(
            Contestant(
                name,
                name,
                ["data=shapes", f"optimizer={name}"],
                [f"optimizer={name}"],
                {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))"},
                [Axis("optimizer.lr", 1e-4, 1e-2, log=True)],
                trials=trials,
                counted=4,
                edges={"optimizer.lr": "largest"} if name == "adam" else {},
                shortlist=[] if name == "sgd" else [1, 2],
                winner=None if name == "sgd" else 2,
            )
        )

        def run(place, accuracy, seed, rate, name=name, **more):
            config = {"optimizer.lr": rate, "test_weights": "none"}
            write_run(tmp_path / place, name, seed, accuracy, config=config, monitor="val/accuracy", **more)

        for trial, rate in enumerate(rates):
            diverged = {"status": "diverged", "epochs": 1} if name == "sgd" or trial == 3 else {}
            run(search_folder(name, trial), level + [0, 0.02, 0.015, 0][trial], 0, rate, test={}, **diverged)
        if name == "sgd":
            continue
        for seed in (1, 2):
            run(shortlist_folder(name, 1, seed), level + 0.01, seed, 0.01)
            run(shortlist_folder(name, 2, seed), level + 0.012, seed, 0.003)
        for seed, chance in zip((3, 4, 5), (-0.001, 0, 0.001) if name == "adam" else (0.001, -0.001, 0), strict=True):
            run(final_folder(name, seed), level + 0.011 + chance, seed, 0.003)
    Tuning(settings, {"trial": 5, "final": 5}, False, contestants, ["search", "shortlist", "final"]).write(tmp_path)
    return tmp_path


def test_the_finals_are_compared_and_the_search_is_told(folder):
    comparison = compare([str(folder)])
    assert list(comparison.judgement.ranking.configuration) == ["adam", "adamw"] and len(comparison.facts.runs) == 6
    assert comparison.facts.sources == [str(folder)]
    adam, adamw, sgd = comparison.tuning.searches
    assert (adam.best, adamw.configuration, sgd.best, sgd.configuration) == (1, "adamw", None, "")
    assert adam.score(1) == pytest.approx(0.625) and len(adam.near) == 2
    assert adam.fresh == pytest.approx([0.615, 0.615]) and adam.shortlisted == pytest.approx([0.617, 0.617])
    assert np.mean(adam.final) == pytest.approx(0.616) and np.mean(adam.test) == pytest.approx(0.611)
    said = " ".join(comparison.words.answer)
    assert "Provisional: the best trials of adam have optimizer.lr at the largest values of its space." in said
    assert "sgd is missing: all 4 trials of its search diverged." in said
    assert "adamw is under-tuned: with weight_decay=0 it is adam, which did better" in said
    notes = " ".join(comparison.words.notes)
    assert "Tuned with 4 trials each, chosen by val/accuracy at seed 0" in notes
    assert "changed by -1.00 points in val/accuracy (adam -1.00 points, adamw -1.00 points)" in notes
    ledger = {claim.item: claim for claim in comparison.judgement.ledger}
    assert (ledger[Item.SEARCH_TRIALS].equal, ledger[Item.SEARCH_TRIALS].text) == (True, "4 each")
    assert ledger[Item.SEARCH_EPOCHS].text == "at most 5 a trial; trained: adam 16, adamw 16, sgd 4"
    assert ledger[Item.SEARCH_SECONDS].text.startswith("adam 24 s, adamw 24 s, sgd 6 s")


@pytest.mark.parametrize(("typed", "searched", "said"), [(0, None, 1), (0.001, None, 0), (0, 0.001, 0), (0.001, 0, 1)])
def test_adamw_does_not_contain_an_adam_with_coupled_decay(folder, typed, searched, said):
    record = Tuning.read(folder)
    adam = record.contestants[0]
    adam.overrides.append(f"optimizer.weight_decay={typed}")
    if searched is not None:
        adam.trials[adam.winner].values["optimizer.weight_decay"] = searched
    record.write(folder)
    assert " ".join(compare([str(folder)]).words.answer).count("under-tuned") == said


def test_luck_is_how_much_the_best_of_half_a_search_varies():
    assert luck([0.3, 0.5, 0.5, 0.5], 1) == 0
    generator, scores = np.random.default_rng(0), [0.52, 0.1, 0.6, 0.55, math.nan, 0.5, 0.58]
    halves = [np.nanmax([0.52, *generator.choice(scores[1:], 3, replace=False)]) for _ in range(20_000)]
    assert luck(scores, 1) == pytest.approx(np.std(halves), rel=0.02)
    assert luck([-score for score in scores], -1) == pytest.approx(luck(scores, 1))
    assert math.isnan(luck([0.5, 0.6], 1)) and math.isnan(luck([math.nan] * 5, 1))


def test_luck_that_is_not_known_explains_any_claim(folder):
    assert math.isnan(luck([0.5, 0.6], 1))  # one draw
    assert tuning.beyond_luck(0.1, 0.01, [0.001, 0.001], 1)
    assert not tuning.beyond_luck(0.1, 0.01, [0.001, math.nan], 1)
    record = Tuning.read(folder)
    for its in record.contestants[:2]:
        its.counted, its.shortlist, its.winner = 2, [1], 1
    record.write(folder)
    said = " ".join(compare([str(folder)]).words.answer)
    assert (
        "another search of this size might turn them around: adam against adamw. How much the best of a search" in said
    )


def test_seconds_are_no_fixed_number_of_draws_so_there_is_no_band(folder):
    assert compare([str(folder)]).tuning.exact
    record = Tuning.read(folder)
    record.settings["budget"] = 60
    record.write(folder)
    found = compare([str(folder)]).tuning
    assert not found.exact and found.searches[0].curve.high[1:].isna().all()


def test_luck_is_of_what_is_compared_where_another_metric_chose(tmp_path):
    scores, claimed = [1.2, 1.9, 1.0, 1.1, math.nan, 1.15, 1.05], [0.5, 0.1, 0.6, 0.4, math.nan, 0.7, 0.55]
    generator, halves = np.random.default_rng(0), []
    for _ in range(20_000):
        tried = [0, *generator.choice(range(1, 7), 3, replace=False)]
        halves.append(claimed[min((k for k in tried if not math.isnan(scores[k])), key=lambda k: scores[k])])
    assert luck(scores, -1, claimed) == pytest.approx(np.std(halves), rel=0.02)
    folder = tuned(tmp_path, adamw=0.595)
    record = Tuning.read(folder)
    record.settings["metric"] = "val/loss"
    record.write(folder)
    comparison = compare([str(folder)])
    assert (comparison.tuning.metric, comparison.tuning.claimed) == ("val/loss", "val/accuracy")
    said = " ".join(comparison.words.answer)  # the points of test_a_claim_that_luck_explains_is_named, not nats
    assert "The best of a search varies by about: adam 0.25 points, adamw 0.25 points." in said


def test_a_claim_that_luck_explains_is_named(tmp_path, folder):
    assert "another search" not in " ".join(compare([str(folder)]).words.answer)
    close = compare([str(tuned(tmp_path / "close", adamw=0.595))])
    assert list(close.judgement.differences.verdict) == ["better"]
    said = " ".join(close.words.answer)
    assert "another search of this size might turn them around: adam against adamw." in said
    assert "The best of a search varies by about: adam 0.25 points, adamw 0.25 points." in said


def test_what_the_report_shows(folder):
    comparison = compare([str(folder)])
    page, text = render(comparison), markdown(comparison)
    for figure in ("tuning-trials", "tuning-seconds", "tuning-chances", "tuning-rates"):
        assert f'<div class="figure" id="{figure}" data-shows="tuning">' in page and f'"{figure}":' in page
    sentence = (
        "adam: 4 trials, 1 diverged; val/accuracy 60.50 % with the defaults, 62.50 % at best (lr=0.01). Within one "
        "point of that: 2 of 4 trials, with rates from 0.003 to 0.01, a factor of 3.33."
    )
    assert sentence in page and "⚠ adam: 4 trials" in page
    assert "## Tuning" in text and "sgd: 4 trials, 4 diverged. It has no winner." in text
    assert "-1.00 points" in page and "trial 2" in page
    plain = render(compare([str(folder / "final")]))
    assert 'id="tuning"' not in plain and "tuning-trials" not in plain


def test_one_trial_without_a_rate(folder):
    record = Tuning.read(folder)
    for its in record.contestants:
        its.counted, its.winner, its.shortlist = 1, None if its.winner is None else 0, its.shortlist and [0]
        its.trials[0].values["optimizer.lr"] = None
    record.write(folder)
    comparison = compare([str(folder)])
    assert "Tuned with 1 trial each" in " ".join(comparison.words.notes)
    page = render(comparison)
    assert "adam: 1 trial; val/accuracy 60.50 % with the defaults" in page and "tuning-rates" not in page


@pytest.mark.parametrize(("metric", "scores"), [("val/accuracy", [0.5, 0.3, 0.6]), ("val/loss", [1.5, 1.7, 1.2])])
@pytest.mark.parametrize(("default", "exact"), [(True, True), (True, False), (False, True)])
def test_what_a_figure_of_curves_shows(metric, scores, default, exact):
    scores = [scores[0] if default else math.nan, *scores[1:], math.nan]
    curve = tuning_curve(trials_of(scores), metric, exact)
    search = SimpleNamespace(name="adam", curve=curve, trials=trials_of(scores))
    one = SimpleNamespace(searches=[search], metric=metric, sign=1 if metric == "val/accuracy" else -1)
    drawn = page_tuning.curves(one, palette.assign({"adam": "adam"}), "k", "trials")
    bands = [trace for trace in drawn["data"] if trace.get("fill")]
    assert bool(bands) is exact and all(None not in trace["y"] for trace in bands)
    low, high = drawn["layout"]["yaxis"]["range"]
    assert low < drawn["data"][-1]["y"][-1] < high  # the end of the median is on the axis


def test_a_tuning_without_a_final_says_how_to_go_on(folder):
    for summary in (folder / "final").glob("*/summary.json"):
        summary.unlink()
    with pytest.raises(ValueError, match=r"is a tuning without a final run: every trial of its search diverged\."):
        compare([str(folder)])
    record = Tuning.read(folder)
    record.ended.remove("final")
    record.write(folder)
    with pytest.raises(ValueError, match=r"is a tuning without a final run: python src/tune\.py resume="):
        compare([str(folder)])


def test_a_broken_record_of_a_tuning(folder):
    (folder / "tuning.json").write_text("{")
    with pytest.raises(ValueError, match=r"tuning\.json is not the record of a tuning"):
        compare([str(folder)])
