"""The deep Boltzmann machine: layers of binary hidden units, each of which sees its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from deepgen_ppl import boltzmann, energies, harmonium
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.harmonium import Sides, Units, check_units
from deepgen_ppl.pyro.nets import MLP, as_parameter
from deepgen_ppl.pyro.programs.energy.harmonium import Harmonium
from deepgen_ppl.pyro.programs.energy.ready import as_numpy, replaced


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
        >>> import deepgen_ppl.pyro as dg
        >>> dbm = dg.DBM(6, (4, 3))
        >>> dbm = dbm.with_log_z(dg.log_z(dbm))
        >>> dbm().log_prob(torch.zeros(3, 6)).shape
        torch.Size([3])
    """

    counts_visible: ClassVar[bool] = False

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
        super().__init__()
        self.units = Units(units, whole("visible", visible), check_units(units, states))
        sizes = (self.units.size, *boltzmann.check_hidden_layers(hidden))
        self.mean_field_steps = whole("mean_field_steps", mean_field_steps)
        drawn = boltzmann.small_matrices(seed, sizes)
        self.weights = nn.ParameterList(map(as_parameter, drawn))
        self.visible_bias = as_parameter(np.zeros(sizes[0]))
        self.hidden_biases = nn.ParameterList(as_parameter(np.zeros(n)) for n in sizes[1:])
        self.log_scale = as_parameter(np.zeros(visible)) if units == "gaussian" else None
        self.log_z: Evidence | None = None
        self._means = [f"mean_{number}" for number in range(len(sizes))]
        for name in self._means:
            self.register_buffer(name, None)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Number of units of each hidden layer."""
        return tuple(bias.shape[0] for bias in self.hidden_biases)

    @property
    def offsets(self) -> tuple[Tensor, ...] | None:
        """Means of each layer that the energy is written about, None where it is not centred."""
        found = tuple(getattr(self, name) for name in self._means)
        return None if found[0] is None else found

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Biases of each layer, from the visible one: what its units get where others are zero."""
        own = (self.visible_bias, *self.hidden_biases)
        if self.offsets is None:
            return own
        shifts = boltzmann.shifts(list(self.weights), self.offsets)
        return tuple(b - shift for b, shift in zip(own, shifts, strict=True))

    def with_weights(self, weights: Sequence[Any], biases: Sequence[Any]) -> DBM:
        """Return a copy with other weights, not centred.

        Args:
            weights: the matrix of each layer to the one above, from the visible one.
            biases: the biases of each layer, from the visible one.

        Raises:
            ValueError: an array of another shape, or another number of them.
        """
        own = [tuple(w.shape) for w in self.weights], [tuple(b.shape) for b in self.biases]
        boltzmann.check_layer_weights(weights, biases, *own)
        made = [[as_parameter(as_numpy(x)) for x in given] for given in (weights, biases)]
        return replaced(
            self, weights=nn.ParameterList(made[0]), visible_bias=made[1][0],
            hidden_biases=nn.ParameterList(made[1][1:]), log_z=None,
            **dict.fromkeys(self._means),
        )  # fmt: skip

    def centred(self, x: Float[Tensor, "N visible"]) -> DBM:
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
            >>> dbm, x = DBM(6, (4, 3)), torch.eye(6)
            >>> moved = dbm.centred(x).unnormalised_log_prob(x) - dbm.unnormalised_log_prob(x)
            >>> bool(abs(moved).max() < 1e-5)
            True
        """
        f = self.statistics(x)
        energies.check_values(as_numpy(x), self.units.kind, self.units.states)
        means = [as_numpy(part).mean(0) for part in (f, *self.hidden_means(x))]
        shifts = boltzmann.shifts([as_numpy(w) for w in self.weights], means)
        made = [as_parameter(as_numpy(b) + s) for b, s in zip(self.biases, shifts, strict=True)]
        held = dict(zip(self._means, map(f.new_tensor, means), strict=True))
        biases = nn.ParameterList(made[1:])
        return replaced(self, visible_bias=made[0], hidden_biases=biases, **held)

    def with_scale(self, log_scale: Float[Tensor, " visible"]) -> DBM:
        """Return a copy whose Gaussian units have other deviations.

        Args:
            log_scale: their logarithms.

        Raises:
            ValueError: the units are not Gaussian, or there is another number of them.
        """
        own = () if self.log_scale is None else tuple(self.log_scale.shape)
        energies.check_weights({"log_scale": tuple(np.shape(log_scale))}, {"log_scale": own})
        return replaced(self, log_scale=as_parameter(as_numpy(log_scale)), log_z=None)

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch"]:
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

    def summed_log_prob(self, x: Float[Tensor, "N visible"]) -> Float[np.ndarray, " N"]:
        """Return the log density but for log Z, hidden units summed out exactly.

        Args:
            x: rows of visible values.

        Raises:
            ValueError: both the even and the odd hidden layers have more than 25 units.

        Cost:
            The states of the smaller of the two groups of layers, for each row.
        """
        sides, f = self.sides(), as_numpy(self.statistics(x))
        constant = 0.0 if self.log_scale is None else float(self.log_scale.detach().sum())
        return harmonium.rows_log_sums(sides, f) - constant

    def joint_log_prob(
        self, x: Float[Tensor, "*batch visible"], *hidden: Float[Tensor, "*batch layer"]
    ) -> Float[Tensor, "*batch"]:
        """Return the log density of visible and hidden units but for log Z.

        Args:
            x: visible values.
            *hidden: units of each hidden layer, 0 or 1.

        Raises:
            ValueError: another number of layers.
        """
        boltzmann.check_layers(len(hidden), len(self.hidden))
        like = self.statistics(x)
        found = [like, *(torch.as_tensor(h, dtype=like.dtype) for h in hidden)]
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in found))
        found = [part.expand(*batch, part.shape[-1]) for part in found]
        f, g = torch.cat(found[::2], -1), torch.cat(found[1::2], -1)
        return self.both_log_prob(f, g)

    def hidden_means(self, x: Float[Tensor, "*batch visible"]) -> tuple[Tensor, ...]:
        """Return the mean field: means of the units of each hidden layer given visible values.

        Args:
            x: visible values.
        """
        sides, f = self.parts(), self.first_means(x)
        odd = torch.sigmoid(f @ sides.weight + sides.second_bias)
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
        with torch.no_grad():
            for number, gain in enumerate(gains):
                net.weights[number].copy_(gain * self.weights[number])
                net.biases[number].copy_(self.biases[number + 1])
        return net

    def parts(self) -> Sides:
        """Return the energy as one of two sides, visible and even layers first, with gradients."""
        sizes = (self.units.size, *self.hidden)
        rows = []
        for even in range(0, len(sizes), 2):
            blocks = {even + 1: even, even - 1: even - 1}  # odd layer -> which weights
            row = [
                self.weights[0].new_zeros(sizes[even], sizes[odd]) if odd not in blocks
                else self.weights[even] if odd > even else self.weights[odd].T
                for odd in range(1, len(sizes), 2)
            ]  # fmt: skip
            rows.append(torch.cat(row, 1))
        layers = [self.units, *(Units("bernoulli", size) for size in self.hidden)]
        biases = self.biases
        return Sides(
            tuple(layers[::2]), tuple(layers[1::2]), torch.cat(rows, 0),
            torch.cat(biases[::2]), torch.cat(biases[1::2]), self.gaussian_constant(biases[0]),
        )  # fmt: skip

    def first_means(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch first"]:
        """Return statistics of visible values and the mean field of the even hidden layers.

        No gradient goes through the means.

        Args:
            x: visible values.
        """
        f = self.statistics(x)
        if len(self.hidden) < 2:
            return f
        return torch.cat([f, self._mean_field(f.detach())], -1)

    def chains_at(
        self, generator: Generator | None, x: Float[Tensor, "chain visible"]
    ) -> tuple[Tensor, Tensor]:
        """Return the state of chains with these visible values, hidden ones by the mean field.

        Args:
            generator: source of the random numbers, torch's own when None, for the hidden units.
            x: a visible value for each chain.
        """
        with torch.no_grad():
            f, size = self.first_means(x), self.units.size
            drawn = torch.bernoulli(f[..., size:], generator=generator)
            return self.with_second(generator, torch.cat([f[..., :size], drawn], -1))

    def _mean_field(self, f: Tensor) -> Tensor:
        """Return the means of the even hidden layers, after a bottom-up pass and some sweeps."""
        sides, size = self.sides(), self.units.size
        below, across = f @ sides.weight[:size] + sides.second_bias, sides.weight[size:]
        gains, up, means = boltzmann.recognition_gains(len(self.hidden)), f, []
        for weight, bias, gain in zip(self.weights, self.biases[1:], gains, strict=True):
            up = torch.sigmoid(gain * (up @ weight.detach()) + bias.detach())
            means.append(up)
        mu = torch.cat(means[1::2], -1)
        for _ in range(self.mean_field_steps):
            odd = torch.sigmoid(below + mu @ across)
            mu = torch.sigmoid(odd @ across.T + sides.first_bias[size:])
        return mu


def _entropy(mu: Tensor) -> Tensor:
    """Return the entropy of binary units of these means."""
    return torch.special.entr(mu) + torch.special.entr(1.0 - mu)


def _cut(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the parts of layers that stand one after the other."""
    return list(torch.split(x, list(sizes), -1))
