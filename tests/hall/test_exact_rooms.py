"""Orders, plans, evidence and tables of exact inference, before any wing sums them."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from deepgen_ppl.conditioning import condition
from deepgen_ppl.contraction import groups_of, plan_of
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.elimination import best_order, cost_of
from deepgen_ppl.factor_graph import Factor, FactorGraph
from deepgen_ppl.findings import read_findings
from deepgen_ppl.marginal import sources_of
from deepgen_ppl.plans import Loop
from deepgen_ppl.tabulation import Term, tabulate

GRID = [(4 * i + j, 4 * i + j + 1) for i in range(4) for j in range(3)]
GRID += [(4 * i + j, 4 * i + j + 4) for i in range(3) for j in range(4)]


# ------------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("size", "scopes", "width"),
    [
        (50, [(i, i + 1) for i in range(49)], 1),  # a chain
        (50, [((i - 1) // 2, i) for i in range(1, 50)], 1),  # a tree
        (20, [(i, (i + 1) % 20) for i in range(20)], 2),  # a ring
        (16, GRID, 4),
        (6, [tuple(range(6))], 5),
    ],
)
def test_orders_reach_the_treewidth(size: int, scopes: list, width: int):
    order, cost = best_order([2] * size, scopes)
    assert sorted(order) == list(range(size))
    assert cost.width == width
    assert cost == cost_of(order, [2] * size, scopes)


def test_states_count_in_the_order():
    # A variable of many states is summed out late: it meets each of the others alone.
    cards = [100, *[2] * 6]
    _, cost = best_order(cards, [(0, i) for i in range(1, 7)])
    assert cost.largest == 200


def test_a_chain_is_one_loop_whatever_its_length():
    kinds = [[type(s).__name__ for s in plan_of([3] * n, [(i, i + 1) for i in range(n - 1)]).steps]
             for n in (50, 500)]  # fmt: skip
    assert kinds[0] == kinds[1] == ["Step", "Loop", "Step"]


def test_a_chain_of_second_order_is_a_loop():
    steps = plan_of([2] * 60, [(i, i + 1, i + 2) for i in range(58)]).steps
    assert any(isinstance(step, Loop) and step.length > 50 for step in steps)


def test_parts_that_are_alike_share_a_plan():
    pairs = np.array([[0, 1], [3, 2], [4, 5], [6, 7]])  # one the other way round
    groups = groups_of(np.array([2, 3, 3, 2, 2, 3, 3, 3]), [pairs[:3], pairs[3:]])
    assert sorted(len(group.variables) for group in groups) == [1, 1, 2]
    variables = np.concatenate([group.variables.reshape(-1) for group in groups])
    assert sorted(variables) == list(range(8))


def test_a_hub_of_many_leaves_has_few_steps():
    plan = plan_of([3] * 2001, [(0, i) for i in range(1, 2001)])
    assert len(plan.steps) == 3


# ------------------------------------------------------------------------------------- graphs

TABLE = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("cards", "factors", "message"),
    [
        ({"a": 2}, [(("a", "b"), TABLE)], "unknown 'b'"),
        ({"a": 2}, [(("a", "a"), TABLE)], "twice"),
        ({"a": 2, "b": 3}, [(("a", "b"), TABLE)], r"shape \(2, 2\); its variables have \(2, 3\)"),
        ({"a": 2}, [(("a",), [0.0, np.nan])], "NaN"),
        ({"a": 2}, [(("a",), [0.0, np.inf])], "infinity"),
        ({"a": 0}, [], "at least one state: 'a'"),
    ],
)
def test_graphs_are_checked(cards: dict, factors: list, message: str):
    with pytest.raises(ValueError, match=message):
        FactorGraph(cards, factors)


def test_names_of_states_are_as_many_as_states():
    with pytest.raises(ValueError, match="'a' has 2 states and 3 names"):
        FactorGraph({"a": 2}, [], {"a": ("x", "y", "z")})


def test_conditioning_leaves_what_slicing_leaves():
    rng = np.random.default_rng(0)
    names, cards = "abcd", {"a": 2, "b": 3, "c": 2, "d": 3}
    scopes = ["ab", "bc", "dcb", "d", "ac"]
    factors = [Factor(tuple(s), rng.normal(size=[cards[v] for v in s])) for s in scopes]
    graph = FactorGraph(cards, factors)
    states = np.array([[1, 2], [0, 0], [1, 1]])  # of b and d
    left = condition(graph.numbered, np.array([1, 3]), states)
    assert left.kept.tolist() == [0, 2]
    for row, (b, d) in enumerate(states):
        for a, c in itertools.product(range(2), range(2)):
            total = left.constants[:, min(row, left.constants.shape[1] - 1)].sum()
            for scope, table in zip(left.graph.scopes, left.graph.tables, strict=True):
                at = np.array([a, c])[scope]  # factors, axes
                own = table[(*at.T, np.arange(len(scope)))]
                total += own[:, min(row, own.shape[1] - 1)].sum()
            values = dict(zip(names, (a, b, c, d), strict=True))
            np.testing.assert_allclose(total, graph.log_density(values))


# ------------------------------------------------------------------------------------ evidence

SITES = Coordinates.of(
    {"a": np.arange(3)[None], "z": np.array([[0.0, 1.0]]), "k": np.array([[2, 5]])},
    {"a": (), "z": (4,), "k": ()},
)


def test_evidence_in_rows_and_masks():
    masked = np.ma.array([[0, 1, 1, 0]] * 2, mask=[[False] * 4, [True, False, True, False]])
    found = read_findings(SITES, {"a": [2, 0], "z": masked, "k": np.array([5, 2])})
    assert found.batched
    assert found.states.tolist() == [[2, 0, 1, 1, 0, 1], [0, -1, 1, -1, 0, 0]]
    assert found.fixed.tolist() == []  # another pattern in each row: nothing to condition on


def test_evidence_on_the_same_sites_is_conditioned_on():
    found = read_findings(SITES, {"a": [2, 0]}, soft={"k": [1.0, 3.0]})
    assert found.fixed.tolist() == [0]
    table = found.log_likelihood(np.array([5]), 2)
    np.testing.assert_allclose(table[:, 0, 0], np.log([1.0, 3.0]))


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"given": {"q": 0}}, "'q': there is no such discrete latent"),
        ({"given": {"a": 3}}, r"given\['a'\] is 3, which is none of its states \[0, 1, 2\]"),
        ({"given": {"a": [0, -1]}}, r"given\['a'\] at \(1,\) is -1"),
        ({"given": {"k": 3}}, r"none of its states \[2, 5\]"),
        ({"given": {"z": [0.0, np.nan, 0, 0]}}, "NaN. Mark missing cells"),
        ({"given": {"z": [0, 1]}}, r"shape \(2,\); the site's is \(4,\)"),
        ({"given": {"a": [0, 1], "k": [2, 2, 2]}}, "different numbers of rows"),
        ({"given": {"a": np.zeros(0, int)}}, "no rows"),
        ({"given": {"a": "low"}}, "its states have no names"),
        ({"soft": {"a": [0.5, -0.1, 0.2]}}, "not negative"),
        ({"soft": {"a": [0.5, 0.2]}}, r"shape \(2,\); the site's is \(3,\)"),
    ],
)
def test_wrong_evidence_is_named(evidence: dict, message: str):
    with pytest.raises(ValueError, match=message):
        read_findings(SITES, **evidence)


def test_labels_are_states():
    labels = {"a": ("low", "mid", "high")}
    assert read_findings(SITES, {"a": "mid"}, labels=labels).states[0, 0] == 1
    with pytest.raises(ValueError, match=r"at \(1,\) is 'hi', which is none of its states 'low'"):
        read_findings(SITES, {"a": ["low", "hi"]}, labels=labels)


# -------------------------------------------------------------------------------------- tables


def aligned(x: np.ndarray) -> np.ndarray:
    return np.sin(1.0 + x)


def neighbouring(x: np.ndarray) -> np.ndarray:
    before = np.concatenate([np.zeros((len(x), 1), int), x[:, :-1]], 1)
    return np.sin(1.0 + x + 3.0 * before)


def touching(x: np.ndarray) -> np.ndarray:
    return np.sin(1.0 + np.cumsum(x, axis=1))


@pytest.mark.parametrize(
    ("density", "plate", "widest"),
    [(aligned, "rows", 1), (neighbouring, None, 2), (touching, None, 5), (touching, "rows", 5)],
)
def test_tables_hold_the_density(density: Callable, plate: str | None, widest: int):
    sites = Coordinates.of({"z": np.arange(3)[None]}, {"z": (5,)})
    term = Term("x", 0, (5,), (plate,), ("z",))
    found = tabulate(sites, {"z": (plate,)}, [term], density)
    assert max(piece.scopes.shape[1] for piece in found.pieces) == widest
    tables, _ = found.tables(density)
    x = np.random.default_rng(1).integers(0, 3, (20, 5))
    total = np.zeros(20)
    for piece, table in zip(found.pieces, tables, strict=True):
        at = [x[:, column] for column in piece.scopes.T]
        total += table[(*at, np.arange(len(piece.columns)))].sum(1)
    np.testing.assert_allclose(total, density(x).sum(1))


def test_a_dependence_that_was_not_seen_is_refused():
    sites = Coordinates.of({"z": np.arange(2)[None]}, {"z": (3,)})
    term = Term("x", 0, (3,), ("rows",), ())
    with pytest.raises(
        ValueError, match=r"'x' changes with discrete latents .* Python control flow"
    ):
        tabulate(sites, {"z": ("rows",)}, [term], aligned)


def test_a_term_of_too_many_latents_is_refused():
    sites = Coordinates.of({"z": np.arange(2)[None]}, {"z": (40,)})
    term = Term("x", 0, (), (), ("z",))
    with pytest.raises(ValueError, match=r"'x' depends on .*40 .*gibbs"):
        tabulate(sites, {"z": ("rows",)}, [term], lambda x: np.sin(x.sum(1, keepdims=True)))


def test_rows_that_join_are_told():
    sites = Coordinates.of({"k": np.arange(2)[None], "z": np.arange(2)[None]}, {"k": (), "z": (4,)})
    plates = {"k": (), "z": ("rows",)}

    def own(x: np.ndarray) -> np.ndarray:
        return np.sin(x[:, 1:])

    def shared(x: np.ndarray) -> np.ndarray:
        return np.sin(x[:, 1:] + 2.0 * x[:, :1])

    for density, depends, joins in ((own, ("z",), None), (shared, ("k", "z"), "x")):
        term = Term("x", 0, (4,), ("rows",), depends)
        tabulation = tabulate(sites, plates, [term], density)
        assert sources_of(tabulation, [term], plates, ("rows",)).joins == joins
