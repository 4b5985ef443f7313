"""Layers of independent units, given what they see: densities, means, draws, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from deepgen_ppl.harmonium import Units


def log_partition(
    side: Sequence[Units], eta: Float[Tensor, "*batch size"]
) -> Float[Tensor, "*batch"]:
    r"""Return \(\log \sum_f g(f) \exp(\eta \cdot f)\), over all layers of a side.

    Args:
        side: its layers.
        eta: natural parameters, of all layers one after the other.
    """
    return sum((_log_partition(units, part) for units, part in _cut(side, eta)), eta.new_zeros(()))


def mean(side: Sequence[Units], eta: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
    """Return the mean statistics at natural parameters.

    Args:
        side: its layers.
        eta: natural parameters, of all layers one after the other.
    """
    return torch.cat([_mean(units, part) for units, part in _cut(side, eta)], -1)


def draw(
    generator: Generator | None, side: Sequence[Units], eta: Float[Tensor, "*batch size"]
) -> Float[Tensor, "*batch size"]:
    """Draw the statistics of independent units.

    Args:
        generator: source of the random numbers, torch's own when None.
        side: the layers.
        eta: natural parameters, of all layers one after the other.
    """
    parts = [_draw(generator, units, part) for units, part in _cut(side, eta)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def log_base(side: Sequence[Units], f: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch"]:
    """Return the log base measure of statistics.

    Args:
        side: the layers.
        f: statistics, of all layers one after the other.
    """
    parts = [-0.5 * (p**2).sum(-1) for units, p in _cut(side, f) if units.kind == "gaussian"]
    return sum(parts, f.new_zeros(f.shape[:-1]))


def statistics(
    units: Units, x: Float[Tensor, "*batch number"], scale: Tensor | None
) -> Float[Tensor, "*batch size"]:
    """Return the statistics of values: themselves, over their scale, or indicators.

    Args:
        units: the layer.
        x: values.
        scale: deviations of Gaussian units.
    """
    dtype = torch.get_default_dtype()
    x = torch.as_tensor(x)
    if units.kind == "categorical":
        found = functional.one_hot(x.long(), units.states).to(dtype)
        return found.reshape(*x.shape[:-1], units.size)
    x = x.to(dtype)
    return x if scale is None else x / scale


def values(
    units: Units, f: Float[Tensor, "*batch size"], scale: Tensor | None
) -> Float[Tensor, "*batch number"]:
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
        found = dist.Bernoulli(probs=torch.full((units.number,), 0.5))
    elif units.kind == "gaussian":
        found = dist.Normal(bias * scale, scale)
    else:
        found = dist.Categorical(logits=torch.zeros(units.number, units.states))
    return found.to_event(1)


def _cut(side: Sequence[Units], eta: Tensor) -> list[tuple[Units, Tensor]]:
    ends = np.cumsum([units.size for units in side])
    return [
        (units, eta[..., end - units.size : end]) for units, end in zip(side, ends, strict=True)
    ]


def _log_partition(units: Units, eta: Tensor) -> Tensor:
    if units.kind == "bernoulli":
        return functional.softplus(eta).sum(-1)
    if units.kind == "gaussian":
        return 0.5 * (eta**2).sum(-1) + 0.5 * units.number * float(np.log(2.0 * np.pi))
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    return torch.logsumexp(table, -1).sum(-1)


def _mean(units: Units, eta: Tensor) -> Tensor:
    if units.kind == "bernoulli":
        return torch.sigmoid(eta)
    if units.kind == "gaussian":
        return eta
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    return torch.softmax(table, -1).reshape(eta.shape)


def _draw(generator: Generator | None, units: Units, eta: Tensor) -> Tensor:
    if units.kind == "bernoulli":
        uniform = torch.rand(eta.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        return uniform.lt_(torch.sigmoid(eta.detach()))  # in place: as numbers, not truth values
    if units.kind == "gaussian":
        normal = torch.randn(eta.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        return eta + normal
    table = eta.reshape(*eta.shape[:-1], units.number, units.states)
    waiting = torch.empty_like(table).exponential_(generator=generator)
    drawn = (table - waiting.clamp_min(1e-30).log()).argmax(-1)
    return functional.one_hot(drawn, units.states).to(eta.dtype).reshape(eta.shape)
