"""What the runs say: which of them count, what varies between them, their numbers. Nothing is judged here."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import pandas as pd

from optbench.comparison import factors as what_varies
from optbench.comparison.factors import Factors
from optbench.comparison.fairness import MeasuredOn, another, runs_on_other_data
from optbench.comparison.foreign import ForeignRecord
from optbench.comparison.looks import Looks, find_looks
from optbench.comparison.read import Damage, Runs
from optbench.records import metrics
from optbench.records.metrics import CURVES
from optbench.records.record import ENDED, RunRecord
from optbench.records.wording import text

TIMES = ["best_seconds", "epoch_seconds", "seconds", "total_seconds"]


class LeftOut(StrEnum):
    """Why a run does not count, whatever its status; the value is what its note says."""

    OTHER_DATA = "left out: {other}"
    NO_METRIC = "left out: it has no such metric"
    REPEATED = "repeated by {other}"


@dataclass(frozen=True)
class Facts:
    """What the runs say. Frames have plain column names; seconds, epochs and steps are numbers; nan is 'none'.

    Attributes:
        sources: the folders and tables, as typed.
        metric: such as `test/accuracy`; `validation`: its counterpart, such as `val/accuracy`; `higher_is_better`.
        by: the keys that define a configuration; `averaged`: keys that also vary and were averaged at each seed.
        baseline: a configuration's name, or None.
        factors: what varies between the runs.
        hues: configuration -> what colours it: its optimizer where optimizers are compared, else itself.
        contestants: configuration -> the network and the optimizer that it is of, as far as these are compared, else
            itself. What else varies within a contestant, such as its learning rate, is tuned.
        records: in the order of `runs`.
        runs: one row per run. `run` (folder's name), `folder`, `configuration`, `seed`, `status`, `used` (bool: it
            counts in the statistics), `note` (why not, or what is odd), `overrides` (text), `command` (repeats it),
            `error` (last line, '' if none), `metric`, `validation`, `gap` (train - test), `epochs`, `steps`,
            `best_epoch`, `best_seconds`, `epoch_seconds`, `seconds`, `parameters` (trainable), `memory_mb`, `device`,
            `commit`, `started`, then a column for each key of `by` and `averaged`.
        left_out: the rows of runs that do not count, however they ended -> each reason, and what completes its words.
        other_data: the rows of runs on other data than most, and what of it differs.
        damaged: the rows of the runs whose metrics.csv is damaged, and how.
        devices: the devices of the runs that count -> how many ran there.
        curves: one row per epoch of each used or diverged run. `row` (index in runs), `configuration`, `seed`, `epoch`,
            `step`, `seconds`, then the columns of `curve_metrics` and `validation`.
        curve_metrics: those of val/accuracy, val/loss, train/loss, lr that were logged, in this order.
        readings: a sentence for each table, and one for all logs, that says what was taken for what.
        looks: when these runs were looked at with fewer seeds.
    """

    sources: list[str]
    metric: str
    validation: str
    higher_is_better: bool
    by: list[str]
    averaged: list[str]
    baseline: str | None
    factors: Factors
    hues: dict[str, str]
    contestants: dict[str, str]
    records: list[RunRecord]
    runs: pd.DataFrame
    left_out: dict[int, dict[LeftOut, str]]
    other_data: dict[int, tuple[MeasuredOn, ...]]
    damaged: dict[int, Damage]
    devices: dict[str, int]
    curves: pd.DataFrame
    curve_metrics: list[str]
    readings: list[str] = field(default_factory=list)
    looks: Looks = field(default_factory=Looks)

    @property
    def contest(self) -> str:
        """What a contestant is, in words."""
        words = [word for group, word in what_varies.CONTESTED.items() if group in self.by]
        return f"pair of {' and '.join(words)}" if len(words) > 1 else "".join(words) or "configuration"

    @property
    def times_withheld(self) -> bool:
        """Whether times come from different machines; they are nan then."""
        return len(self.devices) > 1


def gather(sources: Sequence[str], runs: Runs, by: Sequence[str], baseline: str | None, metric: str) -> Facts:
    """What the runs say, compared by the keys `by`, or by all that varies.

    Raises:
        ValueError: where `by` names a key that does not vary, or a plan of looks cannot be read.
    """
    factors = what_varies.find_factors(runs.records)
    by = what_varies.check_by(by, factors, runs.records) or list(factors.independent)
    averaged = what_varies.averaged_over(by, factors)
    names = what_varies.configuration_names(by, factors, runs.records)
    frame = runs.frame.assign(configuration=names)
    other_data = runs_on_other_data(runs.records)
    left_out = why_left_out(frame, by, factors, other_data)
    frame["used"] = (frame.status == "completed") & ~frame.index.isin(list(left_out))
    for row, reasons in left_out.items():
        words = [reason.format(other=other) for reason, other in reasons.items()]
        frame.loc[row, "note"] = "; ".join(filter(None, [frame.note[row], *words]))
    curves = curves_of(runs.curves, frame, left_out)
    devices = devices_of(frame[frame.used], runs.records)
    if len(devices) > 1:
        frame[TIMES] = curves["seconds"] = math.nan
    compared = {key: factors.varying[key] for key in (*by, *averaged)}
    columns = {what_varies.factor_column(key, frame): list(map(str, column)) for key, column in compared.items()}
    return Facts(
        sources=list(sources),
        metric=metric,
        validation=metrics.at("val", metric),
        higher_is_better=metrics.sign(metric) > 0,
        by=by,
        averaged=averaged,
        baseline=baseline,
        factors=factors,
        hues=what_varies.hues_of(frame.configuration, by, factors),
        contestants=what_varies.contestants_of(frame.configuration, by, factors),
        records=runs.records,
        runs=frame.assign(**columns),
        left_out=left_out,
        other_data=other_data,
        damaged=runs.damaged,
        devices=devices,
        curves=curves,
        curve_metrics=[name for name in CURVES if curves[name].notna().any()],
        readings=runs.readings,
        looks=find_looks(frame, runs.records, metric),
    )


def devices_of(used: pd.DataFrame, records: Sequence[RunRecord]) -> dict[str, int]:
    """As `Facts.devices`. Beside a known device, times of another program are from an unknown one."""
    found = Counter(name for name in used.device if name)
    timed = used.index[(used.device == "") & used.seconds.notna()]
    unknown = sum(isinstance(records[row], ForeignRecord) for row in timed)
    return dict(found) | ({"an unknown device": unknown} if found and unknown else {})


def why_left_out(
    frame: pd.DataFrame, by: Sequence[str], factors: Factors, other_data: Mapping[int, Sequence[MeasuredOn]]
) -> dict[int, dict[LeftOut, str]]:
    """As `Facts.left_out`.

    Of runs with the same configuration, seed and averaged keys, only the newest with a result counts. The others, also
    those without a result, are repeated by it.

    Args:
        frame: `configuration`, `seed`, `status`, `metric`, `started`, `run` of each run, its row as the index.
        other_data: as `Facts.other_data`.
    """
    found: dict[int, dict[LeftOut, str]] = {
        row: {LeftOut.OTHER_DATA: another(what)} for row, what in other_data.items()
    }
    for row in frame.index[(frame.status == "completed") & frame.metric.isna()].difference(list(other_data)):
        found[row] = {LeftOut.NO_METRIC: ""}
    others = [pd.Series(map(text, column)) for key, column in factors.independent.items() if key not in by]
    columns = list(range(2 + len(others)))
    same_sample = pd.concat([frame.configuration, frame.seed, *others], axis=1, keys=columns)
    several = same_sample[same_sample.duplicated(keep=False)]
    for _, its in several.groupby(columns, sort=False):
        group = frame.loc[its.index].drop(list(other_data), errors="ignore")
        ended = group[group.status.isin(ENDED)].sort_values("started", kind="stable")
        if len(ended):
            for row in group.index.drop(ended.index[-1]):
                found.setdefault(row, {})[LeftOut.REPEATED] = ended.run.iloc[-1]
    return found


def curves_of(curves: pd.DataFrame, frame: pd.DataFrame, left_out: Collection[int]) -> pd.DataFrame:
    """The epochs of runs that count, and of those that diverged on the same images."""
    counted = frame.used | ((frame.status == "diverged") & ~frame.index.isin(list(left_out)))
    rows = curves[curves.row.map(counted).astype(bool)]
    names = {"configuration": rows.row.map(frame.configuration), "seed": rows.row.map(frame.seed)}
    return rows.assign(**names).reset_index(drop=True)
