"""Results of every method for one conjugate model, with evaluators written in NumPy."""

import numpy as np

from deepgen_ppl import Posterior
from deepgen_ppl.evidence import evidence

NUM_ROWS = 12
Y = np.random.default_rng(0).normal(1.0, 1.0, NUM_ROWS)  # y_i ~ Normal(mu, 1), mu ~ Normal(0, 2)
PRECISION = NUM_ROWS + 0.25
MEAN, SD = Y.sum() / PRECISION, 1.0 / np.sqrt(PRECISION)
LOG_EVIDENCE = float(  # log Normal(y; 0, I + 4 11')
    -0.5 * NUM_ROWS * np.log(2 * np.pi)
    - 0.5 * np.log(4.0 * PRECISION)
    - 0.5 * ((Y**2).sum() - MEAN**2 * PRECISION)
)
# elpd of leave-one-out: Normal(y_i; mean without i, 1 + variance without i)
_WITHOUT = (Y.sum() - Y) / (PRECISION - 1.0)
_SPREAD = 1.0 + 1.0 / (PRECISION - 1.0)
ELPD = float((-0.5 * np.log(2 * np.pi * _SPREAD) - 0.5 * (Y - _WITHOUT) ** 2 / _SPREAD).sum())


def normal(x, loc=0.0, scale=1.0):
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def log_joint(mu):
    return normal(Y, mu[..., None]).sum(axis=-1) + normal(mu, 0.0, 2.0)


GLOBAL_EVALUATORS = {
    "posterior_predictive": lambda d: {
        "y": d["mu"][:, None] + np.random.default_rng(1).normal(size=(len(d["mu"]), NUM_ROWS))
    },
    "log_likelihood": lambda d: {"y": normal(Y, d["mu"][:, None])},
    "log_prior": lambda d: {"mu": normal(d["mu"], 0.0, 2.0)},
    "prior": lambda d: {"mu": np.random.default_rng(2).normal(0.0, 2.0, len(d["mu"]))},
    "prior_predictive": lambda d: {
        "y": np.random.default_rng(3).normal(0.0, 5**0.5, (len(d["mu"]), NUM_ROWS))
    },
}
_SHARED = {"evaluators": GLOBAL_EVALUATORS, "dims": {"y": ("data",)}, "observed_data": {"y": Y}}


def mcmc() -> Posterior:
    rng = np.random.default_rng(4)
    mu = rng.normal(MEAN, SD, (4, 250))
    lp = log_joint(mu)
    stats = {
        "lp": lp,
        "diverging": np.zeros((4, 250), bool),
        "energy": rng.exponential(size=(4, 250)) - lp,
        "tree_depth": rng.integers(1, 4, (4, 250)),
        "acceptance_rate": rng.random((4, 250)),
    }
    return Posterior({"mu": mu}, stats=stats, **_SHARED)


def _guide():
    mu = np.random.default_rng(5).normal(MEAN + 0.5 * SD, 1.5 * SD, (1, 2000))
    return mu, {"lp": log_joint(mu), "log_q": normal(mu, MEAN + 0.5 * SD, 1.5 * SD)}


def svi() -> Posterior:
    mu, stats = _guide()
    return Posterior({"mu": mu}, stats=stats, method="svi", **_SHARED)


def importance() -> Posterior:
    mu, stats = _guide()
    log_w = stats["lp"] - stats["log_q"]
    found = evidence(log_w[0])
    return Posterior({"mu": mu}, log_w, stats=stats, evidence=found, method="importance", **_SHARED)


def importance_per_row() -> Posterior:
    """z_i ~ Normal(0, 1), y_i ~ Normal(z_i, 1): p(y_i) is Normal(0, sqrt 2), z_i | y_i is known."""
    rng = np.random.default_rng(6)
    z = rng.normal(Y / 2.0 + 0.2, 1.0, (1, 2000, NUM_ROWS))
    log_w = normal(z) + normal(Y, z) - normal(z, Y / 2.0 + 0.2)
    return Posterior(
        {"z": np.stack([z, z**2], axis=-1)},
        log_w,
        evidence=evidence(log_w[0], rows="data"),
        method="importance",
        row_dim="data",
        row_axis={"z": 0},
        dims={"z": ("data",), "y": ("data",)},
        observed_data={"y": Y},
        evaluators={
            "posterior_predictive": lambda d: {
                "y": d["z"][..., 0] + np.random.default_rng(1).normal(size=d["z"].shape[:2])
            },
            "log_prior": lambda d: {"z": normal(d["z"][..., 0])},
        },
    )


ALL = {
    "mcmc": mcmc,
    "svi": svi,
    "importance": importance,
    "importance per row": importance_per_row,
}
