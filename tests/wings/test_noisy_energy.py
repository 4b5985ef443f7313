"""Densities at several noise levels: the objective at the truth, annealed Langevin, training."""

import importlib
from types import ModuleType

import numpy as np
import pytest

QUIET = {"progress": False}
WEIGHTS, PLACES, WIDTH, SCALE = (0.8, 0.2), ((-2.0, 0.0), (2.0, 1.0)), 0.4, 2.0
LEVELS = np.geomspace(5.0, 0.1, 10)


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """What this wing's side of the tests knows."""
    return importlib.import_module(f"{__package__}.experts_{wing}")


@pytest.fixture(scope="module")
def exact(dg, on):
    """The energy whose every level is that of a mixture of two normals."""
    net = on.exact_net(WEIGHTS, PLACES, WIDTH, SCALE)
    return dg.NoiseConditionalEnergy(net, 2, LEVELS, scale=SCALE)


def data(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    which = (rng.random(count) >= WEIGHTS[0]).astype(int)
    return (np.array(PLACES)[which] + WIDTH * rng.normal(size=(count, 2))).astype("float32")


def test_a_level_is_the_density_of_data_with_that_noise(exact, on) -> None:
    x = data(5)
    for level in (1.0, 0.1):
        v = WIDTH**2 + level**2
        apart = ((x[:, None] - np.array(PLACES)) ** 2).sum(-1)
        wanted = np.log((WEIGHTS * np.exp(-0.5 * apart / v) / v).sum(-1))
        found = on.numpy(exact.log_density(on.array(x), level))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        at = on.numpy(exact.at(level).unnormalised_log_prob(on.array(x)))
        np.testing.assert_allclose(at, found, rtol=1e-6)


def test_annealed_langevin_finds_both_modes_with_their_weights(exact, on) -> None:
    """They are 4 apart with 0.4 of width: chains at the smallest level alone would stay."""
    x = on.numpy(exact.draws(1000, num_steps=60, step_size=0.1))
    right = x[:, 0] > 0
    error = np.sqrt(WEIGHTS[1] * WEIGHTS[0] / len(x))
    assert abs(right.mean() - WEIGHTS[1]) < 5 * error
    v = WIDTH**2 + LEVELS[-1] ** 2
    for which, place in zip((~right, right), PLACES, strict=True):
        part, count = x[which], which.sum()
        assert (np.abs(part.mean(0) - place) < 5 * np.sqrt(v / count)).all()
        # Steps are not tested: their bias is a share of step_size / 4 of the narrowest variance.
        assert (np.abs(part.var(0) / v - 1) < 5 * np.sqrt(2 / count) + 0.05).all()
    mean = on.numpy(exact.draws(200, num_steps=20, denoise=True, seed=1))
    assert mean.shape == (200, 2)


def test_the_objective_at_the_truth(dg, wing, on) -> None:
    r"""Of a normal with variance s^2 + w^2 it is half of D times the share of s^2 and w^2."""
    module = importlib.import_module(f"deepgen_ppl.{wing}.infer.score_matching")
    energy = dg.NoiseConditionalEnergy(
        on.exact_net((1.0,), ((0.0, 0.0),), WIDTH, SCALE), 2, LEVELS, scale=SCALE
    )
    x = (WIDTH * np.random.default_rng(1).normal(size=(20_000, 2))).astype("float32")
    key = [importlib.import_module("jax").random.key(0)] if wing == "numpyro" else []
    terms = on.numpy(
        module.noisy_objective(
            energy.log_density, on.array(x), on.array(LEVELS.astype("float32")), *key
        )
    )
    wanted = np.mean(WIDTH**2 / (WIDTH**2 + LEVELS**2))
    assert abs(terms.mean() - wanted) < 5 * terms.std() / np.sqrt(len(terms))


def test_a_network_learns_the_weights_of_modes_far_apart(dg, wing, on) -> None:
    """Slopes of one level are blind to them, which is what the levels are for."""
    nets = importlib.import_module(f"deepgen_ppl.{wing}.nets")
    net = nets.MLP(2, 1, (32, 32), context=1, activation="silu")
    energy = dg.NoiseConditionalEnergy(net, 2, LEVELS, scale=SCALE)
    x = data(2000)
    fit = dg.score_matching(
        energy, x, method="denoising", num_steps=600, batch_size=500, optim=on.adam(5e-3), **QUIET
    )
    trained = dg.flows.fitted(energy, fit, "energy")
    right = on.numpy(trained.draws(500, num_steps=30, step_size=0.1))[:, 0] > 0
    assert abs(right.mean() - WEIGHTS[1]) < 5 * np.sqrt(WEIGHTS[1] * WEIGHTS[0] / 500)


def test_mistakes_are_told_with_their_cure(dg, exact, on) -> None:
    with pytest.raises(ValueError, match="method='denoising'"):
        dg.score_matching(exact, data(10), **QUIET)
    with pytest.raises(ValueError, match="positive"):
        dg.NoiseConditionalEnergy(lambda x, c: x.sum(-1), 2, [1.0, -0.1])
    with pytest.raises(ValueError, match="num_steps must be a whole number"):
        exact.draws(10, num_steps=0)
    with pytest.raises(ValueError, match=r"\(\*batch, 2\)"):
        exact.log_density(on.array(np.zeros((4, 3), "float32")), 1.0)
