"""Factor graphs summed out slice by slice, as the NumPyro wing does where steps are unlike."""

import numpy as np
import pytest

from deepgen_ppl import loops, slices
from deepgen_ppl.contraction import plan_of
from deepgen_ppl.plans import Loop, Plan

from . import factor_graphs
from .factor_graphs import GRAPHS, enumerated

CLOSE = {"rtol": 1e-5, "atol": 2e-5}  # single precision, sums of some twenty tables
WEIGHTS = np.array([0.5, 2.0, 0.0])


@pytest.fixture(scope="module")
def engine(wing: str):
    """The wing's sums, NumPy in and out."""
    if wing != "numpyro":
        pytest.skip("the Pyro wing compiles nothing: it runs step by step")
    from deepgen_ppl.numpyro import engine

    return engine


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices however few steps there are; steps that repeat thrice are a loop of the plan."""
    monkeypatch.setattr(loops, "_LEAST_LOOP", 3)
    monkeypatch.setattr(slices, "_SOME_STEPS", 0)


def tables_of(plan: Plan, seed: int, forbidden: float = 0.02) -> list[np.ndarray]:
    """Tables of three parts that share those of factors."""
    return factor_graphs.tables(plan, 3, seed, forbidden, shared=factor_graphs.factors(plan))


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("name", ["second order", "twice", "star", "threes"])
def test_marginals_are_those_of_the_enumeration(engine, name: str) -> None:
    """Of variables and factors, weighted, added up where parts share; one part is impossible."""
    plan = plan_of(*GRAPHS[name])
    tables = tables_of(plan, 1)
    number, place = plan.unary(0)
    tables[number][:, place, 0] = -np.inf
    law = enumerated(plan, tables)
    found, seen = engine.marginals(plan, tables, range(len(tables)), WEIGHTS)
    np.testing.assert_allclose(found, law.log_sums, **CLOSE)
    assert found[0] == -np.inf and np.isfinite(found[1:]).all()
    for i, truth in enumerate(factor_graphs.marginals(plan, law)):
        truth = truth * WEIGHTS
        truth = truth.sum(-1, keepdims=True) if i in factor_graphs.factors(plan) else truth
        assert seen[i].shape == tables[i].shape
        np.testing.assert_allclose(seen[i], truth, **CLOSE)


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("name", ["second order", "threes"])
def test_best_states_slopes_and_draws(engine, name: str) -> None:
    plan = plan_of(*GRAPHS[name])
    assert any(isinstance(step, Loop) for step in plan.steps) == (name == "second order")
    tables, directions = tables_of(plan, 2), tables_of(plan, 3, forbidden=0.0)
    law = enumerated(plan, tables)
    states, value = engine.best(plan, tables)
    largest = law.log_tables.reshape(-1, 3).max(0)
    np.testing.assert_allclose(value, largest, **CLOSE)
    np.testing.assert_allclose(law.log_tables[(*states, np.arange(3))], largest, **CLOSE)
    truth = np.zeros(3)
    for own, direction in zip(factor_graphs.marginals(plan, law), directions, strict=True):
        truth += (own * direction).reshape(-1, 3).sum(0)
    np.testing.assert_allclose(engine.slopes(plan, tables, directions), truth, atol=1e-4)
    drawn = engine.draws(plan, tables, 3000, 5)
    for scope in [(v, v + 1) for v in range(len(plan.cards) - 1)]:
        truth = factor_graphs.marginal(law, scope)
        seen = np.zeros_like(truth)
        for part in range(3):
            np.add.at(seen[..., part], tuple(drawn[:, v, part] for v in scope), 1 / 3000)
        error = np.sqrt(np.maximum(truth * (1 - truth), 0.0) / 3000)
        assert (np.abs(seen - truth) <= 5 * error + 1 / 3000).all()


def test_many_unlike_steps_agree_with_matrices(engine) -> None:
    """A thousand variables in a band, which are chains of blocks too: sums and marginals."""
    size, band, rng = 1000, 5, np.random.default_rng(0)
    scopes = [(i, int(i + rng.integers(1, band + 1))) for i in range(size - band)]
    scopes += [(i, i + 1) for i in range(size - 1)]
    plan = plan_of([2] * size, scopes)
    assert slices.layout_of(plan) is not None
    pairs, alone = rng.normal(size=(len(scopes), 2, 2)) * 2, rng.normal(size=(size, 2)) - 30.0
    tables = [np.moveaxis(alone if stack.unary else pairs[stack.members], 0, -1)[..., None]
              for stack in plan.stacks]  # fmt: skip
    number = plan.unary(0)[0]
    found, (seen,) = engine.marginals(plan, tables, [number])
    truth, law = blocks(size, band, scopes, pairs, alone)
    assert truth < -25_000
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    np.testing.assert_allclose(seen[..., 0].T, law, atol=2e-5)


def blocks(size: int, band: int, scopes: list, pairs: np.ndarray, alone: np.ndarray):
    """Log sum and marginals of a band by recursion over blocks of its width."""
    from scipy.special import logsumexp

    bits = np.arange(1 << band)[:, None] >> np.arange(band) & 1  # state of each in a block
    count = size // band
    local = np.zeros((count, 1 << band))
    between = np.zeros((count - 1, 1 << band, 1 << band))
    for v in range(size):
        local[v // band] += alone[v, bits[:, v % band]]
    for (one, other), table in zip(scopes, pairs, strict=True):
        i, j = one // band, other // band
        first, second = bits[:, one % band], bits[:, other % band]
        if i == j:
            local[i] += table[first, second]
        else:
            between[i] += table[first[:, None], second[None]]
    forward, backward = [local[0]], [np.zeros(1 << band)]
    for i in range(count - 1):
        forward.append(local[i + 1] + logsumexp(forward[-1][:, None] + between[i], axis=0))
        back = between[-1 - i] + local[-1 - i] + backward[-1]
        backward.append(logsumexp(back, axis=1))
    total = logsumexp(forward[-1])
    law = np.exp(np.stack(forward) + np.stack(backward[::-1]) - total)
    ones = law @ bits
    ones = ones.reshape(-1)
    return total, np.stack([1 - ones, ones], -1)
