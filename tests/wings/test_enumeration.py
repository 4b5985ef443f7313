"""Discrete latents that a guide lacks are summed out: weights, evidence, diagnosis, likelihood."""

import importlib
import itertools
from types import ModuleType

import numpy as np
import pytest

X = np.array([-2.4, -1.1, 0.4, 1.6, 2.9, 2.2, 1.9], dtype=np.float32)
WEIGHTS, MEANS = np.array([0.3, 0.7]), np.array([-2.0, 2.0])


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The same native programs in the wing's language."""
    return importlib.import_module(f"{__package__}.mixtures_{wing}")


def log_normal(x: np.ndarray, mean: np.ndarray, sd: float) -> np.ndarray:
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def log_multivariate(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    from scipy.stats import multivariate_normal

    return float(multivariate_normal.logpdf(x, mean, covariance))


def row_log_likelihood(mean: np.ndarray) -> np.ndarray:
    """Log density of each datum given the means `(..., 2)`, its group summed out."""
    parts = log_normal(X[:, None], mean[..., None, :], 0.8) + np.log(WEIGHTS)
    return np.logaddexp(parts[..., 0], parts[..., 1])


def exact_per_row() -> np.ndarray:
    """Log density of each datum of `own_values`."""
    parts = [
        np.log(WEIGHTS[group])
        + np.log(WEIGHTS[group] if coin else 1 - WEIGHTS[group])
        + log_normal(X, MEANS[group] + coin, np.sqrt(1.25))
        for group, coin in itertools.product((0, 1), (0, 1))
    ]
    return np.logaddexp.reduce(parts)


@pytest.mark.parametrize("guide", ["values_guide", "values_and_coins"])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_each_datum_has_its_own_evidence(
    dg: ModuleType, programs: ModuleType, guide: str, batch_size: int | None
) -> None:
    options = {"num_particles": 4000, "params": {"scale": np.float32(0.9)}}
    guide_ = getattr(programs, guide)
    found = dg.importance(programs.own_values, guide_, X, batch_size=batch_size, **options)
    evidence = found.evidence
    assert "group" not in found.draws
    assert ("coin" in found.draws) == (guide == "values_and_coins")
    gap = np.abs(evidence.per_row - exact_per_row())
    assert (gap < 4.5 * evidence.per_row_standard_error).all()  # the largest of seven
    assert abs(evidence.log_evidence - exact_per_row().sum()) < 4 * evidence.standard_error


def test_evidence_of_a_mixture_is_the_enumerated_one(dg: ModuleType, programs: ModuleType) -> None:
    parts = []
    for groups in itertools.product((0, 1), repeat=len(X)):
        group = np.array(groups)
        covariance = 0.64 * np.eye(len(X)) + 0.25 * (group[:, None] == group[None])
        joint = np.log(WEIGHTS[group]).sum() + log_multivariate(X, MEANS[group], covariance)
        parts.append(joint)
    found = dg.importance(programs.shared_means, programs.means_guide, X, num_particles=4000)
    exact = np.logaddexp.reduce(parts)
    assert abs(found.evidence.log_evidence - exact) < 4 * found.evidence.standard_error
    assert found.evidence.standard_error < 0.05


def test_a_site_that_rows_share_is_summed_out_too(dg: ModuleType, programs: ModuleType) -> None:
    covariance = 0.64 * np.eye(len(X)) + 1.0
    parts = [
        np.log(weight) + log_multivariate(X, np.full(len(X), mean), covariance)
        for weight, mean in zip(WEIGHTS, MEANS, strict=True)
    ]
    found = dg.importance(programs.one_group, programs.one_mean_guide, X, num_particles=4000)
    gap = found.evidence.log_evidence - np.logaddexp(*parts)
    assert abs(gap) < 4 * found.evidence.standard_error
    assert found.evidence.standard_error < 0.1


def test_a_fit_by_trace_enum_answers_everything(dg: ModuleType, programs: ModuleType, zoo) -> None:
    options = {"num_steps": 600, "optim": zoo.adam(0.03), "progress": False}
    guide, loss = programs.auto_guide(), programs.trace_enum()
    fit = dg.svi(programs.shared_means, guide, X, loss=loss, **options)
    checks = {check.name: check for check in fit.diagnose().checks}
    assert np.isfinite(checks["Pareto k"].value)
    assert checks["Pareto k"].ok
    posterior = fit.posterior(num_samples=50)
    assert set(posterior.draws) == {"mean"}
    mean = np.asarray(posterior.draws["mean"], float)
    likelihood = row_log_likelihood(mean)
    joint = likelihood.sum(-1) + log_normal(mean, MEANS, 0.5).sum(-1)
    np.testing.assert_allclose(posterior.stats["lp"], joint, atol=1e-4)
    tree = posterior.to_datatree()
    np.testing.assert_allclose(tree["log_likelihood"]["x"], likelihood, atol=1e-4)
    assert tree["posterior_predictive"]["x"].shape == (1, 50, len(X))
    weighed = fit.importance(num_particles=500)
    assert weighed.evidence.ess > 250
    assert set(weighed.draws) == {"mean"}


def test_an_infinite_support_is_refused(dg: ModuleType, programs: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"the guide lacks the discrete 'count'.*finite support"):
        dg.importance(programs.counted, programs.one_mean_guide, X)


@pytest.mark.parametrize("guide", ["masked_coins_guide", "own_mask_coins_guide"])
def test_masked_draws_keep_their_score(
    dg: ModuleType, programs: ModuleType, zoo: ModuleType, guide: str
) -> None:
    # L_i = sum_b q(b) [log p(x_i, b) - m_i log q(b)], whose gradient is enumerated.
    masked = np.array([False, True, False, True, True, False, True])
    heads, count = 1 / (1 + np.exp(-0.4)), 20_000
    chances = np.array([1 - heads, heads])[:, None]
    values = np.array([0.0, 1.0])[:, None]
    cost = np.log(np.where(values, 0.3, 0.7)) + log_normal(X, 2 * values, 1.0)
    cost = cost - np.where(masked, 0.0, np.log(chances))
    exact = (chances * cost * (values - heads)).sum(0)
    error = np.sqrt((chances * (cost * (values - heads)) ** 2).sum(0) / count)
    options = {"num_steps": 1, "optim": zoo.sgd(1.0), "progress": False}
    loss = dg.ELBO(num_particles=count)
    fit = dg.svi(programs.coins, getattr(programs, guide), X, masked, loss=loss, **options)
    found = np.asarray(fit.params["logits"]) - 0.4
    assert (np.abs(found - exact) < 4.5 * error).all()
    assert (np.abs(exact[masked]) > 8 * error[masked]).all()


def log_mean_exp(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the mean over draws of each datum, and its standard error."""
    top = values.max(0)
    parts = np.exp(values - top)
    return np.log(parts.mean(0)) + top, parts.std(0) / parts.mean(0) / len(values) ** 0.5


def test_integrated_likelihood_where_a_prior_is_a_mixture(
    dg: ModuleType, programs: ModuleType, zoo: ModuleType
) -> None:
    options = {"num_steps": 1, "optim": zoo.sgd(0.0), "progress": False}
    loss = programs.trace_enum()
    fit = dg.svi(programs.enumerated_values, programs.values_guide, X, loss=loss, **options)
    found = fit.posterior(num_samples=40).evaluate("log_likelihood")["x"][0]
    estimate, error = log_mean_exp(np.asarray(found, float))
    assert (error < 0.05).all()
    assert (np.abs(estimate - exact_per_row()) < 5 * error).all()


def test_integrated_likelihood_of_draws_that_miss_the_posterior(
    dg: ModuleType, zoo: ModuleType, programs: ModuleType
) -> None:
    # Draws of a narrow guide far away: a proposal made of them alone would see nothing.
    options = {"num_steps": 1, "optim": zoo.sgd(0.0), "progress": False}
    fit = dg.svi(zoo.local_normal, programs.far_guide, X, **options)
    found = fit.posterior(num_samples=40).evaluate("log_likelihood")["x"][0]
    estimate, error = log_mean_exp(np.asarray(found, float))
    assert (error < 0.1).all()
    assert (np.abs(estimate - log_normal(X, np.zeros(1), 2**0.5)) < 5 * error).all()


@pytest.mark.parametrize("name", ["random_walk", "coin_walk"])
def test_rows_that_touch_each_other_are_not_integrated(
    dg: ModuleType, zoo: ModuleType, name: str
) -> None:
    x = np.tile(X, 3)
    found = dg.importance(getattr(zoo, name), None, x, num_particles=20)
    assert found.row_dim is None
    walked = np.cumsum(np.asarray(found.draws["z"], float), axis=-1)
    likelihood = found.evaluate("log_likelihood")["x"]
    np.testing.assert_allclose(likelihood, log_normal(x, walked, 1.0), rtol=1e-4, atol=1e-4)
