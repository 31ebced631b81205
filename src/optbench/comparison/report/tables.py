"""The comparison as text: Markdown for an issue, LaTeX for a paper, CSV for further work, rows for the terminal."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optbench.comparison.analysis import Comparison
from optbench.records import metrics, wording
from optbench.records.files import write_csv

MOST_PAIRS = 30  # rows of the table in Markdown
NONE = "–"
TROUBLES = ("diverged", "failed", "interrupted", "running")


def problems(row: Any) -> str:
    """`1 diverged, 2 failed`: the runs of a row of the ranking that gave no result."""
    return ", ".join(f"{count:.0f} {status}" for status in TROUBLES if (count := getattr(row, status)))


# Markdown


def markdown(comparison: Comparison) -> str:
    """The report as text, to paste into an issue or a draft."""
    it = comparison
    parts = [
        f"# Comparison by {escaped(it.metric)}",
        *(f"> **Warning:** {escaped(sentence)}" for sentence in it.violations),
        " ".join(map(escaped, it.answer)),
        section("Ranking", ranking_table(it)),
        section("Differences", difference_table(it)),
        section("Time to target", target_table(it)),
        *(section(f"Sensitivity to {escaped(each.factor)}", listed(each.verdicts)) for each in it.sensitivities),
        section("Interaction", escaped(it.interaction.sentence) if it.interaction else ""),
        section("What was equal", ledger_table(it)),
        section("Notes", listed([*filter(None, [it.times_withheld]), *it.notes])),
        section("Left out", listed(it.skipped)),
        section("Source", listed(it.sources)),
    ]
    return writable("\n\n".join(filter(None, parts)) + "\n")


def ranking_table(comparison: Comparison) -> str:
    metric, validation = comparison.metric, comparison.validation
    rows = [
        [
            f"{row.rank:.0f}" if row.rank else NONE,
            named(row.configuration, comparison.baseline),
            wording.count(row.n),
            wording.value(metric, row.mean),
            wording.interval(metric, row.low, row.high),
            wording.value(validation, row.validation),
            NONE if math.isnan(row.best_epoch) else wording.number(round(row.best_epoch, 1)),
            problems(row),
        ]
        for row in comparison.ranking.itertuples()
    ]
    header = ["rank", "configuration", "n", metric, "95 % interval", validation, "epochs to best", "problems"]
    return table(header, rows, "rlrrrrrl")


def named(configuration: str, baseline: str | None) -> str:
    return f"{configuration} (baseline)" if configuration == baseline else configuration


def difference_table(comparison: Comparison) -> str:
    metric, pairs = comparison.metric, comparison.differences.head(MOST_PAIRS)
    rows = [
        [
            row.a,
            row.b,
            wording.count(row.n),
            wording.difference(metric, row.difference),
            difference_interval(metric, row.low, row.high),
            wording.p_value(row.p_holm),
            row.verdict,
            "> 1000" if math.isinf(row.seeds_needed) else wording.count(row.seeds_needed),
        ]
        for row in pairs.itertuples()
    ]
    header = ["A", "B", "common seeds", "A − B", "95 % interval", "p (Holm)", "verdict on A", "seeds needed"]
    of = len(comparison.differences)
    more = f"\n\nThe first {len(pairs)} of {of} pairs; statistics.csv has all." if of > len(pairs) else ""
    return table(header, rows, "llrrrrlr") + more


def difference_interval(metric: str, low: float, high: float) -> str:
    """`+0.12 to +2.30 points`; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return NONE
    return f"{wording.difference(metric, low).removesuffix(' points')} to {wording.difference(metric, high)}"


def target_table(comparison: Comparison) -> str:
    """A row a configuration, a column a target."""
    if comparison.targets.empty:
        return ""
    validation, upwards = comparison.validation, comparison.higher_is_better
    targets = sorted(set(comparison.targets["target"]), reverse=not upwards)
    rows = []
    for configuration, its in comparison.targets.groupby("configuration", sort=False):
        found = {row.target: reach(row) for row in its.itertuples()}
        rows.append([str(configuration), *(found.get(target, NONE) for target in targets)])
    header = [
        "configuration",
        *(f"{'≥' if upwards else '≤'} {wording.value(validation, target)}" for target in targets),
    ]
    note = f"Medians, by {escaped(validation)} at the end of an epoch. ∞: more than half of the runs missed it.\n\n"
    return note + table(header, rows, "l" + "r" * len(targets))


def reach(row: Any) -> str:
    """`1 234 steps, 21 s (2 of 3)`: when a target was reached, and by how many runs where it was not all."""
    when = "∞" if math.isinf(row.steps) else f"{wording.count(row.steps)} steps"
    if math.isfinite(row.seconds):
        when += f", {wording.seconds(row.seconds)}"
    return when if row.reached == row.n else f"{when} ({row.reached:.0f} of {row.n:.0f})"


def ledger_table(comparison: Comparison) -> str:
    equal = {True: "yes", False: "no", None: "unknown"}
    return table(["", "equal", "value"], [[c.item, equal[c.equal], c.text] for c in comparison.ledger], "lll")


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
    return re.sub(r"([\\`*_\[\]<>|$~#])", r"\\\1", one_line(text))


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
    metric, ranking = comparison.metric, comparison.ranking
    share, winner = metrics.metric(metric).is_fraction, best_claimed(comparison)
    sizes = sorted({int(n) for n in ranking["n"] if n})
    several = sizes[-1:] > [1]
    seeds = "–".join(str(n) for n in dict.fromkeys([*sizes[:1], *sizes[-1:]])) or "0"
    caption = f"{metrics.title(metric).capitalize()}{' (%)' * share}, mean over {seeds} seed{'s' * several}"
    caption += " with its 95 % confidence interval (Student's t)." * several or ": nothing can be said about chance."
    if winner:
        caption += " Bold: better than every other configuration (paired by seed, p < 0.05 after Holm's correction)."

    lines = []
    for row in ranking.itertuples():
        mean, low, high = (f"{100 * x:.2f}" if share else f"{x:.4f}" for x in (row.mean, row.low, row.high))
        texts = [
            f"{row.rank:.0f}" if row.rank else "--",
            tex(row.configuration),
            f"{row.n:.0f}",
            "--" if math.isnan(row.mean) else mean,
            "--" if math.isnan(row.low) else f"[{low}, {high}]",
            f"{row.diverged:.0f}",
        ]
        if row.configuration == winner:
            texts[1], texts[3] = rf"\textbf{{{texts[1]}}}", rf"\textbf{{{texts[3]}}}"
        lines.append(f"    {' & '.join(texts)} \\\\")
    rows = "\n".join(lines)
    made = f"python src/compare.py 'runs=[{','.join(comparison.sources)}]' metric={metric}"
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


def best_claimed(comparison: Comparison) -> str | None:
    """The configuration that is claimed to be better than every other one that has a result, if there is one."""
    pairs, results = comparison.differences, int((comparison.ranking["n"] > 0).sum())
    winners = [*pairs["a"][pairs["verdict"] == "better"], *pairs["b"][pairs["verdict"] == "worse"]]
    return next((name for name, won in Counter(winners).items() if won == results - 1), None)


def tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in one_line(text)).replace(r" \%", r"\,\%")


# CSV


def summary_csv(comparison: Comparison, path: Path) -> None:
    """A row a run, in full precision."""
    frame = comparison.runs
    write_csv(path, list(map(defused, frame.columns)), [cells(row) for row in frame.to_dict("records")])


def statistics_csv(comparison: Comparison, path: Path) -> None:
    """A row a figure: of a configuration, of a pair of them (`configuration` less `other`), of one at a target."""
    blocks = {
        "configuration": (comparison.ranking, {"configuration": "configuration"}),
        "pair": (comparison.differences, {"a": "configuration", "b": "other"}),
        "target": (comparison.targets, {"configuration": "configuration", "target": "target"}),
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
    return {defused(key): cell(value) for key, value in row.items()}


def cell(value: Any) -> Any:
    """As a spreadsheet takes it: nothing for nan, and no text that it would run as a formula."""
    if isinstance(value, str):
        return defused(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def defused(text: str) -> str:
    """An apostrophe before = + - @, which begin a formula; numbers are none. All line ends become one kind."""
    text = writable(re.sub(r"\r\n?", "\n", text))
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) and not reads_as_number(text) else text


def reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# the terminal


def terminal(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows for `terminal.show`, which prints None as a dash. Columns with nothing in them are left out."""
    metric, validation = comparison.metric, comparison.validation
    rows = [
        {
            "rank": row.rank or None,
            "configuration": one_line(named(row.configuration, comparison.baseline)),
            "n": row.n,
            metric: plus_minus(metric, row.mean, row.low, row.high),
            validation: wording.value(validation, row.validation),
            "best epoch": None if math.isnan(row.best_epoch) else wording.number(round(row.best_epoch, 1)),
            "an epoch": None if math.isnan(row.epoch_seconds) else wording.seconds(row.epoch_seconds),
            "problems": problems(row) or None,
        }
        for row in comparison.ranking.itertuples()
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
