"""What each configuration looks like, the same in every figure and every report."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain, cycle

from optbench.comparison.facts import Facts
from optbench.comparison.sensitivity import Sensitivity
from optbench.comparison.tuning import Tuning

# Safe for colour-blind readers and legible on white and on a dark page, which leaves neither yellow nor black:
# blue, vermillion, green and purple of Okabe and Ito (jfly.uni-koeln.de/color), then wine, olive and dark green
# of Paul Tol's schemes (SRON/EPS/TN/09-002).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#AA3377", "#999933", "#117733")
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")

FIRST_MARKERS = (0, 3, 1, 4, 1, 4, 0)  # of each colour, so that `look` keeps what it promises

# The first colours belong to these, whether or not a comparison has them.
OPTIMIZERS = ("adam", "sgd", "rmsprop", "adamw")


@dataclass(frozen=True)
class Style:
    """Names as plotly has them."""

    colour: str
    dash: str
    marker: str


def styles(facts: Facts) -> dict[str, Style]:
    """One style per configuration: its hue's colour, and a dash and a marker of its own."""
    return assign(facts.hues)


def line_styles(facts: Facts, sensitivity: Sensitivity) -> dict[str, Style]:
    """One style per line: the colour of the hue that it names, such as `adam` in `adam batch_size=64`."""
    hues = set(facts.hues.values())
    lines = dict.fromkeys(sensitivity.points["line"])
    return assign({line: next((word for word in line.split(" ") if word in hues), line) for line in lines})


def search_styles(facts: Facts, tuning: Tuning) -> dict[str, Style]:
    """One style per search of a tuning: that of its final runs, or one by its optimizer where it has none."""
    own, final = assign({search.name: search.contestant.optimizer for search in tuning.searches}), styles(facts)
    return own | {its.name: final[its.configuration] for its in tuning.searches if its.configuration in final}


def assign(hues: dict[str, str]) -> dict[str, Style]:
    """Styles of anything that has a hue, in the order of `hues`."""
    names = sorted(set(hues.values()))
    colours = {hue: OPTIMIZERS.index(hue) for hue in names if hue in OPTIMIZERS}
    others = [hue for hue in names if hue not in OPTIMIZERS]
    left = [i for i in range(len(OPTIMIZERS)) if i not in colours.values()]
    free = chain(range(len(OPTIMIZERS), len(COLOURS)), left, cycle(range(len(COLOURS))))
    colours |= dict(zip(others, free, strict=False))

    found, taken = {}, Counter[int]()
    for name in sorted(hues, key=lambda name: (hues[name], name)):
        colour = colours[hues[name]]
        found[name] = look(colour, taken[colour])
        taken[colour] += 1
    return {name: found[name] for name in hues}


def look(colour: int, nth: int) -> Style:
    """The nth style of a colour.

    The first six have six markers: points without lines are told apart, too. Without colours, the first three of each
    are still told apart by dash and marker.
    """
    dash = (colour + nth) % len(DASHES)
    marker = (FIRST_MARKERS[colour] + nth + nth // 12) % len(MARKERS)
    return Style(COLOURS[colour], DASHES[dash], MARKERS[marker])
