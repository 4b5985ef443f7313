"""Log evidence bounded from both sides: directions, limits that hold, and what is refused."""

import importlib
import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

LOADING = np.array([[1.0, 0.5, -1.0, 0.3], [0.2, 1.0, 0.6, -0.7]], np.float32)
PARAMS = {"loading": LOADING}
X = np.random.default_rng(5).normal(size=(100, 4)).astype(np.float32)
QUICK: dict[str, Any] = {"progress": False, "seed": 1}


@pytest.fixture(scope="module")
def known(wing: str) -> ModuleType:
    """The wing's programs of known evidence."""
    return importlib.import_module(f"{__package__}.evidence_{wing}")


def ppca_log_prob(x: np.ndarray) -> np.ndarray:
    return multivariate_normal(np.zeros(4), LOADING.T @ LOADING + 0.25 * np.eye(4)).logpdf(x)


def guide_params() -> dict[str, np.ndarray]:
    precision = np.eye(2) + LOADING @ LOADING.T / 0.25
    slope = LOADING.T @ np.linalg.inv(precision) / 0.25
    width = np.sqrt(np.diag(np.linalg.inv(precision)))
    return {**PARAMS, "slope": slope.astype(np.float32), "width": width.astype(np.float32)}


@pytest.fixture(scope="module")
def simulated(dg: ModuleType, known: ModuleType) -> Any:
    """Bounds of 100 simulated rows, with so few temperatures that they are rough."""
    return dg.evidence_bounds(
        known.ppca, known.ppca_guide, X, simulate=True, params=guide_params(), num_particles=100,
        num_chains=16, num_temperatures=10, **QUICK,
    )  # fmt: skip


def test_bounds_of_simulated_data_have_the_truth_between_them(simulated: Any) -> None:
    truth = ppca_log_prob(simulated.data[0]).sum()
    names = [bound.name for bound in simulated.bounds]
    assert names == ["naive Monte Carlo", "ELBO", "IWAE-100", "AIS, 16 chains x 10",
                     "reverse AIS, 16 chains x 10"]  # fmt: skip
    assert [b.direction for b in simulated.bounds] == ["lower"] * 4 + ["upper"]
    for bound in simulated.bounds[:4]:
        assert bound.limit < truth
        assert bound.value < truth + 4.0 * bound.standard_error
    above = simulated["reverse AIS, 16 chains x 10"]
    assert above.limit > truth and above.value > truth - 4.0 * above.standard_error
    assert simulated["ELBO"].value < simulated["IWAE-100"].value
    assert simulated.upper is above and simulated.lower.limit == max(
        bound.limit for bound in simulated.bounds[:4]
    )


def test_limits_of_100_simulated_rows_hold(simulated: Any) -> None:
    truth = ppca_log_prob(simulated.data[0])
    for bound in simulated.bounds:
        assert bound.per_row.shape == bound.per_row_limit.shape == (100,)
        below = bound.per_row_limit <= truth
        held = below if bound.direction == "lower" else bound.per_row_limit >= truth
        assert held.sum() >= 88, bound.name
        assert 0.0 < np.median(np.abs(bound.per_row_limit - truth)) < 5.0, bound.name


def test_the_table_and_the_tree_tell_all(simulated: Any) -> None:
    text = str(simulated)
    assert "data simulated from the model" in text and "sums over 100 rows of 'data'" in text
    assert "one exact draw" in text and "95%" in text and "gradients" in text
    table = json.loads(simulated.posterior.to_datatree(groups=()).attrs["evidence_bounds"])
    assert [row["name"] for row in table["bounds"]] == [b.name for b in simulated.bounds]
    assert simulated.evidence.log_evidence == simulated.posterior.evidence.log_evidence
    assert simulated.posterior.draws["z"].shape == (1, 16, 100, 2)


def test_on_given_data_the_upper_bound_is_approximate(dg: ModuleType, known: ModuleType) -> None:
    x = X[:6]
    found = dg.evidence_bounds(known.ppca, None, x, params=PARAMS, num_particles=200,
                               num_temperatures=100, **QUICK)  # fmt: skip
    truth = ppca_log_prob(x).sum()
    assert [b.direction for b in found.bounds] == ["lower", "lower", "approximate upper"]
    assert found.lower.limit < truth < found.upper.limit
    assert found.data is None
    assert "assumes that its starts, the ends of annealed chains" in str(found)
    assert abs(found.gap) < 0.2


def test_annealing_may_start_at_the_guide(
    dg: ModuleType, known: ModuleType, simulated: Any
) -> None:
    found = dg.evidence_bounds(
        known.ppca, known.ppca_guide, X, simulate=True, start="guide", params=guide_params(),
        num_particles=100, num_chains=16, num_temperatures=10, **QUICK,
    )  # fmt: skip
    truth = ppca_log_prob(found.data[0])
    names = [bound.name for bound in found.bounds]
    assert names[-2:] == ["AIS from the guide, 16 chains x 10",
                          "reverse AIS from the guide, 16 chains x 10"]  # fmt: skip
    assert "AIS from the guide" in str(found)
    below, above = found.bounds[-2:]
    assert below.limit < truth.sum() < above.limit
    assert (below.per_row_limit <= truth).sum() >= 88 and (above.per_row_limit >= truth).sum() >= 88
    # It is closer to the posterior than the prior is: the same temperatures leave a smaller gap.
    assert above.value - below.value < 0.5 * (
        simulated.bounds[-1].value - simulated.bounds[-2].value
    )


def test_reverse_annealing_from_exact_draws_is_unbiased(dg: ModuleType, known: ModuleType) -> None:
    x = np.random.default_rng(1).normal(1.0, 1.0, (5, 1)).astype(np.float32)
    truth = float(multivariate_normal(np.zeros(5), np.eye(5) + 1.0).logpdf(x[:, 0]))
    z = np.random.default_rng(2).normal(x.sum() / 6.0, 6.0**-0.5, (4, 1000, 1))
    exact = dg.Posterior({"z": z.astype(np.float32)})
    found = dg.evidence_bounds(
        known.gaussian, None, x, posterior=exact, num_chains=4000, num_temperatures=4, **QUICK
    )
    bound = found.bounds[-1]
    assert bound.direction == "approximate upper" and "posterior that was given" in bound.assumes
    # The reciprocal of an estimate of 1 / p(x): -log of a mean whose error is the bound's.
    assert abs(np.exp(truth - bound.value) - 1.0) < 5.0 * bound.standard_error
    assert bound.standard_error > 0.002


def test_a_model_with_shared_latents_is_bounded_as_a_whole(
    dg: ModuleType, known: ModuleType
) -> None:
    x = np.random.default_rng(3).normal(0.5, 1.0, (5, 2)).astype(np.float32)
    found = dg.evidence_bounds(known.gaussian, None, x, simulate=True, num_temperatures=50, **QUICK)
    law = multivariate_normal(np.zeros(5), np.eye(5) + 1.0)
    truth = sum(law.logpdf(column) for column in found.data[0].T)
    assert not np.array_equal(found.data[0], x)
    assert found.rows is None and found.lower.per_row is None
    assert found.lower.limit < truth < found.upper.limit


# --------------------------------------------------------------------------------------- refusals


def refusals(known: ModuleType) -> dict[str, tuple[Any, dict[str, Any], str]]:
    return {
        "improper": (known.flat, {}, "evidence is undefined: the prior of 'mean' is improper"),
        "endless": (known.endless, {}, "'count' has no finite support"),
        "discrete": (known.only_coins, {"discrete": "sum"}, "needs a continuous latent site"),
        "nan": (known.broken, {}, "site 'root' is nan at draws"),
        "zero": (known.impossible, {}, "site 'never' is -inf at all draws"),
        "support": (known.rates, {"guide": known.real_guide}, "site 'scale' has support"),
        "discrete guide": (
            known.coins,
            {"guide": known.discrete_guide, "discrete": "sum"},
            "discrete sites 'k', which ais sums out",
        ),
        "counts": (known.coins, {"num_leapfrogs": 0}, "num_leapfrogs must be a positive whole"),
    }


@pytest.mark.parametrize("name", [
    "improper", "endless", "discrete", "nan", "zero", "support", "discrete guide", "counts",
])  # fmt: skip
def test_bad_input_is_named(dg: ModuleType, known: ModuleType, name: str) -> None:
    model, options, message = refusals(known)[name]
    x = np.array([0.3, 1.2, -0.5], np.float32)
    with pytest.raises(ValueError, match=message):
        dg.ais(model, x, **options, **QUICK)


def test_a_point_is_no_start(dg: ModuleType, known: ModuleType) -> None:
    x = np.array([0.3, 1.2, -0.5], np.float32)
    guide = known.auto_point(known.rates)
    fit = dg.svi(known.rates, guide, x, num_steps=5, progress=False)
    with pytest.raises(ValueError, match="all its mass on one point of 'scale', 'share'"):
        dg.smc(known.rates, x, guide=fit, **QUICK)


def test_islands_and_draws_have_to_be_enough(dg: ModuleType, known: ModuleType) -> None:
    x = np.array([[0.3], [1.2]], np.float32)
    with pytest.raises(ValueError, match="must be a multiple of num_islands=8"):
        dg.smc(known.gaussian, x, num_particles=100, **QUICK)
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        dg.smc(known.gaussian, x, fraction=1.5, **QUICK)
    few = dg.Posterior({"z": np.zeros((4, 3, 1), np.float32)})
    with pytest.raises(ValueError, match="at least 8 draws of each chain and has 3 of 4"):
        dg.bridge(few, known.gaussian, x)
    other = dg.Posterior({"w": np.zeros((4, 30, 1), np.float32)})
    with pytest.raises(ValueError, match="no draws of 'z'"):
        dg.bridge(other, known.gaussian, x)
    with pytest.raises(ValueError, match="'few' has no evidence"):
        dg.rank_by_evidence({"few": few, "other": other})


def test_data_that_cannot_be_simulated_are_refused(
    dg: ModuleType, zoo: ModuleType, known: ModuleType
) -> None:
    x = np.array([0.3, 1.2, -0.5], np.float32)
    with pytest.raises(ValueError, match="'x' is none of them"):
        dg.evidence_bounds(known.doubled_data, None, x, simulate=True, **QUICK)
    with pytest.raises(ValueError, match="the factors 'tilt'"):
        dg.evidence_bounds(zoo.tilted, None, x, simulate=True, **QUICK)
