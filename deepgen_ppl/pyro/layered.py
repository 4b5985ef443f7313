"""Latents in layers, each normal given the one above: hierarchical priors and ladder posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

Given = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(number of a layer, the values of the one above) -> its location and log scale."""


class LayeredNormal(dist.TorchDistribution):
    r"""Layers of latents side by side, the lowest first, drawn from the topmost one down.

    $$p(z_L) = \mathcal N(0, I), \quad p(z_l \mid z_{l+1}) = \mathcal N(z_l; m_l, s_l^2), \qquad
      m_l, \log s_l = f_l(z_{l+1})$$

    With numbers of a datum it is a ladder: the top is normal with those, and each layer below has
    the product of both,

    $$q(z_l \mid z_{l+1}, x) \propto \mathcal N(z_l; m_l, s_l^2)\,
      \mathcal N\bigl(z_l; \hat m_l(x), \hat s_l^2(x)\bigr)$$

    Args:
        sizes: number of latents of each layer, the lowest first.
        given: location and log scale of a layer given the one above.
        locs: numbers of each datum, the layers side by side, shape (*batch, sum(sizes)), or None.
        log_scales: the logarithms of their scales, of the same shape.
        like: a tensor of the device and dtype of a prior's draws.

    Cost:
        One pass through every f, for densities and for draws.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther: Ladder variational autoencoders. NeurIPS 2016.
        https://arxiv.org/abs/1602.02282

    Example:
        >>> fn = LayeredNormal((2, 1), lambda level, z: (z.repeat(2), 0.0 * z.repeat(2)))
        >>> round(fn.log_prob(torch.zeros(3)).item(), 4)  # -1.5 log(2 pi)
        -2.7568
    """

    arg_constraints: Any = {}  # noqa: RUF012
    support: Any = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        sizes: Sequence[int],
        given: Given,
        locs: Float[Tensor, "*batch latents"] | None = None,
        log_scales: Float[Tensor, "*batch latents"] | None = None,
        like: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.sizes, self.given = tuple(sizes), given
        self.locs, self.log_scales, self.like = locs, log_scales, like
        batch = torch.Size() if locs is None else locs.shape[:-1]
        event = torch.Size((sum(self.sizes),))
        super().__init__(batch, event, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LayeredNormal:
        """Return the distribution of a larger batch."""
        shape = torch.Size(batch_shape)
        locs, log_scales = (
            None if x is None else x.expand(*shape, x.shape[-1])
            for x in (self.locs, self.log_scales)
        )
        arrays: Any = (locs, log_scales, self.like)
        found = LayeredNormal(self.sizes, self.given, *arrays, validate_args=False)
        found._batch_shape = shape
        return found

    def layers(self, value: Float[Tensor, "*batch latents"]) -> list[Tensor]:
        """Return the layers of a value, the lowest first."""
        return list(torch.split(value, list(self.sizes), -1))

    def normal(
        self, level: int, above: Tensor | None, like: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return location and log scale of a layer given the one above, None for the topmost."""
        own = None
        if self.locs is not None and self.log_scales is not None:
            own = self.layers(self.locs)[level], self.layers(self.log_scales)[level]
        if above is None:
            zeros = (torch.zeros(()) if like is None else like).new_zeros(self.sizes[level])
            return (zeros, zeros) if own is None else own
        loc, log_scale = self.given(level, above)
        if own is None:
            return loc, log_scale
        weights = torch.exp(-2.0 * log_scale), torch.exp(-2.0 * own[1])
        total = weights[0] + weights[1]
        return (weights[0] * loc + weights[1] * own[0]) / total, -0.5 * torch.log(total)

    def normals(self, value: Float[Tensor, "*batch latents"]) -> list[tuple[Tensor, Tensor]]:
        """Return location and log scale of each layer given those of a value above it."""
        above = [*self.layers(value)[1:], None]
        return [self.normal(level, z, value) for level, z in enumerate(above)]

    def by_layer(self, value: Float[Tensor, "*batch latents"]) -> Float[Tensor, "*batch layers"]:
        """Return the log density of each layer given the one above."""
        pairs = zip(self.layers(value), self.normals(value), strict=True)
        return torch.stack([_log_normal(z, *normal) for z, normal in pairs], -1)

    def divergence(
        self, other: LayeredNormal, value: Float[Tensor, "*batch latents"]
    ) -> Float[Tensor, "*batch layers"]:
        """Return the divergence of each layer from another's, given the layers of a value above."""
        pairs = zip(self.normals(value), other.normals(value), strict=True)
        return torch.stack([_divergence(one, two) for one, two in pairs], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.sum(self.by_layer(value), -1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws, which carry gradients."""
        layers: list[Tensor] = []
        for level in reversed(range(len(self.sizes))):
            loc, log_scale = self.normal(level, layers[-1] if layers else None, self.like)
            shape = (*sample_shape, *self.batch_shape, self.sizes[level])
            noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
            layers.append(loc + torch.exp(log_scale) * noise)
        return torch.cat(layers[::-1], -1)

    def moved(
        self, shift: Callable[[str, Tensor], Tensor], shape: tuple[int, ...]
    ) -> LayeredNormal:
        """Return the ladder with other numbers of each datum; a prior as it is.

        Args:
            shift: where each of the two arrays goes, by name.
            shape: batch shape.
        """
        if self.locs is None or self.log_scales is None:
            return self
        full = (*shape, sum(self.sizes))
        moved = (
            shift(name, value.expand(full))
            for name, value in (("loc", self.locs), ("scale", self.log_scales))
        )
        return LayeredNormal(self.sizes, self.given, *moved)


def _log_normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    scaled = (z - loc) * torch.exp(-log_scale)
    return torch.sum(-0.5 * scaled**2 - log_scale - 0.5 * math.log(2.0 * math.pi), -1)


def _divergence(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    ratio, off = torch.exp(2.0 * (one[1] - other[1])), one[0] - other[0]
    squares = ratio + (off * torch.exp(-other[1])) ** 2
    return torch.sum(0.5 * (squares - 1.0) + other[1] - one[1], -1)
