"""A distribution with its parameters moved: the same family, each datum's own member of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to, constraints

from deepgen_ppl import refinement
from deepgen_ppl.numpyro.flows.layer import FlowDistribution, FlowTransform
from deepgen_ppl.numpyro.layered import LayeredNormal

Shift = Callable[[str, Array], Array]
"""(name of a parameter, its unconstrained value) -> the value that it is moved to."""


def moved(fn: Any, shift: Shift, site: str, shape: tuple[int, ...] | None = None) -> Any:
    """Return a distribution of the same family and shape with other parameters.

    Parameters stand for every element of the batch, on their unconstrained space: what a family
    shares between its elements (a flow's weights, the degree of a count) stays as it is.

    Args:
        fn: the distribution.
        shift: where each parameter goes, by name.
        site: name of the site, for errors.
        shape: batch shape to expand to, its own when None.

    Raises:
        TypeError: a distribution that cannot be made anew.
    """
    shape = tuple(fn.batch_shape) if shape is None else shape
    if isinstance(fn, dist.ExpandedDistribution):
        return moved(fn.base_dist, shift, site, shape)
    if isinstance(fn, dist.MaskedDistribution):
        return moved(fn.base_dist, shift, site, shape).mask(fn._mask)
    if isinstance(fn, dist.Independent):
        count = fn.reinterpreted_batch_ndims
        inner = tuple(fn.base_dist.batch_shape)
        inner = (*shape, *inner[len(inner) - count :])
        return moved(fn.base_dist, shift, site, inner).to_event(count)
    if isinstance(fn, dist.MixtureSameFamily):
        mixing = moved(fn.mixing_distribution, shift, site, shape)
        parts = (*shape, fn.mixture_size)
        return dist.MixtureSameFamily(mixing, moved(fn.component_distribution, shift, site, parts))
    if isinstance(fn, LayeredNormal):
        return fn.moved(shift, shape)
    if fn.arg_constraints:
        return _made_anew(fn, shift, site, shape)
    if isinstance(fn, dist.TransformedDistribution):
        return _transformed(fn, shift, site, shape)
    raise refinement.cannot_move(site, type(fn).__name__)


def _made_anew(fn: Any, shift: Shift, site: str, shape: tuple[int, ...]) -> Any:
    values = {}
    for name in refinement.parameters_of(list(fn.arg_constraints)):
        constraint, value = fn.arg_constraints[name], jnp.asarray(getattr(fn, name))
        event = value.shape[value.ndim - constraint.event_dim :]
        values[name] = value
        if not (constraint.is_discrete or _is_dependent(constraint)):
            transform = biject_to(constraint)
            start = transform.inv(jnp.broadcast_to(value, (*shape, *event)))
            values[name] = transform(shift(name, start))
    try:
        found = type(fn)(**values)
    except TypeError as error:
        raise refinement.cannot_move(site, type(fn).__name__) from error
    return found if tuple(found.batch_shape) == shape else found.expand(shape)


def _transformed(fn: Any, shift: Shift, site: str, shape: tuple[int, ...]) -> Any:
    """Move what the transforms hold for each element; without such, move the base."""
    transforms = [_transform(t, shift, fn, shape, k) for k, t in enumerate(fn.transforms)]
    count = fn.base_dist.event_dim
    inner = tuple(fn.base_dist.batch_shape)
    inner = (*shape, *inner[len(fn.batch_shape) :])
    if all(one is other for one, other in zip(transforms, fn.transforms, strict=True)):
        base = moved(fn.base_dist, shift, site, inner)
    else:
        base = fn.base_dist.expand(inner)
    assert base.event_dim == count
    kind = FlowDistribution if isinstance(fn, FlowDistribution) else dist.TransformedDistribution
    return kind(base, transforms)


def _transform(
    transform: Any, shift: Shift, fn: Any, shape: tuple[int, ...], number: int
) -> Any:  # fmt: skip
    if isinstance(transform, FlowTransform) and transform.context is not None:
        full = jnp.broadcast_to(transform.context, (*shape, transform.context.shape[-1]))
        return FlowTransform(transform.layer, shift(f"context_{number}", full))
    if not isinstance(transform, dist.transforms.AffineTransform):
        return transform
    loc, scale = jnp.asarray(transform.loc), jnp.asarray(transform.scale)
    if max(loc.ndim, scale.ndim) < max(len(fn.batch_shape), 1):
        return transform
    full = (*shape, *fn.event_shape)
    loc = shift(f"loc_{number}", jnp.broadcast_to(loc, full))
    factor = jnp.exp(shift(f"scale_{number}", jnp.zeros(full, scale.dtype)))
    return dist.transforms.AffineTransform(loc, scale * factor, domain=transform.domain)


def _is_dependent(constraint: Any) -> bool:
    return isinstance(constraint, type(constraints.dependent))
