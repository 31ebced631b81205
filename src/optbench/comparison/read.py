"""Finished runs, found and read: one row per run and one row per epoch.

A run is a folder with a record (summary.json), logs of Lightning (`logs.py`), or rows of a table (`tables.py`).
"""

import csv
import math
import os
import re
import shlex
import statistics
from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from optbench.comparison.foreign import PROGRESS, ForeignRecord, ForeignRun
from optbench.comparison.logs import find_log, has_logs, read_logs
from optbench.comparison.tables import read_table
from optbench.records import metrics
from optbench.records.metrics import CURVES
from optbench.records.record import METRICS_CSV, STATUSES, SUMMARY, RunRecord
from optbench.records.wording import near, plural


class Damage(StrEnum):
    """What is wrong with a run's metrics.csv, and how its note says so."""

    MISSING = f"no {METRICS_CSV}: no curves"
    UNREADABLE = f"{METRICS_CSV} cannot be read: no curves"
    NO_TABLE = f"{METRICS_CSV} is no table of epochs: no curves"
    TORN = f"{METRICS_CSV} is torn after {{epochs}}"

    def note(self, epochs: int) -> str:
        return self.format(epochs=plural(epochs, "epoch"))


@dataclass(frozen=True)
class Runs:
    """All runs that could be read.

    Attributes:
        frame: one row per run, as `Facts.runs` describes it, without the columns that depend on what is compared.
        curves: one row per epoch of every run; `row` is the run's index in `frame`.
        records: in the order of `frame`.
        damaged: the rows of the runs whose metrics.csv is damaged, and how.
        skipped: a sentence for each folder that could not be read.
        readings: a sentence for each table, and one for all logs, that says what was taken for what.
    """

    frame: pd.DataFrame
    curves: pd.DataFrame
    records: list[RunRecord]
    damaged: dict[int, Damage]
    skipped: list[str]
    readings: list[str]


def read_runs(sources: Sequence[str], metric: str) -> Runs:
    """Read the runs in or below `sources` (folders, tables or globs).

    Raises:
        ValueError: where there is no run at all, none has logged `metric`, or a table cannot be read.
    """
    runs = read_any_runs(sources, metric)
    check_metric(metric, runs.records)
    return runs


def read_any_runs(sources: Sequence[str], metric: str) -> Runs:
    """Read the runs as `read_runs` does, also where none has logged `metric`.

    Raises:
        ValueError: where there is no run at all, or a table cannot be read.
    """
    records: list[RunRecord] = []
    rows: list[dict[str, Any]] = []
    columns = list(dict.fromkeys((*EPOCH, metrics.at("val", metric))))
    curves = {name: array("d") for name in columns}  # a list of a million rows would take ten times as much
    lengths: list[int] = []
    damaged: dict[int, Damage] = {}
    skipped: list[str] = []
    tables, others = find_tables(sources)
    folders = find_runs(others)
    without_record = [folder for folder in folders if not (folder / SUMMARY).exists()]
    logs = {folder: log for folder in without_record if (log := find_log(folder))}
    own = read_own([folder for folder in folders if folder not in logs], skipped)
    foreign, readings = read_foreign(tables, logs, metric, skipped)
    for folder, record, epochs, damage in chain(own, foreign):
        row = describe(record, folder, metric, epochs)
        if damage is not None:
            damaged[len(rows)] = damage
            row["note"] = damage.note(len(epochs))
        for name, column in curves.items():
            column.extend([epoch.get(name, math.nan) for epoch in epochs])
        lengths.append(len(epochs))
        records.append(record)
        rows.append(row)
    if not rows:
        reasons = " ".join(skipped[:3])
        raise ValueError(f"runs={','.join(sources)}: there is no run that can be read. {reasons}")
    arrays = {name: np.array(column) for name, column in curves.items()}
    all_curves = pd.DataFrame({"row": np.repeat(np.arange(len(rows)), lengths), **arrays})
    return Runs(pd.DataFrame(rows), all_curves, records, damaged, skipped, readings)


class Found(NamedTuple):
    """A run: its folder (or its table and line), its record, its epochs, and what is wrong with them."""

    place: Path
    record: RunRecord
    epochs: Sequence[Mapping[str, float]]
    damage: Damage | None


def read_own(folders: Sequence[Path], skipped: list[str]) -> Iterator[Found]:
    """The runs of this project."""
    for folder in folders:
        try:
            yield Found(folder, read_record(folder), *read_metrics(folder / METRICS_CSV))
        except ValueError as error:
            skipped.append(f"Left out: {error}")


def read_foreign(
    tables: Mapping[Path, Set[int]], logs: Mapping[Path, Path], metric: str, skipped: list[str]
) -> tuple[list[Found], list[str]]:
    """The runs of other programs, and how they were read. `logs`: a run's folder -> its log."""
    runs: list[ForeignRun] = []
    readings = []
    for path, lines in tables.items():
        found, reading = read_table(path, metric)
        runs += [run for run in found if not lines or int(run.place.name.rpartition(":")[2]) in lines]
        readings.append(reading)
    if logs:
        found, left_out, reading = read_logs(logs, metric)
        runs += found
        skipped += left_out
        readings += [reading] if reading else []
    return [Found(run.place, run.record, run.epochs, None) for run in runs], readings


EPOCH = (*PROGRESS, *CURVES)
LINE = re.compile(r"(.+\.csv):(\d+)", re.I)  # one run of a table, as the column `folder` names it


def find_tables(sources: Sequence[str]) -> tuple[dict[Path, set[int]], list[str]]:
    """The tables among sources, each with the lines that are wanted (none: all), and the other sources."""
    tables: dict[Path, set[int]] = {}
    others = []
    for source in sources:
        line = LINE.fullmatch(source)
        path = Path(line[1] if line else source).expanduser()
        found = [match.resolve() for match in sorted(matches(path), key=natural) if match.is_file()]
        if path.suffix.lower() != ".csv" or not found:
            others.append(source)
            continue
        for table in found:
            if line and tables.get(table) != set():
                tables[table] = tables.get(table, set()) | {int(line[2])}
            else:
                tables[table] = set()  # the whole table
    return tables, others


def matches(path: Path) -> list[Path]:
    """The path where it exists, or else what it matches as a glob, which may be absolute."""
    return [path] if path.exists() else [Path(match) for match in glob(str(path), recursive=True)]  # noqa: PTH207


def find_runs(sources: Sequence[str]) -> list[Path]:
    """The folders of runs in or below folders and globs, each once: those with a record, or with a run's `.hydra`.

    Raises:
        ValueError: for a source that names nothing, or nothing with a run in it.
    """
    found: dict[Path, None] = {}
    advice = (
        "Give a run's folder, a sweep's, a table such as results.csv, a glob such as 'logs/train/multiruns/*', or a "
        "[list] of them."
    )
    for source in sources:
        places = matches(Path(source).expanduser())
        if not places:
            raise ValueError(f"runs={source} does not exist. {advice}")
        inside = [run for place in places for run in walk(place.parent if place.name == SUMMARY else place)]
        if not inside:
            raise ValueError(f"runs={source} holds no run: there is no {SUMMARY} in it or below. {advice}")
        found |= dict.fromkeys(folder.resolve() for folder in inside)
    return sorted(found, key=natural)


def walk(folder: Path) -> Iterator[Path]:
    """The runs at or below a folder; nothing is looked for inside a run, and links are followed once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        hydra = (Path(place) / ".hydra" / "config.yaml").is_file()
        if SUMMARY in (*files, *folders) or hydra or has_logs(files):
            folders.clear()
            yield Path(place)
        elif (real := os.path.realpath(place)) in seen:
            folders.clear()
        else:
            seen.add(real)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts 2_… before 10_…"""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def read_record(folder: Path) -> RunRecord:
    """A run's record, of which every field is what it is declared to be.

    Raises:
        ValueError: where there is none that can be read, whatever is in its place.
    """
    path = folder / SUMMARY
    if not path.is_file() and (path.exists() or (folder / ".hydra").is_dir()):
        raise ValueError(f"{folder} began as a run and has no {SUMMARY}.")
    try:
        record = RunRecord.read(folder)
    except (OSError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if wrong := [name for name, hint in FIELDS.items() if not fits(getattr(record, name), hint)]:
        raise ValueError(f"{path} is not a run's record: {wrong[0]} cannot be {getattr(record, wrong[0])!r:.60}.")
    if record.status not in STATUSES:
        raise ValueError(f"{path} has the unknown status {record.status!r}.")
    return record


FIELDS = get_type_hints(RunRecord) | {"config": dict[str, Any]}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated type. Inside a dictionary null may stand for nan."""
    outer, inner = parts(hint)
    if hint is Any:
        return True
    if outer is dict:
        return isinstance(value, dict) and all(item is None or fits(item, inner[1]) for item in value.values())
    if outer is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if inner:
        return any(fits(value, one) for one in inner)
    if isinstance(value, int) and hint in (int, float):
        return abs(value) < 2**63
    return isinstance(value, hint)


@cache
def parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


def read_metrics(path: Path) -> tuple[list[dict[str, float]], Damage | None]:
    """The whole rows of metrics.csv as numbers, and what is wrong with the file, if anything.

    A run may be writing the file at this moment, or was killed while writing: a torn row is left out.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        return [], Damage.MISSING
    except (OSError, UnicodeDecodeError, csv.Error):
        return [], Damage.UNREADABLE
    if not lines or "epoch" not in lines[0] or "step" not in lines[0]:
        return [], Damage.NO_TABLE
    rows: list[dict[str, float]] = []
    for line in lines[1:]:
        try:
            row = {name: float(cell) for name, cell in zip(lines[0], line, strict=False) if cell and cell != "None"}
        except ValueError:
            row = {}
        if len(line) != len(lines[0]) or not {"epoch", "step"} <= row.keys():
            return rows, Damage.TORN
        rows.append(row)
    return rows, None


def describe(record: RunRecord, folder: Path, metric: str, epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A run's row."""
    validation = metrics.at("val", metric)
    tested = next((row for row in epochs if row["epoch"] == record.tested.get("epoch")), {})
    best = next((row for row in epochs if row["epoch"] == record.best.get("epoch")), {})
    value = metric_of(record, metric)
    train = number(tested if metric.startswith("test/") else best, "train/" + metric.partition("/")[2])
    epoch_seconds = [row["epoch_seconds"] for row in epochs if not math.isnan(row.get("epoch_seconds", math.nan))]
    memory = record.peak_memory_mb
    device = record.device
    error = ((record.error or {}).get("message") or "").strip().splitlines()
    return {
        "run": folder.name,
        "folder": str(folder),
        "seed": record.seed,
        "status": record.status,
        "note": "",
        "overrides": ", ".join(record.overrides),
        "command": "" if isinstance(record, ForeignRecord) else "python src/train.py " + shlex.join(record.overrides),
        "error": f"{(record.error or {}).get('type', '')}: {error[-1]}" if error else "",
        "metric": value,
        "validation": metric_of(record, validation),
        "gap": train - value,
        "epochs": record.epochs,
        "steps": record.steps,
        "best_epoch": number(record.best, "epoch"),
        "best_seconds": number(record.best, "seconds"),
        "epoch_seconds": statistics.median(epoch_seconds) if epoch_seconds else math.nan,
        "seconds": number(record.seconds, "training"),
        "total_seconds": number(record.seconds, "total"),
        "parameters": number(record.parameters, "trainable"),
        "memory_mb": number(memory, "gpu" if "gpu" in memory else "process"),
        "device": device_name(device) if device else "",
        "host": str(device.get("host") or ""),
        "commit": record.commit,
        "started": record.started,
    }


def number(row: Mapping[str, Any], key: str) -> float:
    """nan where a record has no finite one."""
    value = row.get(key)
    return math.nan if value is None or not math.isfinite(value) else float(value)


def device_name(device: Mapping[str, Any]) -> str:
    """What determines times: two runs on the same device name can be compared in seconds."""
    several = f"{device['devices']} x " if device.get("devices", 1) != 1 else ""
    threads = device.get("threads") if device.get("accelerator") == "cpu" else None
    cores = f", {plural(threads, 'thread')}" if threads else ""
    return f"{several}{device.get('name') or device.get('accelerator', 'unknown')}{cores}"


def metric_of(record: RunRecord, metric: str) -> float:
    """A test metric, or what validation or training metric the best epoch (by `monitor`) had."""
    return number(record.test if metric.startswith("test/") else record.best, metric)


def check_metric(metric: str, records: Sequence[RunRecord]) -> None:
    """Refuse a metric that no run has, unless no run has any yet: what validation measures, the test will."""
    logged = {name for record in records for name in (*record.test, *record.best)}
    known = sorted(name for name in logged if name.startswith(("test/", "val/", "train/")))
    tested = any(record.test for record in records)
    if known and metric not in known and (tested or metrics.at("val", metric) not in known):
        overall = [name for name in known if name.count("/") == 1]
        overall.sort(key=lambda name: not name.startswith("test/"))  # those of the test set first
        of_a_class = [name for name in known if name.count("/") > 1]
        classes = f" {of_a_class[0]} and so on for single classes." if of_a_class else ""
        raise ValueError(
            f"metric={metric} was logged by no run{near(metric, known)} There are: {', '.join(overall)}.{classes}"
        )
