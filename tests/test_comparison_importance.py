"""How the variance of a grid divides among its factors, and where there is no grid."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from optbench.comparison.analysis import compare
from optbench.comparison.importance import Importance, combine, importance, importance_sentence
from sweeps import write_run

OPTIMIZERS, RATES, DECAYS = ["adam", "sgd"], [0.001, 0.01, 0.1], [0.0, 0.1]
KEYS = ["optimizer", "optimizer.lr", "optimizer.weight_decay"]


def runs(rule: Any, seeds: int = 1, sd: float = 0.0, random_seed: int = 0) -> tuple[dict[str, list[Any]], pd.DataFrame]:
    """The grid above; `rule` gives the metric of a combination, or None for one that diverged."""
    random = np.random.default_rng(random_seed)
    cells = [(cell, seed) for cell in product(OPTIMIZERS, RATES, DECAYS) for seed in range(seeds)]
    metric = [rule(*cell) for cell, _ in cells]
    frame = pd.DataFrame(
        {
            "seed": [seed for _, seed in cells],
            "metric": [math.nan if m is None else m + sd * random.standard_normal() for m in metric],
            "used": [m is not None for m in metric],
            "status": ["diverged" if m is None else "completed" for m in metric],
        }
    )
    return {key: [cell[k] for cell, _ in cells] for k, key in enumerate(KEYS)}, frame


def found(rule: Any, **settings: Any) -> Importance | None:
    combined = combine(*runs(rule, **settings))
    assert combined is not None
    return importance(combined)


def shares(rule: Any, **settings: Any) -> dict[str, tuple[float, float]]:
    item = found(rule, **settings)
    assert item is not None
    return {row.factor.rpartition(".")[2]: (row.alone, row.total) for row in item.shares.itertuples()}


def test_factors_that_add_up_explain_each_their_own_variance() -> None:
    """Variances: 1 of the optimizer, 6 of the rate, 9 of the decay; the means of all are 0."""
    rates = {0.001: -3, 0.01: 0, 0.1: 3}
    told = shares(
        lambda optimizer, lr, decay: (1 if optimizer == "adam" else -1) + rates[lr] + 3 * (1 if decay else -1)
    )
    assert list(told) == ["weight_decay", "lr", "optimizer"]
    assert told["weight_decay"] == pytest.approx((9 / 16, 9 / 16))
    assert told["lr"] == pytest.approx((6 / 16, 6 / 16))
    assert told["optimizer"] == pytest.approx((1 / 16, 1 / 16))


def test_what_depends_on_two_counts_for_both_and_for_neither_alone() -> None:
    told = shares(lambda optimizer, lr, decay: (1 if optimizer == "adam" else -1) * (1 if decay else -1))
    assert told["optimizer"] == told["weight_decay"] == pytest.approx((0, 1)) and told["lr"] == pytest.approx((0, 0))


def test_values_with_holes_are_left_out() -> None:
    """sgd diverges at the largest rate."""
    item = found(lambda optimizer, lr, decay: None if (optimizer, lr) == ("sgd", 0.1) else lr)
    assert item is not None and item.without == ["optimizer.lr=0.1"] and item.cells == 8
    assert item.shares.iloc[0].to_list() == ["optimizer.lr", pytest.approx(1), pytest.approx(1)]
    assert "That is the grid without optimizer.lr=0.1, which has holes." in importance_sentence(item)
    one = found(lambda optimizer, lr, decay: None if optimizer == "sgd" else lr + decay)
    assert one is not None and one.cells == 6 and one.without == []
    assert list(one.shares.factor) == ["optimizer.weight_decay", "optimizer.lr"], "sgd has no result at all"


def test_chance() -> None:
    """With nothing but noise, all of the variance is chance; what a seed adds to every cell is none."""
    only = [found(lambda *cell: 0.5, seeds=4, sd=0.01, random_seed=k) for k in range(20)]
    assert np.median([item.chance for item in only if item]) == pytest.approx(1, abs=0.1)
    little = found(lambda optimizer, lr, decay: lr, seeds=4, sd=0.001)
    assert little is not None and little.chance == pytest.approx(0.001**2 / 4 / np.var(RATES), rel=0.5)
    varied, frame = runs(lambda optimizer, lr, decay: lr, seeds=4)
    frame["metric"] += frame.seed
    combined = combine(varied, frame)
    assert combined is not None
    seeds = importance(combined)
    assert seeds is not None and seeds.chance == pytest.approx(0, abs=1e-12)
    alone = found(lambda optimizer, lr, decay: lr)
    assert alone is not None and math.isnan(alone.chance) and "chance" not in importance_sentence(alone)


def test_no_grid_no_importance() -> None:
    assert found(lambda *cell: 0.5) is None, "nothing differs"
    assert found(lambda *cell: None) is None, "nothing finished"
    random = np.random.default_rng(0)
    varied = {key: list(random.random(30)) for key in KEYS}
    frame = pd.DataFrame({"seed": 0, "metric": random.random(30), "used": True, "status": "completed"})
    combined = combine(varied, frame)
    assert combined is not None and len(combined.values) == 30 and importance(combined) is None, "a random search"
    assert combine({key: varied[key] for key in KEYS[:2]}, frame) is None, "two factors have their own figure"


def test_a_sweep_of_three_factors(tmp_path: Path) -> None:
    """Through the records: by the optimizer, averaged over the rest, it is the same grid."""
    for k, (optimizer, lr, decay, seed) in enumerate(product(OPTIMIZERS, RATES, DECAYS, (0, 1))):
        write_run(
            tmp_path / str(k),
            optimizer,
            seed,
            0.5 + lr + 0.1 * decay,
            overrides=[f"optimizer.lr={lr}", f"optimizer.weight_decay={decay}"],
            config={"optimizer.lr": lr, "optimizer.weight_decay": decay},
        )
    for by in ([], ["optimizer"]):
        comparison = compare([str(tmp_path)], by=by)
        assert comparison.judgement.combinations is not None and len(comparison.judgement.combinations.values) == 12
        item = comparison.judgement.importance
        assert item is not None and dict(zip(item.shares.factor, item.shares.total, strict=True)) == pytest.approx(
            {"optimizer.lr": 0.9868, "optimizer.weight_decay": 0.0132, "optimizer": 0.0}, abs=1e-3
        )
        assert comparison.words.importance.startswith("Of the variance between the means of 12 combinations")
