"""The IWAE paper's one-layer VAE in pythae, by its own trainer."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from benchmarks.baselines.vae_deep_torch import DeepVAE


class Encoder(BaseEncoder):
    """Pixels to location and log variance."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """Return both by name."""
        loc, log_variance = self.network(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Latents to probabilities of the pixels."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """Return them by name."""
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


def train(sizes: tuple[int, int, int], x: np.ndarray, num_epochs: int, batch_size: int) -> None:
    """Train by pythae's `BaseTrainer` as it comes; its checkpoints go to a temporary folder."""
    pixels, hidden, latent = sizes
    networks = DeepVAE(pixels, hidden, latent)
    config = VAEConfig(input_dim=(pixels,), latent_dim=latent, reconstruction_loss="bce")
    model = VAE(config, Encoder(networks.encoder), Decoder(networks.decoder))
    with tempfile.TemporaryDirectory() as folder:
        options = BaseTrainerConfig(
            output_dir=folder, num_epochs=num_epochs, learning_rate=1e-3,
            per_device_train_batch_size=batch_size, no_cuda=True,
        )  # fmt: skip
        data = {"data": torch.as_tensor(x), "labels": torch.ones(len(x))}
        from pythae.data.datasets import BaseDataset

        BaseTrainer(model, BaseDataset(**data), training_config=options).train()
