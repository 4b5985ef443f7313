"""Factor graphs over discrete variables: named tables as plain data, and the same in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.checks import quote
from deepgen_ppl.contraction import groups_of
from deepgen_ppl.elimination import Cost
from deepgen_ppl.plans import Group


class Factor(NamedTuple):
    """One table of a factor graph, on the logarithmic scale.

    Attributes:
        scope: Names of its variables.
        log_table: Its values, an axis for each variable; minus infinity forbids.
    """

    scope: tuple[str, ...]
    log_table: Float[np.ndarray, "*shape"]


@dataclass(frozen=True, eq=False)
class FactorGraph:
    r"""An unnormalised distribution over discrete variables.

    \[ p(x) = \frac1Z \exp \sum_f \phi_f(x_f) \]

    Args:
        cardinalities: Number of states of each variable.
        factors: The tables \(\phi\), as `Factor` or as pairs of scope and log table.
        states: Names of the states of variables that have some.

    Raises:
        ValueError: A factor names an unknown variable or one twice, its table has another shape
            than its variables say, or holds NaN or plus infinity.

    Example:
        >>> agree = np.log([[2.0, 1.0], [1.0, 2.0]])
        >>> factors = [(("a", "b"), agree), (("b", "c"), agree)]
        >>> graph = FactorGraph({"a": 2, "b": 2, "c": 2}, factors)
        >>> graph.cost()
        Cost(width=1, largest=4, entries=10)
        >>> float(graph.log_density({"a": 0, "b": 0, "c": 1}).round(4))
        0.6931
    """

    cardinalities: Mapping[str, int]
    factors: Sequence[Factor]
    states: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cards = {str(name): int(card) for name, card in self.cardinalities.items()}
        if bad := [name for name, card in cards.items() if card < 1]:
            raise ValueError(f"variables need at least one state: {quote(bad)}.")
        checked = []
        for scope, table in self.factors:
            scope, table = tuple(scope), np.asarray(table, float)
            if unknown := [name for name in scope if name not in cards]:
                raise ValueError(f"a factor over {quote(scope)} names unknown {quote(unknown)}.")
            if len(set(scope)) < len(scope):
                raise ValueError(f"a factor names a variable twice: {quote(scope)}.")
            shape = tuple(cards[name] for name in scope)
            if table.shape != shape:
                raise ValueError(
                    f"the table over {quote(scope)} has shape {table.shape}; its variables have "
                    f"{shape} states."
                )
            if np.isnan(table).any() or np.isposinf(table).any():
                raise ValueError(
                    f"the table over {quote(scope)} holds NaN or infinity; log tables are finite, "
                    "or minus infinity where states exclude each other."
                )
            checked.append(Factor(scope, table))
        for name, labels in self.states.items():
            if name in cards and len(labels) != cards[name]:
                raise ValueError(
                    f"variable '{name}' has {cards[name]} states and {len(labels)} names of states."
                )
        object.__setattr__(self, "cardinalities", cards)
        object.__setattr__(self, "factors", tuple(checked))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in order."""
        return tuple(self.cardinalities)

    @cached_property
    def numbered(self) -> Numbered:
        """The graph with variables and factors as numbers."""
        place = {name: i for i, name in enumerate(self.variables)}
        return Numbered.of(
            np.array(list(self.cardinalities.values()), int),
            [(tuple(place[name] for name in scope), table) for scope, table in self.factors],
        )

    def cost(self, seconds: float = 1.0) -> Cost:
        """Return what summing out all variables takes.

        Width and largest table are those of the costliest connected part, entries those of all.

        Args:
            seconds: Time for finding a good order.
        """
        return cost_of_groups(self.numbered.groups(seconds))

    def log_density(self, values: Mapping[str, object]) -> Float[np.ndarray, "*shape"]:
        """Return the unnormalised log density.

        Args:
            values: Number of the state of each variable; arrays broadcast against each other.
        """
        states = {name: np.asarray(values[name]) for name in self.variables}
        parts = [table[tuple(states[name] for name in scope)] for scope, table in self.factors]
        return np.sum(np.broadcast_arrays(*parts), axis=0) if parts else np.zeros(())


class Numbered(NamedTuple):
    """A factor graph in numbers: tables of equal shape stand in one array.

    Attributes:
        cards: Number of states of each variable.
        scopes: Variables of the tables of each block, `(n, s)`.
        tables: Their entries, `(*cards, n)`; None where only the structure is known.
        numbers: Number that each table of a block has among all factors as they were given.
    """

    cards: Int[np.ndarray, " D"]
    scopes: tuple[Int[np.ndarray, "n s"], ...]
    tables: tuple[np.ndarray, ...] | None
    numbers: tuple[Int[np.ndarray, " n"], ...]

    @classmethod
    def of(
        cls, cards: Int[np.ndarray, " D"], factors: Sequence[tuple[tuple[int, ...], np.ndarray]]
    ) -> Numbered:
        """Put factors of equal shape together.

        Args:
            cards: Number of states of each variable.
            factors: Variables and log table of each factor.
        """
        blocks: dict[tuple[int, ...], list[int]] = {}
        for number, (_, table) in enumerate(factors):
            blocks.setdefault(table.shape, []).append(number)
        scopes = [np.array([factors[i][0] for i in ids], int).reshape(len(ids), -1)
                  for ids in blocks.values()]  # fmt: skip
        tables = [np.stack([factors[i][1] for i in ids], -1) for ids in blocks.values()]
        numbers = [np.array(ids) for ids in blocks.values()]
        return cls(np.asarray(cards), tuple(scopes), tuple(tables), tuple(numbers))

    def placed(self, numbers: Int[np.ndarray, "*n"]) -> tuple[int, Int[np.ndarray, "*n"]]:
        """Return the block of factors of one shape, and their places in it.

        Args:
            numbers: Numbers of factors through the blocks.
        """
        starts = np.cumsum([0, *(len(scopes) for scopes in self.scopes)])
        block = int(np.searchsorted(starts, numbers.flat[0], side="right")) - 1
        return block, numbers - starts[block]

    def groups(self, seconds: float = 1.0, plans: dict | None = None) -> list[Group]:
        """Return the connected parts and how they are summed out; see `groups_of`.

        Factors are numbered through the blocks.
        """
        return groups_of(self.cards, self.scopes, seconds, plans)


def cost_of_groups(groups: Sequence[Group]) -> Cost:
    """Return the cost of all parts: the greatest width and table, and the sum of entries."""
    costs = [(group.plan.cost, len(group.variables)) for group in groups]
    return Cost(
        max((cost.width for cost, _ in costs), default=0),
        max((cost.largest for cost, _ in costs), default=0),
        sum(cost.entries * count for cost, count in costs),
    )
