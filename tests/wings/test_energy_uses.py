"""Energies inside of programs; refused: tilted guides, densities without a normaliser."""

import importlib
from functools import partial
from types import ModuleType

import numpy as np
import pytest

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """What this wing's side of the tests knows."""
    return importlib.import_module(f"{__package__}.experts_{wing}")


def test_an_energy_is_the_prior_of_latents_seen_through_noise(dg, on) -> None:
    """Maximum likelihood of its tie, against a grid over the mixture that the program is."""
    rng = np.random.default_rng(0)
    states = np.array([[0, 0], [1, 1], [0, 1], [1, 0]])
    z = states[rng.choice(4, 300, p=[0.4, 0.4, 0.1, 0.1])]
    x = (z + 0.4 * rng.normal(size=z.shape)).astype("float32")
    log_p = -0.5 * ((x[:, None] - states) ** 2).sum(-1) / 0.4**2
    ties = np.linspace(-1, 2, 601)
    spins = np.array([1.0, 1.0, -1.0, -1.0])
    scores = [
        np.log((np.exp(t * spins) * np.exp(log_p)).sum(-1) / np.exp(t * spins).sum()).sum()
        for t in ties
    ]
    wanted = ties[int(np.argmax(scores))]
    fit = dg.contrastive(
        partial(on.tied, scale=0.4), x, num_chains=300, chain_steps=2, num_steps=80,
        optim=on.adam(0.05), **QUIET,
    )  # fmt: skip
    error = 1 / np.sqrt(300)  # at most: of the mean of a product of spins
    assert abs(float(on.numpy(fit.params["tie"])) - wanted) < 5 * error
    assert wanted > 0.4


def test_a_guide_with_a_factor_is_refused(dg, on) -> None:
    x = np.zeros(5, "float32")
    with pytest.raises(ValueError, match=r"guide has factor statements .*tilt"):
        dg.svi(on.simple, on.tilted, x, num_steps=5, **QUIET)


def test_a_density_without_a_normaliser_is_told(dg, on) -> None:
    with pytest.raises(ValueError, match="may not be integrable"):
        dg.log_z(on.growing, num_chains=30, num_temperatures=100, **QUIET)
