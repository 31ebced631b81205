"""What the page's script draws with plotly: whole figures, and the curves as numbers from which it builds them."""

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from optbench.comparison.facts import Facts
from optbench.comparison.judgement import Judgement
from optbench.comparison.report import curves
from optbench.comparison.report.curves import Curve
from optbench.comparison.report.palette import Style
from optbench.comparison.sensitivity import Interaction, Sensitivity
from optbench.records import metrics, wording


def page_data(
    facts: Facts,
    judgement: Judgement,
    means: Mapping[str, Curve],
    styles: dict[str, Style],
    lines: Sequence[dict[str, Style]],
) -> dict[str, Any]:
    """What report.js draws. Figures of `static` are whole; curves are built there, for the axis that is chosen."""
    static = {"profile": profile_figure(judgement, styles)} if not judgement.profile.empty else {}
    for k, (item, styled) in enumerate(zip(judgement.sensitivities, lines, strict=True)):
        static[f"sensitivity-{k}"] = sensitivity_figure(item, facts.metric, styled)
    if judgement.interaction is not None:
        static["interaction"] = interaction_figure(judgement.interaction, facts.metric, facts.higher_is_better)
    return {"static": static, **curve_data(facts, means, styles)}


def curve_data(facts: Facts, means: Mapping[str, Curve], styles: dict[str, Style]) -> dict[str, Any]:
    """Every run's curves once, and each configuration's means and bands, in numbers as short as the eye allows.

    A curve is an index in `series`: epochs and learning rates are the same in many runs.
    """
    axes = curves.axes(facts)
    series: dict[tuple[float | None, ...], int] = {}

    def stored(values: pd.Series, digits: int) -> int:
        return series.setdefault(tuple(rounded(values, digits)), len(series))

    log = {metric: curves.curves_are_logarithmic(metric, means.values()) for metric in facts.curve_metrics}
    order = {name: k for k, name in enumerate(styles)}
    runs = []
    for row, curve in facts.curves[facts.curves["configuration"].isin(order)].groupby("row"):
        run = facts.runs.loc[row]
        status = "" if run["status"] == "completed" else f" · {run['status']}"
        runs.append(
            {
                "of": order[run["configuration"]],
                "name": f"{plotly_text(run['run'])} · seed {run['seed']}{status}",
                "x": [stored(curve[axis], 5) for axis in axes],
                "y": [stored(curve[metric], 4) for metric in facts.curve_metrics],
            }
        )

    def drawn(name: str) -> dict[str, Any] | None:
        if name not in means:
            return None
        its = means[name]
        bands = [its.band(metric, log[metric]) for metric in facts.curve_metrics] if its.runs > 1 else []
        return {
            "n": its.runs,
            "x": [stored(its.mean[axis], 5) for axis in axes],
            "y": [stored(its.mean[metric], 4) for metric in facts.curve_metrics],
            "sd": [stored(its.sd[metric], 3) for metric in facts.curve_metrics] if bands else None,
            "low": [stored(low, 4) for low, _ in bands],
            "high": [stored(high, 4) for _, high in bands],
        }

    return {
        "axes": axes,
        "epochs": int(facts.curves["epoch"].max()) if len(facts.curves) else 0,
        "metrics": [
            {
                "name": metric,
                "log": log[metric],
                "zero": curves.from_zero(metric, log[metric]),
                "fraction": metrics.metric(metric).is_fraction,
            }
            for metric in facts.curve_metrics
        ],
        "configurations": [
            {"name": plotly_text(name), "line": plotly_line(style), "symbol": style.marker, "mean": drawn(name)}
            for name, style in styles.items()
        ],
        "runs": runs,
        "series": list(series),
    }


def profile_figure(judgement: Judgement, styles: dict[str, Style]) -> dict[str, Any]:
    profile = judgement.profile
    right, log = curves.profile_edge(profile)  # lines end at the edge: a fraction never falls again
    traces = []
    corners = dict(list(profile.groupby("configuration")))
    for k, (name, style) in enumerate(styles.items()):
        if name not in corners:
            continue
        steps = corners[name].sort_values("ratio")
        traces.append(
            {
                "name": plotly_text(name),
                "group": k,
                "mode": "lines",
                "line": {**plotly_line(style), "shape": "hv"},
                "x": [*rounded(steps["ratio"], 5), right],
                "y": [*rounded(steps["fraction"]), float(steps["fraction"].iloc[-1])],
                "hovertemplate": "%{fullData.name}<br>%{y:.0%} within %{x:.3g} ×<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"type": "log" if log else "linear", "title": {"text": f"times the fewest {judgement.time_unit}"}},
        "yaxis": {"title": {"text": "targets reached"}, "tickformat": "~%", "range": [-0.02, 1.04]},
    }
    return {"data": traces, "layout": layout}


def sensitivity_figure(item: Sensitivity, metric: str, styled: dict[str, Style]) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    percent = ".2%" if metrics.metric(metric).is_fraction else ".4f"
    its = dict(list(item.points.groupby("line")))
    for k, (name, style) in enumerate(styled.items()):
        points = its[name].sort_values("x")
        shared = {"name": plotly_text(name or metric), "group": k}
        sizes = [15 if best else 7 for best in points["best"]]
        texts = [
            f"n = {n:.0f}, 95 %: {wording.interval(metric, low, high)}{', the best on validation' if best else ''}"
            for n, low, high, best in points[["n", "low", "high", "best"]].itertuples(index=False)
        ]
        traces.append(
            {
                **shared,
                "mode": "lines+markers",
                "line": plotly_line(style),
                "marker": {"symbol": style.marker, "size": sizes, "line": {"width": 0}, "opacity": 1},
                "x": rounded(points["x"], 6),
                "y": rounded(points["mean"]),
                "error_y": {
                    "array": rounded(points["high"] - points["mean"]),
                    "arrayminus": rounded(points["mean"] - points["low"]),
                    "thickness": 1.2,
                    "width": 3,
                },
                "text": texts,
                "hovertemplate": f"%{{fullData.name}}<br>%{{x}}: %{{y:{percent}}}<br>%{{text}}<extra></extra>",
            }
        )
        diverged = points[points["diverged"] > 0]
        if len(diverged):
            traces.append(
                {
                    **shared,
                    "mode": "markers",
                    "marker": {"symbol": "x", "size": 9, "color": style.colour},
                    "cliponaxis": False,
                    "showlegend": False,
                    "yaxis": "y2",
                    "x": rounded(diverged["x"], 6),
                    "y": [0.02 + 0.045 * k] * len(diverged),  # lines that fail at the same value stay apart
                    "text": [wording.plural(runs, "run") for runs in diverged["diverged"]],
                    "hovertemplate": "%{fullData.name}<br>%{x}: %{text} diverged<extra></extra>",
                }
            )
    tried = sorted(set(item.points["x"]))
    layout = {
        "xaxis": {
            "type": "log" if item.log else "linear",
            "title": {"text": plotly_text(item.factor)},
            **({"tickvals": tried, "ticktext": [wording.number(x) for x in tried]} if len(tried) <= 12 else {}),
        },
        "yaxis": {
            "type": "log" if curves.is_logarithmic(metric, item.points["mean"]) else "linear",
            "title": {"text": plotly_text(metric)},
            "tickformat": "~%" if metrics.metric(metric).is_fraction else "",
        },
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    return {"data": traces, "layout": layout}


def interaction_figure(item: Interaction, metric: str, higher_is_better: bool) -> dict[str, Any]:
    rows, columns = ([plotly_text(str(value)) for value in names] for names in (item.grid.index, item.grid.columns))
    values = item.grid.to_numpy(float)
    cells = {
        "type": "heatmap",
        "z": [rounded(row) for row in values],
        "text": [[wording.value(metric, value) for value in row] for row in values],
        "customdata": [[f"{row}, {column}" for column in columns] for row in rows],
        "texttemplate": "%{text}",
        "hovertemplate": "%{customdata}: %{text}<extra></extra>",
        "colorscale": "Cividis",
        "reversescale": not higher_is_better,  # light is good
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = {
        "height": 120 + 46 * len(rows),
        "xaxis": named_axis(item.columns, item.grid.columns),
        "yaxis": {**named_axis(item.rows, item.grid.index), "autorange": "reversed"},
    }
    return {"data": [cells], "layout": layout}


def named_axis(title: str, names: Iterable[str]) -> dict[str, Any]:
    """Long names take two lines and no more: the mouse shows them whole."""
    lines = [textwrap.wrap(str(name), 20, max_lines=2, placeholder=" …") or [""] for name in names]
    texts = ["<br>".join(map(plotly_text, parts)) for parts in lines]
    ticks = {"tickvals": list(range(len(texts))), "ticktext": texts}
    return {"title": {"text": plotly_text(title)}, "showgrid": False, **ticks}


def plotly_line(style: Style) -> dict[str, str]:
    return {"color": style.colour, "dash": style.dash}


def rounded(values: Iterable[float], digits: int = 4) -> list[float | int | None]:
    """Numbers of few digits; None for what is not finite."""
    rounded = [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in values]
    return [int(x) if x is not None and x == int(x) else x for x in rounded]


def plotly_text(text: str) -> str:
    """Plotly reads tags and entities in every text it draws, and gives a long one no second line."""
    return html.escape(text if len(text) <= 80 else text[:79] + "…", quote=False)
