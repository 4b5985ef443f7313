"""What every verb returns is what ArviZ reads: statistics and plots take the DataTree as it is."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

matplotlib.use("Agg")

import arviz_plots
import arviz_stats

RNG = np.random.default_rng(3)
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], "float32")
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], "float32")
X = RNG.normal(0.5, 1.0, 12).astype("float32")
NAMES = list("ABCDEFGH")


@pytest.fixture(scope="module")
def chains(dg, zoo):
    """Two chains of eight schools."""
    return dg.mcmc(
        zoo.eight_schools, Y, SIGMA, num_warmup=300, num_samples=500, num_chains=2, progress=False
    )


@pytest.fixture(scope="module")
def trees(dg, zoo, chains):
    """A DataTree of each verb."""
    fit = dg.svi(
        zoo.normal_mean, zoo.loose_guide, X, num_steps=1500, optim=zoo.adam(0.02), progress=False
    )
    return {
        "mcmc": chains.to_datatree(coords={"school": NAMES}),
        "svi": fit.posterior(num_samples=1000).to_datatree(),
        "importance": fit.importance(num_particles=1000).to_datatree(),
    }


VERBS = ("mcmc", "svi", "importance")


@pytest.mark.parametrize("verb", VERBS)
def test_groups_and_dims(trees, verb):
    tree = trees[verb]
    needed = {"posterior", "posterior_predictive", "log_likelihood", "log_prior", "observed_data"}
    assert needed <= set(tree.children)
    for group in ("posterior", "posterior_predictive", "log_likelihood", "log_prior"):
        for value in tree[group].data_vars.values():
            assert value.dims[:2] == ("chain", "draw")
    assert ("proposal" in tree.children) == (verb == "importance")


@pytest.mark.parametrize("verb", VERBS)
def test_statistics(trees, verb):
    tree = trees[verb]
    table = arviz_stats.summary(tree) if verb == "mcmc" else arviz_stats.summary(tree, kind="stats")
    assert set(table.index) >= ({"mu", "tau", "z[A]"} if verb == "mcmc" else {"mean"})
    loo = arviz_stats.loo(tree, pointwise=True)
    assert np.isfinite(loo.elpd) and np.all(loo.pareto_k < 0.7)
    sensitivity = arviz_stats.psense(tree)
    assert all(np.isfinite(value).all() for value in sensitivity.data_vars.values())


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # pandas in ArviZ
def test_compare(trees):
    table = arviz_stats.compare({"svi": trees["svi"], "importance": trees["importance"]})
    assert abs(table["elpd"].diff().iloc[-1]) < 0.2


def test_loo_of_an_approximate_posterior(trees):
    sample = trees["svi"].sample_stats
    found = arviz_stats.loo_approximate_posterior(trees["svi"], sample["lp"], sample["log_q"])
    exact = arviz_stats.loo(trees["importance"])
    assert abs(found.elpd - exact.elpd) < 0.2


@pytest.mark.parametrize("verb", VERBS)
def test_plots(trees, verb):
    tree = trees[verb]
    options = {"backend": "matplotlib"}
    arviz_plots.plot_forest(tree, **options)
    arviz_plots.plot_ppc_dist(tree, num_samples=20, **options)
    arviz_plots.plot_khat(arviz_stats.loo(tree, pointwise=True), **options)
    if verb == "mcmc":
        arviz_plots.plot_rank(tree, var_names=["mu", "tau"], **options)
    matplotlib.pyplot.close("all")


def test_plate_names_and_coords_arrive(trees):
    tree = trees["mcmc"]
    assert tree.posterior["z"].dims == ("chain", "draw", "school")
    for value in (tree.posterior["z"], tree.log_likelihood["obs"], tree.observed_data["obs"]):
        assert value["school"].values.tolist() == NAMES
    np.testing.assert_array_equal(tree.constant_data["sigma"], SIGMA)


def test_likelihood_of_local_latents_is_integrated(chains):
    mu, tau = (chains.draws[name][..., None] for name in ("mu", "tau"))
    exact = stats.norm.logpdf(Y, mu, np.hypot(tau, SIGMA))
    found = chains.evaluate("log_likelihood")["obs"]
    assert np.abs(found - exact).max() < 0.5
    assert np.abs((found - exact).mean((0, 1))).max() < 0.02


def test_likelihood_uses_learned_parameters(dg, zoo):
    learned = {"weight": 2.0, "bias": 1.0}
    found = dg.mcmc(
        zoo.decoder, X, params=learned, num_warmup=200, num_samples=200, num_chains=2,
        progress=False,
    )  # fmt: skip
    exact = stats.norm.logpdf(X, 1.0, np.sqrt(5.0))  # x_i = 2 z_i + 1 + noise
    assert np.abs(found.evaluate("log_likelihood")["x"].mean((0, 1)) - exact).max() < 0.02
    assert set(found.params) == {"weight", "bias"}
    drawn = found.evaluate("posterior_predictive")["x"]
    mean = 2 * found.draws["z"].mean((0, 1)) + 1
    assert np.abs(drawn.mean((0, 1)) - mean).max() < 5 * drawn.std((0, 1)).max() / np.sqrt(400)
