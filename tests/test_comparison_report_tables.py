import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_comparison_report_figures import HOSTILE, made

from optbench.commands import terminal
from optbench.comparison.report import tables
from optbench.comparison.verdicts import Family
from sweeps import changed

ONE_LINE = " ".join(HOSTILE.split())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, as Markdown splits them: an escaped pipe is none."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_markdown_has_every_part_in_order():
    text = tables.markdown(made())
    assert re.findall(r"^#+ .*", text, re.M) == [
        "# Comparison by test/accuracy",
        "## Ranking",
        "## Differences",
        "## Time to target",
        "## Sensitivity to optimizer.lr",
        "## Interaction",
        "## What was equal",
        "## Notes",
        "## Left out",
        "## Source",
    ]
    assert text.index("> **Warning:**") < text.index("adam is better than") < text.index("## Ranking")
    assert "- adam: best at optimizer.lr=0.001." in text


def test_markdown_tables_keep_their_shape_with_any_name():
    found = markdown_tables(tables.markdown(made()))
    assert [len(table[0]) for table in found] == [8, 8, 2, 3]
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
    assert [len(table) for table in found] == [5, 3, 5, 5]


def test_markdown_numbers():
    ranking, differences, targets, ledger = markdown_tables(tables.markdown(made(baseline="sgd")))
    assert ranking[2] == ["1", "adam", "3", "61.00 %", "58.50 to 63.50 %", "61.00 %", "4", ""]
    assert ranking[3][1] == "sgd (baseline)"
    assert ranking[4][0] == "–" and ranking[4][-1] == "3 diverged"
    assert differences[2] == ["adam", "sgd", "3", "+5.00 points", "+1.00 to +9.00 points", "0.020", "better", "–"]
    assert targets[2] == ["adam", "1 234 steps, 21 s"]
    assert targets[4][1] == "∞ (0 of 3)"
    assert [row[1] for row in ledger[2:]] == ["yes", "no", "not proven"]


def test_markdown_shows_names_as_they_are():
    text = tables.markdown(made())
    assert r'\<script\>alert(1)\</script\> "x", \$a\_b\$ 100% ü\|∂ 中 \_é' in text
    assert not re.search(r"(?<!\\)<", text)


def test_markdown_shows_entities_as_they_are():
    assert tables.escaped("&lt;script&gt; a & b") == r"\&lt;script\&gt; a \& b"


def test_markdown_leaves_out_what_is_empty():
    it = made(sensitivities=[], interaction=None, violations=[], notes=[], skipped=[])
    it = changed(
        it,
        differences=it.judgement.differences.iloc[:0],
        targets=it.judgement.targets.iloc[:0],
        times_withheld="Two machines.",
    )
    text = tables.markdown(it)
    assert re.findall(r"^#+ (.*)", text, re.M)[1:] == ["Ranking", "What was equal", "Notes", "Source"]
    assert "- Two machines." in text
    assert "\n\n\n" not in text


def test_markdown_says_where_pairs_are_cut():
    text = tables.markdown(made(tuple(f"o{k}" for k in range(11))))
    assert len(markdown_tables(text)[1]) == 32
    assert "The first 30 of 45 pairs; statistics.csv has all." in text


def test_markdown_names_lower_targets_for_a_loss():
    it = made(metric="test/loss", validation="val/loss", higher_is_better=False)
    assert markdown_tables(tables.markdown(it))[2][0][1] == "≤ 0.4000"


def test_latex_rows():
    text = tables.latex(made())
    assert r"1 & \textbf{adam} & 3 & \textbf{61.00} & [58.50, 63.50] & 0 \\" in text
    assert r"2 & sgd & 3 & 56.00 & [53.50, 58.50] & 0 \\" in text
    assert r"''x'', \$a\_b\$ 100\% ü\textbar{}∂ 中 \_é & 0 & -- & -- & 3 \\" in text
    assert (
        r"\caption{Test accuracy (\%), mean over 3 seeds with its 95\,\% confidence interval (Student's t). Bold:"
        in text
    )
    assert text.startswith("% Needs \\usepackage{booktabs}")
    assert "% Made by OptBench: python src/compare.py 'runs=[logs/train/multiruns/2026]' metric=test/accuracy\n" in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}


def test_latex_is_bold_only_where_a_claim_stands_against_everyone():
    it = made(("adam", "sgd", "rmsprop", "lost"))
    for verdicts, bold in ((["better"] * 3, True), (["better", "undecided", "better"], False)):
        assert (
            r"\textbf" in tables.latex(changed(it, differences=it.judgement.differences.assign(verdict=verdicts)))
        ) is bold


def test_latex_does_not_count_a_winners_neighbours():
    """Two rates of adam, which are equal, and sgd, which both beat."""
    it = made(("adam,1", "adam,2", "sgd", "lost"))
    optimizers = {name: name.split(",")[0] for name in it.facts.hues}
    pairs = it.judgement.differences
    verdicts = ["better" if b == "sgd" else "undecided" for b in pairs.b]
    text = tables.latex(changed(it, contestants=optimizers, differences=pairs.assign(verdict=verdicts)))
    assert text.count(r"\textbf") == 4 and "Bold: better than every configuration of another optimizer" in text
    against = changed(it, family=Family.BASELINE, baseline="sgd", differences=pairs[pairs.b == "sgd"])
    assert "Bold: better than the baseline sgd (paired by seed, corrected p " in tables.latex(against)


def test_latex_says_that_one_seed_tells_nothing():
    it = made(seeds=1)
    none = it.judgement.differences.assign(verdict="unknown")
    text = tables.latex(changed(it, differences=none, ranking=it.judgement.ranking.assign(low=math.nan, high=math.nan)))
    assert r"mean over 1 seed: nothing can be said about chance.}" in text
    assert "1 & adam & 1 & 60.00 & -- & 0" in text


def test_latex_escapes_every_special_character():
    assert tables.tex("#$%&_{}~^\\<>|\n") == (
        r"\#\$\%\&\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}\textbar{}"
    )


def test_summary_csv_is_the_runs_in_full_precision(tmp_path):
    it = made()
    tables.summary_csv(it.facts, tmp_path / "summary.csv")
    rows = read(tmp_path / "summary.csv")
    assert list(rows[0]) == list(it.facts.runs.columns)
    assert [row["configuration"] for row in rows] == list(
        it.facts.runs["configuration"]
    )  # quotes, commas and line ends
    assert [float(row["seconds"]) for row in rows] == list(it.facts.runs["seconds"])
    assert float(rows[3]["metric"]) == it.facts.runs["metric"][3]
    assert rows[-1]["metric"] == ""
    assert rows[-1]["seconds"] == "inf"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+optimizer=a", "'+optimizer=a"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-0.5", "-0.5"),
        ("a=b", "a=b"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\udc80", "?"),
        ("  =1+1", "'  =1+1"),
        ("\n@SUM(A1)", "'\n@SUM(A1)"),
        ("\u00a0\ufeff-x", "'\u00a0\ufeff-x"),
        ("\tx", "'\tx"),
        ("\rx", "'\nx"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\uff0bx", "'\uff0bx"),
        ("\uff0dx", "'\uff0dx"),
        ("\uff20SUM(A1)", "'\uff20SUM(A1)"),
        (" +1e-3", " +1e-3"),
        (" a=b", " a=b"),
    ],
)
def test_a_spreadsheet_runs_no_text(tmp_path, text, written):
    it = made()
    tables.summary_csv(replace(it.facts, runs=it.facts.runs.assign(note=text, gap=-0.5)), tmp_path / "summary.csv")
    row = read(tmp_path / "summary.csv")[0]
    assert (row["note"], row["gap"]) == (written, "-0.5")


def test_a_spreadsheet_runs_no_name_of_a_configuration(tmp_path):
    it = made(("\uff1d1+1", "\t=HYPERLINK(1)", "lost"))
    tables.statistics_csv(it.judgement, tmp_path / "statistics.csv")
    rows = read(tmp_path / "statistics.csv")
    names = {row[key] for row in rows for key in ("configuration", "other")}
    assert names == {"'\uff1d1+1", "'\t=HYPERLINK(1)", "lost", ""}
    own = replace(it.facts, runs=it.facts.runs.assign(**{" =1+1": 1}))
    tables.summary_csv(own, tmp_path / "summary.csv")
    assert "' =1+1" in read(tmp_path / "summary.csv")[0]


def test_statistics_csv_is_one_tidy_table(tmp_path):
    it = made()
    tables.statistics_csv(it.judgement, tmp_path / "statistics.csv")
    rows = read(tmp_path / "statistics.csv")
    assert list(rows[0]) == ["kind", "configuration", "other", "target", "statistic", "value"]
    keys = [tuple(row[key] for key in list(rows[0])[:-1]) for row in rows]
    assert len(set(keys)) == len(keys)
    found = dict(zip(keys, (row["value"] for row in rows), strict=True))
    assert float(found["configuration", "sgd", "", "", "mean"]) == it.judgement.ranking["mean"][1]
    assert found["configuration", HOSTILE, "", "", "mean"] == ""
    assert float(found["pair", "adam", "sgd", "", "difference"]) == it.judgement.differences["difference"][0]
    assert found["pair", "adam", "sgd", "", "verdict"] == "better"
    assert found["target", HOSTILE, "", "0.4", "steps"] == "inf"
    cells = (
        it.judgement.ranking.size
        - len(it.judgement.ranking)
        + it.judgement.differences.size
        - 2 * len(it.judgement.differences)
    )
    assert len(rows) == cells + it.judgement.targets.size - 2 * len(it.judgement.targets)


def test_statistics_csv_reads_well_with_pandas(tmp_path):
    tables.statistics_csv(made().judgement, tmp_path / "statistics.csv")
    frame = pd.read_csv(tmp_path / "statistics.csv").query("kind == 'configuration' and statistic == 'mean'")
    assert frame["value"].astype(float).tolist()[:2] == pytest.approx([0.61, 0.56])


def test_terminal_rows(capsys):
    rows = tables.terminal(made(baseline="adam"))
    assert rows[0] == {
        "rank": 1,
        "configuration": "adam (baseline)",
        "n": 3,
        "test/accuracy": "61.00 ± 2.50 %",
        "val/accuracy": "61.00 %",
        "best epoch": "4",
        "an epoch": "7 s",
        "problems": None,
    }
    assert rows[2]["rank"] is None and rows[2]["problems"] == "3 diverged"
    terminal.show("Ranking", rows)
    assert f" {ONE_LINE} " in capsys.readouterr().out


def test_terminal_leaves_out_columns_with_nothing_in_them():
    it = made(("adam", "sgd"))
    ranking = it.judgement.ranking.assign(epoch_seconds=math.nan, diverged=0, low=math.nan, high=math.nan)
    rows = tables.terminal(changed(it, ranking=ranking))
    assert list(rows[0]) == ["rank", "configuration", "n", "test/accuracy", "val/accuracy", "best epoch"]
    assert rows[0]["test/accuracy"] == "61.00 %"


def test_everything_can_be_written(tmp_path):
    # a folder's name need not be unicode
    it = made(("adam", "\udc80"), sources=["logs/\udc80"])
    for text in (tables.markdown(it), tables.latex(it)):
        assert "?" in text
        io.BytesIO().write(text.encode())
