"""Laws of the axes of autoencoders: densities that are normalised, draws that are of them."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from deepgen_ppl import likelihoods
from deepgen_ppl.likelihoods import Likelihood

LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": likelihoods.Bernoulli(),
    "continuous_bernoulli": likelihoods.ContinuousBernoulli(),
    "gaussian": likelihoods.Gaussian(),
    "gaussian, scale of features": likelihoods.Gaussian("feature"),
    "gaussian, scale of the decoder": likelihoods.Gaussian("decoder"),
    "gaussian, fixed scale": likelihoods.Gaussian(0.5),
    "student_t": likelihoods.StudentT(),
    "student_t, learned": likelihoods.StudentT("shared", "decoder"),
    "discretized_logistic": likelihoods.DiscretizedLogistic(8),
    "discretized_logistic, mixture": likelihoods.DiscretizedLogistic(8, 3),
    "categorical": likelihoods.Categorical(3),
    "poisson": likelihoods.Poisson(),
    "poisson, zero-inflated": likelihoods.Poisson(zero_inflated=True),
    "negative_binomial": likelihoods.NegativeBinomial(),
    "negative_binomial, of the decoder": likelihoods.NegativeBinomial("decoder"),
    "negative_binomial, zero-inflated": likelihoods.NegativeBinomial("shared", True),
    "negative_binomial, fixed": likelihoods.NegativeBinomial(2.0),
}
POSTERIORS: dict[str, Any] = {
    "diagonal": "diagonal",
    "full": "full",
    "mixture": lambda dg: dg.vae.MixturePosterior(3),
    "iaf": lambda dg: dg.vae.FlowPosterior("IAF", 3, {"transforms": 2, "hidden": (8,)}),
    "nsf": lambda dg: dg.vae.FlowPosterior("NSF", 3, {"transforms": 1, "hidden": (8,)}),
}
PRIORS: dict[str, Any] = {
    "normal": "normal",
    "mixture": lambda dg: dg.vae.MixturePrior(3),
    "vamp": lambda dg: dg.vae.VampPrior(3),
    "flow": lambda dg: dg.flows.RealNVP(2, transforms=2, hidden=(8,)),
    "hierarchical": lambda dg: dg.vae.HierarchicalPrior((1, 1), hidden=(8,)),
}


def data_of(kind: Likelihood, rows: int, features: int) -> np.ndarray:
    """Data of a likelihood's support."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features))
    if kind.name == "bernoulli":
        return (x > 0).astype(float)
    if kind.name == "continuous_bernoulli":
        return rng.uniform(size=x.shape)
    if kind.states:
        return rng.integers(0, kind.states, x.shape)
    whole = kind.name not in ("gaussian", "student_t")
    return rng.integers(0, 5, x.shape).astype(float) if whole else x


def support(kind: Likelihood) -> tuple[np.ndarray, float]:
    """All values that a likelihood has mass at, and the width of a cell for a density."""
    if kind.name in ("gaussian", "student_t"):  # Student's tails: by the substitution x = sinh t
        t = np.linspace(-14.0, 14.0, 20001)
        return np.sinh(t), t[1] - t[0]
    if kind.name == "continuous_bernoulli":
        return (np.arange(4000) + 0.5) / 4000, 1 / 4000
    top = kind.states or {"bernoulli": 2, "discretized_logistic": 8}.get(kind.name, 400)
    return np.arange(top).astype("float32"), 1.0


def raw_of(kind: Likelihood) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Outputs of a decoder for three features, and learned values."""
    rng = np.random.default_rng(5)
    own = {n: v + rng.normal(size=v.shape) / 4 for n, v in kind.own((3,)).items()}
    return rng.normal(size=(3, kind.outputs)), own


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """The wing's autoencoders as functions of arrays."""
    return importlib.import_module(f"tests.wings.vae_{wing}")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_sums_to_one(on: ModuleType, name: str) -> None:
    kind, (raw, own) = LIKELIHOODS[name], raw_of(LIKELIHOODS[name])
    x, width = support(kind)
    log_p = on.log_prob(kind, raw, own, np.broadcast_to(x[:, None], (len(x), 3)))
    slope = np.sqrt(1 + x**2) if kind.name in ("gaussian", "student_t") else np.ones(len(x))
    total: Any = logsumexp(log_p.astype(float) + np.log(width * slope)[:, None], axis=0)
    np.testing.assert_allclose(total, 0.0, atol=2e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_of_a_likelihood_have_its_mean(on: ModuleType, name: str) -> None:
    kind, (raw, own) = LIKELIHOODS[name], raw_of(LIKELIHOODS[name])
    x, count = on.draws(kind, raw, own, 4000), 4000
    assert kind.inside(x).all()
    values, width = support(kind)
    log_p = on.log_prob(kind, raw, own, np.broadcast_to(values[:, None], (len(values), 3)))
    slope = np.sqrt(1 + values**2) if kind.name in ("gaussian", "student_t") else 1.0
    p = np.exp(log_p.astype(float)) * np.reshape(width * slope, (-1, 1))
    bounded = np.tanh(values / 3)[:, None]  # has moments whatever the tails
    expected = (p * bounded).sum(0)
    error = np.sqrt((p * bounded**2).sum(0) - expected**2) / np.sqrt(count)
    assert (abs(np.tanh(x / 3).mean(0) - expected) < 5 * error + 1e-4).all()
    if not kind.states and kind.name != "student_t":
        expected = (p * values[:, None]).sum(0)
        np.testing.assert_allclose(on.mean(kind, raw, own), expected, rtol=2e-4, atol=2e-4)


def test_continuous_bernoulli_of_logits_near_zero(on: ModuleType) -> None:
    """Where its constant is a quotient of zeros, and far away."""
    kind = likelihoods.ContinuousBernoulli()
    x = (np.arange(2000) + 0.5) / 2000
    for logit in (0.0, 1e-6, -1e-3, 0.05, -0.2, 4.0):
        raw = np.full((1,), logit)
        total = np.exp(on.log_prob(kind, raw, {}, x).astype(float)).mean()
        assert abs(total - 1.0) < 2e-5, logit
        got, width = on.draws(kind, raw, {}, 4000), 5 * np.sqrt(1 / 12 / 4000)
        assert abs(got.mean() - on.mean(kind, raw, {})) < width


def test_draws_of_a_mixture_carry_gradients(on: ModuleType) -> None:
    """The mean of draws' gradients is the gradient of the mean, known in closed form."""
    logits = np.array([0.3, -0.5])
    locs, scales = np.array([[-1.0, 0.5], [1.5, -1.0]]), np.array([[0.5, 1.0], [0.8, 0.4]])
    count = 20_000
    z, found = on.mixture(logits, locs, scales, count)

    def expected(logits: np.ndarray, locs: np.ndarray, scales: np.ndarray) -> float:
        weights = np.exp(logits - logsumexp(logits))
        wave = np.sin(locs[:, 0]) * np.exp(-(scales[:, 0] ** 2) / 2)  # of coordinates independent
        return float(weights @ ((wave + 1) * locs[:, 1]))

    weights = np.exp(logits - logsumexp(logits))
    assert (abs(z.mean(0) - weights @ locs) < 5 * z.std(0) / np.sqrt(count)).all()
    start = [logits, locs, scales]
    for number, own in enumerate(found):
        for index in np.ndindex(start[number].shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [value.copy() for value in start]
                moved[number][index] += step
                ends.append(expected(*moved))
            truth, each = (ends[0] - ends[1]) / 2e-5, own[(slice(None), *index)]
            assert abs(each.mean() - truth) < 5 * each.std() / np.sqrt(count) + 1e-6


PAIRS = [(prior, kind) for prior in PRIORS for kind in ("diagonal", "mixture")]
PAIRS += [("normal", kind) for kind in POSTERIORS if ("normal", kind) not in PAIRS]


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_latents_have_densities(dg: ModuleType, on: ModuleType, prior: str, posterior: str) -> None:
    """On a grid of two latents prior and posterior integrate to one."""
    options = {"prior": PRIORS[prior], "posterior": POSTERIORS[posterior]}
    options = {n: v(dg) if callable(v) else v for n, v in options.items()}
    vae = on.stirred(dg.VAE((), (), features=2, latents=2, likelihood="gaussian", **options))
    side = np.linspace(-12.0, 12.0, 961 if posterior == "nsf" else 121)  # a spline has corners
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    x = np.broadcast_to(np.array([[0.5, -1.0]], "float32"), grid.shape)
    width = 2 * np.log(side[1] - side[0])
    for log_density in (on.densities(vae, grid, x)[1], on.prior_log_prob(vae, grid)):
        assert abs(logsumexp(log_density.astype(float)) + width) < 2e-3
