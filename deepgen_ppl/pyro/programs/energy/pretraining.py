"""Greedy pretraining of a deep Boltzmann machine, one restricted machine a layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import boltzmann
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.harmonium import Sides, Units
from deepgen_ppl.pyro.flows.flow import fitted
from deepgen_ppl.pyro.infer.contrastive import contrastive
from deepgen_ppl.pyro.nets import as_parameter
from deepgen_ppl.pyro.programs.energy import units as layers
from deepgen_ppl.pyro.programs.energy.dbm import DBM
from deepgen_ppl.pyro.programs.energy.harmonium import Harmonium
from deepgen_ppl.pyro.programs.energy.ready import as_numpy


def pretrain_dbm(
    dbm: DBM,
    x: Float[Tensor, "N visible"],
    *,
    num_steps: int = 2000,
    batch_size: int | None = 100,
    num_chains: int = 128,
    chain_steps: int = 1,
    optim: Any = None,
    progress: bool = True,
    seed: int = 0,
) -> DBM:
    r"""Return a deep Boltzmann machine whose layers were learned one after the other.

    Each layer is a restricted machine trained by `contrastive` on what the layer below makes of the
    data. The lowest one sees two copies of the visible units and the top one has two copies of its
    hidden units, with one set of weights, so that bottom-up and top-down input are doubled; the
    weights of those between are halved afterwards. Put together, a hidden layer gets the mean of
    what both its machines would give it,

    \[ \tfrac12 (2 W_l^\top h_{l-1} + c_l) + \tfrac12 (2 W_{l+1} h_{l+1} + b_{l+1}) \]

    Args:
        dbm: the machine, whose weights are where layers begin; visible biases begin at base rates.
        x: data.
        num_steps: gradient steps of each layer.
        batch_size: rows of a minibatch, None for all rows.
        num_chains: persistent chains of each layer.
        chain_steps: sweeps of the chains between two steps.
        optim: the optimizer, as `contrastive` takes it.
        progress: whether to show bars.
        seed: seeds batches, chains, and the hidden units drawn as data of the next layer.

    Raises:
        TypeError: not a `DBM`. ValueError: data that its visible units do not take.

    Cost:
        A run of `contrastive` for each layer.

    References:
        Salakhutdinov, Hinton: Deep Boltzmann machines. AISTATS 2009.
        https://proceedings.mlr.press/v5/salakhutdinov09a.html

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> x = (np.random.default_rng(0).random((50, 6)) < 0.3).astype(float)
        >>> dbm = dg.pretrain_dbm(dg.DBM(6, (4, 3)), x, num_steps=5, batch_size=10, progress=False)
        >>> dbm.hidden
        (4, 3)
    """
    boltzmann.check_machine(isinstance(dbm, DBM), dbm)
    rng, depth = np.random.default_rng(seed), len(dbm.hidden)
    data: Any = as_numpy(x)
    weights, pairs, log_scale = [], [], None
    for number, weight in enumerate(dbm.weights):
        copies = boltzmann.copies(number, depth)
        layer = Layer(weight, dbm.units if number == 0 else None, copies).at_base_rates(data)
        fit = contrastive(
            layer, data, num_steps=num_steps, batch_size=batch_size, num_chains=num_chains,
            chain_steps=chain_steps, optim=optim, progress=progress, seed=seed + number,
        )  # fmt: skip
        layer = fitted(layer, fit, "energy")
        weights.append(as_numpy(layer.weight))
        pairs.append((as_numpy(layer.visible_bias), as_numpy(layer.hidden_bias)))
        log_scale = layer.log_scale if number == 0 else log_scale
        if number + 1 < depth:
            means = as_numpy(layer.hidden_mean(torch.as_tensor(data, dtype=layer.weight.dtype)))
            data = (rng.random(means.shape) < means).astype(means.dtype)
    found = dbm.with_weights(*boltzmann.put_together(weights, pairs))
    return found if log_scale is None else found.with_scale(log_scale)


class Layer(Harmonium):
    """A restricted machine with copies of its visible or hidden units that share their weights.

    Args:
        weight: weights to begin with.
        units: the visible units, binary when None.
        copies: number of copies of visible and of hidden units.
    """

    counts_visible: ClassVar[bool] = False

    def __init__(self, weight: Any, units: Units | None, copies: tuple[int, int]) -> None:
        super().__init__()
        self.weight = as_parameter(as_numpy(weight))
        below, above = self.weight.shape
        self.units = units or Units("bernoulli", below)
        self.visible_bias = as_parameter(np.zeros(below))
        self.hidden_bias = as_parameter(np.zeros(above))
        gaussian = self.units.kind == "gaussian"
        self.log_scale = as_parameter(np.zeros(self.units.number)) if gaussian else None
        self.copies = copies
        self.log_z: Evidence | None = None

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch"]:
        """Return the log density but for log Z of copies that all have these values.

        Args:
            x: visible values.
        """
        return self.first_log_prob(self.first_means(x))

    def hidden_mean(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch hidden"]:
        """Return the probabilities of hidden units where all copies have these values.

        Args:
            x: visible values.
        """
        eta = self.copies[0] * (self.statistics(x) @ self.weight) + self.hidden_bias
        return layers.mean((Units("bernoulli", self.weight.shape[1]),), eta)

    def parts(self) -> Sides:
        """Return the energy as one of two sides, the visible copies first, with its gradients."""
        below, above = self.copies
        hidden = Units("bernoulli", self.weight.shape[1])
        return Sides(
            (self.units,) * below, (hidden,) * above, self.weight.tile(self.copies),
            self.visible_bias.tile(below), self.hidden_bias.tile(above),
            self.gaussian_constant(self.visible_bias, below),
        )  # fmt: skip

    def first_means(self, x: Float[Tensor, "*batch visible"]) -> Float[Tensor, "*batch first"]:
        """Return the statistics of all copies at these visible values.

        Args:
            x: visible values.
        """
        return torch.cat([self.statistics(x)] * self.copies[0], -1)
