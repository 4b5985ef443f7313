"""The log densities of `models.md` in NumPy: the oracles of the programs, up to a constant."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from scipy.stats import beta, gamma, halfcauchy, lognorm, norm, poisson

Values = Mapping[str, np.ndarray]
Data = Mapping[str, Any]


def eight_schools_centered(v: Values, data: Data) -> float:
    """Density of (theta, mu, tau)."""
    return (
        norm.logpdf(v["mu"], 0, 5)
        + halfcauchy.logpdf(v["tau"], scale=5)
        + norm.logpdf(v["theta"], v["mu"], v["tau"]).sum()
        + norm.logpdf(data["y"], v["theta"], data["sigma"]).sum()
    )


def eight_schools_noncentered(v: Values, data: Data) -> float:
    """Density of (z, mu, tau)."""
    theta = v["mu"] + v["tau"] * v["z"]
    return (
        norm.logpdf(v["mu"], 0, 5)
        + halfcauchy.logpdf(v["tau"], scale=5)
        + norm.logpdf(v["z"]).sum()
        + norm.logpdf(data["y"], theta, data["sigma"]).sum()
    )


def kidscore_momiq(v: Values, data: Data) -> float:
    """Density of (beta, sigma)."""
    mean = v["beta"][0] + v["beta"][1] * np.asarray(data["mom_iq"])
    prior = halfcauchy.logpdf(v["sigma"], scale=2.5)
    return prior + norm.logpdf(data["kid_score"], mean, v["sigma"]).sum()


def logearn_height(v: Values, data: Data) -> float:
    """Density of (beta, sigma)."""
    mean = v["beta"][0] + v["beta"][1] * np.asarray(data["height"])
    return norm.logpdf(np.log(data["earn"]), mean, v["sigma"]).sum()


def nes(v: Values, data: Data) -> float:
    """Density of (beta, sigma)."""
    b, age = v["beta"], np.asarray(data["age_discrete"])
    mean = b[0] + b[1] * np.asarray(data["real_ideo"]) + b[2] * np.asarray(data["race_adj"])
    mean = mean + b[3] * (age == 2) + b[4] * (age == 3) + b[5] * (age == 4)
    mean = mean + b[6] * np.asarray(data["educ1"]) + b[7] * np.asarray(data["gender"])
    mean = mean + b[8] * np.asarray(data["income"])
    return norm.logpdf(data["partyid7"], mean, v["sigma"]).sum()


def blr(v: Values, data: Data) -> float:
    """Density of (beta, sigma)."""
    prior = norm.logpdf(v["beta"], 0, 10).sum() + norm.logpdf(v["sigma"], 0, 10)
    return prior + norm.logpdf(data["y"], np.asarray(data["X"]) @ v["beta"], v["sigma"]).sum()


def ark(v: Values, data: Data) -> float:
    """Density of (alpha, beta, sigma)."""
    y, order = np.asarray(data["y"]), data["K"]
    total = norm.logpdf(v["alpha"], 0, 10) + norm.logpdf(v["beta"], 0, 10).sum()
    total += halfcauchy.logpdf(v["sigma"], scale=2.5)
    for t in range(order, len(y)):
        mean = v["alpha"] + sum(v["beta"][k] * y[t - k - 1] for k in range(order))
        total += norm.logpdf(y[t], mean, v["sigma"])
    return total


def garch11(v: Values, data: Data) -> float:
    """Density of (mu, alpha0, alpha1, beta1), flat where it is positive."""
    y, scale = np.asarray(data["y"]), data["sigma1"]
    total = norm.logpdf(y[0], v["mu"], scale)
    for before, now in pairwise(y):
        shock = before - v["mu"]
        scale = np.sqrt(v["alpha0"] + v["alpha1"] * shock**2 + v["beta1"] * scale**2)
        total += norm.logpdf(now, v["mu"], scale)
    return total


def kernel_factor(v: Values, data: Data) -> np.ndarray:
    """Cholesky factor of the squared exponential kernel."""
    x = np.asarray(data["x"])
    kernel = v["alpha"] ** 2 * np.exp(-((x[:, None] - x) ** 2) / (2 * v["rho"] ** 2))
    return np.linalg.cholesky(kernel + 1e-10 * np.eye(len(x)))


def gp_pois_regr(v: Values, data: Data) -> float:
    """Density of (rho, alpha, z)."""
    prior = gamma.logpdf(v["rho"], 25, scale=1 / 4) + norm.logpdf(v["alpha"], 0, 2)
    rate = np.exp(kernel_factor(v, data) @ v["z"])
    return prior + norm.logpdf(v["z"]).sum() + poisson.logpmf(data["k"], rate).sum()


def low_dim_gauss_mix(v: Values, data: Data) -> float:
    """Density of (mu, sigma, theta), the assignments summed out."""
    prior = norm.logpdf(v["mu"], 0, 2).sum() + norm.logpdf(v["sigma"], 0, 2).sum()
    prior += beta.logpdf(v["theta"], 5, 5)
    y = np.asarray(data["y"])
    first = np.log(v["theta"]) + norm.logpdf(y, v["mu"][0], v["sigma"][0])
    second = np.log1p(-v["theta"]) + norm.logpdf(y, v["mu"][1], v["sigma"][1])
    return prior + np.logaddexp(first, second).sum()


def hmm_example(v: Values, data: Data) -> float:
    """Density of (theta1, theta2, mu), the states summed out."""
    transition = np.log(np.stack([v["theta1"], v["theta2"]]))
    emission = norm.logpdf(np.asarray(data["y"])[:, None], v["mu"], 1)
    forward = emission[0]
    for row in emission[1:]:
        forward = logsumexp(forward[:, None] + transition, axis=0) + row
    return norm.logpdf(v["mu"], [3, 10], 1).sum() + logsumexp(forward)


def lotka_volterra(v: Values, data: Data) -> float:
    """Density of (theta, z_init, sigma), the rate equations solved adaptively."""
    a, b, c, d = v["theta"]
    years = np.asarray(data["ts"], dtype=float)
    z = solve_ivp(
        lambda t, z: [(a - b * z[1]) * z[0], (-c + d * z[0]) * z[1]],
        (0.0, years[-1]),
        v["z_init"],
        t_eval=years,
        rtol=1e-9,
        atol=1e-9,
    ).y.T
    total = norm.logpdf([a, c], 1, 0.5).sum() + norm.logpdf([b, d], 0.05, 0.05).sum()
    total += lognorm.logpdf(v["sigma"], 1, scale=np.exp(-1)).sum()
    total += lognorm.logpdf(v["z_init"], 1, scale=10).sum()
    total += lognorm.logpdf(data["y_init"], v["sigma"], scale=v["z_init"]).sum()
    return total + lognorm.logpdf(np.asarray(data["y"]), v["sigma"], scale=z).sum()


DENSITIES: dict[str, Callable[[Values, Data], float]] = {
    function.__name__: function
    for function in (
        eight_schools_centered,
        eight_schools_noncentered,
        kidscore_momiq,
        logearn_height,
        nes,
        blr,
        ark,
        garch11,
        gp_pois_regr,
        low_dim_gauss_mix,
        hmm_example,
        lotka_volterra,
    )
}


def latents(program: str, v: Values, data: Data) -> dict[str, np.ndarray]:
    """The program's own latent values at one draw of the reference's parameters."""
    v = dict(v)
    if program == "eight_schools_noncentered":
        v["z"] = (v["theta"] - v["mu"]) / v["tau"]
        del v["theta"]
    if program == "gp_pois_regr":
        v["z"] = np.linalg.solve(kernel_factor(v, data), v["f"])
        del v["f"]
    return v
