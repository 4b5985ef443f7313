"""How the steps of a plan are carried out on the linear scale: as products of two tables each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.plans import Loop, Plan, Step

_MOST_OPERANDS = 8
"""Tables of one step up to which the ways to split them are all looked at."""

_LEAST_TABLE = 1 << 12
"""Entries of the largest table from which products of matrices pay."""

_LEAST_MATRIX = 1 << 4
"""Multiplications from which one product of matrices pays."""

_ADDED, _MULTIPLIED, _MOVED = 5.0, 0.1, 1.0
"""Costs of an entry: multiplied and added by itself, within a product of matrices, laid out for
one."""


class Operand(NamedTuple):
    """One table of a product.

    Attributes:
        source: Number of the array: stacks first, then the outputs of products.
        index: Which element of it, for each of G.
        axes: For each axis of the table, the variable of the product that it belongs to.
    """

    source: int
    index: Int[np.ndarray, " G"]
    axes: tuple[int, ...]


class Roles(NamedTuple):
    """The variables of a product of matrices.

    Attributes:
        batch: Those that both sides and the output have.
        rows: Those of the left side and the output.
        columns: Those of the right side and the output.
        summed: Those that are summed out, which both sides have.
    """

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    summed: tuple[int, ...]


class Product(NamedTuple):
    r"""Variables that are summed out of a product of tables, cut in two.

    \[ m(s) = \sum_v X(v, s_X) Y(v, s_Y) \]

    Attributes:
        operands: The tables, each with G elements.
        cards: Number of states of each variable.
        summed: The first so many variables are summed out; the others are the output's axes.
        left: Numbers of the operands whose product is X.
        right: Numbers of the operands whose product is Y; none where X is all there is.
        matrix: Whether the sum is a product of matrices.
        output: Number of the array that comes out.
    """

    operands: tuple[Operand, ...]
    cards: tuple[int, ...]
    summed: int
    left: tuple[int, ...]
    right: tuple[int, ...]
    matrix: bool
    output: int

    def scope(self, side: Sequence[int]) -> tuple[int, ...]:
        """Return the variables of some operands together."""
        return tuple(sorted({axis for i in side for axis in self.operands[i].axes}))

    @property
    def roles(self) -> Roles:
        """Return what each variable is in a product of matrices."""
        x, y = self.scope(self.left), self.scope(self.right)
        return Roles(
            tuple(a for a in x if a in y and a >= self.summed),
            tuple(a for a in x if a not in y),
            tuple(a for a in y if a not in x),
            tuple(range(self.summed)),
        )


@lru_cache(maxsize=256)
def products_of(plan: Plan) -> tuple[Product, ...] | None:
    """Return the steps of a plan as products, None where sums on the logarithmic scale are better.

    They are where all tables are small, in loops, and where many tables meet in one step.

    Steps that take nothing but the message of one step before, and tables of the same variables,
    are one with it where that is cheaper: two variables are then summed out together, and the
    table between them is never made.

    Args:
        plan: How a connected graph is summed out.

    Example:
        >>> from deepgen_ppl.contraction import plan_of
        >>> plan = plan_of([20, 20, 20, 20], [(0, 1, 2), (0, 2, 3), (1, 3)])
        >>> first, *_ = products_of(plan) or ()
        >>> first.cards, first.summed, first.left, first.right, first.matrix
        ((20, 20, 20, 20), 1, (0, 2), (1,), True)
    """
    if plan.cost.largest < _LEAST_TABLE:
        return None
    found: dict[int, Product] = {}
    for step in plan.steps:
        if isinstance(step, Loop):
            return None
        operands = _operands(step)
        if len(operands) > _MOST_OPERANDS:
            return None
        product, cost = _split(operands, step.cards, 1, step.output)
        whole = [i for i, o in enumerate(operands)
                 if o.source in found and _is_whole(o, step, found[o.source])]  # fmt: skip
        for i in whole:
            before = found[operands[i].source]
            others = [o._replace(axes=tuple(a + before.summed for a in o.axes))
                      for j, o in enumerate(operands) if j != i]  # fmt: skip
            together = (*before.operands, *others)
            if len(together) > _MOST_OPERANDS:
                continue
            joined, less = _split(together, before.cards, before.summed + 1, step.output)
            if less < cost + _cost(before):
                del found[operands[i].source]
                product = joined
            break
        found[step.output] = product
    return tuple(found.values())


def _operands(step: Step) -> tuple[Operand, ...]:
    return tuple(
        Operand(slot.source, index, slot.axes) for slot in step.slots for index in slot.index
    )


def _is_whole(operand: Operand, step: Step, source: Product) -> bool:
    """Tell whether an operand has all variables of a step, and all elements of its source in order.

    An element that the step leaves out is another step's, which needs it by itself.
    """
    every = np.arange(len(source.operands[0].index))
    same = np.array_equal(operand.index, every) and len(every) == step.variables.shape[-1]
    return same and operand.axes == tuple(range(len(step.cards)))


def _split(
    operands: tuple[Operand, ...], cards: tuple[int, ...], summed: int, output: int
) -> tuple[Product, float]:
    """Return the cheapest way to cut the operands in two."""
    numbers = range(len(operands))
    whole = Product(operands, cards, summed, tuple(numbers), (), False, output)
    best, least = whole, _cost(whole)
    for size in range(1, len(operands) // 2 + 1):
        for right in combinations(numbers, size):
            left = tuple(i for i in numbers if i not in right)
            cut = whole._replace(left=left, right=right)
            for matrix in (False, True):
                cost = _cost(cut._replace(matrix=matrix))
                if cost < least:
                    best, least = cut._replace(matrix=matrix), cost
    return best, least


def _cost(product: Product) -> float:
    """Return what a product costs, about, in entries."""
    cards, summed = product.cards, product.summed
    scopes = [set(product.scope(side)) for side in (product.left, product.right) if side]
    sizes = [math.prod(cards[a] for a in scope) for scope in scopes]
    sides = [product.left, product.right][: len(scopes)]
    merged = sum(size * (len(side) - 1) for size, side in zip(sizes, sides, strict=True))
    total = math.prod(cards)
    if not product.matrix:
        return merged + _ADDED * total * len(scopes)
    if set(range(summed)) - (scopes[0] & scopes[1]):
        return math.inf  # a variable of one side alone is summed out of it
    shared = {a for a in scopes[0] & scopes[1] if a >= summed}
    batch = math.prod(cards[a] for a in shared)
    if total // batch < _LEAST_MATRIX:
        return math.inf
    output = math.prod(cards[summed:])
    return merged + _MULTIPLIED * total + _MOVED * (sum(sizes) + output)


# --------------------------------------------------------------------- parts that need logarithms


def few(
    tables: Sequence[Float[np.ndarray, "*shape M"]], chosen: Int[np.ndarray, " n"]
) -> list[np.ndarray]:
    """Return the tables of some parts, the last one repeated up to a power of two, two at least.

    Example:
        >>> [table.tolist() for table in few([np.arange(5), np.zeros(1)], np.array([1, 2, 4]))]
        [[1, 2, 4, 4], [0.0]]
    """
    size = 1 << max(1, (len(chosen) - 1).bit_length())
    filled = chosen[np.minimum(np.arange(size), len(chosen) - 1)]
    return [table[..., filled] if table.shape[-1] > 1 else table for table in tables]


def patched(
    values: Float[np.ndarray, "*shape M"],
    better: Float[np.ndarray, "*shape n"],
    chosen: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "*shape M"]:
    """Return values with those of some parts replaced.

    Example:
        >>> patched(np.zeros(4), np.array([1.0, 2.0, 2.0, 2.0]), np.array([0, 3])).tolist()
        [1.0, 0.0, 0.0, 2.0]
    """
    found = np.array(values)
    found[..., chosen] = better[..., : len(chosen)]
    return found
