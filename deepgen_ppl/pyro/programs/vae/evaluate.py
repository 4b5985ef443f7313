"""Runs functions of an autoencoder's modules with what a fit has learned, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.data import device_of, to_tensor
from deepgen_ppl.pyro.parameters import forked_rng, given, installed, private_store, resolve
from deepgen_ppl.pyro.program import read_pair


def array(value: Any) -> np.ndarray:
    """Return data as an array of NumPy."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def drawn(fn: Any, *shape: int) -> Tensor:
    """Return draws from a distribution, inside a function that `evaluated` runs."""
    return fn.sample(torch.Size(shape))


def evaluated(
    owner: Any,
    fit: Any,
    name: str,
    fn: Callable[..., Any],
    *data: Any,
    size: int,
    seed: int = 0,
    axis: int = 0,
    static: Any = None,
) -> np.ndarray:
    """Return a function of rows with the modules that it registers as they were learned.

    Args:
        owner: the autoencoder, whose programs have the parameters.
        fit: a `Fit`, or its `params`.
        name: name of the function.
        fn: the function of the arrays of a chunk, None where one is None.
        *data: arrays whose leading axis is that of the rows, or None.
        size: rows of a chunk.
        seed: seed of its draws.
        axis: axis of the rows in what it returns.
        static: whatever else it depends on.

    Raises:
        ValueError: the fit lacks the values of a module.
    """
    learned = given(fit)
    pair = read_pair(owner.model, owner.guide, _example(owner, learned or {}), params=learned)
    values, device = resolve(pair.params, learned), device_of(pair.modules)
    arrays = [None if value is None else to_tensor(value, device) for value in data]
    rows, parts = next(len(value) for value in arrays if value is not None), []
    for start in range(0, rows, size):
        chunk = [None if value is None else value[start : start + size] for value in arrays]
        with (
            torch.no_grad(),
            private_store(),
            handlers.validation(False),
            forked_rng(seed + start),
            installed(pair.params.values(), values) as answers,
            answers,
        ):
            parts.append(fn(*chunk).cpu().numpy())
    return np.concatenate(parts, axis=axis)


def _example(owner: Any, learned: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return data of the right shapes, by which the programs are read."""
    rows = len(learned["table"]) if "table" in learned else 2
    x = torch.zeros(rows, *owner.features)
    return (x, torch.zeros(rows, owner.context)) if owner.context else (x,)
