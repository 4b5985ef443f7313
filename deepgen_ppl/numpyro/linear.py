"""Log sums and marginals of factor graphs on the linear scale: products of tables and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from deepgen_ppl.products import Product

Tables = Sequence[Array]
"""Log tables of each stack of a plan, `(*cards, G, M)`; M may be 1 where all parts share them."""

_SLACK = 1e8
"""How far above the least normal number the least product has to stay."""


class Sums(NamedTuple):
    """What summing out gives.

    Attributes:
        log_sum: Log of the sum over all states.
        sound: Whether no product was so small that it could have been lost.
    """

    log_sum: Float[Array, " M"]
    sound: Bool[Array, " M"]


class _Scaled(NamedTuple):
    """Tables, each of largest entry one, and their least positive entries."""

    table: Float[Array, "*cards G M"]
    least: Float[Array, "G M"]


class _Taken(NamedTuple):
    """A product as it was carried out."""

    product: Product
    parts: list[Array]
    total: Float[Array, "*cards G M"]
    top: Float[Array, "G M"]


def log_sum(products: Sequence[Product], tables: Tables) -> Sums:
    """Return the log of the sum, over all states, of the product of all tables.

    Args:
        products: how the graph is summed out.
        tables: tables of each stack.
    """
    return _forward(products, *_scaled(tables))[0]


def marginals(
    products: Sequence[Product], tables: Tables, wanted: Sequence[int], weights: Array
) -> tuple[Sums, list[Array]]:
    r"""Return the log sums, and their derivatives in the log tables of some stacks.

    \[ \frac{\partial \log Z}{\partial \phi_f(x_f)} = p(x_f) \]

    Args:
        products: how the graph is summed out.
        tables: tables of each stack.
        wanted: numbers of the stacks.
        weights: what the derivatives of each part are multiplied by.

    Returns:
        The sums, and the derivatives, of the shape of the tables: added up where parts share them.
    """
    scaled, shift = _scaled(tables)
    sums, tape = _forward(products, scaled, shift)
    pieces: dict[int, list[tuple[np.ndarray, Array]]] = {}
    slope = jnp.broadcast_to(weights, (tape[-1].total.shape[-2], len(weights)))
    for taken in reversed(tape):
        if taken is not tape[-1]:
            slope = _assembled(pieces.pop(taken.product.output))
        chosen = [i for i, operand in enumerate(taken.product.operands)
                  if operand.source >= len(tables) or operand.source in wanted]  # fmt: skip
        for i, part in _slopes(taken, slope, chosen).items():
            operand = taken.product.operands[i]
            pieces.setdefault(operand.source, []).append((operand.index, part))
    found = [scaled[number].table * _assembled(pieces[number]) for number in wanted]
    shared = [tables[number].shape[-1] < len(weights) for number in wanted]
    pairs = zip(found, shared, strict=True)
    return sums, [jnp.sum(t, -1, keepdims=True) if alone else t for t, alone in pairs]


# ------------------------------------------------------------------------------------- forwards


def _scaled(tables: Tables) -> tuple[list[_Scaled], Float[Array, " M"]]:
    """Return tables on the linear scale, and the log of what they were divided by."""
    found = []
    shift = jnp.zeros((max(table.shape[-1] for table in tables),), tables[0].dtype)
    for table in tables:
        top = jnp.max(table, axis=tuple(range(table.ndim - 2)))
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        logs = table - top
        least = jnp.exp(_least(logs, jnp.isfinite(logs)))  # zero where an entry is lost
        found.append(_Scaled(jnp.exp(logs), least))
        shift = shift + jnp.sum(top, 0)
    return found, shift


def _forward(
    products: Sequence[Product], scaled: Sequence[_Scaled], shift: Float[Array, " M"]
) -> tuple[Sums, list[_Taken]]:
    """Return the sums, and the products as they were carried out."""
    arrays, tape = dict(enumerate(scaled)), []
    bound = _SLACK * jnp.finfo(shift.dtype).tiny
    sound = jnp.ones(shift.shape, bool)
    for product in products:
        parts = [_aligned(_elements(arrays[o.source].table, o.index), o.axes, len(product.cards))
                 for o in product.operands]  # fmt: skip
        least = _multiplied([_elements(arrays[o.source].least, o.index) for o in product.operands])
        sound &= jnp.all(least >= bound, axis=0)
        total = _summed(product, *_sides(product, parts))
        total = lax.optimization_barrier(total)  # made once, not again for each of its uses
        top = jnp.max(total, axis=tuple(range(total.ndim - 2)))
        top = jnp.where(top > 0, top, 1.0)
        scaled_total = lax.optimization_barrier(total / top)
        arrays[product.output] = _Scaled(scaled_total, _least(scaled_total, total > 0))
        shift = shift + jnp.sum(jnp.log(top), 0)
        tape.append(_Taken(product, parts, total, top))
    empty = jnp.any(tape[-1].total == 0, axis=0)
    return Sums(jnp.where(empty, -jnp.inf, shift), sound), tape


def _summed(product: Product, left: Array, right: Array | None) -> Array:
    """Sum the first variables out of the product of two sides."""
    if product.matrix and right is not None:
        batch, rows, columns, summed = product.roles
        x, y = _laid(left, batch, rows, summed), _laid(right, batch, columns, summed)
        return _back(product, _matrices(x, y, 4, 4), batch, rows, columns)
    axes = tuple(range(product.summed))
    return jnp.squeeze(_added(left if right is None else left * right, axes), axes)


# ------------------------------------------------------------------------------------ backwards


def _slopes(taken: _Taken, slope: Array, chosen: Sequence[int]) -> dict[int, Array]:
    """Return the derivatives in some operands, given those in the scaled output."""
    product = taken.product
    if not chosen:
        return {}
    # Where the sum is zero, every term is: nothing depends on it, and the slope may be too large.
    slope = lax.optimization_barrier(jnp.where(taken.total > 0, slope / taken.top, 0.0))
    left, right = _sides(product, taken.parts)
    found = {}
    for side, other, mirror in ((product.left, right, False), (product.right, left, True)):
        own = [i for i in side if i in chosen]
        if not own:
            continue
        whole = lax.optimization_barrier(_side_slope(product, slope, side, other, mirror))
        for i in own:
            rest = [taken.parts[j] for j in side if j != i]
            table = _multiplied([whole, *rest]) if rest else whole
            axes = product.operands[i].axes
            missing = [a for a in product.scope(side) if a not in axes]
            table = _added(table, missing)
            found[i] = _unaligned(table, axes, len(product.cards))
    return found


def _side_slope(
    product: Product, slope: Array, side: Sequence[int], other: Array | None, mirror: bool
) -> Array:
    """Return the derivative in one side: the output's times the other side, summed."""
    whole = slope.reshape(*(1,) * product.summed, *slope.shape)
    if other is None:
        return whole
    if product.matrix:
        batch, rows, columns, summed = product.roles
        mine, others = (columns, rows) if mirror else (rows, columns)
        x = _laid(whole, batch, mine, others)
        y = _laid(other, batch, others, summed)
        return _back(product, _matrices(x, y, 4, 3), batch, mine, summed, whole=True)
    missing = [a for a in range(len(product.cards)) if a not in product.scope(side)]
    return _added(whole * other, missing)


def _assembled(pieces: Sequence[tuple[np.ndarray, Array]]) -> Array:
    """Return derivatives in the elements of an array, each of which was used once, in order."""
    index = np.concatenate([index for index, _ in pieces])
    parts = [part for _, part in pieces]
    table = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-2)
    return _elements(table, np.argsort(index))


# ------------------------------------------------------------------------------------- helpers


def _elements(array: Array, index: Int[np.ndarray, " G"]) -> Array:
    """Return elements of an array."""
    if len(index) == 1:
        return lax.slice_in_dim(array, int(index[0]), int(index[0]) + 1, axis=array.ndim - 2)
    if np.array_equal(index, np.arange(array.shape[-2])):
        return array
    return jnp.take(array, jnp.asarray(index), axis=-2)


def _aligned(table: Array, axes: tuple[int, ...], rank: int) -> Array:
    """Return a table with an axis for each variable of a product, in order."""
    table = jnp.transpose(table, (*np.argsort(axes), len(axes), len(axes) + 1))
    return jnp.expand_dims(table, [axis for axis in range(rank) if axis not in axes])


def _unaligned(table: Array, axes: tuple[int, ...], rank: int) -> Array:
    """Return a table with the axes that it had before it was aligned."""
    table = jnp.squeeze(table, [axis for axis in range(rank) if axis not in axes])
    order = np.argsort(np.argsort(axes))
    return jnp.transpose(table, (*order, len(axes), len(axes) + 1))


def _sides(product: Product, parts: Sequence[Array]) -> tuple[Array, Array | None]:
    left = _multiplied([parts[i] for i in product.left])
    return left, _multiplied([parts[i] for i in product.right]) if product.right else None


def _multiplied(tables: Sequence[Array]) -> Array:
    """Return the product of tables, the smallest first."""
    first, *rest = sorted(tables, key=lambda table: table.size)
    for table in rest:
        first = first * table
    return first


def _added(table: Array, axes: Sequence[int]) -> Array:
    """Add a table up along axes, which stay: as a product with ones, since XLA is slow at sums."""
    axes = tuple(axis for axis in axes if table.shape[axis] > 1)
    if not axes:
        return table
    rest = [axis for axis in range(table.ndim) if axis not in axes]
    size = math.prod(table.shape[axis] for axis in axes)
    flat = jnp.transpose(table, (*axes, *rest)).reshape(size, -1)
    found = jnp.ones((1, size), table.dtype) @ flat
    return found.reshape([1 if axis in axes else n for axis, n in enumerate(table.shape)])


def _least(table: Array, possible: Bool[Array, "*cards G M"]) -> Float[Array, "G M"]:
    """Return the least of the possible entries of tables, infinite where there are none."""
    return jnp.min(jnp.where(possible, table, jnp.inf), axis=tuple(range(table.ndim - 2)))


def _laid(table: Array, *roles: tuple[int, ...]) -> Float[Array, "M G b i k"]:
    """Return a table as matrices: variables of each of three roles together, the parts first."""
    rank, used = table.ndim - 2, [axis for role in roles for axis in role]
    rest = [axis for axis in range(rank) if axis not in used]
    sizes = [math.prod(table.shape[axis] for axis in role) for role in roles]
    table = jnp.transpose(table, (rank + 1, rank, *used, *rest))
    return table.reshape(*table.shape[:2], *sizes)


def _matrices(x: Array, y: Array, left: int, right: int) -> Float[Array, "M G b i j"]:
    """Return products of matrices, summed along an axis of each."""
    lead = np.broadcast_shapes(x.shape[:2], y.shape[:2])
    x, y = (jnp.broadcast_to(part, (*lead, *part.shape[2:])) for part in (x, y))
    return lax.dot_general(x, y, (((left,), (right,)), ((0, 1, 2), (0, 1, 2))))


def _back(
    product: Product, table: Float[Array, "M G b i j"], *roles: tuple[int, ...], whole: bool = False
) -> Array:
    """Return matrices as tables with an axis for each variable of the output, or for every one."""
    used = [axis for role in roles for axis in role]
    table = table.reshape(*table.shape[:2], *(product.cards[axis] for axis in used))
    table = jnp.transpose(table, (*(2 + np.argsort(used)), 1, 0))
    if whole:
        missing = [axis for axis in range(len(product.cards)) if axis not in used]
        return jnp.expand_dims(table, missing)
    return table
