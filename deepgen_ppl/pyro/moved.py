"""A distribution with its parameters moved: the same family, each datum's own member of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import AffineTransform, biject_to, constraints, transform_to
from torch.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix

from deepgen_ppl import refinement
from deepgen_ppl.pyro.flows.layer import FlowDistribution, FlowTransform
from deepgen_ppl.pyro.layered import LayeredNormal

Shift = Callable[[str, Tensor], Tensor]
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
    if isinstance(fn, torch.distributions.Independent):
        count = fn.reinterpreted_batch_ndims
        inner = tuple(fn.base_dist.batch_shape)
        inner = (*shape, *inner[len(inner) - count :])
        return moved(fn.base_dist, shift, site, inner).to_event(count)
    if isinstance(fn, torch.distributions.MixtureSameFamily):
        mixing = moved(fn.mixture_distribution, shift, site, shape)
        parts = (*shape, fn._num_component)
        return dist.MixtureSameFamily(mixing, moved(fn.component_distribution, shift, site, parts))
    if isinstance(fn, LayeredNormal):
        return fn.moved(shift, shape)
    if fn.arg_constraints:
        return _made_anew(fn, shift, site, shape)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return _transformed(fn, shift, site, shape)
    raise refinement.cannot_move(site, type(fn).__name__)


def _made_anew(fn: Any, shift: Shift, site: str, shape: tuple[int, ...]) -> Any:
    values = {}
    for name in refinement.parameters_of(list(fn.arg_constraints)):
        constraint, value = fn.arg_constraints[name], torch.as_tensor(getattr(fn, name))
        event = value.shape[value.dim() - constraint.event_dim :]
        values[name] = value
        if not (constraint.is_discrete or _is_dependent(constraint)):
            transform, full = transform_to(constraint), value.expand((*shape, *event))
            if constraint is constraints.lower_cholesky:
                vector = shift(name, tril_matrix_to_vec(transform.inv(full)))
                values[name] = transform(vec_to_tril_matrix(vector))
                continue
            transform = biject_to(constraint)
            values[name] = transform(shift(name, transform.inv(full)))
    try:
        found = type(fn)(**values)
    except TypeError as error:
        raise refinement.cannot_move(site, type(fn).__name__) from error
    return found if tuple(found.batch_shape) == shape else found.expand(shape)


def _transformed(fn: Any, shift: Shift, site: str, shape: tuple[int, ...]) -> Any:
    """Move what the transforms hold for each element; without such, move the base."""
    transforms = [_transform(t, shift, fn, shape, k) for k, t in enumerate(fn.transforms)]
    inner = tuple(fn.base_dist.batch_shape)
    inner = (*shape, *inner[len(fn.batch_shape) :])
    if all(one is other for one, other in zip(transforms, fn.transforms, strict=True)):
        base = moved(fn.base_dist, shift, site, inner)
    else:
        base = fn.base_dist.expand(inner)
    kind = FlowDistribution if isinstance(fn, FlowDistribution) else dist.TransformedDistribution
    return kind(base, transforms)


def _transform(
    transform: Any, shift: Shift, fn: Any, shape: tuple[int, ...], number: int
) -> Any:  # fmt: skip
    if isinstance(transform, FlowTransform) and transform.context is not None:
        full = transform.context.expand((*shape, transform.context.shape[-1]))
        return FlowTransform(transform.layer, shift(f"context_{number}", full))
    if not isinstance(transform, AffineTransform):
        return transform
    loc, scale = torch.as_tensor(transform.loc), torch.as_tensor(transform.scale)
    if max(loc.dim(), scale.dim()) < max(len(fn.batch_shape), 1):
        return transform
    full = (*shape, *fn.event_shape)
    loc = shift(f"loc_{number}", loc.expand(full))
    factor = torch.exp(shift(f"scale_{number}", scale.new_zeros(full)))
    return AffineTransform(loc, scale * factor, transform.domain.event_dim)


def _is_dependent(constraint: Any) -> bool:
    return isinstance(constraint, type(constraints.dependent))
