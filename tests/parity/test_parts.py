"""The parts of a bound are the same on both wings: costs in closed form, weights at given draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pytest
import torch

from deepgen_ppl.numpyro import parts as numpyro_parts
from deepgen_ppl.pyro import parts as pyro_parts

from . import programs_numpyro, programs_pyro
from .sides import numpyro_side, pyro_side, to_numpy
from .weights import BITS

ROWS = np.array([3, 0, 7, 5])


@pytest.fixture(autouse=True)
def empty_store():
    """No parameter of another test in Pyro's store."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def test_costs_in_closed_form() -> None:
    first = numpyro_side(programs_numpyro.vae, programs_numpyro.vae_guide, (BITS,))
    second = pyro_side(programs_pyro.vae, programs_pyro.vae_guide, (BITS,))
    key, rows = jax.random.key(0), torch.as_tensor(ROWS)
    options = {"analytic": True}
    ours = numpyro_parts.parts(
        first.pair, first.params, (BITS,), jnp.asarray(ROWS), key=key, **options
    )
    theirs = pyro_parts.parts(second.pair, second.params, (torch.as_tensor(BITS),), rows, **options)
    assert ours.costs["z"].shape == (4, 2)
    np.testing.assert_allclose(ours.costs["z"], to_numpy(theirs.costs)["z"], rtol=1e-6)
    assert ours.scale == theirs.scale == 3.0


def test_weights_and_gradients_at_given_draws() -> None:
    first = numpyro_side(programs_numpyro.vae, programs_numpyro.vae_guide, (BITS,))
    second = pyro_side(programs_pyro.vae, programs_pyro.vae_guide, (BITS,))
    z = np.random.default_rng(0).normal(size=(len(BITS), 2))
    inputs, key = first.pair.inputs((BITS,)), jax.random.key(0)

    def total(params, z):
        found = numpyro_parts.weigh(first.pair, params, {"z": z}, inputs, None, key)
        return jnp.sum(found[0]), found[0]

    grads, rows = jax.grad(total, argnums=(0, 1), has_aux=True)(dict(first.params), jnp.asarray(z))
    leaves = {name: x.clone().requires_grad_() for name, x in second.params.items()}
    draw = torch.as_tensor(z).requires_grad_()
    found = pyro_parts.weigh(second.pair, leaves, {"z": draw}, (torch.as_tensor(BITS),), None)[0]
    np.testing.assert_allclose(rows, found.detach(), rtol=1e-6)
    theirs = torch.autograd.grad(found.sum(), [*leaves.values(), draw], allow_unused=True)
    np.testing.assert_allclose(grads[1], theirs[-1], rtol=1e-6)
    for name, grad in zip(leaves, theirs, strict=False):
        expected = 0.0 if grad is None else grad.numpy()
        np.testing.assert_allclose(grads[0][name], expected, rtol=1e-6, atol=1e-9)
        assert name.startswith("encoder") == (grad is None or not np.any(expected))
