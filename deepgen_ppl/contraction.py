"""How a factor graph is summed out: alike connected parts, batched levels, loops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.elimination import Cost, Scope, best_order

_LEAST_LOOP = 8
"""Repetitions from which equal steps run as a loop."""

_LONGEST_PERIOD = 4
"""Steps that a loop's body may have."""


_CACHED = 1 << 18
"""Entries of tables that are summed out at once, about."""

_KEPT = 1 << 26
"""Entries of tables that are kept for the way back, about."""

_LEAST_CHUNK, _MOST_CHUNK = 8, 1024


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


def plan_of(
    cards: Sequence[int], scopes: Sequence[Scope], seconds: float = 1.0, seed: int = 0
) -> Plan:
    """Plan the summing out of one connected graph.

    Steps that do not need each other and have tables of equal shapes are one step over all of them;
    steps that follow each other and are alike are a loop, so that a chain of any length is one.

    Args:
        cards: Number of states of each variable.
        scopes: Variables of each factor, none twice in one.
        seconds: Time for finding an order.
        seed: Seed of random orders.

    Example:
        >>> chain = plan_of([2] * 100, [(i, i + 1) for i in range(99)])
        >>> [type(step).__name__ for step in chain.steps]
        ['Step', 'Loop', 'Step']
    """
    order, cost = best_order(cards, scopes, seconds, seed)
    stacks, tables = _stacks(cards, scopes)
    levels = _batched(_buckets(order, cards, scopes, tables), len(stacks))
    return Plan(tuple(cards), tuple(scopes), tuple(stacks), tuple(_looped(levels)), cost)


def groups_of(
    cards: Int[np.ndarray, " D"],
    scopes: Sequence[Int[np.ndarray, "n s"]],
    seconds: float = 1.0,
    plans: dict | None = None,
) -> list[Group]:
    """Split a factor graph into its connected parts and plan each kind of them once.

    Args:
        cards: Number of states of each variable.
        scopes: Variables of the factors, those with equally many in one array; factors are numbered
            through all arrays.
        seconds: Time for finding orders.
        plans: Plans of before, which are taken where the parts are the same, and added to.

    Returns:
        The groups of parts; every variable stands in one of them, and every factor that has one.

    Example:
        >>> pairs = np.array([[0, 1], [2, 3], [4, 5]])
        >>> [(len(g.variables), g.plan.cost.width) for g in groups_of(np.full(6, 2), [pairs])]
        [(3, 1)]
    """
    plans = {} if plans is None else plans
    parts: dict[tuple, list[tuple[np.ndarray, np.ndarray]]] = {}
    for variables, factors, local in _parts(cards, scopes):
        key = (tuple(cards[variables].tolist()), tuple(local))
        parts.setdefault(key, []).append((variables, factors))
    found = []
    share = seconds / max(len(parts), 1)
    for key, members in parts.items():
        if key not in plans:
            plans[key] = plan_of(*key, seconds=max(share, 0.02))
        variables, factors = (np.stack(part) for part in zip(*members, strict=True))
        found.append(Group(plans[key], variables, factors))
    return found


# ------------------------------------------------------------------------------------- parts


def _parts(
    cards: np.ndarray, scopes: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Scope]]]:
    """Yield variables, factors and renumbered scopes of each connected part."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(cards)
    pairs = [np.stack([s[:, :1].repeat(s.shape[1] - 1, 1), s[:, 1:]]).reshape(2, -1)
             for s in scopes if s.shape[1] > 1]  # fmt: skip
    rows, cols = np.concatenate(pairs, 1) if pairs else np.zeros((2, 0), int)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, cols)), (size, size))
    _, label = connected_components(graph, directed=False)
    by_part = np.argsort(label, kind="stable")
    sizes = np.bincount(label)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    place = np.empty(size, int)  # of each variable within its part
    place[by_part] = np.arange(size) - starts[label[by_part]]
    owners, locals_, numbers, first = [], [], [], 0
    for scope in scopes:
        if scope.shape[1]:
            owners.append(label[scope[:, 0]])
            locals_ += list(map(tuple, place[scope].tolist()))
            numbers.append(np.arange(first, first + len(scope)))
        first += len(scope)
    owner = np.concatenate(owners) if owners else np.zeros(0, int)
    number = np.concatenate(numbers) if numbers else np.zeros(0, int)
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(sizes) + 1))
    for part in range(len(sizes)):
        chosen = order[ends[part] : ends[part + 1]]
        # Factors of one part in an order that alike parts share.
        chosen = sorted(chosen.tolist(), key=lambda i: (locals_[i], i))
        variables = by_part[starts[part] : starts[part + 1]]
        yield variables, number[chosen], [locals_[i] for i in chosen]


# ------------------------------------------------------------------------------------- steps


class _Input(NamedTuple):
    """A table in a bucket: where it stands and its variables."""

    source: int
    element: int
    scope: Scope


class _Bucket(NamedTuple):
    """One variable with all that is summed out with it."""

    variable: int
    others: Scope
    inputs: tuple[_Input, ...]
    cards: tuple[int, ...]
    level: int


def _stacks(
    cards: Sequence[int], scopes: Sequence[Scope]
) -> tuple[list[Stack], list[tuple[int, int, Scope]]]:
    """Return stacks of tables of equal shape, and the stack, place and scope of each table."""
    members: dict[tuple, list[int]] = {}
    places: list[tuple[tuple, int, Scope]] = []
    for number, scope in enumerate(scopes):
        key = (tuple(cards[v] for v in scope), False)
        places.append((key, len(members.setdefault(key, [])), scope))
        members[key].append(number)
    for v, card in enumerate(cards):
        key = ((card,), True)
        places.append((key, len(members.setdefault(key, [])), (v,)))
        members[key].append(v)
    stacks = [Stack(key[0], np.array(found), key[1]) for key, found in members.items()]
    numbers = {key: i for i, key in enumerate(members)}
    return stacks, [(numbers[key], place, scope) for key, place, scope in places]


def _buckets(
    order: Sequence[int],
    cards: Sequence[int],
    scopes: Sequence[Scope],
    tables: Sequence[tuple[int, int, Scope]],
) -> list[_Bucket]:
    """Return what is summed out with each variable; inputs of a bucket before it are `-1 - b`."""
    rank = {v: i for i, v in enumerate(order)}
    waiting: list[list[tuple[_Input, int]]] = [[] for _ in cards]
    for stack, place, scope in tables:
        if scope:
            first = min(scope, key=rank.__getitem__)
            waiting[first].append((_Input(stack, place, scope), 0))
    found: list[_Bucket] = []
    for v in order:
        inputs = [entry for entry, _ in waiting[v]]
        level = max((level for _, level in waiting[v]), default=0)
        others = sorted({u for entry in inputs for u in entry.scope} - {v}, key=rank.__getitem__)
        shape = tuple(cards[u] for u in (v, *others))
        found.append(_Bucket(v, tuple(others), tuple(inputs), shape, level))
        if others:
            made = _Input(-len(found), 0, tuple(others))
            waiting[others[0]].append((made, level + 1))
    return found


def _batched(buckets: Sequence[_Bucket], num_stacks: int) -> list[Step]:
    """Put buckets of one level whose tables are alike into one step."""
    steps: list[Step] = []
    place: dict[int, tuple[int, int]] = {}  # output array and element of each bucket
    levels: dict[int, list[int]] = {}
    for number, bucket in enumerate(buckets):
        levels.setdefault(bucket.level, []).append(number)
    for level in sorted(levels):
        alike: dict[tuple, list[tuple[int, list[list[int]]]]] = {}
        for number in levels[level]:
            bucket = buckets[number]
            local = {v: i for i, v in enumerate((bucket.variable, *bucket.others))}
            inputs: dict[tuple[tuple[int, ...], int], list[int]] = {}
            for entry in bucket.inputs:
                source, element = entry.source, entry.element
                if source < 0:
                    source, element = place[-source - 1]
                axes = tuple(local[u] for u in entry.scope)
                inputs.setdefault((axes, source), []).append(element)
            kinds = sorted(inputs)
            key = (bucket.cards, tuple((kind, len(inputs[kind])) for kind in kinds))
            alike.setdefault(key, []).append((number, [inputs[kind] for kind in kinds]))
        for (cards, kinds), members in alike.items():
            output = num_stacks + len(steps)
            slots = tuple(
                Slot(source, np.array([elements[i] for _, elements in members]).T, axes)
                for i, ((axes, source), _) in enumerate(kinds)
            )
            variables = np.array([buckets[number].variable for number, _ in members])
            others = np.array([buckets[number].others for number, _ in members], int)
            steps.append(Step(slots, cards, variables, others.reshape(len(members), -1).T, output))
            place |= {number: (output, i) for i, (number, _) in enumerate(members)}
    return steps


def _looped(steps: list[Step]) -> list[Step | Loop]:
    """Fold steps that repeat into loops."""
    first_output = steps[0].output if steps else 0
    users: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in step.slots:
            users[slot.source] = max(users.get(slot.source, 0), number)
    found: list[Step | Loop] = []
    at = 0
    while at < len(steps):
        best = (0, 1)
        for period in range(1, _LONGEST_PERIOD + 1):
            count = _repetitions(steps, at, period, first_output, users)
            if count >= _LEAST_LOOP and count * period > best[0] * best[1]:
                best = (count, period)
        count, period = best
        if count:
            found.append(_loop(steps[at : at + count * period], period, first_output))
            at += count * period
        else:
            found.append(steps[at])
            at += 1
    return found


def _repetitions(
    steps: list[Step], at: int, period: int, first_output: int, users: dict[int, int]
) -> int:
    """Return how often the steps from a place on repeat with a period."""
    at_end = at
    while at_end + period < len(steps) and _same(steps, at_end, period, first_output):
        at_end += 1
    count = (at_end - at) // period + 1 if at_end > at else 0
    # Outputs that are needed later than one repetition on would be lost.
    while count >= _LEAST_LOOP:
        inside = range(at, at + (count - 1) * period)
        late = [i for i in inside if users.get(steps[i].output, i) > i + period]
        if not late:
            return count
        count = (late[0] - at) // period
    return 0


def _same(steps: list[Step], i: int, period: int, first_output: int) -> bool:
    """Tell whether a step and the one a period on differ in their indices only."""
    one, other = steps[i], steps[i + period]
    if one.cards != other.cards or len(one.slots) != len(other.slots):
        return False
    if len(one.variables) != len(other.variables):
        return False
    for a, b in zip(one.slots, other.slots, strict=True):
        if a.axes != b.axes or (a.source < first_output) != (b.source < first_output):
            return False
        if a.index.shape != b.index.shape:
            return False
        carried = b.source >= first_output
        if b.source - a.source != (period if carried else 0):
            return False
        if carried and (not np.array_equal(a.index, b.index) or other.output - b.source > period):
            return False
    return True


def _loop(steps: list[Step], period: int, first_output: int) -> Loop:
    """Return steps that repeat as a loop; the outputs of its last repetition are known outside."""
    length = len(steps) // period
    body, initial = [], []
    last = {i: steps[(length - 1) * period + i].output for i in range(period)}
    start = steps[0].output
    for i in range(period):
        copies = steps[i::period]
        slots = []
        for number, slot in enumerate(copies[0].slots):
            index = np.stack([copy.slots[number].index for copy in copies])
            source = slot.source
            if source >= first_output:
                source = last[(source - start) % period]
            slots.append(Slot(source, index, slot.axes))
        needed = [s.source for copy in steps[:period] for s in copy.slots
                  if s.source >= first_output and s.source < start
                  and (s.source - start) % period == i]  # fmt: skip
        initial.append(needed[0] if needed else -1)
        body.append(
            Step(
                tuple(slots),
                copies[0].cards,
                np.stack([copy.variables for copy in copies]),
                np.stack([copy.others for copy in copies]),
                last[i],
            )
        )
    return Loop(tuple(body), tuple(initial), length)
