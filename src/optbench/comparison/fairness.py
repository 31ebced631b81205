"""What was equal between the runs and what was not, by what their records prove, and what that forbids to compare."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.comparison.read import Runs
from optbench.records.configuration import setting
from optbench.records.record import RunRecord
from optbench.records.wording import plural

CODE = ("torch", "torchvision", "pytorch-lightning")
MOST = 6  # values named in one line


@dataclass(frozen=True)
class Claim:
    """One line of the ledger. `equal`: True, False, or None where the records can't tell."""

    item: str
    equal: bool | None
    text: str


def runs_on_other_data(runs: Runs) -> dict[int, str]:
    """Runs that were measured on other images than most: row -> what differs. They are left out of all statistics.

    A run that has not read its images yet is no stranger.
    """
    keys = {row: measured_on(record) for row, record in enumerate(runs.records) if record.hashes.get("data")}
    if not keys:
        return {}
    finished = [key for row, key in keys.items() if runs.frame.status[row] == "completed"] or list(keys.values())
    home = Counter(finished).most_common(1)[0][0]
    names = ("data set", "split", "test subset")
    return {
        row: "another "
        + " and ".join(name for name, mine, theirs in zip(names, key, home, strict=True) if mine != theirs)
        for row, key in keys.items()
        if key != home
    }


def measured_on(record: RunRecord) -> tuple[Hashable, ...]:
    subset = record.images.get("test"), str(setting(record.config, "trainer.limit_test_batches"))
    return record.hashes["data"], record.hashes.get("split"), subset


def code(record: RunRecord) -> tuple[str, ...]:
    """Runs are paired only within one version of the training code and of the libraries that compute.

    The hash of the training code where a record has it: a commit changes with every word of the documentation.
    """
    own = record.hashes.get("code") or record.commit
    return own, *(record.versions.get(name, "") for name in CODE)


def devices(runs: Runs, used: pd.Series) -> Counter[str]:
    return Counter(name for name in runs.frame.device[used] if name)


def ledger(runs: Runs, configuration: pd.Series, used: pd.Series, trials: dict[str, int]) -> list[Claim]:
    """A line an item. `trials`: how many configurations each optimizer (or what else is compared) had."""
    rows = [row for row in range(len(runs.records)) if used[row]]
    records = [runs.records[row] for row in rows]
    if not records:
        return []
    names = [str(configuration[row]) for row in rows]
    claims = [
        same("Images", [record.hashes.get("data") for record in records], "hash of all images and labels"),
        same("Validation split", [record.hashes.get("split") for record in records], "hash of the split"),
        same("Test images", [test_images(record) for record in records]),
        within_seeds("Initial weights", records, "initial_weights"),
        within_seeds("Batch order", records, "batch_order"),
        numbers(
            "Seeds",
            {name: [r.seed for r, n in zip(records, names, strict=True) if n == name] for name in dict.fromkeys(names)},
        ),
        same("Most epochs allowed", [setting(record.config, "trainer.max_epochs") for record in records]),
        same("Batch size", [setting(record.config, "data.batch_size") for record in records]),
        same("Trainable parameters", [record.parameters.get("trainable") for record in records]),
        same("Chosen by", [record.monitor for record in records], "monitor"),
        same("Weights tested", [record.tested.get("checkpoint") for record in records]),
        test_reads(runs, rows),
        same("Device", [runs.frame.device[row] for row in rows]),
        same("Host", [runs.frame.host[row] for row in rows]),
        overlaps(runs, rows),
        same("Training code", [code(record)[0][:11] for record in records], "hash of src/ or commit"),
        same("Commit", [runs.frame.commit[row] for row in rows], "+: with uncommitted changes"),
        versions(records),
    ]
    if len(trials) > 1 and max(trials.values()) > 1:
        text = ", ".join(f"{name} {count}" for name, count in trials.items())
        claims.insert(6, Claim("Configurations tried", len(set(trials.values())) == 1, text))
    if runs.implied:
        verb = "varies" if len(runs.implied) == 1 else "vary"
        text = f"{', '.join(sorted(runs.implied))} {verb} only along with {', '.join(runs.factors)}"
        if rates := runs.implied.get("optimizer.lr"):  # the one that decides most
            each = dict(zip(names, (rates[row] for row in rows), strict=True))
            shown = ", ".join(f"{name} {rate}" for name, rate in list(each.items())[:MOST])
            text += f". optimizer.lr: {shown}" + (f" and {len(each) - MOST} more" if len(each) > MOST else "")
        claims.append(Claim("Settings that come along", False, text))
    return claims


def same(item: str, values: Sequence[Any], what: str = "") -> Claim:
    """Whether all runs agree; the text counts what there is."""
    counts = Counter("" if value is None else str(value) for value in values)
    missing = counts.pop("", 0)
    if not counts:
        return Claim(item, None, "not recorded")
    shown = [name if len(name) < 60 else name[:10] for name in counts]
    if len(counts) == 1:
        text = f"{shown[0]}" + (f" ({what})" if what and what not in shown[0] else "")
        return Claim(
            item, None if missing else True, text + (f"; not recorded by {plural(missing, 'run')}" if missing else "")
        )
    text = ", ".join(
        f"{name} ({plural(count, 'run')})" for name, count in list(zip(shown, counts.values(), strict=True))[:MOST]
    )
    return Claim(item, False, text + (f" and {len(shown) - MOST} more" if len(shown) > MOST else ""))


def within_seeds(item: str, records: Sequence[RunRecord], key: str) -> Claim:
    """Whether runs of one seed share a hash: what pairing by seed rests on."""
    by_seed: dict[int, set[str]] = {}
    for record in records:
        by_seed.setdefault(record.seed, set()).add(record.hashes.get(key, ""))
    if any("" in hashes for hashes in by_seed.values()):
        return Claim(item, None, "not recorded by every run")
    different = [seed for seed, hashes in by_seed.items() if len(hashes) > 1]
    if different:
        return Claim(
            item, False, f"differ between configurations at {len(different)} of {plural(len(by_seed), 'seed')}"
        )
    seeds = "the one seed" if len(by_seed) == 1 else f"each of {len(by_seed)} seeds"
    return Claim(item, True, f"the same for every configuration at {seeds} (hashes)")


def numbers(item: str, seeds: dict[str, list[int]]) -> Claim:
    """Whether every configuration has the same seeds."""
    sets = {tuple(sorted(set(found))) for found in seeds.values()}
    if len(sets) == 1:
        found = sets.pop()
        return Claim(item, True, ", ".join(map(str, found[:20])) + (f" … ({len(found)})" if len(found) > 20 else ""))
    text = "; ".join(
        f"{name}: {', '.join(map(str, sorted(set(found))[:10]))}" for name, found in list(seeds.items())[:MOST]
    )
    more = f"; and {len(seeds) - MOST} more" if len(seeds) > MOST else ""
    return Claim(item, False, f"{text}{more}. Pairs use the seeds that both have.")


def test_images(record: RunRecord) -> str:
    images, limit = record.images.get("test"), str(setting(record.config, "trainer.limit_test_batches"))
    if not images:
        return ""
    return str(images) + (f" (limit_test_batches={limit})" if limit not in ("None", "1.0") else "")  # 1 is one batch


def test_reads(runs: Runs, rows: Sequence[int]) -> Claim:
    """How often the test set was read: once by the run, and once more by each evaluate.py that left its trace."""
    reads = Counter(1 + evaluations(Path(runs.frame.folder[row])) for row in rows)
    by = {count: "each run" if len(reads) == 1 else plural(count, "run") for count in reads.values()}
    text = ", ".join(
        f"{'once' if times == 1 else f'{times} times'} by {by[count]}" for times, count in sorted(reads.items())
    )
    return Claim("Test set read", len(reads) == 1 and 1 in reads, text)


def evaluations(folder: Path) -> int:
    """Lines of evaluation/reads.csv, which evaluate.py extends each time."""
    try:
        return max(0, len((folder / "evaluation" / "reads.csv").read_text(encoding="utf-8").splitlines()) - 1)
    except (OSError, UnicodeDecodeError):
        return 0


def overlaps(runs: Runs, rows: Sequence[int]) -> Claim:
    """Whether runs shared a host at the same time: their seconds then tell of each other."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        begun, seconds = started_at(runs.frame.started[row]), runs.frame.total_seconds[row]
        if begun is None or not seconds >= 0:
            return Claim("Runs at the same time", None, "not recorded by every run")
        spans.setdefault(runs.frame.host[row], []).append((begun, begun + seconds))
    together = 0
    for found in spans.values():
        end = 0.0
        for begun, ended in sorted(found):
            together += begun < end - 2  # `started` is in whole seconds
            end = max(end, ended)
    if together:
        return Claim(
            "Runs at the same time",
            False,
            f"{plural(together, 'run')} began while another ran on the same host: seconds then include waiting",
        )
    return Claim("Runs at the same time", True, "none of these runs shared its host with another of them")


def started_at(started: str) -> float | None:
    try:
        return datetime.fromisoformat(started).timestamp()
    except ValueError:
        return None


def versions(records: Sequence[RunRecord]) -> Claim:
    """Python and the libraries: what differs, or the main ones."""
    names = sorted({name for record in records for name in record.versions})
    different = [name for name in names if len({record.versions.get(name) for record in records}) > 1]
    if different:
        text = "; ".join(
            f"{name}: {', '.join(sorted({r.versions.get(name) or 'not recorded' for r in records}))}"
            for name in different
        )
        return Claim("Versions", False, text)
    if not names:
        return Claim("Versions", None, "not recorded")
    return Claim(
        "Versions",
        True,
        ", ".join(f"{name} {records[0].versions[name]}" for name in ("python", *CODE) if name in names),
    )
