"""A search space in Hydra's sweep syntax, and points drawn from it.

`optimizer.lr: tag(log, interval(1e-4, 1e-2))` · `choice(0, 1e-4)` · `range(1, 5)` · `int(interval(1, 9))`. The key
`1 - optimizer.momentum` searches 1 - momentum; `optimizer.betas.0` is the first value of a list.
"""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optbench.commands.hydra_internals import Interval, Values, sweep_values, written
from optbench.pool.devices import single_threaded
from optbench.records.tuning import Edge
from optbench.records.wording import is_number, number

ONE_MINUS = re.compile(r"1\s*-\s*")
EXAMPLE = "optimizer.lr: tag(log, interval(1e-4, 1e-2))"
STRETCH = 0.5  # by how much of its range, in its scale, a space is widened on one side
Point = list[float]  # a place on each axis, 0 to 1


@dataclass(frozen=True)
class Dimension:
    """One key of a space: an interval, or values to choose from; `source` is where it is written, as `text`."""

    key: str
    one_minus: bool
    values: Interval | Values
    text: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        return f"1 - {self.key}" if self.one_minus else self.key

    def at(self, place: float) -> Any:
        """The value of the setting at a place from 0 to 1, six digits long."""
        values = self.values
        if isinstance(values, list):
            drawn = values[min(int(place * len(values)), len(values) - 1)]
        elif values.whole:
            low, high = values.low, values.high + 1
            drawn = math.exp(math.log(low) + place * math.log(high / low)) if values.log else low + place * (high - low)
            drawn = min(int(drawn), int(values.high))
        else:
            drawn = scaled(values.low, values.high, values.log, place)
            drawn = float(f"{drawn:.6g}")
        return float(1 - Decimal(str(drawn))) if self.one_minus else drawn

    def place(self, value: Any) -> float | None:
        """Where a value is on the axis: 0 to 1 within the interval; None where there is no such place."""
        values = self.values
        if isinstance(values, list) or not is_number(value):
            return None
        x = float(1 - Decimal(str(value))) if self.one_minus else float(value)
        if values.log:
            return math.log(x / values.low) / math.log(values.high / values.low) if x > 0 else -math.inf
        return (x - values.low) / (values.high - values.low)

    def widened(self, edge: Edge) -> "Dimension":
        """The same with more room on one side, as far as there is any.

        1 - x is at most 1, and 0 stays an end. A range from 0 to 1 on a plain scale, such as that of a dropout rate,
        goes half of the way to 1 and never reaches it.
        """
        values = self.values
        assert not isinstance(values, list)
        low, high = values.low, values.high
        if edge is Edge.LARGEST:
            high = scaled(low, high, values.log, 1 + STRETCH)
            if self.one_minus:
                high = min(high, 1.0)
            elif not values.log and not values.whole and values.low >= 0 and values.high < 1:
                high = min(high, (1 + values.high) / 2)
        else:
            low = scaled(low, high, values.log, -STRETCH)
            low = 0.0 if not values.log and values.low >= 0 > low else low
        if values.whole:
            low, high = max(math.floor(low), 1) if values.log else math.floor(low), math.ceil(high)
        wider = replace(values, low=float(f"{low:.6g}"), high=float(f"{high:.6g}"))
        return self if wider == values else replace(self, values=wider, text=text_of(wider))


def scaled(low: float, high: float, log: bool, place: float) -> float:
    return low * (high / low) ** place if log else low + place * (high - low)


def read_dimension(name: str, text: Any, source: str) -> Dimension:
    """One line of a space.

    Args:
        source: where it is written, for the error.

    Raises:
        ValueError: with what is wrong and how it is written.
    """
    where, key = f"{source}: {name}: {text}", ONE_MINUS.sub("", name).strip()
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise ValueError(f"{where}: {name} is no key. A line is a key and what it may be, for example {EXAMPLE}.")
    try:
        values = sweep_values(key, str(text))
    except ValueError as error:
        raise ValueError(
            f"{where} cannot be read ({error}). Write interval(low, high), tag(log, interval(low, high)), "
            "int(interval(low, high)), choice(a, b) or range(start, stop)."
        ) from error
    one_minus = bool(ONE_MINUS.match(name))
    if isinstance(values, list):
        if not values:
            raise ValueError(f"{where} has no value: give at least one.")
        if one_minus and not all(is_number(value) for value in values):
            raise ValueError(f"{where}: 1 - … needs numbers.")
        return Dimension(key, one_minus, values, str(text), source)
    if not values.low < values.high:
        raise ValueError(f"{where}: the lower end must be below the upper one.")
    if values.log and values.low <= 0:
        raise ValueError(f"{where}: a logarithmic scale must begin above 0.")
    return Dimension(key, one_minus, values, str(text), source)


def settings_of(values: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """The values of a point by key; an item of a list stands for the whole list, the others as configured."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        parent, _, last = key.rpartition(".")
        whole = OmegaConf.select(cfg, parent) if last.isdecimal() else None
        if whole is None:
            found[key] = value
        else:
            found.setdefault(parent, list(whole))[int(last)] = value
    return found


def overrides_of(values: Mapping[str, Any], cfg: DictConfig) -> list[str]:
    """The values of a point as overrides, as `settings_of` gives them."""
    return [f"{key}={written(value)}" for key, value in settings_of(values, cfg).items()]


Sampler = Callable[[int, str], Iterator[Point]]  # how many dimensions, and what fixes the draws -> points without end


def uniform(dimensions: int, seed: str) -> Iterator[Point]:
    """Independent and uniform, as the bands of the report need it."""
    generator = random.Random(seed)
    while True:
        yield [generator.random() for _ in range(dimensions)]


def quasi_random(dimensions: int, seed: str) -> Iterator[Point]:
    """Halton's sequence, scrambled (Owen 2017): it fills the space more evenly."""
    with single_threaded():  # or no run could be forked from this process
        from scipy.stats.qmc import Halton

    sequence = Halton(dimensions, scramble=True, rng=random.Random(seed).getrandbits(32))
    while True:
        yield [float(x) for x in sequence.random(1)[0]]


SAMPLERS: dict[str, Sampler] = {"random": uniform, "qmc": quasi_random}


def draw(space: Sequence[Dimension], sampler: str, seed: str, outside: Sequence[Dimension] = ()) -> Iterator[dict]:
    """Points of a space without end, as values by key.

    Args:
        outside: dimensions as they were before they were widened: only points beyond one of them.
    """
    for point in SAMPLERS[sampler](len(space), seed):
        values = {dimension.key: dimension.at(place) for dimension, place in zip(space, point, strict=True)}
        places = [dimension.place(values[dimension.key]) for dimension in outside]
        if not outside or any(place is not None and not 0 <= place <= 1 for place in places):
            yield values


def text_of(values: Interval) -> str:
    """An interval as Hydra's syntax."""
    text = f"interval({number(values.low)}, {number(values.high)})"
    text = f"int({text})" if values.whole else text
    return f"tag(log, {text})" if values.log else text
