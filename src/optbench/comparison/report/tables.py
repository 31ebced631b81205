"""The comparison as text: Markdown for an issue, LaTeX for a paper, CSV for further work, rows for the terminal."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optbench.comparison.analysis import Comparison
from optbench.comparison.facts import Facts
from optbench.comparison.judgement import Judgement
from optbench.comparison.report.costs import COSTS, costs, shown
from optbench.comparison.tuning import sentence
from optbench.comparison.verdicts import Family, Verdict
from optbench.records import metrics, wording
from optbench.records.files import write_csv

MOST_PAIRS = 30  # rows of the table in Markdown
NONE = "–"
FASTER = {Verdict.BETTER: "faster", Verdict.WORSE: "slower"}
TROUBLES = ("diverged", "failed", "interrupted", "running")


def problems(row: Any) -> str:
    """`1 diverged, 2 failed`: the runs of a row of the ranking that gave no result."""
    return ", ".join(f"{count:.0f} {status}" for status in TROUBLES if (count := getattr(row, status)))


# Markdown


def markdown(comparison: Comparison) -> str:
    """The report as text, to paste into an issue or a draft."""
    facts, judgement, words = comparison.facts, comparison.judgement, comparison.words
    sensitivities = zip(judgement.sensitivities, words.sensitivities, strict=True)
    parts = [
        f"# Comparison by {escaped(facts.metric)}",
        *(f"> **Warning:** {escaped(sentence)}" for sentence in words.violations),
        " ".join(map(escaped, words.answer)),
        section("Ranking", ranking_table(facts, judgement)),
        section("Differences", difference_table(facts, judgement, words.family)),
        section("Time to target", target_table(facts, judgement)),
        section("Ratios of times", time_table(facts, judgement)),
        section("Cost", cost_table(facts, judgement)),
        *(section(f"Sensitivity to {escaped(item.factor)}", listed(said)) for item, said in sensitivities),
        section("Interaction", escaped(words.interaction)),
        section("Tuning", tuning_list(comparison)),
        section("Importance", escaped(words.importance)),
        section("What was equal", ledger_table(judgement)),
        section("Notes", listed([*filter(None, [words.times_withheld]), *words.notes])),
        section("Left out", listed(words.skipped)),
        section("Source", listed(facts.sources)),
    ]
    return writable("\n\n".join(filter(None, parts)) + "\n")


def tuning_list(comparison: Comparison) -> str:
    tuning = comparison.tuning
    return listed([sentence(search, tuning) for search in tuning.searches]) if tuning else ""


def ranking_table(facts: Facts, judgement: Judgement) -> str:
    metric, validation = facts.metric, facts.validation
    rows = [
        [
            f"{row.rank:.0f}" if row.rank else NONE,
            named(row.configuration, facts.baseline),
            wording.count(row.n),
            wording.value(metric, row.mean),
            wording.interval(metric, row.low, row.high),
            wording.value(validation, row.validation),
            NONE if math.isnan(row.best_epoch) else wording.number(round(row.best_epoch, 1)),
            problems(row),
        ]
        for row in judgement.ranking.itertuples()
    ]
    header = ["rank", "configuration", "n", metric, "95 % interval", validation, "epochs to best", "problems"]
    return table(header, rows, "rlrrrrrl")


def named(configuration: str, baseline: str | None) -> str:
    return f"{configuration} (baseline)" if configuration == baseline else configuration


def difference_table(facts: Facts, judgement: Judgement, family: str) -> str:
    metric, pairs = facts.metric, judgement.differences.head(MOST_PAIRS)
    rows = [
        [
            row.a,
            row.b,
            wording.count(row.n),
            wording.difference(metric, row.difference),
            wording.difference_interval(metric, row.low, row.high),
            wording.p_value(row.p_adjusted),
            row.verdict,
            wording.seeds(row.seeds_low, row.seeds_high),
        ]
        for row in pairs.itertuples()
    ]
    header = [
        "A",
        "B",
        "common seeds",
        "A − B",
        "95 % interval",
        "p (adjusted)",
        "verdict on A",
        f"seeds for {wording.difference(metric, judgement.gap, sign=False)}",
    ]
    of = len(judgement.differences)
    more = f"\n\nThe first {len(pairs)} of {of} pairs; statistics.csv has all." if of > len(pairs) else ""
    return f"{escaped(family)}\n\n{table(header, rows, 'llrrrrlr')}{more}" if rows else ""


def target_table(facts: Facts, judgement: Judgement) -> str:
    """One row per configuration, one column per target."""
    if judgement.targets.empty:
        return ""
    validation, upwards = facts.validation, facts.higher_is_better
    targets = sorted(set(judgement.targets["target"]), reverse=not upwards)
    rows = []
    for configuration, its in judgement.targets.groupby("configuration", sort=False):
        found = {row.target: reach(row) for row in its.itertuples()}
        rows.append([str(configuration), *(found.get(target, NONE) for target in targets)])
    header = ["configuration", *(wording.level(validation, target, upwards) for target in targets)]
    note = f"Medians, by {escaped(validation)} at the end of an epoch. ∞: more than half of the runs missed it.\n\n"
    return note + table(header, rows, "l" + "r" * len(targets))


RATIOS = (
    "Paired by seed. The 95 % intervals hold for all pairs and targets at once; with one target (target=…) they are "
    "narrower. Within the budget: a run missed the target, so the true ratio is farther from 1."
)


def time_table(facts: Facts, judgement: Judgement) -> str:
    rows = [
        [
            wording.level(facts.validation, row.target, facts.higher_is_better),
            row.a,
            row.b,
            wording.count(row.n),
            f"{wording.ratio(row.ratio)} × the {row.unit}{' within the budget' * row.censored}",
            wording.ratio_interval(row.low, row.high),
            wording.p_value(row.p_adjusted),
            FASTER.get(row.verdict, row.verdict),
        ]
        for row in judgement.times.head(MOST_PAIRS).itertuples()
    ]
    header = ["to", "A", "B", "common seeds", "A / B", "95 % interval", "p (adjusted)", "verdict on A"]
    of = len(judgement.times)
    more = f"\n\nThe first {MOST_PAIRS} of {of} rows; statistics.csv has all." if of > MOST_PAIRS else ""
    return f"{RATIOS}\n\n{table(header, rows, 'lllrrrrl')}{more}" if rows else ""


def cost_table(facts: Facts, judgement: Judgement) -> str:
    found = costs(facts, judgement)
    if not found:
        return ""
    results = shown(judgement)
    rows = [
        [
            row.configuration,
            wording.value(facts.metric, row.mean),
            wording.interval(facts.metric, row.low, row.high),
            *(COSTS[it.column][1](getattr(row, it.column)) for it in found),
        ]
        for row in results.itertuples()
    ]
    header = ["configuration", facts.metric, "95 % interval", *(it.title for it in found)]
    return table(header, rows, "l" + "r" * (len(header) - 1))


def reach(row: Any) -> str:
    """`1 234 steps, 21 s (2 of 3)`: when a target was reached, and by how many runs where it was not all."""
    when = "∞" if math.isinf(row.steps) else f"{wording.count(row.steps)} steps"
    if math.isfinite(row.seconds):
        when += f", {wording.seconds(row.seconds)}"
    return when if row.reached == row.n else f"{when} ({row.reached:.0f} of {row.n:.0f})"


def ledger_table(judgement: Judgement) -> str:
    equal = {True: "yes", False: "no", None: "not proven"}
    return table(["", "equal", "value"], [[c.item, equal[c.equal], c.text] for c in judgement.ledger], "lll")


def section(title: str, body: str) -> str:
    """Nothing where there is nothing to say."""
    return f"## {title}\n\n{body}" if body else ""


def listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """`align`: `l` or `r` for each column."""
    if not rows:
        return ""
    rules = [{"l": ":--", "r": "--:"}[side] for side in align]
    texts = [[escaped(cell) for cell in row] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [texts[0], rules, *texts[1:]])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: in one line, no markup, no HTML, no formula."""
    return re.sub(r"([\\`*_\[\]<>|$~#&])", r"\\\1", one_line(text))


# LaTeX

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "{}#$%&_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "…": r"\dots{}",
    "−": "$-$",
}


def latex(comparison: Comparison) -> str:
    """A table float with booktabs' rules."""
    facts, ranking = comparison.facts, comparison.judgement.ranking
    metric, (winners, rivals) = facts.metric, best_claimed(facts, comparison.judgement)
    fraction = metrics.metric(metric).is_fraction
    sizes = sorted({int(n) for n in ranking["n"] if n})
    several = sizes[-1:] > [1]
    seeds = "–".join(str(n) for n in dict.fromkeys([*sizes[:1], *sizes[-1:]])) or "0"
    caption = f"{metrics.title(metric).capitalize()}{' (%)' * fraction}, mean over {seeds} seed{'s' * several}"
    caption += " with its 95 % confidence interval (Student's t)." * several or ": nothing can be said about chance."
    if winners:
        caption += f" Bold: better than {rivals} (paired by seed, corrected p < 0.05)."

    lines = []
    for row in ranking.itertuples():
        mean, low, high = (f"{100 * x:.2f}" if fraction else f"{x:.4f}" for x in (row.mean, row.low, row.high))
        texts = [
            f"{row.rank:.0f}" if row.rank else "--",
            tex(row.configuration),
            f"{row.n:.0f}",
            "--" if math.isnan(row.mean) else mean,
            "--" if math.isnan(row.low) else f"[{low}, {high}]",
            f"{row.diverged:.0f}",
        ]
        if row.configuration in winners:
            texts[1], texts[3] = rf"\textbf{{{texts[1]}}}", rf"\textbf{{{texts[3]}}}"
        lines.append(f"    {' & '.join(texts)} \\\\")
    rows = "\n".join(lines)
    made = f"python src/compare.py 'runs=[{','.join(facts.sources)}]' metric={metric}"
    return writable(
        rf"""% Needs \usepackage{{booktabs}}; letters that pdfLaTeX lacks need LuaLaTeX.
% Made by OptBench: {one_line(made)}
\begin{{table}}[tb]
  \centering
  \caption{{{tex(caption)}}}
  \begin{{tabular}}{{rlrrrr}}
    \toprule
    Rank & Configuration & Seeds & Mean & 95\,\% interval & Diverged \\
    \midrule
{rows}
    \bottomrule
  \end{{tabular}}
\end{{table}}
"""
    )


def best_claimed(facts: Facts, judgement: Judgement) -> tuple[list[str], str]:
    """The configurations that are claimed better than all of their rivals, and who those are.

    The other rates of its own optimizer are no rivals: a good neighbour takes nothing from a winner.
    """
    pairs, ranking = judgement.differences, judgement.ranking
    won = {(pair.a, pair.b) for pair in pairs.itertuples() if pair.verdict == Verdict.BETTER}
    won |= {(pair.b, pair.a) for pair in pairs.itertuples() if pair.verdict == Verdict.WORSE}
    compared = list(ranking.configuration[(ranking["rank"] > 0) & (ranking["n"] > 0)])
    if judgement.family is Family.BASELINE:
        rivals = {name: [facts.baseline] for name in compared if name != facts.baseline}
        words = f"the baseline {facts.baseline}"
    elif judgement.family is Family.LEADER:
        rivals = {str(judgement.against): [name for name in compared if name != judgement.against]}
        words = "every other configuration"
    else:
        of = facts.contestants
        rivals = {name: [other for other in compared if of[other] != of[name]] for name in compared}
        alone = len({of[name] for name in compared}) == len(compared)
        words = "every other configuration" if alone else f"every configuration of another {facts.contest}"
        words = f"the best of every other {facts.contest}" if judgement.family is Family.WINNERS else words
    bold = [name for name, its in rivals.items() if its and all((name, other) in won for other in its)]
    return bold, words


def tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in one_line(text)).replace(r" \%", r"\,\%")


# CSV


def summary_csv(facts: Facts, path: Path) -> None:
    """One row per run, in full precision."""
    frame = facts.runs
    write_csv(path, list(map(neutralised, frame.columns)), [cells(row) for row in frame.to_dict("records")])


def statistics_csv(judgement: Judgement, path: Path) -> None:
    """One row per number: of a configuration, of a pair of them (`configuration` less `other`), of one at a target."""
    blocks = {
        "configuration": (judgement.ranking, {"configuration": "configuration"}),
        "pair": (judgement.differences, {"a": "configuration", "b": "other"}),
        "target": (judgement.targets, {"configuration": "configuration", "target": "target"}),
        **{
            f"ratio of {unit}": (its.drop(columns="unit"), {"a": "configuration", "b": "other", "target": "target"})
            for unit, its in judgement.times.groupby("unit", sort=False)
        },
    }
    rows = [
        cells({"kind": kind, **{keys[key]: row[key] for key in keys}, "statistic": name, "value": value})
        for kind, (frame, keys) in blocks.items()
        for row in frame.to_dict("records")
        for name, value in row.items()
        if name not in keys
    ]
    write_csv(path, ["kind", "configuration", "other", "target", "statistic", "value"], rows)


def cells(row: dict[Any, Any]) -> dict[str, Any]:
    return {neutralised(key): cell(value) for key, value in row.items()}


def cell(value: Any) -> Any:
    """As a spreadsheet takes it: nothing for nan, and no text that it would run as a formula."""
    if isinstance(value, str):
        return neutralised(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


# What begins a formula: = + - @ and their full-width forms, after any space that a spreadsheet strips (three kinds are
# no \s). A tab or a line end at the start can move text into another cell.
FORMULA = re.compile(r"[\s\u200b\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n]")


def neutralised(text: str) -> str:
    """An apostrophe before what a spreadsheet would run; numbers are none of it. All line ends become one kind."""
    text = writable(re.sub(r"\r\n?", "\n", text))
    return f"'{text}" if FORMULA.match(text) and not reads_as_number(text) else text


def reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# the terminal


def terminal(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows for `terminal.show`, which prints None as a dash. Columns with nothing in them are left out."""
    facts, ranking = comparison.facts, comparison.judgement.ranking
    metric, validation = facts.metric, facts.validation
    rows = [
        {
            "rank": row.rank or None,
            "configuration": one_line(named(row.configuration, facts.baseline)),
            "n": row.n,
            metric: plus_minus(metric, row.mean, row.low, row.high),
            validation: wording.value(validation, row.validation),
            "best epoch": None if math.isnan(row.best_epoch) else wording.number(round(row.best_epoch, 1)),
            "an epoch": None if math.isnan(row.epoch_seconds) else wording.seconds(row.epoch_seconds),
            "problems": problems(row) or None,
        }
        for row in ranking.itertuples()
    ]
    return [{key: value for key, value in row.items() if any(other[key] is not None for other in rows)} for row in rows]


def plus_minus(metric: str, mean: float, low: float, high: float) -> str:
    """`54.71 ± 0.60 %`: the mean and half its interval; the mean alone where it has none."""
    if math.isnan(low) or math.isnan(high):
        return wording.value(metric, mean)
    half = wording.value(metric, (high - low) / 2)
    return f"{wording.value(metric, mean).removesuffix(' %')} ± {half}"


# text


def one_line(text: str) -> str:
    return " ".join(text.split())


def writable(text: str) -> str:
    """A folder's name need not be unicode: what cannot be written becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
