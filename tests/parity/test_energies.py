"""Ready energies of equal seeds are equal on both wings, to 1e-6."""

from typing import Any

import numpy as np
import pytest

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro

from ..wings import energies_numpyro, energies_pyro

SIDES = ((on_numpyro, energies_numpyro), (on_pyro, energies_pyro))
RNG = np.random.default_rng(0)
BITS, REALS = RNG.integers(0, 2, (6, 4)).astype(float), RNG.normal(size=(6, 4))
ENERGIES: dict[str, tuple[Any, np.ndarray]] = {
    "RBM": (lambda dg: dg.RBM(4, 3, seed=2), BITS),
    "Gaussian RBM": (lambda dg: dg.RBM(4, 3, units="gaussian", seed=2), REALS),
    "categorical RBM": (lambda dg: dg.RBM(4, 3, units="categorical", states=2), BITS),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_densities_gradients_and_log_z_agree(name: str) -> None:
    """Before and after the same noise on their parameters."""
    make, x = ENERGIES[name]
    for scale in (0.0, 0.5):
        built = [on.shaken(make(dg), scale) for dg, on in SIDES]
        values = [on.numpy(e.unnormalised_log_prob(on.array(x)))
                  for e, (_, on) in zip(built, SIDES, strict=True)]  # fmt: skip
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6)
        grads = [on.gradient(e, x) for e, (_, on) in zip(built, SIDES, strict=True)]
        for ours, theirs in zip(*grads, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        exact = [dg.log_z(e).log_evidence for e, (dg, _) in zip(built, SIDES, strict=True)]
        assert abs(exact[0] - exact[1]) < 1e-6
