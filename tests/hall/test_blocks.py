"""Blocks of discrete coordinates: none shares a term with another, and each is there once."""

import numpy as np
import pytest

from deepgen_ppl import blocks
from deepgen_ppl.blocks import differ, find_blocks, singly
from deepgen_ppl.discrete import Coordinates, told, values_between


def density(groups, size):
    """Terms that depend on given groups of coordinates, each by a table of its own."""
    weights = np.random.default_rng(0).normal(size=(len(groups), size))

    def evaluate(x, point):
        found = [np.sin((x[:, g] + 1) @ w[g] + point) for g, w in zip(groups, weights, strict=True)]
        return np.stack(found, axis=1)

    return evaluate


def coordinates_of(found, size):
    inside = found.coordinates[found.coordinates < size]
    return sorted([*inside.tolist(), *found.singles.tolist()])


STRUCTURES = {
    "rows": [[i] for i in range(9)],
    "line": [[i, i + 1] for i in range(8)],
    "ring": [[i, (i + 1) % 9] for i in range(9)],
    "star": [[0, i] for i in range(1, 9)],
    "all": [list(range(9))],
    "grid": [[3 * r + c, 3 * r + c + 1] for r in range(3) for c in range(2)]
    + [[3 * r + c, 3 * r + c + 3] for r in range(2) for c in range(3)],
}
MOVES = {"rows": 1, "line": 2, "ring": 3, "star": 2, "all": 9, "grid": 2}


@pytest.mark.parametrize("name", STRUCTURES)
def test_blocks_share_no_term(name):
    groups = [np.array(g) for g in STRUCTURES[name]]
    cardinality = np.array([2, 3, 2, 4, 2, 3, 2, 2, 3])
    found = find_blocks(density(groups, 9), cardinality, [np.arange(9)])
    assert coordinates_of(found, 9) == list(range(9))
    assert found.num_moves == MOVES[name]
    for block, elements in zip(found.coordinates, found.elements, strict=True):
        for coordinate, touched in zip(block, elements, strict=True):
            if coordinate < 9:
                wanted = {t for t, g in enumerate(groups) if coordinate in g}
                assert set(touched[touched < len(groups)]) == wanted
        real = elements[block < 9]
        real = real[real < len(groups)]
        assert len(np.unique(real)) == len(real)


def test_owners_and_places_invert_the_blocks():
    groups = [np.array(g) for g in STRUCTURES["line"]]
    found = find_blocks(density(groups, 9), np.full(9, 2), [np.arange(9)])
    width = found.coordinates.shape[1]
    for block, (owners, places) in enumerate(
        zip(found.owners(len(groups)), found.places(9), strict=True)
    ):
        for term, owner in enumerate(owners):
            inside = [d for d in groups[term] if places[d] < width]
            assert len(inside) == (owner < width)
            if inside:
                assert found.coordinates[block, owner] == inside[0]


def test_many_rows_are_told_apart_by_subsets(monkeypatch):
    monkeypatch.setattr(blocks, "_MOST", 0)
    size = 3000
    calls = []

    def evaluate(x, point):
        calls.append(len(x))
        own = np.where(x == 1, 0.3, -0.2) + 0.1 * point
        return np.concatenate([own, own**2 + np.arange(size)], axis=1)

    found = find_blocks(evaluate, np.full(size, 2), [np.arange(size)])
    assert found.num_moves == 1
    assert found.elements.shape == (1, size, 2)
    assert sum(calls) < 300
    line = find_blocks(density([np.array([i, i + 1]) for i in range(8)], 9), np.full(9, 2),
                       [np.arange(9)])  # fmt: skip
    assert line.num_moves == 9  # two coordinates touch each term: one by one


def test_a_coordinate_without_terms_moves_too():
    found = find_blocks(lambda x, point: np.sin(x[:, :1] + point), np.full(3, 2), [np.arange(3)])
    assert coordinates_of(found, 3) == [0, 1, 2]
    assert singly(3).num_moves == 3


def test_differ_knows_infinities_and_rounding():
    one = np.array([0.0, -np.inf, np.nan, 1e6, 1.0])
    other = np.array([1e-9, -np.inf, np.nan, 1e6 + 0.1, np.nan])
    assert differ(one, other).tolist() == [False, False, False, False, True]


def test_coordinates_and_values_are_inverse():
    supports = {"a": np.array([[0.0, 1.0]]), "b": values_between(2, np.array([3, 5]), (2,)),
                "c": np.eye(3)[None]}  # fmt: skip
    found = Coordinates.of(supports, {"a": (2, 2), "b": (2,), "c": (2, 3)})
    assert found.size == 8
    assert found.cardinality.tolist() == [2, 2, 2, 2, 2, 4, 3, 3]
    assert found.num_values == 4
    x = np.random.default_rng(0).integers(0, found.cardinality, size=(20, 8))
    values = {
        "a": supports["a"][0][x[:, :4]].reshape(20, 2, 2),
        "b": 2 + x[:, 4:6],
        "c": np.eye(3)[x[:, 6:]],
    }
    np.testing.assert_array_equal(found.numbers(values), x)
    whole = found.integers(values)
    assert whole["a"].dtype.kind == whole["c"].dtype.kind == "i"
    assert found.restored(whole)["a"].dtype == float
    names, columns = found.labels()
    assert names[:2] == ["a[0, 0]", "a[0, 1]"]
    assert columns.tolist() == list(range(8))


def test_how_well_first_order_differences_tell():
    true = np.random.default_rng(0).normal(size=(5, 3))
    assert told(true, 2.0 * true + 1.0) == 1.0
    assert told(true, np.zeros_like(true)) == 0.0
    assert told(np.zeros(3), np.zeros(3)) == 1.0
