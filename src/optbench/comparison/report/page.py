"""A comparison as one HTML file: it opens offline, in either theme, on a phone, and prints."""

import base64
import hashlib
import html
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from optbench.comparison.analysis import Comparison, Interaction, Sensitivity
from optbench.comparison.report import palette
from optbench.comparison.report.palette import Style
from optbench.records import metrics, wording

ASSETS = Path(__file__).parent / "assets"
MOST_DIFFERENCES = 60  # rows of the table; statistics.csv has all
MANY, FEW = 12, 8  # with more configurations than MANY, the curves start with the FEW best
VERDICTS = {
    "better": "A is better",
    "worse": "A is worse",
    "tie": "tie",
    "unknown": "cannot be said",
    "withheld": "withheld",
}
DASHES = {"solid": "", "dash": "5 3", "dot": "2 3", "dashdot": "6 2 2 2"}
MARKERS = {
    "circle": "M11 6a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "square": "M11 3h6v6h-6z",
    "diamond": "M14 2l4 4-4 4-4-4z",
    "triangle-up": "M14 2l4 7h-8z",
    "cross": "M13 2h2v3h3v2h-3v3h-2V7h-3V5h3z",
    "x": "M11 1.6l3 3 3-3 1.4 1.4-3 3 3 3-1.4 1.4-3-3-3 3L9.600 9l3-3-3-3z",
}


def render(comparison: Comparison) -> str:
    """The page, whole: plotly.js, the data, the tables."""
    styles = palette.styles(comparison)
    styles = {name: styles[name] for name in comparison.ranking["configuration"]}  # the best lead every legend
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly, script = get_plotlyjs(), (ASSETS / "report.js").read_text(encoding="utf-8")
    swatches = {name: swatch(style) for name, style in styles.items()}
    lines = [palette.line_styles(comparison, item) for item in comparison.sensitivities]
    data = page_data(comparison, styles, lines)
    page = environment.get_template("report.html.jinja").render(
        it=comparison,
        title=f"{comparison.metric} of {wording.plural(len(comparison.ranking), 'configuration')}",
        # only these two scripts may run: whatever a name smuggles in, the browser refuses it
        policy=f"default-src 'none'; script-src {sha256(plotly)} {sha256(script)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        plotly=Markup(plotly),
        script=Markup(script),
        css=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),
        data=embedded(data),
        curve_axes=data["axes"],
        ranking=ranking_table(comparison, swatches),
        differences=differences_table(comparison, swatches),
        most_differences=MOST_DIFFERENCES,
        legend=[(name, swatches[name], name in shown(comparison)) for name in styles],
        without_mean=sorted(set(comparison.curves["configuration"]) - set(finished(comparison)["configuration"])),
        targets=targets_table(comparison, swatches),
        sensitivities=[
            (item, [(name, swatch(style)) for name, style in styled.items()])
            for item, styled in zip(comparison.sensitivities, lines, strict=True)
        ],
        runs=runs_table(comparison, swatches),
        plural=wording.plural,
        rows=rows,
    )
    # a folder's name need not be unicode: what cannot be written becomes a question mark
    return page.encode("utf-8", "replace").decode("utf-8")


# tables


class Cell(NamedTuple):
    """`key` sorts as a number, nan last; without one the text does. `note` stands below, smaller."""

    text: str
    key: float | None = None
    note: str = ""
    swatch: Markup = Markup("")

    @property
    def sort_key(self) -> str:
        """As JavaScript's Number() reads it."""
        if self.key is None or math.isnan(self.key):
            return ""
        return f"{self.key:.6g}".replace("inf", "Infinity")


@dataclass(frozen=True)
class Column:
    title: str
    cells: list[Cell]
    kind: str = "number"  # its CSS class: number, text, name, long or command


def rows(columns: Sequence[Column]) -> Iterable[tuple[Cell, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def numbers(
    title: str, keys: pd.Series, show: Callable[[float], str], notes: Iterable[str] | None = None
) -> list[Column]:
    """A column, or none where it would hold nothing but nan and 0."""
    keys = keys.astype(float)
    if not (keys.notna() & (keys != 0)).any():
        return []
    below = list(notes) if notes is not None else [""] * len(keys)
    return [Column(title, [Cell(show(key), key, note) for key, note in zip(keys, below, strict=True)])]


def names(title: str, values: pd.Series, swatches: dict[str, Markup]) -> Column:
    return Column(title, [Cell(value, swatch=swatches[value]) for value in values], "name")


def intervals(metric: str, low: pd.Series, high: pd.Series) -> list[str]:
    return ["" if a != a else wording.interval(metric, a, b) for a, b in zip(low, high, strict=True)]


def ranking_table(it: Comparison, swatches: dict[str, Markup]) -> list[Column]:
    frame = it.ranking

    def shown_as(metric: str) -> Callable[[float], str]:
        return lambda x: wording.value(metric, x)

    iqm_intervals = intervals(it.metric, frame["iqm_low"], frame["iqm_high"])
    return [
        Column("rank", [Cell(str(rank) if rank else "–", rank or math.inf) for rank in frame["rank"]]),
        names("configuration", frame["configuration"], swatches),
        *numbers("n", frame["n"], wording.count),
        *numbers(it.metric, frame["mean"], shown_as(it.metric), intervals(it.metric, frame["low"], frame["high"])),
        # of up to three seeds the IQM is the mean
        *(numbers("IQM", frame["iqm"], shown_as(it.metric), iqm_intervals) if (frame["n"] > 3).any() else []),
        *numbers(f"best {it.validation}", frame["validation"], shown_as(it.validation)),
        *numbers("train − test", frame["gap"], lambda x: wording.difference(it.metric, x)),
        *numbers("epochs to best", frame["best_epoch"], lambda x: f"{x:.1f}".removesuffix(".0") if x == x else "–"),
        *numbers("time to best", frame["best_seconds"], wording.seconds),
        *numbers("time an epoch", frame["epoch_seconds"], wording.seconds),
        *numbers("peak memory", frame["memory_mb"], lambda x: f"{wording.count(x)} MB" if x == x else "–"),
        *(
            column
            for status in ("completed", "diverged", "failed", "interrupted", "running")
            for column in numbers(status, frame[status], wording.count)
        ),
    ]


def differences_table(it: Comparison, swatches: dict[str, Markup]) -> list[Column]:
    frame = it.differences.head(MOST_DIFFERENCES)
    if frame.empty:
        return []
    wins = frame["improvement"] * frame["n"]
    return [
        names("A", frame["a"], swatches),
        names("B", frame["b"], swatches),
        Column("verdict", [Cell(VERDICTS.get(verdict, verdict)) for verdict in frame["verdict"]], "text"),
        *numbers("common seeds", frame["n"], wording.count),
        *numbers(
            "A − B",
            frame["difference"],
            lambda x: wording.difference(it.metric, x),
            intervals_of_differences(it.metric, frame["low"], frame["high"]),
        ),
        Column(
            "A better at",
            [
                Cell(f"{wins:.3g} of {n:.0f}" if wins == wins else "–", share)
                for wins, n, share in zip(wins, frame["n"], frame["improvement"], strict=True)
            ],
        ),
        *numbers("p", frame["p"], wording.p_value),
        *numbers("p, Holm", frame["p_holm"], wording.p_value),
        *numbers("detectable", frame["detectable"], lambda x: wording.difference(it.metric, x, sign=False)),
        *numbers("seeds needed", frame["seeds_needed"], lambda x: "> 1000" if math.isinf(x) else wording.count(x)),
    ]


def intervals_of_differences(metric: str, low: pd.Series, high: pd.Series) -> list[str]:
    return [
        "" if a != a else f"{wording.difference(metric, a).removesuffix(' points')} to {wording.difference(metric, b)}"
        for a, b in zip(low, high, strict=True)
    ]


def targets_table(it: Comparison, swatches: dict[str, Markup]) -> list[Column]:
    """A row a configuration, a column a target."""
    frame = it.targets
    if frame.empty:
        return []
    configurations = [name for name in it.ranking["configuration"] if name in set(frame["configuration"])]
    columns = [names("configuration", pd.Series(configurations), swatches)]
    for target, at in frame.groupby("target"):
        at = at.set_index("configuration")
        cells = []
        for name in configurations:
            if name not in at.index:
                cells.append(Cell("–", math.nan))
                continue
            row = at.loc[name]
            parts = [
                wording.plural(row["epochs"], "epoch"),
                f"{wording.count(row['steps'])} steps",
            ]
            if not math.isnan(row["seconds"]):
                parts.append(wording.seconds(row["seconds"]))
            missed = math.isinf(row["epochs"]) or math.isnan(row["epochs"])
            note = "∞" if missed else " · ".join(parts)
            cells.append(Cell(f"{row['reached']:.0f}/{row['n']:.0f}", row["steps"], note))
        columns.append(Column(target_text(it, target), cells))
    return columns


def target_text(it: Comparison, target: Any) -> str:
    """`val/accuracy ≥ 55 %`, as round as it was chosen."""
    number = f"{100 * target:.6g} %" if metrics.metric(it.validation).is_fraction else wording.number(target)
    return f"{it.validation} {'≥' if it.higher_is_better else '≤'} {number}"


def runs_table(it: Comparison, swatches: dict[str, Markup]) -> list[Column]:
    frame = it.runs

    def text(title: str, column: str, kind: str = "text") -> list[Column]:
        values = [str(value) for value in frame[column]]
        return [Column(title, [Cell(value) for value in values], kind)] if any(values) else []

    return [
        *text("run", "run", "long"),
        names("configuration", frame["configuration"], swatches),
        Column("seed", [Cell(str(seed), float(seed)) for seed in frame["seed"]]),
        *text("status", "status"),
        *numbers(it.metric, frame["metric"], lambda x: wording.value(it.metric, x)),
        *numbers(it.validation, frame["validation"], lambda x: wording.value(it.validation, x)),
        *numbers("epochs", frame["epochs"], wording.count),
        *numbers("time", frame["seconds"], wording.seconds),
        *text("note", "note", "long"),
        *text("error", "error", "long"),
        *text("overrides", "overrides", "long"),
        *text("folder", "folder", "long"),
        *text("command", "command", "command"),
    ]


# figures


def page_data(it: Comparison, styles: dict[str, Style], lines: list[dict[str, Style]]) -> dict[str, Any]:
    """What report.js draws. Figures of `static` are whole; curves are built there, for the axis that is chosen."""
    static = {"profile": profile_figure(it, styles)} if not it.profile.empty else {}
    for k, (item, styled) in enumerate(zip(it.sensitivities, lines, strict=True)):
        static[f"sensitivity-{k}"] = sensitivity_figure(item, it.metric, styled)
    if it.interaction is not None:
        static["interaction"] = interaction_figure(it.interaction, it.metric, it.higher_is_better)
    return {"static": static, **curve_data(it, styles)}


def finished(it: Comparison) -> pd.DataFrame:
    """The curves of the runs that a mean is taken over."""
    done = it.runs.index[it.runs["used"].astype(bool) & (it.runs["status"] == "completed")]
    return it.curves[it.curves["row"].isin(done)]


def curve_data(it: Comparison, styles: dict[str, Style]) -> dict[str, Any]:
    """Every run's curves once, and each configuration's means, in numbers as short as the eye allows.

    A curve is an index in `series`: epochs and learning rates are the same in many runs.
    """
    axes = ["epoch"] if it.times_withheld or it.curves["seconds"].isna().all() else ["epoch", "seconds"]
    series: dict[tuple[float | None, ...], int] = {}

    def stored(frame: pd.DataFrame, columns: Sequence[str], digits: int) -> list[int]:
        return [series.setdefault(tuple(short(frame[column], digits)), len(series)) for column in columns]

    order = {name: k for k, name in enumerate(styles)}
    runs = []
    for row, curve in it.curves.groupby("row"):
        run = it.runs.loc[row]
        status = "" if run["status"] == "completed" else f" · {run['status']}"
        runs.append(
            {
                "of": order[run["configuration"]],
                "name": f"{plotly_text(run['run'])} · seed {run['seed']}{status}",
                "x": stored(curve, axes, 5),
                "y": stored(curve, it.curve_metrics, 4),
            }
        )
    means = {}
    for name, curves in finished(it).groupby("configuration"):
        n = curves["row"].nunique()
        epochs = curves.drop(columns="configuration").groupby("epoch")
        whole = epochs["row"].nunique() == n  # a mean of fewer runs would jump where one ends
        mean, sd = epochs.mean()[whole].reset_index(), epochs.std()[whole]
        means[name] = {
            "n": n,
            "x": stored(mean, axes, 5),
            "y": stored(mean, it.curve_metrics, 4),
            "sd": stored(sd, it.curve_metrics, 3) if n > 1 else None,
        }
    return {
        "axes": axes,
        "epochs": int(it.curves["epoch"].max()) if len(it.curves) else 0,
        "metrics": [
            {
                "name": metric,
                "log": logarithmic(metric, finished(it)[metric]),
                "share": metrics.metric(metric).is_fraction,
            }
            for metric in it.curve_metrics
        ],
        "configurations": [
            {"name": plotly_text(name), "line": line(style), "symbol": style.marker, "mean": means.get(name)}
            for name, style in styles.items()
        ],
        "runs": runs,
        "series": list(series),
    }


def logarithmic(metric: str, values: pd.Series) -> bool:
    """A learning rate's axis is logarithmic where it can be; a loss's where it would hide the end of training."""
    values = values[values.map(math.isfinite)]
    if values.empty or values.min() <= 0:
        return False
    return metric == "lr" or (not metrics.metric(metric).is_fraction and bool(values.max() > 20 * values.min()))


def shown(it: Comparison) -> set[str]:
    """The configurations that the curves start with."""
    ranked = list(it.ranking["configuration"])
    first = ranked if len(ranked) <= MANY else ranked[:FEW]
    return {*first, *([it.baseline] if it.baseline else [])}


def profile_figure(it: Comparison, styles: dict[str, Style]) -> dict[str, Any]:
    right = max(it.profile["ratio"].max() * 1.05, 1.1)  # a line goes on to the right edge: it never falls again
    traces = []
    for k, (name, style) in enumerate(styles.items()):
        steps = it.profile[it.profile["configuration"] == name].sort_values("ratio")
        if steps.empty:
            continue
        traces.append(
            {
                "name": plotly_text(name),
                "group": k,
                "mode": "lines",
                "line": {**line(style), "shape": "hv"},
                "x": [*short(steps["ratio"], 5), right],
                "y": [*short(steps["share"]), float(steps["share"].iloc[-1])],
                "hovertemplate": "%{fullData.name}<br>%{y:.0%} within %{x:.3g} ×<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "times the fewest steps"}},
        "yaxis": {"title": {"text": "targets reached"}, "tickformat": "~%", "range": [-0.02, 1.04]},
    }
    return {"data": traces, "layout": layout}


def sensitivity_figure(item: Sensitivity, metric: str, styled: dict[str, Style]) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    percent = ".2%" if metrics.metric(metric).is_fraction else ".4f"
    for k, (name, style) in enumerate(styled.items()):
        points = item.points[item.points["line"] == name].sort_values("x")
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
                "line": line(style),
                "marker": {"symbol": style.marker, "size": sizes, "line": {"width": 0}, "opacity": 1},
                "x": short(points["x"], 6),
                "y": short(points["mean"]),
                "error_y": {
                    "array": short(points["high"] - points["mean"]),
                    "arrayminus": short(points["mean"] - points["low"]),
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
                    "yaxis": "y2",
                    "x": short(diverged["x"], 6),
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
        "z": [short(row) for row in values],
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
    """Long names take two lines and no more: they stand whole where the mouse points."""
    lines = [textwrap.wrap(str(name), 20, max_lines=2, placeholder=" …") or [""] for name in names]
    texts = ["<br>".join(map(plotly_text, parts)) for parts in lines]
    ticks = {"tickvals": list(range(len(texts))), "ticktext": texts}
    return {"title": {"text": plotly_text(title)}, "showgrid": False, **ticks}


def line(style: Style) -> dict[str, str]:
    return {"color": style.colour, "dash": style.dash}


def swatch(style: Style) -> Markup:
    """A short piece of a configuration's line, with its marker."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" stroke="{0}" fill="{0}">'
        '<path d="M0 6h28" stroke-width="2" stroke-dasharray="{1}"/><path d="{2}"/></svg>'
    ).format(style.colour, DASHES[style.dash], MARKERS[style.marker])


# what is embedded


def short(values: Iterable[float], digits: int = 4) -> list[float | int | None]:
    """Numbers of few digits; None for what is not finite."""
    rounded = [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in values]
    return [int(x) if x is not None and x == int(x) else x for x in rounded]


def plotly_text(text: str) -> str:
    """Plotly reads tags and entities in every text it draws, and gives a long one no second line."""
    return html.escape(text if len(text) <= 80 else text[:79] + "…", quote=False)


def embedded(data: Any) -> Markup:
    """JSON that can end no script element; ASCII, so U+2028 is escaped as well."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def sha256(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
