"""Densities, log weights, potentials and transforms agree to 1e-6 at equal weights and latents."""

from typing import Any

import jax
import numpy as np
import pytest

from deepgen_ppl.numpyro import program as numpyro_program
from deepgen_ppl.numpyro.unconstrained import Potential

from ..exactness import programs_numpyro as conjugate_numpyro
from ..exactness import programs_pyro as conjugate_pyro
from ..exactness.oracles import ORACLES
from . import programs_numpyro, programs_pyro
from .sides import Side, numpyro_side, pyro_side, ratio, to_numpy
from .weights import BITS, REALS

PAIRS: dict[str, tuple[Any, Any, str, str, tuple[np.ndarray, ...]]] = {
    "vae": (programs_numpyro, programs_pyro, "vae", "vae_guide", (BITS,)),
    "handled": (programs_numpyro, programs_pyro, "handled", "handled_guide", (REALS,)),
} | {
    name: (conjugate_numpyro, conjugate_pyro, name, f"{name}_guide", ORACLES[name]().data)
    for name in ("normal_mean", "coin", "counts", "local_normal", "group", "factor_analysis")
}

MODELS: dict[str, tuple[Any, Any, str, tuple[np.ndarray, ...]]] = {
    "handled": (programs_numpyro, programs_pyro, "handled", (REALS,)),
    "constrained": (programs_numpyro, programs_pyro, "constrained", (REALS,)),
    "mixture": (programs_numpyro, programs_pyro, "mixture", (REALS,)),
    "regression": (conjugate_numpyro, conjugate_pyro, "regression", ORACLES["regression"]().data),
    "coin": (conjugate_numpyro, conjugate_pyro, "coin", ORACLES["coin"]().data),
    "counts": (conjugate_numpyro, conjugate_pyro, "counts", ORACLES["counts"]().data),
    "group": (conjugate_numpyro, conjugate_pyro, "group", ORACLES["group"]().data),
}


def sides_of_pair(name: str) -> tuple[Side, Side]:
    first, second, model, guide, data = PAIRS[name]
    return (
        numpyro_side(getattr(first, model), getattr(first, guide), data),
        pyro_side(getattr(second, model), getattr(second, guide), data),
    )


def sides_of_model(name: str) -> tuple[Side, Side]:
    first, second, model, data = MODELS[name]
    return (
        numpyro_side(getattr(first, model), None, data),
        pyro_side(getattr(second, model), None, data),
    )


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_log_weights_of_equal_latents(name: str) -> None:
    """A draw weighed on the NumPyro wing has the same density on the Pyro wing."""
    jax_side, torch_side = sides_of_pair(name)
    data = PAIRS[name][-1]
    weights = numpyro_program.log_weights(
        jax_side.pair, jax_side.params, data, key=jax.random.key(1)
    )
    latents = to_numpy(weights.latents)
    for side in (jax_side, torch_side):
        rows, shared = ratio(side, latents)
        agree(rows, weights.rows)
        agree(shared, weights.shared)
    assert jax_side.pair.local == torch_side.pair.local
    assert set(jax_side.params) == set(torch_side.params)
    for key, value in to_numpy(torch_side.params).items():
        agree(value, jax_side.params[key])


@pytest.mark.parametrize("name", MODELS)
def test_potentials_of_equal_points(name: str) -> None:
    """Potential energy, its gradient and the constrained values agree at random points."""
    jax_side, torch_side = sides_of_model(name)
    data = MODELS[name][-1]
    potential = Potential(jax_side.pair.model, jax_side.params, jax_side.pair.model.inputs(data))
    rng = np.random.default_rng(3)
    start = to_numpy(potential.init(jax.random.key(2)))
    for _ in range(3):
        z = {site: x + 0.5 * rng.normal(size=x.shape) for site, x in start.items()}
        (ours, our_gradient), (theirs, their_gradient) = (
            side.potential(z) for side in (jax_side, torch_side)
        )
        agree(ours, theirs)
        assert our_gradient.keys() == their_gradient.keys()
        for site in our_gradient:
            agree(our_gradient[site], their_gradient[site])
        values = jax_side.constrain(z), torch_side.constrain(z)
        for site in values[0].keys() & values[1].keys():
            agree(values[0][site], values[1][site])
        assert set(z) <= values[0].keys() & values[1].keys()
