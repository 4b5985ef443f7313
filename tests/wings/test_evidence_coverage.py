"""One-sided 95% limits of the estimators themselves hold in 88 of 100 repetitions, or more."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import multivariate_normal

LOADING = np.array([[1.0, 0.5, -1.0, 0.3], [0.2, 1.0, 0.6, -0.7]], np.float32)
RNG = np.random.default_rng(11)
X = (RNG.normal(size=(100, 2)) @ LOADING + 0.5 * RNG.normal(size=(100, 4))).astype(np.float32)
TRUTH = multivariate_normal(np.zeros(4), LOADING.T @ LOADING + 0.25 * np.eye(4)).logpdf(X)
QUICK: dict[str, Any] = {"progress": False, "seed": 2}
LEAST = 88


@pytest.fixture(scope="module")
def known(wing: str) -> ModuleType:
    """The wing's programs of known evidence."""
    return importlib.import_module(f"{__package__}.evidence_{wing}")


def held(lower: Any, upper: Any, truth: Any) -> tuple[int, int]:
    """Return how many lower limits, and how many upper ones, are on their side of the truth."""
    return int(np.sum(np.asarray(lower) <= truth)), int(np.sum(np.asarray(upper) >= truth))


@pytest.mark.parametrize("verb", ["ais", "smc", "bridge"])
def test_limits_of_a_hundred_rows(dg: ModuleType, known: ModuleType, verb: str) -> None:
    """Each row is a repetition: its data, its chains and its log evidence are its own."""
    options: dict[str, Any] = {"params": {"loading": LOADING}}
    sizes = {"ais": {"num_chains": 32, "num_temperatures": 20}, "smc": {"num_particles": 128}}
    if verb == "bridge":
        slope = LOADING.T @ np.linalg.inv(np.eye(2) * 0.25 + LOADING @ LOADING.T)
        root = np.linalg.cholesky(np.linalg.inv(np.eye(2) + LOADING @ LOADING.T / 0.25))
        z = X @ slope + RNG.normal(size=(4, 50, 100, 2)) @ root.T
        drawn = dg.Posterior({"z": z.astype(np.float32)})
        found = dg.bridge(drawn, known.ppca, X, seed=2, **options).evidence
        freedom = 100
    else:
        found = getattr(dg, verb)(known.ppca, X, **sizes[verb], **options, **QUICK).evidence
        freedom = {"ais": 32, "smc": 8}[verb] - 1
    error = found.per_row_standard_error
    assert 0.0 < np.median(error) < 1.0
    wide = stdtrit(freedom, 0.95) * error
    # Jensen's bias is put back into upper limits, as `evidence` does.
    upper = found.per_row + wide + (0.5 * error**2 if verb != "bridge" else 0.0)
    below, above = held(found.per_row - wide, upper, TRUTH)
    assert below >= LEAST and above >= LEAST, (below, above)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ais", "smc", "bridge"])
def test_limits_of_a_hundred_seeds(dg: ModuleType, known: ModuleType, verb: str) -> None:
    x = np.random.default_rng(1).normal(1.0, 1.0, (5, 1)).astype(np.float32)
    truth = float(multivariate_normal(np.zeros(5), np.eye(5) + 1.0).logpdf(x[:, 0]))
    sizes: dict[str, dict[str, Any]] = {
        "ais": {"num_chains": 32, "num_temperatures": 10},
        "smc": {"num_particles": 128, "num_islands": 8},
    }
    lower, upper = [], []
    for seed in range(100):
        if verb == "bridge":
            z = np.random.default_rng(seed).normal(x.sum() / 6.0, 6.0**-0.5, (4, 50, 1))
            drawn = dg.Posterior({"z": z.astype(np.float32)})
            found = dg.bridge(drawn, known.gaussian, x, seed=seed).evidence
        else:
            run = getattr(dg, verb)
            found = run(known.gaussian, x, **sizes[verb], progress=False, seed=seed).evidence
        lower.append(found.lower_limit)
        upper.append(found.upper_limit)
    below, above = held(lower, upper, truth)
    assert below >= LEAST and above >= LEAST, (below, above)
    assert np.median(np.subtract(upper, lower)) < 1.0  # and say something
