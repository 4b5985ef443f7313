"""Draws of an autoregressive model the naive way: the whole network again for every feature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def draws(net, uniforms):
    """Return events, one pass of the whole network a feature.

    Args:
        net: a module of `dg.autoregressive` of features in the order they stand in.
        uniforms: shape (rows, features, n).
    """
    output, (rows, features, _) = net.output, uniforms.shape

    def step(x, i):
        params = net.parallel(output.encode(x, uniforms.dtype), None)
        here = lax.dynamic_index_in_dim(params, i, 1, False)
        value = output.draw(here, lax.dynamic_index_in_dim(uniforms, i, 1, False))
        return lax.dynamic_update_slice_in_dim(x, value[:, None].astype(x.dtype), i, 1), None

    start = jnp.zeros((rows, features), jnp.int32)
    return lax.scan(step, start, jnp.arange(features))[0]


compiled = jax.jit(draws)
