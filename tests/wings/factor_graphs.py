"""Small factor graphs, random tables for their plans, and the enumeration of all states."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from deepgen_ppl.plans import Plan


def chain(length: int, order: int, card: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """Variables that each share a table with those of `order` steps before."""
    return [card] * length, [tuple(range(i, i + order + 1)) for i in range(length - order)]


def factorial(length: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """Two chains that share a table at each step, scopes in no particular order."""
    first = [(2 * t, 2 * t + 2) for t in range(length - 1)]
    second = [(2 * t + 3, 2 * t + 1) for t in range(length - 1)]
    return [2] * (2 * length), first + second + [(2 * t + 1, 2 * t) for t in range(length)]


GRAPHS: dict[str, tuple[list[int], list[tuple[int, ...]]]] = {
    "one": ([3], []),
    "chain": chain(12, 1, 2),
    "second order": chain(10, 2, 2),
    "factorial": factorial(6),
    "cycle": ([2, 3, 2, 3], [(0, 1), (1, 2), (2, 3), (3, 0)]),
    "tree": ([2] * 13, [((i - 1) // 2, i) for i in range(1, 13)]),
    "star": ([3, 2, 2, 2, 2, 4], [(i, 0) for i in range(1, 6)]),
    "twice": ([2, 3, 1], [(0, 1), (1, 0), (0, 1), (2, 1), (1,)]),
    "uneven": ([2] * 5, [(0, 4), (1, 4), (3, 1), (2, 3)]),
    "threes": (
        [2] * 11,
        [(0, 5, 3), (2, 4, 9), (10, 3, 2), (8, 7, 1), (1, 0, 6), (5, 9, 2), (6, 4, 7)],
    ),
}


def tables(
    plan: Plan, parts: int, seed: int = 0, forbidden: float = 0.02, shared: Sequence[int] = ()
) -> list[np.ndarray]:
    """Random log tables, some entries minus infinity; those of `shared` stacks for all parts."""
    rng = np.random.default_rng(seed)
    found = []
    for number, stack in enumerate(plan.stacks):
        shape = (*stack.cards, len(stack.members), 1 if number in shared else parts)
        table = rng.normal(size=shape) * 2
        found.append(np.where(rng.random(shape) < forbidden, -np.inf, table))
    return found


def factors(plan: Plan) -> list[int]:
    """Numbers of the stacks of factors, which parts may share."""
    return [number for number, stack in enumerate(plan.stacks) if not stack.unary]


class Law(NamedTuple):
    """The enumerated distribution.

    Attributes:
        log_tables: Sum of all tables at all states, `(*cards, M)`.
        log_sums: Log of their sum, `(M,)`.
        probabilities: Probability of all states, `(*cards, M)`; zero where the sum is.
    """

    log_tables: np.ndarray
    log_sums: np.ndarray
    probabilities: np.ndarray


def enumerated(plan: Plan, given: Sequence[np.ndarray]) -> Law:
    """Enumerate all states."""
    parts, rank = max(table.shape[-1] for table in given), len(plan.cards)
    total = np.zeros((*plan.cards, parts))
    for stack, table in zip(plan.stacks, given, strict=True):
        for place, member in enumerate(stack.members):
            scope = (int(member),) if stack.unary else plan.scopes[member]
            own = table[..., place, :].transpose(*np.argsort(scope), len(scope))
            shape = [plan.cards[v] if v in scope else 1 for v in range(rank)]
            total = total + own.reshape(*shape, own.shape[-1])
    log_sums = logsumexp(total.reshape(-1, parts), axis=0)
    with np.errstate(invalid="ignore"):
        probabilities = np.where(np.isfinite(log_sums), np.exp(total - log_sums), 0.0)
    return Law(total, log_sums, probabilities)


def marginals(plan: Plan, law: Law) -> list[np.ndarray]:
    """Marginal distributions over the variables of each table, `(*cards, G, M)` for each stack."""
    found = []
    for stack in plan.stacks:
        scopes = [(int(m),) if stack.unary else plan.scopes[m] for m in stack.members]
        found.append(np.stack([marginal(law, scope) for scope in scopes], -2))
    return found


def marginal(law: Law, scope: Sequence[int]) -> np.ndarray:
    """Marginal distribution over some variables, in their order, `(*cards, M)`."""
    rank = law.probabilities.ndim - 1
    own = law.probabilities.sum(tuple(v for v in range(rank) if v not in scope))
    return own.transpose(*np.argsort(np.argsort(scope)), len(scope))
