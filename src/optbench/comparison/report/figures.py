"""Figures for a paper: one or two columns wide, legible in grey, as PNG and as PDF."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullLocator

from optbench.comparison.analysis import Comparison
from optbench.comparison.facts import Facts
from optbench.comparison.report import curves as lines
from optbench.comparison.report import figures_tuning, palette
from optbench.comparison.report.costs import costs
from optbench.comparison.report.curves import Curve
from optbench.comparison.report.paper import (
    DASHES,
    DOUBLE,
    INK,
    MARKERS,
    MUTED,
    SINGLE,
    apart,
    axis_label,
    fitting,
    labels,
    legend_below,
    look,
    paper,
    scale_of,
    set_log,
    shortened,
)
from optbench.comparison.report.tables import problems
from optbench.comparison.sensitivity import Interaction, Sensitivity
from optbench.comparison.verdicts import CLAIMED
from optbench.records import metrics, wording

NAMES = (
    "ranking",
    "differences",
    "curves",
    "curves_by_seconds",
    "time_to_target",
    "cost",
    "sensitivity_.+",
    "interaction",
    "tuning_(trials|seconds|chances|rates)",
)
MOST_RANKS, MOST_PAIRS, MOST_CELLS = 30, 20, 150


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write figures/<name>.png and .pdf below `folder` and return the paths; figures of an earlier report go."""
    place = folder / "figures"
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        if old.suffix in (".png", ".pdf") and re.fullmatch("|".join(NAMES), old.stem):
            old.unlink()
    paths = []
    with paper():
        for name, figure in draw(comparison).items():
            for suffix, dated in (("png", "Creation Time"), ("pdf", "CreationDate")):
                paths.append(place / f"{name}.{suffix}")
                figure.savefig(paths[-1], metadata={dated: None})  # undated: the same runs give the same bytes
                figure.set_layout_engine("none")  # laid out once, for both files
    return paths


def draw(comparison: Comparison) -> dict[str, Figure]:
    """The figures that have something to show."""
    means = lines.mean_curves(comparison.facts, lines.carried(comparison))
    axes = lines.axes(comparison.facts)
    with paper():
        figures = {
            "ranking": ranking(comparison),
            "differences": differences(comparison),
            "curves": curves(comparison, means, "epoch"),
            "curves_by_seconds": curves(comparison, means, "seconds") if "seconds" in axes else None,
            "time_to_target": time_to_target(comparison),
            "cost": cost(comparison),
            **{
                "sensitivity_" + re.sub(r"[^\w.-]+", "_", item.factor): sensitivity(comparison.facts, item)
                for item in comparison.judgement.sensitivities
            },
            "interaction": interaction(comparison.facts, comparison.judgement.interaction),
        }
        if comparison.tuning:
            figures |= figures_tuning.draw(
                comparison.tuning, palette.search_styles(comparison.facts, comparison.tuning)
            )
        return {name: figure for name, figure in figures.items() if figure is not None}


def ranking(comparison: Comparison) -> Figure | None:
    """The best on top: mean with its interval, and each seed as a small dot below."""
    facts, ranked = comparison.facts, comparison.judgement.ranking
    metric, rows = facts.metric, ranked.head(MOST_RANKS)
    if rows["mean"].isna().all():
        return None
    styles, scale = palette.styles(facts), scale_of(metric)
    names = labels(rows["configuration"])
    ticks = [names[row.configuration] + remark(row, facts.baseline) for row in rows.itertuples()]
    figure = Figure(figsize=(fitting(ticks, 22), 0.75 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()

    used = facts.runs[facts.runs["used"].astype(bool)]
    seeds = used.groupby(["configuration", "seed"])["metric"].mean().reset_index()  # as the statistics sample them
    for y, row in enumerate(rows.itertuples()):
        style = styles[row.configuration]
        if math.isnan(row.mean):
            text = f"no result: {problems(row)}"
            axes.text(0.02, y, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=7)
            continue
        dots = scale * seeds["metric"][seeds["configuration"] == row.configuration]
        if len(dots) > 1:
            axes.plot(dots, [y + 0.3] * len(dots), "o", color=style.colour, markersize=2.2, alpha=0.7, mew=0)
            axes.plot([scale * row.low, scale * row.high], [y, y], color=style.colour, solid_capstyle="butt")
        axes.plot(scale * row.mean, y, MARKERS[style.marker], color=style.colour, markersize=5, label=row.configuration)
        if row.configuration == facts.baseline:
            axes.axvline(scale * row.mean, color=MUTED, linewidth=0.6, linestyle=DASHES["dot"], zorder=0)

    if lines.is_logarithmic(metric, rows["mean"]):
        set_log(axes, "x")
    axes.set_yticks(range(len(rows)), ticks)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    note = "mean with 95 % interval; small dots: seeds" if rows["n"].max() > 1 else "one seed each"
    axes.set_xlabel(f"{axis_label(metric)}\n{note}", loc="right")  # it may reach below the names
    if len(rows) < len(ranked):
        axes.set_title(f"the best {len(rows)} of {len(ranked)} configurations", color=MUTED, loc="left")
    return figure


def remark(row: Any, baseline: str | None) -> str:
    """What a reader must know of a mean."""
    remarks = ["baseline"] * (row.configuration == baseline) + [problems(row)] * (row.n > 0)
    return f" ({', '.join(filter(None, remarks))})" if any(remarks) else ""


def differences(comparison: Comparison) -> Figure | None:
    """A forest plot: one row per pair, its difference with the interval; filled where a difference is claimed."""
    metric, pairs = comparison.facts.metric, comparison.judgement.differences
    known = pairs[pairs["difference"].notna()]
    rows = known.head(MOST_PAIRS)
    if known["low"].isna().all():  # with one seed each, the ranking shows it all
        return None
    scale = scale_of(metric)
    names = labels([*rows["a"], *rows["b"]], 34)
    ticks = [f"{names[a]} − {names[b]}" for a, b in zip(rows["a"], rows["b"], strict=True)]
    figure = Figure(figsize=(fitting(ticks, 24), 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    for y, row in enumerate(rows.itertuples()):
        axes.plot([scale * row.low, scale * row.high], [y, y], color=INK, solid_capstyle="butt")
        axes.plot([scale * row.difference], [y], "o", color=INK, markersize=4.5, mfc=INK if claimed(row) else "white")
    axes.set_yticks(range(len(rows)), ticks)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    unit = " (points)" if scale == 100 else ""
    sides = ("second is better", "first is better")[:: 1 if comparison.facts.higher_is_better else -1]
    axes.set_xlabel(
        f"difference in {shortened(metrics.title(metric))}{unit}\n← {sides[0]}   |   {sides[1]} →", loc="right"
    )
    kinds = {True: ("difference claimed", INK), False: ("no difference claimed", "white")}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=INK, markersize=4.5, mfc=fill, label=text)
        for kind, (text, fill) in kinds.items()
        if any(claimed(row) == kind for row in rows.itertuples())
    ]
    cut = f"; the first {len(rows)} of {len(known)} pairs" if len(known) > len(rows) else ""
    figure.legend(
        handles=handles, loc="outside upper center", ncols=2, handlelength=1, title=f"mean with 95 % interval{cut}"
    )
    return figure


def claimed(pair: Any) -> bool:
    return pair.verdict in CLAIMED


def curves(comparison: Comparison, every: Mapping[str, Curve], against: str) -> Figure | None:
    """One panel per metric over `against` (`epoch` or `seconds`): means, in a band of one standard deviation."""
    facts = comparison.facts
    names, note = lines.shown(comparison)
    drawn = {name: every[name] for name in names if name in every}
    logged = [
        metric
        for metric in facts.curve_metrics
        if not (metric == "lr" and against == "seconds")
        and any((curve.mean[metric].notna() & curve.mean[against].notna()).any() for curve in drawn.values())
    ]
    if not logged:
        return None

    columns = {1: 1, 2: 2, 3: 3, 4: 2}[len(logged)]
    rows = -(-len(logged) // columns)
    width = DOUBLE if columns > 1 else SINGLE
    banded = any(curve.sd[logged].notna().any(axis=None) for curve in drawn.values())
    title = "; ".join(filter(None, [note, "band: ± 1 standard deviation over seeds" if banded else ""]))
    figure = Figure(layout="constrained")
    styles = palette.styles(facts)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, metric in zip(panels, logged, strict=True):
        scale, log = scale_of(metric), lines.curves_are_logarithmic(metric, every.values())
        for k, (name, curve) in enumerate(drawn.items()):
            x, y = curve.mean[against].to_numpy(), scale * curve.mean[metric].to_numpy()
            low, high = (scale * edge.to_numpy() for edge in curve.band(metric, log))
            step = max(1, len(x) // 6)
            axes.plot(x, y, **look(styles[name]), markevery=(k % step, step), label=name)
            axes.fill_between(x, low, high, color=styles[name].colour, alpha=0.15, linewidth=0)
        if log:
            set_log(axes, "y")
        elif lines.from_zero(metric, log):
            axes.set_ylim(bottom=0)
        axes.set(xlabel="epoch" if against == "epoch" else "seconds of training", ylabel=axis_label(metric))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=against == "epoch", min_n_ticks=1))
        axes.grid(axis="y")
    handles = {name: Line2D([], [], **look(styles[name])) for name, curve in drawn.items() if len(curve.mean)}
    height = legend_below(figure, width, handles, title)
    figure.set_size_inches(width, 1.9 * rows + height)
    return figure


def time_to_target(comparison: Comparison) -> Figure | None:
    """Performance profile: the fraction of targets that are reached within so many times the fewest steps."""
    unit = comparison.judgement.time_unit
    profile, styles = comparison.judgement.profile, palette.styles(comparison.facts)
    names, note = lines.shown(comparison)
    names = [name for name in names if (profile["configuration"] == name).any()]
    if not names:
        return None
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    right, log = lines.profile_edge(profile)  # lines end at the edge: a fraction never falls again
    for name in names:
        steps = profile[profile["configuration"] == name].sort_values("ratio")
        x, y = [*steps["ratio"], right], [*100 * steps["fraction"], 100 * steps["fraction"].iloc[-1]]
        style = {**look(styles[name]), "markevery": slice(0, len(steps))}
        axes.plot(x, y, drawstyle="steps-post", label=name, clip_on=False, **style)
    axes.set(xlim=(1, right), ylim=(0, 102))
    if log:
        set_log(axes, "x")
    axes.set(xlabel=f"{unit} to a target, as a multiple of the fewest", ylabel="fraction of targets reached (%)")
    axes.grid()
    height = legend_below(figure, SINGLE, {name: Line2D([], [], **look(styles[name])) for name in names}, note)
    figure.set_size_inches(SINGLE, 2.1 + height)
    return figure


def cost(comparison: Comparison) -> Figure | None:
    """The metric against parameters, seconds and memory, a panel for each: a point is a configuration."""
    facts, shown = comparison.facts, costs(comparison.facts, comparison.judgement)
    if not shown:
        return None
    metric, styles, scale = facts.metric, palette.styles(facts), scale_of(facts.metric)
    names = list(shown[0].points["configuration"].head(MOST_RANKS))
    columns = min(len(shown), 2)
    rows, width = -(-len(shown) // columns), DOUBLE if columns > 1 else SINGLE
    figure = Figure(layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, item in zip(panels, shown, strict=False):
        for row in item.points[item.points["configuration"].isin(names)].itertuples():
            style, x = styles[row.configuration], getattr(row, item.column)
            axes.vlines(x, scale * row.low, scale * row.high, color=style.colour, linewidth=1)
            axes.plot(x, scale * row.mean, MARKERS[style.marker], color=style.colour, markersize=5, mew=0)
        if item.log:
            axes.margins(x=0.1)
            set_log(axes, "x")
            if item.column == "parameters":
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k, 1M
        else:
            axes.margins(x=0.1)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: wording.count(value) if value >= 10 else f"{value:.3g}")
            )
        if lines.is_logarithmic(metric, item.points["mean"]):
            set_log(axes, "y")
        axes.set(xlabel=item.title, ylabel=axis_label(metric))
        axes.grid()
    handles = {
        name: Line2D([], [], linestyle="", marker=MARKERS[styles[name].marker], color=styles[name].colour, mew=0)
        for name in names
    }
    more = len(comparison.judgement.ranking)
    cut = f"the best {len(names)} of {more} configurations" if len(names) < more else ""
    bars = "bars: 95 % interval" if shown[0].points["low"].notna().any() else "one seed each"
    height = legend_below(figure, width, handles, "; ".join(filter(None, [cut, bars])))
    figure.set_size_inches(width, 1.9 * rows + height)
    return figure


def sensitivity(facts: Facts, item: Sensitivity) -> Figure | None:
    """The metric against a number: intervals, a ring at what validation chose, a cross at the bottom for divergence."""
    points, metric = item.points, facts.metric
    if points["mean"].isna().all():
        return None
    scale, styles = scale_of(metric), palette.line_styles(facts, item)
    sign = 1 if facts.higher_is_better else -1
    best = (sign * points["mean"]).groupby(points["line"]).max().sort_values(ascending=False, kind="stable").index
    names = list(best[: lines.MOST_SHOWN])
    note = f"the best {len(names)} of {len(best)}" if len(names) < len(best) else ""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    handles: dict[str, Line2D] = {}
    stacked = Counter[float]()  # lines that diverge at the same value stay apart
    for name in names:
        its, style = points[points["line"] == name].sort_values("x"), styles[name]
        y, low, high = (scale * its[column].to_numpy() for column in ("mean", "low", "high"))
        x = its["x"].to_numpy()
        axes.plot(x, y, **look(style), label=name)
        axes.vlines(x, low, high, color=style.colour, linewidth=1)
        chosen = its["best"].to_numpy(bool)
        axes.plot(x[chosen], y[chosen], "o", markersize=8, mfc="none", mec=INK, mew=0.8)
        for value in x[its["diverged"].to_numpy() > 0]:
            level = 0.035 + 0.055 * stacked[value]
            axes.plot(value, level, "x", color=style.colour, mew=1.4, transform=axes.get_xaxis_transform())
            stacked[value] += 1
        handles[name or f"all by {item.factor}"] = Line2D([], [], **look(style))

    if lines.is_logarithmic(metric, points["mean"]):
        set_log(axes, "y")
    axes.margins(y=0.05 + 0.07 * max(stacked.values(), default=0))  # room for the crosses
    values = sorted(set(points["x"]))
    if item.log:
        set_log(axes, "x")
    ticks = apart(values, item.log)
    axes.set_xticks(ticks, [wording.number(x) for x in ticks], rotation=30 if len(ticks) > 5 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=shortened(item.factor), ylabel=axis_label(metric))
    axes.grid(axis="y")
    if points["best"].any():
        handles["best on validation"] = Line2D([], [], linestyle="", marker="o", markersize=7, mfc="none", mec=INK)
    if stacked:
        handles["diverged"] = Line2D([], [], linestyle="", marker="x", mec=MUTED, mew=1.4)
    bars = "bars: 95 % interval" if points["low"].notna().any() else ""
    height = legend_below(figure, SINGLE, handles, "; ".join(filter(None, [note, bars])))
    figure.set_size_inches(SINGLE, 2.2 + height)
    return figure


def interaction(facts: Facts, item: Interaction | None) -> Figure | None:
    """A heat map with its numbers; what is lighter is better, a dash has no result."""
    if item is None or item.grid.isna().all(axis=None) or item.grid.size > MOST_CELLS:
        return None
    metric = facts.metric
    values = scale_of(metric) * item.grid.to_numpy(float)
    rows, columns = values.shape
    below, beside = labels(item.grid.columns, 20), labels(item.grid.index, 30)
    longest = max(map(len, below.values()))
    width = SINGLE if columns <= 5 and max(map(len, beside.values())) <= 12 else DOUBLE
    slanted = longest > 6 or columns > 8
    figure = Figure(figsize=(width, 1 + 0.3 * rows + (0.05 * longest if slanted else 0)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    cmap = "cividis" if facts.higher_is_better else "cividis_r"
    norm = "log" if lines.is_logarithmic(metric, item.grid.stack()) else "linear"
    image = axes.imshow(values, cmap, norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if math.isnan(value):
            axes.text(column, row, "–", ha="center", va="center", color=MUTED)
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f"{value:.1f}" if scale_of(metric) == 100 else f"{value:.3g}"
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=7)
    ticks = [below[name] for name in item.grid.columns]
    axes.set_xticks(range(columns), ticks, rotation=40 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(rows), [beside[name] for name in item.grid.index])
    axes.set(xlabel=shortened(item.columns), ylabel=shortened(item.rows, 24))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.set_title(axis_label(metric) + ("; –: no result" if np.isnan(values).any() else ""), loc="left")
    return figure
