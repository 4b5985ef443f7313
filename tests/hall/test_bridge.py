"""Bridge sampling: the estimate, its relative error, its limits and what it refuses."""

import numpy as np
import pytest

from deepgen_ppl.bridge import Normal, bridge, bridge_evidence, check_draws, check_has

LOG_Z = 3.0


def target(z: np.ndarray) -> np.ndarray:
    """A density of asymmetric tails whose normalising constant is known: exp(3) times a gamma's."""
    return LOG_Z + (2.0 * z - np.exp(z)).sum(axis=-1)  # log of Gamma(2, 1) draws: log Gamma(2) = 0


def draws(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.log(rng.gamma(2.0, size=shape))


def both_ways(rng: np.random.Generator, num: int, dim: int, lag: int = 1):
    z = np.repeat(draws(rng, (4, num // lag, dim)), lag, axis=1)
    halves = []
    for fitted, own in (
        ((z[:, ::2], z[:, 1::2]), (z[:, 1::2], z[:, ::2]))
        if lag == 1
        else (
            (z[:, : num // 2], z[:, num // 2 :]),
            (z[:, num // 2 :], z[:, : num // 2]),
        )
    ):
        normal = Normal.fit(fitted.reshape(-1, dim))
        proposed = normal.sample(rng, 2 * num)
        ratio = target(own) - normal.log_prob(own.reshape(-1, dim)).reshape(own.shape[:2])
        halves.append(bridge(ratio, target(proposed) - normal.log_prob(proposed)))
    return bridge_evidence((halves[0], halves[1]), num_draws=4 * num)


@pytest.mark.parametrize(("dim", "lag"), [(1, 1), (5, 1), (2, 10)])
def test_estimates_are_within_their_errors_and_limits_cover(dim: int, lag: int) -> None:
    found = [both_ways(np.random.default_rng(seed), 400, dim, lag) for seed in range(100)]
    away = np.array([(f.log_evidence - LOG_Z) / f.standard_error for f in found])
    assert np.abs(away).max() < 5.0
    assert 0.6 < away.std() < 1.4  # the error is neither too small nor too large
    assert np.mean([f.lower_limit <= LOG_Z for f in found]) >= 0.88
    assert np.mean([f.upper_limit >= LOG_Z for f in found]) >= 0.88


def test_rows_are_bridged_apart() -> None:
    rng = np.random.default_rng(0)
    shift = np.array([0.0, 5.0, -200.0])
    own = rng.normal(size=(2, 300, 3))
    other = 1.5 * rng.normal(size=(600, 3))
    ratio = lambda z: shift - 0.5 * z**2 + 0.5 * (z / 1.5) ** 2 + np.log(1.5)  # noqa: E731
    found = bridge(ratio(own), ratio(other))
    np.testing.assert_allclose(found.log_evidence, shift, atol=5 * found.relative_error.max())
    alone = bridge(ratio(own)[..., 1], ratio(other)[..., 1])
    np.testing.assert_allclose(alone.log_evidence, found.log_evidence[1], rtol=1e-8)
    total = bridge_evidence((found, found), num_draws=600, rows="data")
    assert total.rows == "data" and total.log_evidence == pytest.approx(shift.sum(), abs=0.2)


def test_a_normal_is_fitted_to_correlated_draws() -> None:
    rng = np.random.default_rng(1)
    root = np.array([[1.0, 0.0], [2.0, 0.1]])
    z = rng.normal(size=(20_000, 2)) @ root.T + np.array([3.0, -1.0])
    normal = Normal.fit(z)
    np.testing.assert_allclose(normal.root @ normal.root.T, root @ root.T, rtol=0.05)
    again = normal.sample(np.random.default_rng(2), 20_000)
    np.testing.assert_allclose(again.mean(axis=0), [3.0, -1.0], atol=0.1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 draws of each chain and has 3 of 4"):
        check_draws(4, 3)
    with pytest.raises(ValueError, match="no draws of 'tau'"):
        check_has({"mu": 0}, ["mu", "tau"])
    with pytest.raises(ValueError, match="not finite"):
        bridge(np.array([[0.0, np.nan]]), np.zeros(3))
    with pytest.raises(ValueError, match="do not overlap"):
        bridge(np.zeros((1, 8)), np.full(8, -np.inf))
    with pytest.raises(ValueError, match="50 nats or more"):
        bridge(np.linspace(50.0, 60.0, 8)[None], np.linspace(-90.0, 0.0, 8))
