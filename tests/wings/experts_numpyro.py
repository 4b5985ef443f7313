"""Experts and families as functions of NumPy arrays: the NumPyro side of the tests."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax


def adam(rate: float) -> Any:
    return optax.adam(rate)


def array(value: Any) -> Any:
    return jnp.asarray(value)


def numpy(value: Any) -> np.ndarray:
    return np.asarray(value)


def normal(location: Any, scale: Any, size: int) -> Any:
    """Independent normals of some entries."""
    return dist.Normal(location, scale).expand([size]).to_event(1)


def bits(probs: Any) -> Any:
    """Independent bits."""
    return dist.Bernoulli(probs=jnp.asarray(probs)).to_event(1)


def draw(distribution: Any, count: int, seed: int = 0) -> np.ndarray:
    sample = jax.jit(lambda key: distribution.sample(key, (count,)))
    return np.asarray(sample(jax.random.key(seed)))


def with_logits(mixture: Any) -> np.ndarray:
    return np.asarray(mixture.logits)
