"""A recurrent network: what came before is one vector of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output


class Recurrent(Autoregressive):
    r"""Gated recurrent units that read one feature after the other.

    \[ r = \sigma(x W_r + h U_r), \quad z = \sigma(x W_z + h U_z), \quad
       n = \tanh(x W_n + r \odot (h U_n)), \quad h' = (1 - z) \odot n + z \odot h, \]

    biases and the context beside each \(x W\); parameters of feature d are linear in the last
    layer's state after the features before d. All steps share their weights, so that long sequences
    have no more of them than short ones.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        units: units of each layer.
        layers: number of layers.
        context: number of context features.
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, or an order that is no permutation.
        TypeError: an output that is none.

    Cost:
        D steps for a density and for a draw.

    References:
        Cho et al.: Learning phrase representations using RNN encoder-decoder for statistical
        machine translation. EMNLP 2014. https://arxiv.org/abs/1406.1078

    Example:
        >>> Recurrent(3, units=8)().log_prob(torch.tensor([1.0, 0.0, 1.0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        units: int = 128,
        layers: int = 1,
        context: int = 0,
        *,
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        flow_checks.whole("units", units)
        self.layers = flow_checks.whole("layers", layers)
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.output.inputs, self.output.size, units, layers, context
        self.weights = arrays(autoregressive_weights.gru(seed, *sizes))

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, step by step."""
        w, (states, add) = self.weights, self.start(len(inputs), context)
        before = functional.pad(inputs, (0, 0, 1, 0))[:, :-1]
        for layer, state in enumerate(states):
            given, found = before @ w[f"input_{layer}"] + add[layer][:, None], []
            for i in range(given.shape[1]):
                state = self._cell(layer, state, given[:, i])
                found.append(state)
            before = torch.stack(found, 1)
        return before @ w["out"] + w["bias"]

    def start(self, rows: int, context: Context) -> Any:
        """Return states of zeros, and what bias and context add to each layer's input."""
        w, add = self.weights, []
        for layer in range(self.layers):
            bias = w[f"bias_{layer}"]
            if context is not None:
                bias = bias + context @ w[f"context_{layer}"]
            add.append(bias.expand(rows, bias.shape[-1]))
        zero = w["out"].new_zeros(rows, w["out"].shape[0])
        return (zero,) * self.layers, tuple(add)

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of feature i, and the states after the feature before it."""
        w, (states, add), found = self.weights, kept, []
        for layer, state in enumerate(states):
            before = self._cell(layer, state, before @ w[f"input_{layer}"] + add[layer])
            found.append(before)
        return before @ w["out"] + w["bias"], (tuple(found), add)

    def _cell(self, layer: int, state: Tensor, given: Tensor) -> Tensor:
        w = self.weights
        own = state @ w[f"state_{layer}"] + w[f"state_bias_{layer}"]
        (r, z, n), (r_own, z_own, n_own) = given.chunk(3, -1), own.chunk(3, -1)
        z = torch.sigmoid(z + z_own)
        return (1 - z) * torch.tanh(n + torch.sigmoid(r + r_own) * n_own) + z * state
