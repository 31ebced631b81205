from dataclasses import replace

import numpy as np
import pytest
from test_comparison_report_figures import legend_texts, line
from test_comparison_tuning import tuned

from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.report import figures, palette, paper
from optbench.comparison.report.page_tuning import room
from optbench.comparison.tuning import tuning_curve

pytest.importorskip("opda")
TUNING = ["tuning_trials", "tuning_seconds", "tuning_chances", "tuning_rates"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Of adam, adamw and sgd, four trials each; trial 3 and all of sgd's diverged."""
    return compare([str(tuned(tmp_path_factory.mktemp("tuning"), adamw=0.5))])


@pytest.fixture(scope="module")
def drawn(comparison):
    return figures.draw(comparison)


def test_best_scores_are_the_medians_of_the_search(comparison, drawn):
    adam = comparison.tuning.searches[0]
    for name, across in (("tuning_trials", "k"), ("tuning_seconds", "seconds")):
        axes = drawn[name].axes[0]
        drawn_line = line(axes, "adam")
        assert drawn_line.get_xdata() == pytest.approx(adam.curve[across].to_numpy(float))
        assert drawn_line.get_ydata() == pytest.approx(100 * adam.curve["median"].to_numpy(float))
        assert len(axes.collections) == 2  # a band each; sgd has no score
        assert legend_texts(drawn[name]) == ["adam", "adamw"]
        assert axes.get_ylabel() == "best validation accuracy (%)"
    assert drawn["tuning_trials"].legends[0].get_title().get_text() == "median; band: 95 %, for all at once"


def test_chances_are_stacked_to_a_hundred(comparison, drawn):
    axes = drawn["tuning_chances"].axes[0]
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in axes.collections]
    expected = 100 * comparison.tuning.chances[["adam", "adamw", "sgd"]].cumsum(axis=1).max()
    assert tops == pytest.approx(expected.to_list())
    assert legend_texts(drawn["tuning_chances"]) == ["adam", "adamw", "sgd"]


def test_every_trial_is_drawn_by_its_rate(drawn):
    axes = drawn["tuning_rates"].axes[0]
    adam = line(axes, "adam")
    assert list(adam.get_xdata()) == [0.001, 0.01, 0.003] and adam.get_linestyle() == "None"
    assert list(adam.get_ydata()) == pytest.approx([60.5, 62.5, 62])
    assert list(line(axes, "sgd, diverged").get_xdata()) == [0.001, 0.01, 0.003, 0.0001]
    rings = [found for found in axes.lines if found.get_markersize() == 8 and len(found.get_xdata())]
    assert [list(ring.get_xdata()) for ring in rings] == [[0.003], [0.003]]
    assert axes.get_xscale() == "log" and legend_texts(drawn["tuning_rates"])[-2:] == ["winner", "diverged"]


def test_a_search_looks_as_its_final_runs(comparison, drawn):
    final = palette.styles(comparison.facts)
    for name in ("adam", "adamw"):
        found = line(drawn["tuning_trials"].axes[0], name)
        assert (found.get_color(), found.get_marker()) == (final[name].colour, paper.MARKERS[final[name].marker])


def test_they_are_files_beside_the_others_and_go_with_them(comparison, tmp_path, unrendered):
    names = {path.stem for path in figures.save(comparison, tmp_path)}
    assert {*TUNING, "ranking"} <= names
    figures.save(replace(comparison, tuning=None), tmp_path)
    assert not names - set(TUNING) ^ {path.stem for path in (tmp_path / "figures").iterdir()}


def test_a_loss_that_exploded_does_not_flatten_the_others(comparison):
    searches = comparison.tuning.searches

    def axis(*scores):
        trials = searches[0].trials.assign(score=scores)
        search = replace(searches[0], trials=trials, curve=tuning_curve(trials, "val/loss", exact=True))
        return room(replace(comparison.tuning, sign=-1, metric="val/loss", searches=[search]))

    assert axis(1.5, 1.2, 1.3, 900.0) == pytest.approx([1.2 - 0.045, 1.5 + 0.045])  # the curve begins at 1.5
    assert axis(900.0, 1.2, 1.3, 1.4)[1] == pytest.approx(np.quantile([900, 1.2, 1.3, 1.4], 0.75), rel=0.2)


def test_where_all_diverged_only_the_crosses_are_left(comparison):
    sgd = comparison.tuning.searches[2]
    alone = replace(comparison.tuning, searches=[sgd], chances=comparison.tuning.chances[["k", "sgd"]])
    names = {name for name in figures.draw(replace(comparison, tuning=alone)) if name in TUNING}
    assert names == {"tuning_rates"}
