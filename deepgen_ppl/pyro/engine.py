"""Sums over factor graphs, NumPy in and out: in chunks of a plan's parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.plans import Plan, chunk_of
from deepgen_ppl.products import few, patched, products_of
from deepgen_ppl.pyro import contraction, linear

Tables = Sequence[np.ndarray]
"""Log tables of each stack of a plan, `(*cards, G, M)`; M is 1 where the parts share them."""

_CACHED = 1 << 23
"""Entries of tables that are summed out at once, about: enough to hide what calls cost."""

_Chunk = Callable[[list[Tensor], Tensor], tuple[list[Tensor], list[Tensor]]]
"""Tables and weights of a chunk to values of each part and sums over parts."""


def log_sums(plan: Plan, tables: Tables) -> Float[np.ndarray, " M"]:
    """Return the log of the sum over all states, for each part.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.

    Cost:
        One pass.
    """

    def chunk(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [contraction.log_sum(plan, tables)], []

    products = products_of(plan)
    if products is None:
        return _run(plan, tables, chunk)[0][0]

    def fast(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return list(linear.log_sum(products, tables)), []

    found, sound = _run(plan, tables, fast)[0]
    lost = np.flatnonzero(~sound)
    if not len(lost):
        return found
    return patched(found, _run(plan, few(tables, lost), chunk)[0][0], lost)


def marginals(
    plan: Plan, tables: Tables, wanted: Sequence[int], weights: np.ndarray | None = None
) -> tuple[Float[np.ndarray, " M"], list[np.ndarray]]:
    r"""Return the log sums, and the marginal distributions over the variables of some stacks.

    \[ p(x_f) = \frac{\partial \log Z}{\partial \phi_f(x_f)} \]

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        wanted: numbers of the stacks.
        weights: what the marginals of each part are multiplied by, ones by default.

    Returns:
        The log sums, and for each stack its marginals, of the shape of its tables: where parts
        share them, the sum over the parts. Parts of log sum minus infinity have marginals zero.

    Cost:
        Two to three times the sums alone; an alarm system of 37 variables takes about 20 µs a part
        in chunks of a thousand.
    """
    own = [number for number in wanted if tables[number].shape[-1] > 1 or num_parts(tables) == 1]

    def chunk(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        chosen = [tables[number].requires_grad_() for number in wanted]
        with torch.enable_grad():
            found = contraction.log_sum(plan, tables)
        weights = torch.where(found.isfinite(), weights, 0.0)
        slopes = torch.autograd.grad(found, chosen, weights) if chosen else ()
        pairs = list(zip(wanted, slopes, strict=True))
        return (
            [found.detach(), *(slope for number, slope in pairs if number in own)],
            [slope for number, slope in pairs if number not in own],
        )

    def whole() -> tuple[list[np.ndarray], list[np.ndarray]]:
        return _run(plan, tables, chunk, weights)

    products = products_of(plan)
    if products is None:
        (found, *each), summed = whole()
    else:

        def fast(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            sums, slopes = linear.marginals(products, tables, wanted, weights)
            pairs = list(zip(wanted, slopes, strict=True))
            return [*sums, *(s for n, s in pairs if n in own)], [
                s for n, s in pairs if n not in own
            ]

        (found, sound, *each), summed = _run(plan, tables, fast, weights)
        lost = np.flatnonzero(~sound)
        if len(lost) and (summed or len(lost) == len(sound)):
            (found, *each), summed = whole()
        elif len(lost):
            part = few(tables, lost), chunk, None if weights is None else few([weights], lost)[0]
            (more, *slopes), _ = _run(plan, *part)
            found = patched(found, more, lost)
            each = [patched(s, m, lost) for s, m in zip(each, slopes, strict=True)]
    parts, sums = iter(each), iter(summed)
    return found, [next(parts) if number in own else next(sums) for number in wanted]


def best(plan: Plan, tables: Tables) -> tuple[Int[np.ndarray, "d M"], Float[np.ndarray, " M"]]:
    """Return the most probable states of all variables together, and the sum of their tables.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
    """

    def chunk(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        states, value = contraction.best(plan, tables)
        return [states.int(), value], []

    states, value = _run(plan, tables, chunk)[0]
    return states, value


def draws(plan: Plan, tables: Tables, num_samples: int, seed: int) -> Int[np.ndarray, "S d M"]:
    """Return exact draws of all variables together.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        num_samples: number S of draws of each part.
        seed: seeds them.
    """
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)

    def chunk(tables: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [contraction.draw(plan, tables, num_samples, generator).int()], []

    return _run(plan, tables, chunk)[0][0]


def slopes(plan: Plan, tables: Tables, directions: Tables) -> Float[np.ndarray, " M"]:
    r"""Return how the log sums change where the tables move in a direction.

    \[ \frac{d}{dt} \log Z(\phi + t \delta) = \sum_f E_p[\delta_f(x_f)] \]

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        directions: a finite direction for each table, of the same shapes.

    Cost:
        Two to three times the sums alone, with tables of its own for each part.
    """
    count = len(tables)

    def chunk(both: list[Tensor], weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        step = torch.zeros_like(weights, requires_grad=True)
        with torch.enable_grad():
            moved = zip(both[:count], both[count:], strict=True)
            found = contraction.log_sum(plan, [table + step * move for table, move in moved])
        return list(torch.autograd.grad(found, step, weights)), []

    return _run(plan, [*tables, *directions], chunk)[0][0]


def num_parts(tables: Tables) -> int:
    """Return the number M of parts."""
    return max(table.shape[-1] for table in tables)


def _run(
    plan: Plan, tables: Tables, chunk: _Chunk, weights: np.ndarray | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Apply a function to chunks of the parts, and return NumPy arrays."""
    width = num_parts(tables)
    size = chunk_of(plan, width, _CACHED)
    weights = np.ones(width) if weights is None else weights
    parts: list[list[np.ndarray]] = []
    sums: list[np.ndarray] = []
    shared = [_tensor(table) if table.shape[-1] == 1 else None for table in tables]
    for start in range(0, width, size):
        at = slice(start, start + size)
        given = [_tensor(table[..., at]) if alone is None else alone.detach()
                 for table, alone in zip(tables, shared, strict=True)]  # fmt: skip
        with torch.no_grad():
            found, summed = chunk(given, _tensor(np.asarray(weights)[at]))
        parts.append([leaf.cpu().numpy() for leaf in found])
        more = [leaf.cpu().numpy() for leaf in summed]
        sums = [one + other for one, other in zip(sums, more, strict=True)] if sums else more
    return [np.concatenate(leaves, -1) for leaves in zip(*parts, strict=True)], sums


def _tensor(array: Any) -> Tensor:
    return torch.tensor(array, dtype=torch.get_default_dtype())
