"""NADE: one hidden layer that all conditionals share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.pyro.nets import ACTIVATIONS
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output


class NADE(Autoregressive):
    r"""The neural autoregressive distribution estimator.

    \[ h_d = a\Big(b + c\, C + \sum_{e < d} x_e W_e\Big), \qquad \theta_d = b_d + h_d V_d \]

    The sum grows by one term a feature, so that all hidden layers together cost no more than one
    layer of each feature does: a density and a draw are linear in D.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        units: hidden units H.
        context: number of context features.
        activation: "sigmoid", "relu", "tanh", "silu", "elu" or "softplus".
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, an unknown activation, or an order that is no
            permutation.
        TypeError: an output that is none.

    Cost:
        D H products for a density and for a draw. Densities take about 32 inputs at once, by a
        triangular product; the gradient keeps the hidden layer of every feature.

    References:
        Larochelle, Murray: The neural autoregressive distribution estimator. AISTATS 2011.

        Uria, Côté, Gregor, Murray, Larochelle: Neural autoregressive distribution estimation. JMLR
        17, 2016. https://arxiv.org/abs/1605.02226

    Example:
        >>> NADE(3, units=8)().log_prob(torch.tensor([1.0, 0.0, 1.0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        units: int = 500,
        context: int = 0,
        *,
        activation: str = "sigmoid",
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        flow_checks.whole("units", units)
        self.activation = flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.about.features, self.output.inputs, self.output.size
        self.weights = arrays(autoregressive_weights.nade(seed, *sizes, units, context))

    def _sum(self, rows: int, context: Context) -> Float[Tensor, "rows units"]:
        hidden = self.weights["hidden"]
        if context is not None:
            hidden = hidden + context @ self.weights["context"]
        return hidden.expand(rows, hidden.shape[-1])

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, block by block of features."""
        (rows, features, size), w = inputs.shape, self.weights
        block, act = autoregressive_weights.block_size(features, size), ACTIVATIONS[self.activation]
        before = torch.ones(block, block, dtype=inputs.dtype, device=inputs.device).tril(-1)
        total, found = self._sum(rows, context), []
        for begin in range(0, features, block):
            part = slice(begin, min(begin + block, features))
            x, weight = inputs[:, part], w["weight"][part].flatten(0, 1)
            number = x.shape[1]
            seen = x[:, None] * before[:number, :number, None]
            seen = seen.reshape(rows * number, number * size) @ weight
            hidden = act(total[:, None] + seen.reshape(rows, number, -1))
            total = total + x.reshape(rows, -1) @ weight
            found.append(torch.einsum("rdh,dhp->rdp", hidden, w["out"][part]))
        return torch.cat(found, 1) + w["bias"]

    def start(self, rows: int, context: Context) -> Any:
        """Return the sum before any feature."""
        return self._sum(rows, context)

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of feature i, and the sum with the feature before it."""
        w, act = self.weights, ACTIVATIONS[self.activation]
        if i:
            kept = kept + before @ w["weight"][i - 1]
        return act(kept) @ w["out"][i] + w["bias"][i], kept
