"""Graphs of variables that meet in pairs: edges, colours that move at once, directed messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.flow_checks import whole


class Colour(NamedTuple):
    """Variables none of which meets another one of them, padded to equal numbers of neighbours.

    Attributes:
        nodes: the variables.
        neighbours: those that each meets.
        edges: the edge to each of them.
        turned: whether the variable is the edge's second end.
        real: False where a place is padding.
    """

    nodes: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n degree"]
    edges: Int[np.ndarray, "n degree"]
    turned: Bool[np.ndarray, "n degree"]
    real: Float[np.ndarray, "n degree"]


@dataclass(frozen=True)
class PairGraph:
    """An undirected graph.

    Args:
        num: number of variables.
        edges: pairs of different variables, each pair once.

    Raises:
        ValueError: an edge that names an unknown variable, one variable twice, or an edge twice.

    Example:
        >>> graph = PairGraph(4, grid_edges(2, 2))
        >>> graph.edges
        ((0, 1), (2, 3), (0, 2), (1, 3))
        >>> [colour.nodes.tolist() for colour in graph.colours]
        [[0, 3], [1, 2]]
    """

    num: int
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        whole("num", self.num)
        edges = tuple((int(a), int(b)) for a, b in self.edges)
        object.__setattr__(self, "edges", edges)
        for a, b in edges:
            if not (0 <= a < self.num and 0 <= b < self.num) or a == b:
                raise ValueError(
                    f"edge ({a}, {b}) does not join two different variables below {self.num}."
                )
        known = {(min(e), max(e)) for e in edges}
        if len(known) < len(edges):
            raise ValueError("an edge stands twice; give each pair of variables once.")

    @cached_property
    def ends(self) -> Int[np.ndarray, "edges 2"]:
        """The ends of the edges."""
        return np.array(self.edges, int).reshape(-1, 2)

    @cached_property
    def everyone(self) -> Colour:
        """All variables with their neighbours."""
        return self._padded(np.arange(self.num))

    @cached_property
    def colours(self) -> tuple[Colour, ...]:
        """Variables that may move at once: each takes the first colour that no neighbour has."""
        beside: list[list[int]] = [[] for _ in range(self.num)]
        for a, b in self.edges:
            beside[a].append(b)
            beside[b].append(a)
        found = np.full(self.num, -1)
        for node in range(self.num):
            taken = {int(found[other]) for other in beside[node]}
            found[node] = next(c for c in range(self.num) if c not in taken)
        return tuple(
            self._padded(np.flatnonzero(found == c)) for c in range(int(found.max(initial=0)) + 1)
        )

    @cached_property
    def returning(self) -> Int[np.ndarray, "D degree"]:
        """Flat place of the message that goes the other way, for each place of a message."""
        every = self.everyone
        degree = every.edges.shape[1]
        real = np.argwhere(every.real > 0)
        place = {(int(i), int(every.edges[i, j])): int(i) * degree + int(j) for i, j in real}
        found = np.zeros(every.edges.shape, int)
        for i, j in real:
            found[i, j] = place[int(every.neighbours[i, j]), int(every.edges[i, j])]
        return found

    def _padded(self, nodes: np.ndarray) -> Colour:
        met: list[list[tuple[int, int, bool]]] = [[] for _ in range(self.num)]
        for number, (a, b) in enumerate(self.edges):
            met[a].append((b, number, False))
            met[b].append((a, number, True))
        degree = max((len(met[n]) for n in nodes), default=0)
        shape = (len(nodes), max(degree, 1))
        neighbours, edges = np.zeros(shape, int), np.zeros(shape, int)
        turned, real = np.zeros(shape, bool), np.zeros(shape)
        for row, node in enumerate(nodes):
            for column, (other, number, is_turned) in enumerate(met[node]):
                neighbours[row, column], edges[row, column] = other, number
                turned[row, column], real[row, column] = is_turned, 1.0
        return Colour(nodes, neighbours, edges, turned, real)


def grid_edges(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return the edges of a grid whose variables are numbered row by row.

    Args:
        height: number of rows.
        width: number of columns.

    Example:
        >>> grid_edges(1, 3)
        ((0, 1), (1, 2))
    """
    node = np.arange(whole("height", height) * whole("width", width)).reshape(height, width)
    right = zip(node[:, :-1].ravel().tolist(), node[:, 1:].ravel().tolist(), strict=True)
    down = zip(node[:-1].ravel().tolist(), node[1:].ravel().tolist(), strict=True)
    return (*right, *down)


def as_factor_graph(graph: PairGraph, unary: np.ndarray, pairwise: np.ndarray) -> FactorGraph:
    """Return log tables of variables and edges as a factor graph over "x0", "x1", ...

    Args:
        graph: the graph.
        unary: log tables of the variables, `(D, K)`.
        pairwise: log tables of the edges, `(E, K, K)`.

    Example:
        >>> graph = PairGraph(2, ((0, 1),))
        >>> as_factor_graph(graph, np.zeros((2, 2)), np.zeros((1, 2, 2))).variables
        ('x0', 'x1')
    """
    names = [f"x{i}" for i in range(graph.num)]
    ones: list[Any] = [((names[i],), table) for i, table in enumerate(np.asarray(unary, float))]
    twos: list[Any] = [
        ((names[a], names[b]), table)
        for (a, b), table in zip(graph.edges, np.asarray(pairwise, float), strict=True)
    ]
    states = int(np.shape(unary)[-1])
    return FactorGraph({name: states for name in names}, [*ones, *twos])


def broadcast(name: str, value: Any, shape: Sequence[int]) -> np.ndarray:
    """Return a table broadcast to a shape.

    Args:
        name: its name.
        value: an array or a number; None is zero.
        shape: the shape.

    Raises:
        ValueError: it does not fit.

    Example:
        >>> broadcast("field", 0.5, (2,)).tolist()
        [0.5, 0.5]
    """
    found = np.asarray(0.0 if value is None else value, float)
    try:
        return np.broadcast_to(found, shape).copy()
    except ValueError as error:
        wanted = tuple(shape)
        raise ValueError(f"{name} has shape {found.shape}, wanted is {wanted}.") from error


def flip_likelihood(
    y: Float[np.ndarray, "*batch D"], rate: float
) -> Float[np.ndarray, "*batch D 2"]:
    r"""Return the log likelihood of each value of bits that were flipped by chance.

    \[ \log p(y_i \mid x_i) = \log(1 - r) \text{ if } y_i = x_i, \text{ else } \log r \]

    Args:
        y: bits as they were received.
        rate: the probability r of a flip, between 0 and 1.

    Raises:
        ValueError: a rate outside, or values that are no bits.

    Example:
        >>> flip_likelihood(np.array([1.0]), 0.1).round(3).tolist()
        [[-2.303, -0.105]]
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate must lie between 0 and 1, got {rate!r}.")
    bits = np.asarray(y, float)
    if ((bits != 0) & (bits != 1)).any():
        raise ValueError("y holds values that are neither 0 nor 1.")
    same = bits[..., None] == np.arange(2)
    return np.where(same, np.log1p(-rate), np.log(rate))
