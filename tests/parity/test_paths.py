"""The densities along a path agree to 1e-6: prior and guide, rows and whole, Jacobians, sums."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
import torch

from deepgen_ppl.numpyro import program as numpyro_program
from deepgen_ppl.numpyro.paths import read_path as numpyro_path
from deepgen_ppl.pyro.paths import read_path as pyro_path

from ..exactness import programs_numpyro as conjugate_numpyro
from ..exactness import programs_pyro as conjugate_pyro
from ..exactness.oracles import ORACLES
from . import programs_numpyro, programs_pyro
from .sides import to_numpy
from .weights import BITS, REALS

OWN, CONJUGATE = (programs_numpyro, programs_pyro), (conjugate_numpyro, conjugate_pyro)

PATHS: dict[str, tuple[tuple[Any, Any], str, str | None, tuple[np.ndarray, ...], bool]] = {
    "supports": (OWN, "supports", None, (REALS,), False),
    "local mixture": (OWN, "local_mixture", None, (REALS,), True),
    "mixture": (OWN, "mixture", None, (REALS,), False),
    "group": (CONJUGATE, "group", None, ORACLES["group"]().data, False),
    "coin": (CONJUGATE, "coin", None, ORACLES["coin"]().data, False),
    "coin, guided": (CONJUGATE, "coin", "coin_guide", ORACLES["coin"]().data, False),
    "group, guided": (CONJUGATE, "group", "group_guide", ORACLES["group"]().data, False),
    "local_normal": (CONJUGATE, "local_normal", None, ORACLES["local_normal"]().data, True),
    "vae": (OWN, "vae", None, (BITS,), True),
    "vae, guided": (OWN, "vae", "vae_guide", (BITS,), True),
}


@pytest.mark.parametrize("name", PATHS)
def test_densities_of_equal_sites(name: str) -> None:
    """Reference and target have the same log densities at the same values of the sites."""
    (first, second), model, guide, data, by_rows = PATHS[name]
    pair = [getattr(first, model), guide and getattr(first, guide), data]
    read = numpyro_program.read_pair(*pair, prior=True)
    params = to_numpy(numpyro_program.init_params(read, data))
    one = numpyro_path(pair[0], *data, guide=pair[1], params=params)
    tensors = [torch.as_tensor(value) for value in data]
    own = guide and getattr(second, guide)
    other = pyro_path(getattr(second, model), *tensors, guide=own, params=params)
    assert (one.rows is not None, one.rows, one.num_rows) == (by_rows, other.rows, other.num_rows)
    assert one.dim == other.dim
    sites = _sites(one.constrain(one.sample(jax.random.key(1), 5)), other)
    ours = one.log_densities(one.unconstrain(sites))
    theirs = other.log_densities(other.unconstrain(sites))
    for wanted, found in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-6)


def _sites(values: Mapping[str, Any], path: Any) -> dict[str, np.ndarray]:
    """Return the continuous latents among some sites, on the host."""
    names = path.layout.shapes
    return {name: np.array(values[name]) for name in names}
