"""Kernels and their adaptation agree to 1e-6 from the same places and random numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from deepgen_ppl.numpyro.kernels import adaptation as numpyro_adaptation
from deepgen_ppl.numpyro.kernels import estimates as numpyro_estimates
from deepgen_ppl.numpyro.kernels import hmc as numpyro_hmc
from deepgen_ppl.pyro.kernels import adaptation as pyro_adaptation
from deepgen_ppl.pyro.kernels import estimates as pyro_estimates
from deepgen_ppl.pyro.kernels import hmc as pyro_hmc

RNG = np.random.default_rng(0)
POSITIONS, MOMENTA = RNG.normal(size=(2, 50, 3))
ROOTS = {
    "identity": None,
    "diagonal": np.array([0.5, 1.0, 2.0]),
    "dense": np.array([[0.5, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.4, 0.3, 2.0]]),
}
CHAINS = RNG.normal(size=(40, 12, 3)) @ np.array([[1.0, 0.6, 0.0], [0.0, 1.0, 0.3], [0.0, 0, 5]])


def energies(exp: Any, z: Any) -> tuple[Any, Any]:
    """Energy and gradient of log Gamma(2) numbers."""
    return (exp(z) - 2.0 * z).sum(-1), exp(z) - 2.0


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("size", [0.3, np.linspace(0.1, 1.5, 50)], ids=["one size", "a size each"])
def test_steps_of_hmc(root: str, num_steps: int, size: Any) -> None:
    """Trajectories from the same places and momenta."""
    own, options = ROOTS[root], {"num_steps": num_steps}
    start = numpyro_hmc.init(jnp.asarray(POSITIONS), lambda z: energies(jnp.exp, z))
    end, info = numpyro_hmc.trajectory(
        jnp.asarray(MOMENTA),
        start,
        lambda z: energies(jnp.exp, z),
        step_size=size,
        root=None if own is None else jnp.asarray(own),
        **options,
    )
    ours = pyro_hmc.init(torch.tensor(POSITIONS), lambda z: energies(torch.exp, z))
    reached, told = pyro_hmc.trajectory(
        torch.tensor(MOMENTA),
        ours,
        lambda z: energies(torch.exp, z),
        step_size=torch.as_tensor(size),
        root=None if own is None else torch.tensor(own),
        **options,
    )
    same: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
    for name in ("position", "potential", "gradient"):
        np.testing.assert_allclose(getattr(reached, name), getattr(end, name), **same)
    for name in ("acceptance", "accepted", "energy", "diverging", "proposal", "velocity"):
        np.testing.assert_allclose(getattr(told, name), getattr(info, name), **same)
    assert told.num_steps == int(info.num_steps)


@pytest.mark.parametrize("dense", [True, False])
def test_covariance(dense: bool) -> None:
    """Mean and root of the covariance pooled over chains."""
    theirs = numpyro_estimates.estimate(CHAINS, dense)
    ours = pyro_estimates.estimate(torch.tensor(CHAINS), dense)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)


def test_what_warm_up_decides_by() -> None:
    """Worth of a trajectory length, lost chains, and the jitter."""
    y = CHAINS / CHAINS.std((0, 1))
    mine = pyro_estimates.efficiency(torch.tensor(y[:-1]), torch.tensor(y[1:]))
    assert float(mine) == pytest.approx(float(numpyro_estimates.efficiency(y[:-1], y[1:])), 1e-6)
    potentials = 0.5 * (CHAINS**2).sum(-1)
    far = CHAINS.copy()
    potentials[:, 3] += 100.0  # a chain where the density is next to nothing
    far[:, 5] = far[0, 5]  # and one that stays where it is
    lost = pyro_estimates.lost_chains(torch.tensor(far), torch.tensor(potentials))
    np.testing.assert_array_equal(lost, numpyro_estimates.lost_chains(far, potentials))
    assert np.flatnonzero(lost).tolist() == [3, 5]
    for i in range(40):
        other = float(numpyro_estimates.van_der_corput(jnp.asarray(i)))
        assert pyro_estimates.van_der_corput(i) == pytest.approx(other, 1e-6)
    np.testing.assert_array_equal(pyro_adaptation.windows(500), numpyro_adaptation.windows(500))
