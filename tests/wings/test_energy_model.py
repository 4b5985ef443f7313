"""Neural energies: densities of the plane, log Z from noise, comparisons that need none."""

import importlib
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(0)
QUIET = {"progress": False}


def two_moons(count: int) -> np.ndarray:
    """Two interleaved half circles, centred."""
    angle, side = RNG.uniform(0, np.pi, count), RNG.integers(2, size=count)
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.where(side[:, None] == 0, x, [1.0, 0.5] - x) - [0.5, 0.25]
    return (x + RNG.normal(0, 0.12, x.shape)).astype("float32")


MOONS = two_moons(2000)


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The programs of this wing."""
    return importlib.import_module(f"{__package__}.energy_{wing}")


def array(x, wing: str):
    return importlib.import_module("torch").as_tensor(x) if wing == "pyro" else x


def numbers(x) -> np.ndarray:
    return np.asarray(x.detach() if hasattr(x, "detach") else x, float)


def test_noise_contrastive_finds_the_log_z_of_a_known_density(dg, programs) -> None:
    """N(0, 4) times exp(-r x^2 / 2) has log Z = -log(1 + 4 r) / 2."""
    x = RNG.normal(size=1000).astype("float32")
    fit = dg.noise_contrastive(
        programs.narrowed, programs.line(1.5), x, num_steps=500, optim=programs.adam(0.02), **QUIET
    )
    rate = float(numbers(fit.params["rate"]))
    wanted = -0.5 * np.log1p(4.0 * rate)
    assert abs(fit.evidence.log_evidence - wanted) < 5 * fit.evidence.standard_error
    assert abs(float(numbers(fit.params["log_z"])) - wanted) < 0.15
    assert abs(1.0 / (rate + 0.25) - np.mean(x**2)) < 0.25
    assert fit.diagnose() is not None


def test_noise_contrastive_weighs_an_rbm_as_enumeration_does(dg, programs) -> None:
    x = (RNG.random((300, 6)) < 0.7).astype("float32")
    rbm = dg.RBM(6, 3)
    fit = dg.noise_contrastive(rbm, programs.even(6), x, num_steps=100, **QUIET)
    trained = dg.flows.fitted(rbm, fit, "energy")
    exact = dg.log_z(trained).log_evidence
    assert abs(fit.evidence.log_evidence - exact) < 5 * fit.evidence.standard_error


def test_a_flow_trained_along_is_noise_too(dg, programs) -> None:
    flow = dg.flows.NICE(2, transforms=2, hidden=(16,))
    fit = dg.noise_contrastive(
        dg.EnergyModel(programs.mlp(), programs.wide()), flow, MOONS[:400], train_noise=True,
        num_steps=30, **QUIET,
    )  # fmt: skip
    assert np.isfinite(fit.losses).all()
    assert np.isfinite(fit.evidence.log_evidence)
    assert any(name.startswith("noise") for name in fit.params)


@pytest.fixture(scope="module")
def moons(dg, programs, wing):
    """An energy of the two moons, trained on each wing by its cheapest verb."""
    energy = dg.EnergyModel(programs.mlp(), programs.wide())
    fit = dg.noise_contrastive(
        energy, programs.wide(), MOONS, noise_ratio=2, num_steps=1000,
        optim=programs.adam(5e-3), batch_size=500, **QUIET,
    )  # fmt: skip
    return dg.flows.fitted(energy, fit, "energy").with_log_z(fit.evidence), fit


def test_the_density_of_two_moons_on_a_grid(moons, wing) -> None:
    """Normalised by its evidence it integrates to one, and it lies where other moons lie."""
    energy, fit = moons
    side = np.linspace(-3, 3, 121, dtype="float32")
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    p = np.exp(numbers(energy().log_prob(array(grid, wing)))) * (side[1] - side[0]) ** 2
    assert abs(p.sum() - 1.0) < 5 * fit.evidence.standard_error + 0.01
    # Against a histogram of a million true draws, coarser so that it has no noise of its own.
    edges = np.linspace(-3, 3, 41)
    truth, *_ = np.histogram2d(*two_moons(200_000).T, bins=[edges, edges])
    at = np.stack(np.meshgrid(*[0.5 * (edges[1:] + edges[:-1])] * 2, indexing="ij"), -1)
    q = np.exp(numbers(energy.unnormalised_log_prob(array(at.astype("float32"), wing))))
    apart = 0.5 * np.abs(q / q.sum() - truth / truth.sum()).sum()
    assert apart < 0.25  # total variation; the base alone is 0.75 away


def test_comparisons_need_no_log_z(moons, dg, programs, wing) -> None:
    energy, _ = moons
    far = array(np.array([[2.5, 2.5]], "float32"), wing)
    near = array(MOONS[:1], wing)
    assert numbers(energy.log_ratio(near, far))[0] > 2
    assert (
        energy.rank(array(np.concatenate([MOONS[:50], [[2.5, 2.5]]]).astype("float32"), wing))[0]
        == 50
    )
    up = energy.modes(near, num_steps=100)
    assert numbers(energy.log_ratio(up, near))[0] >= -1e-4
    twice = numbers(energy.tempered(2.0).energy(near))
    assert np.allclose(twice, numbers(energy.energy(near)))
    base = numbers(energy.base().log_prob(near))
    for power in (2.0, -1.0):
        other = energy.tempered(power) if power > 0 else -energy
        found = numbers(other.unnormalised_log_prob(near)) - base
        np.testing.assert_allclose(found, -power * numbers(energy.energy(near)), rtol=1e-4)
        with pytest.raises(ValueError, match="log Z"):
            other.log_prob(near)


def test_contrastive_training_moves_chains_of_a_neural_energy(dg, programs) -> None:
    energy = dg.EnergyModel(programs.mlp(), programs.wide())
    fit = dg.contrastive(
        energy, MOONS, sampler="mala", num_chains=64, chain_steps=5, batch_size=64, num_steps=60,
        optim=programs.adam(5e-3), **QUIET,
    )  # fmt: skip
    x = numbers(fit.chains["x"])
    assert x.shape == (64, 2)
    assert np.abs(x).max() < 10
    assert {"energy_data", "acceptance", "chain_spread", "log_z_drift"} <= set(fit.history)


def test_score_matching_takes_a_ready_energy(dg, programs) -> None:
    energy = dg.EnergyModel(programs.mlp(), programs.wide())
    fit = dg.score_matching(
        energy, MOONS[:500], method="denoising", noise_level=0.2, num_steps=100,
        optim=programs.adam(5e-3), **QUIET,
    )  # fmt: skip
    assert fit.losses[-20:].mean() < fit.losses[:20].mean()


def test_mistakes_are_told_with_their_cure(dg, programs, wing) -> None:
    net = programs.mlp()
    with pytest.raises(ValueError, match="to_event"):
        dg.EnergyModel(net, programs.batched())
    with pytest.raises(ValueError, match="discrete"):
        dg.EnergyModel(net, programs.even(2))
    energy = dg.EnergyModel(net, programs.wide())
    with pytest.raises(NotImplementedError, match="mcmc"):
        energy().sample(*([] if wing == "pyro" else [None]))
    with pytest.raises(ValueError, match="shape"):
        dg.noise_contrastive(energy, programs.line(1.0), MOONS, **QUIET)
    with pytest.raises(TypeError, match="drawn from and scored"):
        dg.noise_contrastive(energy, lambda: 3.0, MOONS, **QUIET)
    with pytest.raises(TypeError, match=r"noise must be a distribution, .*, not NoneType"):
        dg.noise_contrastive(energy, None, MOONS, **QUIET)
