"""Monotone splines of rational quadratic pieces, whose parameters a network gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepgen_ppl import flow_checks

_LEAST = 1e-3  # of widths and heights as fractions of the interval, and of slopes


@dataclass(frozen=True)
class Spline:
    r"""A monotone spline of K rational quadratic pieces on (-b, b), the identity outside.

    Between knots \((x_k, y_k)\) and \((x_{k+1}, y_{k+1})\) with slopes \(d_k, d_{k+1}\), mean
    slope s and \(t = (x - x_k) / (x_{k+1} - x_k)\),

    \[ y = y_k + \frac{(y_{k+1} - y_k)\,(s t^2 + d_k t (1 - t))}
                      {s + (d_{k+1} + d_k - 2 s)\, t (1 - t)}. \]

    Zero parameters give the identity.

    Args:
        bins: number of pieces K.
        bound: half width b of the interval.

    Raises:
        ValueError: fewer than one piece, more than 500, or a bound that is not positive.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows. NeurIPS 2019.
        https://arxiv.org/abs/1906.04032

    Example:
        >>> Spline(bins=4).push(jnp.array([-0.5, 9.0]), jnp.zeros((11, 2)))[0].tolist()
        [-0.5, 9.0]
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        flow_checks.whole("bins", self.bins)
        flow_checks.positive("bound", self.bound)
        if self.bins > 500:
            raise ValueError(f"bins must be at most 500, got {self.bins}.")

    @property
    def size(self) -> int:
        """Parameters of each feature: K widths, K heights, K - 1 slopes."""
        return 3 * self.bins - 1

    def push(
        self, x: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map x to y, with the log derivative."""
        inside, x_in = self._clip(x)
        x0, width, y0, height, left, right = self._piece(x_in, params, 0)
        slope = height / width
        t = (x_in - x0) / width
        both = t * (1.0 - t)
        bottom = slope + (left + right - 2.0 * slope) * both
        y = y0 + height * (slope * t * t + left * both) / bottom
        top = right * t * t + 2.0 * slope * both + left * (1.0 - t) ** 2
        log_slope = jnp.log(slope * slope * top / (bottom * bottom))
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        inside, y_in = self._clip(y)
        x0, width, y0, height, left, right = self._piece(y_in, params, 1)
        slope = height / width
        rise = y_in - y0
        bend = left + right - 2.0 * slope
        a = height * (slope - left) + rise * bend
        b = height * left - rise * bend
        c = -slope * rise
        t = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, 0.0)))
        both = t * (1.0 - t)
        bottom = slope + bend * both
        top = right * t * t + 2.0 * slope * both + left * (1.0 - t) ** 2
        log_slope = jnp.log(slope * slope * top / (bottom * bottom))
        return jnp.where(inside, x0 + width * t, y), jnp.where(inside, -log_slope, 0.0)

    def _clip(self, value: Array) -> tuple[Array, Array]:
        # what is outside gets a point inside, so that its unused branch has a finite gradient
        inside = jnp.abs(value) < self.bound
        return inside, jnp.where(inside, value, 0.0)

    def _piece(self, value: Array, params: Array, axis: int) -> tuple[Array, ...]:
        """Return start, width, start, height and both slopes of the piece that holds each value."""
        both = params[..., : 2 * self.bins, :]
        both = both.reshape(*params.shape[:-2], 2, self.bins, params.shape[-1])
        least = 2.0 * self.bound * _LEAST
        sizes = least + (2.0 * self.bound - self.bins * least) * jax.nn.softmax(both, axis=-2)
        shift = math.log(math.expm1(1.0 - _LEAST))  # zero parameters give slopes of one
        slopes = _LEAST + jax.nn.softplus(params[..., 2 * self.bins :, :] + shift)
        return _select(axis, -self.bound, value, sizes[..., 0, :, :], sizes[..., 1, :, :], slopes)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _select(
    axis: int, start: float, value: Array, widths: Array, heights: Array, slopes: Array
) -> tuple[Array, ...]:
    """Return the piece that holds each value: elementwise, so that all of it is one fused loop."""
    bins = widths.shape[-2]
    one = jnp.ones_like(value)
    x = y = start * one
    slope = [one, *(slopes[..., k, :] for k in range(bins - 1)), one]
    found = x, widths[..., 0, :], y, heights[..., 0, :], slope[0], slope[1]
    for k in range(1, bins):
        x, y = x + widths[..., k - 1, :], y + heights[..., k - 1, :]
        beyond = value >= (y if axis else x)
        piece = x, widths[..., k, :], y, heights[..., k, :], slope[k], slope[k + 1]
        found = tuple(jnp.where(beyond, n, o) for n, o in zip(piece, found, strict=True))
    return found


@_select.defjvp
def _select_jvp(axis: int, start: float, primals: tuple, tangents: tuple) -> tuple:
    """Differentiate as sums over masks: their transpose is elementwise, that of a chain is not."""
    value, widths, heights, _ = primals
    _, *rates = tangents
    bins, edges = widths.shape[-2], heights if axis else widths
    knot, index = start, jnp.zeros(value.shape, int)
    for k in range(bins - 1):
        knot = knot + edges[..., k, :]
        index = index + (value >= knot)
    number = jnp.arange(bins)[:, None]
    here, before = number == index[..., None, :], number < index[..., None, :]

    def at(mask: Array, rate: Array) -> Array:
        return jnp.sum(jnp.where(mask, rate, 0.0), -2)

    w, h, d = rates
    out = at(before, w), at(here, w), at(before, h), at(here, h)
    out = (*out, at(here[..., 1:, :], d), at(here[..., :-1, :], d))
    return _select(axis, start, *primals), out
