"""The deep Boltzmann machine: layers of binary hidden units, each of which sees its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.lax import stop_gradient
from jaxtyping import Float

from deepgen_ppl import boltzmann, energies, harmonium
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.harmonium import Sides, Units, check_units
from deepgen_ppl.numpyro.nets import MLP
from deepgen_ppl.numpyro.programs.energy.harmonium import Harmonium
from deepgen_ppl.numpyro.programs.energy.ready import replaced


class DBM(Harmonium):
    r"""A deep Boltzmann machine of any depth, its hidden units bounded by a mean field.

    \[ p^*(x, h) = g(x) \exp\Bigl(b \cdot f_x + f_x^\top W_1 h_1 + \sum_{l > 1} h_{l-1}^\top W_l h_l
       + \sum_l c_l \cdot h_l\Bigr) \]
    \[ \log p^*(x) \ge \max_\mu \; \mathbb E_\mu \log p^*(x, h) + H(\mu) \]

    Layers of even number touch those of odd number only, so a sweep of its own chain draws all even
    layers at once and then all odd ones; the odd ones are summed out where log Z is annealed or
    listed. `unnormalised_log_prob`, and with a log Z `log_prob`, are the lower bounds of the mean
    field \(\mu\), independent hidden units; `summed_log_prob` is exact where layers are small.

    It is a ready energy: start it with `dg.pretrain_dbm(dbm, x)` or `dbm.centred(x)`, train it with
    `dg.contrastive(dbm, x)`, whose positive phase follows the bound and whose negative phase runs
    persistent chains, and find its log Z with `dg.log_z`.

    Args:
        visible: number of visible units.
        hidden: number of units of each hidden layer, from the lowest one.
        units: kind of the visible units: "bernoulli", "gaussian" or "categorical".
        states: number of values of a categorical unit.
        mean_field_steps: sweeps of the mean field.
        seed: seed of the initial weights, normal of deviation 0.01; biases are zero.

    Raises:
        ValueError: a size is no whole number, there is no hidden layer, or the kind is unknown.

    Cost:
        A product of each weight matrix for a sweep of the chain's sides, and for one of the mean
        field, whose visible product is done once.

    References:
        Salakhutdinov, Hinton: Deep Boltzmann machines. AISTATS 2009.
        https://proceedings.mlr.press/v5/salakhutdinov09a.html
        Salakhutdinov, Larochelle: Efficient learning of deep Boltzmann machines. AISTATS 2010.
        https://proceedings.mlr.press/v9/salakhutdinov10a.html

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> dbm = dg.DBM(6, (4, 3))
        >>> dbm = dbm.with_log_z(dg.log_z(dbm))
        >>> dbm().log_prob(jnp.zeros((3, 6))).shape
        (3,)
    """

    counts_visible: ClassVar[bool] = False
    weights: tuple[Array, ...]
    visible_bias: Array
    hidden_biases: tuple[Array, ...]
    log_scale: Array | None
    units: Units = eqx.field(static=True)
    means: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)
    mean_field_steps: int = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self,
        visible: int,
        hidden: Sequence[int] = (500, 500),
        *,
        units: str = "bernoulli",
        states: int | None = None,
        mean_field_steps: int = 10,
        seed: int | np.random.Generator = 0,
    ) -> None:
        self.units = Units(units, whole("visible", visible), check_units(units, states))
        sizes = (self.units.size, *boltzmann.check_hidden_layers(hidden))
        self.mean_field_steps = whole("mean_field_steps", mean_field_steps)
        drawn = boltzmann.small_matrices(seed, sizes)
        self.weights = tuple(jnp.asarray(w, float) for w in drawn)
        self.visible_bias = jnp.zeros(sizes[0])
        self.hidden_biases = tuple(jnp.zeros(size) for size in sizes[1:])
        self.log_scale = jnp.zeros(visible) if units == "gaussian" else None
        self.means, self.log_z = None, None

    @property
    def hidden(self) -> tuple[int, ...]:
        """Number of units of each hidden layer."""
        return tuple(bias.shape[0] for bias in self.hidden_biases)

    @property
    def offsets(self) -> tuple[Array, ...] | None:
        """Means of each layer that the energy is written about, None where it is not centred."""
        return None if self.means is None else tuple(jnp.asarray(m, float) for m in self.means)

    @property
    def biases(self) -> tuple[Array, ...]:
        """Biases of each layer, from the visible one: what its units get where others are zero."""
        own = (self.visible_bias, *self.hidden_biases)
        if self.offsets is None:
            return own
        shifts = boltzmann.shifts(self.weights, self.offsets)
        return tuple(b - shift for b, shift in zip(own, shifts, strict=True))

    def with_weights(self, weights: Sequence[Any], biases: Sequence[Any]) -> DBM:
        """Return a copy with other weights, not centred.

        Args:
            weights: the matrix of each layer to the one above, from the visible one.
            biases: the biases of each layer, from the visible one.

        Raises:
            ValueError: an array of another shape, or another number of them.
        """
        own = [w.shape for w in self.weights], [b.shape for b in self.biases]
        boltzmann.check_layer_weights(weights, biases, *own)
        made = [tuple(jnp.asarray(x, float) for x in given) for given in (weights, biases)]
        return replaced(
            self, weights=made[0], visible_bias=made[1][0], hidden_biases=made[1][1:],
            means=None, log_z=None,
        )  # fmt: skip

    def centred(self, x: Float[Array, "N visible"]) -> DBM:
        r"""Return the same density, its energy written about the means that data give its units.

        \[ b_l \cdot h_l = \Bigl(b'_l - W_l^\top m_{l-1} - W_{l+1} m_{l+1}\Bigr) \cdot h_l \]

        with means m of the data and of the mean field, held fixed, and biases b' in place of b as
        what is learned. Gradients of the weights are then covariances, not products that biases
        could follow as well; so a machine can be trained from small weights, without layers that
        were pretrained. Means move on in training: call it again between runs.

        Args:
            x: data.

        Raises:
            ValueError: data that the visible units do not take.

        References:
            Montavon, Mueller: Deep Boltzmann machines and the centering trick. In Neural Networks:
            Tricks of the Trade, 2012. https://doi.org/10.1007/978-3-642-35289-8_33

            Melchior, Fischer, Wiskott: How to center deep Boltzmann machines. JMLR 17, 2016.
            https://jmlr.org/papers/v17/14-237.html

        Example:
            >>> dbm, x = DBM(6, (4, 3)), np.eye(6)
            >>> moved = dbm.centred(x).unnormalised_log_prob(x) - dbm.unnormalised_log_prob(x)
            >>> bool(abs(moved).max() < 1e-5)
            True
        """
        f = self.statistics(x)
        energies.check_values(np.asarray(x), self.units.kind, self.units.states)
        means = [np.asarray(part).mean(0) for part in (f, *self.hidden_means(x))]
        shifts = boltzmann.shifts([np.asarray(w) for w in self.weights], means)
        made = tuple(jnp.asarray(b + s, float) for b, s in zip(self.biases, shifts, strict=True))
        held = tuple(tuple(part.tolist()) for part in means)
        return replaced(self, visible_bias=made[0], hidden_biases=made[1:], means=held)

    def with_scale(self, log_scale: Float[Array, " visible"]) -> DBM:
        """Return a copy whose Gaussian units have other deviations.

        Args:
            log_scale: their logarithms.

        Raises:
            ValueError: the units are not Gaussian, or there is another number of them.
        """
        own = () if self.log_scale is None else self.log_scale.shape
        energies.check_weights({"log_scale": np.shape(log_scale)}, {"log_scale": own})
        return replaced(self, log_scale=jnp.asarray(log_scale, float), log_z=None)

    def unnormalised_log_prob(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch"]:
        r"""Return the lower bound of the mean field on the log density but for log Z.

        At means of the even layers the best ones of the odd layers are closed, so that the bound is
        that of their free energy, \(\log p^*(f_x, \mu_2, ...) + H(\mu_2, ...)\). Its gradient is
        taken at fixed means, where it is the mean gradient of the joint density.

        Args:
            x: visible values.
        """
        f = self.first_means(x)
        mu = f[..., self.units.size :]
        return self.first_log_prob(f) + _entropy(mu).sum(-1)

    def summed_log_prob(self, x: Float[Array, "N visible"]) -> Float[np.ndarray, " N"]:
        """Return the log density but for log Z, hidden units summed out exactly.

        Args:
            x: rows of visible values.

        Raises:
            ValueError: both the even and the odd hidden layers have more than 25 units.

        Cost:
            The states of the smaller of the two groups of layers, for each row.
        """
        sides, f = self.sides(), np.asarray(self.statistics(x), np.float64)
        constant = 0.0 if self.log_scale is None else float(self.log_scale.sum())
        return harmonium.rows_log_sums(sides, f) - constant

    def joint_log_prob(
        self, x: Float[Array, "*batch visible"], *hidden: Float[Array, "*batch layer"]
    ) -> Float[Array, "*batch"]:
        """Return the log density of visible and hidden units but for log Z.

        Args:
            x: visible values.
            *hidden: units of each hidden layer, 0 or 1.

        Raises:
            ValueError: another number of layers.
        """
        boltzmann.check_layers(len(hidden), len(self.hidden))
        found = [self.statistics(x), *(jnp.asarray(h, float) for h in hidden)]
        batch = jnp.broadcast_shapes(*(part.shape[:-1] for part in found))
        found = [jnp.broadcast_to(part, (*batch, part.shape[-1])) for part in found]
        f, g = jnp.concatenate(found[::2], -1), jnp.concatenate(found[1::2], -1)
        return self.both_log_prob(f, g)

    def hidden_means(self, x: Float[Array, "*batch visible"]) -> tuple[Array, ...]:
        """Return the mean field: means of the units of each hidden layer given visible values.

        Args:
            x: visible values.
        """
        sides, f = self.parts(), self.first_means(x)
        odd = jax.nn.sigmoid(f @ sides.weight + sides.second_bias)
        even = _cut(f[..., self.units.size :], self.hidden[1::2])
        odds = _cut(odd, self.hidden[::2])
        return tuple(odds[i // 2] if i % 2 == 0 else even[i // 2] for i in range(len(self.hidden)))

    def classifier(self, classes: int, *, seed: int | np.random.Generator = 0) -> MLP:
        """Return a feed-forward network that begins with this machine's layers.

        Its hidden layers are the bottom-up pass: weights are doubled below the top, for what the
        layer above would add; the last layer, to the classes, is new.

        Args:
            classes: number of outputs.
            seed: seed of the last layer.
        """
        net = MLP(self.units.size, classes, self.hidden, activation="sigmoid", seed=seed)
        gains = boltzmann.recognition_gains(len(self.hidden))
        weights = tuple(w * gain for w, gain in zip(self.weights, gains, strict=True))
        biases = (*self.biases[1:], net.biases[-1])
        return replaced(net, weights=(*weights, net.weights[-1]), biases=biases)

    def parts(self) -> Sides:
        """Return the energy as one of two sides, visible and even layers first, with gradients."""
        sizes = (self.units.size, *self.hidden)
        rows = []
        for even in range(0, len(sizes), 2):
            blocks = {even + 1: even, even - 1: even - 1}  # odd layer -> which weights
            row = [
                jnp.zeros((sizes[even], sizes[odd])) if odd not in blocks
                else self.weights[even] if odd > even else self.weights[odd].T
                for odd in range(1, len(sizes), 2)
            ]  # fmt: skip
            rows.append(jnp.concatenate(row, 1))
        layers = [self.units, *(Units("bernoulli", size) for size in self.hidden)]
        biases = self.biases
        return Sides(
            tuple(layers[::2]), tuple(layers[1::2]), jnp.concatenate(rows, 0),
            jnp.concatenate(biases[::2]), jnp.concatenate(biases[1::2]),
            self.gaussian_constant(biases[0]),
        )  # fmt: skip

    def first_means(self, x: Float[Array, "*batch visible"]) -> Float[Array, "*batch first"]:
        """Return statistics of visible values and the mean field of the even hidden layers.

        No gradient goes through the means.

        Args:
            x: visible values.
        """
        f = self.statistics(x)
        if len(self.hidden) < 2:
            return f
        return jnp.concatenate([f, self._mean_field(stop_gradient(f))], -1)

    def chains_at(self, key: Array, x: Float[Array, "chain visible"]) -> tuple[Array, Array]:
        """Return the state of chains with these visible values, hidden ones by the mean field.

        Args:
            key: random key, for the hidden units.
            x: a visible value for each chain.
        """
        f, size = self.first_means(x), self.units.size
        drawn = random.bernoulli(random.fold_in(key, 2), f[..., size:]).astype(f.dtype)
        return self.with_second(key, jnp.concatenate([f[..., :size], drawn], -1))

    def _mean_field(self, f: Array) -> Array:
        """Return the means of the even hidden layers, after a bottom-up pass and some sweeps."""
        held = jax.tree.map(stop_gradient, self)
        sides, size = self.sides(), self.units.size
        below, across = f @ sides.weight[:size] + sides.second_bias, sides.weight[size:]
        gains, up, means = boltzmann.recognition_gains(len(self.hidden)), f, []
        for weight, bias, gain in zip(held.weights, held.biases[1:], gains, strict=True):
            up = jax.nn.sigmoid(gain * (up @ weight) + bias)
            means.append(up)

        def sweep(_: Any, mu: Array) -> Array:
            odd = jax.nn.sigmoid(below + mu @ across)
            return jax.nn.sigmoid(odd @ across.T + sides.first_bias[size:])

        start = jnp.concatenate(means[1::2], -1)
        return stop_gradient(jax.lax.fori_loop(0, self.mean_field_steps, sweep, start))


def _entropy(mu: Array) -> Array:
    """Return the entropy of binary units of these means."""
    return -jax.scipy.special.xlogy(mu, mu) - jax.scipy.special.xlog1py(1.0 - mu, -mu)


def _cut(x: Array, sizes: Sequence[int]) -> list[Array]:
    """Return the parts of layers that stand one after the other."""
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), -1)
