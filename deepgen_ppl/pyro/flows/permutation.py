"""Permutations of the features, reversed or at random."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.layer import About, Context, Layer, Pushed


class Reverse(Layer):
    """The features in reverse order.

    Args:
        features: number of features.

    Example:
        >>> Reverse(3)()(torch.arange(3.0)).tolist()
        [2.0, 1.0, 0.0]
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        flow_checks.sizes(features, 0, ())
        self.about = About((features,))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Reverse the order."""
        return z.flip(-1), z.new_zeros(z.shape[:-1])

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Reverse the order."""
        return x.flip(-1), x.new_zeros(x.shape[:-1])


class Permutation(Layer):
    """The features in another order.

    Args:
        order: the order, a permutation of 0 to D - 1; for a whole number D, one at random.
        seed: seed of the random order, or a NumPy generator.

    Raises:
        ValueError: the order is no permutation.

    Example:
        >>> Permutation((2, 0, 1))()(torch.arange(3.0)).tolist()
        [2.0, 0.0, 1.0]
    """

    order: Tensor

    def __init__(
        self, order: int | tuple[int, ...], *, seed: int | np.random.Generator = 0
    ) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(flow_checks.permutation(order, seed)))
        self.about = About((len(self.order),))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Put the features in order."""
        return z.index_select(-1, self.order), z.new_zeros(z.shape[:-1])

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Put the features back."""
        return x.index_select(-1, torch.argsort(self.order)), x.new_zeros(x.shape[:-1])
