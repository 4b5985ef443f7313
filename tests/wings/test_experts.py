"""Products, mixtures and powers of experts: closed forms, grids, enumeration."""

import importlib
import itertools
from types import ModuleType

import numpy as np
import pytest

QUIET = {"progress": False}
SIDE = np.linspace(-6, 6, 121, dtype="float32")
GRID = np.stack(np.meshgrid(SIDE, SIDE, indexing="ij"), -1).reshape(-1, 2)
CELL = float(SIDE[1] - SIDE[0]) ** 2
BITS = np.array(list(itertools.product([0.0, 1.0], repeat=5)), "float32")


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """What this wing's side of the tests knows."""
    return importlib.import_module(f"{__package__}.experts_{wing}")


@pytest.fixture(scope="module")
def shaken(wing: str):
    """Puts noise on an energy's parameters."""
    return importlib.import_module(f"{__package__}.energies_{wing}").shaken


@pytest.fixture(scope="module")
def chained_and_flowing(dg, shaken):
    """An autoregressive module and a flow of the same two features, weights in general position."""
    outputs = dg.autoregressive.GaussianMixture(2)
    net = shaken(dg.autoregressive.MADE(2, hidden=(8,), output=outputs), 0.3)
    return net, shaken(dg.flows.RealNVP(2, transforms=2, hidden=(8,)), 0.2, 4)


def log_sum(log_p: np.ndarray) -> float:
    log_p = np.asarray(log_p, float)
    return float(log_p.max() + np.log(np.exp(log_p - log_p.max()).sum()))


def test_a_product_of_normals_is_normal(dg, on) -> None:
    """Precisions add, each times its power, and log Z is known."""
    parts, powers = [(0.0, 2.0), (1.5, 1.0), (-1.0, 0.7)], [1.0, 0.5, 2.0]
    product = dg.ProductOfExperts([on.normal(m, s, 2) for m, s in parts], powers=powers)
    precision = sum(b / s**2 for b, (_, s) in zip(powers, parts, strict=True))
    location = sum(b * m / s**2 for b, (m, s) in zip(powers, parts, strict=True)) / precision
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    found = on.numpy(product.unnormalised_log_prob(on.array(x)))
    wanted = -0.5 * precision * ((x - location) ** 2).sum(-1)
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], rtol=1e-4, atol=1e-5)
    log_z = float(found[0] - wanted[0]) + np.log(2 * np.pi / precision)
    with pytest.raises(ValueError, match="log Z"):
        product.log_prob(on.array(x))
    known = product.with_log_z(log_z)
    normal = wanted + np.log(precision / (2 * np.pi))
    np.testing.assert_allclose(
        on.numpy(known().log_prob(on.array(x))), normal, rtol=1e-4, atol=1e-4
    )


def test_an_autoregressive_model_times_a_flow_on_a_grid(dg, on, chained_and_flowing) -> None:
    """The sum of its parts; log Z as the grid has it; chains have the grid's moments."""
    net, flow = chained_and_flowing
    product = dg.ProductOfExperts([net, flow])
    parts = [on.numpy(part().log_prob(on.array(GRID))) for part in (net, flow)]
    log_p = on.numpy(product.unnormalised_log_prob(on.array(GRID)))
    np.testing.assert_allclose(log_p, parts[0] + parts[1], rtol=1e-4, atol=1e-4)
    assert all(abs(np.exp(p.astype(float)).sum() * CELL - 1) < 0.02 for p in parts)
    ais = dg.log_z(product, num_chains=200, num_temperatures=100, **QUIET)
    assert abs(ais.log_evidence - log_sum(log_p) - np.log(CELL)) < 5 * ais.standard_error + 0.01
    p = np.exp(log_p.astype(float) - log_sum(log_p))
    draws = dg.mcmc(
        product.program, None, kernel="mala", num_chains=100, num_warmup=100, num_samples=100,
        **QUIET,
    ).draws["x"]  # fmt: skip
    means = np.asarray(draws).mean(1)  # of each chain, which are independent
    error = means.std(0) / np.sqrt(len(means))
    assert (np.abs(means.mean(0) - p @ GRID) < 5 * error + 0.01).all()


@pytest.fixture(scope="module")
def binary(dg, on, shaken):
    """A machine, an autoregressive module and independent bits, multiplied."""
    experts = [
        shaken(dg.RBM(5, 3), 0.7),
        shaken(dg.autoregressive.NADE(5, units=4), 0.5),
        on.bits([0.2, 0.6, 0.5, 0.7, 0.4]),
    ]
    return dg.ProductOfExperts(experts, powers=[1.0, 2.0, -0.5])


def test_discrete_products_are_listed_and_annealed(dg, on, binary) -> None:
    log_p = on.numpy(binary.unnormalised_log_prob(on.array(BITS)))
    exact = dg.log_z(binary)
    assert exact.standard_error == 0.0
    assert abs(exact.log_evidence - log_sum(log_p)) < 1e-5
    ais = dg.log_z(binary, method="ais", num_chains=100, num_temperatures=20, **QUIET)
    assert abs(ais.log_evidence - exact.log_evidence) < 5 * ais.standard_error
    draws = dg.mcmc(
        binary.program, None, kernel="gibbs", num_chains=100, num_warmup=20, num_samples=50, **QUIET
    ).draws["x"]
    means = np.asarray(draws, float).mean(1)
    error = means.std(0) / np.sqrt(len(means))
    wanted = np.exp(log_p - log_sum(log_p)) @ BITS
    assert (np.abs(means.mean(0) - wanted) < 5 * error).all()


def test_products_are_trained_by_their_chains(dg, on, wing) -> None:
    """A linear energy beside a normal expert: the product's mean becomes that of the data."""
    nets = importlib.import_module(f"deepgen_ppl.{wing}.nets")
    x = np.random.default_rng(1).normal([1.0, -0.5], 0.9, (400, 2)).astype("float32")
    energy = dg.EnergyModel(nets.MLP(2, 1, ()), on.normal(0.0, 2.0, 2))
    product = dg.ProductOfExperts([energy, on.normal(1.0, 1.0, 2)])
    fit = dg.contrastive(
        product, x, num_chains=400, chain_steps=3, num_steps=150, optim=on.adam(0.05), **QUIET
    )
    trained = dg.flows.fitted(product, fit, "energy").experts[0]
    ends = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "float32")
    energies = on.numpy(trained.energy(on.array(ends)))
    mean = (energies[0] - energies[1:] + 1.0) / 1.25  # precisions 1/4 and 1
    assert np.abs(mean - x.mean(0)).max() < 0.15


def test_powers_temper_and_turn_round(dg, on, shaken) -> None:
    rbm = shaken(dg.RBM(5, 3), 0.7)
    log_p = on.numpy(rbm.unnormalised_log_prob(on.array(BITS)))
    for power, energy in ((0.4, rbm.tempered(0.4)), (-1.0, -rbm), (2.0, (-rbm).tempered(-2.0))):
        found = on.numpy(energy.unnormalised_log_prob(on.array(BITS)))
        np.testing.assert_allclose(found, power * log_p, rtol=1e-4, atol=1e-5)
        assert abs(dg.log_z(energy).log_evidence - log_sum(power * log_p)) < 1e-4
    assert (-rbm).rank(on.array(BITS))[0] == rbm.rank(on.array(BITS))[-1]


def test_a_mixture_is_normalised_and_drawn_from(dg, on, chained_and_flowing) -> None:
    _, flow = chained_and_flowing
    mixture = dg.MixtureOfExperts([flow, on.normal(2.0, 0.5, 2)], weights=[3.0, 1.0])
    log_p = on.numpy(mixture().log_prob(on.array(GRID))).astype(float)
    parts = [on.numpy(d.log_prob(on.array(GRID))) for d in (flow(), on.normal(2.0, 0.5, 2))]
    wanted = np.logaddexp(np.log(0.75) + parts[0], np.log(0.25) + parts[1])
    np.testing.assert_allclose(log_p, wanted, rtol=1e-3, atol=1e-3)
    assert abs(np.exp(log_p).sum() * CELL - 1) < 0.02
    x = on.draw(mixture(), 2000)
    assert x.shape == (2000, 2)
    told = on.numpy(mixture().responsibilities(on.array(x)))
    error = told.std(0) / np.sqrt(len(told))
    assert (np.abs(told.mean(0) - [0.75, 0.25]) < 5 * error).all()
    mean = np.exp(log_p) @ GRID * CELL
    assert (np.abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(len(x)) + 0.01).all()


def test_weights_of_a_mixture_are_learned(dg, on) -> None:
    """Against the fixed point of expectation maximisation."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(400) < 0.8, rng.normal(-1, 0.7, 400), rng.normal(1, 0.7, 400))
    x = x[:, None].astype("float32")
    experts = [on.normal(-1.0, 0.7, 1), on.normal(1.0, 0.7, 1)]
    p = np.exp([on.numpy(d.log_prob(on.array(x))) for d in experts]).astype(float)
    weight = 0.5
    for _ in range(500):
        share = weight * p[0] / (weight * p[0] + (1 - weight) * p[1])
        weight = share.mean()
    mixture = dg.MixtureOfExperts(experts)
    fit = dg.svi(mixture.model, None, x, num_steps=300, optim=on.adam(0.05), **QUIET)
    logits = on.with_logits(dg.flows.fitted(mixture, fit, "mixture"))
    assert abs(np.exp(logits[0]) / np.exp(logits).sum() - weight) < 1e-3


def test_a_gate_follows_its_context(dg, on, wing) -> None:
    nets = importlib.import_module(f"deepgen_ppl.{wing}.nets")
    experts = [on.normal(-2.0, 0.5, 1), on.normal(2.0, 0.5, 1)]

    mixture = dg.MixtureOfExperts(experts, gate=nets.MLP(1, 2, (8,)))
    context = np.linspace(-1, 1, 200, dtype="float32")[:, None]
    x = (2.0 * np.sign(context) + 0.1).astype("float32")
    fit = dg.svi(mixture.model, None, x, context, num_steps=150, optim=on.adam(0.03), **QUIET)
    told = dg.flows.fitted(mixture, fit, "mixture")(on.array(context))
    assert told.batch_shape == (200,)
    drawn = on.draw(told, 3)
    assert drawn.shape == (3, 200, 1)
    assert (drawn[:, :80] < 0).all()
    assert (drawn[:, -80:] > 0).all()
    with pytest.raises(ValueError, match="needs a context"):
        mixture()
    with pytest.raises(ValueError, match="takes no context"):
        dg.MixtureOfExperts(experts)(on.array(context))


def test_energies_are_mixed_once_their_log_z_is_known(dg, on, shaken) -> None:
    rbm = shaken(dg.RBM(5, 3), 0.7)
    even = on.bits(np.full(5, 0.5))
    with pytest.raises(ValueError, match=r"expert 1 .* without log Z"):
        dg.MixtureOfExperts([even, rbm])
    mixture = dg.MixtureOfExperts([even, rbm.with_log_z(dg.log_z(rbm))])
    total = log_sum(on.numpy(mixture().log_prob(on.array(BITS))))
    assert abs(total) < 1e-4


def test_mistakes_are_told_with_their_cure(dg, on) -> None:
    for kind in (dg.ProductOfExperts, dg.MixtureOfExperts):
        with pytest.raises(ValueError, match="at least one"):
            kind([])
        with pytest.raises(TypeError, match=r"expert 1 .* is int"):
            kind([on.normal(0.0, 1.0, 2), 3])
        with pytest.raises(TypeError, match="list of experts"):
            kind(on.normal(0.0, 1.0, 2))
        with pytest.raises(ValueError, match=r"event shape \(3,\), expert 0 has \(2,\)"):
            kind([on.normal(0.0, 1.0, 2), on.normal(0.0, 1.0, 3)])
        with pytest.raises(ValueError, match="discrete and expert 1 is continuous"):
            kind([on.bits([0.5, 0.5]), on.normal(0.0, 1.0, 2)])
    with pytest.raises(ValueError, match="powers must be 1"):
        dg.ProductOfExperts([on.normal(0.0, 1.0, 2)], powers=[1.0, 2.0])
    with pytest.raises(ValueError, match="weights must be 1 positive"):
        dg.MixtureOfExperts([on.normal(0.0, 1.0, 2)], weights=[-1.0])
