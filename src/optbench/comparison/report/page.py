"""A comparison as one HTML file: it opens offline, in either theme, on a phone, and prints."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from optbench.comparison.analysis import Comparison
from optbench.comparison.report import curves, page_tables, page_tuning, palette
from optbench.comparison.report.costs import costs as costs_of
from optbench.comparison.report.costs import unrecorded
from optbench.comparison.report.page_figures import page_data
from optbench.comparison.report.palette import Style
from optbench.comparison.report.tables import RATIOS
from optbench.comparison.tuning import sentence
from optbench.records import wording

ASSETS = Path(__file__).parent / "assets"
DASHES = {"solid": "", "dash": "5 3", "dot": "2 3", "dashdot": "6 2 2 2"}
MARKERS = {
    "circle": "M11 6a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "square": "M11 3h6v6h-6z",
    "diamond": "M14 2l4 4-4 4-4-4z",
    "triangle-up": "M14 2l4 7h-8z",
    "cross": "M13 2h2v3h3v2h-3v3h-2V7h-3V5h3z",
    "x": "M11 1.6l3 3 3-3 1.4 1.4-3 3 3 3-1.4 1.4-3-3-3 3L9.600 9l3-3-3-3z",
}


def render(comparison: Comparison) -> str:
    """The page, whole: plotly.js, the data, the tables."""
    facts, judgement = comparison.facts, comparison.judgement
    styles = palette.styles(facts)
    styles = {name: styles[name] for name in judgement.ranking["configuration"]}  # the best lead every legend
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly, script = get_plotlyjs(), (ASSETS / "report.js").read_text(encoding="utf-8")
    swatches = {name: swatch(style) for name, style in styles.items()}
    lines = [palette.line_styles(facts, item) for item in judgement.sensitivities]
    shown, _ = curves.shown(comparison)
    carried = curves.carried(comparison)
    means = curves.mean_curves(facts, carried)
    data = page_data(facts, judgement, means, {name: styles[name] for name in carried}, lines, styles)
    costs = costs_of(facts, judgement)
    order = {name: k for k, name in enumerate(styles)}
    tuning = tuning_section(comparison, data)
    page = environment.get_template("report.html.jinja").render(
        facts=facts,
        judgement=judgement,
        words=comparison.words,
        title=f"{facts.metric} of {wording.plural(len(judgement.ranking), 'configuration')}",
        # only these two scripts may run: a script inside a name is refused by the browser
        policy=f"default-src 'none'; script-src {sha256(plotly)} {sha256(script)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        plotly=Markup(plotly),
        script=Markup(script),
        css=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),
        data=embedded(data),
        curve_axes=data["axes"],
        ranking=page_tables.ranking_table(facts, judgement, swatches),
        settings=page_tables.settings_table(facts, judgement, swatches),
        has_iqm=page_tables.has_iqm(judgement),
        differences=page_tables.differences_table(facts, judgement, swatches),
        most_differences=page_tables.MOST_DIFFERENCES,
        legend=[(name, swatches[name], name in shown) for name in carried],
        without_mean=sorted(set(facts.curves["configuration"]) & set(carried) - means.keys()),
        targets=page_tables.targets_table(facts, judgement, swatches),
        ratios=page_tables.times_table(facts, judgement, swatches),
        about_ratios=RATIOS,
        costs=costs,
        cost_legend=[(order[name], name, swatches[name]) for name in costs[0].points["configuration"]] if costs else [],
        cost_table=page_tables.cost_table(facts, judgement, swatches),
        unrecorded=unrecorded(costs),
        sensitivities=[
            (item, [(name, swatch(style), said) for (name, style), said in zip(styled.items(), sentences, strict=True)])
            for item, styled, sentences in zip(
                judgement.sensitivities, lines, comparison.words.sensitivities, strict=True
            )
        ],
        runs=page_tables.runs_table(facts, judgement, swatches),
        varied=judgement.sensitivities or judgement.interaction or judgement.combinations is not None,
        plural=wording.plural,
        rows=page_tables.rows,
        **tuning,
    )
    # a folder's name need not be unicode: what cannot be written becomes a question mark
    return page.encode("utf-8", "replace").decode("utf-8")


def tuning_section(comparison: Comparison, data: dict[str, Any]) -> dict[str, Any]:
    """What tuning.html.jinja needs; its figures are added to `data`."""
    tuning = comparison.tuning
    if tuning is None:
        return {"tuning": None}
    own = palette.search_styles(comparison.facts, tuning)
    figures = page_tuning.tuning_figures(tuning, own)
    data["static"] |= figures
    swatches = {name: swatch(style) for name, style in own.items()}
    return {
        "tuning": tuning,
        "tuning_titles": [(key, page_tuning.FIGURES[key].format(metric=tuning.metric)) for key in figures],
        "tuning_lines": [
            (search.name, swatches[search.name], sentence(search, tuning), bool(search.contestant.edges))
            for search in tuning.searches
        ],
        "tuning_rows": page_tuning.tuning_table(tuning, comparison.facts.metric, swatches),
    }


def swatch(style: Style) -> Markup:
    """A short piece of a configuration's line, with its marker."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" stroke="{0}" fill="{0}">'
        '<path d="M0 6h28" stroke-width="2" stroke-dasharray="{1}"/><path d="{2}"/></svg>'
    ).format(style.colour, DASHES[style.dash], MARKERS[style.marker])


def embedded(data: Any) -> Markup:
    """JSON that can end no script element; ASCII, so U+2028 is escaped as well."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def sha256(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
