"""Products of zeros and ones with real matrices, by two products in half precision."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from deepgen_ppl import halves


class Halves(NamedTuple):
    """A matrix of single precision as the sum of two of bfloat16, but for `halves.ERROR` of it.

    Attributes:
        high: the matrix, rounded.
        low: what is left, rounded.
    """

    high: Array
    low: Array


def prepared(weight: Float[Array, "first second"], rows: int, is_binary: bool) -> Array | Halves:
    """Return a matrix ready for many products with zeros and ones, in halves where that is faster.

    Args:
        weight: the matrix.
        rows: rows of zeros and ones.
        is_binary: whether the other side holds nothing but zeros and ones.
    """
    return split(weight) if is_binary and _fits(weight, rows) else weight


def product(f: Float[Array, "row first"], weight: Array | Halves) -> Float[Array, "row second"]:
    """Return f W.

    Args:
        f: rows of zeros and ones.
        weight: the matrix W, as `prepared` returns it.
    """
    return _sum(f, weight, 0) if isinstance(weight, Halves) else f @ weight


def product_back(
    g: Float[Array, "row second"], weight: Array | Halves
) -> Float[Array, "row first"]:
    """Return g W', with the matrix turned round.

    Args:
        g: rows of zeros and ones.
        weight: the matrix W, as `prepared` returns it.
    """
    return _sum(g, weight, 1) if isinstance(weight, Halves) else g @ weight.T


def field(
    f: Float[Array, "*row first"], weight: Float[Array, "first second"], is_binary: bool
) -> Float[Array, "*row second"]:
    """Return f W, with gradients: that of W is a product of zeros and ones too.

    Args:
        f: rows, of zeros and ones if `is_binary` says so.
        weight: the matrix W.
        is_binary: whether the rows hold nothing but zeros and ones.
    """
    fits = is_binary and jnp.ndim(f) == 2 and _fits(weight, f.shape[0])
    return _field(f, weight) if fits else f @ weight


def split(x: Float[Array, "*shape"]) -> Halves:
    """Return both halves of numbers.

    Roundings are integer sums, since XLA's own conversion is no vector code on a CPU.

    Args:
        x: numbers of single precision.
    """
    return Halves(*map(_half, _words(x)))


def _fits(weight: Array, rows: int) -> bool:
    single = weight.dtype == jnp.float32 and jax.default_backend() == "cpu"
    return single and halves.wanted(rows, weight.size)


@jax.custom_vjp
def _field(f: Array, weight: Array) -> Array:
    return _sum(f, split(weight), 0)


def _forward(f: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _field(f, weight), (f, weight)


def _backward(kept: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    # XLA has no fast code for a left side that is turned round, and folds a turn into the product
    # unless something stands between: both halves in one product. Words of 16 bits, as which they
    # are put together, are not converted to single precision and back.
    f, weight = kept
    turned = _upper(_bits(f)).T
    left = jnp.concatenate([turned, turned], 1)
    right = jnp.concatenate(_words(change), 0)
    return change @ weight.T, _half_product(_half(left), _half(right), 0)


_field.defvjp(_forward, _backward)


def _sum(f: Array, weight: Halves, axis: int) -> Array:
    ones = _half(_upper(_bits(f)))
    return _half_product(ones, weight.high, axis) + _half_product(ones, weight.low, axis)


def _half_product(f: Array, weight: Array, axis: int) -> Array:
    return lax.dot_general(
        f, weight, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _words(x: Array) -> tuple[Array, Array]:
    """Return the bits of both halves."""
    rounded = _bits(x) + jnp.uint32(0x8000)
    whole = lax.bitcast_convert_type(rounded & jnp.uint32(0xFFFF0000), jnp.float32)
    return _upper(rounded), _upper(_bits(x - whole) + jnp.uint32(0x8000))


def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.uint32)


def _upper(bits: Array) -> Array:
    return (bits >> 16).astype(jnp.uint16)


def _half(words: Array) -> Array:
    return lax.bitcast_convert_type(words, jnp.bfloat16)
