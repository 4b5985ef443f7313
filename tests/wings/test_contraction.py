"""Summing out factor graphs: against the enumeration of all states, and on long chains."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from deepgen_ppl import loops, plans, products
from deepgen_ppl.contraction import groups_of, plan_of
from deepgen_ppl.plans import Loop, Plan

from . import factor_graphs
from .factor_graphs import GRAPHS, enumerated

CLOSE = {"rtol": 1e-5, "atol": 2e-5}  # single precision, sums of some twenty tables


@pytest.fixture(scope="module")
def engine(wing: str) -> ModuleType:
    """The wing's sums, NumPy in and out."""
    return importlib.import_module(f"deepgen_ppl.{wing}.engine")


@pytest.fixture(params=GRAPHS)
def plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A small graph; steps that repeat thrice are a loop."""
    monkeypatch.setattr(loops, "_LEAST_LOOP", 3)
    return plan_of(*GRAPHS[request.param])


def test_loops_are_among_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_LEAST_LOOP", 3)
    folded = {
        name: any(isinstance(step, Loop) for step in plan_of(*graph).steps)
        for name, graph in GRAPHS.items()
    }
    assert {name for name, found in folded.items() if found} >= {
        "chain",
        "second order",
        "factorial",
    }


@pytest.fixture(params=["sums of logarithms", "products"])
def scale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The scale on which log sums and marginals are found: graphs are not too small for either."""
    if request.param == "products":
        monkeypatch.setattr(products, "_LEAST_TABLE", 0)
    return request.param


def some_tables(plan: Plan, seed: int, forbidden: float = 0.02) -> list[np.ndarray]:
    """Tables of three parts that share those of factors."""
    return factor_graphs.tables(plan, 3, seed, forbidden, shared=factor_graphs.factors(plan))


@pytest.mark.usefixtures("scale")
def test_log_sums_and_marginals(engine: ModuleType, plan: Plan) -> None:
    """Sums, marginals of variables and of factors are those of the enumeration."""
    tables = factor_graphs.tables(plan, 3)
    law = enumerated(plan, tables)
    assert np.isfinite(law.log_sums).any()
    np.testing.assert_allclose(engine.log_sums(plan, tables), law.log_sums, **CLOSE)
    found, seen = engine.marginals(plan, tables, range(len(tables)))
    np.testing.assert_allclose(found, law.log_sums, **CLOSE)
    for ours, truth in zip(seen, factor_graphs.marginals(plan, law), strict=True):
        np.testing.assert_allclose(ours, truth, **CLOSE)


@pytest.mark.usefixtures("scale")
def test_shared_tables_have_the_weighted_sum_of_marginals(engine: ModuleType, plan: Plan) -> None:
    tables = some_tables(plan, 1)
    law, weights = enumerated(plan, tables), np.array([0.5, 2.0, 0.0])
    found, seen = engine.marginals(plan, tables, range(len(tables)), weights)
    np.testing.assert_allclose(found, law.log_sums, **CLOSE)
    for number, truth in enumerate(factor_graphs.marginals(plan, law)):
        truth = truth * weights
        truth = truth.sum(-1, keepdims=True) if number in factor_graphs.factors(plan) else truth
        assert seen[number].shape == tables[number].shape
        np.testing.assert_allclose(seen[number], truth, **CLOSE)


def test_products_that_would_underflow_are_summed_as_logarithms(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that contradict each other by factors of e^-120: in one part of five, and in all."""
    monkeypatch.setattr(products, "_LEAST_TABLE", 0)
    plan = plan_of([3, 3, 3, 3], [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)])
    assert products.products_of(plan) is not None
    for chosen in ([3], range(5)):
        tables = factor_graphs.tables(plan, 5, 3, forbidden=0.0)
        one, other = (plan.table(factor) for factor in (1, 4))
        for part in chosen:
            tables[one[0]][0, :, one[1], part] -= 120.0
            tables[other[0]][1:, :, other[1], part] -= 120.0
        law = enumerated(plan, tables)
        np.testing.assert_allclose(engine.log_sums(plan, tables), law.log_sums, **CLOSE)
        found, seen = engine.marginals(plan, tables, range(len(tables)))
        np.testing.assert_allclose(found, law.log_sums, **CLOSE)
        for ours, truth in zip(seen, factor_graphs.marginals(plan, law), strict=True):
            np.testing.assert_allclose(ours, truth, **CLOSE)


def test_best_states(engine: ModuleType, plan: Plan) -> None:
    """The states reach the largest sum of tables, which is what is told."""
    tables = some_tables(plan, 2)
    law = enumerated(plan, tables)
    states, value = engine.best(plan, tables)
    largest = law.log_tables.reshape(-1, 3).max(0)
    np.testing.assert_allclose(value, largest, **CLOSE)
    np.testing.assert_allclose(law.log_tables[(*states, np.arange(3))], largest, **CLOSE)


@pytest.mark.parametrize("plan", ["chain", "factorial", "cycle", "tree", "threes"], indirect=True)
def test_draws_are_exact(engine: ModuleType, plan: Plan) -> None:
    """Frequencies of all variables and pairs are within five standard errors of their law."""
    count = 3000
    tables = some_tables(plan, 8)
    law = enumerated(plan, tables)
    assert np.isfinite(law.log_sums).all()
    drawn = engine.draws(plan, tables, count, 5)
    size = len(plan.cards)
    assert drawn.shape == (count, size, 3)
    scopes = [(v,) for v in range(size)] + [(v, v + 1) for v in range(size - 1)]
    scopes += [(0, size - 1)] * (size > 2)
    for scope in scopes:
        truth = factor_graphs.marginal(law, scope)
        seen = np.zeros_like(truth)
        for part in range(3):
            np.add.at(seen[..., part], tuple(drawn[:, v, part] for v in scope), 1 / count)
        error = np.sqrt(np.maximum(truth * (1 - truth), 0.0) / count)
        assert (np.abs(seen - truth) <= 5 * error + 1 / count).all()
        assert (seen[truth == 0] == 0).all()


@pytest.mark.parametrize("plan", ["chain", "star", "threes"], indirect=True)
def test_slopes(engine: ModuleType, plan: Plan) -> None:
    """How log sums change is the expectation of the direction, also of shared tables."""
    tables = some_tables(plan, 4)
    directions = some_tables(plan, 5, forbidden=0.0)
    law = enumerated(plan, tables)
    truth = np.zeros(3)
    for own, direction in zip(factor_graphs.marginals(plan, law), directions, strict=True):
        truth += (own * direction).reshape(-1, 3).sum(0)
    np.testing.assert_allclose(engine.slopes(plan, tables, directions), truth, atol=1e-4)


@pytest.mark.usefixtures("scale")
@pytest.mark.parametrize("plan", ["chain", "star", "threes"], indirect=True)
def test_impossible_parts(engine: ModuleType, plan: Plan) -> None:
    """A part without possible states has log sum minus infinity and touches no other."""
    tables = some_tables(plan, 6, forbidden=0.0)
    number, place = plan.unary(len(plan.cards) - 1)
    tables[number][:, place, 1] = -np.inf
    law = enumerated(plan, tables)
    found, seen = engine.marginals(plan, tables, range(len(tables)))
    assert found[1] == -np.inf
    np.testing.assert_allclose(found, law.log_sums, **CLOSE)
    for number, truth in enumerate(factor_graphs.marginals(plan, law)):
        truth = truth.sum(-1, keepdims=True) if number in factor_graphs.factors(plan) else truth
        np.testing.assert_allclose(seen[number], truth, **CLOSE)
    number = plan.unary(0)[0]
    assert (seen[number][..., 1] == 0).all()
    assert engine.best(plan, tables)[1][1] == -np.inf
    assert engine.slopes(plan, tables, [np.ones_like(table) for table in tables])[1] == 0


def test_draws_follow_the_seed_alone(engine: ModuleType, wing: str) -> None:
    plan = plan_of(*GRAPHS["cycle"])
    tables = factor_graphs.tables(plan, 5)

    def state() -> Any:
        if wing == "numpyro":
            return np.random.get_state()[1].tolist()
        torch = importlib.import_module("torch")
        return torch.get_rng_state().tolist()

    before = state()
    first, again, other = (engine.draws(plan, tables, 20, seed) for seed in (0, 0, 1))
    assert state() == before
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_chunks_do_not_matter(engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts in chunks, the last one smaller, are the parts at once."""
    plan = plan_of(*GRAPHS["cycle"])
    shared = factor_graphs.factors(plan)
    tables = factor_graphs.tables(plan, 21, shared=shared)
    law = enumerated(plan, tables)
    monkeypatch.setattr(plans, "_MOST_CHUNK", 8)
    np.testing.assert_allclose(engine.log_sums(plan, tables), law.log_sums, **CLOSE)
    _, seen = engine.marginals(plan, tables, range(len(tables)))
    for number, truth in enumerate(factor_graphs.marginals(plan, law)):
        truth = truth.sum(-1, keepdims=True) if number in shared else truth
        np.testing.assert_allclose(seen[number], truth, rtol=1e-5, atol=1e-4)
    drawn = engine.draws(plan, tables, 50, 0)
    assert drawn.shape == (50, 4, 21)
    assert np.isfinite(law.log_tables[(*np.moveaxis(drawn, 1, 0), np.arange(21))]).all()
    assert len({drawn[..., part].tobytes() for part in range(21)}) == 21


@pytest.mark.parametrize("name", ["chain", "cycle"])
def test_second_derivatives_are_covariances(
    wing: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curvature of the log sum along a table is the covariance of its indicators."""
    monkeypatch.setattr(loops, "_LEAST_LOOP", 3)
    plan = plan_of(*GRAPHS[name])
    tables = factor_graphs.tables(plan, 1, seed=7)
    law = enumerated(plan, tables)
    number, place = plan.unary(0)
    mean = factor_graphs.marginal(law, (0,))[:, 0]
    truth = np.diag(mean) - mean[:, None] * mean
    found = _curvature(wing, plan, tables, number)
    np.testing.assert_allclose(found[:, place, :, place], truth, **CLOSE)
    assert np.isfinite(found).all()


def _curvature(wing: str, plan: Plan, tables: list[np.ndarray], number: int) -> np.ndarray:
    """Second derivatives with respect to a stack of tables of single variables, by autodiff."""
    own = importlib.import_module(f"deepgen_ppl.{wing}.contraction")
    if wing == "numpyro":
        jax = importlib.import_module("jax")
        arrays = [jax.numpy.asarray(table, "float32") for table in tables]
        hessian = lambda value: jax.jit(jax.hessian(value))  # noqa: E731
    else:
        torch = importlib.import_module("torch")
        arrays = [torch.as_tensor(table, dtype=torch.float32) for table in tables]
        hessian = torch.func.hessian

    def value(table: Any) -> Any:
        return own.log_sum(plan, [*arrays[:number], table, *arrays[number + 1 :]])[0]

    return np.asarray(hessian(value)(arrays[number]))[..., 0, :, :, 0]


def test_a_chain_of_a_thousand_does_not_underflow(engine: ModuleType) -> None:
    """Log sums of minus fifty thousand, and smoothing marginals, as the recursions say."""
    length, card, parts = 1000, 3, 4
    rng = np.random.default_rng(0)
    pairwise, local = rng.normal(size=(card, card)), rng.normal(size=(length, card, parts)) * 3 - 50
    plan = plan_of([card] * length, [(t, t + 1) for t in range(length - 1)])
    tables = [
        np.moveaxis(local, 0, 1) if stack.unary
        else np.repeat(pairwise[..., None, None], length - 1, 2) for stack in plan.stacks
    ]  # fmt: skip
    unary = plan.unary(0)[0]
    found, (seen,) = engine.marginals(plan, tables, [unary])
    forward = _forwards(local, pairwise)
    backward = _forwards(local[::-1], pairwise.T)[::-1]
    truth = logsumexp(forward[-1], axis=0)
    assert (truth < -45_000).all()
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    smoothed = np.exp(forward + backward - local - truth)
    np.testing.assert_allclose(np.moveaxis(seen, 1, 0), smoothed, atol=2e-5)
    states, value = engine.best(plan, tables)
    steps = np.arange(length)[:, None], states, np.arange(parts)
    score = local[steps].sum(0) + pairwise[states[:-1], states[1:]].sum(0)
    np.testing.assert_allclose(value, score, rtol=1e-6)
    assert (value > truth - length * np.log(card)).all()
    drawn = engine.draws(plan, tables, 400, 0)
    seen = np.stack([(drawn == state).mean(0) for state in range(card)], 1)
    error = np.sqrt(np.maximum(smoothed * (1 - smoothed), 0.0) / 400)
    assert (np.abs(seen - smoothed) <= 5 * error + 3 / 400).all()


def _forwards(local: np.ndarray, pairwise: np.ndarray) -> np.ndarray:
    """Log sums over all states before each step."""
    found = [local[0]]
    for own in local[1:]:
        found.append(own + logsumexp(found[-1][:, None] + pairwise[..., None], axis=0))
    return np.stack(found)


# ------------------------------------------------------------------------------- random graphs


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, ...]], int]:
    """Up to twelve binary variables, tables over up to three of them, and a seed."""
    size = draw(st.integers(1, 12))
    scope = st.lists(st.integers(0, size - 1), min_size=1, max_size=3, unique=True)
    scopes = draw(st.lists(scope.map(tuple), max_size=14))
    return size, scopes, draw(st.integers(0, 1 << 16))


def agrees_with_enumeration(
    engine: ModuleType, graph: tuple[int, list[tuple[int, ...]], int]
) -> None:
    """Whether sums, marginals and best states of the connected parts are those of the whole."""
    size, scopes, seed = graph
    rng = np.random.default_rng(seed)
    logs = [rng.normal(size=(2,) * len(scope)) * 2 for scope in scopes]
    unary = rng.normal(size=(2, size))
    total = np.zeros((2,) * size)
    for scope, log in [
        *zip(scopes, logs, strict=True),
        *(((v,), unary[:, v]) for v in range(size)),
    ]:
        shape = [2 if v in scope else 1 for v in range(size)]
        total = total + log.transpose(np.argsort(scope)).reshape(shape)
    truth = logsumexp(total)
    by_rank = sorted(range(len(scopes)), key=lambda i: len(scopes[i]))
    blocks = [np.array([scopes[i] for i in by_rank if len(scopes[i]) == rank])
              for rank in (1, 2, 3) if any(len(scope) == rank for scope in scopes)]  # fmt: skip
    log_sum = largest = 0.0
    states = np.zeros(size, int)
    for group in groups_of(np.full(size, 2), blocks):
        plan = group.plan
        tables = [
            np.stack([unary[:, group.variables[:, m]] for m in stack.members], 1) if stack.unary
            else np.stack([np.stack([logs[by_rank[i]] for i in group.factors[:, m]], -1)
                           for m in stack.members], -2)
            for stack in plan.stacks
        ]  # fmt: skip
        number = plan.unary(0)[0]
        found, (seen,) = engine.marginals(plan, tables, [number])
        log_sum += found.sum()
        chosen, value = engine.best(plan, tables)
        largest += value.sum()
        states[group.variables.T] = chosen
        for place, member in enumerate(plan.stacks[number].members):
            for part, v in enumerate(group.variables[:, member]):
                others = tuple(u for u in range(size) if u != v)
                law = np.exp(total - truth).sum(others)
                np.testing.assert_allclose(seen[:, place, part], law, **CLOSE)
    np.testing.assert_allclose(log_sum, truth, **CLOSE)
    np.testing.assert_allclose(largest, total.max(), **CLOSE)
    np.testing.assert_allclose(total[tuple(states)], total.max(), **CLOSE)


@settings(max_examples=5, derandomize=True, database=None, deadline=None)
@given(graph=random_graphs())
def test_random_graphs(engine: ModuleType, graph: Any) -> None:
    agrees_with_enumeration(engine, graph)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(graph=random_graphs())
def test_many_random_graphs(engine: ModuleType, graph: Any) -> None:
    agrees_with_enumeration(engine, graph)
