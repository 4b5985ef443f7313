"""`predict` and the evaluators: what a model says of data, drawn and weighed."""

import numpy as np
import pytest
from scipy import stats

RNG = np.random.default_rng(0)
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], "float32")
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], "float32")
X = np.concatenate([RNG.normal(-2, 0.5, (20, 2)), RNG.normal(1, 1, (30, 2))]).astype("float32")


def close(draws, mean, sd=None):
    """Whether independent draws have this mean, within five of their standard errors."""
    sd = draws.std() if sd is None else sd
    return abs(draws.mean() - mean) < 5 * sd / np.sqrt(draws.size)


@pytest.fixture(scope="module")
def schools(dg, zoo):
    """A posterior whose latents are partly local to the data."""
    return dg.mcmc(
        zoo.eight_schools, Y, SIGMA, num_warmup=300, num_samples=300, num_chains=2, progress=False
    )


@pytest.fixture(scope="module")
def mixture(dg, zoo):
    """A posterior with a discrete latent of each datum summed out."""
    return dg.mcmc(zoo.mixture, X, num_warmup=200, num_samples=200, num_chains=2, progress=False)


def test_prior_predictive_has_the_prior_s_moments(dg, zoo):
    tree = dg.predict(zoo.normal_mean, np.zeros(3, "float32"), num_samples=4000)
    assert tree.prior["mean"].dims == ("chain", "draw")
    assert tree.prior_predictive["y"].dims == ("chain", "draw", "data")
    drawn = tree.prior_predictive["y"].values[0]
    assert close(drawn[:, 0], 0.0)
    assert abs(drawn[:, 0].var() - 2.0) < 5 * 2.0 * np.sqrt(2 / 4000)
    assert abs(np.cov(drawn[:, 0], drawn[:, 1])[0, 1] - 1.0) < 5 * np.sqrt(5 / 4000)
    np.testing.assert_array_equal(tree.observed_data["y"], np.zeros(3))


def test_posterior_predictive_keeps_the_draws(dg, zoo):
    draws = RNG.normal(3.0, 0.1, (2, 1000)).astype("float32")
    posterior = dg.Posterior({"mean": draws})
    tree = dg.predict(
        zoo.normal_mean, np.zeros(3, "float32"), posterior=posterior, num_samples=5000
    )
    np.testing.assert_allclose(tree.posterior["mean"], draws, rtol=1e-6)
    drawn = tree.posterior_predictive["y"].values
    assert drawn.shape == (2, 1000, 3)
    noise = drawn - draws[:, :, None]
    assert close(noise, 0.0, 1.0)
    assert abs(noise.var() - 1.0) < 5 * np.sqrt(2 / noise.size)


def test_fewer_draws_on_request(dg, zoo):
    posterior = dg.Posterior({"mean": np.zeros((2, 1000), "float32")})
    tree = dg.predict(zoo.normal_mean, np.zeros(3, "float32"), posterior=posterior, num_samples=100)
    shape = tree.posterior_predictive["y"].shape
    assert shape[0] * shape[1] == 100


def test_same_seed_same_draws(dg, zoo):
    y = np.zeros(3, "float32")
    first, second, third = (
        dg.predict(zoo.normal_mean, y, num_samples=10, seed=seed).prior_predictive["y"].values
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_missing_response_is_predicted_at_new_rows(dg, zoo):
    slope = np.full((1, 500), 2.0, "float32")
    posterior = dg.Posterior({"slope": slope})
    x = np.array([0.0, 1.0, 2.0, 3.0], "float32")
    tree = dg.predict(zoo.line, x, None, posterior=posterior)
    drawn = tree.posterior_predictive["y"].values[0]
    assert drawn.shape == (500, 4)
    for i in range(4):
        assert close(drawn[:, i], 2.0 * x[i], 0.5)
    np.testing.assert_allclose(tree.posterior_predictive["mu"].values[0], slope.T * x, rtol=1e-5)


def test_new_rows_draw_their_local_latents_from_the_model(dg, zoo, schools):
    tree = dg.predict(zoo.eight_schools, Y[:3], SIGMA[:3], posterior=schools)
    assert set(tree.posterior.data_vars) == {"mu", "tau"}
    z = tree.posterior_predictive["z"].values
    assert z.shape == (2, 300, 3)
    assert close(z, 0.0, 1.0)
    assert abs(z.var() - 1.0) < 5 * np.sqrt(2 / z.size)
    assert tree.posterior_predictive["obs"].shape == (2, 300, 3)


def test_guide_draws_the_latents(dg, zoo):
    y, loc = np.zeros(3, "float32"), np.float32(4.0)
    tree = dg.predict(zoo.normal_mean, y, guide=zoo.normal_mean_guide, params={"loc": loc})
    assert close(tree.posterior["mean"].values, 4.0, 0.1)
    with pytest.raises(ValueError, match="loc"):
        dg.predict(zoo.normal_mean, y, guide=zoo.normal_mean_guide)


def test_rows_without_data_are_drawn_by_the_model(dg, zoo):
    x, loc = np.ones(3, "float32"), np.float32(4.0)
    tree = dg.predict(zoo.line, x, None, guide=zoo.line_guide, params={"loc": loc})
    assert set(tree.posterior.data_vars) == {"slope"}
    assert close(tree.posterior_predictive["y"].values, 4.0, 1.1)


def test_factors_need_a_posterior(dg, zoo):
    y = np.zeros(3, "float32")
    with pytest.raises(ValueError, match=r"factor.*'tilt'.*mcmc"):
        dg.predict(zoo.tilted, y)
    posterior = dg.Posterior({"mean": np.ones((1, 50), "float32")})
    tree = dg.predict(zoo.tilted, y, posterior=posterior)
    assert set(tree.posterior_predictive.data_vars) == {"y"}


def test_bad_input(dg, zoo):
    y = np.zeros(3, "float32")
    with pytest.raises(ValueError, match=r"'y' has shape \(3,\) but its data have shape \(3, 1\)"):
        dg.predict(zoo.normal_mean, y[:, None])
    posterior = dg.Posterior({"mean": np.zeros((1, 50, 2), "float32")})
    with pytest.raises(ValueError, match=r"'mean' has shape \(2,\)"):
        dg.predict(zoo.normal_mean, y, posterior=posterior)
    with pytest.raises(ValueError, match=r"none of the model's latent sites.*'mean'"):
        dg.predict(zoo.normal_mean, y, posterior=dg.Posterior({"other": np.zeros((1, 5))}))
    with pytest.raises(TypeError, match="posterior"):
        dg.predict(zoo.normal_mean, y, posterior={"mean": np.zeros(5)})
    with pytest.raises(ValueError, match="not both"):
        dg.predict(zoo.normal_mean, y, posterior=posterior, guide=zoo.normal_mean_guide)
    with pytest.raises(ValueError, match="num_samples"):
        dg.predict(zoo.normal_mean, y, num_samples=0)


def test_log_likelihood_integrates_continuous_local_latents(schools):
    found = schools.evaluate("log_likelihood")["obs"]
    mu, tau = (schools.draws[name][..., None] for name in ("mu", "tau"))
    exact = stats.norm(mu, np.sqrt(tau**2 + SIGMA**2)).logpdf(Y)
    error = found - exact
    assert found.shape == exact.shape
    assert np.sqrt((error**2).mean()) < 0.1
    assert (np.abs(error.mean((0, 1))) < 0.01).all()


def test_log_likelihood_sums_discrete_local_latents(mixture):
    found = mixture.evaluate("log_likelihood")["x"]
    weight, mean, sd = (mixture.draws[name] for name in ("weight", "mean", "sd"))
    parts = stats.norm(mean[..., None, :, :], sd[..., None, :, :]).logpdf(X[:, None]).sum(-1)
    exact = np.logaddexp.reduce(parts + np.log(weight)[..., None, :], -1)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_log_prior_and_conditional_log_likelihood(dg, zoo):
    y = np.array([0.5, 1.0, 2.0], "float32")
    posterior = dg.mcmc(
        zoo.normal_mean, y, num_warmup=50, num_samples=50, num_chains=1, progress=False
    )
    mean = posterior.draws["mean"]
    prior = posterior.evaluate("log_prior")
    assert set(prior) == {"mean"}
    np.testing.assert_allclose(prior["mean"], stats.norm.logpdf(mean), atol=1e-5)
    exact = stats.norm(mean[..., None], 1.0).logpdf(y)
    np.testing.assert_allclose(posterior.evaluate("log_likelihood")["y"], exact, atol=1e-4)


def test_posterior_predictive_of_mcmc_is_named_by_plates(schools):
    tree = schools.to_datatree(groups=("posterior_predictive", "observed_data", "constant_data"))
    assert tree.posterior_predictive["obs"].dims == ("chain", "draw", "school")
    np.testing.assert_array_equal(tree.observed_data["obs"], Y)
    np.testing.assert_array_equal(tree.constant_data["sigma"], SIGMA)
    replicated = tree.posterior_predictive["obs"].values
    theta = schools.draws["mu"][..., None] + schools.draws["tau"][..., None] * schools.draws["z"]
    noise = (replicated - theta) / SIGMA
    assert close(noise, 0.0, 1.0)


def test_prior_groups_on_request(schools):
    tree = schools.to_datatree(groups=("prior", "prior_predictive"))
    assert set(tree.prior.data_vars) == {"mu", "tau", "z"}
    assert abs(float(tree.prior["mu"].mean())) < 5 * 5.0 / np.sqrt(600)
    assert tree.prior_predictive["obs"].shape == (2, 300, 8)
