"""The figures hold the frames' numbers. `made` is the comparison by hand that the tests of the tables use as well."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from optbench.comparison.analysis import Comparison
from optbench.comparison.factors import Factors
from optbench.comparison.facts import Facts
from optbench.comparison.fairness import Claim, Item
from optbench.comparison.judgement import Judgement
from optbench.comparison.report import figures, palette, paper
from optbench.comparison.sensitivity import Interaction, Optimum, Sensitivity
from optbench.comparison.times import TIMES
from optbench.comparison.verdicts import Family
from optbench.comparison.words import Words
from optbench.records.tuning import Edge
from sweeps import changed

HOSTILE = '<script>alert(1)</script> "x", $a_b$ 100% ü|∂ 中\n_é'
STATUSES = ("completed", "diverged", "failed", "interrupted", "running")


def made(names: tuple[str, ...] = ("adam", "sgd", HOSTILE), seeds: int = 3, epochs: int = 5, **values) -> Comparison:
    """A comparison by hand: the kth of the names reaches 0.60 - 0.05 k, and the last has only diverged."""
    *good, lost = names
    configurations = [(name, seed) for name in names for seed in range(seeds)]
    runs = pd.DataFrame(
        {
            "run": [f"{k}_{name[:9]}" for k, (name, _) in enumerate(configurations)],
            "folder": [f"/logs/{k}" for k in range(len(configurations))],
            "configuration": [name for name, _ in configurations],
            "seed": [seed for _, seed in configurations],
            "status": ["diverged" if name == lost else "completed" for name, _ in configurations],
            "used": [name != lost for name, _ in configurations],
            "note": "",
            "overrides": [f"optimizer={name}, seed={seed}" for name, seed in configurations],
            "error": ["=cmd|' /C calc'!A0" if name == lost else "" for name, _ in configurations],
            "metric": [
                math.nan if name == lost else 0.60 - 0.05 * names.index(name) + 0.01 * seed
                for name, seed in configurations
            ],
            "validation": 0.5,
            "epochs": 5,
            "command": "python src/train.py",
            "seconds": [math.inf if name == lost else 100 / 3 for name, _ in configurations],
            "optimizer.lr": ["0.001"] * len(configurations),
        }
    )
    curves = pd.DataFrame(
        [
            {
                "row": row,
                "configuration": name,
                "seed": seed,
                "epoch": float(epoch),
                "step": 10.0 * epoch,
                "seconds": 7.0 * epoch,
                "val/accuracy": 0.5 - 0.3 / epoch + 0.01 * seed - 0.05 * names.index(name),
                "val/loss": math.inf if name == lost else 2.0 / epoch,
                "lr": 0.001,
            }
            for row, (name, seed) in enumerate(configurations)
            for epoch in range(1, epochs + 1 + seed)  # the first seed is the shortest
        ]
    )
    mean = [0.60 - 0.05 * k + 0.01 * (seeds - 1) / 2 for k in range(len(good))] + [math.nan]
    ranking = pd.DataFrame({"configuration": names, "rank": [*range(1, len(names)), 0], "n": [seeds] * len(good) + [0]})
    ranking = ranking.assign(mean=mean, sd=0.01, iqm=mean, validation=mean, gap=0.1, best_epoch=4.0, best_seconds=28.0)
    ranking = ranking.assign(
        low=ranking["mean"] - 0.025,
        high=ranking["mean"] + 0.025,
        epoch_seconds=7.0,
        seconds=35.0,
        parameters=1000.0,
        memory_mb=512.0,
    )
    ranking = ranking.assign(iqm_low=ranking["low"], iqm_high=ranking["high"])
    for status in STATUSES:
        ranking[status] = [seeds * (status == "completed") for _ in good] + [seeds * (status == "diverged")]
    pairs = [(a, b) for k, a in enumerate(good) for b in good[k + 1 :]]
    differences = pd.DataFrame(
        [(a, b, 0.05 * (names.index(b) - names.index(a))) for a, b in pairs], columns=["a", "b", "difference"]
    )
    differences = differences.assign(
        low=differences["difference"] - 0.04, high=differences["difference"] + 0.04, n=seeds
    )
    differences = differences.assign(improvement=1.0, p=0.01, p_adjusted=0.02, p_wilcoxon=0.25, detectable=0.03)
    differences = differences.assign(seeds_low=math.nan, seeds_high=math.nan, verdict="better")
    targets = pd.DataFrame(
        {
            "configuration": list(names),
            "target": 0.4,
            "reached": [*[seeds] * len(good), 0],
            "n": seeds,
            "epochs": [*[3.0] * len(good), math.inf],
            "steps": [*[1234.0] * len(good), math.inf],
            "seconds": [*[21.0] * len(good), math.inf],
        }
    )
    profile = pd.DataFrame(
        [
            (name, ratio, fraction / (1 + k))
            for k, name in enumerate(good)
            for ratio, fraction in ((1.0, 0.5), (2.0, 1.0))
        ],
        columns=["configuration", "ratio", "fraction"],
    )
    points = pd.DataFrame(
        {
            "line": np.repeat([names[0], names[1]], 3),
            "x": [0.001, 0.01, 0.1] * 2,
            "n": [seeds, seeds, 0] * 2,
            "mean": [0.6, 0.5, math.nan, 0.4, 0.55, math.nan],
            "low": [0.58, 0.48, math.nan, 0.38, 0.53, math.nan],
            "high": [0.62, 0.52, math.nan, 0.42, 0.57, math.nan],
            "chosen_by": [0.6, 0.5, math.nan, 0.4, 0.55, math.nan],
            "diverged": [0, 0, seeds] * 2,
            "best": [True, False, False, False, True, False],
        }
    )
    optima = [
        Optimum(names[0], 0.001, 0.6, 0.6, 0.001, 0.001, [0.1], 3, Edge.SMALLEST),
        Optimum(names[1], 0.01, 0.55, 0.55, 0.01, 0.01, [0.1], 3, None),
    ]
    grid = pd.DataFrame([[0.6, 0.5, math.nan], [0.4, 0.55, math.nan]], list(names[:2]), ["0.001", "0.01", "0.1"])
    facts = Facts(
        sources=["logs/train/multiruns/2026"],
        metric="test/accuracy",
        validation="val/accuracy",
        higher_is_better=True,
        by=["optimizer"],
        averaged=[],
        baseline=None,
        factors=Factors(["optimizer"], {"optimizer": list(runs["configuration"])}, {}),
        hues={name: name for name in names},
        contestants={name: name for name in names},
        records=[],
        runs=runs,
        left_out={},
        other_data={},
        damaged={},
        devices={"a CPU": len(configurations)},
        curves=curves,
        curve_metrics=["val/accuracy", "val/loss", "lr"],
    )
    judgement = Judgement(
        ranking=ranking,
        tuned=good,
        flattery=math.nan,
        family=Family.ALL,
        margin=0.005,
        gap=0.005,
        differences=differences,
        spread_alike=math.nan,
        targets=targets,
        times=pd.DataFrame(columns=TIMES),
        time_unit="steps",
        profile=profile,
        sensitivities=[Sensitivity("optimizer.lr", True, points, optima)],
        interaction=Interaction(
            "optimizer", "optimizer.lr", grid, {names[0]: "0.001", names[1]: "0.01"}, math.nan, complete=False
        ),
        ledger=[
            Claim(Item.IMAGES, True, "0123abcd"),
            Claim(Item.SEEDS, False, "1 | 2\n3"),
            Claim(Item.HOST, None, "not recorded"),
        ],
        unequal=[],
        code_versions=1,
        uneven=[],
    )
    words = Words(
        answer=[f"adam is better than {HOSTILE}."],
        violations=[f"{HOSTILE} was measured on other images."],
        times_withheld="",
        notes=["9 runs."],
        family="Compared: all pairs.",
        skipped=["Left out: /logs/torn."],
        sensitivities=[[f"{names[0]}: best at optimizer.lr=0.001.", f"{names[1]}: best at optimizer.lr=0.01."]],
        interaction="The best optimizer.lr depends on optimizer.",
    )
    return changed(Comparison(facts, judgement, words), **values)


def line(axes: Axes, label: str) -> Line2D:
    return next(line for line in axes.lines if line.get_label() == label)


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].texts]


def only(name: str, it: Comparison) -> Comparison:
    """What leaves just this figure to draw: to save one takes half a second."""
    it = changed(
        it, sensitivities=[], interaction=None, times_withheld="Two machines.", profile=it.judgement.profile.iloc[:0]
    )
    it = changed(it, differences=it.judgement.differences.assign(low=math.nan))
    if name != "ranking":
        return changed(it, ranking=it.judgement.ranking.assign(mean=math.nan))
    return changed(it, curve_metrics=[])


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return figures.draw(made())


def test_every_figure_is_saved_as_png_of_300_dpi_and_as_pdf_with_truetype(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("sensitivity_data.old.png", "mine.png"):
        (tmp_path / "figures" / name).touch()
    paths = figures.save(made(), tmp_path)
    names = "ranking differences curves curves_by_seconds time_to_target sensitivity_optimizer.lr interaction".split()
    assert [path.stem for path in paths[::2]] == names
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in paths} | {"mine.png"}
    for png, pdf in zip(paths[::2], paths[1::2], strict=True):
        with Image.open(png) as image:
            assert image.format == "PNG"
            assert image.width in (990, 2070)  # 3.3 and 6.9 inches
            assert np.asarray(image.convert("L")).min() < 80
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
        assert b"/FontType 42" in content or b"/FontFile2" in content
        assert b"/Type3" not in content


def test_the_same_comparison_gives_the_same_bytes(tmp_path):
    first, second = (figures.save(only("ranking", made()), tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["ranking.png", "ranking.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_ranking_has_means_intervals_and_seeds(drawn):
    axes = drawn["ranking"].axes[0]
    assert line(axes, "adam").get_xydata().tolist() == [[pytest.approx(61), 0]]
    assert line(axes, "sgd").get_xydata().tolist() == [[pytest.approx(56), 1]]
    seeds, interval = axes.lines[0:2]
    assert seeds.get_xdata() == pytest.approx([60, 61, 62])
    assert interval.get_xdata() == pytest.approx([58.5, 63.5])
    assert axes.yaxis_inverted()  # the best on top
    assert [text.get_text() for text in axes.texts] == ["no result: 3 diverged"]
    assert axes.get_xlabel().startswith("test accuracy (%)\n")


def test_ranking_says_what_a_mean_hides():
    it = made(baseline="sgd")
    ranking = it.judgement.ranking.assign(diverged=[1, 0, 3])
    labels = [
        text.get_text() for text in figures.draw(changed(it, ranking=ranking))["ranking"].axes[0].get_yticklabels()
    ]
    assert labels[:2] == ["adam (1 diverged)", "sgd (baseline)"]


def test_differences_are_filled_where_they_are_claimed():
    it = made(("adam", "sgd", "rmsprop", "lost"))
    it = changed(it, differences=it.judgement.differences.assign(verdict=["better", "undecided", "worse"]))
    figure = figures.draw(it)["differences"]
    axes = figure.axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([5, 10, 5])
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True, False]
    assert axes.get_yticklabels()[0].get_text() == "adam − sgd"
    assert legend_texts(figure) == ["difference claimed", "no difference claimed"]
    intervals = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 1]
    assert intervals[-1].get_xdata() == pytest.approx([6, 14])


@pytest.mark.parametrize(("higher", "better"), [(True, "first is better →"), (False, "second is better →")])
def test_differences_say_on_which_side_is_the_better_one(higher, better):
    assert figures.draw(made(higher_is_better=higher))["differences"].axes[0].get_xlabel().endswith(better)


def test_curves_are_means_as_far_as_all_runs_go(drawn):
    accuracy, loss, lr = drawn["curves"].axes
    mean = line(accuracy, "adam")
    assert mean.get_xdata().tolist() == [1, 2, 3, 4, 5]  # the other seeds have 6 and 7
    assert mean.get_ydata() == pytest.approx([100 * (0.51 - 0.3 / epoch) for epoch in range(1, 6)])
    assert line(loss, "sgd").get_ydata() == pytest.approx([2 / epoch for epoch in range(1, 6)])
    assert [axes.get_ylabel() for axes in (accuracy, loss, lr)] == [
        "validation accuracy (%)",
        "validation loss",
        "learning rate",
    ]
    band = accuracy.collections[0].get_paths()[0].vertices
    at_the_end = band[band[:, 0] == 5][:, 1]
    assert (at_the_end.min(), at_the_end.max()) == pytest.approx((44, 46))  # 45 +- 1
    assert legend_texts(drawn["curves"]) == ["adam", "sgd"]  # none of the third counts


def test_curves_by_seconds_have_the_mean_time_of_each_epoch(drawn):
    accuracy, loss = drawn["curves_by_seconds"].axes
    assert line(accuracy, "adam").get_xdata() == pytest.approx([7, 14, 21, 28, 35])
    assert loss.get_xlabel() == "seconds of training"


def test_curves_show_the_best_eight_and_the_baseline():
    names = tuple(f"o{k}" for k in range(12))
    it = made(
        names, seeds=1, epochs=1, baseline="o10", curve_metrics=["val/accuracy"], sensitivities=[], interaction=None
    )
    figure = figures.draw(it)["curves"]
    assert legend_texts(figure) == [*names[:8], "o10"]
    assert figure.legends[0].get_title().get_text() == "the best 8 of 12 configurations, and the baseline"


def test_time_to_target_is_the_profile(drawn):
    axes = drawn["time_to_target"].axes[0]
    steps = line(axes, "sgd")
    assert steps.get_drawstyle() == "steps-post"
    assert steps.get_xydata()[:2] == pytest.approx(np.array([[1, 25], [2, 50]]))
    assert steps.get_ydata()[-1] == 50  # on to the edge


def test_sensitivity_marks_the_best_and_divergence(drawn):
    figure = drawn["sensitivity_optimizer.lr"]
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert line(axes, "adam").get_ydata()[:2] == pytest.approx([60, 50])
    rings = [ring.get_xydata().tolist() for ring in axes.lines if ring.get_markersize() == 8]
    assert rings == [[pytest.approx([0.001, 60])], [pytest.approx([0.01, 55])]]
    crosses = [cross for cross in axes.lines if cross.get_marker() == "x"]
    assert [cross.get_xdata() for cross in crosses] == [[0.1], [0.1]]
    assert len({cross.get_ydata()[0] for cross in crosses}) == 2  # one above the other
    assert {"best on validation", "diverged"} <= set(legend_texts(figure))


def test_interaction_is_the_grid_with_its_numbers(drawn):
    axes = drawn["interaction"].axes[0]
    assert axes.images[0].get_array().tolist() == [[60, 50, None], [40, 55.00000000000001, None]]
    assert [text.get_text() for text in axes.texts] == ["60.0", "50.0", "–", "40.0", "55.0", "–"]


def test_lines_look_as_the_palette_says(drawn):
    style = palette.styles(made().facts)["sgd"]
    for name in ("curves", "time_to_target", "sensitivity_optimizer.lr"):
        sgd = line(drawn[name].axes[0], "sgd")
        assert (sgd.get_color(), sgd.get_marker()) == (style.colour, paper.MARKERS[style.marker])
    assert set(paper.MARKERS) == set(palette.MARKERS)
    assert set(paper.DASHES) == set(palette.DASHES)


def test_nothing_is_drawn_of_nothing():
    it = made()
    nothing = changed(
        it,
        ranking=it.judgement.ranking.assign(mean=math.nan),
        differences=it.judgement.differences.assign(low=math.nan, high=math.nan),
        curves=it.facts.curves.iloc[:0],
        profile=it.judgement.profile.iloc[:0],
        sensitivities=[
            replace(it.judgement.sensitivities[0], points=it.judgement.sensitivities[0].points.assign(mean=math.nan))
        ],
        interaction=None,
    )
    assert figures.draw(nothing) == {}
    assert "curves_by_seconds" not in figures.draw(
        made(times_withheld="Two machines.", sensitivities=[], interaction=None)
    )


def test_names_of_any_kind_are_drawn(tmp_path):
    # mathtext, a label that matplotlib hides, no glyphs, no unicode, and two that are the same but in the middle
    long = "a_very_long_name_that_goes_on_and_on_{}_and_on_and_does_not_end_before_the_page"
    names = ("$\\frac{x}$", "_adam", "日本語 \udc80\x00\t", long.format(1), long.format(2), HOSTILE)
    it = made(names, seeds=2, epochs=2, curve_metrics=["val/accuracy"])
    assert len(figures.save(only("ranking", it), tmp_path)) == 2
    it = only("curves", it)
    assert len(figures.save(it, tmp_path)) == 2
    texts = legend_texts(figures.draw(it)["curves"])
    assert texts[:2] == ["$\\frac{x}$", "_adam"]
    assert len(set(texts)) == 5 and max(map(len, texts)) <= 36


def test_a_loss_that_explodes_has_a_logarithmic_axis_and_no_per_cent():
    it = made(metric="test/loss", higher_is_better=False)
    it = changed(it, ranking=it.judgement.ranking.assign(mean=[1.5, 461.0, math.nan]))
    axes = figures.draw(it)["ranking"].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel().startswith("test loss\n")
    assert line(axes, "sgd").get_xdata()[0] == 461


@pytest.mark.parametrize(
    ("text", "shown"), [("short", "short"), ("abcdefghijkl", "abcde…ijkl"), ("a\nb\x1b[0m", "a b [0m")]
)
def test_long_names_are_shortened_in_the_middle(text, shown):
    assert paper.shortened(text, 10) == shown
