"""Summing out factor graphs as their plans say: log sums, best states, exact draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from deepgen_ppl.plans import Loop, Plan, Step


def log_sum(plan: Plan, tables: Sequence[Tensor]) -> Float[Tensor, " M"]:
    r"""Return the log of the sum, over all states, of the product of all tables.

    \[ \log Z = \log \sum_x \exp \sum_f \phi_f(x_f) \]

    Its gradient with respect to a table of single parts is the marginal distribution of the
    variables of that table. Tables are on the logarithmic scale, minus infinity among them, and
    every message is shifted to a largest entry near zero, so that nothing underflows.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack, `(*cards, G, M)`; M may be 1 where all parts share them.
    """
    return _forward(plan, tables, _log_sum_exp)[1]


def best(plan: Plan, tables: Sequence[Tensor]) -> tuple[Int[Tensor, "d M"], Float[Tensor, " M"]]:
    """Return the most probable states of all variables together, and their sum of tables.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack.
    """
    tape, value = _forward(plan, tables, None)
    states = _backward(plan, tape, lambda scores: scores.argmax(0), 1, len(value))
    return states[:, 0], value


def draw(
    plan: Plan, tables: Sequence[Tensor], num_samples: int, generator: Generator
) -> Int[Tensor, "S d M"]:
    """Draw all variables together, exactly: forwards sums, and states drawn on the way back.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack.
        num_samples: number S of draws.
        generator: draws them.
    """
    tape, value = _forward(plan, tables, _log_sum_exp)
    least = torch.finfo(tables[0].dtype).tiny

    def pick(scores: Tensor) -> Tensor:
        waiting = torch.empty_like(scores, memory_format=torch.contiguous_format)
        waiting = waiting.exponential_(generator=generator).clamp_min_(least)
        return (scores - waiting.log_()).argmax(0)

    return _backward(plan, tape, pick, num_samples, len(value)).transpose(0, 1)


# ------------------------------------------------------------------------------------- forwards

_Reduce = Callable[[Tensor, Tensor], Tensor] | None
"""What a table's first axis has beyond its largest entry; None where this is all that counts."""


class _Taken(NamedTuple):
    """One step as it was carried out: what was summed out, and from which aligned tables."""

    variables: Int[Tensor, " G"]
    others: Int[Tensor, "n G"]
    parts: list[Tensor]


def _forward(
    plan: Plan, tables: Sequence[Tensor], reduce: _Reduce
) -> tuple[list[_Taken], Float[Tensor, " M"]]:
    """Return the steps as they were carried out, one after the other, and the sum."""
    device = tables[0].device
    arrays, shifts, tape = _Arrays(plan, tables), [], []
    for position, step in enumerate(plan.steps):
        if isinstance(step, Loop):
            tape += _run_loop(step, position, arrays, reduce, shifts)
            continue
        parts = [_aligned(arrays.elements(position, 0, i), slot.axes, len(step.cards))
                 for i, slot in enumerate(step.slots)]  # fmt: skip
        arrays.put(step.output, _summed(parts, reduce, shifts))
        tape.append(_Taken(_places(step.variables, device), _places(step.others, device), parts))
    width = max(table.shape[-1] for table in tables)
    shift = torch.cat([part.expand(-1, width) for part in shifts]).sum(0)
    return tape, arrays.whole[_body(plan.steps[-1])[-1].output].sum(0) + shift


def _summed(parts: Sequence[Tensor], reduce: _Reduce, shifts: list[Tensor]) -> Tensor:
    """Sum the first axis out of the sum of tables; the message is shifted to about zero."""
    total = _added(parts)
    top = total.detach().amax(0)
    axes = tuple(range(top.dim() - 2))
    shift = (top.amax(axes) if axes else top).clamp_min(torch.finfo(top.dtype).min)
    shifts.append(shift)
    message = top - shift
    return message if reduce is None else message + reduce(total, top)


def _added(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of aligned tables, the smallest first."""
    tables = sorted(parts, key=Tensor.numel)
    total = tables[0]
    for table in tables[1:]:
        total = total + table
    return total


def _log_sum_exp(total: Tensor, top: Tensor) -> Tensor:
    """Return the log of the sum along the first axis less its largest entry.

    The mass is at least one, or zero where all entries are minus infinity; there one is added, so
    that values and derivatives of all orders are finite.
    """
    mass = (total - top.clamp_min(torch.finfo(top.dtype).min)).exp().sum(0)
    return (mass + (1.0 - mass.detach()).clamp_min(0.0)).log()


def _aligned(table: Tensor, axes: tuple[int, ...], rank: int) -> Tensor:
    """Return a table with an axis for each variable of a step, in order."""
    own = len(axes)
    if any(axes[i] > axes[i + 1] for i in range(own - 1)):
        order = sorted(range(own), key=axes.__getitem__)
        table = table.permute(*order, own, own + 1)
    if own == rank:
        return table
    sizes = iter(table.shape)
    shape = [next(sizes) if axis in axes else 1 for axis in range(rank)]
    return table.reshape(*shape, *table.shape[-2:])


def _run_loop(
    loop: Loop, position: int, arrays: _Arrays, reduce: _Reduce, shifts: list[Tensor]
) -> list[_Taken]:
    """Run a loop; tables from outside are cut into those of each repetition before."""
    device = arrays.whole[0].device
    through = _loop_inputs(loop, position, arrays)
    sizes = {step.output: step.variables.shape[1] for step in loop.steps}
    now = {step.output: arrays.whole[initial][..., : sizes[step.output], :]
           for step, initial in zip(loop.steps, loop.initial, strict=True)
           if initial >= 0}  # fmt: skip
    places = [(_places(step.variables, device).unbind(), _places(step.others, device).unbind())
              for step in loop.steps]  # fmt: skip
    carried = {(number, i): None if _whole(slot.index[0], sizes[slot.source])
               else _places(slot.index[0].reshape(-1), device)
               for number, step in enumerate(loop.steps) for i, slot in enumerate(step.slots)
               if slot.source in sizes}  # fmt: skip
    tape = []
    for t in range(loop.length):
        for number, step in enumerate(loop.steps):
            parts = []
            for i, slot in enumerate(step.slots):
                if slot.source not in sizes:
                    parts.append(through[number, i][t])
                    continue
                index, part = carried[number, i], now[slot.source]
                part = part if index is None else part.index_select(-2, index)
                part = _gathered(part, slot.index.shape[1:])
                parts.append(_aligned(part, slot.axes, len(step.cards)))
            now[step.output] = _summed(parts, reduce, shifts)
            variables, others = places[number]
            tape.append(_Taken(variables[t], others[t], parts))
    for number, array in now.items():
        arrays.put(number, array)
    return tape


def _loop_inputs(
    loop: Loop, position: int, arrays: _Arrays
) -> dict[tuple[int, int], Sequence[Tensor]]:
    """Return, for each table of a loop that comes from outside, those of each repetition."""
    own = {step.output for step in loop.steps}
    through: dict[tuple[int, int], Sequence[Tensor]] = {}
    for number, step in enumerate(loop.steps):
        for i, slot in enumerate(step.slots):
            if slot.source not in own:
                table = _aligned(arrays.elements(position, number, i), slot.axes, len(step.cards))
                through[number, i] = table.unflatten(-2, (loop.length, -1)).unbind(-3)
    return through


# ------------------------------------------------------------------------------------- elements

_Use = tuple[tuple[int, int, int], np.ndarray]
"""Place of a slot (step of the plan, step of a loop's body, slot), and the elements it takes."""


class _Arrays:
    """The arrays of a plan, each cut once into the elements that steps take."""

    def __init__(self, plan: Plan, tables: Sequence[Tensor]) -> None:
        self._uses = _uses(plan)
        self._elements: dict[tuple[int, int, int], Tensor] = {}
        self.whole: dict[int, Tensor] = {}
        for number, table in enumerate(tables):
            self.put(number, table)

    def put(self, number: int, array: Tensor) -> None:
        """Add an array."""
        self.whole[number] = array
        uses = self._uses.get(number, [])
        if uses:
            index = np.concatenate([index.reshape(-1) for _, index in uses])
            if not _whole(index, array.shape[-2]):
                array = array.index_select(-2, _places(index, array.device))
            pieces = array.split([index.size for _, index in uses], -2)
            for (place, index), piece in zip(uses, pieces, strict=True):
                self._elements[place] = _gathered(piece, index.shape)

    def elements(self, position: int, number: int, slot: int) -> Tensor:
        """Return what a slot takes, once; the repetitions of a loop one after the other."""
        return self._elements.pop((position, number, slot))


@lru_cache(maxsize=256)
def _uses(plan: Plan) -> dict[int, list[_Use]]:
    """Return the slots that take elements of each array."""
    uses: dict[int, list[_Use]] = {}
    for position, step in enumerate(plan.steps):
        own = {one.output for one in _body(step)} if isinstance(step, Loop) else set()
        for number, one in enumerate(_body(step)):
            for i, slot in enumerate(one.slots):
                if slot.source not in own:
                    use = (position, number, i), slot.index
                    uses.setdefault(slot.source, []).append(use)
    return uses


def _body(step: Step | Loop) -> tuple[Step, ...]:
    return step.steps if isinstance(step, Loop) else (step,)


def _gathered(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Add up the n elements that belong to one, `(..., L * n * G, M)` to `(..., L * G, M)`."""
    *length, count, width = shape
    if count == 1:
        return table
    return table.unflatten(-2, (*length, count, width)).sum(-3).flatten(-2 - len(length), -2)


def _whole(index: np.ndarray, size: int) -> bool:
    return index.size == size and np.array_equal(index.reshape(-1), np.arange(size))


def _places(index: np.ndarray, device: torch.device) -> Int[Tensor, "*shape"]:
    return torch.from_numpy(np.ascontiguousarray(index)).to(device)


# ------------------------------------------------------------------------------------ backwards

_Pick = Callable[[Tensor], Tensor]


def _backward(
    plan: Plan, tape: Sequence[_Taken], pick: _Pick, num_samples: int, width: int
) -> Int[Tensor, "d S M"]:
    """Choose the states of all variables, the last summed out first."""
    device = tape[0].parts[0].device
    states = torch.zeros((len(plan.cards), num_samples, width), dtype=torch.long, device=device)
    for variables, others, parts in reversed(tape):
        table = _added(parts)
        card, *cards, _, _ = table.shape
        scores = table.flatten(1, -3) if cards else table[:, None]
        scores = scores.unsqueeze(-2).expand(*scores.shape[:-1], num_samples, width)
        if scores.shape[1] > 1:
            place = torch.zeros((), dtype=torch.long, device=device)
            for axis, size in enumerate(cards):
                place = place * size + states[others[axis]] if size > 1 else place
            scores = scores.gather(1, place.expand(card, 1, *place.shape))
        states[variables] = pick(scores[:, 0])
    return states
