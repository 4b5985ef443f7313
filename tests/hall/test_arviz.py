"""ArviZ: its statistics and plots take the DataTree of every method as it is."""

import warnings
from dataclasses import replace

import arviz_plots
import arviz_stats
import numpy as np
import pytest
import xarray as xr

from deepgen_ppl.evidence import evidence
from tests.hall import posteriors


@pytest.fixture(scope="module", params=list(posteriors.ALL))
def tree(request):
    return posteriors.ALL[request.param]().to_datatree()


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib

    matplotlib.use("agg")
    yield
    matplotlib.pyplot.close("all")


def test_loo_is_the_exact_one():
    for make in (posteriors.mcmc, posteriors.importance):
        found = arviz_stats.loo(make().to_datatree(), pointwise=True)
        assert found.elpd == pytest.approx(posteriors.ELPD, abs=0.15)
        assert (found.pareto_k < 0.7).all()


def test_loo_of_a_guide_is_corrected_by_its_density():
    tree = posteriors.svi().to_datatree()
    stats = tree["sample_stats"]
    found = arviz_stats.loo_approximate_posterior(tree, stats["lp"], stats["log_q"])
    assert found.elpd == pytest.approx(posteriors.ELPD, abs=0.15)
    assert abs(arviz_stats.loo(tree).elpd - posteriors.ELPD) > 0.2  # of q instead


def test_loo_of_local_latents_is_the_log_evidence():
    posterior = posteriors.importance_per_row()
    found = arviz_stats.loo(posterior.to_datatree(), pointwise=True)
    np.testing.assert_allclose(found.elpd_i, posterior.evidence.per_row, atol=2e-3)
    exact = posteriors.normal(posteriors.Y, 0.0, np.sqrt(2.0)).sum()
    assert abs(found.elpd - exact) < 5.0 * posterior.evidence.standard_error
    assert found.p < 0.05 * len(found.elpd_i)
    assert (found.pareto_k < 0.5).all()


def test_loo_of_local_latents_tells_of_bad_weights():
    posterior = posteriors.importance_per_row()
    log_w = posterior.log_weights.copy()
    log_w[0, :, 3] = np.random.default_rng(0).normal(0.0, 8.0, log_w.shape[1])
    bad = replace(posterior, log_weights=log_w, evidence=evidence(log_w[0], rows="data"))
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        found = arviz_stats.loo(bad.to_datatree(), pointwise=True)
    assert np.flatnonzero(found.pareto_k > 0.7).tolist() == [3]
    assert float(found.pareto_k[3]) == pytest.approx(bad.evidence.pareto_k[3], abs=0.5)


def test_summary(tree):
    table = arviz_stats.summary(tree)
    independent = tree.attrs["independent_draws"]
    assert table.drop(columns="r_hat").notna().all(axis=None)
    assert table["r_hat"].isna().all() == bool(independent)


def test_psense(tree):
    for group in ("prior", "likelihood"):
        found = arviz_stats.psense(tree, group=group)
        assert all(np.isfinite(value).all() for value in found.values())


def test_compare():
    names = ("mcmc", "importance", "importance per row")
    loos = {n: arviz_stats.loo(posteriors.ALL[n]().to_datatree(), pointwise=True) for n in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ArviZ 0.8's use of pandas
        table = arviz_stats.compare(loos)
    assert table.index[-1] == "importance per row"


@pytest.mark.parametrize("name", ["plot_forest", "plot_ppc_dist", "plot_dist"])
def test_plots(tree, name):
    getattr(arviz_plots, name)(tree, backend="matplotlib")


@pytest.mark.parametrize("name", ["plot_rank", "plot_trace"])
def test_plots_of_chains(name):
    getattr(arviz_plots, name)(posteriors.mcmc().to_datatree(), backend="matplotlib")


def test_plot_khat(tree):
    arviz_plots.plot_khat(arviz_stats.loo(tree, pointwise=True), backend="matplotlib")


def test_a_saved_tree_is_accepted_too(tmp_path):
    for name, make in posteriors.ALL.items():
        path = make().save(tmp_path / f"{name}.nc")
        with xr.open_datatree(path, engine="h5netcdf") as back:
            assert back.attrs["diagnosis_ok"] in (0, 1)
            expected = make().to_datatree()
            assert arviz_stats.loo(back).elpd == pytest.approx(arviz_stats.loo(expected).elpd)
            for group, node in expected.children.items():
                xr.testing.assert_equal(back[group].to_dataset(), node.to_dataset())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.nc" for name in posteriors.ALL
    )
