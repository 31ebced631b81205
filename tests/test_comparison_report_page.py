"""The comparison page: what stands in it, that nothing a name says is executed, and that a browser draws it."""

import json
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from math import inf, nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from optbench.comparison.analysis import Comparison
from optbench.comparison.factors import Factors
from optbench.comparison.facts import Facts
from optbench.comparison.fairness import Claim, Item
from optbench.comparison.importance import Combinations, combine, importance
from optbench.comparison.judgement import Judgement
from optbench.comparison.report import page_tables
from optbench.comparison.report.page import render
from optbench.comparison.report.page_figures import factor_axis, parallel_figure
from optbench.comparison.report.page_tables import settings_table
from optbench.comparison.sensitivity import Interaction, Optimum, Sensitivity
from optbench.comparison.times import TIMES
from optbench.comparison.verdicts import Family
from optbench.comparison.words import Words
from optbench.records.tuning import Edge
from sweeps import changed

HOSTILE = '<script>alert(1)</script> "x", ü <b>&amp;</b> \u2028 </script><img src=x onerror=alert(2)>'


def make(configurations: list[str], seeds: int = 3, epochs: int = 6) -> Comparison:
    """Made-up numbers for every part of the page; the last configuration diverges at every seed."""
    random = np.random.default_rng(0)
    count = len(configurations)
    best = np.linspace(0.6, 0.4, count)
    runs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    for c, name in enumerate(configurations):
        for seed in range(seeds):
            diverged = c == count - 1
            result = best[c] + 0.01 * random.standard_normal()
            row = len(runs)
            runs.append(
                {
                    "run": f"{row}_{name[:20]}",
                    "folder": f"logs/train/multiruns/sweep/{row}",
                    "configuration": name,
                    "seed": seed,
                    "status": "diverged" if diverged else "completed",
                    "used": not diverged,
                    "note": "",
                    "overrides": f"optimizer.lr=0.01 name='{name}' seed={seed}",
                    "command": f"python src/train.py optimizer.lr=0.01 'name=\"{name}\"' seed={seed}",
                    "error": f"loss is nan {HOSTILE}" if diverged else "",
                    "metric": nan if diverged else result,
                    "validation": nan if diverged else result + 0.01,
                    "epochs": epochs,
                    "seconds": nan if diverged else 12.5 * (c + 1) + seed,
                }
            )
            epoch = np.arange(1, epochs + 1)
            rise = 1 - np.exp(-4 * epoch / epochs)
            loss = (0.3 + 30 * np.exp(-8 * epoch / epochs)) * (1 + 0.05 * random.standard_normal(epochs))
            if diverged:
                loss[-1] = inf
            values = {
                "val/accuracy": result * rise,
                "val/loss": loss,
                "train/loss": loss * 0.9,
                "lr": 0.001 * 0.9**epoch,
            }
            axes = {"row": row, "configuration": name, "seed": seed, "epoch": epoch, "step": 100 * epoch}
            curves.append(pd.DataFrame({**axes, "seconds": 2.0 * epoch * (c + 1), **values}))
    n = np.array([seeds] * (count - 1) + [0])
    mean = np.where(n > 0, best, nan)
    ranking = pd.DataFrame(
        {
            "configuration": configurations,
            "rank": [1, *range(1, count - 1), 0],
            "n": n,
            "mean": mean,
            "low": mean - 0.02,
            "high": mean + 0.02,
            "sd": 0.01,
            "iqm": mean,
            "iqm_low": nan,
            "iqm_high": nan,
            "validation": mean + 0.01,
            "gap": 0.1,
            "best_epoch": 5.0,
            "best_seconds": 10.0,
            "epoch_seconds": 2.0,
            "seconds": 12.0,
            "parameters": nan,
            "memory_mb": nan,
            "completed": n,
            "diverged": seeds - n,
            "failed": 0,
            "interrupted": 0,
            "running": 0,
        }
    )
    pairs = [(a, b) for k, a in enumerate(configurations[:-1]) for b in configurations[k + 1 : -1]]
    differences = pd.DataFrame(pairs, columns=["a", "b"]).assign(
        n=seeds, difference=0.03, low=0.01, high=0.05, improvement=1.0, p=0.0004, p_adjusted=0.012, p_wilcoxon=nan
    )
    differences["detectable"], differences["verdict"] = 0.02, "better"
    differences["seeds_low"] = differences["seeds_high"] = nan
    differences.loc[0, ["verdict", "seeds_low", "seeds_high", "p_adjusted"]] = ["undecided", 40, inf, 0.4]
    targets = pd.DataFrame(
        [
            (name, target, seeds - k, seeds, *((inf,) * 3 if k == 2 else (4.0, 1560.0, 12.3)))
            for name in configurations
            for k, target in enumerate((0.4, 0.5, 0.55))
        ],
        columns=["configuration", "target", "reached", "n", "epochs", "steps", "seconds"],
    )
    profile = pd.DataFrame(
        [
            (name, r, s - c / count / 2)
            for c, name in enumerate(configurations)
            for r, s in ((1, 0.5), (2, 0.8), (5, 1))
        ],
        columns=["configuration", "ratio", "fraction"],
    )
    points = pd.DataFrame({"line": ["adam"] * 3 + [HOSTILE] * 3, "x": [0.001, 0.01, 0.1] * 2, "n": [3, 3, 0] * 2})
    points["mean"] = [0.5, 0.55, nan, 0.52, 0.41, nan]
    points = points.assign(low=points["mean"] - 0.02, high=points["mean"] + 0.02, chosen_by=points["mean"])
    points["diverged"], points["best"] = [0, 0, 3] * 2, [False, True, False, True, False, False]
    facts = Facts(
        sources=["logs/train/multiruns/a & <b>"],
        metric="test/accuracy",
        validation="val/accuracy",
        higher_is_better=True,
        by=["optimizer", "optimizer.lr"],
        averaged=["data.augmentation"],
        baseline=None,
        factors=Factors(
            ["optimizer"],
            {
                "optimizer": [run["configuration"].split(",")[0] for run in runs],
                "data.augmentation": [True] * len(runs),
            },
            {"optimizer.momentum": [None if run["configuration"].startswith("adam") else 0.9 for run in runs]},
        ),
        hues={name: name.split(",")[0] for name in configurations},
        contestants={name: name.split(",")[0] for name in configurations},
        records=[],
        runs=pd.DataFrame(runs),
        left_out={},
        other_data={},
        damaged={},
        devices={"a CPU": len(runs)},
        curves=pd.concat(curves, ignore_index=True),
        curve_metrics=["val/accuracy", "val/loss", "train/loss", "lr"],
    )
    combined = grid_of_three()
    optima = [
        Optimum("adam", 0.01, 0.55, 0.55, 0.01, 0.01, [0.1], 3, None),
        Optimum(HOSTILE, 0.001, 0.52, 0.52, 0.001, 0.001, [0.1], 3, Edge.SMALLEST),
    ]
    judgement = Judgement(
        ranking=ranking,
        tuned=configurations[:-1],
        flattery=nan,
        family=Family.ALL,
        margin=0.005,
        gap=0.005,
        differences=differences,
        spread_alike=nan,
        targets=targets,
        times=pd.DataFrame(columns=TIMES),
        time_unit="steps",
        profile=profile,
        sensitivities=[Sensitivity("optimizer.lr", True, points, optima)],
        interaction=Interaction(
            "optimizer",
            "optimizer.lr",
            pd.DataFrame([[0.5, 0.55], [0.52, nan]], index=["adam", HOSTILE], columns=["0.001", "0.01"]),
            {"adam": "0.01", HOSTILE: "0.001"},
            nan,
            complete=False,
        ),
        ledger=[
            Claim(Item.IMAGES, True, "4f1e… in all"),
            Claim(Item.MAX_EPOCHS, False, f"5 to 9 {HOSTILE}"),
            Claim(Item.TRAINING_CODE, None, "not recorded"),
        ],
        unequal=[],
        code_versions=1,
        uneven=[],
        combinations=combined,
        importance=importance(combined),
    )
    words = Words(
        answer=["adam lr=0.01 has the best mean, but against sgd lr=0.1 it is undecided."],
        violations=[f"Runs of {HOSTILE} saw other images."],
        times_withheld="",
        notes=["Trained for 6 epochs."],
        family="Compared: all pairs.",
        skipped=["logs/x holds no summary.json."],
        sensitivities=[["adam: best at 0.01.", f"{HOSTILE}: best at 0.001, an edge."]],
        interaction="The best learning rate depends on the optimizer.",
        importance="Of the variance, optimizer.lr explains 90 %.",
    )
    return Comparison(facts, judgement, words)


def grid_of_three() -> Combinations:
    """Two optimizers, three rates, two decays and two seeds; at the largest rate the second optimizer diverges."""
    cells = list(product(["adam", HOSTILE], [1e-4, 1e-3, 1e-1], [0, 0.1], [0, 1]))
    diverged = [(optimizer, lr) == (HOSTILE, 1e-1) for optimizer, lr, _, _ in cells]
    frame = pd.DataFrame(
        {
            "seed": [seed for *_, seed in cells],
            "metric": [nan if diverged[k] else 0.5 + lr + 0.01 * seed for k, (_, lr, _, seed) in enumerate(cells)],
            "used": [not its for its in diverged],
            "status": ["diverged" if its else "completed" for its in diverged],
        }
    )
    keys = ("optimizer", "optimizer.lr", "optimizer.weight_decay")
    combined = combine({key: [cell[k] for cell in cells] for k, key in enumerate(keys)}, frame)
    assert combined is not None
    return combined


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return make(["adam lr=0.01", "sgd lr=0.1", HOSTILE, "rmsprop lr=1"])


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text in each cell, header and paragraph."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", text))

    def all(self, tag: str) -> list[str]:
        return [text for at, text in self.texts if at == tag]


def headings(page: str) -> list[str]:
    return [attributes["id"] or "" for tag, attributes in Parsed(page).tags if tag == "h2"]


def test_sections_stand_in_order(comparison):
    parts = [
        "answer",
        "ranking",
        "settings",
        "differences",
        "curves",
        "targets",
        "sensitivity",
        "fairness",
        "every-run",
    ]
    assert headings(render(comparison)) == parts
    one = Factors([], {}, {"model.dropout": [0.2] * len(comparison.facts.runs)})
    without = changed(comparison, sensitivities=[], interaction=None, combinations=None, importance=None, factors=one)
    assert headings(render(without)) == [part for part in parts if part not in ("sensitivity", "settings")]


def test_what_a_table_says(comparison):
    texts = [text for _, text in Parsed(render(comparison)).texts]
    assert "60.00 %" in texts and "58.00 to 62.00 %" in texts
    assert "+3.00 points" in texts and "+1.00 to +5.00 points" in texts and "3 of 3" in texts
    assert "undecided" in texts and "40 to over 1000" in texts and "A is better" in texts
    assert "val/accuracy ≥ 55 %" in texts and "1/3" in texts and "∞" in texts
    assert {"✓ equal", "✗ differs", "? not proven"} <= set(texts)
    assert "diverged" in texts and "failed" not in texts, "a column of zeros is left out"
    assert "peak memory" not in texts, "a column of nan is left out"


def test_what_differs_between_configurations_and_nothing_else(comparison):
    swatches = {name: Markup("") for name in comparison.facts.runs.configuration}
    table = settings_table(comparison.facts, comparison.judgement, swatches)
    assert [column.title for column in table] == ["configuration", "optimizer", "optimizer.momentum"]
    assert [cell.text for cell in table[2].cells] == ["–", "0.9", "0.9", "0.9"]
    assert [cell.sort_key for cell in table[2].cells] == ["", "0.9", "0.9", "0.9"] and table[2].kind == "number"
    assert table[1].kind == "text" and table[1].cells[0].text == "adam lr=0.01"
    averaged = comparison.facts.factors._replace(
        independent={"data.batch_size": [32 if k % 2 and k < 3 else 64 for k in range(len(comparison.facts.runs))]}
    )
    facts = changed(comparison, factors=averaged).facts
    assert [cell.text for cell in settings_table(facts, comparison.judgement, swatches)[1].cells][:2] == [
        "64, 32",
        "64",
    ]


def test_nothing_can_make_the_page_wider_than_its_window(comparison):
    """A table or the wide figure scrolls in a box of its own, and each figure can be saved."""

    class Nested(HTMLParser):
        def __init__(self, page: str) -> None:
            super().__init__()
            self.open: list[tuple[str, set[str]]] = []
            self.tables: list[bool] = []
            self.wide: list[bool] = []
            self.figures = self.buttons = 0
            self.feed(page)

        def inside(self, name: str) -> bool:
            return any(name in classes for _, classes in self.open)

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            at = dict(attributes)
            classes = set((at.get("class") or "").split())
            if tag == "table":
                self.tables.append(self.inside("scroll"))
            if "min-width" in (at.get("style") or ""):
                self.wide.append(self.inside("scroll"))
            self.figures += "figure" in classes and self.inside("drawing")
            self.buttons += "save" in classes and self.inside("drawing")
            if tag not in ("meta", "input", "path", "br", "img"):
                self.open.append((tag, classes))

        def handle_endtag(self, tag: str) -> None:
            while tag in [name for name, _ in self.open] and self.open.pop()[0] != tag:
                pass

    nested = Nested(render(comparison))
    assert nested.tables == [True] * 6 and nested.wide == [True]
    assert nested.figures == nested.buttons == 9


def test_the_parallel_coordinates():
    figure = parallel_figure(grid_of_three(), "test/accuracy", higher_is_better=True)
    axes, *lines, ends, ticks = figure["data"]
    assert len(axes["x"]) == 3 * 4 and ends["x"] == [3] * 12
    assert [end is not None and end < 0 for end in ends["y"]] == [False] * 10 + [True] * 2
    assert max(ends["y"]) == 1 and ends["y"].count(0) == 4, "adam's largest rate is best, the smallest worst"
    assert sum(line["x"].count(3) for line in lines) == 12 and lines[0]["line"]["dash"] == "dot"
    assert lines[-1]["line"]["color"] == "#0072b2" and lines[-1]["y"][:4] == [0, 1, 0, 1], "the best on top"
    assert (
        ends["text"][0]
        == "optimizer=adam<br>optimizer.lr=0.0001<br>optimizer.weight_decay=0<br>test/accuracy 50.51 %, n = 2"
    )
    assert "no result" in ends["text"][-1] and not any("<script" in text for text in [*ends["text"], *ticks["text"]])
    shown = [(x, text) for x, text in zip(ticks["x"], ticks["text"], strict=True)]
    assert [text for x, text in shown if 1 <= x < 2] == ["0.0001", "0.001", "0.1"]
    assert [text for x, text in shown if x >= 3][-1] == "no result"
    least = parallel_figure(grid_of_three(), "test/loss", higher_is_better=False)
    assert least["data"][-3]["y"][3] == 0, "of a loss, the smallest is best"


def test_many_values_of_a_number_are_on_a_scale():
    axis = factor_axis("optimizer.lr", [10 ** (-k / 5) for k in range(5, 21)])
    assert axis.at[0] == 1 and axis.at[-1] == 0 and axis.at[5] == pytest.approx(2 / 3)
    assert list(axis.ticks) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert list(axis.ticks.values()) == ["0.0001", "0.001", "0.01", "0.1"]
    linear = factor_axis("model.dropout", [k / 20 for k in range(15)])
    assert linear.at == pytest.approx([k / 14 for k in range(15)]) and "0.45" in linear.ticks.values()
    few = factor_axis("optimizer.weight_decay", [0.1, 0, 1e-4])
    assert few.at == [1, 0, 0.5] and few.ticks == {0: "0", 0.5: "0.0001", 1: "0.1"}, "0 has its place"
    assert factor_axis("model", ["mlp", "cnn", "mlp"]).at == [0, 1, 0]


def test_violations_are_red(comparison):
    page = render(comparison)
    assert 'class="box violations"' in page and ".box.violations { border-color: var(--red);" in page


def test_names_are_text_wherever_they_stand(comparison):
    parsed = Parsed(render(comparison))
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("script") == 3 and "img" not in tags and "b" not in tags
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert any(HOSTILE in text for text in parsed.all("path")), "the name, whole, after its swatch"
    data = json.loads(parsed.all("script")[0])
    assert "<" not in json.dumps(data["configurations"]), "plotly reads tags"
    assert data["configurations"][2]["name"].startswith(
        '&lt;script&gt;alert(1)&lt;/script&gt; "x", ü &lt;b&gt;&amp;amp;'
    )


def test_a_name_that_is_no_unicode(comparison):
    render(changed(comparison, sources=["logs/\udcff"])).encode("utf-8")


def test_nothing_is_loaded(comparison):
    parsed = Parsed(render(comparison))
    links = [value for _, at in parsed.tags for key, value in at.items() if key in ("src", "href", "srcset", "action")]
    assert links and all(link and link.startswith("#") for link in links)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in parsed.tags}
    assert "url(" not in "".join(parsed.all("style")) and "@import" not in "".join(parsed.all("style"))
    policy = next(at["content"] for _, at in parsed.tags if at.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.split("; ")[1], "no script runs but ours"


def test_size():
    configurations = [f"adam lr={k}" for k in range(40)]
    page = render(make(configurations, seeds=5, epochs=100))
    assert len(page.encode()) - len(get_plotlyjs().encode()) < 1.4e6, "1,000 runs would take more than 12 MB"
    boxes = [at for tag, at in Parsed(page).tags if tag == "input" and at["type"] == "checkbox"]
    assert sum("checked" in box for box in boxes) == 8 + 2, "the best eight, and the lines of the sensitivity"
    assert "The first 60 of 741 pairs: statistics.csv has all." in page


def test_a_table_of_very_many_runs_has_those_of_the_best_configurations(comparison, monkeypatch):
    assert "Every run</h2>" in render(comparison)
    runs, ranked = comparison.facts.runs, list(comparison.judgement.ranking["configuration"])
    monkeypatch.setattr(page_tables, "MOST_RUNS", 4)
    table = {
        column.title: [cell.text for cell in column.cells]
        for column in page_tables.runs_table(comparison.facts, comparison.judgement, dict.fromkeys(ranked, Markup("")))
    }
    of_the_best = [run for name in ranked for run in runs["run"][runs["configuration"] == name]]
    assert table["run"] == of_the_best[:4] and len(runs) > 4
    page = render(comparison)
    assert "Runs</h2>" in page
    assert f"These are the 4 runs of the best configurations: summary.csv has all {len(runs)}." in page


def test_a_comparison_that_has_little(comparison):
    bare = changed(
        comparison,
        curves=comparison.facts.curves.iloc[:0],
        curve_metrics=[],
        differences=comparison.judgement.differences.iloc[:0],
        targets=comparison.judgement.targets.iloc[:0],
        profile=comparison.judgement.profile.iloc[:0],
        sensitivities=[],
        interaction=None,
        combinations=None,
        importance=None,
        violations=[],
    )
    page = render(bare)
    assert "No pair of configurations" in page and "No run logged an epoch" in page and "No target" in page
    assert 'class="box violations"' not in page


def test_a_loss_is_no_share(comparison):
    page = render(changed(comparison, metric="test/loss", validation="val/loss", higher_is_better=False))
    assert "val/loss ≤ 0.55" in page and "0.6000" in page


def test_times_that_are_withheld_have_no_axis(comparison):
    assert 'name="across"' in render(comparison)
    withheld = render(changed(comparison, times_withheld="Times are withheld: two devices."))
    assert 'name="across"' not in withheld and "<p>Times are withheld: two devices.</p>" in withheld


# in a browser


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI must look at the page in a browser, and {what}.")
    pytest.skip(f"{what}: the page is not looked at")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if not found:
        missing("there is no Chromium")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a comparison; in the end nothing may have gone wrong or been asked of a network."""
    trouble: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    requests: list[str] = []

    def open_it(comparison: Comparison) -> Any:
        file = tmp_path / "report.html"
        file.write_text(render(comparison), encoding="utf-8")
        page.goto(file.as_uri())
        return page

    yield open_it
    page.close()
    assert trouble == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def draw(page: Any) -> Any:
    """Every figure, as a reader who scrolls through the page has them."""
    for figure in page.query_selector_all(".figure"):
        figure.scroll_into_view_if_needed()
        figure.wait_for_selector(".main-svg")
    return page


def column(page: Any, title: str) -> list[str]:
    """What stands in the column of the table of runs, from top to bottom."""
    cells = "rows => rows.filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.textContent))"
    titles = page.eval_on_selector_all("#runs th", "heads => heads.map(head => head.textContent)")
    return [row[titles.index(title)] for row in page.eval_on_selector_all("#runs tbody tr", cells)]


def traces(page: Any, metric: int = 0) -> list[dict[str, Any]]:
    return page.evaluate(f"document.querySelector('[data-metric=\"{metric}\"]').data")


def test_figures_on_a_screen_a_phone_and_paper(comparison, open_page):
    page = draw(open_page(comparison))
    figures = page.query_selector_all(".figure")
    assert len(figures) == 4 + 3 + 2
    for figure in figures:
        assert figure.query_selector(".scatterlayer .trace path, .heatmaplayer image, .barlayer path"), (
            figure.get_attribute("id")
        )
    buttons = page.eval_on_selector_all(".modebar-btn", "all => all.map(button => button.ariaLabel)")
    assert set(buttons) == {"Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}, "plotly's own has one that uploads"
    # three that finished: a band and a mean each; the loss spans more than 20 times its least
    assert [trace.get("meta") for trace in traces(page)] == [None] * 3 + ["mean"] * 3
    assert page.evaluate("document.querySelector('[data-metric=\"1\"]').layout.yaxis.type") == "log"

    colours = "[document.body, document.querySelector('.xtick text')].map(part => getComputedStyle(part))"
    colours = f"{colours}.map((style, i) => i ? style.fill : style.backgroundColor)"
    light = page.evaluate(colours)
    page.click("#theme")
    dark = page.evaluate(colours)
    assert light == ["rgb(255, 255, 255)", "rgb(27, 29, 33)"] and dark == ["rgb(22, 24, 28)", "rgb(230, 231, 234)"]

    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(300)  # plotly waits before it follows the window
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = "parts => parts.filter(part => part.getBoundingClientRect().right > 361).map(part => part.outerHTML)"
    assert page.eval_on_selector_all("main :not(.scroll *, svg *), .figure:not(.scroll *) .main-svg", wide) == []

    page.emulate_media(media="print")
    assert page.evaluate(colours) == light and not page.is_visible("#theme"), "paper is white and has no buttons"


def test_paper_has_every_figure(comparison, open_page):
    page = open_page(comparison)
    assert not page.evaluate("document.getElementById('interaction').drawn"), "nobody has scrolled so far"
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('.figure')].every(figure => figure.drawn)")


def test_plotly_starts_after_the_page_has_opened(comparison, open_page):
    page = open_page(comparison)
    page.wait_for_function("window.Plotly")
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") > 0
    assert page.evaluate("[...document.querySelectorAll('.figure')].some(figure => !figure.drawn)")


def test_every_figure_is_saved_as_svg(comparison, open_page):
    """With a name that says what it is, its title, and a legend; also one that nobody has scrolled to."""
    page = open_page(comparison)
    found = {}
    for button in page.query_selector_all(".save"):
        with page.expect_download() as download:
            button.click()
        found[download.value.suggested_filename] = ElementTree.parse(download.value.path()).getroot()
    assert list(found) == [
        "val_accuracy_by_epoch.svg",
        "val_loss_by_epoch.svg",
        "train_loss_by_epoch.svg",
        "lr_by_epoch.svg",
        "Performance_profile.svg",
        "test_accuracy_of_every_combination.svg",
        "Importance_for_test_accuracy.svg",
        "test_accuracy_against_optimizer.lr.svg",
        "test_accuracy_optimizer_with_optimizer.lr.svg",
    ]
    svg = "{http://www.w3.org/2000/svg}"
    for name, root in found.items():
        assert root.tag == f"{svg}svg" and root.get("width") == "720", name
        texts = ["".join(text.itertext()) for text in root.iter(f"{svg}text")]
        assert any("accuracy" in text or "loss" in text or "lr" in text or "profile" in text for text in texts)
        drawn = [path for path in root.iter(f"{svg}path") if (path.get("class") or "").startswith("js-line")]
        assert drawn or name.startswith(("Importance", "test_accuracy_optimizer")), f"{name} has no line"
    curves = ["".join(text.itertext()) for text in found["val_accuracy_by_epoch.svg"].iter(f"{svg}text")]
    assert "adam lr=0.01" in curves and any("<script>" in text for text in curves) and "val/accuracy" in curves


def test_the_table_of_runs(comparison, open_page):
    page = open_page(comparison)
    head = page.locator("#runs th", has_text="time")
    head.click()
    times = [float(time.removesuffix(" s")) for time in column(page, "time")[:9]]
    assert times == sorted(times) and times[0] == 12.5
    missing = column(page, "time")[9:]
    assert len(set(missing)) == 1 and head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert column(page, "time")[0] == "39.5 s" and column(page, "time")[9:] == missing, "what is missing stays last"
    page.locator("#runs th", has_text="run").first.click()
    assert [name.split("_")[0] for name in column(page, "run")] == [str(k) for k in range(12)], "2 before 10"
    assert head.get_attribute("aria-sort") is None

    page.fill("#filter", "SGD seed=1")
    assert column(page, "run") == ["4_sgd lr=0.1"]
    assert page.text_content("#left") == "1 of 12 runs"
    page.fill("#filter", "")
    assert len(column(page, "run")) == 12

    page.locator("#runs .copy").nth(6).click()
    selected = page.evaluate("getSelection().toString()")
    assert selected.startswith("python src/train.py optimizer.lr=0.01 'name=\"<script>alert(1)</script>")


def test_the_curves(comparison, open_page):
    page = draw(open_page(comparison))
    assert traces(page)[3]["x"] == [1, 2, 3, 4, 5, 6]
    page.check("[name=across][value='1']")
    assert traces(page)[3]["x"] == traces(page, 3)[3]["x"] == [2, 4, 6, 8, 10, 12], "one switch for all figures"
    page.check("[name=across][value='0']")

    page.click("#singles")
    single = [trace for trace in traces(page) if trace.get("meta") == "single"]
    assert len(single) == 4, "the configuration that diverged is there, too"
    assert single[0]["text"][0] == "0_adam lr=0.01 · seed 0" and single[0]["y"].count(None) == 3
    page.evaluate("Plotly.Fx.hover(document.querySelector('[data-metric=\"0\"]'), [{curveNumber: 2, pointNumber: 1}])")
    hover = page.text_content("[data-metric='0'] .hoverlayer")
    assert "6_<script>alert(1)</sc · seed 0" in hover and "epoch 2" in hover and '"x", ü <b>&amp;</b>' in hover
    page.click("#singles")
    assert len(traces(page)) == 6

    page.locator("[data-legend=curves] input").first.uncheck()
    assert len(traces(page)) == 4 and page.evaluate("document.getElementById('profile').data.length") == 3
    page.click("[data-legend=curves] button[value=none]")
    assert traces(page) == []
    page.click("[data-legend=curves] button[value=all]")
    assert len(traces(page)) == 6
