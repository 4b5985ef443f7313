"""Pairwise fields against the enumeration of all their values."""

import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

RNG = np.random.default_rng(0)
TREE = [(0, 1), (1, 2), (2, 3), (1, 4)]
KINDS = ("grid", "tree")


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """Energies of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.energies_{wing}")


@pytest.fixture(scope="module")
def made(dg: Any) -> dict[str, Any]:
    """Ising's model on a grid of 3 x 3, and three values on a tree."""
    edges = dg.grid_edges(3, 3)
    coupling, field = 0.4 * RNG.normal(size=len(edges)), 0.3 * RNG.normal(size=9)
    unary, pairwise = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3, 3))
    return {
        "grid": dg.Ising(9, edges, coupling=coupling, field=field),
        "tree": dg.PairwiseField(5, 3, TREE, unary=unary, pairwise=pairwise),
    }


@pytest.fixture(scope="module")
def laws(made: Any, on: Any) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """All values of each field, their probabilities, and log Z."""
    found = {}
    for kind, size in (("grid", 9), ("tree", 5)):
        values = np.array(list(itertools.product(range(made[kind].states), repeat=size)))
        density = on.numpy(made[kind].unnormalised_log_prob(on.array(values))).astype(float)
        log_z = float(logsumexp(density))
        found[kind] = values, np.exp(density - log_z), log_z
    return found


def of_values(law: tuple[np.ndarray, np.ndarray, float], states: int) -> np.ndarray:
    """Probabilities of each variable's values."""
    values, probs, _ = law
    return np.stack([((values == k) * probs[:, None]).sum(0) for k in range(states)], -1)


def test_the_density_of_spins_is_the_formula(dg: Any, on: Any) -> None:
    edges = ((0, 1), (1, 2))
    ising = dg.Ising(3, edges, coupling=[0.5, -1.0], field=[0.1, 0.2, -0.3])
    x = np.array([[0, 1, 1], [1, 1, 0]], float)
    s = 2 * x - 1
    wanted = s @ [0.1, 0.2, -0.3] + 0.5 * s[:, 0] * s[:, 1] - s[:, 1] * s[:, 2]
    np.testing.assert_allclose(
        on.numpy(ising.unnormalised_log_prob(on.array(x))), wanted, rtol=1e-5, atol=1e-6
    )
    outside = on.numpy(ising.unnormalised_log_prob(on.array([[0.0, 2.0, 1.0], [0.5, 0.0, 1.0]])))
    assert (outside == -np.inf).all()


@pytest.mark.parametrize("kind", KINDS)
def test_log_z_is_summed_out_and_annealed(
    dg: Any, made: Any, laws: Any, on: Any, kind: str
) -> None:
    log_z = laws[kind][2]
    assert abs(dg.log_z(made[kind]).log_evidence - log_z) < 1e-5
    bounds = dg.log_z_bounds(made[kind], num_temperatures=200, burn_in=50, progress=False)
    for bound in bounds.bounds:
        assert abs(bound.value - log_z) < 5 * bound.standard_error
    known = made[kind].with_log_z(dg.log_z(made[kind]))
    total = np.exp(on.numpy(known.log_prob(on.array(laws[kind][0])))).sum()
    assert abs(total - 1.0) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_chains_and_their_averages_have_the_law(made: Any, laws: Any, on: Any, kind: str) -> None:
    field = made[kind]
    wanted = of_values(laws[kind], field.states)
    draws = on.numpy(field.draws(3000, 60, seed=1))
    seen = np.stack([(draws == k).mean(0) for k in range(field.states)], -1)
    assert np.all(np.abs(seen - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / 3000))
    found = on.numpy(field.marginals(num_chains=64, num_steps=200))
    assert np.abs(found - wanted).max() < 0.02  # 12,800 averaged conditionals


def test_tempered_draws_of_a_magnet_weigh_both_phases(dg: Any, on: Any) -> None:
    ising = dg.Ising(9, dg.grid_edges(3, 3), coupling=1.0, field=0.05)
    x = np.array(list(itertools.product((0.0, 1.0), repeat=9)))
    log_p = on.numpy(ising.unnormalised_log_prob(on.array(x))).astype(float)
    up = x.sum(1) > 4
    share = np.exp(log_p[up]).sum() / np.exp(log_p).sum()
    draws = on.numpy(ising.draws(2000, 200, num_temperatures=5, seed=2))
    assert abs((draws.sum(1) > 4).mean() - share) < 5 * np.sqrt(share * (1 - share) / 2000)
    plain = on.numpy(ising.draws(2000, 200, seed=2))
    assert abs((plain.sum(1) > 4).mean() - share) > 0.05  # they stay in the phase they began in


@pytest.mark.parametrize("kind", KINDS)
def test_exact_draws_stay_exact(made: Any, laws: Any, on: Any, kind: str) -> None:
    values, probs, _ = laws[kind]
    rng, num = np.random.default_rng(5), 20_000
    start = rng.choice(len(probs), num, p=probs / probs.sum())
    ended = on.chain(made[kind], values[start].astype("float32"), 1, seed=6)
    place = made[kind].states ** np.arange(values.shape[1] - 1, -1, -1)
    counts = np.bincount((ended @ place).astype(int), minlength=len(probs))
    order = np.argsort(values @ place)
    expected = num * probs[order]
    top = np.argsort(-expected)[:30]
    assert np.all(np.abs(counts - expected)[top] < 5 * np.sqrt(expected[top]))
    assert np.mean((ended != values[start]).any(1)) > 0.5


def test_messages_find_the_best_values_of_a_tree(made: Any, laws: Any, on: Any) -> None:
    values, probs, _ = laws["tree"]
    best = on.numpy(made["tree"].map())
    np.testing.assert_array_equal(best, values[probs.argmax()])
    external = np.random.default_rng(2).normal(size=(6, 5, 3))
    found = on.numpy(made["tree"].map(on.array(external)))
    for row in range(6):
        own = np.log(probs) + external[row][np.arange(5), values].sum(1)
        np.testing.assert_array_equal(found[row], values[own.argmax()])


def test_ascent_ends_where_no_single_change_helps(made: Any, laws: Any, on: Any) -> None:
    values, probs, _ = laws["grid"]
    table = dict(zip(map(tuple, values.tolist()), probs, strict=True))
    found = tuple(on.numpy(made["grid"].map(method="ascent")).tolist())
    for i in range(9):
        other = tuple(1 - v if i == j else v for j, v in enumerate(found))
        assert table[other] <= table[found]
    best = table[tuple(on.numpy(made["grid"].map()).tolist())]
    assert best >= table[found] * (1 - 1e-6)


def test_likelihoods_are_added(made: Any, laws: Any, on: Any) -> None:
    from deepgen_ppl.pair_graph import flip_likelihood

    values, probs, _ = laws["grid"]
    y = np.random.default_rng(3).integers(0, 2, (2, 9)).astype(float)
    external = flip_likelihood(y, 0.2)
    found = on.numpy(made["grid"].marginals(on.array(external), num_chains=64, num_steps=200))
    for row in range(2):
        own = probs * np.exp(external[row][np.arange(9), values].sum(1))
        wanted = (values * (own / own.sum())[:, None]).sum(0)
        np.testing.assert_allclose(found[row][:, 1], wanted, atol=0.02)


def test_training_matches_the_statistics_of_the_data(dg: Any, on: Any) -> None:
    """Maximum likelihood: what the field expects of its ties is what the data have."""
    edges = dg.grid_edges(2, 3)
    truth = dg.Ising(6, edges, coupling=0.5, field=0.2)
    values = np.array(list(itertools.product((0, 1), repeat=6)), float)
    law = np.exp(on.numpy(truth.unnormalised_log_prob(on.array(values))).astype(float))
    x = values[np.random.default_rng(4).choice(64, 2000, p=law / law.sum())].astype("float32")
    fit = dg.contrastive(
        dg.Ising(6, edges), on.array(x), num_steps=400, num_chains=400, chain_steps=2,
        progress=False,
    )  # fmt: skip
    before = dg.Ising(6, edges).with_log_z(6 * np.log(2.0))
    learned = dg.flows.fitted(before, fit, "energy")
    assert learned.log_z is None  # it was that of the ties before training
    own = np.exp(on.numpy(learned.unnormalised_log_prob(on.array(values))).astype(float))
    own = own / own.sum()
    first, second = np.array(edges).T
    ties = (2 * values - 1)[:, first] * (2 * values - 1)[:, second]
    data = ((2 * x - 1)[:, first] * (2 * x - 1)[:, second]).mean(0)
    start, end = np.abs(data).max(), np.abs(own @ ties - data).max()
    assert end < 0.35 * start


def test_it_is_a_factor_graph(dg: Any, made: Any, laws: Any) -> None:
    found = dg.exact(made["tree"].factor_graph())
    wanted = of_values(laws["tree"], 3)
    for i in range(5):
        np.testing.assert_allclose(found.marginals[f"x{i}"], wanted[i], atol=1e-5)


def test_mistakes_are_told(dg: Any, made: Any, on: Any) -> None:
    with pytest.raises(ValueError, match=r"edge \(0, 3\) does not join two .* below 3"):
        dg.Ising(3, [(0, 3)])
    with pytest.raises(ValueError, match="an edge stands twice"):
        dg.Ising(3, [(0, 1), (1, 0)])
    with pytest.raises(ValueError, match=r"coupling has shape \(3,\), wanted is \(1,\)"):
        dg.Ising(3, [(0, 1)], coupling=np.ones(3))
    with pytest.raises(ValueError, match="states"):
        dg.PairwiseField(3, 1, [(0, 1)])
    with pytest.raises(ValueError, match=r"external .*\(\*batch, 9, 2\), these have \(4, 9\)"):
        made["grid"].map(on.array(np.zeros((4, 9))))
    with pytest.raises(ValueError, match=r"\(\*batch, 9\), these have \(4, 8\)"):
        made["grid"].unnormalised_log_prob(on.array(np.zeros((4, 8))))
    with pytest.raises(ValueError, match=r"outside (its|the) support"):
        dg.contrastive(made["grid"], on.array(np.full((4, 9), 2.0)), num_steps=1, progress=False)
    with pytest.raises(ValueError, match="method"):
        made["grid"].map(method="guess")
