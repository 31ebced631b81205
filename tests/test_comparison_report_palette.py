from itertools import combinations, pairwise
from types import SimpleNamespace

import pytest

from optbench.comparison.report.palette import COLOURS, DASHES, MARKERS, OPTIMIZERS, look, styles


def of(*hues: str, each: int = 1) -> dict:
    """Styles of a comparison with so many configurations of each hue."""
    return styles(SimpleNamespace(hues={f"{hue} {i}": hue for hue in hues for i in range(each)}))  # type: ignore[arg-type]


def linear(colour: str) -> list[float]:
    """sRGB to linear red, green and blue."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]


def luminance(rgb: list[float]) -> float:
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))


def contrast(a: str, b: str) -> float:
    """Of WCAG 2: 1 (none) to 21 (black on white)."""
    low, high = sorted(luminance(linear(colour)) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: list[float]) -> list[float]:
    """CIE L*a*b* (D65) of linear RGB."""
    x = (0.4124564 * rgb[0] + 0.3575761 * rgb[1] + 0.1804375 * rgb[2]) / 0.95047
    z = (0.0193339 * rgb[0] + 0.1191920 * rgb[1] + 0.9503041 * rgb[2]) / 1.08883
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, luminance(rgb), z))
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


# Machado, Oliveira and Fernandes, 2009, severity 1
VISION: dict[str, list[list[float]]] = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_colours_are_legible_on_white_and_on_a_dark_page(colour, page):
    assert contrast(colour, page) >= 3


@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart_by_every_eye(vision):
    def seen(colour: str) -> list[float]:
        rgb = linear(colour)
        mixed = (sum(w * c for w, c in zip(row, rgb, strict=True)) for row in VISION[vision])
        return lab([min(max(c, 0), 1) for c in mixed])

    for a, b in combinations(COLOURS, 2):
        assert sum((x - y) ** 2 for x, y in zip(seen(a), seen(b), strict=True)) ** 0.5 > 13, (a, b)


def test_the_optimizers_colours_grow_lighter_for_print_in_grey():
    lightness = [lab(linear(colour))[0] for colour in COLOURS[: len(OPTIMIZERS)]]
    assert all(next_ - this > 3 for this, next_ in pairwise(lightness))


def test_an_optimizer_looks_the_same_in_every_report():
    one = of("sgd", "zebra", "adam", "aardvark")
    other = of("adam", "adamw", "rmsprop", "sgd", "aardvark")
    shared = one.keys() & other.keys()
    assert shared == {"adam 0", "sgd 0", "aardvark 0"}
    assert {name: one[name] for name in shared} == {name: other[name] for name in shared}
    assert [other[f"{name} 0"].colour for name in OPTIMIZERS] == list(COLOURS[:4])


def test_styles_keep_the_order_of_the_configurations():
    assert list(of("sgd", "adam", each=2)) == ["sgd 0", "sgd 1", "adam 0", "adam 1"]


def test_each_hue_has_its_colour_and_each_configuration_its_dash_and_marker():
    found = of("adam", "sgd", "rmsprop", "adamw", "lion", "muon", "nadam", each=3)
    assert len({style.colour for style in found.values()}) == 7
    assert len({found[f"adam {i}"].colour for i in range(3)}) == 1
    assert len({(style.dash, style.marker) for style in found.values()}) == 21  # in grey too


def test_more_hues_than_colours_reuse_one_with_another_dash_and_marker():
    found = of(*(f"hue {i}" for i in range(20)))
    assert len(set(found.values())) == 20
    assert len({style.colour for style in found.values()}) == 7


def test_six_points_of_one_hue_have_six_markers():
    found = of("adam", "sgd", "lion", each=6)
    for hue in ("adam", "sgd", "lion"):
        assert len({found[f"{hue} {i}"].marker for i in range(6)}) == 6


def test_many_configurations_of_one_hue_differ():
    assert len(set(of("adam", each=24).values())) == 24


def test_names_are_those_of_plotly():
    assert {look(c, n).dash for c in range(7) for n in range(9)} == set(DASHES) == {"solid", "dash", "dot", "dashdot"}
    assert {look(c, n).marker for c in range(7) for n in range(9)} == set(MARKERS)
