"""What the page's script draws with plotly: whole figures, and the curves as numbers from which it builds them."""

import html
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from optbench.comparison.factors import short_names
from optbench.comparison.facts import Facts
from optbench.comparison.importance import Combinations, Importance
from optbench.comparison.judgement import Judgement
from optbench.comparison.report import curves
from optbench.comparison.report.costs import COSTS, Cost, costs
from optbench.comparison.report.curves import Curve
from optbench.comparison.report.palette import Style
from optbench.comparison.sensitivity import Interaction, Sensitivity, is_logarithmic, ordered
from optbench.records import metrics, wording

AXIS = "#8a8f98"
# From vermillion over grey to blue of Okabe and Ito, legible on white and on a dark page: the worst to the best
SHADES = ("#d55e00", "#c86f33", "#ba8059", "#aa907f", "#9a9a9a", "#83939f", "#6589a5", "#437eab", "#0072b2")
MOST_STEPS, MOST_TICKS = 12, 12  # numbers at equal distances, and texts, on an axis of the parallel coordinates
NO_RESULT = -0.08  # of that axis


def page_data(
    facts: Facts,
    judgement: Judgement,
    means: Mapping[str, Curve],
    styles: dict[str, Style],
    lines: Sequence[dict[str, Style]],
    points: dict[str, Style],
) -> dict[str, Any]:
    """What report.js draws. Figures of `static` are whole; curves are built there, for the axis that is chosen.

    Args:
        styles: of the configurations that have curves; `lines`: of each sensitivity; `points`: of every configuration.
    """
    static = {"profile": profile_figure(judgement, styles)} if not judgement.profile.empty else {}
    for k, (item, styled) in enumerate(zip(judgement.sensitivities, lines, strict=True)):
        static[f"sensitivity-{k}"] = sensitivity_figure(item, facts.metric, styled)
    static |= {f"cost-{it.column}": cost_figure(it, facts.metric, points) for it in costs(facts, judgement)}
    if judgement.interaction is not None:
        static["interaction"] = interaction_figure(judgement.interaction, facts.metric, facts.higher_is_better)
    if judgement.combinations is not None:
        static["parallel"] = parallel_figure(judgement.combinations, facts.metric, facts.higher_is_better)
    if judgement.importance is not None:
        static["importance"] = importance_figure(judgement.importance)
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


def cost_figure(item: Cost, metric: str, styles: dict[str, Style]) -> dict[str, Any]:
    """A point for each configuration, with the interval of its mean."""
    percent = ".2%" if metrics.metric(metric).is_fraction else ".4f"
    show = COSTS[item.column][1]
    groups = {name: k for k, name in enumerate(styles)}
    traces = []
    for row in item.points.itertuples():
        interval = "" if math.isnan(row.low) else f", 95 %: {wording.interval(metric, row.low, row.high)}"
        style = styles[row.configuration]
        traces.append(
            {
                "name": plotly_text(row.configuration),
                "group": groups[row.configuration],
                "mode": "markers",
                "marker": {"symbol": style.marker, "size": 11, "color": style.colour},
                "x": rounded([getattr(row, item.column)], 6),
                "y": rounded([row.mean]),
                "error_y": {
                    "array": rounded([row.high - row.mean]),
                    "arrayminus": rounded([row.mean - row.low]),
                    "color": style.colour,
                    "thickness": 1.2,
                    "width": 3,
                },
                "text": [f"{show(getattr(row, item.column))}<br>n = {row.n}{interval}"],
                "hovertemplate": f"%{{fullData.name}}<br>%{{y:{percent}}} at %{{text}}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {
            "type": "log" if item.log else "linear",
            "title": {"text": item.title},
            "exponentformat": "SI",
            **({"dtick": "D2"} if item.log else {}),  # 1, 2, 5: all nine digits are too many
        },
        "yaxis": {
            "type": "log" if curves.is_logarithmic(metric, item.points["mean"]) else "linear",
            "title": {"text": plotly_text(metric)},
            "tickformat": "~%" if metrics.metric(metric).is_fraction else "",
        },
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


def parallel_figure(item: Combinations, metric: str, higher_is_better: bool) -> dict[str, Any]:
    """A line for each combination, across an axis for each factor, to its mean; the better, the bluer.

    Drawn as lines, since plotly's own parallel coordinates need WebGL and `unsafe-eval`, and are no SVG.
    """
    means = item.by_seed.mean(axis=1)
    axes = [factor_axis(key, list(item.values[key])) for key in item.values]
    axes.append(metric_axis(metric, means))
    last = len(axes) - 1
    grey = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    ends = [[0, 1, None]] * len(axes)
    traces: list[dict[str, Any]] = [
        {**grey, "line": {"color": AXIS, "width": 1}, "x": [x for k in range(last + 1) for x in (k, k, None)]}
        | {"y": [y for end in ends for y in end]}
    ]
    order = (means if higher_is_better else -means).rank(pct=True)  # nan without a result
    shades = [-1 if math.isnan(rank) else min(int(rank * len(SHADES)), len(SHADES) - 1) for rank in order]
    for shade in range(-1, len(SHADES)):  # the best on top
        rows = [row for row, its in enumerate(shades) if its == shade]
        line = {"color": SHADES[shade], "width": 1.3} if shade >= 0 else {"color": AXIS, "width": 1, "dash": "dot"}
        y = [y for row in rows for y in (*(axis.at[row] for axis in axes), math.nan)]  # a gap after each
        if rows:
            x = [*range(last + 1), None] * len(rows)
            traces.append({**grey, "line": line, "opacity": 0.7, "x": x, "y": rounded(y, 3)})
    seeds = item.by_seed.notna().sum(axis=1)
    traces.append(
        {
            "mode": "markers",
            "showlegend": False,
            "marker": {"size": 6, "color": [SHADES[shade] if shade >= 0 else AXIS for shade in shades]},
            "x": [last] * len(means),
            "y": rounded(axes[-1].at, 3),
            "text": [
                "<br>".join(
                    [
                        *(
                            plotly_text(f"{key}={wording.text(value)}")
                            for key, value in zip(item.values, row, strict=True)
                        ),
                        f"{metric} {wording.value(metric, mean)}, n = {n}" if n else "no result",
                    ]
                )
                for row, mean, n in zip(item.values.itertuples(index=False), means, seeds, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
    )
    ticks = [(k, at, text) for k, axis in enumerate(axes) for at, text in axis.ticks.items()]
    traces.append(
        {
            "mode": "text",
            "hoverinfo": "skip",
            "showlegend": False,
            "cliponaxis": False,
            "textposition": "middle right",
            "x": [k + 0.02 for k, _, _ in ticks],
            "y": rounded((at for _, at, _ in ticks), 3),
            "text": [plotly_text(text) for _, _, text in ticks],
        }
    )
    named = named_axis("", [*short_names(item.values), metric])
    layout = {
        "height": 420,
        "margin": {"l": 12, "r": 12, "t": 12, "b": 40},
        "xaxis": {**named, "range": [-0.3, last + 0.6], "fixedrange": True, "tickangle": 0},
        "yaxis": {"visible": False, "range": [-0.13, 1.05], "fixedrange": True},
    }
    return {"data": traces, "layout": layout}


class Axis(NamedTuple):
    """An axis of the parallel coordinates, from 0 to 1: where each combination is, and a text at each tick."""

    at: list[float]
    ticks: dict[float, str]


def factor_axis(key: str, values: Sequence[Any]) -> Axis:
    """Words, and a few numbers, are at equal distances; many numbers are on a scale."""
    words, there = list(map(wording.text, values)), ordered(values)
    if all(map(wording.is_number, values)) and len(there) > MOST_STEPS:
        return scale(values, is_logarithmic(key, min(values), max(values)), wording.number)
    step = 1 / max(len(there) - 1, 1)
    at = {word: k * step for k, word in enumerate(there)}
    shown = there[:: -(-len(there) // MOST_TICKS)]
    return Axis([at[word] for word in words], {at[word]: textwrap.shorten(word, 20, placeholder="…") for word in shown})


def metric_axis(metric: str, means: pd.Series) -> Axis:
    """What has no result is below the scale."""
    if means.isna().all():
        return Axis([NO_RESULT] * len(means), {NO_RESULT: "no result"})
    fraction = metrics.metric(metric).is_fraction
    axis = scale(
        list(means),
        curves.is_logarithmic(metric, means),
        lambda x: f"{100 * x:.4g} %" if fraction else wording.number(x),
    )
    ticks = axis.ticks | ({NO_RESULT: "no result"} if means.isna().any() else {})
    return Axis([NO_RESULT if math.isnan(at) else at for at in axis.at], ticks)


def scale(values: Sequence[float], log: bool, show: Callable[[float], str]) -> Axis:
    """Numbers from 0 (the smallest) to 1 (the largest)."""
    known = [x for x in values if math.isfinite(x)]
    low, high = min(known), max(known)
    locator = LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)) if log else MaxNLocator(6)
    ticks = [float(f"{x:.6g}") for x in locator.tick_values(low, high) if low <= x <= high]

    def place(x: float) -> float:
        if high == low:
            return 0.5
        return math.log(x / low) / math.log(high / low) if log else (x - low) / (high - low)

    return Axis(
        [place(x) if math.isfinite(x) else math.nan for x in values], {place(x): show(x) for x in ticks or [low]}
    )


def importance_figure(item: Importance) -> dict[str, Any]:
    shares = item.shares.iloc[::-1]  # plotly draws bars from the bottom
    names = [plotly_text(name) for name in shares["factor"]]
    bars = {"type": "bar", "orientation": "h", "y": names}
    traces: list[dict[str, Any]] = [
        {
            **bars,
            "name": "by itself",
            "x": rounded(shares["alone"]),
            "marker": {"color": SHADES[-1]},
            "hovertemplate": "%{y}: %{x:.1%} by itself<extra></extra>",
        },
        {
            **bars,
            "name": "with what depends on it and on others",
            "x": rounded(shares["total"] - shares["alone"]),
            "customdata": rounded(shares["total"]),
            "marker": {"color": "#8cc0e0"},
            "hovertemplate": "%{y}: %{customdata:.1%} in all<extra></extra>",
        },
    ]
    if math.isfinite(item.chance):
        line = {"color": SHADES[0], "dash": "dot", "width": 1.5}
        ends = {"x": [item.chance] * 2, "y": [names[0], names[-1]]}
        traces.append({"mode": "lines", "name": "chance", "line": line, "hoverinfo": "name", **ends})
    layout = {
        "height": 150 + 36 * len(names),
        "barmode": "stack",
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.35, "yanchor": "top", "traceorder": "normal"},
        "xaxis": {"tickformat": "~%", "rangemode": "tozero", "title": {"text": "variance explained"}},
    }
    return {"data": traces, "layout": layout}


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
