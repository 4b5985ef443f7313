"""Draws of an autoregressive model the naive way: the whole network again for every feature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def draws(net, uniforms, positions, start):
    """Return events, one pass of the whole network a feature.

    Args:
        net: a module of `dg.autoregressive` of features in the order they stand in.
        uniforms: shape (rows, features, n).
        positions: the features that are drawn, in order.
        start: whole numbers of shape (rows, features) that hold the others.
    """
    output = net.output

    def step(x, i):
        params = net.parallel(output.encode(x, uniforms.dtype), None)
        here = lax.dynamic_index_in_dim(params, i, 1, False)
        value = output.draw(here, lax.dynamic_index_in_dim(uniforms, i, 1, False))
        return lax.dynamic_update_slice_in_dim(x, value[:, None].astype(x.dtype), i, 1), None

    return lax.scan(step, jnp.asarray(start, jnp.int32), jnp.asarray(positions))[0]


compiled = jax.jit(draws)
