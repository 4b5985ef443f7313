"""Parameters of a layer: learned as they are, or given by a network of the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from deepgen_ppl.pyro.flows.layer import Context
from deepgen_ppl.pyro.nets import MLP, as_parameter


class Given(nn.Module):
    """A vector of parameters, to which a network of the context is added where there is one.

    Args:
        start: the vector at first.
        context: number of context features.
        hidden: units of each hidden layer of the network.
        activation: of the network.
        seed: seed of the network's weights, or a NumPy generator.

    Example:
        >>> import torch
        >>> Given(np.zeros(3), context=2)(torch.ones(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        start: np.ndarray,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        self.start, self.net = as_parameter(start), None
        if context:
            options: dict[str, Any] = {"activation": activation, "zero": True, "seed": seed}
            self.net = MLP(context, len(start), hidden, **options)

    def forward(self, context: Context) -> Float[Tensor, "*batch size"]:
        """Return the parameters at a context."""
        if self.net is None or context is None:
            return self.start
        return self.start + self.net(context, None)
