"""Pairwise Markov random fields on any graph: Ising's model, and fields of several values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl import energies, pair_graph
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.flow_checks import choice, whole
from deepgen_ppl.harmonium import Units
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealed import EnergyPath
from deepgen_ppl.numpyro.programs.energy import tables
from deepgen_ppl.numpyro.programs.energy.ready import Energy, run_chains
from deepgen_ppl.pair_graph import PairGraph


class Field(Energy):
    r"""Discrete variables that meet in pairs along the edges of a graph.

    \[ \log p^*(x) = \sum_i u_i(x_i) + \sum_{(i, j)} w_{ij}(x_i, x_j) \]
    """

    graph: eqx.AbstractVar[PairGraph]
    states: eqx.AbstractVar[int]

    @abstractmethod
    def tables(self) -> tuple[Float[Array, "D K"], Float[Array, "E K K"]]:
        """Return the log tables of variables and edges."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return (self.graph.num,)

    def base(self) -> Any:
        """Return uniform values that do not meet."""
        if self.states == 2:
            return dist.Bernoulli(probs=jnp.full(self.graph.num, 0.5)).to_event(1)
        flat: Any = dist.Categorical(logits=jnp.zeros((self.graph.num, self.states)))
        return flat.to_event(1)

    def unnormalised_log_prob(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """Return minus the energy, -inf at values that a variable does not have.

        Args:
            x: values, whole numbers from 0.
        """
        energies.check_event(jnp.shape(x), self.event_shape, type(self).__name__)
        values = jnp.asarray(x)
        known = ((values >= 0) & (values < self.states) & (values == jnp.floor(values))).all(-1)
        seen = tables.indicators(values, self.states)
        return jnp.where(known, tables.log_density(self.graph, *self.tables(), seen), -jnp.inf)

    def factor_graph(self) -> FactorGraph:
        """Return the field as a factor graph over "x0", "x1", ..., for `dg.exact`."""
        return pair_graph.as_factor_graph(self.graph, *map(np.asarray, self.tables()))

    def map(
        self,
        external: Float[Array, "*batch D K"] | None = None,
        *,
        method: str = "max_product",
        num_steps: int = 50,
        damping: float = 0.5,
    ) -> Int[Array, "*batch D"]:
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
        return _best(self.graph, unary, pairwise, rounds, num_steps, damping)

    def marginals(
        self,
        external: Float[Array, "*batch D K"] | None = None,
        *,
        num_chains: int = 4,
        num_steps: int = 200,
        burn_in: int = 50,
        seed: int | Array = 0,
    ) -> Float[Array, "*batch D K"]:
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
        return _average(self.graph, unary, pairwise, as_key(seed), num_chains, num_steps, burn_in)

    def path(self, key: Array, x: Any = None) -> FieldPath:
        """Return the densities between independent variables and this field.

        Args:
            key: random key.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        return self.path_from(self.rates(key, x))

    def rates(self, key: Array, x: Any = None) -> np.ndarray:
        """Return the log tables of independent variables.

        Args:
            key: random key.
            x: rows whose base rates they have; those of chains of its own without them.
        """
        values = self.draws(100, 100, seed=key) if x is None else _whole(x)
        means = np.asarray(tables.indicators(values, self.states)).mean(0).reshape(-1)
        units = Units("categorical", self.graph.num, self.states)
        return energies.rates((units,), means, len(values)).reshape(-1, self.states)

    def path_from(self, rates: Any) -> FieldPath:
        """Return the densities between variables of these log tables and this field."""
        return FieldPath(*self.tables(), jnp.asarray(rates, float), self.graph)

    def init_chains(self, key: Array, num_chains: int) -> Int[Array, "chain D"]:
        """Return chains drawn from the variables' own tables alone.

        Args:
            key: random key.
            num_chains: number of chains.
        """
        return tables.draw(key, self.tables()[0], num_chains)

    def chains_at(self, key: Array, x: Float[Array, "chain D"]) -> Int[Array, "chain D"]:
        """Return chains at these values.

        Args:
            key: random key, not used.
            x: values.
        """
        return _whole(x)

    def step_chains(
        self, key: Array, state: Int[Array, "chain D"], num_steps: int
    ) -> Int[Array, "chain D"]:
        """Return the state after some sweeps over the colours, there and back.

        Args:
            key: random key.
            state: values of all chains.
            num_steps: number of sweeps.
        """
        unary, pairwise = self.tables()

        def sweep(step: Any, x: Array) -> Array:
            return tables.sweep(random.fold_in(key, step), self.graph, unary, pairwise, x)

        return lax.fori_loop(0, num_steps, sweep, state)

    def visible(self, state: Int[Array, "chain D"]) -> Float[Array, "chain D"]:
        """Return the values of a state.

        Args:
            state: values of all chains.
        """
        return state.astype(float) if self.states == 2 else state

    def draws(
        self,
        num_chains: int = 100,
        num_steps: int = 1000,
        *,
        num_temperatures: int = 1,
        x: Any = None,
        seed: int | Array = 0,
    ) -> Float[Array, "chain D"]:
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

    def _given(self, external: Any) -> tuple[Array, Array]:
        unary, pairwise = self.tables()
        if external is None:
            return unary, pairwise
        energies.check_event(np.shape(external), unary.shape, "field's external")
        return unary + jnp.asarray(external, float), pairwise


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
        >>> import deepgen_ppl.numpyro as dg
        >>> field = dg.Ising(4, dg.grid_edges(2, 2), coupling=1.0)
        >>> round(dg.log_z(field).log_evidence, 3)
        4.798
    """

    coupling: Array
    field: Array
    graph: PairGraph = eqx.field(static=True)
    states: int = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self, num: int, edges: Sequence[tuple[int, int]], *, coupling: Any = 0.0, field: Any = 0.0
    ) -> None:
        self.graph, self.states = PairGraph(num, tuple(edges)), 2
        shape = (len(self.graph.edges),)
        self.coupling = jnp.asarray(pair_graph.broadcast("coupling", coupling, shape), float)
        self.field = jnp.asarray(pair_graph.broadcast("field", field, (num,)), float)
        self.log_z = None

    def tables(self) -> tuple[Float[Array, "D K"], Float[Array, "E K K"]]:
        """Return the log tables of variables and edges."""
        spin = jnp.array([-1.0, 1.0], self.field.dtype)
        return self.field[:, None] * spin, self.coupling[:, None, None] * jnp.outer(spin, spin)


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
        >>> import deepgen_ppl.numpyro as dg
        >>> field = dg.PairwiseField(3, 3, [(0, 1), (1, 2)], pairwise=np.eye(3))
        >>> tuple(field.map(np.eye(3)[None]).shape)
        (1, 3)
    """

    unary: Array
    pairwise: Array
    graph: PairGraph = eqx.field(static=True)
    states: int = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self,
        num: int,
        states: int,
        edges: Sequence[tuple[int, int]],
        *,
        unary: Any = None,
        pairwise: Any = None,
    ) -> None:
        self.graph, self.states = PairGraph(num, tuple(edges)), whole("states", states, 2)
        shape = (len(self.graph.edges), states, states)
        self.unary = jnp.asarray(pair_graph.broadcast("unary", unary, (num, states)), float)
        self.pairwise = jnp.asarray(pair_graph.broadcast("pairwise", pairwise, shape), float)
        self.log_z = None

    def tables(self) -> tuple[Float[Array, "D K"], Float[Array, "E K K"]]:
        """Return the log tables of variables and edges."""
        return self.unary, self.pairwise


class FieldPath(EnergyPath):
    r"""The path of a field: \(\log p^*_\beta = (1 - \beta) \log p_0 + \beta \log p^*\)."""

    unary: Array
    pairwise: Array
    base: Array
    graph: PairGraph = eqx.field(static=True)

    def log_start(self) -> Array:
        """Return the log Z of the start, at temperature 0."""
        return jax.nn.logsumexp(self.base, -1).sum()

    def start(self, key: Array, num_chains: int) -> Any:
        """Return exact draws of the start."""
        return tables.draw(key, self.base, num_chains)

    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""
        return state

    def difference(self, seen: Any, before: Array, after: Array) -> Float[Array, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""
        values = tables.indicators(seen, self.unary.shape[-1])
        found = tables.log_density(self.graph, self.unary - self.base, self.pairwise, values)
        return (after - before) * found

    def move(self, key: Array, seen: Any, beta: Array) -> Any:
        """Return the state after a reversible transition at a temperature."""
        unary = (1.0 - beta) * self.base + beta * self.unary
        return tables.sweep(key, self.graph, unary, beta * self.pairwise, seen)


def _whole(x: Any) -> Array:
    return jnp.asarray(x).astype(int)


@eqx.filter_jit
def _best(
    graph: PairGraph, unary: Array, pairwise: Array, rounds: int, num_steps: int, damping: float
) -> Array:
    start = unary
    if rounds:
        start = tables.beliefs(graph, unary, pairwise, rounds, damping, True)
    return tables.ascend(graph, unary, pairwise, start.argmax(-1), num_steps)


@eqx.filter_jit
def _average(
    graph: PairGraph, unary: Array, pairwise: Array, key: Array, num_chains: int, num_steps: int,
    burn_in: int,
) -> Array:  # fmt: skip
    shape = (num_chains, *unary.shape[:-1])
    x = jnp.broadcast_to(unary.argmax(-1), shape)

    def sweep(step: Any, carry: Any) -> Any:
        x, total = carry
        x = tables.sweep(random.fold_in(key, step), graph, unary, pairwise, x)
        every = graph.everyone
        found = tables.logits(every, unary, tables.oriented(pairwise, every), x)
        share = jnp.where(step >= burn_in, 1.0 / num_steps, 0.0)
        return x, total + share * jax.nn.softmax(found, -1).mean(0)

    zeros = jnp.zeros(unary.shape, unary.dtype)
    return lax.fori_loop(0, burn_in + num_steps, sweep, (x, zeros))[1]
