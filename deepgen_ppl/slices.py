"""Steps of a contraction that are unlike each other, laid out as few loops over equal slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.plans import Plan, Slot, Step
from deepgen_ppl.products import products_of

_MANY_STEPS = 150
"""Steps from which compiling them one by one takes longer than anything that comes of it."""

_SOME_STEPS, _FEW_PARTS = 6, 64
"""Steps from which it does where there are so few parts."""

_MOST_ENTRIES, _MOST_PLACES, _MOST_READ = 1 << 21, 1 << 25, 1 << 27
"""Entries of tables, places, and places times parts up to which wide tables are left to slices."""

_WASTE = 1 << 14
"""Entries of padding that cost less than compiling a loop of its own."""

ZERO, NOTHING = 0, 1
"""Places of the number zero and of minus infinity."""


class Slices(NamedTuple):
    """Variables that are summed out in one loop, G of them in each of L repetitions.

    Every number of a contraction has its place in one array: zero and minus infinity, then the
    entries of the stacks, then the messages as they come. What a variable is summed out of is then
    n places for each of its K states and each of S states of the others, whatever its tables are;
    where it has fewer, places of zero and of minus infinity fill it up.

    Attributes:
        places: Where the entries stand that are added up.
        outputs: First place of the messages of each repetition.
        variables: The variables summed out; the number of variables stands for none.
        others: The other variables.
        strides: What each state of the others counts in S; 0 for none.
    """

    places: Int[np.ndarray, "L n K G S"]
    outputs: Int[np.ndarray, " L"]
    variables: Int[np.ndarray, "L G"]
    others: Int[np.ndarray, "L w G"]
    strides: Int[np.ndarray, "L w G"]


class Layout(NamedTuple):
    """How a plan is carried out as loops over slices.

    Attributes:
        size: Number of places.
        starts: First place of each stack, whose entries follow each other in order.
        loops: The loops.
        last: Place of the last message, the log of the sum.
    """

    size: int
    starts: tuple[int, ...]
    loops: tuple[Slices, ...]
    last: int


def layout_of(plan: Plan, num_parts: int | None = None) -> Layout | None:
    """Return how a plan of many unlike steps is laid out, None where it runs step by step.

    Loops over slices compile in a second or two, however many steps there are; step by step it runs
    faster, and compiling takes about a tenth of a second a step. For many parts or large tables,
    products of matrices are faster by more than they take to compile.

    Args:
        plan: How a graph is summed out.
        num_parts: How many parts it is summed out for, None where that is done often.

    Example:
        >>> from deepgen_ppl.contraction import plan_of
        >>> layout_of(plan_of([2] * 100, [(i, i + 1) for i in range(99)]), 1) is None
        True
    """
    few = num_parts is not None and num_parts <= _FEW_PARTS
    unlike = sum(isinstance(step, Step) for step in plan.steps)
    if unlike < (_SOME_STEPS if few else _MANY_STEPS):
        return None
    if products_of(plan) is None:
        return laid_out(plan)
    if not few or plan.cost.entries > _MOST_ENTRIES:
        return None
    layout = laid_out(plan)
    places = sum(loop.places.size for loop in layout.loops)
    small = places <= _MOST_PLACES and places * (num_parts or 1) <= _MOST_READ
    return layout if small else None


@lru_cache(maxsize=4)
def laid_out(plan: Plan) -> Layout:
    """Return how a plan is laid out.

    Args:
        plan: How a graph is summed out.

    Example:
        >>> from deepgen_ppl.contraction import plan_of
        >>> layout = laid_out(plan_of([2] * 3, [(0, 1), (1, 2)]))
        >>> layout.size, [loop.places.shape for loop in layout.loops]
        (22, [(3, 3, 2, 1, 2)])
    """
    sizes = [math.prod(stack.cards) * len(stack.members) for stack in plan.stacks]
    starts = [2, *(2 + np.cumsum(sizes)).tolist()]
    size, found = starts.pop(), []
    at = {  # of each array: places of its elements' first entries, and how far apart entries are
        number: (start + np.arange(len(stack.members)), len(stack.members))
        for number, (start, stack) in enumerate(zip(starts, plan.stacks, strict=True))
    }
    for levels in _segments(_levels(plan)):
        loop = _filled(levels, at, size, len(plan.cards))
        found.append(loop)
        size += len(loop.outputs) * math.prod(loop.places.shape[3:])
    return Layout(size, tuple(starts), tuple(found), int(found[-1].outputs[-1]))


def _unrolled(plan: Plan) -> Iterator[Step]:
    """Yield the steps of a plan, those of its loops one repetition after the other."""
    fresh = -1
    for step in plan.steps:
        if isinstance(step, Step):
            yield step
            continue
        latest = {s.output: first for s, first in zip(step.steps, step.initial, strict=True)}
        for number in range(step.length):
            for own in step.steps:
                slots = [Slot(latest.get(slot.source, slot.source), slot.index[number], slot.axes)
                         for slot in own.slots]  # fmt: skip
                output = own.output if number == step.length - 1 else fresh
                yield Step(
                    tuple(slots), own.cards, own.variables[number], own.others[number], output
                )
                latest[own.output], fresh = output, fresh - 1


def _levels(plan: Plan) -> list[list[Step]]:
    """Return the steps in groups, each of which needs the ones before it only."""
    level: dict[int, int] = {}
    found: list[list[Step]] = []
    for step in _unrolled(plan):
        level[step.output] = at = 1 + max(level.get(slot.source, -1) for slot in step.slots)
        found += [[] for _ in range(at + 1 - len(found))]
        found[at].append(step)
    return found


def _shape(level: Sequence[Step]) -> tuple[int, int, int, int]:
    """Return n, K, G and S of the slice that has room for some steps."""
    return (
        max(sum(len(slot.index) for slot in step.slots) for step in level),
        max(step.cards[0] for step in level),
        sum(len(step.variables) for step in level),
        max(math.prod(step.cards[1:]) for step in level),
    )


def _segments(levels: Sequence[list[Step]]) -> list[list[list[Step]]]:
    """Put levels that follow each other together where little room is wasted."""
    found: list[list[list[Step]]] = []
    shape = (0, 0, 0, 0)
    for level in levels:
        own = _shape(level)
        both = tuple(map(max, shape, own))
        count = len(found[-1]) if found else 0
        waste = math.prod(both) * (count + 1) - math.prod(shape) * count - math.prod(own)
        if count and waste <= _WASTE:
            found[-1].append(level)
            shape = both
        else:
            found.append([level])
            shape = own
    return found


def _filled(
    levels: Sequence[list[Step]], at: dict[int, tuple[np.ndarray, int]], first: int, none: int
) -> Slices:
    """Return the loop over some levels, and note where its messages stand."""
    shapes = [_shape(level) for level in levels]
    n, states, width, size = map(max, zip(*shapes, strict=True))
    count, rank = len(levels), max(len(step.cards) - 1 for level in levels for step in level)
    places = np.full((count, n, states, width, size), ZERO, np.int32)
    places[:, 0] = NOTHING
    outputs = first + width * size * np.arange(count)
    variables = np.full((count, width), none, np.int32)
    others = np.zeros((count, rank, width), np.int32)
    strides = np.zeros((count, rank, width), np.int32)
    for number, level in enumerate(levels):
        begin = 0
        for step in level:
            end = begin + len(step.variables)
            inside = places[number, :, : step.cards[0], begin:end, : math.prod(step.cards[1:])]
            inside[:] = ZERO
            _fill(inside, step, at)
            at[step.output] = (outputs[number] + size * np.arange(begin, end), 1)
            variables[number, begin:end] = step.variables
            others[number, : len(step.others), begin:end] = step.others
            steps = [math.prod(step.cards[2 + i :]) for i in range(len(step.others))]
            strides[number, : len(steps), begin:end] = np.array(steps, int)[:, None]
            begin = end
    return Slices(places, outputs.astype(np.int32), variables, others, strides)


def _fill(
    places: Int[np.ndarray, "n K G S"], step: Step, at: dict[int, tuple[np.ndarray, int]]
) -> None:
    """Write where the entries of one step stand."""
    states = np.indices(step.cards).reshape(len(step.cards), step.cards[0], -1)
    row = 0
    for slot in step.slots:
        starts, apart = at[slot.source]
        entry = np.zeros(states.shape[1:], int)
        for axis in slot.axes:
            entry = entry * step.cards[axis] + states[axis]
        chosen = starts[slot.index]  # n, G
        places[row : row + len(chosen)] = chosen[:, None, :, None] + apart * entry[:, None]
        row += len(chosen)
