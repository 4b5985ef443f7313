"""What a program registers: networks, priors and learned values, of whatever kind they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from deepgen_ppl.pyro.image_nets import ResidualMLP
from deepgen_ppl.pyro.nets import MLP, as_parameter
from deepgen_ppl.pyro.programs.vae.ladder import BottomUp


class Values(nn.Module):
    """Learned arrays by name.

    Args:
        values: what they are at first.

    Example:
        >>> Values({"log_scale": np.zeros(2)})["log_scale"].shape
        torch.Size([2])
    """

    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        arrays = {name: as_parameter(np.asarray(value)) for name, value in values.items()}
        self.arrays = nn.ParameterDict(arrays)

    def __getitem__(self, name: str) -> Tensor:
        """Return one of them."""
        return self.arrays[name]


def values(found: Mapping[str, np.ndarray]) -> Values | None:
    """Return learned arrays, None where there are none."""
    return Values(found) if found else None


def registered(name: str, thing: Any) -> Any:
    """Register the parameters of a module and return it; functions and distributions have none."""
    return pyro.module(name, thing) if isinstance(thing, nn.Module) else thing


def reference(modules: Mapping[str, Any]) -> Tensor:
    """Return a tensor of the device and dtype of some modules."""
    found = [module for module in modules.values() if isinstance(module, nn.Module)]
    return next((p.detach() for module in found for p in module.parameters()), torch.zeros(()))


def applied(net: Any, value: Tensor, event_dim: int, context: Tensor | None) -> Any:
    """Apply a network to a batch; a perceptron sees each datum as a vector."""
    if isinstance(net, MLP | BottomUp | ResidualMLP):
        value = value.reshape(*value.shape[: value.dim() - event_dim], -1)
    return net(value) if context is None else net(value, context)


def is_distribution(value: Any) -> bool:
    """Tell whether a value is a distribution of the language."""
    return isinstance(value, torch.distributions.Distribution)


def joined(value: Any, new_axis: bool) -> Tensor:
    """Return the output of a network, several arrays side by side or on a new last axis."""
    if not isinstance(value, tuple | list):
        return value
    return torch.stack(tuple(value), -1) if new_axis else torch.cat(tuple(value), -1)
