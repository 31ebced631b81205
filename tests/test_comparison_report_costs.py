"""What a result costs: which points there are, and where there are none."""

from itertools import product

import numpy as np
import pytest
from markupsafe import Markup

from optbench.comparison.analysis import Comparison, compare
from optbench.comparison.report import figures, palette, tables
from optbench.comparison.report.costs import costs, unrecorded
from optbench.comparison.report.page_figures import cost_figure
from optbench.comparison.report.page_tables import cost_table
from sweeps import changed, write_run

SIZES = {"mlp": 5_951_114, "convnet": 94_762, "linear": 30_730}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three networks with two optimizers, two seeds; all runs of linear with sgd diverged."""
    folder = tmp_path_factory.mktemp("networks")
    for k, (model, optimizer, seed) in enumerate(product(SIZES, ("adam", "sgd"), (0, 1))):
        write_run(
            folder / str(k),
            optimizer,
            seed,
            0.5 + 0.01 * seed + len(model) / 100,
            status="diverged" if (model, optimizer) == ("linear", "sgd") else "completed",
            overrides=[f"model={model}"],
            choices={"model": model},
            parameters={"trainable": SIZES[model]},
            peak_memory_mb={"process": 300.0 + len(model)},
        )
    return compare([str(folder)])


def test_the_points_of_each_cost(networks: Comparison) -> None:
    found = {it.column: it for it in costs(networks.facts, networks.judgement)}
    assert list(found) == ["parameters", "epoch_seconds", "seconds", "memory_mb"]
    sizes = found["parameters"].points.set_index("configuration").parameters
    assert sizes.to_dict() == {
        f"{model} {name}": SIZES[model]
        for model in SIZES
        for name in ("adam", "sgd")
        if f"{model} {name}" != "linear sgd"
    }, "what diverged has no point"
    assert found["parameters"].log and not found["memory_mb"].log and not found["seconds"].log
    assert list(found["memory_mb"].points.memory_mb) == [307, 307, 306, 303, 303]
    assert unrecorded(list(found.values())) == []


def test_nothing_where_all_have_the_same_number_of_parameters(networks: Comparison) -> None:
    for same in (1000.0, np.nan):  # nan: the runs of another program
        it = changed(networks, ranking=networks.judgement.ranking.assign(parameters=same))
        assert costs(it.facts, it.judgement) == [] and cost_table(it.facts, it.judgement, {}) == []
        assert figures.cost(it) is None and tables.cost_table(it.facts, it.judgement) == ""


def test_what_is_not_recorded_has_no_point_and_is_named(networks: Comparison) -> None:
    ranking = networks.judgement.ranking.copy()
    ranking.loc[ranking.configuration == "mlp adam", ["parameters", "memory_mb"]] = np.nan
    it = changed(networks, ranking=ranking.assign(epoch_seconds=np.nan))
    shown = costs(it.facts, it.judgement)
    assert [(cost.column, len(cost.points)) for cost in shown] == [("parameters", 4), ("seconds", 5), ("memory_mb", 4)]
    assert unrecorded(shown) == [
        "Not recorded, so without a point: trainable parameters of mlp adam.",
        "Not recorded, so without a point: peak memory (MB) of mlp adam.",
    ]


def test_seconds_and_memory_of_different_devices_are_left_out(networks: Comparison) -> None:
    it = changed(networks, times_withheld="Two machines.")
    assert [cost.column for cost in costs(it.facts, it.judgement)] == ["parameters"]


def test_a_point_on_the_page_has_its_interval(networks: Comparison) -> None:
    it = costs(networks.facts, networks.judgement)[0]
    figure = cost_figure(it, "test/accuracy", palette.styles(networks.facts))
    best = figure["data"][0]
    row = networks.judgement.ranking.iloc[0]
    assert best["name"] == "convnet adam" and best["x"] == [94762] and best["y"] == [0.575]
    assert best["error_y"]["array"] == [pytest.approx(row.high - row["mean"], rel=1e-3)]
    assert best["text"] == ["94\u202f762<br>n = 2, 95 %: 51.15 to 63.85 %"]
    assert figure["layout"]["xaxis"]["type"] == "log" and len(figure["data"]) == 5
    assert len({(trace["marker"]["symbol"], trace["marker"]["color"]) for trace in figure["data"]}) == 5
    alone = changed(networks, ranking=networks.judgement.ranking.assign(low=np.nan, high=np.nan, n=1))
    lone = cost_figure(costs(alone.facts, alone.judgement)[0], "test/accuracy", palette.styles(networks.facts))
    assert lone["data"][0]["error_y"]["array"] == [None] and lone["data"][0]["text"] == ["94\u202f762<br>n = 1"]


def test_tables(networks: Comparison) -> None:
    swatches = {name: Markup("") for name in networks.facts.runs.configuration}
    table = cost_table(networks.facts, networks.judgement, swatches)
    assert [column.title for column in table] == [
        "configuration",
        "test/accuracy",
        "trainable parameters",
        "seconds an epoch",
        "seconds of training",
        "peak memory (MB)",
    ]
    assert [cell.text for cell in table[5].cells][:3] == ["307 MB", "307 MB", "306 MB"]
    assert "| convnet adam | 57.50 % | 51.15 to 63.85 % | 94 762 | 1.5 s | 7.5 s | 307 MB |" in tables.markdown(
        networks
    )


def test_the_figure_for_a_paper(networks: Comparison) -> None:
    figure = figures.draw(networks)["cost"]
    panels = figure.axes
    assert [axes.get_xlabel() for axes in panels] == [
        "trainable parameters",
        "seconds an epoch",
        "seconds of training",
        "peak memory (MB)",
    ]
    assert panels[0].get_xscale() == "log" and panels[3].get_xscale() == "linear"
    assert [np.ravel(line.get_xdata()).tolist()[0] for line in panels[0].lines] == [
        94762,
        94762,
        30730,
        5951114,
        5951114,
    ]
    legend = figure.legends[0]
    assert legend.get_title().get_text() == "the best 5 of 6 configurations; bars: 95 % interval"
