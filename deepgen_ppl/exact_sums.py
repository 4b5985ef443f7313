"""A factor graph given evidence, ready to be summed out: parts, tables and sums."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import exact_checks
from deepgen_ppl.conditioning import condition, stacks_of
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.factor_graph import Numbered
from deepgen_ppl.findings import Findings
from deepgen_ppl.plans import Group, Plan

Tables = Sequence[np.ndarray]

_PLANS: OrderedDict[tuple, Plan] = OrderedDict()
_MOST_PLANS = 128
_GROUPS: OrderedDict[tuple, list[Group]] = OrderedDict()
_MOST_GROUPS = 16
_LOG = logging.getLogger("deepgen_ppl")


class Engine(Protocol):
    """Sums over factor graphs, as a wing carries them out; see its `engine.py`."""

    def log_sums(self, plan: Plan, tables: Tables) -> np.ndarray:
        """Return log sums of all parts."""
        ...

    def marginals(
        self, plan: Plan, tables: Tables, wanted: Sequence[int], weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return log sums, and marginals over the variables of some stacks."""
        ...

    def best(self, plan: Plan, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
        """Return best states and their values."""
        ...

    def draws(self, plan: Plan, tables: Tables, num_samples: int, seed: int) -> np.ndarray:
        """Return exact draws."""
        ...

    def slopes(self, plan: Plan, tables: Tables, directions: Tables) -> np.ndarray:
        """Return the derivative of log sums along a direction."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """What exact inference works on: a factor graph, and how its variables are called.

    Attributes:
        coordinates: The discrete sites.
        graph: The factor graph over their coordinates.
        constants: Log density that depends on none of them: of each row, or one number.
        rows: Row of the data plate of each coordinate, None where rows are not apart.
        names: Names that users know sites by, where these differ.
        labels: Names of the states of sites that have some.
        about: Makes further fields of a `Posterior` of its draws.
        has_data: Whether it has data of its own beside the evidence.
    """

    coordinates: Coordinates
    graph: Numbered
    constants: Float[np.ndarray, "*N"]
    rows: Int[np.ndarray, " D"] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    about: Callable[[], Mapping[str, Any]] = dict
    has_data: bool = False

    def public(self, site: str) -> str:
        """Return the name that users know a site by."""
        return self.names.get(site, site)


class Sums:
    """The sums of a factor graph given evidence, in B rows.

    Args:
        subject: The graph.
        findings: The evidence.
        engine: A wing's way to sum.
        max_bytes: Memory above which it stops.
        conditioned: Whether variables known in all rows are taken out of the graph.

    Attributes:
        fixed: Variables that were taken out.
        groups: Connected parts that are alike.
        cost: What summing them out takes.

    Raises:
        ValueError: It would take more memory.
    """

    def __init__(
        self,
        subject: Subject,
        findings: Findings,
        engine: Engine,
        max_bytes: int,
        conditioned: bool = True,
    ) -> None:
        self.subject, self.findings, self.engine = subject, findings, engine
        self.max_bytes = max_bytes
        self.fixed = findings.fixed if conditioned else np.zeros(0, int)
        self.left = condition(subject.graph, self.fixed, findings.states[:, self.fixed])
        self.groups = planned(self.left.graph)
        self.cost = exact_checks.cost_of(self.groups, findings.num_rows)
        _LOG.info("exact: %s", self.cost)
        exact_checks.check_cost(self.cost, max_bytes)
        self.tables = [
            stacks_of(group, self.left.graph, findings, self.left.kept) for group in self.groups
        ]

    def with_tables(self, tables: Sequence[Tables]) -> Sums:
        """Return the same with other tables of the same structure."""
        found = copy(self)
        found.tables = [list(part) for part in tables]
        return found

    def log_sums(self) -> list[Float[np.ndarray, "parts B"]]:
        """Return the log sum of each part of each group."""
        pairs = zip(self.groups, self.tables, strict=True)
        return [self._by_row(g, self.engine.log_sums(g.plan, tables)) for g, tables in pairs]

    def marginals(self) -> tuple[list[np.ndarray], Float[np.ndarray, "D B K"]]:
        """Return the log sums and the marginal distribution of each coordinate."""
        coordinates, states = self.subject.coordinates, self.findings.states
        kept = np.zeros((coordinates.num_values, coordinates.size, len(states)))
        full = np.moveaxis(kept, 0, -1)  # copied fast: rows are next to each other in both
        full[self.fixed[:, None], np.arange(len(states)), states[:, self.fixed].T] = 1.0
        values = []
        for group, tables in zip(self.groups, self.tables, strict=True):
            stacks = [i for i, stack in enumerate(group.plan.stacks) if stack.unary]
            value, slopes = self.engine.marginals(group.plan, tables, stacks)
            for i, slope in zip(stacks, slopes, strict=True):
                members = group.plan.stacks[i].members
                chosen = self.left.kept[group.variables[:, members].T]  # members, parts
                slope = slope.reshape(*slope.shape[:-1], *chosen.shape[1:], -1)
                total = slope.sum(0, dtype=float)
                kept[: len(slope), chosen] = slope / np.where(total > 0, total, 1.0)
            values.append(self._by_row(group, value))
        return values, full

    def best(self) -> tuple[list[np.ndarray], Int[np.ndarray, "B D"]]:
        """Return the value of the best states of each part, and these states."""
        states, values = self._states(()), []
        for group, tables in zip(self.groups, self.tables, strict=True):
            found, value = self.engine.best(group.plan, tables)
            self._put(states, group, found)
            values.append(self._by_row(group, value))
        return values, states

    def draws(self, num_samples: int, seed: int) -> Int[np.ndarray, "S B D"]:
        """Return exact draws of the states of all coordinates."""
        states = self._states((num_samples,))
        seeds = np.random.SeedSequence(seed).generate_state(len(self.groups))
        for group, tables, own in zip(self.groups, self.tables, seeds, strict=True):
            found = self.engine.draws(group.plan, tables, num_samples, int(own >> 1))
            self._put(states, group, found)
        return states

    def slopes(self, directions: Sequence[Tables]) -> list[Float[np.ndarray, "parts B"]]:
        """Return how the log sums change where the tables of each group move in a direction."""
        triples = zip(self.groups, self.tables, directions, strict=True)
        return [self._by_row(g, self.engine.slopes(g.plan, t, d)) for g, t, d in triples]

    def factors(self, weights: Float[np.ndarray, " B"] | None = None) -> list[np.ndarray]:
        """Return the distribution over the variables of each factor, in order.

        Args:
            weights: Weight of each row, to add up the rows; None leaves rows apart, `(B, *cards)`.
        """
        number = np.concatenate([np.zeros(0, int), *self.left.graph.numbers])
        found: list[np.ndarray] = [np.zeros(0)] * len(number)
        for group, given in zip(self.groups, self.tables, strict=True):
            stacks = [i for i, stack in enumerate(group.plan.stacks) if not stack.unary]
            parts, tables = len(group.variables), list(given)
            if weights is None or parts > 1:
                for i in stacks:
                    full = (*tables[i].shape[:-1], parts * self.findings.num_rows)
                    tables[i] = np.broadcast_to(tables[i], full)
            scale = None if weights is None else np.tile(weights, parts)
            _, slopes = self.engine.marginals(group.plan, tables, stacks, scale)
            for i, slope in zip(stacks, slopes, strict=True):
                slope = slope.reshape(*slope.shape[:-1], parts, -1)
                slope = np.moveaxis(slope, (-3, -2, -1), (0, 1, 2))  # factor, part, row, cards
                slope = slope if weights is None else slope.sum(2)
                for table, factor in zip(slope, group.plan.stacks[i].members, strict=True):
                    for part, own in zip(table, group.factors[:, factor], strict=True):
                        found[number[own]] = part
        return found

    def collected(
        self, values: Sequence[np.ndarray], constants: bool = True
    ) -> Float[np.ndarray, "*rows"]:
        """Add up the values of all parts, for each row of the data where rows are apart."""
        subject, count = self.subject, self.findings.num_rows
        base = np.asarray(subject.constants, float)
        if subject.rows is None:
            total = np.zeros(count) + sum((value.sum(0) for value in values), start=np.zeros(()))
            return total + self.left.constants.sum(0) + base.sum() if constants else total
        total = np.zeros((count, len(base)))
        for group, value in zip(self.groups, values, strict=True):
            total += _added(value, subject.rows[self.left.kept[group.variables[:, 0]]], base)
        if constants:
            total += _added(self.left.constants, subject.rows[self.left.owners], base) + base
        return total

    def _by_row(self, group: Group, value: np.ndarray) -> Float[np.ndarray, "parts B"]:
        shape = (len(group.variables), self.findings.num_rows)
        return np.broadcast_to(value.reshape(shape[0], -1) if value.size > 1 else value, shape)

    def _states(self, lead: tuple[int, ...]) -> Int[np.ndarray, "*S B D"]:
        states = np.maximum(self.findings.states, 0)
        return np.broadcast_to(states, (*lead, *states.shape)).copy()

    def _put(self, states: np.ndarray, group: Group, found: np.ndarray) -> None:
        """Put the states of a group, `(*S, d, M)`, among those of all coordinates."""
        found = found.reshape(*found.shape[:-1], len(group.variables), states.shape[-2])
        chosen = self.left.kept[group.variables].T  # d, parts
        states[..., chosen] = np.moveaxis(found, -1, -3)


def planned(graph: Numbered) -> list[Group]:
    """Return the parts of a graph with their plans, which are kept."""
    key = (graph.cards.tobytes(), *(scopes.tobytes() for scopes in graph.scopes))
    key = (*key, *(scopes.shape for scopes in graph.scopes))
    if key not in _GROUPS:
        _GROUPS[key] = graph.groups(plans=_PLANS)
    for kept, most in ((_GROUPS, _MOST_GROUPS), (_PLANS, _MOST_PLANS)):
        while len(kept) > most:
            kept.popitem(last=False)
    _GROUPS.move_to_end(key)
    return _GROUPS[key]


def _added(
    values: Float[np.ndarray, "n B"], rows: Int[np.ndarray, " n"], like: np.ndarray
) -> Float[np.ndarray, "B N"]:
    """Add up values that belong to the same row."""
    return np.stack([np.bincount(rows, column, len(like)) for column in values.T])
