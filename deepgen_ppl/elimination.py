"""In which order to sum variables out of a factor graph, and what that costs."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

_MOST_TRIES = 200
"""Randomised orders that are tried beside the plain ones."""

_LARGE = 1 << 12
"""Entries of the largest table from which a better order is looked for at random."""


class Cost(NamedTuple):
    """What summing out the variables of one connected graph takes.

    Attributes:
        width: Induced width: variables of the largest table less one.
        largest: Entries of the largest table.
        entries: Entries of all tables together, which is what time grows with.
    """

    width: int
    largest: int
    entries: int


Scope = tuple[int, ...]


def neighbours(num_variables: int, scopes: Collection[Scope]) -> list[set[int]]:
    """Return the variables that share a factor with each variable.

    Example:
        >>> neighbours(3, [(0, 1), (1, 2)])
        [{1}, {0, 2}, {1}]
    """
    found: list[set[int]] = [set() for _ in range(num_variables)]
    for scope in scopes:
        for v in scope:
            found[v].update(scope)
    for v, others in enumerate(found):
        others.discard(v)
    return found


def cost_of(order: Sequence[int], cards: Sequence[int], scopes: Collection[Scope]) -> Cost:
    """Return what an order costs.

    Args:
        order: Variables in the order in which they are summed out.
        cards: Number of states of each variable.
        scopes: Variables of each factor.

    Example:
        >>> cost_of([0, 1, 2], [2, 2, 2], [(0, 1), (1, 2)])
        Cost(width=1, largest=4, entries=10)
    """
    graph = neighbours(len(cards), scopes)
    width = largest = entries = 0
    for v in order:
        size = cards[v] * math.prod(cards[u] for u in graph[v])
        width, largest = max(width, len(graph[v])), max(largest, size)
        entries += size
        _remove(graph, v)
    return Cost(width, largest, entries)


def best_order(
    cards: Sequence[int], scopes: Collection[Scope], seconds: float = 1.0, seed: int = 0
) -> tuple[list[int], Cost]:
    """Find an order of elimination of small cost.

    The plain orders (fewest edges added, the same weighted by states, smallest table, fewest
    neighbours) are tried first, ties going to the variable named first, so that chains are summed
    out from their beginning to their end. Where the best of them still makes a large table, greedy
    contraction paths and randomised orders are tried until the time is up.

    Args:
        cards: Number of states of each variable.
        scopes: Variables of each factor.
        seconds: Time for the search.
        seed: Seed of the random ties.

    Returns:
        The order and its cost.

    References:
        Kjaerulff: Triangulation of graphs: algorithms giving small total state space. Aalborg
        University, 1990.
        Gray, Kourtis: Hyper-optimized tensor network contraction. Quantum 5, 2021.
        https://arxiv.org/abs/2002.01935

    Example:
        >>> best_order([2, 2, 2], [(0, 1), (1, 2)])
        ([0, 1, 2], Cost(width=1, largest=4, entries=10))
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    weights = [math.log(max(card, 1)) for card in cards]
    found: tuple[list[int], Cost] | None = None

    def consider(order: list[int]) -> None:
        nonlocal found
        cost = cost_of(order, cards, scopes)
        if found is None or cost.entries < found[1].entries:
            found = order, cost

    for rule in (_fill, _weighted_fill, _size, _degree):
        consider(_greedy(cards, scopes, weights, rule, None))
        if found is not None and found[1].largest < _LARGE:
            break
        if time.perf_counter() - began > seconds:
            break
    if found is not None and found[1].largest >= _LARGE:
        for order in _paths(cards, scopes, seconds / 4):
            consider(order)
        rules = (_weighted_fill, _fill)
        for number in range(_MOST_TRIES):
            if time.perf_counter() - began > seconds:
                break
            consider(_greedy(cards, scopes, weights, rules[number % 2], rng))
    return found if found is not None else ([], Cost(0, 0, 0))


# ------------------------------------------------------------------------------------- helpers

_Rule = Callable[[list[set[int]], int, Sequence[float]], float]


def _fill(graph: list[set[int]], v: int, weights: Sequence[float]) -> float:
    around = graph[v]
    return sum(len(around) - 1 - len(graph[u] & around) for u in around) / 2


def _weighted_fill(graph: list[set[int]], v: int, weights: Sequence[float]) -> float:
    around = graph[v]
    return sum(
        math.exp(weights[u] + weights[w]) for u in around for w in around - graph[u] if u < w
    )


def _size(graph: list[set[int]], v: int, weights: Sequence[float]) -> float:
    return weights[v] + sum(weights[u] for u in graph[v])


def _degree(graph: list[set[int]], v: int, weights: Sequence[float]) -> float:
    return len(graph[v])


def _greedy(
    cards: Sequence[int],
    scopes: Collection[Scope],
    weights: Sequence[float],
    rule: _Rule,
    rng: np.random.Generator | None,
) -> list[int]:
    """Sum out, again and again, the variable that the rule likes best."""
    graph = neighbours(len(cards), scopes)
    order = _leaves(graph)
    gone = [False] * len(cards)
    for v in order:
        gone[v] = True
    left = [v for v in range(len(cards)) if not gone[v]]
    shift = np.arange(len(cards)) if rng is None else rng.permutation(len(cards))
    noise = np.ones(len(cards)) if rng is None else rng.uniform(0.8, 1.25, len(cards))
    score = [0.0 if gone[v] else rule(graph, v, weights) for v in range(len(cards))]
    heap = [(score[v] * noise[v], int(shift[v]), v) for v in left]
    heapq.heapify(heap)
    while heap:
        value, _, v = heapq.heappop(heap)
        if gone[v] or value != score[v] * noise[v]:
            continue
        gone[v] = True
        order.append(v)
        around = _remove(graph, v)
        stale = set(around)
        if rule in (_fill, _weighted_fill):
            stale.update(*(graph[u] for u in around))
        for u in stale:
            fresh = rule(graph, u, weights)
            if fresh != score[u]:
                score[u] = fresh
                heapq.heappush(heap, (fresh * noise[u], int(shift[u]), u))
    return order


def _leaves(graph: list[set[int]]) -> list[int]:
    """Take out, again and again, the first variable of at most one neighbour: none costs less."""
    heap = [v for v, around in enumerate(graph) if len(around) < 2]
    gone: set[int] = set()
    order = []
    while heap:
        v = heapq.heappop(heap)
        if v in gone:
            continue
        gone.add(v)
        order.append(v)
        for u in graph[v]:
            graph[u].discard(v)
            if len(graph[u]) < 2:
                heapq.heappush(heap, u)
        graph[v] = set()
    return order


def _remove(graph: list[set[int]], v: int) -> set[int]:
    """Take a variable out of a graph, connecting its neighbours; return them."""
    around = graph[v]
    for u in around:
        graph[u] |= around
        graph[u] -= {u, v}
    graph[v] = set()
    return around


def _paths(cards: Sequence[int], scopes: Collection[Scope], seconds: float) -> list[list[int]]:
    """Return the orders in which variables vanish along opt_einsum's random greedy paths."""
    from opt_einsum.path_random import RandomGreedy

    inputs: list = [frozenset(scope) for scope in scopes]
    sizes: dict = dict(enumerate(cards))
    search = RandomGreedy(max_repeats=32, max_time=seconds)
    path = search(inputs, frozenset(), sizes)
    left, order = list(inputs), []
    for step in path:
        taken = [left.pop(i) for i in sorted(step, reverse=True)]
        union = frozenset().union(*taken)
        outside = frozenset().union(*left) if left else frozenset()
        order += sorted(union - outside)
        left.append(union & outside)
    missing = [v for v in range(len(cards)) if v not in set(order)]
    return [order + missing]
