"""Bounds of log evidence: limits that hold whatever the weights' tails, the table, the ranking."""

import json

import numpy as np
import pytest

from deepgen_ppl import EvidenceBounds
from deepgen_ppl.bounds import lower_bound, mean_bound, upper_bound
from deepgen_ppl.evidence import evidence
from deepgen_ppl.ranking import rank_by_evidence

# Laws of log weights whose weights have mean 1, so that the truth is 0.
LAWS = {
    "narrow": lambda rng, shape: rng.normal(-0.005, 0.1, shape),
    "wide": lambda rng, shape: rng.normal(-0.5, 1.0, shape),
    "very wide": lambda rng, shape: rng.normal(-4.5, 3.0, shape),
    "heavy": lambda rng, shape: np.log((rng.pareto(1.2, shape) + 1.0) / 6.0),
    "some near zero": lambda rng, shape: 0.5 * np.log(2.0) - rng.gamma(0.5, 1.0, shape),
}


@pytest.mark.parametrize("num", [8, 64])
@pytest.mark.parametrize("law", LAWS)
def test_limits_hold_in_95_of_100_repetitions(law: str, num: int) -> None:
    log_w = LAWS[law](np.random.default_rng(0), (num, 2000))
    below, above = lower_bound("weights", log_w), upper_bound("weights", -log_w)
    for held in (below.per_row_limit <= 0.0, above.per_row_limit >= 0.0):
        # 2,000 repetitions of 95%, five standard errors below. Weights that are nearly zero at
        # times have groups of a heavy left tail, which cost Student's t one limit in 50.
        assert held.mean() > (0.93 if law == "some near zero" else 0.95) - 5 * 0.0049
    np.testing.assert_allclose(above.per_row_limit, -below.per_row_limit)


def test_the_delta_method_alone_would_miss_where_tails_are_heavy() -> None:
    log_w = LAWS["very wide"](np.random.default_rng(1), (64, 500))
    naive = [evidence(column).upper_limit >= 0.0 for column in log_w.T]
    assert np.mean(naive) < 0.8  # as a limit from above of an estimate that is too low
    assert (upper_bound("weights", -log_w).per_row_limit >= 0.0).mean() > 0.95


def test_totals_hold_over_rows() -> None:
    rng = np.random.default_rng(2)
    found = [lower_bound("weights", rng.normal(-0.5, 1.0, (16, 50))) for _ in range(200)]
    assert np.mean([bound.limit <= 0.0 for bound in found]) >= 0.95
    assert all(bound.value == pytest.approx(bound.per_row.sum()) for bound in found)
    means = [mean_bound("ELBO", rng.normal(-0.5, 1.0, (100, 50))) for _ in range(200)]
    assert np.mean([bound.limit <= -25.0 for bound in means]) > 0.95 - 5 * 0.0154
    assert np.mean([bound.limit <= -25.0 for bound in means]) < 0.995  # and it is no wider


def test_weights_of_zero_and_too_few_weights() -> None:
    bound = lower_bound("weights", np.array([0.0, 0.0, 0.0, -np.inf, 0.0, 0.0, 0.0, 0.0]))
    assert bound.value == pytest.approx(np.log(7 / 8)) and np.isfinite(bound.limit)
    dead = lower_bound("weights", np.full(16, -np.inf))
    assert dead.value == dead.limit == -np.inf
    with pytest.raises(ValueError, match="AIS: a limit needs at least 4"):
        lower_bound("AIS", np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        upper_bound("AIS", np.array([0.0, np.nan, 0.0, 0.0]))


def table() -> EvidenceBounds:
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(-0.02, 0.2, (64, 10)) for name in "ab"}
    bounds = (
        mean_bound("ELBO", weights["a"] - 1.0, cost="1 s"),
        lower_bound("AIS", weights["a"], cost="2 s"),
        upper_bound("reverse AIS", -weights["b"], cost="2 s", approximate=True, assumes="luck"),
    )
    return EvidenceBounds(bounds, rows="data")


def test_the_table_names_every_bound_its_direction_and_what_it_assumes() -> None:
    found = table()
    text = str(found).splitlines()
    assert text[0] == "log evidence in nats, sums over 10 rows of 'data'"
    assert [word in text[1] for word in ("estimate", "bound", "kind", "se", "95% limit", "cost")]
    assert text[3].startswith("ELBO") and ">=" in text[3]
    assert "reverse AIS*" in text[5] and "approximate upper" in text[5] and "<~" in text[5]
    assert "* luck" in text
    assert found.lower.name == "AIS" and found.upper is found["reverse AIS"]
    assert found.gap == pytest.approx((found.upper.value - found.lower.value) / 10)
    with pytest.raises(KeyError, match="no bound 'IWAE'"):
        found["IWAE"]
    stored = json.loads(found.attrs()["evidence_bounds"])
    assert stored["bounds"][1]["limit"] == found["AIS"].limit and stored["rows"] == "data"


def test_an_upper_bound_goes_before_an_approximate_one() -> None:
    exact = upper_bound("exact", np.full(8, 2.0))
    rough = upper_bound("rough", np.full(8, 1.0), approximate=True)
    assert EvidenceBounds((rough, exact)).upper is exact
    assert EvidenceBounds((lower_bound("a", np.zeros(8)),)).upper is None


def test_models_are_ranked_with_their_uncertainties() -> None:
    rng = np.random.default_rng(4)
    results = {f"m{i}": evidence(rng.normal(-i, 0.3, 1000)) for i in range(3)}
    ranking = rank_by_evidence(results)
    assert [entry.name for entry in ranking] == ["m0", "m1", "m2"]
    assert sum(entry.probability for entry in ranking) == pytest.approx(1.0)
    assert ranking[0].difference == ranking[0].difference_standard_error == 0.0
    first, second = results["m0"], results["m1"]
    assert ranking[1].difference == pytest.approx(second.log_evidence - first.log_evidence)
    expected = np.hypot(first.standard_error, second.standard_error)
    assert ranking[1].difference_standard_error == pytest.approx(expected)
    assert ranking[1].probability == pytest.approx(
        ranking[0].probability * np.exp(ranking[1].difference)
    )
    assert str(ranking).splitlines()[1].startswith("m0")


def test_a_ranking_needs_evidence_and_names() -> None:
    one = evidence(np.zeros(10))
    with pytest.raises(ValueError, match="at least two results"):
        rank_by_evidence([one])
    with pytest.raises(ValueError, match="a name of its own"):
        rank_by_evidence([one, one], ["a", "a"])
    with pytest.raises(ValueError, match="'model 1' has no evidence"):
        rank_by_evidence([one, 3.0])
    with pytest.raises(ValueError, match="cannot be ranked"):
        rank_by_evidence([one, evidence(np.full(10, -np.inf))])
