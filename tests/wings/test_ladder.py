"""Latents in layers: hierarchical priors and ladder posteriors against closed forms."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

FEATURES, ROWS = 5, 50


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """The wing's autoencoders as functions of arrays."""
    return importlib.import_module(f"tests.wings.vae_{wing}")


class TwoLayers:
    """Two layers of latents, two below and one above, all linear and normal.

    The columns of the decoder are orthogonal, so that the posterior is itself a ladder.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.slope, self.shift, self.spread = np.array([1.2, -0.8]), np.array([0.3, 0.1]), 0.6
        frame, _ = np.linalg.qr(rng.normal(size=(FEATURES, 2)))
        self.weight, self.bias, self.noise = frame * [1.5, 0.9], rng.normal(size=FEATURES), 0.4
        within = np.outer(self.slope, self.slope) + self.spread**2 * np.eye(2)
        self.latent_mean = np.array([*self.shift, 0.0])
        self.latents = np.block(
            [[within, self.slope[:, None]], [self.slope[None, :], np.ones((1, 1))]]
        )
        self.mean = self.bias + self.weight @ self.shift
        self.covariance: Any = self.weight @ within @ self.weight.T
        self.covariance += self.noise**2 * np.eye(FEATURES)
        self.x = rng.multivariate_normal(self.mean, self.covariance, ROWS).astype("float32")
        squares = np.sum(self.weight**2, 0)
        self.up = self.weight / squares  # from data to the lowest layer
        self.own = self.noise / np.sqrt(squares)
        gain = self.slope / (self.spread**2 + self.own**2)
        self.variance = 1.0 / (1.0 + gain @ self.slope)
        self.top = self.variance * gain  # from there to the top

    def put_into(self, on: ModuleType, vae: Any) -> None:
        """Give an autoencoder without hidden layers these weights."""
        on.set_linear(vae, "decoder", self.weight.T, self.bias)
        on.set_value(vae, "likelihood", "log_scale", np.log(self.noise))
        weight = np.concatenate([self.slope, np.zeros(2)])[None]
        on.set_layer(vae, 0, weight, np.array([*self.shift, *np.log([self.spread] * 2)]))
        encoder, bias = np.zeros((FEATURES, 6)), np.zeros(6)
        encoder[:, :2], encoder[:, 2] = self.up, self.up @ self.top
        bias[:2] = -self.bias @ self.up
        bias[2] = (bias[:2] - self.shift) @ self.top
        bias[3:] = *np.log(self.own), 0.5 * np.log(self.variance)
        on.set_linear(vae, "encoder", encoder, bias)

    def top_divergence(self) -> float:
        """Mean divergence of the topmost latent from its prior."""
        mean = ((self.x - self.bias) @ self.up - self.shift) @ self.top
        return float(np.mean(0.5 * (self.variance + mean**2 - 1 - np.log(self.variance))))


@pytest.fixture(scope="module")
def truth() -> TwoLayers:
    return TwoLayers()


@pytest.fixture(scope="module")
def linear(dg: ModuleType, on: ModuleType, truth: TwoLayers) -> tuple[Any, Any]:
    """The linear autoencoder and its parameters."""
    prior = dg.vae.HierarchicalPrior((2, 1), hidden=())
    options = {"likelihood": "gaussian", "prior": prior, "posterior": "ladder"}
    vae = dg.VAE((), (), features=FEATURES, latents=3, **options)
    truth.put_into(on, vae)
    return vae, on.params(vae, truth.x)


def test_the_right_ladder_has_no_gap(truth: TwoLayers, linear: tuple[Any, Any]) -> None:
    """Each weight is the evidence, whatever the draw."""
    vae, params = linear
    found = vae.log_evidence(params, truth.x, num_particles=50)
    exact = multivariate_normal(truth.mean, truth.covariance).logpdf(truth.x)
    np.testing.assert_allclose(found.per_row, exact, atol=5e-4)
    assert found.standard_error < 5e-3


def test_the_prior_is_the_joint_normal(
    on: ModuleType, truth: TwoLayers, linear: tuple[Any, Any]
) -> None:
    z = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
    covariance: Any = truth.latents
    exact = multivariate_normal(truth.latent_mean, covariance).logpdf(z)
    np.testing.assert_allclose(on.prior_log_prob(linear[0], z), exact, atol=1e-4)


def test_draws_come_down_from_the_top(truth: TwoLayers, linear: tuple[Any, Any]) -> None:
    vae, params = linear
    draws = vae.generate(params, 4000)
    error = np.sqrt(np.diag(truth.covariance) / len(draws))
    assert (np.abs(draws.mean(0) - truth.mean) < 5 * error).all()
    variance = np.diag(truth.covariance)
    apart = np.abs(draws.var(0) - variance)
    assert (apart < 5 * variance * np.sqrt(2 / len(draws))).all()


def test_the_report_tells_layer_from_layer(
    dg: ModuleType, truth: TwoLayers, linear: tuple[Any, Any]
) -> None:
    vae, params = linear
    found = dg.latent_report(*vae, truth.x, params=params)
    assert found.kl["z"].shape == (2,)
    assert found.kl["z"][1] == pytest.approx(truth.top_divergence(), abs=1e-4)
    assert found.rate == pytest.approx(found.kl["z"].sum(), rel=1e-5)
    assert "layers of z" in repr(found)


def test_any_depth_draws_what_its_density_says(dg: ModuleType, on: ModuleType) -> None:
    """A ladder of three layers, and its prior: both integrate to one, and draws are of them."""
    prior = dg.vae.HierarchicalPrior((2, 2, 1), hidden=(6,))
    vae = on.stirred(dg.VAE((6,), (6,), features=4, latents=5, prior=prior, posterior="ladder"))
    x = np.array([1.0, 0.0, 1.0, 1.0], "float32")
    z = 2.0 * np.random.default_rng(2).normal(size=(20_000, 5)).astype("float32")
    wide = norm.logpdf(z, scale=2.0).sum(1)
    _, log_q = on.densities(vae, z, np.tile(x, (len(z), 1)))
    for log_density in (log_q, on.prior_log_prob(vae, z)):
        weights = np.exp(log_density - wide)
        assert abs(weights.mean() - 1) < 5 * weights.std() / len(z) ** 0.5
    weights = np.exp(log_q - wide)[:, None]
    exact, count = (weights * z).sum(0) / weights.sum(), 4000
    draws = vae.encode(on.params(vae, x[None]), x[None], num_samples=count)[:, 0]
    errors = np.hypot((weights * (z - exact)).std(0) / len(z) ** 0.5, draws.std(0) / count**0.5)
    assert (np.abs(draws.mean(0) - exact) < 5 * errors).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"posterior": "ladder"}, "goes down with a prior in layers"),
        ({"prior": (4, 2)}, r"4 \+ 2 = 6 latents, but latents=3"),
        ({"prior": (3,)}, "two layers at least"),
        ({"prior": (2, 0)}, r"sizes\[1\]"),
    ],
)
def test_layers_that_do_not_fit_are_refused(dg: ModuleType, options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        if "prior" in options:
            options = {"prior": dg.vae.HierarchicalPrior(options["prior"])}
        dg.VAE((8,), (8,), features=4, latents=3, **options)
