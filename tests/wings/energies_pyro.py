"""Ready energies as functions of NumPy arrays: the Pyro side of the tests."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor


def array(value: Any) -> Any:
    value = np.asarray(value)
    whole = np.issubdtype(value.dtype, np.integer)
    return torch.as_tensor(value, dtype=None if whole else torch.get_default_dtype())


def numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: numpy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(numpy, value))
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def shaken(energy: Any, scale: float = 0.5, seed: int = 3) -> Any:
    """The energy with noise on every parameter."""
    rng, found = np.random.default_rng(seed), copy.deepcopy(energy)
    with torch.no_grad():
        for p in found.parameters():
            p += torch.as_tensor(scale * rng.normal(size=tuple(p.shape)), dtype=p.dtype)
    return found


def chain(energy: Any, x: np.ndarray, num_steps: int, seed: int = 0) -> np.ndarray:
    """Visible values of chains that set out from x."""
    generator = torch.Generator().manual_seed(seed)
    state = energy.chains_at(generator, array(x))
    return energy.visible(energy.step_chains(generator, state, num_steps)).detach().numpy()


def gradient(energy: Any, x: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean unnormalised log density."""
    energy.unnormalised_log_prob(array(x)).mean().backward()
    return [p.grad.numpy() for p in energy.parameters() if p.grad is not None]


def sweeps(energy: Any, state: Any, num_steps: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Both sides of a harmonium's chains after some sweeps."""
    generator = torch.Generator().manual_seed(seed)
    return numpy(energy.step_chains(generator, tuple(map(array, state)), num_steps))


def chain_gradient(energy: Any, state: Any) -> list[np.ndarray]:
    """Gradients of the mean log density by which chains count."""
    energy.zero_grad()
    energy.chain_log_prob(tuple(map(array, state))).mean().backward()
    return [p.grad.numpy() for p in energy.parameters() if p.grad is not None]
