"""How numbers read: a share as per cent, a difference of shares in points, everything else as it is."""

import math


def is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1] and reads best as per cent: all of ours but losses. `lr` is no metric."""
    return metric.split("/")[1:2] not in ([], ["loss"])


def value(metric: str, x: float, digits: int = 2) -> str:
    """`54.71 %` or `1.3620`; a dash for none."""
    if math.isnan(x):
        return "–"
    return f"{100 * x:.{digits}f} %" if is_share(metric) else f"{x:.{digits + 2}f}"


def difference(metric: str, x: float, digits: int = 2, sign: bool = True) -> str:
    """`+1.20 points` or `-0.0310`."""
    if math.isnan(x):
        return "–"
    plus = "+" if sign else ""
    return f"{100 * x:{plus}.{digits}f} points" if is_share(metric) else f"{x:{plus}.{digits + 2}f}"


def interval(metric: str, low: float, high: float, digits: int = 2) -> str:
    """`54.10 to 55.31 %`; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    if is_share(metric):
        return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
    return f"{low:.{digits + 2}f} to {high:.{digits + 2}f}"


def p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(x: float) -> str:
    """A whole number, ∞ for a miss, a dash for none."""
    if math.isnan(x):
        return "–"
    return "∞" if math.isinf(x) else f"{x:,.0f}".replace(",", "\u202f")


def seconds(x: float) -> str:
    """`0.41 s`, `12.3 s`, `4:05 min`, `2:03:10 h`; ∞ for a miss, a dash for none."""
    if math.isnan(x) or math.isinf(x):
        return count(x)
    if x < 100:
        return f"{x:.3g} s"
    minutes, rest = divmod(round(x), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def number(x: float) -> str:
    """A value that a person set: 0.0003, 1e-05, 128."""
    return f"{x:.12g}"


def plural(n: float, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n:.0f} {word}" + ("" if n == 1 else "s")
