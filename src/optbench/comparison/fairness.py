"""What was equal between the runs and what was not, by what their records prove, and what that forbids to compare."""

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from optbench.comparison.factors import Factors, networks
from optbench.comparison.foreign import ForeignRecord
from optbench.comparison.read import number
from optbench.records.configuration import setting
from optbench.records.record import RunRecord
from optbench.records.wording import plural, some

CODE = ("torch", "torchvision", "pytorch-lightning")
MOST = 6  # values named in one line
NOT_RECORDED = "not recorded"
SHA256 = re.compile("[0-9a-f]{64}")


class Item(StrEnum):
    """What a claim is about; the value is its title."""

    IMAGES = "Images"
    SPLIT = "Validation split"
    TEST_IMAGES = "Test images"
    NETWORK = "Network"
    INITIAL_WEIGHTS = "Initial weights"
    BATCH_ORDER = "Batch order"
    SEEDS = "Seeds"
    CONFIGURATIONS_TRIED = "Configurations tried"
    SEARCH_TRIALS = "Trials of the search"
    SEARCH_EPOCHS = "Epochs of the search"
    SEARCH_SECONDS = "Seconds of the search"
    MAX_EPOCHS = "Most epochs allowed"
    BATCH_SIZE = "Batch size"
    PARAMETERS = "Trainable parameters"
    CHOSEN_BY = "Chosen by"
    WEIGHTS_TESTED = "Weights tested"
    TEST_SET_READ = "Test set read"
    RUNS_REPORTED = "Runs reported"
    DEVICE = "Device"
    HOST = "Host"
    AT_THE_SAME_TIME = "Runs at the same time"
    TRAINING_CODE = "Training code"
    COMMIT = "Commit"
    VERSIONS = "Versions"
    IMPLIED = "Settings that come along"


@dataclass(frozen=True)
class Claim:
    """One line of the ledger. `equal`: True, False, or None where the records can't tell."""

    item: Item
    equal: bool | None
    text: str


# What must be equal for a fair comparison, and the keys and groups that explain why it is not, where they are what is
# compared. `model.*` is every key of the group. Weights and their number are compared within each network.
EXPLAINED_BY: dict[Item, frozenset[str]] = {
    Item.NETWORK: frozenset({"model", "model.*", "experiment"}),
    Item.INITIAL_WEIGHTS: frozenset({"data"}),
    Item.PARAMETERS: frozenset({"data"}),
    Item.BATCH_ORDER: frozenset({"data", "data.batch_size", "data.order_seed", "augmentation"}),
    Item.MAX_EPOCHS: frozenset({"trainer.max_epochs", "trainer", "experiment"}),
    Item.BATCH_SIZE: frozenset({"data.batch_size", "data", "experiment"}),
    Item.CHOSEN_BY: frozenset({"monitor", "experiment"}),
    Item.WEIGHTS_TESTED: frozenset({"test_weights", "experiment"}),
    Item.TEST_SET_READ: frozenset(),
}


def unfair(ledger: Sequence[Claim], by: Sequence[str], averaged: Sequence[str] = ()) -> list[Claim]:
    """The claims that make a comparison by these keys unfair.

    Networks over which figures are averages are none: what is not even there has a sentence of its own.
    """

    def with_groups(keys: Sequence[str]) -> set[str]:
        return {*keys, *(f"{key.partition('.')[0]}.*" for key in keys if "." in key)}

    compared, known = with_groups(by), with_groups([*by, *averaged])
    return [
        claim
        for claim in ledger
        if claim.equal is False
        and claim.item in EXPLAINED_BY
        and not EXPLAINED_BY[claim.item] & (known if claim.item is Item.NETWORK else compared)
    ]


def budgets(runs: pd.DataFrame, records: Sequence[RunRecord]) -> dict[str, frozenset[str]]:
    """How many epochs the runs that count of each configuration were allowed."""
    used = runs[runs.used]
    allowed = pd.Series([str(setting(records[row].config, "trainer.max_epochs")) for row in used.index], used.index)
    return {str(name): frozenset(its) for name, its in allowed.groupby(used.configuration)}


class MeasuredOn(StrEnum):
    """What of the data can differ between two runs; the value is its name."""

    DATA_SET = "data set"
    SPLIT = "split"
    TEST_SUBSET = "test subset"


def runs_on_other_data(records: Sequence[RunRecord]) -> dict[int, tuple[MeasuredOn, ...]]:
    """Runs that were measured on other images than most: row -> what differs. They are left out of all statistics.

    A run that has not read its images yet is not among them.
    """
    keys = {row: measured_on(record) for row, record in enumerate(records) if record.hashes.get("data")}
    if not keys:
        return {}
    finished = [key for row, key in keys.items() if records[row].status == "completed"] or list(keys.values())
    home = Counter(finished).most_common(1)[0][0]
    return {
        row: tuple(what for what, mine, usual in zip(MeasuredOn, key, home, strict=True) if mine != usual)
        for row, key in keys.items()
        if key != home
    }


def another(different: Sequence[MeasuredOn]) -> str:
    """`another data set and split`."""
    return "another " + " and ".join(different)


def measured_on(record: RunRecord) -> tuple[Hashable, ...]:
    """In the order of `MeasuredOn`."""
    subset = record.images.get("test"), str(setting(record.config, "trainer.limit_test_batches"))
    return record.hashes["data"], record.hashes.get("split"), subset


def version_of_code(record: RunRecord) -> tuple[str, ...]:
    """Runs are paired only within one version of the training code and of the libraries that compute.

    The hash of the training code (`training.provenance.code_sha256`) where a record has it: a commit changes with every
    word of the documentation.
    """
    own = record.hashes.get("code") or record.commit
    return own, *(record.versions.get(name, "") for name in CODE)


def versions_of_code(records: Sequence[RunRecord]) -> list[str]:
    """`version_of_code` of each record. Runs of other programs do not say theirs: they join the most common one."""
    own = [None if isinstance(record, ForeignRecord) else str(version_of_code(record)) for record in records]
    usual = Counter(version for version in own if version).most_common(1)
    return [version or (usual[0][0] if usual else "") for version in own]


def ledger(runs: pd.DataFrame, records: Sequence[RunRecord], factors: Factors, tried: dict[str, int]) -> list[Claim]:
    """One claim per item, of the runs that count.

    Args:
        runs: as `Facts.runs`; `records` in its order.
        tried: how many configurations each optimizer (or what else is compared) had.
    """
    runs = runs[runs.used]
    if runs.empty:
        return []
    own, names = [records[row] for row in runs.index], list(map(str, runs.configuration))
    every_network = networks(factors, records)
    nets = [every_network[row] for row in runs.index]
    seeds: dict[str, list[int]] = {}
    for name, seed in zip(names, runs.seed, strict=True):
        seeds.setdefault(name, []).append(seed)
    claims = [
        same(Item.IMAGES, [record.hashes.get("data") for record in own], "hash of all images and labels"),
        same(Item.SPLIT, [record.hashes.get("split") for record in own], "hash of the split"),
        same(Item.TEST_IMAGES, [test_images(record) for record in own]),
        same_networks(nets, names),
        within_networks(Item.INITIAL_WEIGHTS, own, "initial_weights", nets),
        within_seeds(Item.BATCH_ORDER, own, "batch_order"),
        same_seeds(seeds),
        *configurations_tried(tried),
        same(Item.MAX_EPOCHS, [setting(record.config, "trainer.max_epochs") for record in own]),
        same(Item.BATCH_SIZE, [setting(record.config, "data.batch_size") for record in own]),
        same_parameters(own, nets),
        same(Item.CHOSEN_BY, [record.monitor for record in own], "monitor"),
        same(Item.WEIGHTS_TESTED, [record.tested.get("checkpoint") for record in own]),
        test_reads([Path(folder) for folder in runs.folder], own),
        *runs_reported(own),
        same(Item.DEVICE, list(runs.device)),
        same(Item.HOST, list(runs.host)),
        overlaps(own, list(runs.host)),
        same(
            Item.TRAINING_CODE,
            [version_of_code(record)[0][:11] for record in own],
            "hash, or commit",
        ),
        same(Item.COMMIT, list(runs.commit), "+: with uncommitted changes"),
        versions(own),
    ]
    if factors.implied:
        rates = factors.implied.get("optimizer.lr")
        claims.append(
            come_along(factors, dict(zip(names, (rates[row] for row in runs.index), strict=True)) if rates else {})
        )
    return claims


def configurations_tried(tried: dict[str, int]) -> list[Claim]:
    """Nothing where each optimizer had one configuration."""
    if len(tried) < 2 or max(tried.values()) < 2:
        return []
    text = ", ".join(f"{name} {count}" for name, count in tried.items())
    return [Claim(Item.CONFIGURATIONS_TRIED, len(set(tried.values())) == 1, text)]


def come_along(factors: Factors, rates: dict[str, Any]) -> Claim:
    """What varies with a factor, and of that the learning rate of each configuration, which decides most."""
    verb = "varies" if len(factors.implied) == 1 else "vary"
    text = f"{', '.join(sorted(factors.implied))} {verb} only along with {', '.join(factors.independent)}"
    if rates:
        text += f". optimizer.lr: {some([f'{name} {rate}' for name, rate in rates.items()], MOST)}"
    return Claim(Item.IMPLIED, False, text)


def same(item: Item, values: Sequence[Any], what: str = "") -> Claim:
    """Whether all runs agree; the text counts what there is."""
    counts = Counter("" if value is None else str(value) for value in values)
    missing = counts.pop("", 0)
    if not counts:
        return Claim(item, None, NOT_RECORDED)
    shown = [name[:10] if SHA256.fullmatch(name) else name for name in counts]
    if len(counts) > 1:
        counted = [f"{name} ({plural(count, 'run')})" for name, count in zip(shown, counts.values(), strict=True)]
        return Claim(item, False, some(counted, MOST))
    text = f"{shown[0]} ({what})" if what and what not in shown[0] else shown[0]
    return agreed(item, text, missing)


def agreed(item: Item, text: str, missing: int) -> Claim:
    """What all runs agree on, except for `missing` runs that do not record it: with these, nobody can tell."""
    if missing:
        return Claim(item, None, f"{text}; not recorded by {plural(missing, 'run')}")
    return Claim(item, True, text)


def within_seeds(item: Item, records: Sequence[RunRecord], key: str) -> Claim:
    """Whether runs of one seed have the same hash, which pairing by seed relies on."""
    by_seed: dict[int, set[str]] = {}
    for record in records:
        by_seed.setdefault(record.seed, set()).add(record.hashes.get(key, ""))
    if any("" in hashes for hashes in by_seed.values()):
        return Claim(item, None, "not recorded by every run")
    different = [seed for seed, hashes in by_seed.items() if len(hashes) > 1]
    if different:
        where = f"{len(different)} of {plural(len(by_seed), 'seed')}"
        return Claim(item, False, f"differ between configurations at {where}")
    return Claim(item, True, f"the same for every configuration at {each_seed(records)} (hashes)")


def each_seed(records: Sequence[RunRecord]) -> str:
    """`the one seed`, `each of 3 seeds`."""
    seeds = len({record.seed for record in records})
    return "the one seed" if seeds == 1 else f"each of {seeds} seeds"


def same_networks(nets: Sequence[str], configurations: Sequence[str]) -> Claim:
    """Whether every configuration has the same networks: one, or several over which it is averaged."""
    its: dict[str, set[str]] = {}
    for name, net in zip(configurations, nets, strict=True):
        its.setdefault(name, set()).add(net)
    every = set(nets)
    if len(every) > 1 and "" not in every and all(own == every for own in its.values()):
        return Claim(Item.NETWORK, True, f"the same {len(every)} in every configuration: {some(sorted(every), MOST)}")
    return same(Item.NETWORK, nets)


def within_networks(item: Item, records: Sequence[RunRecord], key: str, nets: Sequence[str]) -> Claim:
    """The same within each network: no two networks have weights in common."""
    every = within_seeds(item, records, key)
    by_network: dict[str, list[RunRecord]] = {}
    for record, net in zip(records, nets, strict=True):
        by_network.setdefault(net, []).append(record)
    if every.equal is not False or len(by_network) == 1:
        return every
    claims = {net: within_seeds(item, own, key) for net, own in by_network.items()}
    different = [f"of {net}: {claim.text}" for net, claim in claims.items() if not claim.equal]
    if different:
        return Claim(item, False, some(different, MOST, "; "))
    return Claim(item, True, f"the same for every configuration of one network at {each_seed(records)} (hashes)")


def same_parameters(records: Sequence[RunRecord], nets: Sequence[str]) -> Claim:
    """Whether one network always has the same number of them."""
    numbers = [record.parameters.get("trainable") for record in records]
    counts: dict[str, set[int]] = {}
    for number_of, net in zip(numbers, nets, strict=True):
        if number_of is not None:
            counts.setdefault(net, set()).add(number_of)
    if len(set().union(*counts.values())) < 2 or any(len(its) > 1 for its in counts.values()):
        return same(Item.PARAMETERS, numbers)
    text = some([f"{net} {next(iter(its))}" for net, its in counts.items()], MOST)
    return agreed(Item.PARAMETERS, f"the same in every run of one network: {text}", numbers.count(None))


def same_seeds(seeds: dict[str, list[int]]) -> Claim:
    """Whether every configuration has the same seeds."""
    sets = {name: sorted(set(found)) for name, found in seeds.items()}
    first, *others = sets.values()
    if all(found == first for found in others):
        more = f" … ({len(first)})" if len(first) > 20 else ""
        return Claim(Item.SEEDS, True, ", ".join(map(str, first[:20])) + more)
    text = "; ".join(f"{name}: {', '.join(map(str, found[:10]))}" for name, found in list(sets.items())[:MOST])
    more = f"; and {len(sets) - MOST} more" if len(sets) > MOST else ""
    return Claim(Item.SEEDS, False, f"{text}{more}. Pairs use the seeds that both have.")


def test_images(record: RunRecord) -> str:
    images, limit = record.images.get("test"), str(setting(record.config, "trainer.limit_test_batches"))
    if not images:
        return ""
    return str(images) + (f" (limit_test_batches={limit})" if limit not in ("None", "1.0") else "")  # 1 is one batch


def runs_reported(records: Sequence[RunRecord]) -> list[Claim]:
    """Of runs that have no record of their own: that they are all there are, and how they ended."""
    foreign = sum(isinstance(record, ForeignRecord) for record in records)
    text = f"nothing shows whether runs are missing beside the {foreign} from tables or logs, and how those ended"
    return [Claim(Item.RUNS_REPORTED, None, text)] if foreign else []


def test_reads(folders: Sequence[Path], records: Sequence[RunRecord]) -> Claim:
    """How often the test set was read: once by a run that tests, and once more by each evaluate.py with a trace."""
    if foreign := sum(isinstance(record, ForeignRecord) for record in records):
        return Claim(Item.TEST_SET_READ, None, f"not recorded by {plural(foreign, 'run')}")
    reads = Counter(bool(record.test) + evaluations(folder) for folder, record in zip(folders, records, strict=True))
    by = {count: "each run" if len(reads) == 1 else plural(count, "run") for count in reads.values()}
    text = ", ".join(f"{READS.get(times, f'{times} times')} by {by[count]}" for times, count in sorted(reads.items()))
    return Claim(Item.TEST_SET_READ, len(reads) == 1 and max(reads) <= 1, text)


READS = {0: "never", 1: "once"}


def evaluations(folder: Path) -> int:
    """Lines of evaluation/reads.csv, which evaluate.py extends each time."""
    try:
        return max(0, len((folder / "evaluation" / "reads.csv").read_text(encoding="utf-8").splitlines()) - 1)
    except (OSError, UnicodeDecodeError):
        return 0


def overlaps(records: Sequence[RunRecord], hosts: Sequence[str]) -> Claim:
    """Whether runs that shared a host at the same time had to wait for its cores or for a GPU."""
    spans: dict[str, list[tuple[float, float, int]]] = {}
    for row, (record, host) in enumerate(zip(records, hosts, strict=True)):
        begun, seconds = started_at(record.started), number(record.seconds, "total")
        if begun is None or not seconds >= 0:
            return Claim(Item.AT_THE_SAME_TIME, None, "not recorded by every run")
        spans.setdefault(host, []).append((begun, begun + seconds, row))
    shares = [share(record.device) for record in records]
    together, waiting, unknown = 0, 0, 0
    for found in spans.values():
        for waits, recorded in starts_beside_others(found, shares):
            together += 1
            waiting += waits
            unknown += not recorded
    if not together:
        return Claim(Item.AT_THE_SAME_TIME, True, "none of these runs shared its host with another of them")
    text = f"{plural(together, 'run')} began while another ran on the same host"
    if waiting:
        some_of = "" if waiting == together else f" {waiting} of them"
        text += f",{some_of} with more threads than cores or on the same GPU: seconds then include waiting"
        return Claim(Item.AT_THE_SAME_TIME, False, text)
    if unknown:
        return Claim(Item.AT_THE_SAME_TIME, None, f"{text}: whether on cores or a GPU of its own is not recorded")
    return Claim(Item.AT_THE_SAME_TIME, True, f"{text}, each on cores or a GPU of its own")


class Share(NamedTuple):
    """What a run takes of its host.

    Attributes:
        cores: those that it may use, such as `0-3,8`, or NOT_RECORDED.
        gpu: its name, '' for none, or NOT_RECORDED.
    """

    cores: str
    threads: int
    gpu: str


def share(device: Mapping[str, Any]) -> Share:
    """Of the `device` of a record."""
    devices = int(device.get("devices") or 1)
    gpu = device.get("gpu") if devices == 1 else None  # of several, only the first is recorded
    return Share(
        cores=str(device.get("cores") or NOT_RECORDED),
        threads=int(device.get("threads") or 1) * devices,
        gpu="" if device.get("accelerator") == "cpu" else str(gpu or NOT_RECORDED),
    )


def starts_beside_others(
    spans: Sequence[tuple[float, float, int]], shares: Sequence[Share]
) -> Iterator[tuple[bool, bool]]:
    """Of each run that began while another ran on its host: whether it had to wait, and whether records tell that.

    Args:
        spans: when each run of one host began and ended (in seconds), and its row in `shares`.
    """
    running: list[tuple[float, int]] = []  # a heap: when each ends, and its row
    threads, gpus = Counter[str](), Counter[str]()  # of these: threads by cores, runs by GPU
    for begun, ended, row in sorted(spans):
        while running and running[0][0] - 2 <= begun:  # `started` is in whole seconds
            over = shares[heappop(running)[1]]
            threads[over.cores] -= over.threads
            gpus[over.gpu] -= 1
        heappush(running, (ended, row))
        own = shares[row]
        threads[own.cores] += own.threads
        gpus[own.gpu] += 1
        if len(running) > 1:
            same_gpu = own.gpu not in ("", NOT_RECORDED) and gpus[own.gpu] > 1
            recorded = not (threads[NOT_RECORDED] or gpus[NOT_RECORDED])
            yield crowded(+threads) or same_gpu, recorded  # + leaves out zeros


def crowded(threads: Mapping[str, int]) -> bool:
    """Whether the runs on some cores (`0-3,8`) have more threads together than there are such cores."""
    sets = {cores: cores_in(cores) for cores in threads if cores != NOT_RECORDED}
    return any(
        sum(threads[other] for other, inside in sets.items() if inside <= outer) > len(outer) for outer in sets.values()
    )


@cache
def cores_in(text: str) -> frozenset[int]:
    """The numbers in `0-3,8`."""
    spans = [span.split("-") for span in text.split(",")]
    return frozenset(core for span in spans for core in range(int(span[0]), int(span[-1]) + 1))


def started_at(started: str) -> float | None:
    try:
        return datetime.fromisoformat(started).timestamp()
    except ValueError:
        return None


def versions(records: Sequence[RunRecord]) -> Claim:
    """Python and the libraries: what differs, or the main ones."""
    unknown = sum(isinstance(record, ForeignRecord) for record in records)
    records = [record for record in records if not isinstance(record, ForeignRecord)]
    names = sorted({name for record in records for name in record.versions})
    different = [name for name in names if len({record.versions.get(name) for record in records}) > 1]
    if different:
        text = "; ".join(
            f"{name}: {', '.join(sorted({r.versions.get(name) or NOT_RECORDED for r in records}))}"
            for name in different
        )
        return Claim(Item.VERSIONS, False, text)
    if not names:
        return Claim(Item.VERSIONS, None, NOT_RECORDED)
    text = ", ".join(f"{name} {records[0].versions[name]}" for name in ("python", *CODE) if name in names)
    return agreed(Item.VERSIONS, text, unknown)
