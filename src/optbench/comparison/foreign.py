"""Runs that other programs trained: what their columns and settings mean here, and a record of what they say.

A table (`tables.py`) and logs (`logs.py`) both become records of this kind. What they cannot say stays empty: hashes,
versions and devices are then not proven to be equal, and not known to differ.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from optbench.records import metrics
from optbench.records.record import RunRecord
from optbench.records.wording import is_number, some

LOGS = "logs"  # the origin of runs whose logs were read
STAGES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval"), "val"),
    "test": "test",
}
SHORT = {"acc": "accuracy", "err": "error", "ppl": "perplexity"}
STAGED = re.compile(rf"({'|'.join(STAGES)})([/_. -])(.+)", re.I)
PROGRESS = ("epoch", "step", "seconds")
ROUNDING = 1e-5  # a mean of float32 numbers that are all 1 can be a little more

Row = dict[str, float]  # `epoch`, `step`, `seconds` as far as known, then metrics by their keys


@dataclass
class ForeignRecord(RunRecord):
    """A record of a run that did not write one. `origin`: the table it is from, or LOGS."""

    origin: str = ""


class ForeignRun(NamedTuple):
    """`place`: a folder, or a table and its line. `epochs`: rows for the curves; none where there is one row in all."""

    place: Path
    record: ForeignRecord
    epochs: list[Row]


def metric_key(column: str) -> str | None:
    """The metric that a column is: `val/accuracy` for `val_acc`. None: it is no metric; '': it is not read.

    `<stage>/<name>` is a metric whatever its name, and so is `<stage>_<name>` (also with a dot, a hyphen or a space)
    where the name is known. A known name alone is of the test set. Not read is what comes from another column: the
    best so far (`val/acc_best`), a single batch (`train/loss_step`).
    """
    column = column.strip()
    found = STAGED.fullmatch(column)
    stage, mark, rest = (found[1].lower(), found[2], found[3]) if found else ("test", "", column)
    first, *more = rest.split("/")
    name = in_full(first.lower().removesuffix("_epoch"))
    bare = re.sub(r"_(best|step)\Z", "", name)
    if found and bare != name and in_full(bare) in metrics.KNOWN:
        return ""  # the best so far, or a single batch
    if name in metrics.KNOWN or mark == "/":
        return "/".join([STAGES[stage], name, *more])
    return None


def in_full(name: str) -> str:
    """`accuracy` for `acc`."""
    return SHORT.get(name, name)


def check_known(metric: str, source: str) -> None:
    """Refuse to compare by a metric of which nobody said which way is better.

    Raises:
        ValueError: with the names that are known.
    """
    if metrics.name_of(metric) not in metrics.KNOWN:
        raise ValueError(
            f"metric={metric} of {source}: it is not known whether more of it is better, and whether it is a "
            f"fraction. Known are {', '.join(metrics.KNOWN)}. Rename the column to one of them, or describe the "
            "metric in src/optbench/records/metrics.py."
        )


def in_per_cent(columns: Mapping[str, Iterable[float]]) -> list[str]:
    """The fractions that someone wrote as per cent: those with a value above 1, beyond what rounding explains."""
    return [
        key
        for key, values in columns.items()
        if metrics.name_of(key) in metrics.KNOWN
        and metrics.metric(key).is_fraction
        and any(x > 1 + ROUNDING for x in values)
    ]


def record_of(
    origin: str, settings: Mapping[str, Any], seed: int, rows: Sequence[Row], metric: str, **fields: Any
) -> ForeignRecord:
    """What rows of one run say, in the order of its epochs.

    A test metric counts as it was measured last. Validation and training count at the epoch at which validation by
    the compared metric was best, or at the last one where that was not measured.

    Args:
        settings: by their keys. Words are choices, such as `optimizer`; anything else is a value, such as `lr`.
        fields: of the record.
    """
    words = {key: value for key, value in settings.items() if isinstance(value, str)}
    record = ForeignRecord(
        origin=origin,
        seed=seed,
        choices=words,
        config=nested({key: value for key, value in settings.items() if key not in words}),
        **{"status": "completed", **fields},
    )
    validation = metrics.at("val", metric)
    measured = [row for row in rows if math.isfinite(row.get(validation, math.nan))]
    best = max(measured, key=lambda row: metrics.sign(metric) * row[validation]) if measured else rows[-1]
    record.best = {key: value for key, value in best.items() if not key.startswith("test/")}
    record.final = dict(rows[-1])
    for row in rows:
        record.test |= {key: value for key, value in row.items() if key.startswith("test/")}
    last: Row = {}
    for row in rows:
        last |= {key: row[key] for key in PROGRESS if math.isfinite(row.get(key, math.nan))}
    record.epochs, record.steps = int(last.get("epoch", 0)), int(last.get("step", 0))
    if "seconds" in last:
        record.seconds = {"training": last["seconds"]}
    return record


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of dotted keys: `data.batch_size` is in `data`, unless that is a value itself."""
    config: dict[str, Any] = {}
    for key, value in sorted(settings.items()):
        *groups, name = key.split(".")
        place = config
        for group in groups:
            inside = place.get(group, {})
            if not isinstance(inside, dict):
                place, name = config, key
                break
            place = place.setdefault(group, inside)
        place[name] = value
    return config


def listed(columns: Mapping[str, str], per_cent: Sequence[str]) -> str:
    """`val/accuracy (column val_acc, in per cent), val/loss`: the metrics and what they were read from."""
    texts = []
    for column, key in columns.items():
        remarks = [f"column {column}"] * (column != key) + ["in per cent"] * (key in per_cent)
        texts.append(key + (f" ({', '.join(remarks)})" if remarks else ""))
    return some(texts, 8) or "none"


def setting_of(text: str) -> Any:
    """A cell as a value: a number, true or false, None where it is empty, else the words themselves."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if is_number(value) and "_" not in text:  # 1_000 is Python's
            return value
    return text or None
