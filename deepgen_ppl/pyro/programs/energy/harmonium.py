"""What machines of two sides of units have in common: densities, their own chain, their path."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from deepgen_ppl import energies
from deepgen_ppl.harmonium import Sides, Units
from deepgen_ppl.pyro.infer.annealed import SidesPath, own_rates
from deepgen_ppl.pyro.nets import as_parameter
from deepgen_ppl.pyro.programs.energy import units as layers
from deepgen_ppl.pyro.programs.energy.ready import Energy, as_numpy, replaced, run_chains


class Harmonium(Energy):
    r"""A machine whose units fall into two sides, none of which touches another of its own side.

    \[ \log p^*(f, g) = \log g(f) + a \cdot f + f^\top W g + b \cdot g \]

    The visible units come first on the first side; what else stands there is hidden. A kind says
    what `parts`, `first_means` and `unnormalised_log_prob` are. Its chain draws one
    side given the other, in turn.
    """

    units: Units
    visible_bias: Tensor
    log_scale: Tensor | None

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
        return Sides(*parts[:2], *(array.detach() for array in parts[2:]))

    @abstractmethod
    def first_means(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch first"]:
        """Return statistics of visible values, and means of what is hidden on their side.

        Args:
            x: visible values.
        """

    def chains_at(
        self, generator: Generator | None, x: Float[Tensor, "chain visible"]
    ) -> tuple[Tensor, Tensor]:
        """Return the state of chains with these visible values.

        Args:
            generator: source of the random numbers, torch's own when None, for the other units.
            x: a visible value for each chain.
        """
        with torch.no_grad():
            return self.with_second(generator, self.first_means(x))

    def base(self) -> Any:
        """Return independent visible units that see nothing."""
        return layers.independent(self.units, self.visible_bias, self.scale())

    def at_base_rates(self, x: Float[Tensor, "N visible"]) -> Self:
        """Return a copy whose visible biases give independent units the means of data.

        Args:
            x: data.

        Raises:
            ValueError: data that are none of the visible units' kind.
        """
        energies.check_event(np.shape(x), self.event_shape, type(self).__name__)
        bias, log_scale = energies.base_rates(as_numpy(x), self.units.kind, self.units.states)
        scale = None if log_scale is None else as_parameter(log_scale)
        return replaced(self, visible_bias=as_parameter(bias), log_scale=scale, log_z=None)

    def path(self, generator: Generator, x: Any = None) -> SidesPath:
        """Return the densities between independent units of the first side and this energy.

        Args:
            generator: source of the random numbers.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        return self.path_from(self.rates(generator, x))

    def rates(self, generator: Generator, x: Any = None) -> np.ndarray:
        """Return the natural parameters of independent units of the first side.

        Args:
            generator: source of the random numbers.
            x: rows whose base rates they have; those of chains of its own without them.
        """
        sides = self.sides()
        if x is None:
            return own_rates(SidesPath(sides, sides.first_bias), 100, 200, generator)
        means = as_numpy(self.first_means(x)).mean(0)
        return energies.rates(sides.first, means, len(x))

    def path_from(self, rates: Any) -> SidesPath:
        """Return the densities between units of these natural parameters and this energy."""
        return SidesPath(self.sides(), rates)

    def to_path(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return the state of chains on the path, which is their first side."""
        return state[0]

    def from_path(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state of chains from theirs on the path, the second side at its means."""
        sides = self.sides()
        return state, layers.mean(sides.second, state @ sides.weight + sides.second_bias)

    def init_chains(self, generator: Generator | None, num_chains: int) -> tuple[Tensor, Tensor]:
        """Return the state of chains drawn from the biases of the first side alone.

        Args:
            generator: source of the random numbers, torch's own when None.
            num_chains: number of chains.
        """
        sides = self.sides()
        eta = sides.first_bias.expand(num_chains, *sides.first_bias.shape)
        return self.with_second(generator, layers.draw(generator, sides.first, eta))

    def step_chains(
        self, generator: Generator | None, state: tuple[Tensor, Tensor], num_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return the state after some sweeps: all units of the first side, then of the second.

        Args:
            generator: source of the random numbers, torch's own when None.
            state: statistics of both sides, of all chains.
            num_steps: number of sweeps.
        """
        sides, (f, g) = self.sides(), state
        with torch.no_grad():
            for _ in range(num_steps):
                eta = g @ sides.weight.T + sides.first_bias
                f = layers.draw(generator, sides.first, eta)
                g = layers.draw(generator, sides.second, f @ sides.weight + sides.second_bias)
        return f, g

    def visible(self, state: tuple[Tensor, Tensor]) -> Float[Tensor, "chain visible"]:
        """Return the visible values of a state.

        Args:
            state: statistics of both sides.
        """
        return layers.values(self.units, state[0][..., : self.units.size], self.scale())

    def chain_log_prob(self, state: tuple[Tensor, Tensor]) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of the first side, the second summed out.

        Args:
            state: statistics of both sides, of all chains.
        """
        f = state[0].detach()
        scale = self.scale()
        if scale is not None:  # the visible values stay as they are where their scale moves
            copies = _copies(self.parts())
            ratio = (scale.detach() / scale).repeat(copies)
            f = torch.cat([f[..., : len(ratio)] * ratio, f[..., len(ratio) :]], -1)
        return self.first_log_prob(f)

    def draws(
        self,
        num_chains: int = 100,
        num_steps: int = 1000,
        *,
        num_temperatures: int = 1,
        x: Any = None,
        seed: int = 0,
    ) -> Float[Tensor, "chain visible"]:
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

    def first_log_prob(self, f: Float[Tensor, "*batch first"]) -> Float[Tensor, "*batch"]:
        """Return the unnormalised log density of the first side, the second summed out.

        Args:
            f: statistics of the first side.
        """
        sides = self.parts()
        field = f @ sides.weight + sides.second_bias
        return self._first_terms(sides, f) + layers.log_partition(sides.second, field)

    def both_log_prob(
        self, f: Float[Tensor, "*batch first"], g: Float[Tensor, "*batch second"]
    ) -> Float[Tensor, "*batch"]:
        """Return the unnormalised log density of both sides.

        Args:
            f: statistics of the first side.
            g: those of the second.
        """
        sides = self.parts()
        return self._first_terms(sides, f) + ((f @ sides.weight + sides.second_bias) * g).sum(-1)

    def with_second(self, generator: Generator | None, f: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state of chains whose first side is this, the second drawn.

        Args:
            generator: source of the random numbers, torch's own when None.
            f: statistics of the first side.
        """
        sides = self.sides()
        with torch.no_grad():
            field = f @ sides.weight + sides.second_bias
            return f, layers.draw(generator, sides.second, field)

    def scale(self) -> Tensor | None:
        """Return the deviations of Gaussian units, None of others."""
        return None if self.log_scale is None else self.log_scale.exp()

    def statistics(self, x: Any) -> Tensor:
        """Return the statistics of visible values.

        Args:
            x: visible values.

        Raises:
            ValueError: values of another shape.
        """
        energies.check_event(np.shape(x), self.event_shape, type(self).__name__)
        return layers.statistics(self.units, x, self.scale())

    def gaussian_constant(self, bias: Tensor, copies: int = 1) -> Tensor:
        """Return what makes the terms of Gaussian units squares, with their volume.

        Args:
            bias: their biases.
            copies: how many layers of them there are.
        """
        if self.log_scale is None:
            return torch.zeros(())
        return copies * (self.log_scale.sum() - 0.5 * (bias**2).sum())

    def _first_terms(self, sides: Sides, f: Tensor) -> Tensor:
        found = layers.log_base(sides.first, f) + f @ sides.first_bias
        if self.log_scale is None:
            return found
        return found + sides.constant - _copies(sides) * self.log_scale.sum()


def _copies(sides: Sides) -> int:
    """Return how many layers are Gaussian ones, copies of the visible layer."""
    return sum(units.kind == "gaussian" for units in sides.first)
