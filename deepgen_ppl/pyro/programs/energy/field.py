"""Pairwise Markov random fields on any graph: Ising's model, and fields of several values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from deepgen_ppl import energies, pair_graph
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.flow_checks import choice, whole
from deepgen_ppl.harmonium import Units
from deepgen_ppl.pair_graph import PairGraph
from deepgen_ppl.pyro.infer.annealed import EnergyPath
from deepgen_ppl.pyro.nets import as_parameter
from deepgen_ppl.pyro.programs.energy import tables
from deepgen_ppl.pyro.programs.energy.ready import Energy, as_numpy, generator_of, run_chains


class Field(Energy):
    r"""Discrete variables that meet in pairs along the edges of a graph.

    \[ \log p^*(x) = \sum_i u_i(x_i) + \sum_{(i, j)} w_{ij}(x_i, x_j) \]
    """

    graph: PairGraph
    states: int

    @abstractmethod
    def tables(self) -> tuple[Float[Tensor, "D K"], Float[Tensor, "E K K"]]:
        """Return the log tables of variables and edges."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return (self.graph.num,)

    def base(self) -> Any:
        """Return uniform values that do not meet."""
        like = next(self.parameters()).detach()
        if self.states == 2:
            return dist.Bernoulli(probs=like.new_full((self.graph.num,), 0.5)).to_event(1)
        flat: Any = dist.Categorical(logits=like.new_zeros(self.graph.num, self.states))
        return flat.to_event(1)

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return minus the energy, -inf at values that a variable does not have.

        Args:
            x: values, whole numbers from 0.
        """
        energies.check_event(np.shape(x), self.event_shape, type(self).__name__)
        values = torch.as_tensor(x)
        known = ((values >= 0) & (values < self.states) & (values == values.floor())).all(-1)
        seen = tables.indicators(values, self.states)
        found = tables.log_density(self.graph, *self.tables(), seen)
        return torch.where(known, found, -torch.inf)

    def factor_graph(self) -> FactorGraph:
        """Return the field as a factor graph over "x0", "x1", ..., for `dg.exact`."""
        return pair_graph.as_factor_graph(self.graph, *map(as_numpy, self.tables()))

    def map(
        self,
        external: Float[Tensor, "*batch D K"] | None = None,
        *,
        method: str = "max_product",
        num_steps: int = 50,
        damping: float = 0.5,
    ) -> Int[Tensor, "*batch D"]:
        """Return values of high density: the most probable ones on trees, else a local best.

        Args:
            external: log tables that are added to the variables' own, such as a likelihood.
            method: "max_product" passes messages, then ascends; "ascent" only sets one colour
                after the other to its best values, beginning at the best of the variables' own.
            num_steps: most rounds of each.
            damping: share of an old message that stays.

        Raises:
            ValueError: an unknown method, or external tables of another shape.

        References:
            Besag: On the statistical analysis of dirty pictures. JRSS B 48(3), 1986.
            https://doi.org/10.1111/j.2517-6161.1986.tb01412.x
        """
        choice("method", method, ("max_product", "ascent"))
        whole("num_steps", num_steps)
        unary, pairwise = self._given(external)
        rounds = num_steps if method == "max_product" else 0
        start = unary
        if rounds:
            start = tables.beliefs(self.graph, unary, pairwise, rounds, damping, True)
        return tables.ascend(self.graph, unary, pairwise, start.argmax(-1), num_steps)

    def marginals(
        self,
        external: Float[Tensor, "*batch D K"] | None = None,
        *,
        num_chains: int = 4,
        num_steps: int = 200,
        burn_in: int = 50,
        seed: int = 0,
    ) -> Float[Tensor, "*batch D K"]:
        """Return the probabilities of each variable's values, averaged along Gibbs chains.

        Conditionals are averaged instead of draws (Rao and Blackwell).

        Args:
            external: log tables that are added to the variables' own, such as a likelihood.
            num_chains: chains of each batch row; they begin at the variables' own best values.
            num_steps: sweeps that are averaged.
            burn_in: sweeps before.
            seed: seed of the chains.

        Raises:
            ValueError: external tables of another shape.
        """
        for name, value in (("num_chains", num_chains), ("num_steps", num_steps)):
            whole(name, value)
        whole("burn_in", burn_in, 0)
        unary, pairwise = self._given(external)
        return self._average(unary, pairwise, seed, num_chains, num_steps, burn_in)

    def path(self, generator: Generator, x: Any = None) -> FieldPath:
        """Return the densities between independent variables and this field.

        Args:
            generator: source of the random numbers.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        return self.path_from(self.rates(generator, x))

    def rates(self, generator: Generator, x: Any = None) -> np.ndarray:
        """Return the log tables of independent variables.

        Args:
            generator: source of the random numbers.
            x: rows whose base rates they have; those of chains of its own without them.
        """
        if x is None:
            with torch.no_grad():
                x = self.step_chains(generator, self.init_chains(generator, 100), 100)
        means = as_numpy(tables.indicators(_whole(x), self.states)).mean(0).reshape(-1)
        units = Units("categorical", self.graph.num, self.states)
        return energies.rates((units,), means, len(x)).reshape(-1, self.states)

    def path_from(self, rates: Any) -> FieldPath:
        """Return the densities between variables of these log tables and this field."""
        return FieldPath(self.tables(), rates, self.graph)

    def init_chains(self, generator: Generator | None, num_chains: int) -> Int[Tensor, "chain D"]:
        """Return chains drawn from the variables' own tables alone.

        Args:
            generator: source of the random numbers, torch's own when None.
            num_chains: number of chains.
        """
        return tables.draw(generator, self.tables()[0].detach(), num_chains)

    def chains_at(
        self, generator: Generator | None, x: Float[Tensor, "chain D"]
    ) -> Int[Tensor, "chain D"]:
        """Return chains at these values.

        Args:
            generator: source of random numbers, not used.
            x: values.
        """
        return _whole(x)

    def step_chains(
        self, generator: Generator | None, state: Int[Tensor, "chain D"], num_steps: int
    ) -> Int[Tensor, "chain D"]:
        """Return the state after some sweeps over the colours, there and back.

        Args:
            generator: source of the random numbers, torch's own when None.
            state: values of all chains.
            num_steps: number of sweeps.
        """
        with torch.no_grad():
            unary, pairwise = self.tables()
            for _ in range(num_steps):
                state = tables.sweep(generator, self.graph, unary, pairwise, state)
        return state

    def visible(self, state: Int[Tensor, "chain D"]) -> Float[Tensor, "chain D"]:
        """Return the values of a state.

        Args:
            state: values of all chains.
        """
        return state.to(torch.get_default_dtype()) if self.states == 2 else state

    def draws(
        self,
        num_chains: int = 100,
        num_steps: int = 1000,
        *,
        num_temperatures: int = 1,
        x: Any = None,
        seed: int = 0,
    ) -> Float[Tensor, "chain D"]:
        """Return the values of chains after some sweeps from the variables' own tables.

        Args:
            num_chains: number of chains.
            num_steps: number of sweeps.
            num_temperatures: with more than one each chain swaps with others, down to independent
                variables, and so reaches modes that no plain chain crosses to.
            x: rows whose base rates those have; those of plain chains without them.
            seed: seed of the chains.

        Raises:
            ValueError: a number that is no positive whole one.

        Cost:
            Sweeps of as many chains times temperatures.
        """
        return run_chains(self, num_chains, num_steps, seed, num_temperatures, x)

    def _given(self, external: Any) -> tuple[Tensor, Tensor]:
        unary, pairwise = (table.detach() for table in self.tables())
        if external is None:
            return unary, pairwise
        energies.check_event(np.shape(external), unary.shape, "field's external")
        return unary + torch.as_tensor(external).to(unary), pairwise

    def _average(
        self, unary: Tensor, pairwise: Tensor, seed: int, num_chains: int, num_steps: int,
        burn_in: int,
    ) -> Tensor:  # fmt: skip
        graph, generator = self.graph, generator_of(self, seed)
        x = unary.argmax(-1).expand(num_chains, *unary.shape[:-1])
        every, total = graph.everyone, torch.zeros_like(unary)
        ties = tables.oriented(pairwise, every)
        for step in range(burn_in + num_steps):
            x = tables.sweep(generator, graph, unary, pairwise, x)
            if step >= burn_in:
                total = total + tables.logits(every, unary, ties, x).softmax(-1).mean(0)
        return total / num_steps


class Ising(Field):
    r"""Ising's model: spins s = 2 x - 1 that like, or dislike, to agree with their neighbours.

    \[ \log p^*(x) = \sum_i h_i s_i + \sum_{(i, j)} J_{ij} s_i s_j \]

    Args:
        num: number D of spins; values are 0 or 1.
        edges: pairs of spins, as `dg.grid_edges(height, width)` makes them.
        coupling: J, a number for each edge or one for all.
        field: h, a number for each spin or one for all.

    Raises:
        ValueError: an edge that does not join two spins, or an array of another shape.

    Cost:
        A sweep draws each colour twice, the last one once; a grid has two colours.

    References:
        Ising: Beitrag zur Theorie des Ferromagnetismus. Zeitschrift für Physik 31, 1925.
        https://doi.org/10.1007/BF02980577
        Geman, Geman: Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
        images. PAMI 6(6), 1984. https://doi.org/10.1109/TPAMI.1984.4767596

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> field = dg.Ising(4, dg.grid_edges(2, 2), coupling=1.0)
        >>> round(dg.log_z(field).log_evidence, 3)
        4.798
    """

    def __init__(
        self, num: int, edges: Sequence[tuple[int, int]], *, coupling: Any = 0.0, field: Any = 0.0
    ) -> None:
        super().__init__()
        self.graph, self.states = PairGraph(num, tuple(edges)), 2
        shape = (len(self.graph.edges),)
        self.coupling = as_parameter(pair_graph.broadcast("coupling", coupling, shape))
        self.field = as_parameter(pair_graph.broadcast("field", field, (num,)))
        self.log_z: Evidence | None = None

    def tables(self) -> tuple[Float[Tensor, "D K"], Float[Tensor, "E K K"]]:
        """Return the log tables of variables and edges."""
        spin = self.field.new_tensor([-1.0, 1.0])
        return self.field[:, None] * spin, self.coupling[:, None, None] * torch.outer(spin, spin)


class PairwiseField(Field):
    r"""A field of variables of K values with a free table for each variable and edge.

    \[ \log p^*(x) = \sum_i u_i(x_i) + \sum_{(i, j)} w_{ij}(x_i, x_j) \]

    Args:
        num: number D of variables.
        states: number K of values of each.
        edges: pairs of variables.
        unary: u, of shape (D, K) or what broadcasts to it.
        pairwise: w, of shape (E, K, K) or what broadcasts to it.

    Raises:
        ValueError: an edge that does not join two variables, or an array of another shape.

    References:
        Koller, Friedman: Probabilistic Graphical Models, 2009, chapter 4.

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> field = dg.PairwiseField(3, 3, [(0, 1), (1, 2)], pairwise=np.eye(3))
        >>> tuple(field.map(np.eye(3)[None]).shape)
        (1, 3)
    """

    def __init__(
        self,
        num: int,
        states: int,
        edges: Sequence[tuple[int, int]],
        *,
        unary: Any = None,
        pairwise: Any = None,
    ) -> None:
        super().__init__()
        self.graph, self.states = PairGraph(num, tuple(edges)), whole("states", states, 2)
        shape = (len(self.graph.edges), states, states)
        self.unary = as_parameter(pair_graph.broadcast("unary", unary, (num, states)))
        self.pairwise = as_parameter(pair_graph.broadcast("pairwise", pairwise, shape))
        self.log_z: Evidence | None = None

    def tables(self) -> tuple[Float[Tensor, "D K"], Float[Tensor, "E K K"]]:
        """Return the log tables of variables and edges."""
        return self.unary, self.pairwise


class FieldPath(EnergyPath):
    r"""The path of a field: \(\log p^*_\beta = (1 - \beta) \log p_0 + \beta \log p^*\).

    Args:
        log_tables: log tables of variables and edges.
        base: log tables of the variables at the start.
        graph: the graph.
    """

    def __init__(self, log_tables: tuple[Tensor, Tensor], base: Any, graph: PairGraph) -> None:
        self.unary, self.pairwise = (table.detach() for table in log_tables)
        self.base, self.graph = torch.as_tensor(base).to(self.unary), graph

    def log_start(self) -> Tensor:
        """Return the log Z of the start, at temperature 0."""
        return self.base.logsumexp(-1).sum()

    def start(self, generator: Generator, num_chains: int) -> Any:
        """Return exact draws of the start."""
        return tables.draw(generator, self.base, num_chains)

    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""
        return state

    def difference(self, seen: Any, before: float, after: float) -> Float[Tensor, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""
        values = tables.indicators(seen, self.unary.shape[-1])
        found = tables.log_density(self.graph, self.unary - self.base, self.pairwise, values)
        return (after - before) * found

    def move(self, generator: Generator, seen: Any, beta: float) -> Any:
        """Return the state after a reversible transition at a temperature."""
        unary = (1.0 - beta) * self.base + beta * self.unary
        return tables.sweep(generator, self.graph, unary, beta * self.pairwise, seen)


def _whole(x: Any) -> Tensor:
    return torch.as_tensor(x).to(torch.int64)
