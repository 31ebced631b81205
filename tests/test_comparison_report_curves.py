"""The curves' means and bands, by hand, and that the page and the figures show the same."""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from test_comparison_report_figures import line, made

from optbench.comparison.analysis import Comparison
from optbench.comparison.report import curves, figures, page
from sweeps import changed


def with_values(it: Comparison, **values: dict[tuple[int, int], float]) -> Comparison:
    """Other values of a metric, at (row, epoch)."""
    frame = it.facts.curves.copy()
    for metric, at in values.items():
        for (row, epoch), value in at.items():
            frame.loc[(frame["row"] == row) & (frame["epoch"] == epoch), metric] = value
    return changed(it, curves=frame)


def test_a_mean_is_none_where_a_run_has_no_finite_value() -> None:
    it = with_values(made(), **{"val/loss": {(1, 2): math.nan, (2, 4): math.inf}})
    its = curves.mean_curves(it.facts, ["adam"])["adam"]
    assert its.runs == 3 and list(its.mean["epoch"]) == [1, 2, 3, 4, 5]  # the other seeds have 6 and 7
    assert list(its.mean["val/loss"]) == pytest.approx([2, math.nan, 2 / 3, math.nan, 0.4], nan_ok=True)
    assert list(its.sd["val/loss"].isna()) == [False, True, False, True, False]
    assert list(its.mean["val/accuracy"]) == pytest.approx([0.51 - 0.3 / epoch for epoch in range(1, 6)])
    assert list(its.sd["val/accuracy"]) == pytest.approx([0.01] * 5)


def test_only_runs_that_count_have_a_mean() -> None:
    it = made()
    names = list(it.judgement.ranking["configuration"])
    assert len(names) > 2 and list(curves.mean_curves(it.facts, names)) == ["adam", "sgd"]
    assert list(curves.mean_curves(it.facts, ["sgd"])) == ["sgd"]
    assert curves.mean_curves(changed(it, curves=it.facts.curves.iloc[:0]).facts, names) == {}


def test_a_band_is_one_deviation_wide_and_keeps_away_from_zero_on_a_logarithmic_axis() -> None:
    frame = pd.DataFrame({"val/loss": [2.0, 1.0, math.nan]})
    its = curves.Curve(2, frame, pd.DataFrame({"val/loss": [0.5, 3.0, math.nan]}))
    for log, lowest in ((False, -2.0), (True, 0.1)):
        low, high = its.band("val/loss", log)
        assert list(low) == pytest.approx([1.5, lowest, math.nan], nan_ok=True)
        assert list(high) == pytest.approx([2.5, 4.0, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("metric", "values", "log"),
    [
        ("val/loss", [0.1, 3.0, math.inf, math.nan], True),
        ("val/loss", [0.2, 3.0], False),
        ("val/loss", [0.0, 3.0], False),
        ("val/accuracy", [0.001, 0.9], False),
        ("lr", [0.001, 0.1], True),
        ("lr", [0.001, 0.001], False),
        ("lr", [math.nan], False),
    ],
)
def test_one_rule_for_logarithmic_axes(metric: str, values: list[float], log: bool) -> None:
    assert curves.is_logarithmic(metric, pd.Series(values)) is log
    frame = pd.DataFrame({metric: values})
    assert curves.curves_are_logarithmic(metric, [curves.Curve(1, frame, frame)]) is log
    assert curves.curves_are_logarithmic(metric, []) is False


@pytest.mark.parametrize("count", [8, 9, 12])
def test_the_same_configurations_are_shown_at_first(count: int) -> None:
    names = tuple(f"o{k}" for k in range(count))
    it = made(names, seeds=1, epochs=1, baseline=names[-1], sensitivities=[], interaction=None)
    best, note = curves.shown(it)
    assert best == [*names[:8], *([names[-1]] if count > 8 else [])]
    assert bool(note) == (count > 8)
    checked = [at for at in boxes(page.render(it)) if "checked" in at]
    assert [names[int(at["value"] or 0)] for at in checked] == best


def test_a_page_of_very_many_has_the_curves_of_the_best_only(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"o{k}" for k in range(14))
    it = made(names, seeds=2, epochs=5, baseline=names[-1], sensitivities=[], interaction=None)
    assert curves.carried(it) == list(names)
    assert "This page has the curves" not in page.render(it)
    epochs = it.facts.curves.groupby("configuration").size()
    monkeypatch.setattr(curves, "MOST_EPOCHS", int(sum(epochs[name] for name in names[:10])))
    carried = [*names[:10], names[-1]]  # the baseline always
    assert curves.carried(it) == carried
    html = page.render(it)
    assert [int(at["value"] or 0) for at in boxes(html)] == list(range(11))
    data = embedded(it)
    assert [each["name"] for each in data["configurations"]] == carried
    assert {run["of"] for run in data["runs"]} == set(range(11))
    assert "This page has the curves of the best 11 of 14 configurations" in html
    monkeypatch.setattr(curves, "MOST_EPOCHS", 0)
    assert curves.carried(it) == [*names[:8], names[-1]], "those that are shown at first"


def boxes(html: str) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = []

    class Boxes(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            if tag == "input" and dict(attributes).get("type") == "checkbox":
                found.append(dict(attributes))

    Boxes().feed(html)
    return found


def embedded(it: Comparison) -> dict:
    """The data of the page, as its script reads them."""
    text = page.render(it).partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


@pytest.mark.parametrize("explodes", [False, True])
@pytest.mark.parametrize("seeds", [1, 3])
def test_page_and_figures_show_the_same(explodes: bool, seeds: int) -> None:
    """Lines, bands and kinds of axes; a run that lacks a value or exceeds every axis included."""
    it = made(seeds=seeds, curve_metrics=["val/accuracy", "val/loss", "lr"])
    it = with_values(it, **{"val/loss": {(0, 2): math.nan, (seeds, 1): 400.0 if explodes else 2.0}})
    data = embedded(it)
    assert data["axes"] == ["epoch", "seconds"]
    for against, name in enumerate(("curves", "curves_by_seconds")):
        panels = figures.draw(it)[name].axes
        for k, (panel, metric) in enumerate(zip(panels, data["metrics"], strict=False)):
            scale = 100 if metric["fraction"] else 1
            assert metric["log"] == (panel.get_yscale() == "log")
            if metric["zero"]:
                assert panel.get_ylim()[0] == 0
            drawn = [each for each in data["configurations"] if each["mean"]]
            assert [each["name"] for each in drawn] == [each.get_label() for each in panel.lines] == ["adam", "sgd"]
            for each, band in zip(drawn, panel.collections, strict=True):
                x = numbers(data, each["mean"]["x"][against])
                y = scale * numbers(data, each["mean"]["y"][k])
                mine = line(panel, each["name"])
                assert mine.get_xdata() == pytest.approx(x, rel=1e-3, nan_ok=True)
                assert mine.get_ydata() == pytest.approx(y, rel=1e-3, nan_ok=True)
                corners = {tuple(corner) for path in band.get_paths() for corner in np.asarray(path.vertices).tolist()}
                if seeds == 1:
                    assert each["mean"]["sd"] is None and not corners
                    continue
                for edge in ("low", "high"):
                    for place, value in zip(x, scale * numbers(data, each["mean"][edge][k]), strict=True):
                        near = [corner for corner in corners if corner == pytest.approx((place, value), rel=2e-3)]
                        assert near or math.isnan(value), (edge, place, value)
    assert data["metrics"][1]["log"] == explodes
    assert np.isnan(numbers(data, data["configurations"][0]["mean"]["y"][1])[1])


def numbers(data: dict, index: int) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in data["series"][index]], float)
