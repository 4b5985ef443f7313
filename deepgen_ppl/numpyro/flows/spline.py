"""Monotone splines of rational quadratic pieces, whose parameters a network gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import flow_checks

_LANES = 4096  # numbers side by side in a block
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
        return _in_blocks(self._push, x, params)

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        return _in_blocks(self._pull, y, params)

    def _push(self, x: Array, params: Array) -> tuple[Array, Array]:
        inside, x_in = self._clip(x)
        x0, width, y0, height, left, right = _piece(0, self.bins, self.bound, x_in, params)
        slope = height / width
        t = (x_in - x0) / width
        both = t * (1.0 - t)
        bottom = slope + (left + right - 2.0 * slope) * both
        y = y0 + height * (slope * t * t + left * both) / bottom
        top = right * t * t + 2.0 * slope * both + left * (1.0 - t) ** 2
        log_slope = jnp.log(slope * slope * top / (bottom * bottom))
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)

    def _pull(self, y: Array, params: Array) -> tuple[Array, Array]:
        inside, y_in = self._clip(y)
        x0, width, y0, height, left, right = _piece(1, self.bins, self.bound, y_in, params)
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


def _in_blocks(
    move: Callable[[Array, Array], tuple[Array, Array]], value: Array, params: Array
) -> tuple[Array, Array]:
    """Move values with the parameters of one kind side by side, some rows' at a time.

    Vector instructions need long runs of numbers that are treated alike; runs that are too long
    push each other out of the cache. On processors blocks are gone through one after the other by a
    loop, whose results are kept as they come: without one XLA puts gradients into the order of rows
    while it computes them, number by number.
    """
    batch = jnp.broadcast_shapes(value.shape[:-1], params.shape[:-2])
    kinds, features = params.shape[-2:]
    number = math.prod(batch)
    least = 2 if number * features >= _LANES // 8 else 1
    blocks = max(1, min(number, max(least, -(-number * features // _LANES))))
    rows = -(-number // blocks)
    value = jnp.broadcast_to(value, (*batch, features)).reshape(number, features)
    params = jnp.broadcast_to(params, (*batch, kinds, features)).reshape(number, kinds, features)
    if missing := blocks * rows - number:
        value = jnp.pad(value, ((0, missing), (0, 0)))
        params = jnp.pad(params, ((0, missing), (0, 0), (0, 0)))
    params = params.reshape(blocks, rows, kinds, features).swapaxes(1, 2)
    lanes = rows * features
    sides = value.reshape(blocks, lanes), params.reshape(blocks, kinds, lanes)
    loops = blocks > 1 and jax.default_backend() == "cpu"
    moved, log_slope = lax.map(lambda side: move(*side), sides) if loops else move(*sides)
    shape = (*batch, features)
    moved, log_slope = (part.reshape(-1, features)[:number] for part in (moved, log_slope))
    return moved.reshape(shape), log_slope.reshape(shape)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _piece(axis: int, bins: int, bound: float, value: Array, params: Array) -> tuple[Array, ...]:
    """Return start, width, start, height and both slopes of the piece that holds each value."""
    return _find(axis, bins, bound, value, params)[0]


def _find(axis: int, bins: int, bound: float, value: Array, params: Array) -> tuple[Any, Any]:
    """Return the pieces, and what their derivatives are made of.

    Pieces are found by sums over masks: each is one pass, and nothing is computed twice, as it is
    in what the compiler makes of a chain of choices.
    """
    least, free = _least_and_free(bins, bound)
    both = params[..., : 2 * bins, :]
    both = both.reshape(*params.shape[:-2], 2, bins, params.shape[-1])
    shares = jax.nn.softmax(both, axis=-2)
    knots = free * jnp.cumsum(shares[..., axis, :-1, :], -2)
    knots = knots + (least * jnp.arange(1, bins)[:, None] - bound)
    index = jnp.sum(value[..., None, :] >= knots, -2)
    here, before = _masks(bins, index)
    share = jnp.sum(jnp.where(here[..., None, :, :], shares, 0.0), -2)
    below = jnp.sum(jnp.where(before[..., None, :, :], shares, 0.0), -2)
    starts, sizes = free * below + least * index[..., None, :] - bound, free * share + least
    shift = math.log(math.expm1(1.0 - _LEAST))  # zero parameters give slopes of one
    left, right = (slope + shift for slope in _ends(here, params[..., 2 * bins :, :]))
    ends = (_LEAST + jax.nn.softplus(left), _LEAST + jax.nn.softplus(right))
    piece = starts[..., 0, :], sizes[..., 0, :], starts[..., 1, :], sizes[..., 1, :], *ends
    return piece, (shares, share, below, here, before, left, right)


@_piece.defjvp
def _piece_jvp(axis: int, bins: int, bound: float, primals: tuple, tangents: tuple) -> tuple:
    """Differentiate by the masks that were found, rather than through what found them.

    The share of bin j is p_j; the shares below a knot have the derivative p_j (1 - S) for the
    parameter of a bin j below, and -p_j S for one above, S being their sum.
    """
    found, parts = _find(axis, bins, bound, *primals)
    shares, share, below, here, before, left, right = parts
    rate = tangents[1]
    moved = _least_and_free(bins, bound)[1] * shares
    moved = moved * rate[..., : 2 * bins, :].reshape(shares.shape)
    total = jnp.sum(moved, -2)
    starts = jnp.sum(jnp.where(before[..., None, :, :], moved, 0.0), -2) - below * total
    sizes = jnp.sum(jnp.where(here[..., None, :, :], moved, 0.0), -2) - share * total
    of_left, of_right = _ends(here, rate[..., 2 * bins :, :])
    ends = (of_left * jax.nn.sigmoid(left), of_right * jax.nn.sigmoid(right))
    rates = starts[..., 0, :], sizes[..., 0, :], starts[..., 1, :], sizes[..., 1, :], *ends
    return found, rates


def _least_and_free(bins: int, bound: float) -> tuple[float, float]:
    """Return the least size of a piece, and what is left of the interval to share."""
    least = 2.0 * bound * _LEAST
    return least, 2.0 * bound - bins * least


def _masks(bins: int, index: Array) -> tuple[Array, Array]:
    """Return which piece each value is in, and which pieces are before it."""
    number = jnp.arange(bins)[:, None]
    return number == index[..., None, :], number < index[..., None, :]


def _ends(here: Array, slopes: Array) -> tuple[Array, Array]:
    """Return what stands at both ends of the pieces; zero at the ends of the interval."""
    left = jnp.sum(jnp.where(here[..., 1:, :], slopes, 0.0), -2)
    return left, jnp.sum(jnp.where(here[..., :-1, :], slopes, 0.0), -2)
