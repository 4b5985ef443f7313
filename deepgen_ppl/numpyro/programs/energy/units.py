"""Layers of independent units, given what they see: densities, means, draws, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float

from deepgen_ppl.harmonium import Units
from deepgen_ppl.numpyro.programs.energy.bits import uniform

_TOGETHER = 20
"""Probabilities whose product one logarithm is taken of."""


def log_partition(
    side: Sequence[Units], eta: Float[Array, "*batch size"]
) -> Float[Array, "*batch"]:
    r"""Return \(\log \sum_f g(f) \exp(\eta \cdot f)\), over all layers of a side.

    Args:
        side: its layers.
        eta: natural parameters, of all layers one after the other.
    """
    return sum((_log_partition(units, part) for units, part in _cut(side, eta)), jnp.zeros(()))


def is_binary(side: Sequence[Units]) -> bool:
    """Tell whether the statistics of all layers of a side are zeros and ones.

    Args:
        side: its layers.
    """
    return all(units.kind != "gaussian" for units in side)


def mean(side: Sequence[Units], eta: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
    """Return the mean statistics at natural parameters.

    Args:
        side: its layers.
        eta: natural parameters, of all layers one after the other.
    """
    return jnp.concatenate([_mean(units, part) for units, part in _cut(side, eta)], -1)


def draw(
    key: Array, side: Sequence[Units], eta: Float[Array, "*batch size"], stream: int | Array = 0
) -> Float[Array, "*batch size"]:
    """Draw the statistics of independent units.

    Args:
        key: random key.
        side: the layers.
        eta: natural parameters, of all layers one after the other.
        stream: number of the draw among those of one key.
    """
    cut = _cut(side, eta)
    keys = [key] if len(side) == 1 else random.split(key, len(side))
    parts = [_draw(k, units, part, stream) for k, (units, part) in zip(keys, cut, strict=True)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def log_base(side: Sequence[Units], f: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
    """Return the log base measure of statistics.

    Args:
        side: the layers.
        f: statistics, of all layers one after the other.
    """
    parts = [-0.5 * (p**2).sum(-1) for units, p in _cut(side, f) if units.kind == "gaussian"]
    return sum(parts, jnp.zeros(f.shape[:-1]))


def statistics(
    units: Units, x: Float[Array, "*batch number"], scale: Array | None
) -> Float[Array, "*batch size"]:
    """Return the statistics of values: themselves, over their scale, or indicators.

    Args:
        units: the layer.
        x: values.
        scale: deviations of Gaussian units.
    """
    if units.kind == "categorical":
        found = jax.nn.one_hot(jnp.asarray(x).astype(int), units.states, dtype=float)
        return found.reshape(*jnp.shape(x)[:-1], units.size)
    x = jnp.asarray(x, float)
    return x if scale is None else x / scale


def values(
    units: Units, f: Float[Array, "*batch size"], scale: Array | None
) -> Float[Array, "*batch number"]:
    """Return the values of statistics.

    Args:
        units: the layer.
        f: statistics.
        scale: deviations of Gaussian units.
    """
    if units.kind == "categorical":
        return f.reshape(*f.shape[:-1], units.number, units.states).argmax(-1)
    return f if scale is None else f * scale


def independent(units: Units, bias: Any = None, scale: Any = None) -> Any:
    """Return the distribution of units that see nothing: uniform, or normal.

    Args:
        units: the layer.
        bias: means of Gaussian units over their deviations.
        scale: deviations of Gaussian units.
    """
    found: Any
    if units.kind == "bernoulli":
        found = dist.Bernoulli(probs=jnp.full(units.number, 0.5))
    elif units.kind == "gaussian":
        found = dist.Normal(bias * scale, scale)
    else:
        found = dist.Categorical(logits=jnp.zeros((units.number, units.states)))
    return found.to_event(1)


def _cut(side: Sequence[Units], eta: Array) -> list[tuple[Units, Array]]:
    ends = np.cumsum([units.size for units in side])
    return [
        (units, eta[..., end - units.size : end]) for units, end in zip(side, ends, strict=True)
    ]


def _log_partition(units: Units, eta: Array) -> Array:
    if units.kind == "bernoulli":
        return _softplus_sums(eta)
    if units.kind == "gaussian":
        return 0.5 * (eta**2).sum(-1) + 0.5 * units.number * np.log(2.0 * np.pi)
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    return jax.nn.logsumexp(table, -1).sum(-1)


def _mean(units: Units, eta: Array) -> Array:
    if units.kind == "bernoulli":
        return jax.nn.sigmoid(eta)
    if units.kind == "gaussian":
        return eta
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    return jax.nn.softmax(table, -1).reshape(eta.shape)


def _draw(key: Array, units: Units, eta: Array, stream: int | Array) -> Array:
    if units.kind == "bernoulli":
        ones = (uniform(key, eta.shape, stream) < jax.nn.sigmoid(eta)).astype(eta.dtype)
        # Their roots are the same numbers, and XLA, which takes a root for dear, then draws them
        # once: without it each of several products draws them again.
        return jnp.sqrt(ones)
    key = random.fold_in(key, stream)
    if units.kind == "gaussian":
        return eta + random.normal(key, eta.shape, eta.dtype)
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    drawn = random.categorical(key, table)
    return jax.nn.one_hot(drawn, units.states, dtype=eta.dtype).reshape(eta.shape)


@jax.custom_jvp
def _softplus_sums(eta: Array) -> Array:
    """Sums of log(1 + exp eta) over the last axis, by a logarithm for twenty terms.

    What is above the larger of 0 and eta is minus the logarithm of the likelier state's
    probability, between 1/2 and 1: twenty of them have a product that no type loses.
    """
    likely = jax.nn.sigmoid(eta)
    likely = jnp.maximum(likely, 1.0 - likely)
    wide = [(0, 0)] * (eta.ndim - 1) + [(0, -eta.shape[-1] % _TOGETHER)]
    groups = jnp.pad(likely, wide, constant_values=1.0)
    products = jnp.prod(groups.reshape(*eta.shape[:-1], _TOGETHER, -1), -2)
    return jnp.maximum(eta, 0.0).sum(-1) - jnp.log(products).sum(-1)


@_softplus_sums.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (eta,), (change,) = primals, tangents
    return _softplus_sums(eta), (jax.nn.sigmoid(eta) * change).sum(-1)
