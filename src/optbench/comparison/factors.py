"""What varies between runs, which of it is compared, and the names of the configurations."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from optbench.comparison.foreign import LOGS, ForeignRecord
from optbench.records.configuration import has, identity, key_of, leaves
from optbench.records.record import RunRecord
from optbench.records.wording import near, text

# What can differ without an effect on the result: places (the data have a hash), what is shown, what is logged.
NEUTRAL = re.compile(
    r"(output_dir|task|compare|resume|trust|seed|logger|debug|data\.(root|cache_dir|url|workers)|"
    r"trainer\.(log_every_n_steps|enable_\w+|logger|default_root_dir|profiler)|"
    r"callbacks\.(histograms|figures|progress|summary|learning_rate|last_checkpoint))(\.|$)"
)


class Factors(NamedTuple):
    """What varies between the runs; `seed` is not among it, since it numbers the samples.

    Attributes:
        groups: the configuration groups (`optimizer`, `model`, …) among `independent`.
        independent: key -> the value of each run, for what varies by itself.
        implied: the same for what varies only together with those, such as the learning rates of two optimizers.
    """

    groups: list[str]
    independent: dict[str, list[Any]]
    implied: dict[str, list[Any]]

    @property
    def varying(self) -> dict[str, list[Any]]:
        return {**self.independent, **self.implied}


def origins(records: Sequence[RunRecord]) -> dict[str, list[int]]:
    """Where the runs are from -> their rows: this project (''), logs, or a table."""
    found: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        found.setdefault(record.origin if isinstance(record, ForeignRecord) else "", []).append(row)
    return found


def find_factors(records: Sequence[RunRecord]) -> Factors:
    """What varies by itself between the runs, and what varies only together with that.

    A group that varies is a factor, and so is a key that someone typed; a key that nobody typed is one only
    if the factors found so far do not determine it. What a factor fixes is implied: Adam's `betas` come with
    `optimizer=adam`.

    Of runs from several origins, only the keys that all of them have can be factors.

    Raises:
        ValueError: where a factor of one origin is unknown to another.
    """
    by_origin = {origin: [records[row] for row in rows] for origin, rows in origins(records).items()}
    if len(by_origin) > 1:
        check_fit(by_origin)
    shared = set.intersection(*({key for record in own for key in settings(record)} for own in by_origin.values()))
    from_table = bool(by_origin.keys() - {"", LOGS})  # a column of a table is there on purpose
    candidates = {key for key in shared if from_table or not NEUTRAL.match(key)}
    groups = sorted(candidates & {group for record in records for group in record.choices})
    columns: dict[str, list[Any]] = {group: [record.choices.get(group) for record in records] for group in groups}
    for key, column in columns_of(records).items():
        if key in candidates and key not in columns:
            columns[key] = column
    varying = {key: column for key, column in columns.items() if len(set(map(identity, column))) > 1}
    typed = {key_of(override) for record in records for override in record.overrides}

    factors: dict[str, list[Any]] = {}
    for is_group, is_typed in ((True, True), (True, False), (False, True), (False, False)):
        # a copy: two typed keys that vary together are both factors; of two untyped ones, the first fixes the second
        known = dict(factors) if is_typed else factors
        for key, column in varying.items():
            of_this_kind = (key in groups, key in typed) == (is_group, is_typed)
            if of_this_kind and not determined(column, list(known.values())):
                factors[key] = column
    implied = {key: column for key, column in varying.items() if key not in factors and not key.endswith("_target_")}
    return Factors([key for key in factors if key in groups], factors, implied)


def columns_of(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Dotted key -> its value in each run, without keys that follow the seed or name a run's folder."""
    configs = [dict(leaves(record.config)) for record in records]
    seeds = [record.seed for record in records]
    folders = [str(record.config.get("output_dir") or "\0") for record in records]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        column = [config.get(key) for config in configs]
        if key.startswith("trainer.") and any(type(value) is int and value == 1 for value in column):
            column = [str(value) if value == 1 else value for value in column]  # 1 is one batch, 1.0 is all of them
        in_folder = any(
            isinstance(value, str) and folder in value for value, folder in zip(column, folders, strict=True)
        )
        if column != seeds and not in_folder:
            found[key] = column
    return found


def check_fit(by_origin: Mapping[str, Sequence[RunRecord]]) -> None:
    """Raises ValueError where the runs of one origin vary in what those of another do not have."""
    names = {"": "the runs of this project", LOGS: "the logs"}
    for origin, records in by_origin.items():
        for key in find_factors(records).independent:
            for other, its in by_origin.items():
                known = dict.fromkeys(known for record in its for known in settings(record))
                if key not in known:
                    like = next((name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]), None)
                    hint = f" Is it {like} there? Then give both the same name." if like else ""
                    raise ValueError(
                        f"{names.get(origin, origin)} and {names.get(other, other)} cannot be compared: {key} varies "
                        f"in the one, and the other has no such setting.{hint}"
                    )


def determined(column: Sequence[Any], others: Sequence[Sequence[Any]]) -> bool:
    """Whether the other columns fix this one; of no other column, whether it is constant."""
    seen: dict[tuple[Hashable, ...], Hashable] = {}
    for value, *rest in zip(column, *others, strict=True):
        if seen.setdefault(tuple(map(identity, rest)), identity(value)) != identity(value):
            return False
    return True


def check_by(by: Sequence[str], factors: Factors, records: Sequence[RunRecord]) -> list[str]:
    """The keys to compare by, each once.

    Raises:
        ValueError: for a key that does not vary, with what does.
    """
    varying = factors.varying
    known = dict.fromkeys([*varying, *(key for record in records for key in settings(record))])
    there = f"What varies: {', '.join(factors.independent) or 'nothing but the seed'}."
    for key in by:
        if key == "seed":
            raise ValueError(f"by=seed: seeds are the samples, not what is compared. {there}")
        if key not in known:
            raise ValueError(f"by={key} is no key of these runs{near(key, list(known))} {there}")
        if key not in varying:
            values = list(dict.fromkeys(text(settings(record).get(key)) for record in records))
            if len(values) > 1:
                raise ValueError(
                    f"by={key} is not compared: it follows the seed, or says where and how a run is kept. {there}"
                )
            raise ValueError(f"by={key} does not vary: it is {values[0]} in every run. {there}")
    return list(dict.fromkeys(by))


def settings(record: RunRecord) -> dict[str, Any]:
    """The choices and the dotted keys of a run."""
    return record.choices | dict(leaves(record.config))


def averaged_over(by: Sequence[str], factors: Factors) -> list[str]:
    """What varies beside the keys of `by`, and is not fixed by them."""
    compared = [factors.varying[key] for key in by]
    return [key for key, column in factors.independent.items() if key not in by and not determined(column, compared)]


def configuration_names(by: Sequence[str], factors: Factors, records: Sequence[RunRecord]) -> list[str]:
    """`sgd`, or `sgd lr=0.01`: a group's choice as it is, other keys by their last word where that is enough.

    A key that the choice does not have is not named: `convnet` beside `mlp dropout=0.2`.
    """
    if not by:
        return ["as configured"] * len(records)
    parts = []
    for key, short in zip(by, short_names(by), strict=True):
        column = factors.varying[key]
        speaks = key in factors.groups and key != "experiment" and not {"none", "default"} & set(map(text, column))
        name = "" if speaks else f"{short}="  # `adam` says what it is, `none` does not
        absent = lacking(key, factors, records) if key.partition(".")[0] in by else frozenset()
        parts.append(["" if row in absent else name + text(value) for row, value in enumerate(column)])
    return [" ".join(filter(None, words)) for words in zip(*parts, strict=True)]


def short_names(keys: Iterable[str]) -> list[str]:
    """The last word of each dotted key; the whole key where another one ends with the same word."""
    keys = list(keys)
    words = [key.rpartition(".")[2] for key in keys]
    return [key if words.count(word) > 1 else word for key, word in zip(keys, words, strict=True)]


def lacking(key: str, factors: Factors, records: Sequence[RunRecord]) -> frozenset[int]:
    """The rows of the runs that have no such key: `model.dropout` of a network without dropout."""
    group, mark, _ = key.partition(".")
    if not mark or group not in factors.groups:
        return frozenset()
    column = factors.varying[key]
    return frozenset(row for row, value in enumerate(column) if value is None and not has(records[row].config, key))


def separate(keys: Sequence[str], factors: Factors, records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """`keys` as factors that can be crossed with each other: key -> its value in each run.

    A key that only some choices of a group have is no factor beside the group. It becomes part of the group's values:
    of `model` and `model.dropout`, only `model` is left, with `mlp dropout=0`, `mlp dropout=0.2` and `convnet`.
    """
    parts: dict[str, list[str]] = {}  # group -> the keys that become part of it
    for key in keys:
        if (group := key.partition(".")[0]) in keys and lacking(key, factors, records):
            parts.setdefault(group, []).append(key)
    absorbed = {key for its in parts.values() for key in its}
    return {
        key: configuration_names([key, *parts[key]], factors, records) if key in parts else factors.varying[key]
        for key in keys
        if key not in absorbed
    }


ELSEWHERE = ("model.optimizer.", "model.scheduler.")  # lightning-hydra-template's model has them, too


def networks(factors: Factors, records: Sequence[RunRecord]) -> list[str]:
    """The network of each run, as far as networks vary: `mlp`, `mlp dropout=0.2`; '' where a record has none."""
    keys: list[str] = []
    for key in sorted(key for key in factors.varying if key.split(".")[0] == "model" and not key.startswith(ELSEWHERE)):
        if not determined(factors.varying[key], [factors.varying[other] for other in keys]):
            keys.append(key)
    names = configuration_names(keys, factors, records) if keys else [""] * len(records)
    models = [""] * len(records) if "model" in keys else [record.choices.get("model", "") for record in records]
    return [" ".join(filter(None, words)) for words in zip(models, names, strict=True)]


CONTESTED = {"model": "network", "optimizer": "optimizer"}  # the groups that a question is about, and their words


def contestants_of(configurations: pd.Series, by: Sequence[str], factors: Factors) -> dict[str, str]:
    """Configuration -> its network and its optimizer, as far as these are compared; itself where neither is.

    Whatever else is compared is tuned: a contestant has several learning rates.
    """
    groups = [group for group in CONTESTED if group in by]
    if not groups:
        return {name: name for name in configurations}
    columns = zip(*(map(str, factors.varying[group]) for group in groups), strict=True)
    return dict(zip(configurations, map(" ".join, columns), strict=True))


def hues_of(configurations: pd.Series, by: Sequence[str], factors: Factors) -> dict[str, str]:
    """Configurations of one optimizer share a colour; where optimizers are not compared, each has its own."""
    if "optimizer" not in by:
        return {name: name for name in configurations}
    return dict(zip(configurations, factors.varying["optimizer"], strict=True))


def factor_column(key: str, frame: pd.DataFrame) -> str:
    """A factor's column in `Facts.runs`: its key, or `note=` where a column has that name already."""
    return f"{key}=" if key in frame.columns else key
