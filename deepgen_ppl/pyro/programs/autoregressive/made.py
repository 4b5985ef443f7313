"""MADE: one masked network that gives all conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import networks
from deepgen_ppl.pyro.nets import ACTIVATIONS, MaskedMLP
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output


class MADE(Autoregressive):
    r"""The masked autoencoder: a network whose output d sees the features before d only.

    The masks follow the order. Hidden units are sorted by what they see, so that a draw visits each
    of them once, at the feature that completes it.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        hidden: units of each hidden layer.
        context: number of context features, which every unit sees.
        activation: "relu", "tanh", "silu", "elu", "softplus" or "sigmoid".
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, an unknown activation, or an order that is no
            permutation.
        TypeError: an output that is none.

    Cost:
        One pass of the network for a density; D short steps for a draw, whose products are those of
        about one pass together.

    References:
        Germain, Gregor, Murray, Larochelle: MADE, masked autoencoder for distribution estimation.
        ICML 2015. https://arxiv.org/abs/1502.03509

    Example:
        >>> MADE(3, hidden=(16,))().log_prob(torch.tensor([1.0, 0.0, 1.0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        hidden: Sequence[int] = (500,),
        context: int = 0,
        *,
        activation: str = "relu",
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        self.about, self.output = checks.about(features, order, context), as_output(output)
        options: dict[str, Any] = {"activation": activation, "seed": seed}
        options["inputs"] = self.output.inputs
        self.net = MaskedMLP(self.about.features, self.output.size, hidden, context, **options)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The masked weights and the biases of the network, by layer."""
        found = {f"weight_{i}": w for i, w in enumerate(self.net.masked)}
        return found | {f"bias_{i}": b for i, b in enumerate(self.net.biases)}

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        return self.net(inputs.flatten(1), context).mT

    def start(self, rows: int, context: Context) -> Any:
        """Return inputs and hidden units so far, and what the context adds."""
        bias = next(iter(self.net.biases))
        add = bias.new_zeros(rows, 0)
        if self.net.from_context is not None and context is not None:
            add = context @ self.net.from_context
        return tuple(bias.new_zeros(rows, 0) for _ in (0, *self.net.hidden)), add

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of feature i, from the units that the feature before completes."""
        net, (seen, add) = self.net, kept
        act, weights, biases = ACTIVATIONS[net.activation], list(net.weights), list(net.biases)
        groups = networks.groups(net.features, net.hidden, net.context)
        units = [torch.cat([seen[0], before], 1) if i else seen[0]]
        for layer, (old, group) in enumerate(zip(seen[1:], groups, strict=True)):
            end = int(np.searchsorted(group, i, "right"))
            part = slice(old.shape[1], end)  # what these units see has all come
            new = units[-1] @ weights[layer][: units[-1].shape[1], part] + biases[layer][part]
            if layer == 0 and add.shape[1]:
                new = new + add[:, part]
            units.append(torch.cat([old, act(new)], 1))
        shape = (-1, net.outputs, net.features)
        out = weights[-1].reshape(shape)[: units[-1].shape[1], :, i]
        found = units[-1] @ out + biases[-1].reshape(shape[1:])[:, i]
        if not net.hidden and add.shape[1]:
            found = found + add.reshape(shape)[:, :, i]
        return found, (tuple(units), add)
