"""The restricted Boltzmann machine: visible units of a kind above binary hidden ones."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.harmonium import Sides, Units, check_units
from deepgen_ppl.numpyro.infer.annealed import SidesPath, own_rates
from deepgen_ppl.numpyro.programs.energy import units as layers
from deepgen_ppl.numpyro.programs.energy.ready import Energy, replaced, run_chains


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
        >>> import deepgen_ppl.numpyro as dg
        >>> rbm = dg.RBM(6, 4)
        >>> rbm = rbm.with_log_z(dg.log_z(rbm))
        >>> rbm().log_prob(jnp.zeros((3, 6))).shape
        (3,)
    """

    weight: Array
    visible_bias: Array
    hidden_bias: Array
    log_scale: Array | None
    units: Units = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self,
        visible: int,
        hidden: int,
        *,
        units: str = "bernoulli",
        states: int | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        self.units = Units(units, whole("visible", visible), check_units(units, states))
        drawn = energies.small_weights(seed, self.units.size, whole("hidden", hidden))
        self.weight = jnp.asarray(drawn, float)
        self.visible_bias, self.hidden_bias = jnp.zeros(self.units.size), jnp.zeros(hidden)
        self.log_scale = jnp.zeros(visible) if units == "gaussian" else None
        self.log_z = None

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
        own = {name: getattr(self, name).shape for name in given}
        energies.check_weights({name: np.shape(value) for name, value in given.items()}, own)
        arrays = {name: jnp.asarray(value, float) for name, value in given.items()}
        return replaced(self, **arrays, log_z=None)

    def at_base_rates(self, x: Float[Array, "N visible"]) -> RBM:
        """Return a copy whose visible biases give independent units the means of data.

        Args:
            x: data.

        Raises:
            ValueError: data that are none of the visible units' kind.
        """
        energies.check_event(jnp.shape(x), self.event_shape, "RBM")
        bias, log_scale = energies.base_rates(np.asarray(x), self.units.kind, self.units.states)
        scale = None if log_scale is None else jnp.asarray(log_scale, float)
        return replaced(self, visible_bias=jnp.asarray(bias, float), log_scale=scale, log_z=None)

    def base(self) -> Any:
        """Return independent visible units that see nothing."""
        return layers.independent(self.units, self.visible_bias, self._scale())

    def unnormalised_log_prob(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch"]:
        """Return minus the free energy: the log density but for log Z, hidden units summed out.

        Args:
            x: visible values.
        """
        f = self._statistics(x)
        field = f @ self.weight + self.hidden_bias
        return self._visible_terms(f) + jax.nn.softplus(field).sum(-1)

    def joint_log_prob(
        self, x: Float[Array, "*batch visible"], h: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch"]:
        """Return the log density of visible and hidden units but for log Z.

        Args:
            x: visible values.
            h: hidden units, 0 or 1.
        """
        f = self._statistics(x)
        return self._visible_terms(f) + ((f @ self.weight + self.hidden_bias) * h).sum(-1)

    def hidden_mean(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch hidden"]:
        """Return the probabilities of hidden units, features of the visible values.

        Args:
            x: visible values.
        """
        return jax.nn.sigmoid(self._statistics(x) @ self.weight + self.hidden_bias)

    def visible_mean(self, h: Float[Array, "*batch hidden"]) -> Float[Array, "*batch size"]:
        """Return the means of visible units, probabilities of each value of categorical ones.

        Args:
            h: hidden units, or their probabilities.
        """
        eta = jnp.asarray(h, float) @ self.weight.T + self.visible_bias
        found = layers.mean((self.units,), eta)
        scale = self._scale()
        return found if scale is None else found * scale

    def sides(self) -> Sides:
        """Return the energy as one of two sides, the visible one first."""
        constant = jnp.zeros(())
        if self.log_scale is not None:
            constant = self.log_scale.sum() - 0.5 * (self.visible_bias**2).sum()
        hidden = Units("bernoulli", self.num_hidden)
        return Sides(
            (self.units,), (hidden,), self.weight, self.visible_bias, self.hidden_bias, constant
        )

    def path(self, key: Array, x: Any = None) -> SidesPath:
        """Return the densities between independent visible units and this energy.

        Args:
            key: random key.
            x: rows whose base rates the path starts from; those of chains of its own without them.
        """
        if x is None:
            own = SidesPath(self.sides(), self.visible_bias)
            return SidesPath(self.sides(), own_rates(own, 100, 200, key))
        means = np.asarray(self._statistics(x)).mean(0)
        return SidesPath(self.sides(), energies.rates((self.units,), means, len(x)))

    def init_chains(self, key: Array, num_chains: int) -> tuple[Array, Array]:
        """Return the state of chains drawn from the visible biases alone.

        Args:
            key: random key.
            num_chains: number of chains.
        """
        eta = jnp.broadcast_to(self.visible_bias, (num_chains, self.units.size))
        return self._with_hidden(key, layers.draw(key, (self.units,), eta, 0), 1)

    def chains_at(self, key: Array, x: Float[Array, "chain visible"]) -> tuple[Array, Array]:
        """Return the state of chains with these visible values.

        Args:
            key: random key, for the hidden units.
            x: a visible value for each chain.
        """
        return self._with_hidden(key, self._statistics(x), 0)

    def step_chains(
        self, key: Array, state: tuple[Array, Array], num_steps: int
    ) -> tuple[Array, Array]:
        """Return the state after some sweeps: all visible units, then all hidden ones.

        Args:
            key: random key.
            state: visible statistics and hidden units of all chains.
            num_steps: number of sweeps.
        """

        def sweep(step: Any, h: Array) -> tuple[Array, Array]:
            eta = h @ self.weight.T + self.visible_bias
            return self._with_hidden(
                key, layers.draw(key, (self.units,), eta, 2 * step), 2 * step + 1
            )

        # The last sweep stands outside of the loop: its field is what the gradient needs too.
        h = jax.lax.fori_loop(0, num_steps - 1, lambda i, h: sweep(i, h)[1], state[1])
        return sweep(num_steps - 1, h)

    def visible(self, state: tuple[Array, Array]) -> Float[Array, "chain visible"]:
        """Return the visible values of a state.

        Args:
            state: visible statistics and hidden units.
        """
        return layers.values(self.units, state[0], self._scale())

    def draws(
        self, num_chains: int = 100, num_steps: int = 1000, *, seed: int | Array = 0
    ) -> Float[Array, "chain visible"]:
        """Return the visible values of chains of its own after some sweeps from the base rates.

        Args:
            num_chains: number of chains.
            num_steps: number of sweeps; how many are enough the energy decides.
            seed: seed of the chains.

        Raises:
            ValueError: a number that is no positive whole one.
        """
        return run_chains(self, num_chains, num_steps, seed)

    def _with_hidden(self, key: Array, f: Array, stream: Any) -> tuple[Array, Array]:
        field = f @ self.weight + self.hidden_bias
        return f, layers.draw(key, (Units("bernoulli", self.num_hidden),), field, stream)

    def _scale(self) -> Array | None:
        return None if self.log_scale is None else jnp.exp(self.log_scale)

    def _statistics(self, x: Any) -> Array:
        energies.check_event(jnp.shape(x), self.event_shape, "RBM")
        return layers.statistics(self.units, x, self._scale())

    def _visible_terms(self, f: Array) -> Array:
        if self.log_scale is not None:
            return -0.5 * ((f - self.visible_bias) ** 2).sum(-1)
        return f @ self.visible_bias
