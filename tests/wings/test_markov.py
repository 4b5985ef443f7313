"""Chains of latents, as `scan` and `markov` write them: every verb against exact answers."""

import importlib
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

Y = np.array([0.6, 1.4, 1.9, 0.3, -0.8, -1.3], dtype=np.float32)
SIZE = len(Y)
CHAINS = {"num_warmup": 300, "num_samples": 1000, "num_chains": 2, "progress": False}


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The same native programs in the wing's language."""
    return importlib.import_module(f"{__package__}.markov_{wing}")


def walks(draws: dict) -> np.ndarray:
    """Draws of the chain `(..., T)`: one site of a scan, or a site a step."""
    if "z" in draws:
        return np.asarray(draws["z"], float)
    return np.stack([np.asarray(draws[f"z_{t}"], float) for t in range(SIZE)], axis=-1)


def prior_covariance() -> np.ndarray:
    """Of the autoregression, from its innovations."""
    spread = np.tril(0.8 ** np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE))))
    return 0.25 * spread @ spread.T


def log_evidence_of_autoregression() -> float:
    covariance = prior_covariance() + np.eye(SIZE)
    fit = Y @ np.linalg.solve(covariance, Y)
    return float(-0.5 * (fit + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def states_given(a: np.ndarray) -> np.ndarray:
    """Log density of the data under hidden states, for each value of the parameter."""
    weight = np.stack([np.ones_like(a), np.zeros_like(a)])
    moves = np.array([[0.8, 0.2], [0.2, 0.8]])
    for y in Y.astype(float):
        density = np.stack([stats.norm.pdf(y, -a, 1.0), stats.norm.pdf(y, a, 1.0)])
        weight = (moves.T @ weight) * density
    return np.log(weight.sum(0))


def on_grid(given) -> tuple[float, float, float]:
    """Log evidence, and mean and standard deviation of the parameter."""
    a = np.linspace(-3.0, 5.0, 4001)
    joint = np.exp(given(a) + stats.norm.logpdf(a, 1.0, 0.5))
    weights = joint / joint.sum()
    mean = float(weights @ a)
    return float(np.log(joint.sum() * 0.002)), mean, float(weights @ (a - mean) ** 2) ** 0.5


def error_of(draws: np.ndarray) -> float:
    from arviz_stats.base import array_stats

    return draws.std() / np.sqrt(float(array_stats.ess(np.asarray(draws, float))))


def test_a_latent_autoregression_by_chains(dg: ModuleType, programs: ModuleType) -> None:
    found = dg.mcmc(programs.autoregression, Y, **CHAINS)
    covariance = prior_covariance()
    exact = covariance @ np.linalg.solve(covariance + np.eye(SIZE), Y)
    drawn = walks(found.draws)
    assert drawn.shape == (2, 1000, SIZE)
    for t in range(SIZE):
        assert abs(drawn[..., t].mean() - exact[t]) < 5 * error_of(drawn[..., t])


def test_a_latent_autoregression_by_its_guide(
    dg: ModuleType, programs: ModuleType, zoo: ModuleType
) -> None:
    model = programs.autoregression
    options = {"num_steps": 1500, "optim": zoo.adam(0.02), "progress": False}
    fit = dg.svi(model, programs.full_guide(model), Y, **options)
    exact = log_evidence_of_autoregression()
    assert exact - 0.4 < -np.mean(fit.losses[-300:]) < exact + 0.1
    evidence = fit.importance(num_particles=2000).evidence
    assert abs(evidence.log_evidence - exact) < 5 * evidence.standard_error
    assert evidence.standard_error < 0.05
    again = fit.predict(num_samples=20)
    assert again["posterior_predictive"].sizes["draw"] == 20


def test_a_latent_autoregression_by_its_prior(dg: ModuleType, programs: ModuleType) -> None:
    evidence = dg.importance(programs.autoregression, None, Y, num_particles=5000).evidence
    assert abs(evidence.log_evidence - log_evidence_of_autoregression()) < (
        5 * evidence.standard_error
    )
    assert evidence.standard_error < 0.1


def test_hidden_states_are_summed_out(dg: ModuleType, programs: ModuleType) -> None:
    log_evidence, mean, sd = on_grid(states_given)
    draws = np.asarray(dg.mcmc(programs.hidden_states, Y, **CHAINS).draws["a"], float)
    assert abs(draws.mean() - mean) < 5 * error_of(draws)
    assert abs(draws.std() / sd - 1.0) < 0.15
    model, guide = programs.hidden_states, programs.states_guide
    found = dg.importance(model, guide, Y, num_particles=2000).evidence
    assert abs(found.log_evidence - log_evidence) < 5 * found.standard_error
    assert found.standard_error < 0.05


def test_states_of_a_scan_that_do_not_count_from_zero_are_refused(
    dg: ModuleType, programs: ModuleType, wing: str
) -> None:
    if wing == "pyro":
        pytest.skip("Pyro has no scan, and its enumeration takes the values of the support")
    with pytest.raises(ValueError, match="'x' of a scan does not count from zero"):
        dg.importance(programs.counted_states, programs.states_guide, Y, num_particles=10)


def test_hidden_states_by_their_guide(
    dg: ModuleType, programs: ModuleType, zoo: ModuleType, wing: str
) -> None:
    model = programs.hidden_states
    options = {"num_steps": 800, "optim": zoo.adam(0.03), "progress": False}
    guide = programs.guide_without_states(model)
    if wing == "numpyro":
        with pytest.raises(ValueError, match="chain of numpyro's scan"):
            dg.svi(model, guide, Y, loss=programs.trace_enum(), **options)
        return
    fit = dg.svi(model, guide, Y, loss=programs.trace_enum(), **options)
    log_evidence, mean, sd = on_grid(states_given)
    assert log_evidence - 0.4 < -np.mean(fit.losses[-200:]) < log_evidence + 0.1
    found = fit.importance(num_particles=4000)
    assert abs(found.evidence.log_evidence - log_evidence) < 5 * found.evidence.standard_error
    drawn = np.asarray(found.resample().draws["a"], float)
    assert abs(drawn.mean() - mean) < 5 * sd * (1 / found.evidence.ess + 1 / drawn.size) ** 0.5


def test_chains_are_not_cut_into_batches(
    dg: ModuleType, programs: ModuleType, zoo: ModuleType
) -> None:
    model = programs.autoregression
    options = {"num_steps": 5, "optim": zoo.adam(0.01), "progress": False}
    with pytest.raises(ValueError, match="plate that follows the data"):
        dg.svi(model, programs.full_guide(model), Y, batch_size=3, **options)
