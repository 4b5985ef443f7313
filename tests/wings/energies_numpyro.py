"""Ready energies as functions of NumPy arrays: the NumPyro side of the tests."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def array(value: Any) -> Any:
    return jnp.asarray(value)


def numpy(value: Any) -> Any:
    return jax.tree.map(np.asarray, value)


def shaken(energy: Any, scale: float = 0.5, seed: int = 3) -> Any:
    """The energy with noise on every parameter."""
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(energy)
    moved = [leaf + scale * rng.normal(size=leaf.shape).astype(leaf.dtype)
             if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf for leaf in leaves]  # fmt: skip
    return jax.tree.unflatten(tree, moved)


def chain(energy: Any, x: np.ndarray, num_steps: int, seed: int = 0) -> np.ndarray:
    """Visible values of chains that set out from x."""
    keys = jax.random.split(jax.random.key(seed))

    @jax.jit
    def run(x: Any) -> Any:
        state = energy.chains_at(keys[0], x)
        return energy.visible(energy.step_chains(keys[1], state, num_steps))

    return np.asarray(run(jnp.asarray(x)))


def gradient(energy: Any, x: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean unnormalised log density."""
    rows = jnp.asarray(x)
    found = jax.jit(jax.grad(lambda e: e.unnormalised_log_prob(rows).mean()))(energy)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def sweeps(energy: Any, state: Any, num_steps: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Both sides of a harmonium's chains after some sweeps."""
    run = jax.jit(lambda state: energy.step_chains(jax.random.key(seed), state, num_steps))
    return tuple(map(np.asarray, run(tuple(map(jnp.asarray, state)))))


def chain_gradient(energy: Any, state: Any) -> list[np.ndarray]:
    """Gradients of the mean log density by which chains count."""
    state = tuple(map(jnp.asarray, state))
    found = jax.jit(jax.grad(lambda e: e.chain_log_prob(state).mean()))(energy)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
