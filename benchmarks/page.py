"""The page in a real browser: how fast it opens, whether it fits a phone, and how long its figures take.

python benchmarks/page.py                          # 1,000 made runs of 100 epochs: three factors, five seeds
python benchmarks/page.py <report.html> …          # pages that are there
python benchmarks/page.py --pictures <folder>      # also pictures of each page, on a desk and on a phone

Needs playwright and Chromium, as the tests of the page do.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "tests")]

import numpy as np  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from sweeps import write_run  # noqa: E402

OPTIMIZERS, RATES, DECAYS, SEEDS = ("adam", "adamw", "rmsprop", "sgd"), 10, (0, 1e-4, 1e-3, 1e-2, 0.1), 5
PHONE = {"width": 360, "height": 800}
DESK = {"width": 1280, "height": 900}
OPENED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
TOO_WIDE = """() => [...document.querySelectorAll('body *')]
    .filter(part => !part.closest('.scroll, svg') && part.getBoundingClientRect().right > innerWidth + 1)
    .map(part => part.tagName + '.' + part.className).slice(0, 5)"""


def make_runs(folder: Path, epochs: int) -> None:
    """The whole grid; the larger the rate, the more depends on the weight decay, and the largest rate diverges."""
    generator = np.random.default_rng(0)
    grid = product(enumerate(OPTIMIZERS), range(RATES), DECAYS, range(SEEDS))
    for number, ((k, optimizer), step, decay, seed) in enumerate(grid):
        rate = float(f"{1e-4 * 2**step:.3g}")
        accuracy = 0.55 - 0.01 * k - 0.004 * (step - 5) ** 2 - 0.02 * step * decay
        write_run(
            folder / f"{number}_run",
            optimizer,
            seed,
            round(accuracy + 0.004 * float(generator.standard_normal()), 4),
            epochs=epochs,
            status="diverged" if step == RATES - 1 and k == 3 else "completed",
            overrides=[f"optimizer.lr={rate}", f"optimizer.weight_decay={decay}"],
            config={"optimizer.lr": rate, "optimizer.weight_decay": decay},
            device={"cores": "0-1"},
        )


def draw_all(page: Any) -> None:
    for figure in page.query_selector_all(".figure"):
        figure.scroll_into_view_if_needed()
        figure.wait_for_selector(".main-svg")


def opening(browser: Browser, report: Path) -> tuple[float, float]:
    """Seconds until the page is loaded, and from then until the first figure is drawn, scrolled to at once."""
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    page.goto(report.as_uri())
    page.wait_for_function(f"{OPENED} > 0")
    drawn = page.evaluate(
        """async () => {
            const began = performance.now(), box = document.querySelector('.figure');
            box.scrollIntoView();
            while (!box.querySelector('.main-svg')) await new Promise(requestAnimationFrame);
            return performance.now() - began;
        }"""
    )
    opened = page.evaluate(OPENED)
    page.close()
    return opened / 1000, drawn / 1000


def on_a_phone(browser: Browser, report: Path, pictures: Path | None) -> tuple[int, list[str]]:
    """The width of the page with all figures drawn, in a window of 360 pixels, and what sticks out."""
    page = browser.new_page(viewport=PHONE, is_mobile=True, has_touch=True)  # type: ignore[arg-type]
    page.goto(report.as_uri())
    draw_all(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    wide = page.evaluate(TOO_WIDE)
    if pictures:
        page.screenshot(path=pictures / f"{report.parent.parent.name}_phone.png", full_page=True)
    page.close()
    return width, wide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if not found:
        raise SystemExit("There is no Chromium.")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        reports = [report.resolve() for report in arguments.reports]
        if not reports:
            folder = Path(temporary) / "made"
            make_runs(folder, arguments.epochs)
            compare = [sys.executable, str(PROJECT / "src" / "compare.py"), f"runs={folder}"]
            subprocess.run(compare, check=True, stdout=subprocess.DEVNULL)
            reports = [folder / "comparison" / "report.html"]
        print("| page | MB | opens (s) | first figure (s) | width on a phone of 360 px | sticks out |")
        print("| --- | ---: | ---: | ---: | ---: | --- |")
        for report in reports:
            times = []
            for _ in range(arguments.rounds):  # each in a browser that has just started
                browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
                times.append(opening(browser, report))
                width, wide = on_a_phone(browser, report, arguments.pictures)
                if arguments.pictures:
                    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
                    page.goto(report.as_uri())
                    draw_all(page)
                    page.screenshot(path=arguments.pictures / f"{report.parent.parent.name}_desk.png", full_page=True)
                version = browser.version
                browser.close()
            opened, drawn = (statistics.median(column) for column in zip(*times, strict=True))
            size = report.stat().st_size / 1e6
            name, sticks_out = report.parent.parent.name, ", ".join(wide) or "nothing"
            print(f"| {name} | {size:.1f} | {opened:.2f} | {drawn:.2f} | {width} | {sticks_out} |", flush=True)
        print(f"\nmedian of {arguments.rounds} rounds, Chromium {version}")


if __name__ == "__main__":
    main()
