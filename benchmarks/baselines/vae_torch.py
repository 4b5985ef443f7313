"""The VAE by hand in eager PyTorch with fused Adam."""

from __future__ import annotations

import torch
from torch.nn import functional


def train(
    encoder, decoder, x: torch.Tensor, num_steps: int, batch_size: int, seed: int
) -> torch.Tensor:
    """Return the per-row loss of each step of training the modules in place."""
    torch.manual_seed(seed)
    params = [*encoder.parameters(), *decoder.parameters()]
    optim = torch.optim.Adam(params, lr=1e-3, fused=True)
    losses = x.new_empty(num_steps)
    per_epoch = len(x) // batch_size
    for step in range(num_steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(x))
        start = step % per_epoch * batch_size
        batch = x[order[start : start + batch_size]]
        loc, scale = encoder(batch)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        negative_log_likelihood = functional.binary_cross_entropy_with_logits(
            decoder(z), batch, reduction="sum"
        )
        ratio = (0.5 * noise**2 + scale.log() - 0.5 * z**2).sum()
        loss = (negative_log_likelihood - ratio) / batch_size
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
        losses[step] = loss.detach()
    return losses
