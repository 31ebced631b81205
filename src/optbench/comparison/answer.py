"""The answer in plain words: who is ahead, by how much, how sure that is, and what these seeds cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optbench.records import metrics, wording
from optbench.records.record import STATUSES
from optbench.records.wording import joined, plural

if TYPE_CHECKING:
    from optbench.comparison.analysis import Comparison

MOST = 4  # configurations named in one sentence


def answer(comparison: Comparison) -> list[str]:
    """One to seven sentences."""
    ranking = comparison.ranking
    results = ranking[ranking.n > 0]
    said: list[str] = []
    if results.empty:
        counts = comparison.runs.status.value_counts()
        ended = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
        yet = " yet" if "running" in counts else ""
        said.append(f"No run has a result{yet} ({ended}), so nothing can be said.")
    elif len(results) == 1:
        said += alone(comparison, results.iloc[0].to_dict())
    elif results.n.max() == 1:
        said += one_seed(comparison)
    elif comparison.baseline is not None:
        said += against_baseline(comparison)
    else:
        said += decided(comparison)
    said += troubles(comparison)
    if edges := [
        f"{s.factor} for {joined(s.edges[:MOST], len(s.edges) - MOST)}" if any(s.edges) else s.factor
        for s in comparison.sensitivities
        if s.edges
    ]:
        said.append(
            f"Provisional: the best value lies on the edge of what was tried ({'; '.join(edges)}); widen the range."
        )
    return said


def alone(comparison: Comparison, row: dict[str, Any]) -> list[str]:
    metric = comparison.metric
    who = row["configuration"] if comparison.by else "This configuration"
    reached = f"{who} reaches {wording.value(metric, row['mean'])} {metric}"
    how_sure = (
        "with its only seed; nothing can be said about chance."
        if row["n"] == 1
        else f"over {row['n']} seeds (95 % interval {wording.interval(metric, row['low'], row['high'])})."
    )
    others = len(comparison.ranking) > 1
    return [
        f"{reached} {how_sure}",
        "No other configuration has a result that counts." if others else "There is nothing to compare it with.",
    ]


def one_seed(comparison: Comparison) -> list[str]:
    """With one seed there is an order, and no word about chance."""
    metric, leaders = comparison.metric, tuned(comparison)
    first, *rest = [row for row in comparison.ranking.to_dict("records") if row["configuration"] in leaders]
    behind = [f"{row['configuration']} {wording.value(metric, row['mean'])}" for row in rest[:MOST]]
    return [
        "With one seed each, nothing can be said about chance.",
        *how_tuned(comparison),
        f"In this one sample {first['configuration']} is ahead with {wording.value(metric, first['mean'])} {metric} "
        f"({joined(behind, len(rest) - MOST)}).",
        "Run the same with several seeds, such as seed=0,1,2,3,4, to learn how sure that is.",
    ]


def tuned(comparison: Comparison) -> list[str]:
    """Of the configurations of each hue (an optimizer), the one that validation chooses. Of one hue: all."""
    ranking = comparison.ranking[comparison.ranking.n > 0]
    sign = 1 if comparison.higher_is_better else -1
    hue = ranking.configuration.map(comparison.hues)
    if hue.nunique() < 2:
        return list(ranking.configuration)
    chosen = (sign * ranking.validation).where(ranking.diverged == 0).fillna(-math.inf).groupby(hue).idxmax()
    return list(ranking.configuration[sorted(chosen)])


def how_tuned(comparison: Comparison) -> list[str]:
    if len(tuned(comparison)) == (comparison.ranking.n > 0).sum():
        return []
    return [f"Each optimizer is taken at its best configuration by {comparison.validation}."]


def decided(comparison: Comparison) -> list[str]:
    """What the differences claim of the tuned configurations: the leader against all others, then the others."""
    metric, chosen = comparison.metric, tuned(comparison)
    among = comparison.differences[comparison.differences.a.isin(chosen) & comparison.differences.b.isin(chosen)]
    pairs = among.to_dict("records")  # without a baseline, `a` is the better of each
    claims = [pair for pair in pairs if pair["verdict"] == "better"]
    leader = min(chosen, key=lambda name: sum(pair["b"] == name for pair in claims))  # the first of them in the ranking
    means = comparison.ranking.set_index("configuration")["mean"][chosen]
    best = leader == (means.idxmax() if comparison.higher_is_better else means.idxmin())
    of_these = "Of these, " if how_tuned(comparison) else ""
    opening = f"{of_these}{leader} {'has the best mean' if best else 'comes first'}"
    mine = [pair if pair["a"] == leader else turned(pair) for pair in pairs if leader in (pair["a"], pair["b"])]
    beaten = [pair for pair in mine if pair["verdict"] == "better"]
    tied = [pair for pair in mine if pair["verdict"] == "tie"]
    said = how_tuned(comparison)
    if beaten:
        said.append(f"{leader} is better in {metric} than {listed(beaten, metric, 'b')}.")
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        but = "But" if beaten else f"{opening}, but"
        said.append(f"{but} {names(tied, 'b')} {verb} tied with it: {chance(tied, metric)}.")
    for reason, untold in unsaid(comparison, mine).items():
        if beaten or tied:
            said.append(f"Nothing can be said of {leader} against {names(untold, 'b')}: {reason}.")
        else:
            reached = f"{opening} ({wording.value(metric, means[leader])} {metric})"
            said.append(f"{reached}, but nothing can be said of it against {names(untold, 'b')}: {reason}.")
    others = [f"{pair['a']} is better than {pair['b']}" for pair in claims if pair["a"] != leader]
    if others:
        more = [f"and {plural(len(others) - MOST, 'more pair')}"] if len(others) > MOST else []
        said.append(f"Also: {'; '.join(others[:MOST] + more)}.")
    if not claims and (among.verdict == "tie").any():
        n = comparison.ranking.set_index("configuration").n[chosen]
        seeds = f"{n.min()} seeds" if n.min() == n.max() else f"{n.min()} to {n.max()} seeds"
        least = float(among.detectable.median())
        size = wording.difference(metric, least, 1, sign=False)
        if metrics.metric(metric).is_fraction and least >= 1:
            said.append(f"With {seeds} each and so much spread, no difference could have been found.")
        else:
            said.append(f"With {seeds} each, a difference had to measure about {size} to be found.")
    return said


def against_baseline(comparison: Comparison) -> list[str]:
    """Each other tuned configuration, seen from the baseline."""
    metric, baseline, chosen = comparison.metric, comparison.baseline, tuned(comparison)
    rows = comparison.differences.to_dict("records")
    pairs = [pair for pair in rows if pair["b"] == baseline and pair["a"] in chosen]
    said = how_tuned(comparison)
    for verdict in ("better", "worse"):
        if found := [pair for pair in pairs if pair["verdict"] == verdict]:
            verb = "is" if len(found) == 1 else "are"
            said.append(f"{listed(found, metric, 'a')} {verb} {verdict} in {metric} than the baseline {baseline}.")
    if tied := [pair for pair in pairs if pair["verdict"] == "tie"]:
        verb = "is" if len(tied) == 1 else "are"
        said.append(f"{names(tied, 'a')} {verb} tied with the baseline {baseline}: {chance(tied, metric)}.")
    for reason, untold in unsaid(comparison, pairs).items():
        said.append(f"Nothing can be said of {names(untold, 'a')} against the baseline {baseline}: {reason}.")
    return said


def turned(pair: dict[str, Any]) -> dict[str, Any]:
    """A pair from the other side. What is claimed of it stays with the side that is better."""
    verdict = {"better": "worse", "worse": "better"}.get(pair["verdict"], pair["verdict"])
    sides = {"a": pair["b"], "b": pair["a"], "difference": -pair["difference"]}
    return pair | sides | {"low": -pair["high"], "high": -pair["low"], "verdict": verdict}


def unsaid(comparison: Comparison, pairs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Why -> the pairs of which nothing is claimed, not even that they are tied."""
    found: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs:
        if pair["verdict"] not in ("unknown", "withheld"):
            continue
        if pair["n"] < 2:
            why = "fewer than two of their runs share a seed and a version of the code"
        elif pair["verdict"] == "unknown":
            why = "their difference is the same at every seed, so chance cannot be judged"
        else:
            ahead = pair["a"] if (pair["difference"] > 0) == comparison.higher_is_better else pair["b"]
            why = f"{ahead} looks better, but more of its runs diverged"
        found.setdefault(why, []).append(pair)
    return found


def names(pairs: Sequence[dict[str, Any]], side: str) -> str:
    return joined([pair[side] for pair in pairs[:MOST]], len(pairs) - MOST)


def listed(pairs: Sequence[dict[str, Any]], metric: str, side: str) -> str:
    return joined([f"{pair[side]} ({effect(pair, metric)})" for pair in pairs[:MOST]], len(pairs) - MOST)


def effect(pair: dict[str, Any], metric: str) -> str:
    low, high = (wording.difference(metric, pair[key]).removesuffix(" points") for key in ("low", "high"))
    p = wording.p_value(pair["p_holm"])
    interval = f"95 % interval {low} to {high}"
    return f"{wording.difference(metric, pair['difference'])}, {interval}, p {p if p.startswith('<') else '= ' + p}"


def chance(pairs: Sequence[dict[str, Any]], metric: str) -> str:
    """What a tie means, and how many seeds would end it."""
    gaps = sorted(abs(pair["difference"]) for pair in pairs)
    sizes = [wording.difference(metric, gap, sign=False) for gap in (gaps[0], gaps[-1])]
    needed = sorted(pair["seeds_needed"] for pair in pairs)
    seeds = [f"about {n:.0f}" if math.isfinite(n) else "over 1000" for n in (needed[0], needed[-1])]
    if len(pairs) == 1:
        return f"a difference of {sizes[0]} can be chance, and it would take {seeds[0]} seeds to tell them apart"
    size = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0].removesuffix(' points')} to {sizes[1]}"
    needs = seeds[0] if seeds[0] == seeds[1] else f"{seeds[0]} to {seeds[1].removeprefix('about ')}"
    return f"differences of {size} can be chance, and it would take {needs} seeds to tell"


def troubles(comparison: Comparison) -> list[str]:
    """Divergence and failure are results too."""
    said = []
    for status in ("diverged", "failed"):
        rows = comparison.ranking[comparison.ranking[status] > 0].to_dict("records")
        if rows:
            parts = [f"{row['configuration']} in {share(row, status)}" for row in rows[:MOST]]
            if len(rows) > MOST:
                parts.append(f"and {plural(len(rows) - MOST, 'more configuration')}")
            said.append(f"{status.capitalize()}: {'; '.join(parts)}.")
    return said


def share(row: dict[str, Any], status: str) -> str:
    """`2 of 5 runs`, `all 3 runs`, `its only run`."""
    n, runs = row[status], sum(int(row[name]) for name in STATUSES)
    return f"{n} of {runs} runs" if n < runs else f"all {runs} runs" if runs > 1 else "its only run"
