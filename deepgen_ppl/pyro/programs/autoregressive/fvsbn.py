"""The fully visible sigmoid belief network: logistic conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output


class FVSBN(Autoregressive):
    r"""Conditionals that are linear in the features before: a logistic regression each, of bits.

    \[ \theta_d = b_d + c\, C_d + \sum_{e < d} x_e W_{ed} \]

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        context: number of context features.
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, or an order that is no permutation.
        TypeError: an output that is none.

    Cost:
        D^2 products for a density and for a draw.

    References:
        Frey, Hinton, Dayan: Does the wake-sleep algorithm produce good density estimators?
        NeurIPS 1995.

    Example:
        >>> FVSBN(3)().log_prob(torch.tensor([1.0, 0.0, 1.0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        context: int = 0,
        *,
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.about.features, self.output.inputs, self.output.size
        self.weights = arrays(autoregressive_weights.logistic(seed, *sizes, context))

    @property
    def _masked(self) -> Float[Tensor, "features inputs features size"]:
        number, weight = self.about.features, self.weights["weight"]
        before = torch.ones(number, number, dtype=weight.dtype, device=weight.device).triu(1)
        return weight * before[:, None, :, None]

    def _bias(self, context: Context) -> Tensor:
        if context is None:
            return self.weights["bias"]
        return self.weights["bias"] + torch.tensordot(context, self.weights["context"], 1)

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, by one product."""
        return torch.tensordot(inputs, self._masked, 2) + self._bias(context)

    def start(self, rows: int, context: Context) -> Any:
        """Return the inputs so far and the biases."""
        bias = self._bias(context)
        inputs = bias.new_zeros(rows, 0, self.weights["weight"].shape[1])
        return inputs, bias.expand(rows, *bias.shape[-2:])

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of feature i, by a product with the inputs so far."""
        inputs, bias = kept
        if i == 0:
            return bias[:, 0], kept
        inputs = torch.cat([inputs, before[:, None]], 1)
        column = self.weights["weight"][:i, :, i]
        return torch.tensordot(inputs, column, 2) + bias[:, i], (inputs, bias)
