"""Posterior: equal weights without bias, evaluators that run once, shapes that are checked."""

from dataclasses import replace

import numpy as np
import pytest

from deepgen_ppl import Posterior
from deepgen_ppl.evidence import evidence
from tests.hall import posteriors


def test_resampled_draws_have_the_moments_of_the_posterior():
    weighted = posteriors.importance()
    even = weighted.resample(seed=1)
    mu = even.draws["mu"]
    assert mu.shape == (1, 2000) and even.log_weights is None
    error = 5.0 * posteriors.SD / np.sqrt(weighted.evidence.ess)
    assert abs(mu.mean() - posteriors.MEAN) < error
    assert abs(mu.std() - posteriors.SD) < error
    assert abs(weighted.draws["mu"].mean() - posteriors.MEAN) > error
    assert abs(weighted.evidence.log_evidence - posteriors.LOG_EVIDENCE) < (
        5.0 * weighted.evidence.standard_error
    )


def test_resampling_keeps_a_draw_together():
    weighted = posteriors.importance()
    even = weighted.resample()
    np.testing.assert_allclose(even.stats["lp"], posteriors.log_joint(even.draws["mu"]))
    assert "log_q" not in even.stats
    assert "log_q" in weighted.to_datatree()["proposal"]


def test_rows_are_resampled_by_their_own_weights():
    weighted = posteriors.importance_per_row()
    even = weighted.resample()
    z, square = even.draws["z"][0, ..., 0], even.draws["z"][0, ..., 1]
    np.testing.assert_array_equal(square, z**2)  # the event of one row stays together
    error = 5.0 * np.sqrt(0.5 / weighted.evidence.ess)
    assert (np.abs(z.mean(axis=0) - posteriors.Y / 2.0) < error).all()
    assert (np.abs(z.var(axis=0) - 0.5) < 3.0 * error).all()
    correlation = np.corrcoef(z.T)[np.triu_indices(12, 1)]
    assert np.abs(correlation).max() < 5.0 / np.sqrt(len(z))


def test_the_data_axis_of_a_site_may_be_anywhere():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 10, 3, 4))  # two chains, an outer plate of 3, data plate of 4
    log_w = np.full((2, 10, 4), -np.inf)
    log_w[1, 7] = 0.0
    posterior = Posterior(
        {"z": z, "same": np.ones((2, 10, 5)), "other": rng.normal(size=(2, 10))},
        log_w,
        method="importance",
        row_axis={"z": 1},
        row_dim="data",
    )
    even = posterior.resample(6)
    np.testing.assert_array_equal(even.draws["z"], np.repeat(z[1:, 7:8], 6, axis=1))
    assert even.draws["same"].shape == (1, 6, 5)
    assert "other" not in even.draws  # no weight is its own; it stands in the proposal
    assert "other" in posterior.to_datatree()["proposal"]


def test_equally_weighted_draws_are_thinned_evenly():
    draws = np.arange(40.0).reshape(4, 10)
    posterior = Posterior({"z": draws}, stats={"lp": -draws})
    assert posterior.resample() is posterior
    thin = posterior.resample(12)
    np.testing.assert_array_equal(thin.draws["z"], draws[:, [0, 4, 9]])
    np.testing.assert_array_equal(thin.stats["lp"], -draws[:, [0, 4, 9]])
    assert thin.diagnose() is posterior.diagnose()
    for num in (3, 44):
        with pytest.raises(ValueError, match=rf"num_draws={num} cannot be thinned .* 4 to 40"):
            posterior.resample(num)


def test_evaluators_see_equally_weighted_flat_draws_once():
    seen = []

    def log_prior(draws):
        seen.append({name: value.shape for name, value in draws.items()})
        return {"z": -draws["z"].sum(axis=-1)}

    z = np.random.default_rng(0).normal(size=(4, 50, 3))
    posterior = Posterior({"z": z}, evaluators={"log_prior": log_prior})
    for _ in range(2):
        tree = posterior.to_datatree()
    assert seen == [{"z": (200, 3)}]
    np.testing.assert_allclose(tree.log_prior["z"], -z.sum(axis=-1))
    posterior.to_datatree(num_draws=40)
    assert seen[1:] == [{"z": (40, 3)}]


def test_evaluators_that_lose_draws_are_told():
    wrong = {"log_prior": lambda draws: {"z": draws["z"][:5]}}
    with pytest.raises(
        ValueError, match=r"log_prior of 'z' has shape \(5,\).*begin with 200 draws"
    ):
        Posterior({"z": np.zeros((4, 50))}, evaluators=wrong).to_datatree()
    with pytest.raises(ValueError, match=r"cannot compute 'prior'; it has \['log_prior'\]"):
        Posterior({"z": np.zeros((4, 50))}, evaluators=wrong).evaluate("prior")


def test_half_precision_is_widened():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        posterior = Posterior({"z": np.ones((1, 4), dtype)})
        assert posterior.draws["z"].dtype == np.float32


def test_independence_follows_from_the_method():
    draws = {"z": np.zeros((1, 4))}
    assert not Posterior(draws).independent
    assert Posterior(draws, method="importance").independent
    assert not Posterior(draws, method="smc", independent=False).independent


def test_summary_has_no_chain_columns_for_independent_draws():
    assert "r_hat" in posteriors.mcmc().summary().columns
    assert "r_hat" not in posteriors.importance().summary().columns
    assert "r_hat" in posteriors.importance().summary(kind="all").columns


def test_summary_takes_sites_that_never_vary():
    draws = {"z": np.random.default_rng(0).normal(size=(4, 50)), "c": np.ones((4, 50, 2))}
    assert list(Posterior(draws).summary().index) == ["z", "c[0]", "c[1]"]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_draws_are_laid_out_too(num):
    draws = np.random.default_rng(0).normal(size=(1, num))
    assert Posterior({"z": draws}).to_datatree().attrs["diagnosis_ok"] == 0
    weights = np.zeros((1, num))
    few = Posterior({"z": draws}, weights, evidence=evidence(weights[0]), method="importance")
    assert few.to_datatree().posterior.sizes["draw"] == num


BAD = {
    "other draws": ({"a": np.zeros((4, 5)), "b": np.zeros((4, 6))}, {}, r"'b' has shape \(4, 6\)"),
    "no draw axis": ({"a": np.zeros(4)}, {}, r"Site 'a' has shape \(4,\)"),
    "stats": ({"a": np.zeros((4, 5))}, {"stats": {"lp": np.zeros(4)}}, r"Statistic 'lp' has shape"),
    "weights": ({"a": np.zeros((4, 5))}, {"log_weights": np.zeros((5, 4))}, r"log_weights has sha"),
    "rows": (
        {"a": np.zeros((1, 5, 3))},
        {"log_weights": np.zeros((1, 5, 2)), "row_axis": {"a": 0}},
        r"'a' has 3 rows on axis 0, but log_weights have shape \(1, 5, 2\)",
    ),
    "row axis": ({"a": np.zeros((1, 5))}, {"row_axis": {"a": 0}}, r"axis 0 of site 'a'"),
    "row site": ({"a": np.zeros((1, 5))}, {"row_axis": {"b": 0}}, r"axis 0 of site 'b'"),
}


@pytest.mark.parametrize("name", BAD)
def test_contradicting_shapes_are_refused(name):
    draws, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        Posterior(draws, **options)


def test_it_prints_in_a_line():
    assert repr(posteriors.mcmc()) == "Posterior(mcmc, 4 x 250 draws of mu ())"
    assert repr(posteriors.importance_per_row()) == (
        "Posterior(importance, 1 x 2000 draws of z (12, 2), weighted, rows of 'data')"
    )
    assert repr(Posterior({})) == "Posterior(mcmc, 0 x 0 draws of no site)"


def test_a_changed_copy_starts_afresh():
    posterior = posteriors.mcmc()
    assert posterior.diagnose().ok
    stuck = replace(posterior, draws={"mu": np.repeat(posterior.draws["mu"][:, :1], 250, axis=1)})
    assert not stuck.diagnose().ok
