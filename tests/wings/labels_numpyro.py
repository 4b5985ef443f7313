"""Labelled sequences as functions of NumPy arrays: the NumPyro side of the tests."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def array(value: Any) -> Any:
    return jnp.asarray(value)


def numpy(value: Any) -> Any:
    return np.asarray(value)


def draws(labels: Any, number: int, seed: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(lambda d, k: d.sample(k, (number,)))(labels, jax.random.key(seed)))


def gradient(crf: Any, x: np.ndarray, y: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of the summed log density by the potentials between labels."""
    found = jax.grad(lambda c: c(x, lengths).log_prob(jnp.asarray(y)).sum())(crf)
    return {name: np.asarray(getattr(found, name)) for name in ("transition", "initial", "final")}


def adam(rate: float) -> Any:
    return optax.adam(rate)


def wide(states: int) -> Any:
    """A network that looks at the neighbours of each place."""

    def net(x: Any) -> Any:
        around = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        return jnp.concatenate([around[:, :-2], x, around[:, 2:]], -1)[..., :states]

    return net
