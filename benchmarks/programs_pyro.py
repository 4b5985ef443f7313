"""Pyro programs of the benchmarks, written as a user writes them: for the full data."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Decoder(nn.Module):
    """Latents to logits of the pixels."""

    def __init__(self, pixels: int, hidden: int, latent: int):
        super().__init__()
        self.hidden, self.pixels = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return logits `(..., pixels)` of latents `(..., latent)`."""
        return self.pixels(torch.relu(self.hidden(z)))


class Encoder(nn.Module):
    """Pixels to location and scale of the latents."""

    def __init__(self, pixels: int, hidden: int, latent: int):
        super().__init__()
        self.hidden = nn.Linear(pixels, hidden)
        self.loc, self.log_scale = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return location and scale `(..., latent)` of pixels `(..., pixels)`."""
        features = torch.relu(self.hidden(x))
        return self.loc(features), torch.exp(self.log_scale(features))


def vae(pixels: int, hidden: int, latent: int, seed: int = 0):
    """Return model and guide of a Bernoulli variational autoencoder with one hidden layer each."""
    torch.manual_seed(seed)
    decoder, encoder = Decoder(pixels, hidden, latent), Encoder(pixels, hidden, latent)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, scale = encoder(x)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide


def eight_schools(effects, errors):
    """Hierarchical normal model of the eight schools, non-centred."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effects)):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        pyro.sample("effect", dist.Normal(mean + spread * raw, errors), obs=effects)


def gaussian(root):
    """Normal with covariance root root^T."""
    pyro.sample("z", dist.MultivariateNormal(root.new_zeros(len(root)), scale_tril=root))


def logistic(covariates, labels):
    """Logistic regression with standard normal weights."""
    columns = covariates.shape[1]
    weights = pyro.sample("weights", dist.Normal(torch.zeros(columns), 1.0).to_event(1))
    with pyro.plate("data", len(covariates)):
        pyro.sample("label", dist.Bernoulli(logits=covariates @ weights), obs=labels)


def mixture(x):
    """Mixture of two Gaussians with diagonal scales, assignments summed out.

    The second component lies above the first in both columns (long eruptions follow long waits), so
    that no chain is caught with its labels exchanged.
    """
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    centre = pyro.sample("centre", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    gap = pyro.sample("gap", dist.HalfNormal(torch.full((2,), 2.0)).to_event(1))
    scales = pyro.sample("scales", dist.LogNormal(torch.full((2, 2), -1.0), 0.3).to_event(2))
    means = centre + gap * torch.tensor([[-0.5], [0.5]])
    components = dist.Normal(means, scales).to_event(1)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=x)
