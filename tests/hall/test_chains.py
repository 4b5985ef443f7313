"""Chains: ArviZ's numbers, for the element that is worst."""

import arviz_stats
import numpy as np
import pytest

from deepgen_ppl import Posterior
from deepgen_ppl.chains import energy_bfmi, worst_statistics


def autoregressive(rng, shape, correlation=0.5):
    """Chains of which neighbouring draws are correlated."""
    noise = rng.normal(size=shape)
    for step in range(1, shape[1]):
        noise[:, step] += correlation * noise[:, step - 1]
    return noise


def test_the_worst_is_the_worst_of_arvizs_summary():
    rng = np.random.default_rng(0)
    draws = {"a": autoregressive(rng, (4, 200)), "b": autoregressive(rng, (4, 200, 3), 0.9)}
    tree = Posterior(draws).to_datatree()
    found = worst_statistics(draws)
    table = arviz_stats.summary(tree, round_to="none")
    assert found["R-hat"] == (pytest.approx(table["r_hat"].max()), table["r_hat"].idxmax())
    assert found["bulk ESS"] == (pytest.approx(table["ess_bulk"].min()), table["ess_bulk"].idxmin())
    tails = arviz_stats.ess(tree, method="tail", prob=(0.05, 0.95))  # the paper's quantiles
    assert found["tail ESS"][0] == pytest.approx(min(tails["a"].min(), tails["b"].min()))


def test_the_worst_of_ten_thousand_elements_is_found():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4, 100, 10_000)).astype(np.float32)
    z[:, :, 77] = autoregressive(rng, (4, 100), 0.95)
    z[0, :, 1234] += 4.0
    found = worst_statistics({"z": z})
    assert found["R-hat"][1] == "z[1234]"
    assert found["bulk ESS"][1] in ("z[77]", "z[1234]")
    assert found["tail ESS"][1] == "z[77]"


def test_what_never_varies_is_left_out():
    z = np.random.default_rng(2).normal(size=(4, 100, 2, 2))
    z[..., 0, 1] = 0.0
    assert worst_statistics({"z": z})["R-hat"][0] < 1.05
    assert worst_statistics({"z": np.ones((4, 100, 3))}) == {}
    assert worst_statistics({"z": np.ones((4, 100, 0))}) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_draws_that_are_not_finite_never_pass(value):
    z = np.random.default_rng(3).normal(size=(4, 100, 2))
    z[1, 50, 1] = value
    assert worst_statistics({"z": z})["R-hat"] == (np.inf, "z[1]")


def test_chains_stuck_in_different_places_never_pass():
    z = np.repeat(np.arange(4.0)[:, None], 100, axis=1)
    assert worst_statistics({"z": z}) == {
        "R-hat": (np.inf, "z"),
        "bulk ESS": (0.0, "z"),
        "tail ESS": (0.0, "z"),
    }


def test_discrete_draws_are_checked_as_far_as_they_go():
    draws = np.random.default_rng(4).integers(0, 2, size=(4, 200))
    found = worst_statistics({"flag": draws.astype(bool), "count": draws})
    assert found["R-hat"][0] < 1.05
    rare = np.zeros((4, 200), int)
    rare[:, 7] = 1
    assert np.isfinite(worst_statistics({"rare": rare})["R-hat"][0])


def test_a_discrete_chain_may_rest_but_not_all_of_them():
    rare = np.random.default_rng(5).binomial(1, 0.004, size=(64, 200))
    assert (np.ptp(rare, axis=1) == 0).sum() > 10
    assert worst_statistics({"rare": rare})["R-hat"][0] < 1.1
    assert worst_statistics({"rare": rare.astype(float)})["R-hat"][0] == np.inf
    assert worst_statistics({"stuck": np.repeat([[0], [1]], 50, axis=1)})["R-hat"][0] == np.inf


def test_energy_bfmi_is_arvizs():
    energy = autoregressive(np.random.default_rng(5), (4, 300), 0.9)
    expected = arviz_stats.bfmi(Posterior({}, stats={"energy": energy}).to_datatree())
    np.testing.assert_allclose(energy_bfmi(energy), expected["energy"])
    assert np.isnan(energy_bfmi(np.zeros((2, 100)))).all()
    assert np.isnan(energy_bfmi(energy[:, :3])).all()
