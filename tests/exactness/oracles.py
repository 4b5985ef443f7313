"""Closed forms of the conjugate programs (NumPy only): posteriors, evidence, expected losses."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, gammaln
from scipy.stats import beta, gamma, multivariate_normal, norm


class Exact(NamedTuple):
    """The answers for one program at its data.

    Attributes:
        data: The program's positional data.
        means: Posterior mean of each latent site.
        sds: Posterior standard deviation of each latent site.
        log_evidence: Log density of the data under the model.
        per_row: Log density of each datum, where data are independent.
    """

    data: tuple[np.ndarray, ...]
    means: dict[str, np.ndarray]
    sds: dict[str, np.ndarray]
    log_evidence: float
    per_row: np.ndarray | None = None


def normal_mean() -> Exact:
    """An unknown mean."""
    y = np.random.default_rng(1).normal(0.5, 1.0, 20)
    precision = 1 / 4 + len(y)
    covariance = 4.0 + np.eye(len(y))
    return Exact(
        (y,),
        {"mu": np.asarray(y.sum() / precision)},
        {"mu": np.asarray(precision**-0.5)},
        float(multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)),
    )


def regression() -> Exact:
    """Linear regression."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(25, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    y = x @ np.array([0.7, -0.4]) + 0.5 * rng.normal(size=25)
    covariance = np.linalg.inv(np.eye(2) + x.T @ x / 0.25)
    marginal = x @ x.T + 0.25 * np.eye(25)
    return Exact(
        (y, x),
        {"w": covariance @ x.T @ y / 0.25},
        {"w": np.sqrt(np.diag(covariance))},
        float(multivariate_normal.logpdf(y, np.zeros(25), marginal)),
    )


def coin() -> Exact:
    """A coin."""
    y = (np.random.default_rng(3).random(30) < 0.35).astype(float)
    heads, tails = y.sum(), len(y) - y.sum()
    posterior = beta(2 + heads, 3 + tails)
    return Exact(
        (y,),
        {"p": np.asarray(posterior.mean())},
        {"p": np.asarray(posterior.std())},
        float(betaln(2 + heads, 3 + tails) - betaln(2, 3)),
    )


def counts() -> Exact:
    """Counts of one rate."""
    y = np.random.default_rng(4).poisson(2.5, 15).astype(float)
    shape, rate = 3 + y.sum(), 1 + len(y)
    posterior = gamma(shape, scale=1 / rate)
    log_evidence = gammaln(shape) - gammaln(3) - shape * np.log(rate) - gammaln(y + 1).sum()
    return Exact(
        (y,),
        {"rate": np.asarray(posterior.mean())},
        {"rate": np.asarray(posterior.std())},
        float(log_evidence),
    )


def local_normal() -> Exact:
    """One latent for each datum."""
    y = np.random.default_rng(5).normal(0.0, 1.25**0.5, 50)
    per_row = norm.logpdf(y, 0.0, 1.25**0.5)
    sds = np.full(50, 0.2**0.5)
    return Exact((y,), {"z": 0.8 * y}, {"z": sds}, float(per_row.sum()), per_row)


def group() -> Exact:
    """A shared mean and one latent for each datum."""
    y = np.random.default_rng(6).normal(0.8, 1.25**0.5, 50)
    precision = 1 / 4 + len(y) / 1.25
    mean = y.sum() / 1.25 / precision
    z_variance = 0.2 + 0.2**2 / precision
    covariance = 4.0 + 1.25 * np.eye(len(y))
    return Exact(
        (y,),
        {"mu": np.asarray(mean), "z": 0.8 * y + 0.2 * mean},
        {"mu": np.asarray(precision**-0.5), "z": np.full(50, z_variance**0.5)},
        float(multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)),
    )


def factor_analysis() -> Exact:
    """Probabilistic PCA: `log_evidence` is its maximum, and no posterior is stated."""
    rng = np.random.default_rng(7)
    loading = np.array([[1.0, 0.5, -1.0, 0.3], [0.2, 1.0, 0.6, -0.7]])
    y = rng.normal(size=(200, 2)) @ loading + 0.5 * rng.normal(size=(200, 4)) + 1.0
    values, vectors = np.linalg.eigh(np.cov(y.T, bias=True))
    noise = values[:2].mean()
    covariance = noise * np.eye(4) + (vectors[:, 2:] * (values[2:] - noise)) @ vectors[:, 2:].T
    per_row = multivariate_normal.logpdf(y, y.mean(0), covariance)
    return Exact((y,), {}, {}, float(per_row.sum()), per_row)


ORACLES: dict[str, Callable[[], Exact]] = {
    function.__name__: function
    for function in (
        normal_mean,
        regression,
        coin,
        counts,
        local_normal,
        group,
        factor_analysis,
    )
}


# Where the guides' parameters start: away from the answers.
START: dict[str, dict[str, float]] = {
    "normal_mean": {"loc": 0.3, "scale": 0.4},
    "coin": {"a": 3.0, "b": 3.0},
    "counts": {"mean": 2.0, "shape": 20.0},
    "local_normal": {"slope": 0.6, "scale": 0.6},
    "group": {"loc": 0.3, "scale": 0.4, "slope": 0.6, "width": 0.6},
}


def group_loss(y: np.ndarray, loc: float, scale: float, slope: float, width: float) -> float:
    """Expected loss per datum of `group` under mu ~ N(loc, scale) and z_i ~ N(slope y_i, width).

    Every term is Gaussian, so E_q[log p - log q] is a sum of squares and entropies.
    """

    def expected(distance: np.ndarray | float, variance: float, sd: float) -> np.ndarray | float:
        return norm.logpdf(distance, 0.0, sd) - 0.5 * variance / sd**2

    elbo = expected(loc, scale**2, 2.0)
    elbo += np.sum(expected(slope * y - loc, width**2 + scale**2, 1.0))
    elbo += np.sum(expected(y - slope * y, width**2, 0.5))
    elbo += norm.entropy(scale=scale) + len(y) * norm.entropy(scale=width)
    return float(-elbo / len(y))
