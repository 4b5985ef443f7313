"""Chains of the negative phase at several temperatures, the hottest at the sites' own densities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float
from numpyro.handlers import block

from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import Discrete
from deepgen_ppl.numpyro.infer.annealed import swapping
from deepgen_ppl.numpyro.infer.negative import Moved, OwnChains, Values, first_step
from deepgen_ppl.numpyro.infer.program_chains import ProgramChains
from deepgen_ppl.numpyro.kernels import tempering
from deepgen_ppl.numpyro.kernels.tempering import Spacing
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.unconstrained import Potential


class Tuning(NamedTuple):
    """What the moves of all temperatures are steered by.

    Attributes:
        spacing: the ladder.
        log_step: logarithm of the step size of each temperature but the hottest.
    """

    spacing: Spacing
    log_step: Float[Array, " T-1"]


class TemperedChains(ProgramChains):
    r"""Chains on a ladder of densities between the free sites' own and the program's.

    \[ \log p_\beta = \log q + \beta (\log p^* - \log q), \qquad
       0 = \beta_0 < \dots < \beta_{T-1} = 1 \]

    with q the density of the latent sites without factors and observed sites. At each step the
    hottest chains are drawn anew, neighbours propose to swap, and all others are moved. The ladder
    follows the rejections, that all neighbours refuse equally often. Each chain of the pool is such
    a ladder, and only its coldest rung is a draw.

    Args:
        num_temperatures: number T of temperatures.
        program: as `ProgramChains` has it, like what follows.
        *args: further arguments of `ProgramChains`.
    """

    def __init__(self, num_temperatures: int, program: Program, *args: Any) -> None:
        self.num_temperatures = num_temperatures
        hidden = [*program.observed, *program.factors]
        self.own = replace(program, fn=block(program.fn, hide=hidden))
        super().__init__(program, *args)

    @property
    def tuning(self) -> Tuning:
        """What the first moves are steered by."""
        num = self.num_temperatures
        return Tuning(Spacing.first(num), jnp.full(num - 1, first_step(self.continuous)))

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        cold = super().start(random.fold_in(key, 1), params, inputs, rows, at_data)
        shape = rows.shape[0], self.num_temperatures - 1
        others = jnp.repeat(rows, shape[1])
        hot = super().start(random.fold_in(key, 2), params, inputs, others, False)
        hot = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), hot)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, None]], 1), hot, cold)

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Array, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Draw the hottest chains, let neighbours swap, and move the others, time after time."""
        args, num = (params, inputs, rows), self.num_temperatures
        zeros = jnp.zeros(rows.shape[0], self._dtype)

        def body(number: Array, now: Moved) -> Moved:
            keys = random.split(random.fold_in(key, number), 3)
            hot = ProgramChains.start(self, keys[0], *args, False)
            state = jax.tree.map(lambda leaf, new: leaf.at[:, 0].set(new), now.state, hot)
            state, tuning = self._swapped(keys[1], args, state, now.tuning)
            warm = jax.tree.map(lambda leaf: _flat(leaf[:, 1:]), state)
            at = jnp.repeat(rows, num - 1), jnp.tile(tuning.spacing.betas[1:], rows.shape[0])
            found = ProgramChains.move(self, keys[2], params, inputs, at, warm, tuning.log_step, 1)
            state = jax.tree.map(
                lambda leaf, new: leaf.at[:, 1:].set(new.reshape(leaf[:, 1:].shape)),
                state, found.state,
            )  # fmt: skip
            tuning = tuning._replace(log_step=found.tuning)
            rate = found.acceptance.reshape(-1, num - 1)[:, -1]
            worst = jnp.maximum(now.discrepancy, found.discrepancy)
            return Moved(state, tuning, now.acceptance + rate, worst)

        found = lax.fori_loop(0, num_steps, body, Moved(state, tuning, zeros, jnp.zeros(())))
        return found._replace(acceptance=found.acceptance / num_steps)

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the unnormalised log density of each coldest chain, where it lives."""
        return super().log_prob(params, inputs, rows, _coldest(state))

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return the positions of the coldest chains' continuous sites."""
        return super().place(_coldest(state))

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the value of each site in the coldest chains."""
        return super().values(params, inputs, rows, _coldest(state))

    # ------------------------------------------------------------------------------- helpers

    def _view(self, params: Values, inputs: Inputs, row: Any) -> Any:
        """Return the density of a row, or of a row and its inverse temperature."""
        if not isinstance(row, tuple):
            return super()._view(params, inputs, row)
        row, beta = row
        here = self._inputs(inputs, row)
        if self.coordinates is None:
            own: Any = Potential(self.own, params, here)
        else:
            own = Discrete(self.own, self.coordinates, params, here)
        return Between(own, super()._view(params, inputs, row), beta)

    def _anywhere(self, rows: Array) -> Any:
        """Return rows and inverse temperatures."""
        return rows, jnp.full(rows.shape, 0.7)

    def _swapped(
        self, key: Array, args: tuple[Any, ...], state: Any, tuning: Tuning
    ) -> tuple[Any, Tuning]:
        """Let neighbours swap, and move the ladder towards equal rejections."""
        params, inputs, rows = args

        def ratio(x: Array, z: Array, row: Array) -> Array:
            between = self._view(params, inputs, (row, 1.0))
            point = self.unravel(z)
            return between.gain(point) if self.coordinates is None else between.gain(point, x)

        x, z = state
        ratios = jax.vmap(jax.vmap(ratio, (0, 0, None)))(x, z, rows).T
        spacing = tuning.spacing
        turn = tempering.exchange(key, spacing.number, tempering.log_rates(ratios, spacing.betas))
        order = turn.order.T

        def moved(leaf: Array) -> Array:
            return jax.vmap(lambda chain, place: chain[place])(leaf, order)

        return jax.tree.map(moved, state), tuning._replace(spacing=spacing.after(turn))


class TemperedOwnChains(OwnChains):
    """The chain that a ready energy brings along, on a ladder down to independent units.

    Args:
        energy: the ready energy, which has a path.
        num_temperatures: number T of temperatures.
        rates: natural parameters of the independent units.
    """

    def __init__(self, energy: Any, num_temperatures: int, rates: Any) -> None:
        super().__init__(energy)
        self.num_temperatures, self.rates = num_temperatures, rates
        self.tuning = Tuning(Spacing.first(num_temperatures), jnp.zeros(0))

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base rate."""
        energy, num = self.module(params), self.num_temperatures - 1
        own = super().start(random.fold_in(key, 1), params, inputs, rows, at_data)
        path = energy.path_from(self.rates)
        hot = path.start(random.fold_in(key, 2), rows.shape[0] * num)
        return jax.tree.map(
            lambda a, b: jnp.concatenate([a.reshape(-1, num, *a.shape[1:]), b[:, None]], 1),
            hot, energy.to_path(own),
        )  # fmt: skip

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Array, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Let neighbours swap, and run the energy's sweeps at all temperatures, time after time."""
        count = rows.shape[0]
        path = self.module(params).path_from(self.rates).prepared(count)

        def step(number: Array, now: tuple[Any, Spacing]) -> tuple[Any, Spacing]:
            return swapping(path, *now, random.fold_in(key, number))

        turned = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), state)
        found, spacing = lax.fori_loop(0, num_steps, step, (turned, tuning.spacing))
        state = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), found)
        return Moved(state, tuning._replace(spacing=spacing), jnp.ones(count), jnp.zeros(()))

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the log density by which each coldest chain counts, as the energy has it."""
        return super().log_prob(params, inputs, rows, self._own(params, state))

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return nothing: these chains live where their own moves keep them."""
        return super().place(_coldest(state))

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the visible values of the coldest chains."""
        return super().values(params, inputs, rows, self._own(params, state))

    def _own(self, params: Values, state: Any) -> Any:
        return self.module(params).from_path(_coldest(state))


class Between:
    """The density of a program at an inverse temperature, as the kernels ask for it.

    Args:
        own: density of the latent sites alone.
        whole: density of the program.
        beta: inverse temperature above 0.
    """

    def __init__(self, own: Any, whole: Any, beta: Any) -> None:
        self.own, self.whole, self.beta = own, whole, beta
        self.hold = whole.hold if isinstance(whole, Discrete) else None

    def energy(self, *point: Any) -> Float[Array, ""]:
        """Return the potential energy."""
        return self._rest(self.own.energy(*point)) + self.beta * self.whole.energy(*point)

    def gain(self, *point: Any) -> Float[Array, ""]:
        """Return by how much the log density of the program exceeds the sites' own."""
        return self.own.energy(*point) - self.whole.energy(*point)

    def terms(self, x: Array, held: Any) -> Float[Array, " T"]:
        """Return the terms of the log density."""
        own, whole = (density.terms(x, held) for density in (self.own, self.whole))
        return jnp.concatenate([self._rest(own), self.beta * whole])

    def gains(self, x: Array, z: Any) -> tuple[Array, Array]:
        """Return the log density, and about what each value of each coordinate adds to it."""
        own, whole = (density.gains(x, z) for density in (self.own, self.whole))
        return jax.tree.map(lambda a, b: self._rest(a) + self.beta * b, own, whole)

    def _rest(self, own: Array) -> Array:
        """Return the part of the sites' own density; none at the top, be it infinite."""
        return jnp.where(self.beta < 1.0, (1.0 - self.beta) * own, 0.0)


def _flat(leaf: Array) -> Array:
    """Join the first two axes."""
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])


def _coldest(state: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, -1], state)
