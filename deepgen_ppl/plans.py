"""How a factor graph is summed out, as plain data: stacks of tables, steps, loops, groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.elimination import Cost, Scope

_CACHED = 1 << 18
"""Entries of tables that are summed out at once, about."""

_KEPT = 1 << 26
"""Entries of tables that are kept for the way back, about."""

_LEAST_CHUNK, _MOST_CHUNK = 8, 1024

_LONG_CHUNK = 128
"""Parts from which more at once pay for small tables only."""


class Slot(NamedTuple):
    """One input of a step: elements of an array, each with the axes of a table.

    Attributes:
        source: Number of the array: stacks first, then the outputs of steps.
        index: Which elements: the sum of n of them, for each of the G variables; in a loop for each
            repetition.
        axes: For each axis of a table, the variable of the step that it belongs to.
    """

    source: int
    index: Int[np.ndarray, "*L n G"]
    axes: tuple[int, ...]


class Step(NamedTuple):
    """Variables that are summed out at once, G of them, each with tables of its own.

    The variables of a step are numbered: 0 is the one that is summed out, the others are the axes
    of the output, in order.

    Attributes:
        slots: The tables that are added up, on the logarithmic scale.
        cards: Number of states of each variable of the step.
        variables: The variables summed out.
        others: The variables of the output's axes.
        output: Number of the array that comes out; within a loop, of its last repetition.
    """

    slots: tuple[Slot, ...]
    cards: tuple[int, ...]
    variables: Int[np.ndarray, "*L G"]
    others: Int[np.ndarray, "*L n G"]
    output: int


class Loop(NamedTuple):
    """Steps that repeat, each repetition taking what the one before gave.

    Attributes:
        steps: The steps of one repetition; their indices have a leading axis of repetitions. A slot
            whose source is the output of a step of the loop takes the latest such output.
        initial: For each step, the array that stands for its output before the first repetition;
            -1 where none is needed.
        length: Number of repetitions.
    """

    steps: tuple[Step, ...]
    initial: tuple[int, ...]
    length: int


class Stack(NamedTuple):
    """Tables of one shape.

    Attributes:
        cards: Shape of a table.
        members: Numbers of its factors, or of its variables where tables are of one variable each.
        unary: Whether these are the tables of single variables, in which evidence stands.
    """

    cards: tuple[int, ...]
    members: Int[np.ndarray, " G"]
    unary: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """How one connected factor graph is summed out.

    Every variable has a table of its own beside those of the factors; evidence stands in it, and
    the gradient with respect to it is the variable's marginal distribution.

    Attributes:
        cards: Number of states of each variable.
        scopes: Variables of each factor.
        stacks: The tables that go in.
        steps: What is done, in order. The last output is the log of the sum.
        cost: What that takes.
    """

    cards: tuple[int, ...]
    scopes: tuple[Scope, ...]
    stacks: tuple[Stack, ...]
    steps: tuple[Step | Loop, ...]
    cost: Cost

    @cached_property
    def key(self) -> tuple:
        """What two plans have in common that are carried out alike."""
        return (self.cards, self.scopes)

    def unary(self, variable: int) -> tuple[int, int]:
        """Return the stack and the place of a variable's own table."""
        for number, stack in enumerate(self.stacks):
            if stack.unary and variable in stack.members:
                return number, int(np.flatnonzero(stack.members == variable)[0])
        raise ValueError(f"there is no variable {variable}.")

    def table(self, factor: int) -> tuple[int, int]:
        """Return the stack and the place of a factor's table."""
        for number, stack in enumerate(self.stacks):
            if not stack.unary and factor in stack.members:
                return number, int(np.flatnonzero(stack.members == factor)[0])
        raise ValueError(f"there is no factor {factor}.")


def chunk_of(plan: Plan, num_parts: int, cached: int = _CACHED) -> int:
    """Return how many parts are summed out at once: as many as keep tables in the cache.

    Args:
        plan: How one part is summed out.
        num_parts: How many there are.
        cached: Entries of tables that may be at hand at once, about.
    """
    entries = kept = 0
    for step in plan.steps:  # a loop's tables are at hand one repetition at a time, and all kept
        for one in step.steps if isinstance(step, Loop) else (step,):
            entries += math.prod(one.cards) * one.variables.shape[-1]
            kept += math.prod(one.cards) * one.variables.size
    size = min(cached // max(entries, 1), _KEPT // max(kept, 1))
    size = min(size, max(_LONG_CHUNK, cached // (8 * max(entries, 1))))
    size = 1 << max(size.bit_length() - 1, 0)
    return min(max(size, _LEAST_CHUNK), _MOST_CHUNK, num_parts)


class Group(NamedTuple):
    """Connected parts of a factor graph that are alike.

    Attributes:
        plan: How one of them is summed out.
        variables: The variables of each, in the plan's numbering.
        factors: The factors of each, in the plan's numbering.
    """

    plan: Plan
    variables: Int[np.ndarray, "M d"]
    factors: Int[np.ndarray, "M f"]
