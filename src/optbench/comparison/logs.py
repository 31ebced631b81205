"""Runs from logs of Lightning: `metrics.csv` of its CSVLogger, or TensorBoard's event files, with their settings.

    <version>/metrics.csv, hparams.yaml                                 CSVLogger
    <version>/events.out.tfevents.*, hparams.yaml                       TensorBoardLogger
    <run>/.hydra/config.yaml, overrides.yaml; the logs anywhere below   lightning-hydra-template

The files are from others: YAML is read with a safe loader, tags and `${…}` stay text, and nothing is executed.
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from optbench.comparison.foreign import (
    LOGS,
    ForeignRun,
    Row,
    check_known,
    in_per_cent,
    listed,
    metric_key,
    record_of,
)
from optbench.comparison.tables import numbers, read_cells
from optbench.records.configuration import leaves, setting
from optbench.records.record import METRICS_CSV
from optbench.records.trust import entries
from optbench.records.wording import plural

HPARAMS = "hparams.yaml"
EVENTS = "events.out.tfevents"
MOST_SETTINGS = 10_000  # a file of a few lines can stand for billions, by its anchors
# What can differ between two runs of the template without an effect on the result.
NEUTRAL = re.compile(
    r"(paths|extras|logger|callbacks|hydra|tags|task_name|ckpt_path|train|test|debug|hparams_search|local|"
    r"data\.(data_dir|num_workers|pin_memory)|trainer\.default_root_dir)(\.|/|$)"
)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader for which a tag such as `!!python/tuple` says nothing: a list is a list, and text is text."""


def untagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)


Loader.add_multi_constructor("", untagged)


def has_logs(files: Sequence[str]) -> bool:
    """Whether these files of one folder are the log of a run."""
    return HPARAMS in files and (METRICS_CSV in files or any(name.startswith(EVENTS) for name in files))


def find_log(folder: Path) -> Path | None:
    """The metrics.csv of a run, or else the folder of its event files; of the last version where there are several."""
    versions = [path.parent for path in folder.rglob(HPARAMS)]
    versions.sort(key=lambda path: (len(str(path)), str(path)))  # version_9 before version_10
    tables = [path / METRICS_CSV for path in versions if (path / METRICS_CSV).is_file()]
    found = tables or [path for path in versions if any(path.glob(f"{EVENTS}*"))]
    return found[-1] if found else None


def read_logs(logs: Mapping[Path, Path], metric: str) -> tuple[list[ForeignRun], list[str], str]:
    """The runs, a sentence for each folder that could not be read, and one that says how the others were.

    Args:
        logs: a run's folder -> its log, as `find_log` gives it.
    """
    found: list[tuple[Path, dict[str, Any], list[str], int, list[Row]]] = []
    columns: dict[str, str] = {}
    skipped = []
    for folder, log in logs.items():
        try:
            settings, overrides, seed = read_settings(folder)
            rows, its_columns = read_rows(log)
        except ValueError as error:
            skipped.append(f"Left out: {error}")
            continue
        columns |= its_columns
        found.append((folder, settings, overrides, seed, rows))
    if not found:
        return [], skipped, ""
    if metric in columns.values():
        check_known(metric, "logs")
    per_cent = in_per_cent(
        {key: [row[key] for *_, rows in found for row in rows if key in row] for key in columns.values()}
    )
    runs = []
    for folder, settings, overrides, seed, rows in found:
        for row in rows:
            row |= {key: row[key] / 100 for key in per_cent if key in row}
        record = record_of(LOGS, settings, seed, rows, metric, overrides=overrides)
        runs.append(ForeignRun(folder, record, rows))
    return runs, skipped, f"Logs of {plural(len(runs), 'run')}: metrics are {listed(columns, per_cent)}."


# settings


def read_settings(folder: Path) -> tuple[dict[str, Any], list[str], int]:
    """The settings of a run by their dotted keys, what its user typed, and its seed.

    Raises:
        ValueError: where they cannot be read, or name no seed.
    """
    hydra = folder / ".hydra"
    path = hydra / "config.yaml" if hydra.is_dir() else folder / HPARAMS
    config = read_yaml(path)
    overrides = read_yaml(hydra / "overrides.yaml") if (hydra / "overrides.yaml").is_file() else []
    choices = read_yaml(hydra / "hydra.yaml") if (hydra / "hydra.yaml").is_file() else {}
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold settings, each with its name.")
    seed = config.get("seed", config.get("seed_everything"))
    if not isinstance(seed, int) or isinstance(seed, bool) or abs(seed) >= 2**63:
        how = "start runs with seed=<number>" if hydra.is_dir() else 'logger.log_hyperparams({"seed": …}) writes it'
        raise ValueError(
            f"{path} has no seed that is a whole number (seed: {seed!r:.60}). Seeds are the samples of a comparison: "
            f"{how}."
        )
    settings = {key: value for key, value in leaves(config) if key not in ("seed", "seed_everything")}
    chosen = setting(choices, "hydra.runtime.choices")
    settings |= {str(key): value for key, value in (chosen if isinstance(chosen, dict) else {}).items()}
    # the template has no group for optimizers: its model names a class
    for key in [key for key in settings if key.endswith("optimizer._target_")]:
        settings.setdefault("optimizer", str(settings.pop(key)).rpartition(".")[2])
    kept = {key: plain(value) for key, value in settings.items() if value is not None and not NEUTRAL.match(key)}
    return kept, [item for item in overrides if isinstance(item, str)] if isinstance(overrides, list) else [], seed


def plain(value: Any) -> Any:
    """Dates and other types of YAML as text."""
    return value if isinstance(value, str | int | float) else str(value)


def read_yaml(path: Path) -> Any:
    """Raises ValueError, with the line, where it is not YAML of a sane size."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a safe one
        size = sum(1 for _ in islice(entries(content), MOST_SETTINGS + 1))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} is not YAML ({type(error).__name__}).") from error
    if size > MOST_SETTINGS:
        raise ValueError(f"{path} has more than {MOST_SETTINGS} settings, or its anchors multiply them.")
    return content


# metrics


def read_rows(log: Path) -> tuple[list[Row], dict[str, str]]:
    """One row per epoch, both counted from 1 where Lightning counts from 0, and the columns that were read.

    What was measured after training, by a test, belongs to the last epoch.

    Raises:
        ValueError: where there are no metrics.
    """
    moments, columns = rows_of_table(log) if log.is_file() else rows_of_events(log)
    epochs: dict[float, Row] = {}
    tested: Row = {}
    for row in moments:
        during = {key: value for key, value in row.items() if not key.startswith("test/")}
        tested |= {key: value for key, value in row.items() if key.startswith("test/")}
        if any("/" in key for key in during):
            epoch = epochs.setdefault(during.get("epoch", float(len(epochs) + 1)), {})
            epoch |= during
    for number, epoch in epochs.items():
        epoch["epoch"] = number
    rows = [epochs[number] for number in sorted(epochs)] or [{}] * bool(tested)
    if not rows:
        raise ValueError(f"{log} has no metric such as val/loss, val_acc or test/acc.")
    rows[-1] |= tested
    rows[-1].setdefault("epoch", 1.0)
    return rows, columns


def rows_of_table(path: Path) -> tuple[Iterator[Row], dict[str, str]]:
    table = read_cells(path)
    columns = keys_of(table.columns)
    clock = {name: name for name in ("epoch", "step") if name in table.columns}
    values = {key: numbers(table, name, key).tolist() for name, key in (columns | clock).items()}

    def rows() -> Iterator[Row]:
        for cells in zip(*values.values(), strict=True):
            row = {key: cell for key, cell in zip(values, cells, strict=True) if not math.isnan(cell)}
            yield row | {key: row[key] + 1 for key in clock if key in row}

    return rows(), columns


def rows_of_events(folder: Path) -> tuple[Iterator[Row], dict[str, str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a third of a second

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # tells of every file that it opens
    try:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        begun = events.FirstEventTimestamp() if scalars else 0.0
    except Exception as error:  # its own, protobuf's and the file's, by the kind of damage
        raise ValueError(f"{folder}: the event files cannot be read ({type(error).__name__}: {error}).") from error
    columns = keys_of(scalars)
    by_step: dict[int, Row] = {}
    for tag, key in columns.items():
        for event in scalars[tag]:
            if math.isfinite(event.value):
                by_step.setdefault(event.step, {})[key] = event.value
                by_step[event.step]["seconds"] = event.wall_time - begun
    for event in scalars.get("epoch", []):
        if event.step in by_step:
            by_step[event.step]["epoch"] = event.value + 1
    return (by_step[step] | {"step": step + 1.0} for step in sorted(by_step)), columns


def keys_of(columns: Mapping[str, Any]) -> dict[str, str]:
    """The columns that are metrics of a stage: `loss` alone does not say of which."""
    found: dict[str, str] = {}
    for name in columns:
        key = metric_key(name)
        if key and name.lower().startswith(("train", "val", "eval", "test")) and key not in found.values():
            found[name] = key
    return found
