"""Labelled sequences as functions of NumPy arrays: the Pyro side of the tests."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


def array(value: Any) -> Any:
    value = np.asarray(value)
    whole = value.dtype.kind in "iu"
    return torch.as_tensor(value, dtype=None if whole else torch.get_default_dtype())


def numpy(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def draws(labels: Any, number: int, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return labels.sample((number,)).numpy()


def gradient(crf: Any, x: np.ndarray, y: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of the summed log density by the potentials between labels."""
    names = ("transition", "initial", "final")
    value = crf(x, lengths).log_prob(array(y)).sum()
    found = torch.autograd.grad(value, [getattr(crf, name) for name in names])
    return {name: part.numpy() for name, part in zip(names, found, strict=True)}


def adam(rate: float) -> Any:
    return lambda params: torch.optim.Adam(params, lr=rate)


def wide(states: int) -> Any:
    """A network that looks at the neighbours of each place."""

    def net(x: Any) -> Any:
        around = pad(x, (0, 0, 1, 1))
        return torch.cat([around[:, :-2], x, around[:, 2:]], -1)[..., :states]

    return net
