"""What a program registers: networks, priors and learned values, of whatever kind they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.module import eqx_module, nnx_module

from deepgen_ppl.numpyro.image_nets import ResidualMLP
from deepgen_ppl.numpyro.nets import MLP, on_batch
from deepgen_ppl.numpyro.programs.vae.ladder import BottomUp


class Values(eqx.Module):
    """Learned arrays by name.

    Args:
        values: what they are at first.

    Example:
        >>> Values({"log_scale": np.zeros(2)})["log_scale"].shape
        (2,)
    """

    arrays: dict[str, Array]

    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: jnp.asarray(value, float) for name, value in values.items()}

    def __getitem__(self, name: str) -> Array:
        """Return one of them."""
        return self.arrays[name]


def values(found: Mapping[str, np.ndarray]) -> Values | None:
    """Return learned arrays, None where there are none."""
    return Values(found) if found else None


def registered(name: str, thing: Any) -> Any:
    """Register the parameters of a module and return it; functions and distributions have none."""
    if isinstance(thing, eqx.Module):
        return eqx_module(name, thing)
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(thing, nnx.Module):
        return nnx_module(name, thing)
    return thing


def applied(net: Any, value: Array, event_dim: int, context: Array | None) -> Any:
    """Apply a network to a batch; a perceptron sees each datum as a vector."""
    if isinstance(net, MLP | BottomUp | ResidualMLP):
        value = jnp.reshape(value, (*value.shape[: value.ndim - event_dim], -1))
    return on_batch(net, value) if context is None else on_batch(net, value, context)


def is_distribution(value: Any) -> bool:
    """Tell whether a value is a distribution of the language."""
    return isinstance(value, dist.Distribution)


def joined(value: Any, new_axis: bool) -> Array:
    """Return the output of a network, several arrays side by side or on a new last axis."""
    if not isinstance(value, tuple | list):
        return jnp.asarray(value)
    return jnp.stack(value, -1) if new_axis else jnp.concatenate(value, -1)
