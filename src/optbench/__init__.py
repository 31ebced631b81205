"""Finished runs in Python, for a notebook or a script of your own. docs/python.md shows each function.

run = optbench.load_run("logs/train/runs/<run>")                               # one run: history, nets, predictions
table = optbench.load_runs("logs/train/multiruns/<sweep>")                     # many runs: one row per run
comparison = optbench.compare("logs/train/multiruns/<sweep>", by="optimizer")  # which is better, and how sure is that?

Nothing is loaded before it is needed: pandas with the first function, torch with the first net.
"""

from typing import TYPE_CHECKING

__all__ = ["Run", "compare", "load_run", "load_runs"]

if TYPE_CHECKING:
    from optbench.library import Run, compare, load_run, load_runs
else:

    def __getattr__(name):
        if name in __all__:
            from optbench import library

            return getattr(library, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
