"""What a search says: tuning curves with exact bands, who is best at which budget, how sensitive, what it cost.

The median of the best of k random trials, and simultaneous bands of it: Lourie, Cho & He 2024, "Show Your Work with
Confidence: Confidence Bands for Tuning Curves", by their package opda.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from optbench.comparison.facts import Facts
from optbench.comparison.fairness import Claim, Item
from optbench.comparison.judgement import Judgement
from optbench.comparison.read import device_name, number, read_record
from optbench.comparison.sensitivity import near
from optbench.comparison.verdicts import CLAIMED, Verdict
from optbench.records import metrics, wording
from optbench.records.configuration import key_of
from optbench.records.tuning import FINAL, TUNING, Contestant, final_folder, search_folder, shortlist_folder
from optbench.records.tuning import Tuning as Record
from optbench.records.wording import joined, plural, resuming, text

CONFIDENCE = 0.95
ALIKE = 1.1  # times the least seconds: what the ledger calls equal
RATE, DECAY = "optimizer.lr", "optimizer.weight_decay"
NO_DECAY = "weight_decay=0"
# a method that contains another as a special case -> with which setting
CONTAINS = {
    ("momentum", "sgd"): "momentum=0",
    ("nesterov", "sgd"): "momentum=0",
    ("sam", "momentum"): "rho=0",
    ("adamw", "adam"): NO_DECAY,
    ("nadamw", "nadam"): NO_DECAY,
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """What one search found. Scores are the validation metric; nan of a run that diverged.

    Attributes:
        contestant: its record; `configuration`: what its final runs are called, '' where there are none.
        trials: one row per trial within the budget: `trial`, `score`, `diverged`, `seconds`, `epochs`, `rate`,
            `claimed` (the validation of what the final is compared by), `device` ('' where it is not recorded).
        curve: one row per number of trials `k`: `median` of the best score, `low` and `high` (simultaneous for all k;
            nan without a band), `seconds`.
        best: the best trial of the search, None where all diverged.
        fresh: the best trial's scores at the shortlist's seeds, which knew nothing of the choice.
        shortlisted, final: the winner's scores with the shortlist's seeds, and in the final.
        test: the winner's test metrics in the final.
        near: the trials within one point (for a loss: 1 %) of the best.
    """

    contestant: Contestant
    configuration: str
    trials: pd.DataFrame
    curve: pd.DataFrame
    best: int | None
    fresh: list[float]
    shortlisted: list[float]
    final: list[float]
    test: list[float]
    near: pd.DataFrame

    @property
    def name(self) -> str:
        return self.contestant.name

    def score(self, trial: int) -> float:
        return float(self.trials.score[trial])


@dataclass(frozen=True)
class Tuning:
    """What a tuning says beside the comparison of its final runs.

    Attributes:
        final_seeds: that the final ran with.
        metric: what chose; `sign`: 1 where more is better; `claimed`: the validation of what the final is compared by.
        chances: one row per number of trials `k`; a column for each search: the probability that it is the best then.
        exact: whether draws were independent and uniform in one space, so that the bands are exact.
        timed: whether all trials ran on one kind of device, so that seconds can be compared.
    """

    record: Record
    final_seeds: list[int]
    metric: str
    sign: int
    claimed: str
    searches: list[Search]
    chances: pd.DataFrame
    exact: bool
    timed: bool


def find_tuning(sources: Sequence[str]) -> Path | None:
    """The folder of a tuning, where that is what is compared."""
    folder = Path(sources[0]).expanduser() if len(sources) == 1 else None
    return folder if folder is not None and (folder / TUNING).is_file() else None


def finals_of(folder: Path) -> str:
    """Where its final runs are.

    Raises:
        ValueError: where it has none yet.
    """
    if not any((folder / FINAL).glob("*/summary.json")):
        left = f"python src/tune.py {resuming(folder)} runs what is left"
        why = "every trial of its search diverged" if FINAL in Record.read(folder).ended else left
        raise ValueError(f"{folder} is a tuning without a final run: {why}.")
    return str(folder / FINAL)


def read_tuning(folder: Path, facts: Facts) -> Tuning:
    """What the search says, and what became of its winners in the final.

    Raises:
        ValueError: where tuning.json or the record of a trial cannot be read.
    """
    record = Record.read(folder)
    metric = str(record.settings["metric"])
    exact = (
        record.settings["sampler"] == "random"
        and record.settings["budget"] == "trials"  # how many fit into seconds depends on what was drawn
        and not any(c.widened for c in record.contestants)
    )
    searches = [read_search(folder, record, its, facts, exact) for its in record.contestants]
    devices = {device for search in searches for device in search.trials.device if device}
    return Tuning(
        record=record,
        final_seeds=sorted(set(map(int, facts.runs.seed))),
        metric=metric,
        sign=metrics.sign(metric),
        claimed=claimed_metric(metric, facts),
        searches=searches,
        chances=chances({search.name: ascending(search.trials.score, metric) for search in searches}),
        exact=exact,
        timed=len(devices) <= 1,
    )


def read_search(folder: Path, record: Record, its: Contestant, facts: Facts, exact: bool) -> Search:
    """One search, in numbers."""
    metric = str(record.settings["metric"])
    rows = []
    for trial in range(its.counted):
        place = folder / search_folder(its.name, trial)
        run, score = read_record(place), record.score(place)
        diverged = score is None
        judged = run.final if record.last_weights else run.best
        rows.append(
            {
                "trial": trial,
                "score": math.nan if diverged else score,
                "diverged": diverged,
                "seconds": number(run.seconds, "training"),
                "epochs": run.epochs,
                "rate": number(its.trials[trial].values, RATE),
                "claimed": math.nan if diverged else number(judged, claimed_metric(metric, facts)),
                "device": device_name(run.device) if run.device else "",
            }
        )
    trials = pd.DataFrame(rows)
    best = None if trials.diverged.all() else int((metrics.sign(metric) * trials.score).idxmax())

    def scores_in_shortlist(trial: int | None) -> list[float]:
        if trial is None or len(its.shortlist) < 2:
            return []
        found = [record.score(folder / shortlist_folder(its.name, trial, seed)) for seed in record.shortlist_seeds]
        return [math.nan if score is None else score for score in found]

    names = [Path(final_folder(its.name, seed)).name for seed in record.final_seeds]
    mine = facts.runs[facts.runs.run.isin(names) & facts.runs.used]
    finals = [record.score(Path(place)) for place in mine.folder]
    return Search(
        contestant=its,
        configuration=str(mine.configuration.iloc[0]) if len(mine) else "",
        trials=trials,
        curve=tuning_curve(trials, metric, exact),
        best=best,
        fresh=scores_in_shortlist(best),
        shortlisted=scores_in_shortlist(its.winner),
        final=[score for score in finals if score is not None],
        test=list(mine.metric),
        near=trials.iloc[:0] if best is None else trials[near(trials.score, float(trials.score[best]), metric)],
    )


def claimed_metric(metric: str, facts: Facts) -> str:
    """What claims are about, in validation; what chose, where validation does not measure that."""
    same = metrics.at("val", facts.metric)
    return same if metrics.name_of(same) in metrics.METRICS else metric


def ascending(scores: pd.Series, metric: str) -> pd.Series:
    """The scores such that more is better: a loss counts negative, and a run that diverged is -inf."""
    return (metrics.sign(metric) * scores).fillna(-math.inf)


def tuning_curve(trials: pd.DataFrame, metric: str, exact: bool) -> pd.DataFrame:
    """As `Search.curve`. The first trial has the defaults; of k trials, the other k - 1 are draws.

    So the best of k is the better of the defaults and the best of k - 1 draws: a known number, and a quantile of the
    draws' distribution with its band.
    """
    sign = metrics.sign(metric)
    values = ascending(trials.score, metric).to_numpy()
    default, draws, k = values[0], values[1:], np.arange(1, len(values) + 1)
    low, median, high = (np.full(len(k), default) for _ in range(3))
    if len(draws):
        quantiles = median_of_best(draws, k[:-1], highest(metric), exact and len(draws) > 1)
        low[1:], median[1:], high[1:] = np.maximum(default, quantiles)  # keeps nan
    ends = (low, high) if sign > 0 else (high, low)
    mean = trials.seconds[1:].mean() if len(draws) else 0.0
    frame = pd.DataFrame(
        {
            "k": k,
            "low": sign * ends[0],
            "median": sign * median,
            "high": sign * ends[1],
            "seconds": trials.seconds[0] + mean * (k - 1),
        }
    )
    return frame.replace([math.inf, -math.inf], math.nan)


@cache
def generator_of(draws: int) -> np.random.Generator:
    """The same for as many draws: opda then simulates how wide a band must be once, and not once for each search."""
    return np.random.default_rng(draws)


def highest(metric: str) -> float:
    """The best score that there can be, where more is better; a metric of which less is better counts negative."""
    if metrics.sign(metric) < 0:
        return 0.0
    return 1.0 if metrics.metric(metric).is_fraction else math.inf


def median_of_best(draws: Floats, k: NDArray[np.int_], most: float, band: bool) -> Floats:
    """Lower end, estimate and upper end of the median of the best of k draws, for each k: `(3, len(k))`.

    The ends hold for all k at once with CONFIDENCE; they are nan without `band`. They are exact for a continuous
    distribution; with equal scores they hold at least as often.
    """
    from opda.nonparametric import EmpiricalDistribution  # nothing but a tuning needs it

    if not band:
        median = EmpiricalDistribution(draws, a=-math.inf, b=most).quantile_tuning_curve(k)
        return np.array([np.full(len(k), math.nan), median, np.full(len(k), math.nan)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicates detected", RuntimeWarning)
        lower, known, upper = EmpiricalDistribution.confidence_bands(
            draws,
            CONFIDENCE,
            a=-math.inf,
            b=most,
            generator=generator_of(len(draws)),
            method="ld_equal_tailed",
            n_jobs=1,
        )
    # where the distribution function is higher, scores are lower
    return np.array([each.quantile_tuning_curve(k) for each in (upper, known, lower)])


def chances(values: dict[str, pd.Series]) -> pd.DataFrame:
    """As `Tuning.chances`, where each search's trials are its true distribution; equal scores share the chance.

    Args:
        values: of each search its scores, higher is better, -inf of a run that diverged; the first has the defaults.
    """
    budget = min(map(len, values.values()))
    grid = np.unique(np.concatenate([its.to_numpy() for its in values.values()]))  # every score that there is
    # Equal scores draw lots: numbers from 0 to 1, of which the highest wins. The chance is an integral over the lot of
    # the winner, exact with these lots: the integrand is a polynomial, a product of one line per other search.
    nodes, weights = np.polynomial.legendre.leggauss(len(values) // 2 + 1)  # of -1 to 1
    lots, weights = (1 + nodes) / 2, weights / 2
    rows = []
    for k in range(1, budget + 1):
        at_most = np.array([best_of(its.to_numpy(), k, grid) for its in values.values()])  # (searches, grid)
        below = np.hstack([np.zeros((len(at_most), 1)), at_most[:, :-1]])
        equal = at_most - below
        row = {}
        for i, name in enumerate(values):
            others = np.delete(np.arange(len(values)), i)
            others_lose = [(below[others] + lot * equal[others]).prod(0) for lot in lots]  # each (grid,)
            row[name] = float((equal[i] * (weights @ np.array(others_lose))).sum())
        rows.append({"k": k, **row})
    return pd.DataFrame(rows)


def best_of(values: Floats, k: int, grid: Floats) -> Floats:
    """The probability that the best of k trials, of which the first has the defaults, is at most each of `grid`."""
    default, draws = values[0], np.sort(values[1:])
    below = np.searchsorted(draws, grid, side="right") / max(len(draws), 1)
    return np.where(grid >= default, below ** (k - 1) if k > 1 else 1.0, 0.0)


def luck(scores: Sequence[float], sign: int, claimed: Sequence[float] | None = None) -> float:
    """By how much the best of a search would differ from the best of another such search.

    It is the standard deviation of the best of half of the draws, over all halves. The best of all draws differs by
    less, so this errs on the safe side.

    Args:
        scores: of each trial, nan where it diverged; the first has the defaults, which every search has.
        sign: 1 where a higher score is better, else -1.
        claimed: what a claim is about, of each trial, where that is not the score that chooses.

    Returns:
        in the unit of what a claim is about; nan for fewer than two draws, and where all draws diverged.
    """
    values, reached = np.asarray(scores, float), np.asarray(scores if claimed is None else claimed, float)
    order = 1 + np.argsort(sign * values[1:], kind="stable")  # nan sorts last
    known, n = order[np.isfinite(values[order])], len(order)
    half = n // 2
    if half < 1 or not len(known):
        return math.nan
    worse = np.arange(n - len(known), n)  # how many draws are worse than each of `known`: first, those that diverged
    # of all halves, those with this draw and otherwise only worse ones
    chance = np.array([math.comb(int(i), half - 1) for i in worse], float) / math.comb(n, half)
    best = np.where(sign * values[known] <= sign * values[0], reached[0], reached[known])  # also of the defaults
    mean = np.average(best, weights=chance)
    return math.sqrt(float(np.average((best - mean) ** 2, weights=chance)))


def beyond_luck(difference: float, half: float, lucks: Sequence[float], tests: int) -> bool:
    """Whether a difference of two winners is larger than chance in the final and luck in the search can make it.

    Args:
        half: of the difference's simultaneous interval, which is about the final's chance alone.
        lucks: of both searches; where one is not known, because a search had too few draws, nothing is.
        tests: pairs that are compared.
    """
    z = float(stats.norm.ppf(1 - (1 - CONFIDENCE) / (2 * tests)))
    return bool(abs(difference) > math.hypot(half, *(z * each for each in lucks)))


# what was equal, and what follows


def budgets(tuning: Tuning) -> list[Claim]:
    """What each search cost: lines of the ledger."""
    trials = {s.name: len(s.trials) for s in tuning.searches}
    epochs = {s.name: int(s.trials.epochs.sum()) for s in tuning.searches}
    seconds = {s.name: float(s.trials.seconds.sum()) for s in tuning.searches}
    allowed = tuning.record.epochs["trial"]
    by_seconds = tuning.record.settings["budget"] != "trials"
    alike = max(seconds.values()) <= ALIKE * min(seconds.values())
    times = ", ".join(f"{name} {wording.seconds(value)}" for name, value in seconds.items())
    limit = f"; at most {wording.seconds(float(tuning.record.settings['budget']))} each" if by_seconds else ""
    return [
        Claim(Item.SEARCH_TRIALS, len(set(trials.values())) == 1, counts(trials)),
        Claim(Item.SEARCH_EPOCHS, True, f"at most {allowed} a trial; trained: {counts(epochs)}"),
        Claim(Item.SEARCH_SECONDS, by_seconds or alike, f"{times}{limit}"),
    ]


def counts(values: dict[str, int]) -> str:
    if len(set(values.values())) == 1:
        return f"{next(iter(values.values()))} each"
    return ", ".join(f"{name} {value}" for name, value in values.items())


def under_tuned(tuning: Tuning, judgement: Judgement) -> list[str]:
    """Methods that did worse than a special case of themselves, which no good search lets happen."""
    verdicts = {(pair.a, pair.b): pair.verdict for pair in judgement.differences.itertuples()}
    found = []
    for general in tuning.searches:
        for special in tuning.searches:
            setting = CONTAINS.get((general.contestant.optimizer, special.contestant.optimizer))
            alike = general.name.removeprefix(general.contestant.optimizer) == special.name.removeprefix(
                special.contestant.optimizer
            )
            pair = general.configuration, special.configuration
            worse = verdicts.get(pair) == Verdict.WORSE or verdicts.get(pair[::-1]) == Verdict.BETTER
            contains = setting != NO_DECAY or not has_decay(special.contestant)  # coupled is not decoupled decay
            if setting and alike and worse and contains:
                found.append(
                    f"{general.name} is under-tuned: with {setting} it is {special.name}, which did better, so "
                    "better settings of it exist. More trials, or a space that reaches them, would find them."
                )
    return found


def has_decay(its: Contestant) -> bool:
    """Whether its winner decays the weights, by a value that was searched or typed; no optimizer here does so else."""
    typed = {key_of(override): override.partition("=")[2] for override in its.overrides}
    value = its.trials[its.winner or 0].values.get(DECAY, typed.get(DECAY, 0))
    return float(value or 0) != 0


def answer(tuning: Tuning, judgement: Judgement) -> list[str]:
    """What the reader of the answer must know of the search."""
    said = []
    for search in tuning.searches:
        its = search.contestant
        if search.best is None:
            said.append(f"{its.name} is missing: all {plural(len(search.trials), 'trial')} of its search diverged.")
        elif its.edges:
            edges = joined([f"{name} at the {edge} values" for name, edge in its.edges.items()])
            more = "Its space was widened; widen it further." if its.widened else "widen=true searches on."
            said.append(f"Provisional: the best trials of {its.name} have {edges} of its space. {more}")
    return said + under_tuned(tuning, judgement) + by_luck(tuning, judgement)


def by_luck(tuning: Tuning, judgement: Judgement) -> list[str]:
    """Which claims about the winners need not hold for the optimizers, as another search may find other winners."""
    lucks = {
        s.configuration: luck(list(s.trials.score), tuning.sign, list(s.trials.claimed))
        for s in tuning.searches
        if s.configuration
    }
    pairs = judgement.differences[judgement.differences.verdict.isin(CLAIMED)]
    pairs = pairs[pairs.a.isin(list(lucks)) & pairs.b.isin(list(lucks))]
    weak = [
        f"{pair.a} against {pair.b}"
        for pair in pairs.itertuples()
        if not beyond_luck(
            pair.difference,
            max(pair.high - pair.difference, pair.difference - pair.low),
            [lucks[pair.a], lucks[pair.b]],
            len(judgement.differences),
        )
    ]
    if not weak:
        return []
    sizes = [f"{name} {wording.difference(tuning.claimed, size, sign=False)}" for name, size in lucks.items()]
    luck_of_each = (
        "How much the best of a search varies is not known from so few trials"
        if any(map(math.isnan, lucks.values()))
        else f"The best of a search varies by about: {', '.join(sizes)}"
    )
    return [
        f"These claims hold for the points that were found, but another search of this size might turn them around: "
        f"{wording.some(weak, 4)}. {luck_of_each}. More trials tell more."
    ]


def notes(tuning: Tuning) -> list[str]:
    """How it was tuned, and by how much a search flatters."""
    record, size = tuning.record, {len(search.trials) for search in tuning.searches}
    trials = plural(size.pop(), "trial") if len(size) == 1 else "equal seconds"
    found = [
        f"Tuned with {trials} each, chosen by {tuning.metric} at seed {record.search_seed}; nothing was chosen with "
        f"the seeds of the final ({', '.join(map(text, tuning.final_seeds))}), so its means do not flatter."
    ]
    falls = {s.name: fall for s in tuning.searches if not math.isnan(fall := curse(s))}
    if falls:
        each = ", ".join(f"{name} {wording.difference(tuning.metric, value)}" for name, value in falls.items())
        mean = wording.difference(tuning.metric, float(np.mean(list(falls.values()))))
        found.append(
            f"The winner's curse: at seeds that did not choose it, the best trial of a search changed by {mean} in "
            f"{tuning.metric} ({each})."
        )
    return found


def curse(search: Search) -> float:
    """By how much the score of the best trial changed at seeds that did not choose it; nan where there is none."""
    known = [score for score in search.fresh if not math.isnan(score)]
    if search.best is None or not known:
        return math.nan
    return float(np.mean(known)) - search.score(search.best)


def sentence(search: Search, tuning: Tuning) -> str:
    """One search in words."""
    its, metric, trials = search.contestant, tuning.metric, search.trials
    diverged = f", {int(trials.diverged.sum())} diverged" if trials.diverged.any() else ""
    begun = f"{its.name}: {plural(len(trials), 'trial')}{diverged}"
    if search.best is None:
        return f"{begun}. It has no winner."
    default = trials.score[0]
    first = "the defaults diverged" if math.isnan(default) else f"{wording.value(metric, default)} with the defaults"
    point = its.trials[search.best].point
    said = f"{begun}; {metric} {first}, {wording.value(metric, search.score(search.best))} at best ({point})."
    rates = search.near.rate.dropna()
    width = "one point" if metrics.metric(metric).is_fraction else "1 %"
    said += f" Within {width} of that: {len(search.near)} of {len(trials)} trials"
    if len(rates) > 1 and rates.min() > 0:
        factor = rates.max() / rates.min()
        low, high = wording.number(rates.min()), wording.number(rates.max())
        said += f", with rates from {low} to {high}, a factor of {factor:.3g}"
    return f"{said}."
