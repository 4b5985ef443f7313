"""Programs with latents of each datum, in NumPyro, and guides that fit them or do not."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def coins(x: Any) -> None:
    """A coin of each datum that shifts a normal."""
    with numpyro.plate("data", len(x)):
        z: Any = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)


def blind_coins(x: Any) -> None:
    """A guide that gives every datum the same coin."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Bernoulli(logits=0.0 * jnp.asarray(x)))


def chain(x: Any) -> None:
    """Two latents one after the other, all normal."""
    with numpyro.plate("data", len(x)):
        top: Any = numpyro.sample("top", dist.Normal(0.0, 1.0))
        low: Any = numpyro.sample("low", dist.Normal(top, 0.7))
        numpyro.sample("x", dist.Normal(low, 0.5), obs=x)


def blind_chain(x: Any) -> None:
    """A guide that knows how the latents hang together, and nothing of the datum."""
    with numpyro.plate("data", len(x)):
        low: Any = numpyro.sample("low", dist.Normal(0.0, 0.5))
        numpyro.sample("top", dist.Normal(low / 1.49, (0.49 / 1.49) ** 0.5))


def shared(x: Any) -> None:
    """A latent that the rows share beside their own."""
    mean: Any = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z: Any = numpyro.sample("z", dist.Normal(mean, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shared_guide(x: Any) -> None:
    """Its guide."""
    numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x, 1.0))


def point(x: Any) -> None:
    """A guide of the chain that is a point."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("low", dist.Delta(jnp.asarray(x)))
        numpyro.sample("top", dist.Delta(jnp.asarray(x)))


def touching(x: Any) -> None:
    """A guide of the chain whose rows touch each other."""
    with numpyro.plate("data", len(x)):
        low: Any = numpyro.sample("low", dist.Normal(jnp.asarray(x) - jnp.mean(x), 0.5))
        numpyro.sample("top", dist.Normal(low, 0.5))
