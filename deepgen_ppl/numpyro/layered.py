"""Latents in layers, each normal given the one above: hierarchical priors and ladder posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

Given = Callable[[int, Array], tuple[Array, Array]]
"""(number of a layer, the values of the one above) -> its location and log scale."""


class LayeredNormal(dist.Distribution):
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

    Cost:
        One pass through every f, for densities and for draws.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther: Ladder variational autoencoders. NeurIPS 2016.
        https://arxiv.org/abs/1602.02282

    Example:
        >>> fn = LayeredNormal((2, 1), lambda level, z: (jnp.tile(z, 2), 0.0 * jnp.tile(z, 2)))
        >>> bool(jnp.isclose(fn.log_prob(jnp.zeros(3)), -1.5 * jnp.log(2 * jnp.pi)))
        True
    """

    arg_constraints = {}  # noqa: RUF012
    support: Any = constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride]
    reparametrized_params = []  # noqa: RUF012

    def __init__(
        self,
        sizes: Sequence[int],
        given: Given,
        locs: Float[Array, "*batch latents"] | None = None,
        log_scales: Float[Array, "*batch latents"] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.sizes, self.given = tuple(sizes), given
        self.locs, self.log_scales = locs, log_scales
        batch = () if locs is None else locs.shape[:-1]
        super().__init__(batch, (sum(self.sizes),), validate_args=validate_args)

    def layers(self, value: Float[Array, "*batch latents"]) -> list[Array]:
        """Return the layers of a value, the lowest first."""
        ends = [sum(self.sizes[: level + 1]) for level in range(len(self.sizes) - 1)]
        return jnp.split(value, ends, axis=-1)

    def normal(self, level: int, above: Array | None) -> tuple[Array, Array]:
        """Return location and log scale of a layer given the one above, None for the topmost."""
        own = None
        if self.locs is not None and self.log_scales is not None:
            own = self.layers(self.locs)[level], self.layers(self.log_scales)[level]
        if above is None:
            zeros = jnp.zeros(self.sizes[level])
            return (zeros, zeros) if own is None else own
        loc, log_scale = self.given(level, above)
        if own is None:
            return loc, log_scale
        weights = jnp.exp(-2.0 * log_scale), jnp.exp(-2.0 * own[1])
        total = weights[0] + weights[1]
        return (weights[0] * loc + weights[1] * own[0]) / total, -0.5 * jnp.log(total)

    def normals(self, value: Float[Array, "*batch latents"]) -> list[tuple[Array, Array]]:
        """Return location and log scale of each layer given those of a value above it."""
        above = [*self.layers(value)[1:], None]
        return [self.normal(level, z) for level, z in enumerate(above)]

    def by_layer(self, value: Float[Array, "*batch latents"]) -> Float[Array, "*batch layers"]:
        """Return the log density of each layer given the one above."""
        pairs = zip(self.layers(value), self.normals(value), strict=True)
        return jnp.stack([_log_normal(z, *normal) for z, normal in pairs], -1)

    def divergence(
        self, other: LayeredNormal, value: Float[Array, "*batch latents"]
    ) -> Float[Array, "*batch layers"]:
        """Return the divergence of each layer from another's, given the layers of a value above."""
        pairs = zip(self.normals(value), other.normals(value), strict=True)
        return jnp.stack([_divergence(one, two) for one, two in pairs], -1)

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """Return the log density."""
        return jnp.sum(self.by_layer(value), -1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws, which carry gradients."""
        layers: list[Array] = []
        for level in reversed(range(len(self.sizes))):
            key, own = random.split(key)
            loc, log_scale = self.normal(level, layers[-1] if layers else None)
            shape = (*sample_shape, *self.batch_shape, self.sizes[level])
            layers.append(loc + jnp.exp(log_scale) * random.normal(own, shape, loc.dtype))
        return jnp.concatenate(layers[::-1], axis=-1)

    def moved(self, shift: Callable[[str, Array], Array], shape: tuple[int, ...]) -> LayeredNormal:
        """Return the ladder with other numbers of each datum; a prior as it is.

        Args:
            shift: where each of the two arrays goes, by name.
            shape: batch shape.
        """
        if self.locs is None or self.log_scales is None:
            return self
        full = (*shape, sum(self.sizes))
        moved = (
            shift(name, jnp.broadcast_to(value, full))
            for name, value in (("loc", self.locs), ("scale", self.log_scales))
        )
        return LayeredNormal(self.sizes, self.given, *moved)


def _log_normal(z: Array, loc: Array, log_scale: Array) -> Array:
    scaled = (z - loc) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * scaled**2 - log_scale - 0.5 * math.log(2.0 * math.pi), -1)


def _divergence(one: tuple[Array, Array], other: tuple[Array, Array]) -> Array:
    ratio, off = jnp.exp(2.0 * (one[1] - other[1])), one[0] - other[0]
    squares = ratio + (off * jnp.exp(-other[1])) ** 2
    return jnp.sum(0.5 * (squares - 1.0) + other[1] - one[1], -1)
