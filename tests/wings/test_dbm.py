"""Deep Boltzmann machines: densities, bounds, chains and gradients against enumeration."""

import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

VISIBLE = 4
DEPTHS = {1: (3,), 2: (3, 2), 3: (2, 3, 2), 4: (2, 2, 1, 2)}


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """Energies of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.energies_{wing}")


@pytest.fixture(scope="module")
def made(dg: Any, on: Any) -> dict[int, Any]:
    """A machine of each depth, away from its initial weights."""
    return {n: on.shaken(dg.DBM(VISIBLE, hidden, seed=1)) for n, hidden in DEPTHS.items()}


def bits(number: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=number)))


def by_hand(dbm: Any, on: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The joint log density of every state, (visible, hidden), from the definition."""
    layers = [bits(VISIBLE), *np.split(bits(sum(dbm.hidden)), np.cumsum(dbm.hidden)[:-1], 1)]
    biases = [on.numpy(b) for b in (dbm.visible_bias, *dbm.hidden_biases)]
    total = (layers[0] @ biases[0])[:, None] + sum(
        h @ b for h, b in zip(layers[1:], biases[1:], strict=True)
    )
    total = total + layers[0] @ on.numpy(dbm.weights[0]) @ layers[1].T
    for below, above, weight in zip(layers[1:], layers[2:], list(dbm.weights)[1:], strict=False):
        total = total + ((below @ on.numpy(weight)) * above).sum(1)
    return total, layers


@pytest.mark.parametrize("depth", DEPTHS)
def test_densities_are_those_of_the_definition(made: Any, on: Any, dg: Any, depth: int) -> None:
    """Joint, summed and normalised; the mean field stays below the sum, and meets it at depth 1."""
    dbm = made[depth]
    truth, layers = by_hand(dbm, on)
    x = on.array(layers[0])
    joint = on.numpy(dbm.joint_log_prob(x[:, None], *map(on.array, layers[1:])))
    np.testing.assert_allclose(joint, truth, rtol=1e-5, atol=1e-5)
    summed = logsumexp(truth, axis=1)
    np.testing.assert_allclose(dbm.summed_log_prob(x), summed, rtol=1e-5, atol=1e-5)
    assert abs(dg.log_z(dbm).log_evidence - logsumexp(truth)) < 1e-5
    gap = summed - on.numpy(dbm.unnormalised_log_prob(x))
    assert (gap > -1e-5).all()
    assert gap.max() < (1e-5 if depth == 1 else 0.3)
    assert depth == 1 or gap.min() > 1e-3
    known = dbm.with_log_z(dg.log_z(dbm))
    below = on.numpy(known().log_prob(x))
    assert logsumexp(below) < 1e-5  # a lower bound of a density: at most one in all
    np.testing.assert_allclose(below, summed - logsumexp(truth) - gap, rtol=1e-4, atol=1e-4)


def test_the_bound_is_tight_where_couplings_are_weak(dg: Any, on: Any) -> None:
    """Its gap falls as the square of the couplings."""
    x, gaps = on.array(bits(VISIBLE)), []
    for scale in (0.4, 0.2):
        dbm = on.shaken(dg.DBM(VISIBLE, (3, 2)), scale)
        gaps.append((dbm.summed_log_prob(x) - on.numpy(dbm.unnormalised_log_prob(x))).mean())
    assert 0.0 < gaps[1] < 0.4 * gaps[0] < 0.02


def test_the_mean_field_is_a_fixed_point(made: Any, on: Any) -> None:
    """Each layer's means are what its neighbours' means make of it."""
    dbm = made[3]
    x = bits(VISIBLE)
    mu = [x, *map(on.numpy, dbm.hidden_means(on.array(x)))]
    weights, biases = [list(map(on.numpy, part)) for part in (dbm.weights, dbm.hidden_biases)]
    for layer in range(1, 4):
        field = biases[layer - 1] + mu[layer - 1] @ weights[layer - 1]
        if layer < 3:
            field = field + mu[layer + 1] @ weights[layer].T
        np.testing.assert_allclose(mu[layer], 1 / (1 + np.exp(-field)), atol=2e-3)


def test_a_centred_machine_is_the_same_density(made: Any, dg: Any, on: Any) -> None:
    """Joint, bound, sums, log Z, mean field, a classifier; so is one that is centred anew."""
    dbm, x = made[3], bits(VISIBLE)
    truth, layers = by_hand(dbm, on)
    once = dbm.centred(on.array(x[6:9]))
    assert dbm.offsets is None
    assert np.abs(on.numpy(once.visible_bias) - on.numpy(dbm.visible_bias)).max() > 0.1
    about, x = {"rtol": 1e-5, "atol": 1e-5}, on.array(x)
    joint = on.numpy(once.joint_log_prob(x[:, None], *map(on.array, layers[1:])))
    np.testing.assert_allclose(joint, truth, **about)
    for name in ("unnormalised_log_prob", "summed_log_prob", "hidden_means"):
        found, wanted = (on.numpy(getattr(m, name)(x)) for m in (once, dbm))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, **about)
    assert abs(dg.log_z(once).log_evidence - logsumexp(truth)) < 1e-5
    same = once.with_weights(once.weights, once.biases)
    assert same.offsets is None
    for other in (same, once.centred(x)):
        for found, wanted in zip(other.biases, dbm.biases, strict=True):
            np.testing.assert_allclose(on.numpy(found), on.numpy(wanted), **about)
    nets = [list(map(on.numpy, m.classifier(3).biases)) for m in (dbm, once)]
    for a, b in zip(*nets, strict=True):
        np.testing.assert_allclose(a, b, **about)


@pytest.fixture(scope="module")
def drawn(made: Any, on: Any) -> tuple[Any, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A machine of depth 3, the probabilities of its states, and exact draws of both sides."""
    truth, layers = by_hand(made[3], on)
    p = np.exp(truth - logsumexp(truth))
    rows, hidden = np.unravel_index(
        np.random.default_rng(0).choice(p.size, 8000, p=p.ravel()), p.shape
    )
    x, h = layers[0][rows], [layer[hidden] for layer in layers[1:]]
    return made[3], p, (np.concatenate([x, h[1]], 1), np.concatenate([h[0], h[2]], 1))


def test_the_chain_leaves_exact_draws_exact(on: Any, drawn: Any) -> None:
    """All units, and all products of neighbours, have the same means after ten sweeps."""
    dbm, _, state = drawn
    after = on.sweeps(dbm, state, 10)
    a, b = (np.concatenate([f, g, (f[:, :, None] * g[:, None]).reshape(len(f), -1)], 1)
            for f, g in (state, after))  # fmt: skip
    assert np.abs(a - b).mean() > 0.2  # they did move
    error = np.sqrt((a.var(0) + b.var(0)) / len(a)) + 1e-9
    assert (np.abs(a.mean(0) - b.mean(0)) < 5 * error).all()


def test_the_negative_phase_is_the_gradient_of_log_z(on: Any, drawn: Any) -> None:
    """Chains at exact draws: mean products of neighbours, by enumeration, within 4 errors."""
    dbm, p, state = drawn
    truth, layers = by_hand(dbm, on)
    del truth
    found = {np.shape(g): g for g in on.chain_gradient(dbm, state)}
    moments = [layers[0].T @ p @ layers[1]]
    hidden = p.sum(0)
    moments += [(a * hidden[:, None]).T @ b for a, b in itertools.pairwise(layers[1:])]
    for moment in (moments[0], moments[1]):
        error = np.sqrt(moment * (1 - moment) / len(state[0]))
        assert (np.abs(found[moment.shape] - moment) < 4 * error).all()


def test_the_positive_phase_is_the_mean_gradient(made: Any, on: Any) -> None:
    """At fixed means: products of the data and of the mean field."""
    dbm, x = made[2], bits(VISIBLE)[3:9]
    mu = list(map(on.numpy, dbm.hidden_means(on.array(x))))
    found = {np.shape(g): g for g in on.gradient(dbm, x)}
    np.testing.assert_allclose(found[(4, 3)], x.T @ mu[0] / len(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[(3, 2)], mu[0].T @ mu[1] / len(x), rtol=1e-4, atol=1e-5)


def test_gradients_of_a_centred_machine_are_covariances(made: Any, on: Any, drawn: Any) -> None:
    """Data less chains, by hand: products about the means, odd layers of chains at their means."""
    dbm, x = made[3].centred(on.array(bits(VISIBLE)[2:11])), bits(VISIBLE)
    means = [np.asarray(m, float) for m in dbm.offsets]
    mu = [x, *map(on.numpy, dbm.hidden_means(on.array(x)))]
    state = drawn[2]
    even = np.split(state[0], [VISIBLE], 1)
    w, b = [list(map(on.numpy, part)) for part in (dbm.weights, dbm.biases)]
    fields = b[1] + even[0] @ w[0] + even[1] @ w[1].T, b[3] + even[1] @ w[2]
    odd = [1 / (1 + np.exp(-field)) for field in fields]
    chains = [even[0], odd[0], even[1], odd[1]]
    found = zip(on.gradient(dbm, x), on.chain_gradient(dbm, state), strict=True)
    found = {a.shape: a - b for a, b in found if a.ndim == 2}
    assert len(found) == 3
    for below, above in itertools.pairwise(range(4)):
        a, b = (
            (u[below] - means[below]).T @ (u[above] - means[above]) / len(u[0])
            for u in (mu, chains)
        )
        np.testing.assert_allclose(found[a.shape], a - b, rtol=1e-3, atol=2e-5)


def test_annealing_estimates_log_z(dg: Any, made: Any, on: Any) -> None:
    """Up from data's base rates and down, within five errors of the exact one."""
    dbm, x = made[3], bits(VISIBLE)
    truth = dg.log_z(dbm).log_evidence
    about = {"num_chains": 200, "num_temperatures": 100, "progress": False}
    found = dg.log_z_bounds(dbm, on.array(x), burn_in=100, **about)
    for bound in found.bounds:
        assert abs(bound.value - truth) < 5 * bound.standard_error
        assert 0.0 < bound.standard_error < 0.3


def test_gaussian_visible_units_integrate(dg: Any, on: Any) -> None:
    """The summed density over a fine line is the exact Z; constants stay where it is centred."""
    dbm = on.shaken(dg.DBM(1, (3, 2), units="gaussian"))
    line = np.linspace(-15.0, 15.0, 2001)
    values = dbm.summed_log_prob(on.array(line[:, None]))
    truth = logsumexp(values) + np.log(line[1] - line[0])
    assert abs(dg.log_z(dbm).log_evidence - truth) < 1e-4
    bound = on.numpy(dbm.unnormalised_log_prob(on.array(line[:, None])))
    assert (values - bound > -1e-6 * np.abs(values) - 1e-5).all()
    centred = dbm.centred(on.array(line[1200:, None]))
    same = on.numpy(centred.unnormalised_log_prob(on.array(line[:, None])))
    np.testing.assert_allclose(same, bound, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def trained(dg: Any, on: Any) -> tuple[np.ndarray, dict[str, float], Any]:
    """Rows of mostly zeros or mostly ones; exact scores by stage; the trained machine."""
    rng = np.random.default_rng(0)
    x = ((rng.random((400, 1)) < 0.5) != (rng.random((400, 6)) < 0.2)).astype(np.float32)
    ones = x.sum(1)
    source = logsumexp([n * np.log(0.8) + (6 - n) * np.log(0.2) for n in (ones, 6 - ones)], 0)
    dbm, scores = dg.DBM(6, (4, 3)), {"best": float(source.mean() - np.log(2))}

    def note(stage: str, dbm: Any) -> None:
        summed = dbm.summed_log_prob(on.array(x))
        scores[stage] = float(summed.mean() - dg.log_z(dbm).log_evidence)

    about = {"num_steps": 300, "batch_size": 50, "chain_steps": 5, "progress": False}
    note("flat", dbm.at_base_rates(x))
    begun = dg.pretrain_dbm(dbm, x, optim=_adam(dg, 0.01), **about)
    note("pretrained", begun)
    fit = dg.contrastive(begun, x, optim=_adam(dg, 0.01), **about)
    dbm = dg.flows.fitted(begun, fit, "energy")
    note("trained", dbm)
    scores["energy_width"] = float(fit.history["energy_width"][-1])
    return x, scores, dbm


def test_a_centred_machine_needs_no_pretraining(dg: Any, on: Any, trained: Any) -> None:
    """From small weights to the likelihood of the source of the rows, exact scores again."""
    x, scores, _ = trained
    dbm = dg.DBM(6, (4, 3)).at_base_rates(x).centred(on.array(x))
    fit = dg.contrastive(
        dbm, x, num_steps=300, batch_size=50, chain_steps=5, optim=_adam(dg, 0.01), progress=False
    )
    dbm = dg.flows.fitted(dbm, fit, "energy")
    assert dbm.offsets is not None
    score = float(dbm.summed_log_prob(on.array(x)).mean() - dg.log_z(dbm).log_evidence)
    assert score > scores["best"] - 0.1


def _adam(dg: Any, rate: float) -> Any:
    if "numpyro" in dg.__name__:
        return importlib.import_module("optax").adam(rate)
    torch = importlib.import_module("torch")
    return lambda params: torch.optim.Adam(params, rate)


def test_layers_are_learned_and_the_whole_goes_on(trained: Any) -> None:
    """Exact likelihoods between that of independent units and that of the source of the rows."""
    _, scores, _ = trained
    best = scores["best"]
    assert scores["flat"] == pytest.approx(-6 * np.log(2), abs=0.05)
    assert best - scores["flat"] > 0.4
    assert scores["pretrained"] > 0.5 * (best + scores["flat"])
    assert scores["trained"] > best - 0.1
    assert np.isnan(scores["energy_width"])  # bounds of data, sums of chains: not compared


def test_a_classifier_begins_with_the_layers(dg: Any, on: Any, trained: Any) -> None:
    """Its hidden layers are the bottom-up pass, doubled below the top."""
    x, _, dbm = trained
    net = dbm.classifier(3, seed=2)
    (w1, w2), (b1, b2) = [list(map(on.numpy, part)) for part in (dbm.weights, dbm.hidden_biases)]
    h = 1 / (1 + np.exp(-(2 * x @ w1 + b1)))
    h = 1 / (1 + np.exp(-(h @ w2 + b2)))
    wanted = h @ on.numpy(net.weights[-1]) + on.numpy(net.biases[-1])
    assert wanted.shape == (400, 3)
    np.testing.assert_allclose(on.numpy(net(on.array(x))), wanted, rtol=1e-4, atol=1e-5)


def test_mistakes_are_told(dg: Any) -> None:
    """One deliberate mistake at each entry."""
    dbm = dg.DBM(3, (2, 2))
    with pytest.raises(ValueError, match="hidden must list"):
        dg.DBM(3, 2)
    with pytest.raises(ValueError, match="hidden must be"):
        dg.DBM(3, (2, 0))
    with pytest.raises(ValueError, match="mean_field_steps must be"):
        dg.DBM(3, (2, 2), mean_field_steps=0)
    with pytest.raises(ValueError, match=r"weights must be 2 arrays"):
        dbm.with_weights([np.zeros((3, 2))], [np.zeros(3)])
    with pytest.raises(ValueError, match=r"biases\[1\] has shape \(3,\)"):
        dbm.with_weights([np.zeros((3, 2)), np.zeros((2, 2))], [np.zeros(3)] * 3)
    with pytest.raises(ValueError, match="2 hidden layers, and units of 1"):
        dbm.joint_log_prob(np.zeros((5, 3)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="shape"):
        dbm.unnormalised_log_prob(np.zeros((5, 4)))
    with pytest.raises(ValueError, match="at most 25 units"):
        dg.DBM(3, (30, 30)).summed_log_prob(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="log_scale has shape"):
        dbm.with_scale(np.zeros(3))
    with pytest.raises(TypeError, match="pretrain_dbm takes a DBM, not RBM"):
        dg.pretrain_dbm(dg.RBM(3, 2), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"row 0 holds 0\.5"):
        dbm.centred(np.full((5, 3), 0.5))
    with pytest.raises(ValueError, match="shape"):
        dbm.centred(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"row 0 holds 0\.5"):
        dg.pretrain_dbm(dbm, np.full((5, 3), 0.5))
    with pytest.raises(ValueError, match="with_log_z"):
        dbm.log_prob(np.zeros((5, 3)))
