"""Log sums and marginals of factor graphs on the linear scale: products of tables and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepgen_ppl.products import Product

Tables = Sequence[Tensor]
"""Log tables of each stack of a plan, `(*cards, G, M)`; M may be 1 where all parts share them."""

_SLACK = 1e8
"""How far above the least normal number the least product has to stay."""


class Sums(NamedTuple):
    """What summing out gives.

    Attributes:
        log_sum: Log of the sum over all states.
        sound: Whether no product was so small that it could have been lost.
    """

    log_sum: Float[Tensor, " M"]
    sound: Bool[Tensor, " M"]


class _Scaled(NamedTuple):
    """Tables, each of largest entry one, and their least positive entries."""

    table: Float[Tensor, "*cards G M"]
    least: Float[Tensor, "G M"]


class _Taken(NamedTuple):
    """A product as it was carried out."""

    product: Product
    parts: list[Tensor]
    total: Float[Tensor, "*cards G M"]
    top: Float[Tensor, "G M"]


def log_sum(products: Sequence[Product], tables: Tables) -> Sums:
    """Return the log of the sum, over all states, of the product of all tables.

    Args:
        products: how the graph is summed out.
        tables: tables of each stack.
    """
    return _forward(products, *_scaled(tables))[0]


def marginals(
    products: Sequence[Product], tables: Tables, wanted: Sequence[int], weights: Tensor
) -> tuple[Sums, list[Tensor]]:
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
    pieces: dict[int, list[tuple[np.ndarray, Tensor]]] = {}
    slope = weights.expand(tape[-1].total.shape[-2], len(weights))
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
    return sums, [t.sum(-1, keepdim=True) if alone else t for t, alone in pairs]


# ------------------------------------------------------------------------------------- forwards


def _scaled(tables: Tables) -> tuple[list[_Scaled], Float[Tensor, " M"]]:
    """Return tables on the linear scale, and the log of what they were divided by."""
    found = []
    shift = tables[0].new_zeros(max(table.shape[-1] for table in tables))
    for table in tables:
        top = table.amax(tuple(range(table.ndim - 2)))
        top = torch.where(top.isfinite(), top, 0.0)
        logs = table - top
        least = _least(logs, logs.isfinite()).exp()  # zero where an entry is lost
        found.append(_Scaled(logs.exp(), least))
        shift = shift + top.sum(0)
    return found, shift


def _forward(
    products: Sequence[Product], scaled: Sequence[_Scaled], shift: Float[Tensor, " M"]
) -> tuple[Sums, list[_Taken]]:
    """Return the sums, and the products as they were carried out."""
    arrays, tape = dict(enumerate(scaled)), []
    bound = _SLACK * torch.finfo(shift.dtype).tiny
    sound = torch.ones_like(shift, dtype=torch.bool)
    for product in products:
        parts = [_aligned(_elements(arrays[o.source].table, o.index), o.axes, len(product.cards))
                 for o in product.operands]  # fmt: skip
        least = _multiplied([_elements(arrays[o.source].least, o.index) for o in product.operands])
        sound = sound & (least >= bound).all(0)
        total = _summed(product, *_sides(product, parts))
        axes = tuple(range(total.ndim - 2))
        top = total.amax(axes) if axes else total
        top = torch.where(top > 0, top, 1.0)
        scaled_total = total / top
        arrays[product.output] = _Scaled(scaled_total, _least(scaled_total, total > 0))
        shift = shift + top.log().sum(0)
        tape.append(_Taken(product, parts, total, top))
    empty = (tape[-1].total == 0).any(0)
    return Sums(torch.where(empty, -torch.inf, shift), sound), tape


def _summed(product: Product, left: Tensor, right: Tensor | None) -> Tensor:
    """Sum the first variables out of the product of two sides."""
    if product.matrix and right is not None:
        batch, rows, columns, summed = product.roles
        x, y = _laid(left, batch, rows, summed), _laid(right, batch, columns, summed)
        return _back(product, _matrices(x, y, 4, 4), batch, rows, columns)
    axes = tuple(range(product.summed))
    return _added(left if right is None else left * right, axes).squeeze(axes)


# ------------------------------------------------------------------------------------ backwards


def _slopes(taken: _Taken, slope: Tensor, chosen: Sequence[int]) -> dict[int, Tensor]:
    """Return the derivatives in some operands, given those in the scaled output."""
    product = taken.product
    if not chosen:
        return {}
    # Where the sum is zero, every term is: nothing depends on it, and the slope may be too large.
    slope = torch.where(taken.total > 0, slope / taken.top, 0.0)
    left, right = _sides(product, taken.parts)
    found = {}
    for side, other, mirror in ((product.left, right, False), (product.right, left, True)):
        own = [i for i in side if i in chosen]
        if not own:
            continue
        whole = _side_slope(product, slope, side, other, mirror)
        for i in own:
            rest = [taken.parts[j] for j in side if j != i]
            table = _multiplied([whole, *rest]) if rest else whole
            axes = product.operands[i].axes
            missing = [a for a in product.scope(side) if a not in axes]
            table = _added(table, missing)
            found[i] = _unaligned(table, axes, len(product.cards))
    return found


def _side_slope(
    product: Product, slope: Tensor, side: Sequence[int], other: Tensor | None, mirror: bool
) -> Tensor:
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


def _assembled(pieces: Sequence[tuple[np.ndarray, Tensor]]) -> Tensor:
    """Return derivatives in the elements of an array, each of which was used once, in order."""
    index = np.concatenate([index for index, _ in pieces])
    parts = [part for _, part in pieces]
    table = parts[0] if len(parts) == 1 else torch.cat(parts, -2)
    return _elements(table, np.argsort(index))


# ------------------------------------------------------------------------------------- helpers


def _elements(array: Tensor, index: Int[np.ndarray, " G"]) -> Tensor:
    """Return elements of an array."""
    if np.array_equal(index, np.arange(array.shape[-2])):
        return array
    return array.index_select(-2, torch.from_numpy(index).to(array.device))


def _aligned(table: Tensor, axes: tuple[int, ...], rank: int) -> Tensor:
    """Return a table with an axis for each variable of a product, in order."""
    table = table.permute(*np.argsort(axes).tolist(), len(axes), len(axes) + 1)
    sizes = iter(table.shape)
    shape = [next(sizes) if axis in axes else 1 for axis in range(rank)]
    return table.reshape(*shape, *table.shape[-2:])


def _unaligned(table: Tensor, axes: tuple[int, ...], rank: int) -> Tensor:
    """Return a table with the axes that it had before it was aligned."""
    table = table.squeeze(tuple(axis for axis in range(rank) if axis not in axes))
    order = np.argsort(np.argsort(axes)).tolist()
    return table.permute(*order, len(axes), len(axes) + 1)


def _sides(product: Product, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    left = _multiplied([parts[i] for i in product.left])
    return left, _multiplied([parts[i] for i in product.right]) if product.right else None


def _multiplied(tables: Sequence[Tensor]) -> Tensor:
    """Return the product of tables, the smallest first."""
    first, *rest = sorted(tables, key=Tensor.numel)
    for table in rest:
        first = first * table
    return first


def _added(table: Tensor, axes: Sequence[int]) -> Tensor:
    """Add a table up along axes, which stay."""
    axes = tuple(axis for axis in axes if table.shape[axis] > 1)
    return table.sum(axes, keepdim=True) if axes else table


def _least(table: Tensor, possible: Bool[Tensor, "*cards G M"]) -> Float[Tensor, "G M"]:
    """Return the least of the possible entries of tables, infinite where there are none."""
    axes = tuple(range(table.ndim - 2))
    known = torch.where(possible, table, torch.inf)
    return known.amin(axes) if axes else known


def _laid(table: Tensor, *roles: tuple[int, ...]) -> Float[Tensor, "M G b i k"]:
    """Return a table as matrices: variables of each of three roles together, the parts first."""
    rank, used = table.ndim - 2, [axis for role in roles for axis in role]
    rest = [axis for axis in range(rank) if axis not in used]
    sizes = [math.prod(table.shape[axis] for axis in role) for role in roles]
    table = table.permute(rank + 1, rank, *used, *rest)
    return table.reshape(*table.shape[:2], *sizes)


def _matrices(x: Tensor, y: Tensor, left: int, right: int) -> Float[Tensor, "M G b i j"]:
    """Return products of matrices, summed along an axis of each."""
    return x.movedim(left, 4) @ y.movedim(right, 3)


def _back(
    product: Product,
    table: Float[Tensor, "M G b i j"],
    *roles: tuple[int, ...],
    whole: bool = False,
) -> Tensor:
    """Return matrices as tables with an axis for each variable of the output, or for every one."""
    used = [axis for role in roles for axis in role]
    table = table.reshape(*table.shape[:2], *(product.cards[axis] for axis in used))
    table = table.permute(*(2 + np.argsort(used)).tolist(), 1, 0)
    if whole:
        sizes = iter(table.shape)
        shape = [next(sizes) if axis in used else 1 for axis in range(len(product.cards))]
        return table.reshape(*shape, *table.shape[-2:])
    return table
