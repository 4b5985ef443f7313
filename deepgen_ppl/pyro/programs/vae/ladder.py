"""Networks of latents in layers: from each layer to the one below, and from the data up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepgen_ppl.latent_axes import HierarchicalPrior
from deepgen_ppl.pyro.layered import LayeredNormal
from deepgen_ppl.pyro.nets import ACTIVATIONS, MLP


class TopDown(nn.Module):
    """The networks of a hierarchical prior, of each layer but the topmost, the lowest first.

    Args:
        prior: sizes of the layers and options of the networks.

    Example:
        >>> net = TopDown(HierarchicalPrior((4, 2), hidden=(8,)))
        >>> [part.shape for part in net(0, torch.ones(5, 2))]
        [torch.Size([5, 4]), torch.Size([5, 4])]
    """

    def __init__(self, prior: HierarchicalPrior) -> None:
        super().__init__()
        self.sizes, rng = prior.sizes, np.random.default_rng(prior.seed)
        self.nets = nn.ModuleList(
            MLP(above, 2 * size, prior.hidden, activation=prior.activation, seed=rng)
            for size, above in zip(self.sizes, self.sizes[1:], strict=False)
        )

    def forward(self, level: int, above: Float[Tensor, "*batch above"]) -> tuple[Tensor, Tensor]:
        """Return location and log scale of a layer given the one above."""
        loc, log_scale = self.nets[level](above).chunk(2, -1)
        return loc, log_scale

    def distribution(
        self, locs: Tensor | None = None, log_scales: Tensor | None = None
    ) -> LayeredNormal:
        """Return the prior, or with numbers of each datum the ladder."""
        return LayeredNormal(self.sizes, self, locs, log_scales, next(self.parameters()).detach())


class BottomUp(nn.Module):
    """The deterministic pass of a ladder's encoder: each layer's numbers from one level further up.

    The first level is a perceptron of all hidden layers, each further one has one layer more.

    Args:
        inputs: number of inputs.
        sizes: number of latents of each layer, the lowest first.
        hidden: units of the hidden layers of the first level; the last one's is every level's.
        context: number of context features, which enter at the first level.
        activation: as of `MLP`.
        seed: seed of the initial weights.

    Example:
        >>> BottomUp(6, (4, 2), (8,))(torch.ones(5, 6)).shape
        torch.Size([5, 12])
    """

    def __init__(
        self,
        inputs: int,
        sizes: Sequence[int],
        hidden: Sequence[int],
        context: int = 0,
        *,
        activation: str = "relu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        width, rng = hidden[-1], np.random.default_rng(seed)
        first = MLP(inputs, width, hidden[:-1], context, activation=activation, seed=rng)
        further = (MLP(width, width, (), activation=activation, seed=rng) for _ in sizes[1:])
        self.levels = nn.ModuleList((first, *further))
        self.heads = nn.ModuleList(MLP(width, 2 * size, (), seed=rng) for size in sizes)
        self.activation = activation

    def forward(
        self, x: Float[Tensor, "*batch inputs"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Float[Tensor, "*batch outputs"]:
        """Return the locations of all layers side by side, then their log scales."""
        found, value = [], x
        for number, (level, head) in enumerate(zip(self.levels, self.heads, strict=True)):
            value = ACTIVATIONS[self.activation](level(value, None if number else context))
            found.append(head(value).chunk(2, -1))
        return torch.cat([part[k] for k in (0, 1) for part in found], -1)
