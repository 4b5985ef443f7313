"""Energies agree on both wings at equal weights: densities, and terms of score matching."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as jax_dist
import pyro.distributions as torch_dist
import scipy.special
import torch

import deepgen_ppl.numpyro as numpyro_wing
import deepgen_ppl.pyro as pyro_wing
from deepgen_ppl.numpyro.infer.score_matching import objective as numpyro_objective
from deepgen_ppl.numpyro.nets import MLP as NumpyroMLP
from deepgen_ppl.pyro.infer.score_matching import objective as pyro_objective
from deepgen_ppl.pyro.nets import MLP as PyroMLP

X = np.random.default_rng(0).normal(size=(7, 3))


def both():
    ours = numpyro_wing.EnergyModel(
        NumpyroMLP(3, 1, (8,), activation="tanh"),
        jax_dist.Normal(0.0, 1.5).expand([3]).to_event(1), power=0.7,
    )  # fmt: skip
    theirs = pyro_wing.EnergyModel(
        PyroMLP(3, 1, (8,), activation="tanh"),
        torch_dist.Normal(0.0, torch.tensor(1.5)).expand([3]).to_event(1), power=0.7,
    )  # fmt: skip
    return ours, theirs


def test_unnormalised_densities_agree() -> None:
    ours, theirs = both()
    found = theirs.unnormalised_log_prob(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours.unnormalised_log_prob(X)), found, rtol=1e-6)


def test_exact_score_matching_agrees() -> None:
    ours, theirs = both()
    first = numpyro_objective(
        "exact", ours.unnormalised_log_prob, jnp.asarray(X), jax.random.key(0)
    )
    second = pyro_objective("exact", theirs.unnormalised_log_prob, torch.as_tensor(X))
    np.testing.assert_allclose(np.asarray(first), second.detach().numpy(), rtol=1e-6)


def test_pairwise_fields_agree() -> None:
    rng = np.random.default_rng(1)
    edges = ((0, 1), (1, 2), (0, 3))
    tables = {"unary": rng.normal(size=(4, 3)), "pairwise": rng.normal(size=(3, 3, 3))}
    ours = numpyro_wing.PairwiseField(4, 3, edges, **tables)
    theirs = pyro_wing.PairwiseField(4, 3, edges, **tables)
    x = rng.integers(0, 3, (6, 4))
    found = theirs.unnormalised_log_prob(torch.as_tensor(x)).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours.unnormalised_log_prob(x)), found, rtol=1e-6)
    external = rng.normal(size=(5, 4, 3))
    for method in ("max_product", "ascent"):
        best = theirs.map(torch.as_tensor(external), method=method).numpy()
        np.testing.assert_array_equal(np.asarray(ours.map(external, method=method)), best)
    spins = {"coupling": rng.normal(size=3), "field": rng.normal(size=4)}
    bits = rng.integers(0, 2, (6, 4)).astype(float)
    one = np.asarray(numpyro_wing.Ising(4, edges, **spins).unnormalised_log_prob(bits))
    other = pyro_wing.Ising(4, edges, **spins).unnormalised_log_prob(torch.as_tensor(bits))
    np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-6)


def combined(wing, dist):
    """An autoregressive module times a flow, and both added."""
    outputs = wing.autoregressive.GaussianMixture(2)
    parts = [
        wing.autoregressive.MADE(3, hidden=(8,), output=outputs),
        wing.flows.RealNVP(3, hidden=(8,)),
        dist.Normal(0.0, 1.5).expand([3]).to_event(1),
    ]
    product = wing.ProductOfExperts(parts, powers=[1.0, 0.5, -0.3])
    return product, wing.MixtureOfExperts(parts, weights=[1.0, 2.0, 1.0])


def test_products_and_mixtures_of_experts_agree() -> None:
    for ours, theirs in zip(
        combined(numpyro_wing, jax_dist), combined(pyro_wing, torch_dist), strict=True
    ):
        found = theirs.unnormalised_log_prob(torch.as_tensor(X)).detach().numpy()
        np.testing.assert_allclose(np.asarray(ours.unnormalised_log_prob(X)), found, rtol=1e-6)


def test_conditional_random_fields_agree() -> None:
    """Initial weights, densities, marginals, modes; log Z with the sum over all labellings."""
    rng = np.random.default_rng(4)
    x, lengths = rng.normal(size=(3, 5, 2)), np.array([5, 2, 4])
    ties = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    ours = numpyro_wing.CRF(2, 3, seed=1).with_weights(*ties)(x, lengths)
    theirs = pyro_wing.CRF(2, 3, seed=1).with_weights(*ties)(x, lengths)
    for name in ("unary", "log_z", "marginals", "pair_marginals", "mode"):
        first, second = np.asarray(getattr(ours, name)), getattr(theirs, name).detach().numpy()
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-12, err_msg=name)
    every = np.array(list(itertools.product(range(3), repeat=5)))[:, None].repeat(3, 1)
    values = np.asarray(ours.unnormalised_log_prob(every))
    found = theirs.unnormalised_log_prob(torch.as_tensor(every)).detach().numpy()
    np.testing.assert_allclose(values, found, rtol=1e-6, atol=1e-12)
    copies = 3.0 ** (5 - lengths)  # labels beyond the length of a row count for nothing
    truth = scipy.special.logsumexp(values, axis=0) - np.log(copies)
    np.testing.assert_allclose(np.asarray(ours.log_z), truth, rtol=1e-12)


def test_deep_machines_agree() -> None:
    """Bounds, mean fields, exact sums, log Z and the densities by which chains count."""
    ours, theirs = numpyro_wing.DBM(5, (4, 3, 2), seed=2), pyro_wing.DBM(5, (4, 3, 2), seed=2)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape) for shape in ((5, 4), (4, 3), (3, 2))]
    biases = [rng.normal(size=size) for size in (5, 4, 3, 2)]
    first = [np.asarray(w) for w in ours.weights]
    for a, b in zip(first, theirs.weights, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-6)
    ours, theirs = ours.with_weights(weights, biases), theirs.with_weights(weights, biases)
    x = (rng.random((6, 5)) < 0.5).astype(float)
    given = torch.as_tensor(x)
    pairs = [
        (ours.unnormalised_log_prob(x), theirs.unnormalised_log_prob(given)),
        *zip(ours.hidden_means(x), theirs.hidden_means(given), strict=True),
        (ours.chain_log_prob((x[:, [0, 1, 2, 3, 4, 0, 1, 2]], x)),
         theirs.chain_log_prob((given[:, [0, 1, 2, 3, 4, 0, 1, 2]], given))),
    ]  # fmt: skip
    for a, b in pairs:
        np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.summed_log_prob(x), theirs.summed_log_prob(given), rtol=1e-6)
    log_zs = [wing.log_z(dbm).log_evidence for wing, dbm in
              ((numpyro_wing, ours), (pyro_wing, theirs))]  # fmt: skip
    assert abs(log_zs[0] - log_zs[1]) < 1e-6
