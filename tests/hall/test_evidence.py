"""Evidence: closed forms, coverage of the limits, smoothing as ArviZ's, unbiased resampling."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.special import stdtrit

from deepgen_ppl.evidence import evidence, resample, smooth
from deepgen_ppl.leave_one_out import pointwise_draws

LOG_WEIGHTS = {
    "normal": lambda rng, shape: rng.normal(-0.5, 1.0, shape),  # lognormal weights of mean 1
    "bounded": lambda rng, shape: np.log(2.0 * rng.random(shape)),
    "heavy": lambda rng, shape: np.log(rng.pareto(2.5, shape) + 1.0) - np.log(2.5 / 1.5),
}


@pytest.mark.parametrize("name", LOG_WEIGHTS)
def test_estimate_error_and_ess_are_the_textbook_formulas(name):
    log_w = LOG_WEIGHTS[name](np.random.default_rng(1), 500)
    w = np.exp(log_w)
    found = evidence(log_w)
    assert found.log_evidence == pytest.approx(np.log(w.mean()), abs=1e-12)
    error = w.std(ddof=1) / w.mean() / np.sqrt(len(w))
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    assert found.ess == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-12)
    assert (found.num_particles, found.per_row, found.rows) == (500, None, None)


def test_a_shift_of_the_log_weights_shifts_the_log_evidence_alone():
    log_w = np.random.default_rng(2).normal(size=1000)
    near, far = evidence(log_w), evidence(log_w - 5000.0)
    assert far.log_evidence == pytest.approx(near.log_evidence - 5000.0, abs=1e-9)
    assert far.ess == pytest.approx(near.ess, rel=1e-9)
    assert far.pareto_k == pytest.approx(near.pareto_k, abs=1e-6)


def test_constant_weights_are_an_exact_answer():
    found = evidence(np.full(1000, -3.0))
    assert found.log_evidence == pytest.approx(-3.0, abs=1e-12)
    assert found.standard_error == pytest.approx(0.0, abs=1e-6)
    assert found.ess == pytest.approx(1000.0)
    assert found.pareto_k == -np.inf
    rounded = evidence(np.full(1000, -300.0) + np.random.default_rng(0).choice([0, 3e-5], 1000))
    assert rounded.pareto_k < 0.7


def test_rows_add_up():
    rng = np.random.default_rng(3)
    log_w = rng.normal(size=(400, 7)) * np.linspace(0.1, 1.5, 7)
    found = evidence(log_w, rows="data")
    alone = [evidence(column) for column in log_w.T]
    assert found.rows == "data"
    np.testing.assert_allclose(found.per_row, [a.log_evidence for a in alone], rtol=1e-12)
    np.testing.assert_allclose(found.per_row_standard_error, [a.standard_error for a in alone])
    np.testing.assert_allclose(found.ess, [a.ess for a in alone])
    np.testing.assert_allclose(found.pareto_k, [a.pareto_k for a in alone])
    assert found.log_evidence == pytest.approx(found.per_row.sum())
    assert found.standard_error == pytest.approx(np.sqrt((found.per_row_standard_error**2).sum()))


@pytest.mark.parametrize("shape", [(300,), (100, 25)], ids=["global", "per row"])
@pytest.mark.parametrize("name", ["normal", "bounded"])
def test_one_sided_limits_cover_the_truth(name, shape, monkeypatch):
    monkeypatch.setattr("deepgen_ppl.pareto._psis", lambda column, _: (column, 0.0))  # for speed
    # the mean weight is 1, so the truth is 0; 600 repetitions at 95% are 570 +/- 5.3
    rng = np.random.default_rng(4)
    found = [evidence(LOG_WEIGHTS[name](rng, shape)) for _ in range(600)]
    below = np.mean([f.lower_limit <= 0.0 for f in found])
    above = np.mean([f.upper_limit >= 0.0 for f in found])
    slack = 5.0 * np.sqrt(0.05 * 0.95 / 600)
    assert below >= 0.95 - slack
    assert above >= 0.95 - slack


def test_the_lower_limit_holds_where_the_weights_have_no_variance():
    rng = np.random.default_rng(5)
    log_w = np.log(rng.pareto(1.05, (400, 20)) + 1.0) - np.log(1.05 / 0.05)  # of mean 1
    found = [evidence(column) for column in np.split(log_w, 20, axis=1)]
    assert np.mean([f.lower_limit <= 0.0 for f in found]) >= 0.9
    assert np.mean([f.pareto_k for f in found]) > 0.7


def test_the_error_of_one_heavy_weight_falls_back_on_markovs_inequality():
    found = evidence(np.array([0.0] + [-50.0] * 999))
    assert found.lower_limit == pytest.approx(found.log_evidence - stdtrit(999, 0.95), abs=1e-3)
    many = evidence(np.array([[0.0] * 9] + [[-50.0] * 9] * 999))
    assert many.lower_limit == pytest.approx(many.log_evidence - np.log(20.0))


def test_single_precision_and_many_rows_are_taken_as_they_are():
    log_w = np.random.default_rng(12).normal(size=(50, 600)).astype(np.float32)
    found = evidence(log_w)
    expected = np.log(np.exp(log_w.astype(float)).mean(axis=0))
    np.testing.assert_allclose(found.per_row, expected, rtol=1e-12)
    np.testing.assert_allclose(found.pareto_k[[0, 599]], smooth(log_w[:, [0, 599]])[1])
    np.testing.assert_array_equal(resample(log_w, 9)[:, :300], resample(log_w[:, :300], 9))


def test_relative_efficiency_widens_the_error():
    log_w = np.random.default_rng(6).normal(size=1000)
    plain, half = evidence(log_w), evidence(log_w, relative_efficiency=0.5)
    assert half.standard_error == pytest.approx(plain.standard_error * np.sqrt(2.0))
    assert half.ess == pytest.approx(plain.ess / 2.0)
    assert half.pareto_k == pytest.approx(float(array_stats.psislw(-log_w, r_eff=0.5)[1]))


@pytest.mark.parametrize("num", [30, 100, 225, 226, 1000])
@pytest.mark.parametrize("name", LOG_WEIGHTS)
def test_smoothing_is_arvizs(name, num):
    log_w = LOG_WEIGHTS[name](np.random.default_rng(7), (num, 3))
    smoothed, k = smooth(log_w)
    expected, expected_k = array_stats.psislw(-log_w.T)
    np.testing.assert_allclose(smoothed, expected.T, atol=1e-12)
    np.testing.assert_allclose(k, expected_k, atol=1e-12)
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=0), 1.0)
    assert (np.diff(smoothed[np.argsort(log_w[:, 0]), 0]) >= 0.0).all()


@pytest.mark.parametrize("shape_k", [0.3, 0.5, 0.9])
def test_pareto_k_is_that_of_the_tail(shape_k):
    rng = np.random.default_rng(8)
    k = smooth(np.log(rng.pareto(1.0 / shape_k, (4000, 20)) + 1.0))[1]
    assert abs(k.mean() - shape_k) < 5.0 * k.std(ddof=1) / np.sqrt(20) + 0.05  # the prior pulls


ODD = {
    "24 particles": (np.random.default_rng(0).normal(size=24), np.nan),
    "one particle": (np.zeros(1), np.nan),
    "all equal": (np.zeros(100), -np.inf),
    "equal tail": (np.repeat([0.0, -1.0], 500), -np.inf),
    "all zero": (np.full(100, -np.inf), np.inf),
    "few with weight": (np.concatenate([np.zeros(10), np.full(990, -np.inf)]), np.inf),
}


@pytest.mark.parametrize("name", ODD)
def test_pareto_k_where_no_law_fits(name):
    log_w, expected = ODD[name]
    smoothed, k = smooth(log_w)
    np.testing.assert_equal(float(k), expected)
    assert not np.isnan(smoothed).any()
    assert not np.isnan(evidence(log_w).log_evidence)
    assert str(evidence(log_w))


def test_zero_weights_count_as_zero():
    rng = np.random.default_rng(9)
    log_w = np.where(rng.random(2000) < 0.5, rng.normal(size=2000), -np.inf)
    found = evidence(log_w)
    assert found.log_evidence == pytest.approx(np.log(np.exp(log_w).mean()))
    assert np.isfinite(found.pareto_k)
    dead = evidence(np.full((50, 2), -np.inf))
    assert dead.log_evidence == dead.lower_limit == -np.inf
    assert dead.upper_limit == dead.standard_error == np.inf
    assert (dead.ess == 0.0).all()


def test_resampling_is_unbiased_and_systematic():
    log_w = np.random.default_rng(10).normal(size=24)  # too few to smooth, which takes its time
    expected = 40 * np.exp(smooth(log_w)[0])
    counts = np.array(
        [np.bincount(resample(log_w, 40, seed), minlength=24) for seed in range(3000)]
    )
    assert (np.abs(counts - expected) < 1.0).all()
    fraction = expected - np.floor(expected)
    error = np.sqrt(fraction * (1 - fraction) / len(counts))
    assert (np.abs(counts.mean(axis=0) - expected) <= 5.0 * error + 1e-9).all()


def test_resampled_draws_come_in_random_order():
    chosen = resample(np.zeros(2000), 2000, seed=0)
    assert abs(np.corrcoef(chosen[1:], chosen[:-1])[0, 1]) < 5.0 / np.sqrt(2000)


def test_each_column_is_resampled_by_its_own_weights():
    log_w = np.full((100, 2), -np.inf)
    log_w[10, 0] = log_w[20, 1] = 0.0
    np.testing.assert_array_equal(resample(log_w, 5, seed=0), [[10, 20]] * 5)
    independent = resample(np.zeros((1000, 2)), 1000, seed=0)
    assert abs(np.corrcoef(independent.T)[0, 1]) < 5.0 / np.sqrt(1000)
    np.testing.assert_array_equal(resample(log_w, 5, seed=3), resample(log_w, 5, seed=3))


BAD = {
    "nan in rows": (np.array([[0.0, np.nan, 0.0, np.inf]]), "2 of 4 log weights.*row 1, 3 of 'd'"),
    "nan": (np.array([0.0, np.nan]), "1 of 2 log weights are NaN or \\+inf\\. "),
    "empty": (np.zeros(0), "no particles"),
    "scalar": (np.array(0.0), "no particles"),
    "three axes": (np.zeros((2, 2, 2)), "shape \\(K,\\) or \\(K, N\\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights_are_refused(name):
    log_w, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        evidence(log_w, rows="d")


def test_resampling_nothing_is_refused():
    with pytest.raises(ValueError, match="All particles of row 1 have weight zero"):
        resample(np.array([[0.0, -np.inf]] * 30), 5)
    with pytest.raises(ValueError, match="num_draws must be at least 1, not 0"):
        resample(np.zeros(30), 0)


@pytest.mark.parametrize("num", [20, 100, 1000])
def test_pointwise_draws_keep_the_evidence_and_its_error(num):
    log_w = np.random.default_rng(11).normal(size=(500, 3)) * [0.0, 0.5, 6.0]
    found = evidence(log_w)
    draws = pointwise_draws(found, num)
    assert draws.shape == (num, 3)
    np.testing.assert_allclose(-np.log(np.exp(-draws).mean(axis=0)), found.per_row, atol=1e-12)
    assert np.ptp(draws[:, 0]) > 0.0
    assert draws[:, 1].std() == pytest.approx(found.per_row_standard_error[1], rel=0.4)
    with pytest.raises(ValueError, match="this one is global"):
        pointwise_draws(evidence(log_w[:, 0]), num)


def test_it_prints_and_turns_into_attributes():
    found = evidence(np.random.default_rng(0).normal(size=(1000, 3)), rows="data", method="ais")
    assert "over 3 rows of 'data'" in str(found)
    assert "ais, 1000 particles; worst row: ESS" in str(found)
    assert found.attrs()["log_evidence_rows"] == "data"
    assert found.to_dict()["per_row"].shape == (3,)
    assert all(isinstance(value, float | int | str) for value in found.attrs().values())
