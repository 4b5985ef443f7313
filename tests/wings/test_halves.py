"""Products of zeros and ones by two products in half precision: error, gradients, chains, log Z."""

import importlib
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from deepgen_ppl import halves, harmonium

ROWS, FIRST, SECOND = 40, 70, 50
SUMS = 2.0**-23 * FIRST  # of sums in single precision, relative to the sum of absolute values


@pytest.fixture(autouse=True)
def _one_wing(wing: str) -> None:
    if wing != "numpyro":
        pytest.skip("torch has no product of halves with single sums: docs/backends.md")


@pytest.fixture(params=["0", "1"], ids=["plain", "halves"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way of taking products, forced."""
    monkeypatch.setenv(halves.SWITCH, request.param)
    return request.param


@pytest.fixture(scope="module")
def numbers() -> dict[str, np.ndarray]:
    """Zeros and ones, and a matrix and a change of many scales."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-6, 4, (FIRST, SECOND))
    return {
        "f": (rng.random((ROWS, FIRST)) < 0.3).astype(np.float32),
        "g": (rng.random((ROWS, SECOND)) < 0.3).astype(np.float32),
        "weight": (rng.normal(size=(FIRST, SECOND)) * scale).astype(np.float32),
        "change": rng.normal(size=(ROWS, SECOND)).astype(np.float32),
    }


def within(found: Any, left: np.ndarray, right: np.ndarray, error: float) -> bool:
    """Whether a product is within an error, relative to the sum of its absolute terms."""
    left, right = left.astype(float), right.astype(float)
    most = (error + SUMS) * (np.abs(left) @ np.abs(right))
    return bool((np.abs(np.asarray(found, float) - left @ right) <= most).all())


def test_products_and_gradients_are_those_of_doubles(numbers: Any, way: str) -> None:
    """To 2**-16 of the absolute terms in halves, and to single precision without."""
    import jax

    room = importlib.import_module("deepgen_ppl.numpyro.programs.energy.halves")
    f, g, weight, change = (numbers[name] for name in ("f", "g", "weight", "change"))
    error = halves.ERROR if way == "1" else 0.0
    ready = room.prepared(weight, ROWS, True)
    assert isinstance(ready, room.Halves) == (way == "1")
    assert within(room.product(f, ready), f, weight, error)
    assert within(room.product_back(g, ready), g, weight.T, error)
    field = jax.jit(lambda f, w: room.field(f, w, True))
    found, back = jax.vjp(field, f, weight)
    assert within(found, f, weight, error)
    for_f, for_weight = back(change)
    assert within(for_weight, f.T, change, error)
    assert within(for_f, change, weight.T, 0.0)


def test_halves_are_what_is_said(numbers: Any) -> None:
    """Both together miss a number by less than the stated error, and one alone does not."""
    room = importlib.import_module("deepgen_ppl.numpyro.programs.energy.halves")
    weight = numbers["weight"]
    high, low = (np.asarray(part, float) for part in room.split(weight))
    missed = np.abs(high + low - weight) / np.abs(weight)
    assert missed.max() < halves.ERROR
    assert (np.abs(high - weight) / np.abs(weight)).max() > 2.0**-10
    lost = np.asarray(room.split(np.array([np.inf, -np.inf, np.nan], np.float32)), float).sum(0)
    assert not np.isfinite(lost).any()


def test_what_is_not_single_or_not_binary_is_left_alone(monkeypatch: Any) -> None:
    """Gaussian units, and double precision, have the plain product whatever is asked for."""
    room = importlib.import_module("deepgen_ppl.numpyro.programs.energy.halves")
    layers = importlib.import_module("deepgen_ppl.numpyro.programs.energy.units")
    monkeypatch.setenv(halves.SWITCH, "1")
    single = np.ones((FIRST, SECOND), np.float32)
    assert room.prepared(single, ROWS, False) is single
    double = single.astype(np.float64)
    assert room.prepared(double, ROWS, True) is double
    kinds = [harmonium.Units(kind, 2, 3) for kind in harmonium.KINDS]
    assert [layers.is_binary([units]) for units in kinds] == [True, False, True]


def test_sizes_and_processor_decide(monkeypatch: Any) -> None:
    """Where nothing is asked for: few rows and small matrices are not worth it."""
    monkeypatch.delenv(halves.SWITCH, raising=False)
    monkeypatch.setattr(halves, "has_half_units", lambda: True)
    assert halves.wanted(128, 784 * 500)
    assert not halves.wanted(8, 784 * 500)
    assert not halves.wanted(128, 784)
    monkeypatch.setattr(halves, "has_half_units", lambda: False)
    assert not halves.wanted(128, 784 * 500)


@pytest.fixture(scope="module")
def machine() -> Any:
    """A small machine away from its initial weights, and its visible law by enumeration."""
    dg = importlib.import_module("deepgen_ppl.numpyro")
    on = importlib.import_module(f"{__package__}.energies_numpyro")
    rbm = on.shaken(dg.RBM(5, 4, seed=1), 0.7)
    states = (np.arange(32)[:, None] >> np.arange(5) & 1).astype(np.float32)
    scores = on.numpy(rbm.unnormalised_log_prob(on.array(states))).astype(float)
    return rbm, states, np.exp(scores - logsumexp(scores)), logsumexp(scores)


def test_chains_and_gradients_are_the_enumerated_ones(machine: Any, way: str) -> None:
    """Exact draws stay exact, and their gradient is that of log Z, in five standard errors."""
    on = importlib.import_module(f"{__package__}.energies_numpyro")
    rbm, states, law, _ = machine
    number = 20_000
    chosen = np.random.default_rng(0).choice(32, number, p=law)
    x = on.chain(rbm, states[chosen], 3)
    assert set(np.unique(x)) == {0.0, 1.0}
    error = np.sqrt(law @ (states - law @ states) ** 2 / number)
    assert (np.abs(x.mean(0) - law @ states) < 5 * error).all()
    pairs = np.stack([states[:, i] * states[:, j] for i in range(5) for j in range(i)], 1)
    seen = np.stack([x[:, i] * x[:, j] for i in range(5) for j in range(i)], 1)
    error = np.sqrt(law @ (pairs - law @ pairs) ** 2 / number)
    assert (np.abs(seen.mean(0) - law @ pairs) < 5 * error).all()
    gradients = on.chain_gradient(rbm, (x, np.zeros((number, 4), np.float32)))
    (found,) = (g for g in gradients if g.shape == (5, 4))
    hidden = on.numpy(rbm.hidden_mean(on.array(states)))
    each = states[:, :, None] * hidden[:, None, :]
    truth = np.tensordot(law, each, 1)
    error = np.sqrt(np.tensordot(law, (each - truth) ** 2, 1) / number)
    assert (np.abs(found - truth) < 5 * error).all()


def test_log_z_is_the_enumerated_one_and_densities_do_not_move(machine: Any, way: str) -> None:
    """Annealed by either product; what is reported of densities is of single precision always."""
    dg = importlib.import_module("deepgen_ppl.numpyro")
    rbm, states, law, truth = machine
    found = dg.log_z(rbm, method="ais", num_temperatures=60, progress=False)
    assert abs(found.log_evidence - truth) < 5 * found.standard_error
    density = np.asarray(rbm.with_log_z(truth).log_prob(states), float)
    np.testing.assert_allclose(density, np.log(law), rtol=0.0, atol=1e-5)
