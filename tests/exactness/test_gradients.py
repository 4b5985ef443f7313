"""Every estimator's mean gradient is the exact one: a conjugate model, integrated on a grid."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

START = {"weight": 1.2, "noise": 0.5, "slope": 0.6, "scale": 0.6}
COPIES, RUNS = 2000, 12
DATUM = 1.3
NODES, MASS = np.polynomial.hermite_e.hermegauss(60)
MASS = MASS / MASS.sum()


def log_weights(theta: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(x | z) and log q(z) - log p(z) at draws; theta in START's order, logs of sds."""
    weight, log_noise, slope, log_scale = theta
    mean, scale = slope * DATUM, np.exp(log_scale)
    z = mean + scale * noise
    likelihood = norm.logpdf(DATUM, weight * z, np.exp(log_noise))
    return likelihood, norm.logpdf(z, mean, scale) - norm.logpdf(z)


def elbo(beta: float = 1.0, free: float = 0.0) -> Callable[[np.ndarray], float]:
    """The loss per datum of an ELBO with a weight and free bits."""

    def loss(theta: np.ndarray) -> float:
        likelihood, cost = log_weights(theta, NODES)
        return float(beta * max(MASS @ cost, free) - MASS @ likelihood)

    return loss


def renyi(alpha: float) -> Callable[[np.ndarray], float]:
    """The loss per datum of the bound of two particles."""

    def loss(theta: np.ndarray) -> float:
        likelihood, cost = log_weights(theta, NODES)
        log_w = likelihood - cost
        pairs = np.stack(np.broadcast_arrays(log_w[:, None], log_w[None, :]))
        bounds = (logsumexp((1 - alpha) * pairs, axis=0) - np.log(2)) / (1 - alpha)
        return float(-MASS @ bounds @ MASS)

    return loss


def gradient(loss: Callable[[np.ndarray], float]) -> np.ndarray:
    """Its central differences at START."""
    theta = np.array(
        [START["weight"], np.log(START["noise"]), START["slope"], np.log(START["scale"])]
    )
    steps = 1e-4 * np.eye(4)
    return np.array([(loss(theta + h) - loss(theta - h)) / 2e-4 for h in steps])


def estimates(
    dg: ModuleType, programs: ModuleType, objective, guide=None, start=START
) -> np.ndarray:
    """Gradients per datum of several seeds, each over many copies of the datum: (RUNS, 4)."""
    y = np.full(COPIES, DATUM, np.float32)
    rate, found = 0.1, []
    for seed in range(RUNS):
        fit = dg.svi(
            programs.weighted_normal,
            guide or programs.local_normal_guide,
            y,
            params={name: np.asarray(value, np.float32) for name, value in start.items()},
            optim=programs.descent(rate / COPIES),
            loss=objective,
            num_steps=1,
            progress=False,
            seed=seed,
        )
        moved = {name: float(fit.params[name]) for name in start}
        logs = {"noise", "scale"}
        steps = [np.log(moved[n] / v) if n in logs else moved[n] - v for n, v in start.items()]
        found.append(-np.array(steps) / rate)
    return np.array(found)


ROWS = {
    "elbo": (lambda dg: dg.ELBO(), elbo()),
    "analytic": (lambda dg: dg.ELBO(kl="analytic"), elbo()),
    "stl": (lambda dg: dg.ELBO(estimator="stl"), elbo()),
    "beta": (lambda dg: dg.ELBO(2, beta=0.3, estimator="stl"), elbo(beta=0.3)),
    "warm-up": (lambda dg: dg.ELBO(beta=dg.KLAnnealing(10, start=0.2)), elbo(beta=0.2)),
    "free": (lambda dg: dg.ELBO(kl="analytic", free_bits=1.0), elbo(free=1.0)),
    "not free": (lambda dg: dg.ELBO(free_bits=0.1), elbo()),
    "iwae": (lambda dg: dg.IWAE(2), renyi(0.0)),
    "iwae dreg": (lambda dg: dg.IWAE(2, "dreg"), renyi(0.0)),
    "renyi": (lambda dg: dg.Renyi(0.5, 2), renyi(0.5)),
    "renyi dreg": (lambda dg: dg.Renyi(0.5, 2, "dreg"), renyi(0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_the_mean_gradient_is_the_exact_one(
    dg: ModuleType, programs: ModuleType, name: str
) -> None:
    make, loss = ROWS[name]
    found = estimates(dg, programs, make(dg))
    error = found.std(0, ddof=1) / RUNS**0.5
    assert np.all(np.abs(found.mean(0) - gradient(loss)) < 5 * error + 2e-5)
    assert np.all(error < 0.05)


def test_the_score_left_out_of_an_importance_weighted_bound_is_a_bias(
    dg: ModuleType, programs: ModuleType
) -> None:
    found = estimates(dg, programs, dg.IWAE(2, "stl"))[:, 2:]
    error = found.std(0, ddof=1) / RUNS**0.5
    theta = np.array(
        [START["weight"], np.log(START["noise"]), START["slope"], np.log(START["scale"])]
    )
    likelihood, cost = log_weights(theta, NODES)
    log_w = likelihood - cost
    share = 1 / (1 + np.exp(log_w[None, :] - log_w[:, None]))
    mean, scale = START["slope"] * DATUM, START["scale"]
    z = mean + scale * NODES
    slope = START["weight"] * (DATUM - START["weight"] * z) / START["noise"] ** 2 - z
    slope = slope + (z - mean) / scale**2
    path = np.stack([slope * DATUM, slope * scale * NODES])
    exact = -2 * (path * MASS) @ (share @ MASS)
    assert np.all(np.abs(found.mean(0) - exact) < 5 * error)
    assert np.all(np.abs(exact - gradient(renyi(0.0))[2:]) > 10 * error)


@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_estimators_that_follow_draws_are_still_at_the_posterior(
    dg: ModuleType, programs: ModuleType, name: str
) -> None:
    """Where q is the posterior every weight is the evidence, and no draw moves it."""
    precision = 1 + 1.2**2 / 0.25
    at = {**START, "slope": 1.2 / 0.25 / precision, "scale": precision**-0.5}
    loss = dg.ELBO(estimator="stl") if name == "stl" else dg.IWAE(2, "dreg")
    plain = dg.ELBO() if name == "stl" else dg.IWAE(2)
    found = [estimates(dg, programs, o, start=at)[:, 2:] for o in (loss, plain)]
    assert np.abs(found[0]).max() < 1e-4
    assert found[1].std(0).min() > 1e-3


def test_a_prior_that_follows_the_guide_is_weighed_by_the_draw(
    dg: ModuleType, programs: ModuleType
) -> None:
    """The guide goes upwards: the divergence of z alone would leave out what top owes to it."""
    y = np.full(4000, DATUM, np.float32)
    options = {"num_steps": 40, "optim": programs.standing_still(), "progress": False}
    both = [
        dg.svi(programs.ladder, programs.ladder_guide, y, loss=loss, **options)
        for loss in (dg.ELBO(), dg.ELBO(kl="analytic"))
    ]
    means = [fit.losses.mean() for fit in both]
    errors = [fit.losses.std(ddof=1) / 40**0.5 for fit in both]
    assert abs(means[0] - means[1]) < 5 * np.hypot(*errors)
    mean, sd = 0.6 * DATUM, 0.5
    expected = {
        "y": norm.logpdf(DATUM, mean, 0.5) - 0.5 * sd**2 / 0.25,
        "z": norm.logpdf(0.3 * mean, 0.0, 1.0) - 0.5 * (0.7**2 + (0.3 * sd) ** 2),
        "top": norm.logpdf(0.7 * mean, 0.0, 1.0) - 0.5 * (0.7**2 + (0.7 * sd) ** 2),
    }
    exact = sum(expected.values()) + norm.entropy(scale=sd) + norm.entropy(scale=0.7)
    assert abs(means[1] + exact) < 5 * errors[1]
    np.testing.assert_allclose(both[1].history["bound"], -both[1].history["loss"], rtol=1e-5)
