"""The matrix products of persistent contrastive divergence, and nothing else, as one JAX loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@partial(jax.jit, static_argnums=3)
def products(weight: Array, x: Array, state: tuple[Array, Array], sweeps: int, steps: Array):
    """Run steps of an update's products: both phases and the sweeps, without a random number."""

    def sweep(h: Array) -> tuple[Array, Array]:
        v = jnp.tanh(h @ weight.T)
        return v, jnp.tanh(v @ weight)

    def step(_: int | Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, v, h = carry
        for _number in range(sweeps):
            v, h = sweep(h)
        w = w + 1e-9 * (x.T @ jnp.tanh(x @ w) - v.T @ h)
        return w, v, h

    return jax.lax.fori_loop(0, steps, step, (weight, *state))


def floor(x: np.ndarray, hidden: int, sweeps: int) -> Callable[[int], None]:
    """Return a function that runs that many updates' products on a batch of data."""
    rng = np.random.default_rng(0)
    weight = jnp.asarray(0.01 * rng.normal(size=(x.shape[1], hidden)), jnp.float32)
    state = jnp.asarray(x), jnp.zeros((len(x), hidden), jnp.float32)

    def run(steps: int) -> None:
        jax.block_until_ready(
            products(weight, jnp.asarray(x), state, sweeps, jnp.asarray(steps, jnp.int32))
        )

    run(1)
    return run
