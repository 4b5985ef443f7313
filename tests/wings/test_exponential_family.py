"""Exponential families against the languages' own distributions, and moments that match."""

import importlib
from types import ModuleType

import numpy as np
import pytest

QUIET = {"progress": False}
NAMES = ("bernoulli", "poisson", "normal", "gamma", "beta", "categorical", "spins")


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """What this wing's side of the tests knows."""
    return importlib.import_module(f"{__package__}.experts_{wing}")


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_the_language_s_own_distribution(dg, on, name: str) -> None:
    """Its density; log Z; mean parameters are differences of log Z."""
    statistics, base, natural, own, x = on.rows()[name]
    family = dg.ExponentialFamily(statistics, base, natural=natural)
    x = on.array(np.asarray(x, "int32" if name == "categorical" else "float32"))
    steps = 0.05 * np.eye(len(natural), dtype="float32")
    around = on.array(np.asarray(natural, "float32") + np.concatenate([steps, -steps]))
    found, whole, log_z, means, ends = on.compiled(
        lambda x: (
            family().log_prob(x), family.unnormalised_log_prob(x), family.log_partition(),
            family.mean_parameters(), family.log_partition(around),
        )
    )(x)  # fmt: skip
    found = on.numpy(found).astype(float)
    if own is None:
        assert abs(np.exp(found).sum() - 1) < 1e-5
    else:
        wanted = on.numpy(on.compiled(own.log_prob)(x))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        on.numpy(whole) - float(on.numpy(log_z)), found, rtol=1e-5, atol=1e-5
    )
    slopes = (on.numpy(ends)[: len(natural)] - on.numpy(ends)[len(natural) :]) / 0.1
    np.testing.assert_allclose(on.numpy(means), slopes, rtol=1e-2, atol=1e-2)


def test_maximum_likelihood_matches_moments(dg, on) -> None:
    statistics, base, *_ = on.rows()["normal"]
    x = np.random.default_rng(0).normal(0.4, 0.8, 400).astype("float32")
    family = dg.ExponentialFamily(statistics, base)
    fit = dg.svi(family.likelihood, None, x, num_steps=250, optim=on.adam(0.03), **QUIET)
    trained = dg.flows.fitted(family, fit, "family")
    wanted = on.numpy(statistics(on.array(x))).mean(0)
    np.testing.assert_allclose(on.numpy(trained.mean_parameters()), wanted, atol=2e-3)


def test_a_known_partition_and_a_batch_of_natural_parameters(dg, on) -> None:
    """The exponential distribution, whose zeros are no natural parameters."""
    about = on.exponential()
    family = dg.ExponentialFamily(
        about["statistics"], about["base"], log_base=about["log_base"],
        log_partition=about["log_partition"], natural=[-2.0],
    )  # fmt: skip
    rates = np.array([0.5, 1.0, 3.0], "float32")
    x = np.array([0.2, 1.0, 2.0], "float32")
    members = family(on.array(-rates[:, None]))
    assert members.batch_shape == (3,)
    np.testing.assert_allclose(
        on.numpy(members.log_prob(on.array(x))), np.log(rates) - rates * x, rtol=1e-5
    )
    np.testing.assert_allclose(on.numpy(family.mean_parameters()), [0.5], rtol=1e-5)
    assert abs(dg.log_z(family).log_evidence + np.log(2.0)) < 1e-5
    summed = dg.ExponentialFamily(
        about["statistics"], about["base"], log_base=about["log_base"], natural=[-2.0]
    )
    assert abs(float(on.numpy(summed.log_partition())) + np.log(2.0)) < 1e-4


def test_a_family_without_a_sum_is_an_energy(dg, on) -> None:
    """Two normals tied by their product: score matching finds the tie."""
    rng = np.random.default_rng(0)
    precision = np.array([[1.0, 0.5], [0.5, 1.0]])
    x = rng.multivariate_normal([0, 0], np.linalg.inv(precision), 2000).astype("float32")
    family = dg.ExponentialFamily(**on.coupled())
    with pytest.raises(ValueError, match="log_partition="):
        family.log_partition()
    with pytest.raises(ValueError, match="log Z"):
        family().log_prob(on.array(x))
    fit = dg.score_matching(family, x, num_steps=200, optim=on.adam(0.02), **QUIET)
    tie = float(on.numpy(dg.flows.fitted(family, fit, "energy").natural)[0])
    # The estimate in closed form: the score is linear in the one natural parameter.
    wanted = 2.0 * (x[:, 0] * x[:, 1]).mean() / (x**2).sum(-1).mean()
    assert abs(tie - wanted) < 1e-3


def test_mistakes_are_told_with_their_cure(dg, on) -> None:
    statistics, base, *_ = on.rows()["normal"]
    with pytest.raises(ValueError, match=r"must be a vector"):
        dg.ExponentialFamily(lambda x: x, base)
    with pytest.raises(ValueError, match="natural must be 2 finite"):
        dg.ExponentialFamily(statistics, base, natural=[1.0])
    with pytest.raises(ValueError, match="pass natural="):
        dg.ExponentialFamily(statistics, base, log_base=lambda x: 0.0 * x)
    with pytest.raises(ValueError, match="natural parameter space"):
        dg.log_z(dg.ExponentialFamily(statistics, base, natural=[0.0, 0.6]))  # a growing density
    with pytest.raises(ValueError, match=r"\(\*batch, 2\)"):
        dg.ExponentialFamily(statistics, base)(on.array(np.zeros((4, 3), "float32")))
