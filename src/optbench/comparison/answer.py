"""The answer in plain words: who is ahead, by how much, how sure that is, and what these seeds cannot tell."""

import math
from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

import pandas as pd

from optbench.comparison import statistics
from optbench.comparison.facts import Facts
from optbench.comparison.judgement import Judgement
from optbench.comparison.looks import looks_sentence
from optbench.comparison.verdicts import CLAIMED, DECIDED, Verdict, claims_of, turned
from optbench.records import metrics, wording
from optbench.records.record import STATUSES
from optbench.records.wording import joined, plural

MOST = 4  # configurations named in one sentence
Pair = dict[str, Any]  # a row of `Judgement.differences`


def answer(facts: Facts, judgement: Judgement) -> list[str]:
    """One to ten sentences."""
    ranking = judgement.ranking
    results = ranking[ranking.n > 0]
    said: list[str] = []
    if results.empty:
        counts = facts.runs.status.value_counts()
        ended = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
        yet = " yet" if "running" in counts else ""
        said.append(f"No run has a result{yet} ({ended}), so nothing can be said.")
    elif len(results) == 1:
        said += alone(facts, judgement, results.iloc[0].to_dict())
    elif results.n.max() == 1:
        said += one_seed(facts, judgement)
    elif facts.baseline is not None:
        said += against_baseline(facts, judgement)
    else:
        said += decided(facts, judgement)
    said += by_network(facts, judgement)
    said += fast(facts, judgement)
    said += troubles(judgement)
    if edges := [
        f"{s.factor} for {joined(s.edges[:MOST], len(s.edges) - MOST)}" if any(s.edges) else s.factor
        for s in judgement.sensitivities
        if s.edges
    ]:
        said.append(
            f"Provisional: the best value is at the edge of what was tried ({'; '.join(edges)}); widen the range."
        )
    if sentence := looks_sentence(facts.looks):
        said.append(sentence)
    return said


def alone(facts: Facts, judgement: Judgement, row: dict[str, Any]) -> list[str]:
    metric = facts.metric
    who = row["configuration"] if facts.by else "This configuration"
    reached = f"{who} reaches {wording.value(metric, row['mean'])} {metric}"
    how_sure = (
        "with its only seed; nothing can be said about chance."
        if row["n"] == 1
        else f"over {row['n']} seeds (95 % interval {wording.interval(metric, row['low'], row['high'])})."
    )
    others = len(judgement.ranking) > 1
    return [
        f"{reached} {how_sure}",
        "No other configuration has a result that counts." if others else "There is nothing to compare it with.",
    ]


def one_seed(facts: Facts, judgement: Judgement) -> list[str]:
    """With one seed there is an order, and no word about chance."""
    metric, leaders = facts.metric, judgement.tuned
    first, *rest = [row for row in judgement.ranking.to_dict("records") if row["configuration"] in leaders]
    behind = [f"{row['configuration']} {wording.value(metric, row['mean'])}" for row in rest[:MOST]]
    return [
        "With one seed each, nothing can be said about chance.",
        *how_tuned(facts, judgement),
        f"In this one sample {first['configuration']} is ahead with {wording.value(metric, first['mean'])} {metric} "
        f"({joined(behind, len(rest) - MOST)}).",
        "Run the same with several seeds, such as seed=0,1,2,3,4, to learn how sure that is.",
    ]


def how_tuned(facts: Facts, judgement: Judgement) -> list[str]:
    if len(judgement.tuned) == (judgement.ranking.n > 0).sum():
        return []
    return [f"Each {facts.contest} is taken at its best configuration by {facts.validation}; claims hold at that one."]


def decided(facts: Facts, judgement: Judgement) -> list[str]:
    """What the differences claim of the tuned configurations: the leader against all others, then the others."""
    metric, chosen = facts.metric, judgement.tuned
    among = among_tuned(judgement)
    claims = with_verdict(among.to_dict("records"), Verdict.BETTER)  # without a baseline, `a` is the better of each
    beats = Counter(pair["b"] for pair in claims)
    leader = judgement.against or min(chosen, key=lambda name: beats[name])  # the first of them in the ranking
    means = judgement.ranking.set_index("configuration")["mean"][chosen]
    best = leader == (means.idxmax() if facts.higher_is_better else means.idxmin())
    of_these = "Of these, " if how_tuned(facts, judgement) else ""
    first = "has the best mean of those with three seeds and no diverged run" if judgement.against else "comes first"
    opening = f"{of_these}{leader} {'has the best mean' if best else first}"  # of the first sentence, if none is beaten

    of_leader = among[(among.a == leader) | (among.b == leader)]
    pairs = turned(of_leader, of_leader.b == leader).to_dict("records")  # the leader is `a` of each
    beaten, equal, open_ = (
        with_verdict(pairs, verdict) for verdict in (Verdict.BETTER, Verdict.EQUIVALENT, Verdict.UNDECIDED)
    )
    said = how_tuned(facts, judgement)
    if beaten:
        said.append(f"{leader} is better in {metric} than {listed(beaten, metric, 'b')}.")
    if equal:
        lead = "" if beaten else f"{opening}, and "
        within = wording.difference(metric, judgement.margin, sign=False)
        said.append(f"{lead}{names(equal, 'b')} {be(equal)} equivalent to {leader} within {within}.")
    if open_:
        lead = "Against" if beaten or equal else f"{opening}, but against"
        said.append(f"{lead} {names(open_, 'b')} it is undecided: {chance(open_, metric)}.")
    for reason, untold in unsaid(pairs).items():
        if beaten or equal or open_:
            said.append(f"Nothing can be said of {leader} against {names(untold, 'b')}: {reason}.")
        else:
            reached = f"{opening} ({wording.value(metric, means[leader])} {metric})"
            said.append(f"{reached}, but nothing can be said of it against {names(untold, 'b')}: {reason}.")
    others = [f"{pair['a']} is better than {pair['b']}" for pair in claims if pair["a"] != leader]
    if others:
        more = [f"and {plural(len(others) - MOST, 'more pair')}"] if len(others) > MOST else []
        said.append(f"Also: {'; '.join(others[:MOST] + more)}.")
    said += plan(open_, judgement, metric)
    if not claims and (among.verdict == Verdict.UNDECIDED).any():
        said.append(detectable(judgement, float(among.detectable.median()), metric))
    return said


def detectable(judgement: Judgement, least: float, metric: str) -> str:
    """How large a difference (`least`) these numbers of seeds could find."""
    n = judgement.ranking.set_index("configuration").n[judgement.tuned]
    seeds = f"{n.min()} seeds" if n.min() == n.max() else f"{n.min()} to {n.max()} seeds"
    if metrics.metric(metric).is_fraction and least >= 1:
        return f"With {seeds} each and so much spread, no difference could have been found."
    size = wording.difference(metric, least, 1, sign=False)
    return f"With {seeds} each, a difference had to measure about {size} to be found."


def against_baseline(facts: Facts, judgement: Judgement) -> list[str]:
    """Each other tuned configuration, seen from the baseline."""
    metric, baseline, chosen = facts.metric, facts.baseline, judgement.tuned
    rows = judgement.differences.to_dict("records")
    pairs = [pair for pair in rows if pair["b"] == baseline and pair["a"] in chosen]
    said = how_tuned(facts, judgement)
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        if found := with_verdict(pairs, verdict):
            said.append(f"{listed(found, metric, 'a')} {be(found)} {verdict} in {metric} than the baseline {baseline}.")
    if equal := with_verdict(pairs, Verdict.EQUIVALENT):
        within = wording.difference(metric, judgement.margin, sign=False)
        said.append(f"{names(equal, 'a')} {be(equal)} equivalent to the baseline {baseline} within {within}.")
    if open_ := with_verdict(pairs, Verdict.UNDECIDED):
        said.append(f"{names(open_, 'a')} against the baseline {baseline} is undecided: {chance(open_, metric)}.")
    said += plan(open_, judgement, metric)
    for reason, untold in unsaid(pairs).items():
        said.append(f"Nothing can be said of {names(untold, 'a')} against the baseline {baseline}: {reason}.")
    return said


def by_network(facts: Facts, judgement: Judgement) -> list[str]:
    """Which optimizer is best for each network, and whether that depends on the network.

    The verdicts are those of the whole family, so that no question is asked twice. That one network has a claim and
    another has none shows no difference between the networks: only claims that contradict each other do.
    """
    if not {"model", "optimizer"} <= set(facts.by):
        return []
    model, optimizer = (
        dict(zip(facts.runs.configuration, map(str, facts.factors.varying[key]), strict=True))
        for key in ("model", "optimizer")
    )
    trained: dict[str, list[str]] = {}
    for name in judgement.tuned:
        trained.setdefault(model[name], []).append(optimizer[name])
    pairs: dict[str, list[Pair]] = {network: [] for network in trained}
    for pair in among_tuned(judgement).to_dict("records"):
        if model[pair["a"]] == model[pair["b"]]:
            pairs[model[pair["a"]]].append(pair | {"a": optimizer[pair["a"]], "b": optimizer[pair["b"]]})
    several = [network for network, its in trained.items() if len(its) > 1]
    if len(several) < 2 or any(len(pairs[name]) < math.comb(len(trained[name]), 2) for name in several):
        return []  # one network, or pairs that nobody asked about
    if not any(pair["verdict"] in (*DECIDED, Verdict.UNDECIDED) for name in several for pair in pairs[name]):
        return []  # one seed

    claims = {name: claims_of(pairs[name]) for name in several}
    outcomes: dict[str, list[str]] = {}
    for network, its in trained.items():
        outcomes.setdefault(outcome(its, pairs[network], claims.get(network, set())), []).append(network)
    parts = [f"{what} with {wording.names(those, MOST)}" for what, those in outcomes.items()]
    every = set().union(*claims.values())
    leaders = {tuple(unbeaten(trained[name], claims[name])) for name in several}
    if any((worse, better) in every for better, worse in every):
        depends = "So which optimizer is better depends on the network."
    elif len(leaders) == 1 and len(next(iter(leaders))) == 1 and len(several) == len(trained):
        depends = f"So {next(iter(leaders))[0]} is the best optimizer with each of these networks."
    else:
        depends = "Whether the best optimizer depends on the network stays open: no two of these claims contradict."
    return [f"By network: {'; '.join(parts)}. {depends}"]


def unbeaten(optimizers: Sequence[str], claims: Set[tuple[str, str]]) -> list[str]:
    beaten = {worse for _, worse in claims}
    return [name for name in optimizers if name not in beaten]


def outcome(optimizers: Sequence[str], pairs: Sequence[Pair], claims: Set[tuple[str, str]]) -> str:
    """`adam is best`, `adam or sgd is undecided`: what is claimed of the optimizers of one network."""
    if len(optimizers) == 1:
        return f"only {optimizers[0]} has a result"
    ahead = sorted(unbeaten(optimizers, claims))
    if len(ahead) == 1:
        return f"{ahead[0]} is best"
    among = {pair["verdict"] for pair in pairs if pair["a"] in ahead and pair["b"] in ahead}
    if among == {Verdict.EQUIVALENT}:
        return f"{wording.names(ahead, MOST)} are equivalent"
    if among & {Verdict.UNKNOWN, Verdict.WITHHELD}:
        return f"nothing can be said of {wording.names(ahead, MOST)}"
    return f"it is undecided between {wording.names(ahead, MOST)}"


def among_tuned(judgement: Judgement) -> pd.DataFrame:
    """The rows of `Judgement.differences` of which both configurations are tuned."""
    pairs = judgement.differences
    return pairs[pairs.a.isin(judgement.tuned) & pairs.b.isin(judgement.tuned)]


def with_verdict(pairs: Sequence[Pair], verdict: Verdict) -> list[Pair]:
    return [pair for pair in pairs if pair["verdict"] == verdict]


def unsaid(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Why nothing is said -> the pairs of which that is so."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair["reason"]:
            found.setdefault(pair["reason"], []).append(pair)
    return found


def be(pairs: Sequence[Pair]) -> str:
    return "is" if len(pairs) == 1 else "are"


def names(pairs: Sequence[Pair], side: str) -> str:
    return joined([pair[side] for pair in pairs[:MOST]], len(pairs) - MOST)


def listed(pairs: Sequence[Pair], metric: str, side: str) -> str:
    return joined([f"{pair[side]} ({effect(pair, metric)})" for pair in pairs[:MOST]], len(pairs) - MOST)


def effect(pair: Pair, metric: str) -> str:
    interval = wording.difference_interval(metric, pair["low"], pair["high"]).removesuffix(" points")
    p = wording.p_value(pair["p_adjusted"])
    p = p if pair["p_adjusted"] < 0.001 else f"= {p}"
    return f"{wording.difference(metric, pair['difference'])}, 95 % interval {interval}, p {p}"


def chance(pairs: Sequence[Pair], metric: str) -> str:
    """Why pairs are undecided, in words: `a difference of 0.40 points can be chance`."""
    gaps = sorted(abs(pair["difference"]) for pair in pairs)
    least, most = (wording.difference(metric, gap, sign=False) for gap in (gaps[0], gaps[-1]))
    if most == wording.difference(metric, 0, sign=False):
        return "the means are equal, but so few seeds cannot show that the configurations are"
    if len(pairs) == 1:
        return f"a difference of {most} can be chance"
    size = most if least == most else f"{least.removesuffix(' points')} to {most}"
    return f"differences of {size} can be chance"


def plan(pairs: Sequence[Pair], judgement: Judgement, metric: str) -> list[str]:
    """How many seeds would find a difference that matters."""
    if not pairs:
        return []
    low, high = (statistics.middle([pair[end] for pair in pairs]) for end in ("seeds_low", "seeds_high"))
    size = wording.difference(metric, judgement.gap, sign=False)
    return [f"To find a difference of {size} takes {wording.seeds(low, high)} seeds each."]


def fast(facts: Facts, judgement: Judgement) -> list[str]:
    """How much less time the fastest needs to the hardest target at which anything is claimed."""
    times = judgement.times
    claims = times[(times.unit == judgement.time_unit) & times.verdict.isin(CLAIMED)]
    if claims.empty:
        return []
    claims = claims[claims.target == claims.target.iloc[0]]
    leader = claims.a.value_counts(sort=True).index[0] if facts.baseline is None else None
    pairs = claims[claims.a == leader] if leader else claims
    level = wording.level(facts.validation, pairs.target.iloc[0], facts.higher_is_better, digits=None)
    within = " within the budget" if pairs.censored.any() else ""
    parts = [
        f"{pair.a} needs {wording.ratio(pair.ratio)} × the {pair.unit} of {pair.b}{within} "
        f"({wording.ratio_interval(pair.low, pair.high)})"
        for pair in pairs.head(MOST).itertuples()
    ]
    parts = [part.removeprefix(f"{leader} needs ") if k else part for k, part in enumerate(parts)]
    return [f"To {facts.validation} {level}, {joined(parts, len(pairs) - MOST)}."]


def troubles(judgement: Judgement) -> list[str]:
    """Divergence and failure are results too."""
    said = []
    for status in ("diverged", "failed"):
        rows = judgement.ranking[judgement.ranking[status] > 0].to_dict("records")
        if rows:
            parts = [f"{row['configuration']} in {out_of(row, status)}" for row in rows[:MOST]]
            if len(rows) > MOST:
                parts.append(f"and {plural(len(rows) - MOST, 'more configuration')}")
            said.append(f"{status.capitalize()}: {'; '.join(parts)}.")
    return said


def out_of(row: dict[str, Any], status: str) -> str:
    """`2 of 5 runs`, `all 3 runs`, `its only run`."""
    n, runs = row[status], sum(int(row[name]) for name in STATUSES)
    return f"{n} of {runs} runs" if n < runs else f"all {runs} runs" if runs > 1 else "its only run"
