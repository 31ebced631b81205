"""The page's section of a tuning: curves, chances, every trial by its rate, and a table."""

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from optbench.comparison.report.page_figures import plotly_line, plotly_text, rounded
from optbench.comparison.report.page_tables import Cell, Column, names, numbers
from optbench.comparison.report.palette import Style
from optbench.comparison.tuning import Search, Tuning, curse
from optbench.records import metrics, wording

FIGURES = {
    "tuning-trials": "Best {metric} against trials",
    "tuning-seconds": "Best {metric} against seconds of training",
    "tuning-chances": "Probability of being the best",
    "tuning-rates": "Every trial by its learning rate",
}

WORST_SCORE, WORST_LOSS = -1.0, 1e6  # beyond any axis: the worst end of a band that is not known


def tuning_figures(tuning: Tuning, styles: dict[str, Style]) -> dict[str, dict[str, Any]]:
    """For report.js, by the element's id. `styles`: one for each search, in their order."""
    found = {"tuning-trials": curves(tuning, styles, "k", "trials")}
    if tuning.timed:
        found["tuning-seconds"] = curves(tuning, styles, "seconds", "seconds of training")
    if len(tuning.searches) > 1:
        found["tuning-chances"] = chances(tuning, styles)
    if any(search.trials.rate.notna().any() for search in tuning.searches):
        found["tuning-rates"] = rates(tuning, styles)
    return found


def curves(tuning: Tuning, styles: dict[str, Style], across: str, title: str) -> dict[str, Any]:
    """The median of the best score so far, with its band."""
    bands, lines = [], []
    percent = metrics.metric(tuning.metric).is_fraction
    for group, search in enumerate(tuning.searches):
        curve = search.curve[search.curve["median"].notna()]
        style = styles[search.name]
        shared = {"group": group, "name": plotly_text(search.name)}
        if ends := band(curve):
            low, high = ends
            bands.append(
                {
                    **shared,
                    "x": rounded([*curve[across], *curve[across][::-1]], 5),
                    "y": rounded([*high, *low[::-1]], 5),
                    "mode": "lines",
                    "fill": "toself",
                    "line": {"width": 0, "shape": "linear"},
                    "fillcolor": f"{style.colour}22",
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        lines.append(
            {
                **shared,
                "x": rounded(curve[across], 5),
                "y": rounded(curve["median"], 5),
                "mode": "lines+markers",
                "line": {**plotly_line(style), "width": 2.2},
                "marker": {"symbol": style.marker, "size": [10, *[5] * (len(curve) - 1)]},
                "text": [wording.interval(tuning.metric, *ends) for ends in zip(curve.low, curve.high, strict=True)],
                "customdata": list(map(int, curve.k)),
                "hovertemplate": "%{fullData.name}<br>%{customdata} trials: %{y"
                + (":.2%" if percent else ":.4g")
                + "}, band %{text}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": title}},
        "yaxis": {"title": {"text": tuning.metric}, "tickformat": "~%" if percent else "", "range": room(tuning)},
    }
    return {"data": [*bands, *lines], "layout": layout}


def band(curve: pd.DataFrame) -> tuple[pd.Series, pd.Series] | None:
    """The ends of a curve's band; one that is not known is beyond any axis. None for the defaults alone."""
    if curve.loc[curve.k > 1, ["low", "high"]].isna().all(axis=None):
        return None
    return curve.low.fillna(WORST_SCORE), curve.high.fillna(WORST_LOSS)


def room(tuning: Tuning) -> list[float] | None:
    """An axis for the curves, without ends of bands that are not known, and without the worst quarter of scores."""
    scores = pd.concat([search.trials.score for search in tuning.searches]).dropna()
    medians = pd.concat([search.curve["median"] for search in tuning.searches])
    if scores.empty:
        return None
    sign = tuning.sign
    best = sign * float((sign * scores).max())
    far = sign * max(float((sign * scores).quantile(0.25)), float((sign * medians).min()))
    margin = 0.15 * abs(best - far) or 0.01
    return [min(best, far) - margin, max(best, far) + margin]


def chances(tuning: Tuning, styles: dict[str, Style]) -> dict[str, Any]:
    traces = [
        {
            "group": group,
            "name": plotly_text(search.name),
            "x": list(map(int, tuning.chances.k)),
            "y": rounded(tuning.chances[search.name], 4),
            "stackgroup": "all",
            "mode": "lines",
            "line": {"color": styles[search.name].colour, "width": 0.5},
            "fillcolor": f"{styles[search.name].colour}cc",
            "hovertemplate": "%{fullData.name}<br>%{x} trials: %{y:.0%}<extra></extra>",
        }
        for group, search in enumerate(tuning.searches)
    ]
    layout = {
        "xaxis": {"title": {"text": "trials of each"}},
        "yaxis": {"title": {"text": "is the best with"}, "tickformat": "~%", "range": [0, 1]},
    }
    return {"data": traces, "layout": layout}


def rates(tuning: Tuning, styles: dict[str, Style]) -> dict[str, Any]:
    """Each trial; those that diverged are × at the bottom; dotted lines are the ends of what was searched."""
    traces: list[dict[str, Any]] = []
    percent = ":.2%" if metrics.metric(tuning.metric).is_fraction else ":.4g"
    for group, search in enumerate(tuning.searches):
        style, there = styles[search.name], search.trials[search.trials.score.notna()]
        shared = {"group": group, "name": plotly_text(search.name), "mode": "markers"}
        sizes = [15 if trial == search.contestant.winner else 7 for trial in there.trial]
        traces.append(
            {
                **shared,
                "x": rounded(there.rate, 6),
                "y": rounded(there.score, 5),
                "marker": {"symbol": style.marker, "color": style.colour, "size": sizes, "opacity": 0.85},
                "text": [what(search, int(trial)) for trial in there.trial],
                "hovertemplate": f"%{{fullData.name}}, %{{text}}<br>%{{y{percent}}}<extra></extra>",
            }
        )
        diverged = search.trials[search.trials.diverged]
        if len(diverged):
            traces.append(
                {
                    **shared,
                    "x": rounded(diverged.rate, 6),
                    "y": [0.02 + 0.045 * group] * len(diverged),
                    "yaxis": "y2",
                    "cliponaxis": False,
                    "marker": {"symbol": "x", "size": 9, "color": style.colour},
                    "text": [what(search, int(trial)) for trial in diverged.trial],
                    "hovertemplate": "%{fullData.name}, %{text}<br>diverged<extra></extra>",
                    "showlegend": False,
                }
            )
        for axis in search.contestant.axes:
            if axis.key == "optimizer.lr":
                traces += [
                    {
                        **shared,
                        "x": [end, end],
                        "y": [0, 0.06],
                        "yaxis": "y2",
                        "mode": "lines",
                        "line": {"color": style.colour, "width": 2, "dash": "dot"},
                        "showlegend": False,
                        "hovertemplate": f"%{{fullData.name}}: searched {word} {wording.number(end)}<extra></extra>",
                    }
                    for end, word in ((axis.low, "from"), (axis.high, "to"))
                ]
    layout = {
        "xaxis": {"type": "log", "title": {"text": "optimizer.lr"}},
        "yaxis": {"title": {"text": tuning.metric}, "tickformat": "~%" if percent == ":.2%" else ""},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    return {"data": traces, "layout": layout}


def what(search: Search, trial: int) -> str:
    kind = "defaults" if trial == 0 else "winner" if trial == search.contestant.winner else f"trial {trial}"
    return plotly_text(f"{kind}: {search.contestant.trials[trial].point}")


def tuning_table(tuning: Tuning, test: str, swatches: dict[str, Markup]) -> list[Column]:
    """One row for each search: from the defaults to the final, and what the search flattered."""
    searches, metric = tuning.searches, tuning.metric

    def column(title: str, values: list[float]) -> list[Column]:
        return numbers(title, pd.Series(values, dtype=float), lambda x: wording.value(metric, x))

    def mean(values: list[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    winners = [search.contestant.winner for search in searches]
    return [
        names("optimizer", pd.Series([search.name for search in searches]), swatches),
        Column("trials", [Cell(str(len(search.trials)), len(search.trials)) for search in searches]),
        *numbers("diverged", pd.Series([search.trials.diverged.sum() for search in searches]), wording.count),
        *column("defaults", [search.score(0) for search in searches]),
        *column("best trial", [math.nan if s.best is None else s.score(s.best) for s in searches]),
        *numbers(
            "at fresh seeds",
            pd.Series([curse(search) for search in searches]),
            lambda x: wording.difference(metric, x),
        ),
        Column(
            "winner",
            [
                Cell("–", math.nan)
                if winner is None
                else Cell(f"trial {winner}", winner, search.contestant.trials[winner].point)
                for search, winner in zip(searches, winners, strict=True)
            ],
            "text",
        ),
        *column(
            "in the search", [math.nan if w is None else s.score(w) for s, w in zip(searches, winners, strict=True)]
        ),
        *column("in the shortlist", [mean(search.shortlisted) for search in searches]),
        *column("in the final", [mean(search.final) for search in searches]),
        *numbers(
            f"final {test}", pd.Series([mean(search.test) for search in searches]), lambda x: wording.value(test, x)
        ),
        Column("on an edge", [Cell(edges(search)) for search in searches], "text"),
    ]


def edges(search: Search) -> str:
    found = [f"{name.replace('optimizer.', '')}: {edge}" for name, edge in search.contestant.edges.items()]
    return "; ".join(found) or "no"
