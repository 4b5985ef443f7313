"""What machines of two sides of units have in common: densities, their own chain, their path."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient
from jaxtyping import Float

from deepgen_ppl import energies
from deepgen_ppl.harmonium import Sides, Units
from deepgen_ppl.numpyro.infer.annealed import SidesPath, own_rates
from deepgen_ppl.numpyro.programs.energy import halves
from deepgen_ppl.numpyro.programs.energy import units as layers
from deepgen_ppl.numpyro.programs.energy.ready import Energy, replaced, run_chains


class Harmonium(Energy):
    r"""A machine whose units fall into two sides, none of which touches another of its own side.

    \[ \log p^*(f, g) = \log g(f) + a \cdot f + f^\top W g + b \cdot g \]

    The visible units come first on the first side; what else stands there is hidden. A kind says
    what `parts`, `first_means` and `unnormalised_log_prob` are. Its chain draws one
    side given the other, in turn.
    """

    units: eqx.AbstractVar[Units]
    visible_bias: eqx.AbstractVar[Array]
    log_scale: eqx.AbstractVar[Array | None]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return (self.units.number,)

    @abstractmethod
    def parts(self) -> Sides:
        """Return the energy as one of two sides, the visible one first, with its gradients."""

    def sides(self) -> Sides:
        """Return the energy as one of two sides, the visible one first."""
        parts = self.parts()
        return Sides(*parts[:2], *map(stop_gradient, parts[2:]))

    @abstractmethod
    def first_means(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch first"]:
        """Return statistics of visible values, and means of what is hidden on their side.

        Args:
            x: visible values.
        """

    def chains_at(self, key: Array, x: Float[Array, "chain visible"]) -> tuple[Array, Array]:
        """Return the state of chains with these visible values.

        Args:
            key: random key, for the other units.
            x: a visible value for each chain.
        """
        return self.with_second(key, self.first_means(x))

    def base(self) -> Any:
        """Return independent visible units that see nothing."""
        return layers.independent(self.units, self.visible_bias, self.scale())

    def at_base_rates(self, x: Float[Array, "N visible"]) -> Self:
        """Return a copy whose visible biases give independent units the means of data.

        Args:
            x: data.

        Raises:
            ValueError: data that are none of the visible units' kind.
        """
        energies.check_event(jnp.shape(x), self.event_shape, type(self).__name__)
        bias, log_scale = energies.base_rates(np.asarray(x), self.units.kind, self.units.states)
        scale = None if log_scale is None else jnp.asarray(log_scale, float)
        return replaced(self, visible_bias=jnp.asarray(bias, float), log_scale=scale, log_z=None)

    def path(self, key: Array, x: Any = None) -> SidesPath:
        """Return the densities between independent units of the first side and this energy.

        Args:
            key: random key.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        return self.path_from(self.rates(key, x))

    def rates(self, key: Array, x: Any = None) -> np.ndarray:
        """Return the natural parameters of independent units of the first side.

        Args:
            key: random key.
            x: rows whose base rates they have; those of chains of its own without them.
        """
        sides = self.sides()
        if x is None:
            return own_rates(SidesPath(sides, sides.first_bias), 100, 200, key)
        means = np.asarray(self.first_means(x)).mean(0)
        return energies.rates(sides.first, means, len(x))

    def path_from(self, rates: Any) -> SidesPath:
        """Return the densities between units of these natural parameters and this energy."""
        return SidesPath(self.sides(), rates)

    def to_path(self, state: tuple[Array, Array]) -> Array:
        """Return the state of chains on the path, which is their first side."""
        return state[0]

    def from_path(self, state: Array) -> tuple[Array, Array]:
        """Return the state of chains from theirs on the path, the second side at its means."""
        sides = self.sides()
        return state, layers.mean(sides.second, state @ sides.weight + sides.second_bias)

    def init_chains(self, key: Array, num_chains: int) -> tuple[Array, Array]:
        """Return the state of chains drawn from the biases of the first side alone.

        Args:
            key: random key.
            num_chains: number of chains.
        """
        sides = self.sides()
        eta = jnp.broadcast_to(sides.first_bias, (num_chains, *sides.first_bias.shape))
        return self.with_second(key, layers.draw(key, sides.first, eta, 0))

    def step_chains(
        self, key: Array, state: tuple[Array, Array], num_steps: int
    ) -> tuple[Array, Array]:
        """Return the state after some sweeps: all units of the first side, then of the second.

        Args:
            key: random key.
            state: statistics of both sides, of all chains.
            num_steps: number of sweeps.
        """
        sides, rows = self.sides(), state[1].shape[0]
        below = halves.prepared(sides.weight, rows, layers.is_binary(sides.second))
        above = halves.prepared(sides.weight, rows, layers.is_binary(sides.first))

        def sweep(step: Any, g: Array) -> tuple[Array, Array]:
            eta = halves.product_back(g, below) + sides.first_bias
            f = layers.draw(key, sides.first, eta, 2 * step)
            field = halves.product(f, above) + sides.second_bias
            return f, layers.draw(key, sides.second, field, 2 * step + 1)

        # The last sweep stands outside of the loop: its field is what the gradient needs too.
        g = jax.lax.fori_loop(0, num_steps - 1, lambda i, g: sweep(i, g)[1], state[1])
        return sweep(num_steps - 1, g)

    def visible(self, state: tuple[Array, Array]) -> Float[Array, "chain visible"]:
        """Return the visible values of a state.

        Args:
            state: statistics of both sides.
        """
        return layers.values(self.units, state[0][..., : self.units.size], self.scale())

    def chain_log_prob(self, state: tuple[Array, Array]) -> Float[Array, " chain"]:
        """Return the unnormalised log density of the first side, the second summed out.

        Args:
            state: statistics of both sides, of all chains.
        """
        f = stop_gradient(state[0])
        scale = self.scale()
        if scale is not None:  # the visible values stay as they are where their scale moves
            copies = _copies(self.parts())
            ratio = jnp.tile(stop_gradient(scale) / scale, copies)
            f = jnp.concatenate([f[..., : len(ratio)] * ratio, f[..., len(ratio) :]], -1)
        return self._first_log_prob(f, layers.is_binary(self.parts().first))

    def draws(
        self,
        num_chains: int = 100,
        num_steps: int = 1000,
        *,
        num_temperatures: int = 1,
        x: Any = None,
        seed: int | Array = 0,
    ) -> Float[Array, "chain visible"]:
        """Return the visible values of chains of its own after some sweeps from the base rates.

        Args:
            num_chains: number of chains.
            num_steps: number of sweeps; how many are enough the energy decides.
            num_temperatures: with more than one each chain swaps with others, down to independent
                units, and so reaches modes that no plain chain crosses to.
            x: rows whose base rates those units have; those of plain chains without them.
            seed: seed of the chains.

        Raises:
            ValueError: a number that is no positive whole one.

        Cost:
            Sweeps of as many chains times temperatures.
        """
        return run_chains(self, num_chains, num_steps, seed, num_temperatures, x)

    def first_log_prob(self, f: Float[Array, "*batch first"]) -> Float[Array, "*batch"]:
        """Return the unnormalised log density of the first side, the second summed out.

        Args:
            f: statistics of the first side.
        """
        return self._first_log_prob(f, False)

    def both_log_prob(
        self, f: Float[Array, "*batch first"], g: Float[Array, "*batch second"]
    ) -> Float[Array, "*batch"]:
        """Return the unnormalised log density of both sides.

        Args:
            f: statistics of the first side.
            g: those of the second.
        """
        sides = self.parts()
        return self._first_terms(sides, f) + ((f @ sides.weight + sides.second_bias) * g).sum(-1)

    def with_second(self, key: Array, f: Array) -> tuple[Array, Array]:
        """Return the state of chains whose first side is this, the second drawn.

        Args:
            key: random key.
            f: statistics of the first side.
        """
        sides = self.sides()
        field = f @ sides.weight + sides.second_bias
        return f, layers.draw(key, sides.second, field, 1)

    def scale(self) -> Array | None:
        """Return the deviations of Gaussian units, None of others."""
        return None if self.log_scale is None else jnp.exp(self.log_scale)

    def statistics(self, x: Any) -> Array:
        """Return the statistics of visible values.

        Args:
            x: visible values.

        Raises:
            ValueError: values of another shape.
        """
        energies.check_event(jnp.shape(x), self.event_shape, type(self).__name__)
        return layers.statistics(self.units, x, self.scale())

    def gaussian_constant(self, bias: Array, copies: int = 1) -> Array:
        """Return what makes the terms of Gaussian units squares, with their volume.

        Args:
            bias: their biases.
            copies: how many layers of them there are.
        """
        if self.log_scale is None:
            return jnp.zeros(())
        return copies * (self.log_scale.sum() - 0.5 * (bias**2).sum())

    def _first_log_prob(self, f: Array, is_binary: bool) -> Array:
        """Return it, by products in halves where statistics are zeros and ones."""
        sides = self.parts()
        field = halves.field(f, sides.weight, is_binary) + sides.second_bias
        return self._first_terms(sides, f) + layers.log_partition(sides.second, field)

    def _first_terms(self, sides: Sides, f: Array) -> Array:
        found = layers.log_base(sides.first, f) + f @ sides.first_bias
        if self.log_scale is None:
            return found
        return found + sides.constant - _copies(sides) * self.log_scale.sum()


def _copies(sides: Sides) -> int:
    """Return how many layers are Gaussian ones, copies of the visible layer."""
    return sum(units.kind == "gaussian" for units in sides.first)
