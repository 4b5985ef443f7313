"""Planning how a factor graph is summed out: alike connected parts, batched levels, loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.elimination import Scope, best_order
from deepgen_ppl.loops import looped
from deepgen_ppl.plans import Group, Plan, Slot, Stack, Step


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
    return Plan(tuple(cards), tuple(scopes), tuple(stacks), tuple(looped(levels)), cost)


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
