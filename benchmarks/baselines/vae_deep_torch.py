"""The IWAE paper's one-layer VAE by hand in PyTorch: its loss compiled, and Adam's fused update."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class DeepVAE(nn.Module):
    """Two hidden layers of tanh units on both sides, a diagonal normal between them."""

    def __init__(self, pixels: int, hidden: int, latent: int):
        super().__init__()
        self.encoder = _perceptron(pixels, hidden, 2 * latent)
        self.decoder = _perceptron(latent, hidden, pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative single-particle ELBO per row of pixels (rows, pixels)."""
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        negative_log_likelihood = functional.binary_cross_entropy_with_logits(
            self.decoder(z), x, reduction="sum"
        )
        ratio = (0.5 * noise**2 + log_scale - 0.5 * z**2).sum()
        return (negative_log_likelihood - ratio) / len(x)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


def trainer(sizes: tuple[int, int, int], compiled: bool):
    """Return `train(x, num_steps, batch_size, seed) -> losses`; it compiles at its first call."""
    vae = DeepVAE(*sizes)
    loss_of = torch.compile(vae) if compiled else vae

    def train(x: Tensor, num_steps: int, batch_size: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        for layer in vae.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        optim = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
        losses, per_epoch = x.new_empty(num_steps), len(x) // batch_size
        for step in range(num_steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(x))
            start = step % per_epoch * batch_size
            loss = loss_of(x[order[start : start + batch_size]])
            optim.zero_grad(set_to_none=True)
            loss.backward()
            optim.step()
            losses[step] = loss.detach()
        return losses.numpy()

    return train
