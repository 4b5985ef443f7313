"""Conjugate models: `svi` finds the exact posterior, `importance` the exact log evidence."""

from types import ModuleType

import numpy as np
import pytest

from .oracles import ORACLES, START

# The guide of each program holds the exact posterior.
WITHIN_REACH = ["normal_mean", "local_normal"]
WITHIN_REACH += [pytest.param(n, marks=pytest.mark.slow) for n in ("regression", "coin", "counts")]
STATED_GUIDES = ("normal_mean", "coin", "counts", "local_normal")


def pair(programs: ModuleType, name: str):
    """Model and guide; autoguides are made anew."""
    guide = getattr(programs, f"{name}_guide")
    return getattr(programs, name), guide() if name == "regression" else guide


def fit_of(dg: ModuleType, programs: ModuleType, name: str, num_steps: int = 1000):
    """A long fit whose step size falls to nothing."""
    exact = ORACLES[name]()
    optim = programs.adam(0.05, num_steps)
    loss = dg.ELBO(num_particles=4)
    options = {"num_steps": num_steps, "optim": optim, "loss": loss, "progress": False}
    if dg.__name__.endswith(".pyro"):
        options["compile"] = "traced"
    return exact, dg.svi(*pair(programs, name), *exact.data, **options)


@pytest.mark.parametrize("name", WITHIN_REACH)
def test_svi_recovers_the_exact_posterior(dg: ModuleType, programs: ModuleType, name: str) -> None:
    exact, fit = fit_of(dg, programs, name)
    draws = fit.posterior(num_samples=4000).draws
    for site, mean in exact.means.items():
        x = np.asarray(draws[site], dtype=float)
        x = x.reshape(-1, *x.shape[2:])
        standardised = (x.mean(0) - mean) / exact.sds[site]
        # Five standard errors of 4,000 draws, and a twentieth of an sd for the optimizer's noise.
        np.testing.assert_allclose(standardised, 0.0, atol=5 / 4000**0.5 + 0.05)
        np.testing.assert_allclose(x.std(0) / exact.sds[site], 1.0, atol=5 / 8000**0.5 + 0.05)
    # At the posterior itself every log weight is the log evidence, and so is the bound.
    final = float(np.mean(fit.losses[-100:]))
    np.testing.assert_allclose(final, -exact.log_evidence / len(exact.data[0]), atol=0.01)


@pytest.mark.slow
def test_maximum_likelihood_of_a_learned_decoder(dg: ModuleType, programs: ModuleType) -> None:
    exact, fit = fit_of(dg, programs, "factor_analysis", num_steps=2000)
    best = exact.log_evidence / len(exact.data[0])
    np.testing.assert_allclose(-np.mean(fit.losses[-100:]), best, atol=0.005)
    evidence = fit.importance(num_particles=500).evidence
    np.testing.assert_allclose(evidence.per_row, exact.per_row, atol=0.1)
    assert abs(evidence.log_evidence - exact.log_evidence) < 4 * evidence.standard_error + 0.5


@pytest.mark.parametrize("name", STATED_GUIDES)
def test_log_evidence_is_the_closed_form(dg: ModuleType, programs: ModuleType, name: str) -> None:
    exact = ORACLES[name]()
    params = {key: np.asarray(value) for key, value in START[name].items()}
    options = {"num_particles": 4_000, "keep_draws": False, "params": params}
    evidence = dg.importance(*pair(programs, name), *exact.data, **options).evidence
    assert evidence.standard_error > 0
    assert abs(evidence.log_evidence - exact.log_evidence) < 4 * evidence.standard_error
    assert (evidence.per_row is None) == (exact.per_row is None)
    if exact.per_row is not None:
        errors = (evidence.per_row - exact.per_row) / evidence.per_row_standard_error
        assert np.abs(errors).max() < 5  # the largest of fifty


def test_log_evidence_from_the_prior(dg: ModuleType, programs: ModuleType) -> None:
    exact = ORACLES["normal_mean"]()
    evidence = dg.importance(programs.normal_mean, None, *exact.data, num_particles=4_000).evidence
    assert abs(evidence.log_evidence - exact.log_evidence) < 4 * evidence.standard_error


def test_exact_posterior_has_constant_weights(dg: ModuleType, programs: ModuleType) -> None:
    exact, fit = fit_of(dg, programs, "normal_mean")
    posterior = fit.importance(num_particles=2000)
    assert abs(posterior.evidence.log_evidence - exact.log_evidence) < 0.01
    assert posterior.evidence.ess > 1900
    assert posterior.diagnose().ok


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal_mean", "regression", "coin", "counts"])
def test_mcmc_agrees_with_the_exact_posterior(
    dg: ModuleType, programs: ModuleType, name: str
) -> None:
    from arviz_stats.base import array_stats

    exact = ORACLES[name]()
    options = {"num_warmup": 500, "num_samples": 500, "num_chains": 4, "progress": False}
    draws = dg.mcmc(getattr(programs, name), *exact.data, **options).draws
    for site, mean in exact.means.items():
        x = np.asarray(draws[site], dtype=float)
        x = x.reshape(*x.shape[:2], -1)
        for i in range(x.shape[2]):
            error = (x[..., i].mean() - mean.ravel()[i]) / array_stats.mcse(x[..., i])
            assert abs(error) < 5
            sd_error = x[..., i].std(ddof=1) - exact.sds[site].ravel()[i]
            assert abs(sd_error) < 5 * array_stats.mcse(x[..., i], method="sd")
