"""The restricted Boltzmann machine: visible units of a kind above binary hidden ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.harmonium import Sides, Units, check_units
from deepgen_ppl.pyro.infer.annealed import SidesPath, own_rates
from deepgen_ppl.pyro.nets import as_parameter
from deepgen_ppl.pyro.programs.energy import units as layers
from deepgen_ppl.pyro.programs.energy.ready import Energy, as_numpy, replaced, run_chains


class RBM(Energy):
    r"""A restricted Boltzmann machine, its binary hidden units summed out.

    \[ p^*(x, h) = g(x) \exp(b \cdot f_x + f_x^\top W h + c \cdot h), \qquad
       \log p^*(x) = \log g(x) + b \cdot f_x + \sum_j \log(1 + e^{c_j + (W^\top f_x)_j}) \]

    with statistics f = x of binary units, indicators of categorical ones, and \(x / \sigma\) of
    Gaussian ones, where \(\log g + b \cdot f = -\sum_i (x_i - \mu_i)^2 / 2 \sigma_i^2\),
    \(\mu = b \sigma\).

    It is a ready energy: train it with `dg.contrastive(rbm, x)`, find its log Z with `dg.log_z`,
    run its own chain, one draw of all hidden and one of all visible units a sweep, with `draws`.

    Args:
        visible: number of visible units.
        hidden: number of hidden units.
        units: kind of the visible units: "bernoulli", "gaussian" or "categorical".
        states: number of values of a categorical unit.
        seed: seed of the initial weights, normal of deviation 0.01; biases are zero.

    Raises:
        ValueError: a size is no whole number, or the kind is unknown.

    Cost:
        A product of visible times hidden a value; two a sweep.

    References:
        Smolensky: Information processing in dynamical systems. 1986.
        Hinton: Training products of experts by minimizing contrastive divergence. Neural
        Computation 14(8), 2002. https://doi.org/10.1162/089976602760128018
        Welling, Rosen-Zvi, Hinton: Exponential family harmoniums. NIPS 2004.

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> rbm = dg.RBM(6, 4)
        >>> rbm = rbm.with_log_z(dg.log_z(rbm))
        >>> rbm().log_prob(torch.zeros(3, 6)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        visible: int,
        hidden: int,
        *,
        units: str = "bernoulli",
        states: int | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        self.units = Units(units, whole("visible", visible), check_units(units, states))
        drawn = energies.small_weights(seed, self.units.size, whole("hidden", hidden))
        self.weight = as_parameter(drawn)
        self.visible_bias = as_parameter(np.zeros(self.units.size))
        self.hidden_bias = as_parameter(np.zeros(hidden))
        self.log_scale = as_parameter(np.zeros(visible)) if units == "gaussian" else None
        self.log_z: Evidence | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return (self.units.number,)

    @property
    def num_hidden(self) -> int:
        """Number of hidden units."""
        return self.weight.shape[1]

    def with_weights(self, weight: Any, visible_bias: Any, hidden_bias: Any) -> RBM:
        """Return a copy with other weights.

        Args:
            weight: W, of shape (visible statistics, hidden).
            visible_bias: b, a number for each visible statistic.
            hidden_bias: c, a number for each hidden unit.

        Raises:
            ValueError: an array of another shape.
        """
        given = {"weight": weight, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        own = {name: tuple(getattr(self, name).shape) for name in given}
        energies.check_weights({name: tuple(np.shape(value)) for name, value in given.items()}, own)
        arrays = {name: as_parameter(as_numpy(value)) for name, value in given.items()}
        return replaced(self, **arrays, log_z=None)

    def at_base_rates(self, x: Float[Tensor, "N visible"]) -> RBM:
        """Return a copy whose visible biases give independent units the means of data.

        Args:
            x: data.

        Raises:
            ValueError: data that are none of the visible units' kind.
        """
        energies.check_event(np.shape(x), self.event_shape, "RBM")
        bias, log_scale = energies.base_rates(as_numpy(x), self.units.kind, self.units.states)
        scale = None if log_scale is None else as_parameter(log_scale)
        return replaced(self, visible_bias=as_parameter(bias), log_scale=scale, log_z=None)

    def base(self) -> Any:
        """Return independent visible units that see nothing."""
        return layers.independent(self.units, self.visible_bias, self._scale())

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch"]:
        """Return minus the free energy: the log density but for log Z, hidden units summed out.

        Args:
            x: visible values.
        """
        f = self._statistics(x)
        field = f @ self.weight + self.hidden_bias
        return self._visible_terms(f) + functional.softplus(field).sum(-1)

    def joint_log_prob(
        self, x: Float[Tensor, "*batch visible"], h: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch"]:
        """Return the log density of visible and hidden units but for log Z.

        Args:
            x: visible values.
            h: hidden units, 0 or 1.
        """
        f = self._statistics(x)
        return self._visible_terms(f) + ((f @ self.weight + self.hidden_bias) * h).sum(-1)

    def hidden_mean(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch hidden"]:
        """Return the probabilities of hidden units, features of the visible values.

        Args:
            x: visible values.
        """
        return torch.sigmoid(self._statistics(x) @ self.weight + self.hidden_bias)

    def visible_mean(self, h: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch size"]:
        """Return the means of visible units, probabilities of each value of categorical ones.

        Args:
            h: hidden units, or their probabilities.
        """
        eta = torch.as_tensor(h) @ self.weight.T + self.visible_bias
        found = layers.mean((self.units,), eta)
        scale = self._scale()
        return found if scale is None else found * scale

    def sides(self) -> Sides:
        """Return the energy as one of two sides, the visible one first."""
        constant = torch.zeros(())
        if self.log_scale is not None:
            constant = self.log_scale.sum() - 0.5 * (self.visible_bias**2).sum()
        arrays = (self.weight, self.visible_bias, self.hidden_bias, constant)
        hidden = Units("bernoulli", self.num_hidden)
        return Sides((self.units,), (hidden,), *(array.detach() for array in arrays))

    def path(self, generator: Generator, x: Any = None) -> SidesPath:
        """Return the densities between independent visible units and this energy.

        Args:
            generator: source of the random numbers.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        if x is None:
            own = SidesPath(self.sides(), self.visible_bias)
            return SidesPath(self.sides(), own_rates(own, 100, 200, generator))
        means = as_numpy(self._statistics(x)).mean(0)
        return SidesPath(self.sides(), energies.rates((self.units,), means, len(x)))

    def init_chains(self, generator: Generator | None, num_chains: int) -> tuple[Tensor, Tensor]:
        """Return the state of chains drawn from the visible biases alone.

        Args:
            generator: source of the random numbers, torch's own when None.
            num_chains: number of chains.
        """
        with torch.no_grad():
            eta = self.visible_bias.expand(num_chains, self.units.size)
            return self._with_hidden(generator, layers.draw(generator, (self.units,), eta))

    def chains_at(
        self, generator: Generator | None, x: Float[Tensor, "chain visible"]
    ) -> tuple[Tensor, Tensor]:
        """Return the state of chains with these visible values.

        Args:
            generator: source of the random numbers, torch's own when None, for the hidden units.
            x: a visible value for each chain.
        """
        with torch.no_grad():
            return self._with_hidden(generator, self._statistics(x))

    def step_chains(
        self, generator: Generator | None, state: tuple[Tensor, Tensor], num_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return the state after some sweeps: all visible units, then all hidden ones.

        Args:
            generator: source of the random numbers, torch's own when None.
            state: visible statistics and hidden units of all chains.
            num_steps: number of sweeps.
        """
        f, h = state
        with torch.no_grad():
            for _ in range(num_steps):
                eta = h @ self.weight.T + self.visible_bias
                f, h = self._with_hidden(generator, layers.draw(generator, (self.units,), eta))
        return f, h

    def visible(self, state: tuple[Tensor, Tensor]) -> Float[Tensor, "chain visible"]:
        """Return the visible values of a state.

        Args:
            state: visible statistics and hidden units.
        """
        return layers.values(self.units, state[0], self._scale())

    def draws(
        self, num_chains: int = 100, num_steps: int = 1000, *, seed: int = 0
    ) -> Float[Tensor, "chain visible"]:
        """Return the visible values of chains of its own after some sweeps from the base rates.

        Args:
            num_chains: number of chains.
            num_steps: number of sweeps; how many are enough the energy decides.
            seed: seed of the chains.

        Raises:
            ValueError: a number that is no positive whole one.
        """
        return run_chains(self, num_chains, num_steps, seed)

    def _with_hidden(self, generator: Generator | None, f: Tensor) -> tuple[Tensor, Tensor]:
        field = f @ self.weight + self.hidden_bias
        return f, layers.draw(generator, (Units("bernoulli", self.num_hidden),), field)

    def _scale(self) -> Tensor | None:
        return None if self.log_scale is None else self.log_scale.exp()

    def _statistics(self, x: Any) -> Tensor:
        energies.check_event(np.shape(x), self.event_shape, "RBM")
        return layers.statistics(self.units, x, self._scale())

    def _visible_terms(self, f: Tensor) -> Tensor:
        if self.log_scale is not None:
            return -0.5 * ((f - self.visible_bias) ** 2).sum(-1)
        return f @ self.visible_bias
