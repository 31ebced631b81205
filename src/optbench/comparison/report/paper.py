"""The look of figures for a paper: sizes, fonts, words and axes."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from optbench.comparison.report.palette import Style
from optbench.records import metrics, wording

SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a paper, and two
INK, MUTED = "#222222", "#767676"
DASHES: dict[str, Any] = {"solid": "-", "dash": (0, (4, 1.6)), "dot": (0, (1, 1.4)), "dashdot": (0, (5, 1.4, 1, 1.4))}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "x": "X"}
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere, and with the most letters
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # a dash pattern needs this length to be told apart
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a name may hold $ and _
    "text.usetex": False,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "savefig.dpi": 300,
}


@contextmanager
def paper() -> Iterator[None]:
    """The settings above, for what is drawn or saved inside. A letter that the font lacks is a box, not a warning."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"Glyph \d+ .* missing from font|Matplotlib currently does not support"
        )
        yield


def scale_of(metric: str) -> float:
    """Fractions are drawn as per cent."""
    return 100 if metrics.metric(metric).is_fraction else 1


def axis_label(metric: str) -> str:
    """`validation accuracy (%)` for `val/accuracy`."""
    if metric == "lr":
        return "learning rate"
    return shortened(metrics.title(metric)) + (" (%)" if scale_of(metric) == 100 else "")


def shortened(text: str, most: int = 36) -> str:
    """In one line and of no more than so many letters; what is too many is missing in the middle."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(text))
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def labels(names: Iterable[str], most: int = 36) -> dict[str, str]:
    """Each name as a figure shows it: short, and still unlike the others."""
    found: dict[str, str] = {}
    for name in names:
        if name not in found:
            label = shortened(name, most)
            found[name] = f"{shortened(name, most - 5)} ({len(found) + 1})" if label in found.values() else label
    return found


def fitting(texts: Iterable[str], most: int) -> float:
    """Two columns where the texts beside the axes would leave one no room."""
    return SINGLE if max(map(len, texts)) <= most else DOUBLE


def look(style: Style) -> dict[str, Any]:
    return {"color": style.colour, "linestyle": DASHES[style.dash], "marker": MARKERS[style.marker], "mew": 0}


def apart(values: Sequence[float], log: bool) -> list[float]:
    """Of ascending values, those whose ticks have room: a twelfth of the axis from one to the next."""
    places = [math.log(value) if log else value for value in values]
    room = (places[-1] - places[0]) / 12
    kept = [0]
    for k, place in enumerate(places):
        if place - places[kept[-1]] > room:
            kept.append(k)
    return [values[k] for k in kept]


def set_log(axes: Axes, which: str) -> None:
    """Logarithmic, with plain numbers: 0.001 and not 10 to the -3, which needs mathtext."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    ticks = (1, 2, 5) if high < 30 * low else (1, 3) if high < 300 * low else (1,)
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: wording.number(value)))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, width: float, handles: Mapping[str, Line2D], title: str = "") -> float:
    """A legend below all axes, in as many columns as fit; return its height in inches."""
    texts = labels(handles, 36 if width == SINGLE else 80)
    columns = max(1, min(len(texts), int(width / (0.5 + 0.06 * max(map(len, texts.values()))))))
    figure.legend(
        list(handles.values()), list(texts.values()), loc="outside lower center", ncols=columns, title=title or None
    )
    return 0.15 * -(-len(texts) // columns) + (0.3 if title else 0.15)
