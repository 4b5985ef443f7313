"""Chains of the negative phase on the sites of a program, one row of its data each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from deepgen_ppl.blocks import find_blocks
from deepgen_ppl.numpyro.compilation import FAST_COMPILE, quickly
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import Discrete, read_coordinates
from deepgen_ppl.numpyro.infer.negative import Moved, Values, climb, first_step
from deepgen_ppl.numpyro.joint import unconstrained
from deepgen_ppl.numpyro.kernels import gibbs
from deepgen_ppl.numpyro.kernels import gibbs_with_gradients as gradients_
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs
from deepgen_ppl.numpyro.program import run
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.unconstrained import Potential


class ProgramChains:
    """Chains on latent sites of a program at one row of its data, discrete ones among them.

    Args:
        program: the program, its visible sites free, read at one row (or at all data, where it has
            no data plate).
        visible: its visible sites, whose data chains may set out from; the others are hidden.
        source: the program as the user wrote it, that knows the data's values.
        params: constrained parameters in general position, at which it is found what depends on
            what.
        inputs: inputs at all rows.
        kernels: discrete and continuous kernel; either may be missing.
        by_rows: whether a chain is one row's.
        given_data: chains on the hidden sites alone, by which these are drawn where chains set out
            from data.
    """

    def __init__(
        self,
        program: Program,
        visible: tuple[str, ...],
        source: Program,
        params: Values,
        inputs: Inputs,
        kernels: tuple[Any, Any],
        by_rows: bool,
        given_data: ProgramChains | None = None,
    ) -> None:
        self.program, self.visible, self.source = program, visible, source
        self.by_rows, (self.discrete, self.continuous) = by_rows, kernels
        self.given_data = given_data
        one = self._inputs(inputs, jnp.int32(0))
        names = [n for n, s in program.latents.items() if not s.is_discrete]
        self.coordinates: Any = None
        if len(names) < len(program.latents):
            self.coordinates = read_coordinates(program, params, one, "gibbs")
        shapes = jax.eval_shape(self._unconstrained, dict(params), inputs, jnp.int32(0))
        zeros = {name: np.zeros(shapes[name].shape, shapes[name].dtype) for name in names}
        point, self.unravel = ravel_pytree(zeros)
        self.size, self.names = point.size, names
        self.table: Any = None
        if self.coordinates is not None:
            self._prepare(params, inputs)

    # ------------------------------------------------------------------------------ protocol

    @property
    def tuning(self) -> Any:
        """Logarithm of the first step size."""
        return first_step(self.continuous)

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        hidden: dict[str, Array] = {}
        if at_data and self.given_data is not None:
            start, move = self.given_data.start, self.given_data.move
            begun = start(random.fold_in(key, 1), params, inputs, rows, False)
            first = jnp.asarray(self.given_data.tuning)
            found = move(random.fold_in(key, 2), params, inputs, rows, begun, first, 1)
            hidden = self.given_data.values(params, inputs, rows, found.state)

        def one(row: Array, key: Array, hidden: dict[str, Array]) -> tuple[Array, Array]:
            given = {**self.data_of(params, inputs, row), **hidden} if at_data else {}
            seen = run(self.program, self._inputs(inputs, row), {**params, **given}, key)
            free = unconstrained(seen)
            z = ravel_pytree({name: free[name] for name in self.names})[0]
            values = {name: m["value"] for name, m in seen.items() if m["type"] == "sample"}
            return numbers_of(self.coordinates, values), z

        return jax.vmap(one)(rows, random.split(key, rows.shape[0]), hidden)

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Any, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Move discrete and continuous sites of all chains in turn."""
        args = (params, inputs, rows)
        if self.coordinates is None:
            both = jax.vmap(jax.value_and_grad(self._energy, 1), (None, 0, 0, 0))
            x = state[0]

            def potential(z: Array) -> tuple[Array, Array]:
                return both((params, inputs), z, x, rows)

            z, tuning, rate = climb(key, self.continuous, state[1], potential, tuning, num_steps)
            return Moved((x, z), tuning, rate, jnp.zeros(()))

        def body(number: Array, now: Moved) -> Moved:
            return self._mixed(random.fold_in(key, number), args, now, number)

        begun = Moved(state, tuning, jnp.zeros(len(state[0]), self._dtype), jnp.zeros(()))
        found = lax.fori_loop(0, num_steps, body, begun)
        return found._replace(acceptance=found.acceptance / num_steps)

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the unnormalised log density of each chain, where it lives."""
        energy = jax.vmap(self._energy, (None, 0, 0, 0))
        return -energy((params, inputs), state[1], state[0], rows)

    @property
    def is_continuous(self) -> bool:
        """Whether there are continuous sites."""
        return bool(self.size)

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return the positions of the continuous sites."""
        return state[1]

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the value of each site."""

        def one(row: Array, x: Array, z: Array) -> dict[str, Array]:
            view = self._view(params, inputs, row)
            if self.coordinates is None:
                return view.constrain(self.unravel(z))
            return view.constrain(x, self.unravel(z))

        return jax.vmap(one)(rows, *state)

    def data_of(self, params: Values, inputs: Inputs, row: Array) -> dict[str, Array]:
        """Return the data of the visible sites at a row."""
        if not self.visible:
            return {}
        seen = run(self.source, self._inputs(inputs, row), params, random.key(0))
        return {name: seen[name]["value"] for name in self.visible}

    # ------------------------------------------------------------------------------- helpers

    @property
    def _dtype(self) -> Any:
        return jnp.zeros(()).dtype

    def _inputs(self, inputs: Inputs, row: Array) -> Inputs:
        return inputs.gather(row[None]) if self.by_rows else inputs

    def _unconstrained(self, params: Values, inputs: Inputs, row: Array) -> dict[str, Array]:
        return unconstrained(run(self.program, self._inputs(inputs, row), params, random.key(0)))

    def _view(self, params: Values, inputs: Inputs, row: Array) -> Any:
        here = self._inputs(inputs, row)
        if self.coordinates is None:
            return Potential(self.program, params, here)
        return Discrete(self.program, self.coordinates, params, here)

    def _energy(self, args: tuple[Values, Inputs], z: Array, x: Array, row: Array) -> Array:
        view = self._view(args[0], args[1], row)
        if self.coordinates is None:
            return view.energy(self.unravel(z))
        return view.energy(self.unravel(z), x)

    def _terms(self, args: tuple[Any, ...], x: Array, z: Array) -> Float[Array, "*batch T"]:
        """Return the terms at coordinates with further leading axes, for each chain's z and row."""
        params, inputs, rows = args

        def one(x: Array, z: Array, row: Array) -> Array:
            view = self._view(params, inputs, row)
            return view.terms(x, view.hold(self.unravel(z)))

        chains = jax.vmap(one)
        for _ in range(x.ndim - 2):
            chains = jax.vmap(chains, (0, None, None))
        return chains(x, z, rows)

    def _mixed(self, key: Array, args: tuple[Any, ...], now: Moved, number: Array) -> Moved:
        """Move the discrete sites once, then the continuous ones."""
        x, z = now.state
        discrete_key, continuous_key = random.split(key)
        if not isinstance(self.discrete, Gibbs):
            x, rate, worst = self._changed(discrete_key, args, x, z)
        else:
            options: dict = {"num_values": self.coordinates.num_values, "scan": self.discrete.scan}

            def terms(x: Array) -> Array:
                return self._terms(args, x, z)

            begun = gibbs.init(x, terms)
            state, info = gibbs.step(
                discrete_key, begun, terms, self.table, check=number == 0, **options
            )
            x, rate, worst = state.position, info.acceptance, info.discrepancy.max()
        tuning = now.tuning
        if self.size:
            both = jax.vmap(jax.value_and_grad(self._energy, 1), (None, 0, 0, 0))

            def potential(z: Array) -> tuple[Array, Array]:
                return both(args[:2], z, x, args[2])

            z, tuning, rate = climb(continuous_key, self.continuous, z, potential, tuning, 1)
        worst = jnp.maximum(now.discrepancy, worst)
        return Moved((x, z), tuning, now.acceptance + rate, worst)

    def _changed(
        self, key: Array, args: tuple[Any, ...], x: Array, z: Array
    ) -> tuple[Array, Array, Array]:
        """Change single coordinates where a gradient says that they are likely to change."""

        def gains(x: Array) -> tuple[Array, Array]:
            def one(x: Array, z: Array, row: Array) -> tuple[Array, Array]:
                return self._view(args[0], args[1], row).gains(x, self.unravel(z))

            return jax.vmap(one)(x, z, args[2])

        if self.discrete.differences == "exact":

            def terms(x: Array) -> Array:
                return self._terms(args, x, z)

            def gains(x: Array) -> tuple[Array, Array]:
                state = gibbs.init(x, terms)
                options = {"num_values": self.coordinates.num_values}
                told = gibbs.conditionals(state, terms, self.table, **options)
                return state.terms.sum(-1), told

        move, begun = self.discrete.bind(self.coordinates.size), gradients_.init(x, gains)
        state, info = move(key, begun, gains, self.table.cardinality)
        return state.position, info.acceptance, jnp.zeros(())

    def _anywhere(self, rows: Array) -> Any:
        """Return what the density is looked at by, to find what depends on what."""
        return rows

    def _prepare(self, params: Values, inputs: Inputs) -> None:
        """Find which coordinates may move at once."""
        rows = jnp.zeros(8, jnp.int32)
        width, about = 64, (dict(params), inputs)
        start = partial(ProgramChains.start, self, at_data=False)
        begun = quickly(start, random.key(1), *about, rows)
        first = jax.tree.map(np.asarray, begun)

        def all_terms(params: Any, inputs: Inputs, x: Array, z: Array) -> Array:
            rows = self._anywhere(jnp.zeros(width, jnp.int32))
            return self._terms((params, inputs, rows), x, z)

        at = (jnp.asarray(np.repeat(first[0][:1], width, 0)), np.repeat(first[1][:1], width, 0))
        terms = jax.jit(all_terms).lower(*about, *at).compile(compiler_options=FAST_COMPILE)

        def evaluate(rows: Int[np.ndarray, "n D"], point: int) -> np.ndarray:
            found = []
            for begin in range(0, len(rows), width):
                take = np.minimum(np.arange(begin, begin + width), len(rows) - 1)
                z = np.repeat(first[1][point % 8][None], width, 0)
                x = jnp.asarray(rows[take], jnp.int32)
                found.append(np.asarray(terms(*about, x, z)))
            return np.concatenate(found)[: len(rows)]

        num_terms = evaluate(first[0][:1], 0).shape[1]
        cardinality, groups = self.coordinates.cardinality, self.coordinates.groups
        blocks = find_blocks(evaluate, cardinality, groups)
        self.table = gibbs.table(blocks, cardinality, num_terms)


def numbers_of(coordinates: Any, values: Mapping[str, Array]) -> Int[Array, " D"]:
    """Return the coordinates of discrete sites' values, in compiled code.

    Args:
        coordinates: where the sites stand; None for no discrete site.
        values: value of each site.
    """
    if coordinates is None:
        return jnp.zeros(0, jnp.int32)
    parts = []
    for name, place in coordinates.places.items():
        support = jnp.asarray(place.support)
        value = jnp.asarray(values[name]).reshape(place.size, 1, *support.shape[2:])
        same = (value == support).reshape(place.size, support.shape[1], -1).all(-1)
        parts.append(jnp.argmax(same, -1))
    return jnp.concatenate(parts).astype(jnp.int32)
