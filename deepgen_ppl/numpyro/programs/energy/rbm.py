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
from deepgen_ppl.numpyro.programs.energy import units as layers
from deepgen_ppl.numpyro.programs.energy.harmonium import Harmonium
from deepgen_ppl.numpyro.programs.energy.ready import replaced


class RBM(Harmonium):
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

    def unnormalised_log_prob(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch"]:
        """Return minus the free energy: the log density but for log Z, hidden units summed out.

        Args:
            x: visible values.
        """
        return self.first_log_prob(self.statistics(x))

    def training_log_prob(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch"]:
        """Return the unnormalised log density of data, products of binary units in halves.

        Args:
            x: values, zeros and ones where units are binary.
        """
        return self._first_log_prob(self.statistics(x), layers.is_binary((self.units,)))

    def joint_log_prob(
        self, x: Float[Array, "*batch visible"], h: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch"]:
        """Return the log density of visible and hidden units but for log Z.

        Args:
            x: visible values.
            h: hidden units, 0 or 1.
        """
        return self.both_log_prob(self.statistics(x), h)

    def hidden_mean(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch hidden"]:
        """Return the probabilities of hidden units, features of the visible values.

        Args:
            x: visible values.
        """
        return jax.nn.sigmoid(self.statistics(x) @ self.weight + self.hidden_bias)

    def visible_mean(self, h: Float[Array, "*batch hidden"]) -> Float[Array, "*batch size"]:
        """Return the means of visible units, probabilities of each value of categorical ones.

        Args:
            h: hidden units, or their probabilities.
        """
        eta = jnp.asarray(h, float) @ self.weight.T + self.visible_bias
        found = layers.mean((self.units,), eta)
        scale = self.scale()
        return found if scale is None else found * scale

    def parts(self) -> Sides:
        """Return the energy as one of two sides, the visible one first, with its gradients."""
        hidden = Units("bernoulli", self.num_hidden)
        constant = self.gaussian_constant(self.visible_bias)
        arrays = (self.weight, self.visible_bias, self.hidden_bias, constant)
        return Sides((self.units,), (hidden,), *arrays)

    def first_means(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch size"]:
        """Return the statistics of visible values.

        Args:
            x: visible values.
        """
        return self.statistics(x)
