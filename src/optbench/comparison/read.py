"""Runs, found and read: a row a run, a row an epoch, and what varies between them."""

import csv
import math
import os
import re
import shlex
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd

from optbench.records import metrics
from optbench.records.configuration import identity, key_of, leaves
from optbench.records.metrics import CURVES
from optbench.records.record import METRICS, STATUSES, SUMMARY, RunRecord
from optbench.records.wording import near, plural

# What can differ without a bearing on the result: places (the data have a hash), what is shown, what is logged.
NEUTRAL = re.compile(
    r"(output_dir|task|compare|resume|trust|seed|logger|debug|data\.(root|cache_dir|url|workers)|trainer\.(log_every_n_steps|enable_\w+|logger|"
    r"default_root_dir|profiler)|callbacks\.(histograms|figures|progress|summary|learning_rate|last_checkpoint))(\.|$)"
)


@dataclass(frozen=True)
class Runs:
    """All runs that could be read.

    Attributes:
        frame: a row a run, as `Comparison.runs` describes it, without the columns that depend on what is compared.
        curves: a row an epoch of every run; `row` is the run's index in `frame`.
        records: in the order of `frame`.
        groups: the configuration groups (`optimizer`, `model`, …) among `factors`.
        factors: key -> the value of each run, for what varies by itself. `seed` is none of them: it numbers the
            samples.
        implied: keys that also vary, but only together with a factor, such as the learning rates of two optimizers.
        skipped: a sentence for each folder that could not be read.
    """

    frame: pd.DataFrame
    curves: pd.DataFrame
    records: list[RunRecord]
    groups: list[str]
    factors: dict[str, list[Any]]
    implied: dict[str, list[Any]]
    skipped: list[str]


def read_runs(sources: Sequence[str], metric: str) -> Runs:
    """Read the runs in or below `sources` (folders or globs) and find what varies between them.

    Raises:
        ValueError: where there is no run at all, or none has logged `metric`.
    """
    records: list[RunRecord] = []
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, float]] = []
    skipped: list[str] = []
    columns = list(dict.fromkeys((*EPOCH, metrics.at("val", metric))))
    for folder in find_runs(sources):
        try:
            record = read_record(folder)
            epochs, torn = read_metrics(folder / METRICS)
            row = describe(record, folder, metric, epochs)
        except ValueError as error:
            skipped.append(f"Left out: {error}")
            continue
        if torn:
            row["note"] = torn
        curves += [{"row": len(rows), **{key: epoch.get(key, math.nan) for key in columns}} for epoch in epochs]
        records.append(record)
        rows.append(row)
    if not rows:
        reasons = " ".join(skipped[:3])
        raise ValueError(f"runs={','.join(sources)}: there is no run that can be read. {reasons}")
    check_metric(metric, records)
    groups, factors, implied = find_factors(records)
    epochs_of_all = pd.DataFrame(curves, columns=["row", *columns]).astype(dict.fromkeys(columns, float))
    return Runs(pd.DataFrame(rows), epochs_of_all, records, groups, factors, implied, skipped)


EPOCH = ("epoch", "step", "seconds", *CURVES)


def find_runs(sources: Sequence[str]) -> list[Path]:
    """The folders of runs in or below folders and globs, each once: those with a record, or with a run's `.hydra`.

    Raises:
        ValueError: for a source that names nothing, or nothing with a run in it.
    """
    found: dict[Path, None] = {}
    advice = "Give a run's folder, a sweep's, a glob such as 'logs/train/multiruns/*', or a [list] of them."
    for source in sources:
        path = Path(source).expanduser()
        matches = [path] if path.exists() else glob(str(path), recursive=True)  # noqa: PTH207  # may be absolute
        places = [Path(match) for match in matches]
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
        if SUMMARY in (*files, *folders) or (Path(place) / ".hydra" / "config.yaml").is_file():
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
    if not path.is_file():
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
    inner = get_args(hint)
    if hint is Any:
        return True
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(item is None or fits(item, inner[1]) for item in value.values())
    if get_origin(hint) is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if inner:
        return any(fits(value, one) for one in inner)
    if isinstance(value, int) and hint in (int, float):
        return abs(value) < 2**63
    return isinstance(value, hint)


def read_metrics(path: Path) -> tuple[list[dict[str, float]], str]:
    """The whole rows of metrics.csv as numbers, and what is wrong with the file, if anything.

    A run may be writing it at this moment, or was killed while it did: a torn row is left out and named.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        return [], f"no {METRICS}: no curves"
    except (OSError, UnicodeDecodeError, csv.Error):
        return [], f"{METRICS} cannot be read: no curves"
    if not lines or "epoch" not in lines[0] or "step" not in lines[0]:
        return [], f"{METRICS} is no table of epochs: no curves"
    rows: list[dict[str, float]] = []
    for line in lines[1:]:
        cells = dict(zip(lines[0], line, strict=False))
        try:
            row = {name: float(cell) for name, cell in cells.items() if cell not in ("", "None")}
        except ValueError:
            row = {}
        if len(line) != len(lines[0]) or not {"epoch", "step"} <= row.keys():
            return rows, f"{METRICS} is torn after {plural(len(rows), 'epoch')}"
        rows.append(row)
    return rows, ""


def describe(record: RunRecord, folder: Path, metric: str, epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A run's row."""
    validation = metrics.at("val", metric)
    tested = next((row for row in epochs if row["epoch"] == record.tested.get("epoch")), {})
    best = next((row for row in epochs if row["epoch"] == record.best.get("epoch")), {})
    value = metric_of(record, metric)
    train = number(tested if metric.startswith("test/") else best, "train/" + metric.partition("/")[2])
    epoch_seconds = [row["epoch_seconds"] for row in epochs if "epoch_seconds" in row]
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
        "command": "python src/train.py " + shlex.join(record.overrides),
        "error": f"{(record.error or {}).get('type', '')}: {error[-1]}" if error else "",
        "metric": value,
        "validation": metric_of(record, validation),
        "gap": train - value,
        "epochs": record.epochs,
        "steps": record.steps,
        "best_epoch": number(record.best, "epoch"),
        "best_seconds": number(record.best, "seconds"),
        "epoch_seconds": float(pd.Series(epoch_seconds).median()) if epoch_seconds else math.nan,
        "seconds": number(record.seconds, "training"),
        "total_seconds": number(record.seconds, "total"),
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
    """What decides over times: two runs on the same device name can be compared in seconds."""
    several = f"{device['devices']} x " if device.get("devices", 1) != 1 else ""
    threads = device.get("threads") if device.get("accelerator") == "cpu" else None
    cores = f", {plural(threads, 'thread')}" if threads else ""
    return f"{several}{device.get('name') or device.get('accelerator', 'unknown')}{cores}"


def metric_of(record: RunRecord, metric: str) -> float:
    """A test metric, or what validation or training metric the best epoch (by `monitor`) had."""
    return number(record.test if metric.startswith("test/") else record.best, metric)


def check_metric(metric: str, records: Sequence[RunRecord]) -> None:
    """Refuse a metric that no run has, unless no run has any yet: what validation measures, the test will."""
    known = {name for record in records for name in (*record.test, *record.best)}
    known = {name for name in known if re.match("(test|val|train)/", name)}
    tested = any(record.test for record in records)
    if known and metric not in known and (tested or metrics.at("val", metric) not in known):
        overall = sorted(
            (name for name in known if name.count("/") == 1), key=lambda name: (name.split("/")[0] != "test", name)
        )
        classes = next((f" {name} and so on for single classes." for name in sorted(known) if name.count("/") > 1), "")
        raise ValueError(
            f"metric={metric} was logged by no run{near(metric, sorted(known))} There are: "
            f"{', '.join(overall)}.{classes}"
        )


def find_factors(records: Sequence[RunRecord]) -> tuple[list[str], dict[str, list[Any]], dict[str, list[Any]]]:
    """What varies by itself between the runs, and what varies only along with it.

    A group that varies is a factor, and so is a key that someone typed; a key that nobody typed is one where it varies
    within what is known so far. What a factor fixes is implied: Adam's `betas` come with `optimizer=adam`.
    """
    groups = sorted({group for record in records for group in record.choices if not NEUTRAL.match(group)})
    values: dict[str, list[Any]] = {group: [record.choices.get(group) for record in records] for group in groups}
    configs = [dict(leaves(record.config)) for record in records]
    places = [str(record.config.get("output_dir") or "\0") for record in records]
    for key in dict.fromkeys(key for config in configs for key in config):
        column = [config.get(key) for config in configs]
        if key.startswith("trainer.") and any(type(value) is int and value == 1 for value in column):
            column = [str(value) if value == 1 else value for value in column]  # 1 is one batch, 1.0 is all of them
        follows_seed = all(value == record.seed for value, record in zip(column, records, strict=True))
        in_folder = any(isinstance(value, str) and place in value for value, place in zip(column, places, strict=True))
        if not (NEUTRAL.match(key) or follows_seed or in_folder or key in values):
            values[key] = column
    varying = {key: column for key, column in values.items() if len(set(map(identity, column))) > 1}
    typed = {key_of(override) for record in records for override in record.overrides}

    factors: dict[str, list[Any]] = {}
    for wanted_group, wanted_typed in ((True, True), (True, False), (False, True), (False, False)):
        known = dict(factors)  # two typed keys that vary together are both named
        for key, column in varying.items():
            if (key in groups, key in typed) == (wanted_group, wanted_typed):
                beside = known if wanted_typed else factors
                if not beside or not determined(column, list(beside.values())):
                    factors[key] = column
    implied = {key: column for key, column in varying.items() if key not in factors and not key.endswith("_target_")}
    return [key for key in factors if key in groups], factors, implied


def determined(column: Sequence[Any], others: Sequence[Sequence[Any]]) -> bool:
    """Whether the other columns fix this one."""
    seen: dict[tuple[Hashable, ...], Hashable] = {}
    for value, *rest in zip(column, *others, strict=True):
        if seen.setdefault(tuple(map(identity, rest)), identity(value)) != identity(value):
            return False
    return True
