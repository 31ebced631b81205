"""What a tuning leaves in tuning.json: its settings, the points that it drew, what it chose. Its runs are beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from optbench.records.files import write_atomically
from optbench.records.looks import LEVELS, UNTIL_DECIDED
from optbench.records.record import RunRecord
from optbench.records.wording import text

SCHEMA_VERSION = 1
TUNING = "tuning.json"
SEARCH, SHORTLIST, FINAL = PHASES = ("search", "shortlist", "final")  # folders of its runs
TUNED = "tuned"  # the folder of what was found


class Edge(StrEnum):
    """On which edge of what was tried a value is."""

    SMALLEST = "smallest"
    LARGEST = "largest"


@dataclass
class Trial:
    """One point of a search.

    Attributes:
        values: the key of each searched setting -> its value.
        overrides: what a run of it adds to those of its contestant; none for the defaults.
    """

    values: dict[str, Any]
    overrides: list[str] = field(default_factory=list)

    @property
    def point(self) -> str:
        """In words, without the group: `lr=0.01, betas.0=0.9`."""
        return ", ".join(f"{key.partition('.')[2] or key}={text(value)}" for key, value in self.values.items())


@dataclass
class Axis:
    """A searched setting with numbers from `low` to `high`; `log`: on a logarithmic scale.

    `one_minus`: of 1 - the setting, which is what the scale is about.
    """

    key: str
    low: float
    high: float
    log: bool
    one_minus: bool = False

    @property
    def name(self) -> str:
        """What the scale is about."""
        return f"1 - {self.key}" if self.one_minus else self.key


@dataclass
class Contestant:
    """What is tuned: an optimizer, within one combination of what else the command varies.

    Attributes:
        optimizer: its choice in configs/optimizer.
        overrides: what all of its runs are given; `varied`: of these, what differs from the other contestants.
        space: as in configs/search; `axes`: its intervals, as wide as they became.
        widened: how often its space was widened.
        trials: the first one has the defaults.
        counted: how many of them are within the budget; the others are ignored.
        edges: the name of each axis on whose edge the best trials are -> `smallest` or `largest`.
        shortlist: numbers of trials, the best first; `winner`: of these, None while it is unknown and where every trial
            diverged.
    """

    name: str
    optimizer: str
    overrides: list[str]
    varied: list[str]
    space: dict[str, str]
    axes: list[Axis] = field(default_factory=list)
    widened: int = 0
    trials: list[Trial] = field(default_factory=list)
    counted: int = 0
    edges: dict[str, str] = field(default_factory=dict)
    shortlist: list[int] = field(default_factory=list)
    winner: int | None = None

    def command(self, trial: int) -> list[str]:
        """The overrides that make a run of it, but for the seed."""
        return [*self.overrides, *self.trials[trial].overrides]


@dataclass
class Tuning:
    """The content of tuning.json.

    Attributes:
        settings: as in configs/hydra/sweeper/tune.yaml, and `seed`: the first one, with which the search runs.
        epochs: of a trial and of a final run, as configured.
        last_weights: whether the final tests the last weights, so that trials are judged by their last epoch.
        ended: the phases that have ended.
    """

    settings: dict[str, Any]
    epochs: dict[str, Any]
    last_weights: bool
    contestants: list[Contestant]
    ended: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def search_seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def shortlist_seeds(self) -> list[int]:
        """Of which the search knows nothing."""
        return [self.search_seed + 1 + k for k in range(self.settings["shortlist_seeds"])]

    @property
    def final_seeds(self) -> list[int]:
        """With which nothing was chosen; with seeds=until_decided, all that there may be."""
        first, seeds = self.search_seed + 1 + self.settings["shortlist_seeds"], self.settings["seeds"]
        return [first + k for k in range(max(LEVELS) if seeds == UNTIL_DECIDED else seeds)]

    def score(self, folder: Path) -> float | None:
        """What a run is judged by; None for a run that diverged.

        Raises:
            ValueError: where the run has not ended, or its record can't be read.
        """
        record = RunRecord.read(folder)
        if record.status == "diverged":
            return None
        value = (record.final if self.last_weights else record.best).get(self.settings["metric"])
        if record.status != "completed" or value is None:
            raise ValueError(f"{folder} has no {self.settings['metric']}: its status is {record.status}.")
        return value

    def write(self, folder: Path) -> None:
        """Write tuning.json whole or not at all."""
        write_atomically(folder / TUNING, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Tuning":
        """Read a folder's tuning.json.

        Raises:
            ValueError: where it is not one that this version can read.
        """
        path = folder / TUNING
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {content['schema_version']}; this OptBench reads {SCHEMA_VERSION}")
            contestants = [contestant(entry) for entry in content.pop("contestants")]
            return cls(**content, contestants=contestants)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not the record of a tuning ({type(error).__name__}: {error}).") from error


def contestant(entry: Mapping[str, Any]) -> Contestant:
    nested = {"axes": [Axis(**axis) for axis in entry["axes"]], "trials": [Trial(**trial) for trial in entry["trials"]]}
    return Contestant(**{**entry, **nested})


def search_folder(name: str, trial: int) -> str:
    return f"{SEARCH}/{name}_{trial:02d}"


def shortlist_folder(name: str, trial: int, seed: int) -> str:
    return f"{SHORTLIST}/{name}_{trial:02d}_seed{seed}"


def final_folder(name: str, seed: int) -> str:
    return f"{FINAL}/{name}_seed{seed}"
