"""The matrix products of persistent contrastive divergence, and nothing else, in torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def floor(x: np.ndarray, hidden: int, sweeps: int) -> Callable[[int], None]:
    """Return a function that runs that many updates' products on a batch of data."""
    rng, data = np.random.default_rng(0), torch.as_tensor(x)
    begun = torch.as_tensor(0.01 * rng.normal(size=(x.shape[1], hidden)), dtype=torch.float32)

    def run(steps: int) -> None:
        weight, h = begun.clone(), torch.zeros(len(x), hidden)
        for _ in range(steps):
            v = data
            for _number in range(sweeps):
                v = torch.tanh(h @ weight.T)
                h = torch.tanh(v @ weight)
            change = data.T @ torch.tanh(data @ weight) - v.T @ h
            weight.add_(change, alpha=1e-9)

    run(1)
    return run
