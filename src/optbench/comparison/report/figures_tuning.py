"""A paper's figures of a tuning: best score against trials and seconds, who is the best, every trial by its rate."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from optbench.comparison.report.page_tuning import band, room
from optbench.comparison.report.palette import Style
from optbench.comparison.report.paper import (
    INK,
    MUTED,
    SINGLE,
    axis_label,
    legend_below,
    look,
    scale_of,
    set_log,
)
from optbench.comparison.tuning import Tuning


def draw(tuning: Tuning, styles: Mapping[str, Style]) -> dict[str, Figure | None]:
    """By file name. `styles`: one for each search."""
    return {
        "tuning_trials": best_score(tuning, styles, "k", "trials"),
        "tuning_seconds": best_score(tuning, styles, "seconds", "seconds of training") if tuning.timed else None,
        "tuning_chances": chances(tuning, styles),
        "tuning_rates": rates(tuning, styles),
    }


def best_score(tuning: Tuning, styles: Mapping[str, Style], across: str, title: str) -> Figure | None:
    """The median of the best score so far, in its band: the first point has the defaults."""
    known = [search for search in tuning.searches if search.curve["median"].notna().any()]
    if not known:
        return None
    scale = scale_of(tuning.metric)
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    banded = False
    for search in known:
        curve, style = search.curve[search.curve["median"].notna()], styles[search.name]
        axes.plot(curve[across], scale * curve["median"], **look(style), label=search.name)
        if edges := band(curve):
            low, high = (scale * edge for edge in edges)
            axes.fill_between(curve[across], low, high, color=style.colour, alpha=0.12, linewidth=0)
            banded = True
    if ends := room(tuning):
        axes.set_ylim(scale * ends[0], scale * ends[1])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=across == "k"))
    axes.set(xlabel=title, ylabel=f"best {axis_label(tuning.metric)}")
    axes.grid(axis="y")
    handles = {search.name: Line2D([], [], **look(styles[search.name])) for search in known}
    height = legend_below(figure, SINGLE, handles, f"median{'; band: 95 %, for all at once' if banded else ''}")
    figure.set_size_inches(SINGLE, 2.1 + height)
    return figure


def chances(tuning: Tuning, styles: Mapping[str, Style]) -> Figure | None:
    """Stacked: how likely each is to be the best with so many trials."""
    names = [search.name for search in tuning.searches]
    if len(names) < 2 or len(tuning.chances) < 2:
        return None
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    colours = [styles[name].colour for name in names]
    shares = [100 * tuning.chances[name] for name in names]
    axes.stackplot(tuning.chances["k"], shares, colors=colours, alpha=0.85, edgecolor="white", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel="trials of each", ylabel="is the best with (%)", ylim=(0, 100))
    axes.set_xlim(tuning.chances["k"].iloc[0], tuning.chances["k"].iloc[-1])
    handles = {
        name: Line2D([], [], linestyle="", marker="s", markersize=6, mew=0, color=colour)
        for name, colour in zip(names, colours, strict=True)
    }
    figure.set_size_inches(SINGLE, 2.1 + legend_below(figure, SINGLE, handles, "from below to the top"))
    return figure


def rates(tuning: Tuning, styles: Mapping[str, Style]) -> Figure | None:
    """Each trial; a ring at the winner, a cross at the bottom where one diverged."""
    searches = [search for search in tuning.searches if search.trials["rate"].notna().any()]
    if not searches:
        return None
    scale = scale_of(tuning.metric)
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    handles: dict[str, Line2D] = {}
    crosses = 0
    for search in searches:
        style, trials = styles[search.name], search.trials
        there, diverged = trials[trials["score"].notna()], trials[trials["diverged"].astype(bool)]
        axes.plot(there["rate"], scale * there["score"], **(look(style) | {"linestyle": ""}), label=search.name)
        winner = there[there["trial"] == search.contestant.winner]
        axes.plot(winner["rate"], scale * winner["score"], "o", markersize=8, mfc="none", mec=INK, mew=0.8)
        if len(diverged):
            place = axes.get_xaxis_transform()
            level = 0.035 + 0.055 * crosses
            axes.plot(
                diverged["rate"], [level] * len(diverged), "x", color=style.colour, mew=1.4, markersize=4,
                transform=place, label=f"{search.name}, diverged",
            )  # fmt: skip
            crosses += 1
        handles[search.name] = Line2D([], [], **(look(style) | {"linestyle": ""}))
    set_log(axes, "x")
    axes.margins(y=0.05 + 0.07 * crosses)  # room for the crosses
    axes.set(xlabel="optimizer.lr", ylabel=axis_label(tuning.metric))
    axes.grid(axis="y")
    if any(search.contestant.winner is not None for search in searches):
        handles["winner"] = Line2D([], [], linestyle="", marker="o", markersize=7, mfc="none", mec=INK)
    if crosses:
        handles["diverged"] = Line2D([], [], linestyle="", marker="x", mec=MUTED, mew=1.4)
    figure.set_size_inches(SINGLE, 2.2 + legend_below(figure, SINGLE, handles))
    return figure
