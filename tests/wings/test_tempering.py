"""Parallel tempering: modes that no single chain crosses between, the ladder, and bad input."""

import importlib
import importlib.util

import numpy as np
import pytest

SEEN = np.zeros(1, "float32")
OPTIONS = {"num_warmup": 200, "num_samples": 300, "num_chains": 16, "progress": False}


def close(draws, mean):
    """Whether the mean of draws (chain, draw) is this, within five of its Monte Carlo errors."""
    from arviz_stats.base import array_stats

    error = draws.std() / np.sqrt(float(array_stats.ess(np.asarray(draws, float))))
    return abs(draws.mean() - mean) < 5 * error


@pytest.fixture(scope="module")
def tempering(wing):
    """The kernel of the wing."""
    name = f"deepgen_ppl.{wing}.kernels.tempering"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the {wing} wing has no parallel tempering")
    return importlib.import_module(name).ParallelTempering


@pytest.mark.parametrize("kernel", ["chees", "mala", "rwm"])
def test_both_modes_have_their_weight(dg, zoo, tempering, kernel):
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(kernel), **OPTIONS)
    where = found.draws["where"]
    above = where > 0
    assert close(above.astype(float), 0.75)
    mean, sd = 8.0 * 16.0 / 16.25, (16.0 * 0.25 / 16.25) ** 0.5  # N(0, 4) seen with error 1/2
    assert close(np.where(above, where - mean, -where - mean), 0.0)
    assert close(np.where(above, where - mean, -where - mean) ** 2, sd**2)
    crossings = np.diff(above, axis=1).sum(1)
    assert crossings.min() >= 1  # each chain is in both; single ones never leave theirs
    assert found.attrs["mixed"]


def test_the_ladder(dg, zoo, tempering):
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=tempering("mala", num_temperatures=5), **OPTIONS)
    betas, rates = found.attrs["temperatures"], found.attrs["swap_acceptance"]
    assert betas.shape == (5,) and rates.shape == (4,)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and np.all(np.diff(betas) > 0)
    assert np.all(rates > 0.2) and np.ptp(rates) < 0.2  # neighbours reject about equally often
    assert set(found.stats) >= {"lp", "acceptance_rate", "step_size"}


def test_bad_ladders(dg, zoo, tempering):
    with pytest.raises(ValueError, match=r"num_temperatures must be at least 2, got 1"):
        tempering(num_temperatures=1)
    for kernel in ("nuts", "langevin", tempering()):
        with pytest.raises(ValueError, match=r"ParallelTempering cannot wrap.*'chees'"):
            dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(kernel), **OPTIONS)
    known = {"step_size": np.array(0.1)}
    with pytest.raises(ValueError, match=r"adaptation= does not go with ParallelTempering"):
        dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(), adaptation=known, **OPTIONS)
