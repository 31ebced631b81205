"""How values read in messages, tables and figures: a fraction as per cent, `true` as a person types it."""

import difflib
import math
import shlex
import sys
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from optbench.records import metrics


def resuming(folder: Path) -> str:
    """The argument that resumes what is in a folder, as a shell takes it."""
    return f"resume={shlex.quote(str(folder))}"


def value(metric: str, x: float, digits: int = 2) -> str:
    """`54.71 %` or `1.3620`; a dash for none."""
    if math.isnan(x):
        return "–"
    return f"{100 * x:.{digits}f} %" if metrics.metric(metric).is_fraction else f"{x:.{digits + 2}f}"


def difference(metric: str, x: float, digits: int = 2, sign: bool = True) -> str:
    """`+1.20 points` or `-0.0310`."""
    if math.isnan(x):
        return "–"
    plus = "+" if sign else ""
    return f"{100 * x:{plus}.{digits}f} points" if metrics.metric(metric).is_fraction else f"{x:{plus}.{digits + 2}f}"


def interval(metric: str, low: float, high: float, digits: int = 2) -> str:
    """`54.10 to 55.31 %`; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    if metrics.metric(metric).is_fraction:
        return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
    return f"{low:.{digits + 2}f} to {high:.{digits + 2}f}"


def difference_interval(metric: str, low: float, high: float, digits: int = 2) -> str:
    """`+0.12 to +2.30 points`; `> 0` for an open end at 0; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    least = difference(metric, low, digits).removesuffix(" points") if low else "> 0"
    return f"{least} to {difference(metric, high, digits) if high else '< 0'}"


def level(metric: str, x: float, higher_is_better: bool, digits: int | None = 2) -> str:
    """What must be reached: `≥ 55.00 %` or `≤ 0.4000`; without `digits` as round as a person set it, `≥ 55 %`."""
    if digits is None:
        reads = f"{100 * x:.6g} %" if metrics.metric(metric).is_fraction else number(x)
    else:
        reads = value(metric, x, digits)
    return f"{'≥' if higher_is_better else '≤'} {reads}"


def p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(x: float) -> str:
    """A whole number, ∞ for a miss, a dash for none."""
    if math.isnan(x):
        return "–"
    return "∞" if math.isinf(x) else f"{x:,.0f}".replace(",", "\u202f")


def ratio(x: float) -> str:
    """`0.61`, `12`; a dash for none."""
    return "–" if math.isnan(x) else f"{x:.2f}" if x < 10 else f"{x:.0f}"


def ratio_interval(low: float, high: float) -> str:
    """`0.52 to 0.80`; `< 1` for an open end at 1; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"{ratio(low) if low != 1 else '> 1'} to {ratio(high) if high != 1 else '< 1'}"


def seeds(low: float, high: float) -> str:
    """`11 to 33`, `8`, `40 to over 1000`; a dash for none."""
    if math.isnan(low):
        return "–"
    least, most = (count(n) if math.isfinite(n) else "over 1000" for n in (low, high))
    return least if least == most else f"{least} to {most}"


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


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def text(value: Any) -> str:
    """A value as a person types it: null, true, 0.001, [1, 2]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return number(value) if is_number(value) else str(value)


def plural(n: float, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n:.0f} {word}" + ("" if n == 1 else "s")


def joined(words: Sequence[str], more: int = 0) -> str:
    """`a, b and 3 more`; names with a comma are parted by semicolons."""
    comma = "; " if any(", " in word.partition(" (")[0] for word in words) else ", "
    *most, last = [*words, *([f"{more} more"] if more > 0 else [])]
    return f"{comma.join(most)} and {last}" if most else last


def names(words: Sequence[str], most: int = 4) -> str:
    """The first of many names: `a, b, c, d and 3 more`. With few, `a and b`."""
    return joined(words[:most], len(words) - most)


def some(words: Sequence[str], most: int, comma: str = ", ") -> str:
    """The first of many: `a, b and 7 more`. With few, `a, b`."""
    return comma.join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def near(word: str, known: Collection[str]) -> str:
    """`; did you mean dropout?`, or a full stop where nothing is near. A dictionary gives a word's full name."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.73)  # root is not dropout, val/acc is val/accuracy
    names = known if isinstance(known, dict) else dict(zip(known, known, strict=True))
    return f"; did you mean {names[match[0]]}?" if match else "."


def paragraph(text: str) -> str:
    """One paragraph, folded at 100 columns; words such as paths are never broken."""
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def first_line(error: BaseException) -> str:
    """Of its message, without the full stop; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
