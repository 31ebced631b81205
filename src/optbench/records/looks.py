"""Looks at runs while more seeds may follow. Each look is a chance of a false claim, so a report must know of them.

looks.json  a sweep with seed=until_decided: its plan, made before the first run, and the looks that it has made
looks.csv   the reports that people have had of the runs of a sweep (or of one run); it only grows
"""

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from optbench.records.files import write_atomically
from optbench.records.wording import is_number

UNTIL_DECIDED = "until_decided"  # the value of `seed`
LOOKS_JSON = "looks.json"
LOOKS_CSV = "looks.csv"

# seeds of each configuration at a look -> of how many sweeps without any difference this look may claim one. They add
# up to 5 %, in the proportions of O'Brien and Fleming (1979): little while seeds are few.
LEVELS = {3: 0.0003, 5: 0.0052, 7: 0.0136, 10: 0.0309}
MOST = 0.05 + 1e-9  # what levels may add up to


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Look:
    """One look of a plan.

    Attributes:
        seeds: of each configuration that still trained.
        level: at most this fraction of sweeps without any difference claims one at this look.
        time: when it was made, or begun.
        complete: whether what follows is known. A process that was killed may have left an incomplete one.
        decided: the question is answered: the sweep has ended.
        stopped: the configurations that train no more, as the overrides that make them.
        sentence: what was printed.
    """

    seeds: int
    level: float
    time: str
    complete: bool = False
    decided: bool = False
    stopped: list[str] = field(default_factory=list)
    sentence: str = ""


@dataclass
class Plan:
    """The content of looks.json.

    Attributes:
        configurations: the overrides that make each, without the seed and without those that all share.
        levels: seeds of each at a look -> its level, see `LEVELS`.
        first_seed: the others follow it.
    """

    configurations: list[str]
    levels: dict[int, float] = field(default_factory=lambda: dict(LEVELS))
    looks: list[Look] = field(default_factory=list)
    first_seed: int = 0

    def write(self, folder: Path) -> None:
        write_atomically(folder / LOOKS_JSON, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of the sweep in `folder`; None where it has none.

        Raises:
            ValueError: where looks.json is not one.
        """
        path = folder / LOOKS_JSON
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = [item.name for item in fields(Look)]
            plan = cls(
                [str(name) for name in content["configurations"]],
                {int(seeds): level for seeds, level in content["levels"].items()},
                [Look(**{name: look[name] for name in names}) for look in content["looks"]],
                int(content.get("first_seed", 0)),
            )
            for look in plan.looks:
                moment(look.time)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no plan of looks ({type(error).__name__}: {error}).") from error
        known = list(plan.levels.items())[: len(plan.looks)]
        sound = (
            all(is_number(level) and level > 0 for level in plan.levels.values())
            and 0 < sum(plan.levels.values()) <= MOST
        )
        if not sound or list(plan.levels) != sorted(plan.levels) or known != [(k.seeds, k.level) for k in plan.looks]:
            raise ValueError(f"{path} is no plan of looks: its looks are not those of its levels.")
        return plan


@dataclass(frozen=True)
class Report:
    """A row of looks.csv: a report that somebody has had.

    Attributes:
        metric: what it compared.
        runs: a hash of the runs that counted in it.
        seeds: `3 seeds of 4 configurations`.
    """

    time: str
    metric: str
    runs: str
    seeds: str


COLUMNS = [item.name for item in fields(Report)]


def read_reports(place: Path) -> list[Report]:
    """The rows of looks.csv that can be read, the oldest first."""
    try:
        lines = list(csv.DictReader((place / LOOKS_CSV).read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    found = []
    for line in lines:
        with suppress(ValueError, TypeError):
            moment(line["time"])
            if all(line.get(name) for name in COLUMNS):
                found.append(Report(*(line[name] for name in COLUMNS)))
    return found


def note_report(places: Sequence[Path], report: Report) -> None:
    """Append to looks.csv in each of `places`, unless it knows these runs; where nothing can be written, do nothing."""
    for place in places:
        if any((known.metric, known.runs) == (report.metric, report.runs) for known in read_reports(place)):
            continue
        path, text = place / LOOKS_CSV, io.StringIO()
        with suppress(OSError):  # someone else's folder is often read-only
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            if not path.exists():
                writer.writeheader()
            writer.writerow(asdict(report))
            with path.open("a", encoding="utf-8") as file:
                file.write(text.getvalue())


def moment(text: str) -> datetime:
    """A time of a record; without a zone it is UTC.

    Raises:
        ValueError: where it is none.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
