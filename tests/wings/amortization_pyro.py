"""Programs with latents of each datum, in Pyro, and guides that fit them or do not."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch


def coins(x: Any) -> None:
    """A coin of each datum that shifts a normal."""
    with pyro.plate("data", len(x)):
        z: Any = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)


def blind_coins(x: Any) -> None:
    """A guide that gives every datum the same coin."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=0.0 * torch.as_tensor(x)))


def chain(x: Any) -> None:
    """Two latents one after the other, all normal."""
    with pyro.plate("data", len(x)):
        top: Any = pyro.sample("top", dist.Normal(0.0, 1.0))
        low: Any = pyro.sample("low", dist.Normal(top, 0.7))
        pyro.sample("x", dist.Normal(low, 0.5), obs=x)


def blind_chain(x: Any) -> None:
    """A guide that knows how the latents hang together, and nothing of the datum."""
    with pyro.plate("data", len(x)):
        low: Any = pyro.sample("low", dist.Normal(0.0, 0.5))
        pyro.sample("top", dist.Normal(low / 1.49, (0.49 / 1.49) ** 0.5))


def shared(x: Any) -> None:
    """A latent that the rows share beside their own."""
    mean: Any = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z: Any = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shared_guide(x: Any) -> None:
    """Its guide."""
    pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def point(x: Any) -> None:
    """A guide of the chain that is a point."""
    with pyro.plate("data", len(x)):
        pyro.sample("low", dist.Delta(torch.as_tensor(x)))
        pyro.sample("top", dist.Delta(torch.as_tensor(x)))


def touching(x: Any) -> None:
    """A guide of the chain whose rows touch each other."""
    with pyro.plate("data", len(x)):
        low: Any = pyro.sample("low", dist.Normal(torch.as_tensor(x) - x.mean(), 0.5))
        pyro.sample("top", dist.Normal(low, 0.5))
