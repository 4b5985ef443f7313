"""Runs functions of an autoencoder's modules with what a fit has learned, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.handlers import seed as seeded
from numpyro.handlers import substitute

from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.handlers import learned_only
from deepgen_ppl.numpyro.program import learned


def array(value: Any) -> np.ndarray:
    """Return data as an array of NumPy."""
    return np.asarray(value)


def drawn(fn: dist.Distribution, *shape: int) -> Array:
    """Return draws from a distribution, inside a function that `evaluated` runs."""
    return jnp.asarray(fn.sample(numpyro.prng_key(), shape))


def evaluated(
    owner: Any,
    fit: Any,
    name: str,
    fn: Callable[..., Any],
    *data: Any,
    size: int,
    seed: int = 0,
    axis: int = 0,
    static: Any = None,
) -> np.ndarray:
    """Return a function of rows with the modules that it registers as they were learned.

    Args:
        owner: the autoencoder, by which compiled code is kept.
        fit: a `Fit`, or its `params`.
        name: name of the function.
        fn: the function of the arrays of a chunk, None where one is None.
        *data: arrays whose leading axis is that of the rows, or None.
        size: rows of a chunk.
        seed: seed of its draws.
        axis: axis of the rows in what it returns.
        static: whatever else it depends on.

    Raises:
        ValueError: the fit lacks the values of a module.
    """
    values = learned(fit)

    def run(values: Any, key: Array, *data: Any) -> Any:
        with learned_only(), substitute(data=values), seeded(rng_seed=key):
            return fn(*data)

    arrays = [None if value is None else jnp.asarray(value) for value in data]
    rows, parts = next(len(value) for value in arrays if value is not None), []
    for start in range(0, rows, size):
        index = np.minimum(np.arange(start, start + size), rows - 1)
        chunk = [None if value is None else value[index] for value in arrays]
        args = (values, jax.random.fold_in(as_key(seed), start), *chunk)
        found = jax.device_get(compiled(owner, name, run, *args, static=(axis, static))(*args))
        parts.append(np.take(found, np.arange(min(size, rows - start)), axis=axis))
    return np.concatenate(parts, axis=axis)
