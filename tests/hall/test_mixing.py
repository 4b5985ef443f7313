"""Mixing of many chains: the groups, R-hat against ArviZ's, and what the gate says."""

import warnings

import numpy as np
import pytest
from arviz_stats.base import array_stats

from deepgen_ppl import Posterior
from deepgen_ppl.mixing import ensemble_rhat, gate, superchains

RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=(64, 50, 3))
APART = GOOD + np.array([0.0, 0.0, 0.6]) * np.repeat(np.arange(8), 8)[:, None, None]
SITES = [("mean", ()), ("scale", (2,))]


def test_groups_are_equal_and_several():
    assert superchains(4) is None and superchains(17) is None
    for num, groups in ((16, 4), (64, 8), (100, 10), (96, 8), (40, 5)):
        found = superchains(num)
        assert found is not None
        assert np.bincount(found).tolist() == [num // groups] * groups


def test_nested_rhat_is_arvizs():
    groups = superchains(64)
    for draws in (GOOD, APART):
        folded = np.abs(draws - np.median(draws, axis=(0, 1)))
        expected = [
            max(
                array_stats.rhat_nested(x[:, :, d], groups, method="identity")
                for x in (draws, folded)
            )
            for d in range(3)
        ]
        np.testing.assert_allclose(ensemble_rhat(draws, groups), expected, rtol=1e-10)


def test_chains_that_mix_pass_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gate("ChEES", GOOD, superchains(64), SITES)
        assert found["mixed"] and found["stuck_chains"] == 0
        assert gate("ChEES", GOOD[:4], None, SITES)["mixed"]


def test_chains_that_have_not_mixed_are_told_with_numbers_and_advice():
    text = (
        r"64 chains of ChEES have not mixed: nested R-hat is [12]\.\d+ on site 'scale\[1\]'.*nuts"
    )
    with pytest.warns(UserWarning, match=text):
        assert not gate("ChEES", APART, superchains(64), SITES)["mixed"]
    stuck = GOOD.copy()
    stuck[3] = stuck[3, :1]
    with pytest.warns(UserWarning, match=r"1 of the chains never moved"):
        assert gate("RWM", stuck, superchains(64), SITES)["stuck_chains"] == 1
    with pytest.warns(UserWarning, match=r"3 draws of each chain are too few"):
        gate("RWM", GOOD[:, :3], superchains(64), SITES)
    with pytest.warns(UserWarning, match=r"Langevin are biased"):
        assert gate("Langevin", GOOD, superchains(64), SITES, biased=True)["biased"]


def test_nested_rhat_decides_for_many_short_chains():
    groups = superchains(64)
    rows = {c.name: c for c in Posterior({"z": GOOD}, superchains=groups).diagnose().checks}
    assert rows["nested R-hat"].ok and rows["R-hat"].ok is not False
    assert rows["bulk ESS"].threshold == ">= 400"
    found = Posterior({"z": APART}, superchains=groups).diagnose()
    assert not found.ok
    assert "z[2]" in {c.name: c for c in found.checks}["nested R-hat"].advice


def test_a_biased_kernel_never_passes():
    found = Posterior({"z": GOOD}, attrs={"biased": True, "kernel": "Langevin"}).diagnose()
    assert [check.name for check in found.failed] == ["biased kernel"]
    assert "steps of Langevin are not tested" in found.failed[0].advice
