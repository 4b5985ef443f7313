"""The VAE by Pyro's own means: `SVI.step` as it comes."""

from __future__ import annotations

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam


def train(model, guide, x: torch.Tensor, num_steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the per-row loss of each step of `SVI.step` over shuffled batches."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    svi = SVI(model, guide, Adam({"lr": 1e-3}), Trace_ELBO())
    losses = np.empty(num_steps)
    per_epoch = len(x) // batch_size
    for step in range(num_steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(x))
        start = step % per_epoch * batch_size
        losses[step] = svi.step(x[order[start : start + batch_size]]) / batch_size
    return losses
