"""Experts and families as functions of NumPy arrays: the Pyro side of the tests."""

from functools import partial
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch


def adam(rate: float) -> Any:
    return partial(torch.optim.Adam, lr=rate)


def array(value: Any) -> Any:
    return torch.as_tensor(np.asarray(value))


def numpy(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)


def normal(location: Any, scale: Any, size: int) -> Any:
    """Independent normals of some entries."""
    return dist.Normal(torch.tensor(float(location)), float(scale)).expand([size]).to_event(1)


def bits(probs: Any) -> Any:
    """Independent bits."""
    return dist.Bernoulli(probs=torch.as_tensor(np.asarray(probs, "float32"))).to_event(1)


def draw(distribution: Any, count: int, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return distribution.sample((count,)).numpy()


def with_logits(mixture: Any) -> np.ndarray:
    return mixture.logits.detach().numpy()
