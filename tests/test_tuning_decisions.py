import random

import pytest

from optbench.records.tuning import Edge
from optbench.tuning.decisions import best_first, edge, winner, within


def test_the_best_come_first_and_divergence_not_at_all():
    assert best_first([0.3, None, 0.5, 0.5, 0.1], 1) == [2, 3, 0, 4]
    assert best_first([0.3, None, 0.5], -1) == [0, 2]


def test_the_shortlist_is_decided_by_the_mean_and_first_by_divergence():
    assert winner({3: [0.6, 0.2, 0.2], 5: [0.5, 0.5, 0.5]}, 1) == 5
    assert winner({3: [0.6, 0.2, 0.2], 5: [0.5, 0.5, 0.5]}, -1) == 3
    assert winner({3: [0.9, None, 0.9], 5: [0.5, 0.5, 0.5]}, 1) == 5
    assert winner({3: [None], 5: [None]}, 1) is None
    assert winner({}, 1) is None


@pytest.mark.parametrize(("budget", "count"), [(1, 1), (6, 2), (6.5, 3), (100, 4)])
def test_what_is_within_a_budget(budget, count):
    assert within([4, 2, 0.5, 3], budget) == count


def test_an_edge_needs_the_best_and_most_of_the_best_fifth():
    places = [k / 19 for k in range(20)]
    assert edge(places, places, 1) is Edge.LARGEST
    assert edge(places, places, -1) is Edge.SMALLEST
    assert edge(places, [-abs(place - 0.7) for place in places], 1) is None
    lucky = [1.0 if place == 1 else -abs(place - 0.5) for place in places]
    assert edge(places, lucky, 1) is None
    assert edge([2.5, *places[1:]], [1.0, *places[1:]], 1) is Edge.LARGEST  # defaults beyond the space
    assert edge([None, *places[1:]], [1.0, *places[1:]], 1) is None
    assert edge(places, [None] * 20, 1) is None


def test_a_setting_that_does_not_matter_is_seldom_on_an_edge():
    generator = random.Random(0)
    draws = [
        edge([generator.random() for _ in range(20)], [generator.random() for _ in range(20)], 1) for _ in range(2000)
    ]
    assert sum(found is not None for found in draws) / 2000 < 0.06
