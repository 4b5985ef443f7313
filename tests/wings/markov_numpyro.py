"""Chains of latents in native NumPyro: an autoregression, hidden states, written with scan."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import TraceEnum_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal


def autoregression(y):
    """A latent autoregression: z_t ~ N(0.8 z_{t-1}, 0.5), y_t ~ N(z_t, 1)."""

    def step(z, y):
        z = numpyro.sample("z", dist.Normal(0.8 * z, 0.5))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, jnp.zeros(()), y)


def hidden_states(y):
    """Hidden states: a ~ N(1, 0.5), x_t | x_{t-1} in {0, 1}, y_t ~ N(a (2 x_t - 1), 1)."""
    a = numpyro.sample("a", dist.Normal(1.0, 0.5))

    def step(x, y):
        infer = {"enumerate": "parallel"}
        x = numpyro.sample("x", dist.Bernoulli(0.2 + 0.6 * x), infer=infer)
        numpyro.sample("y", dist.Normal(a * (2 * x - 1), 1.0), obs=y)
        return x, None

    scan(step, 0, y)


def counted_states(y):
    """States that count from one: x_t in {1, 2}, y_t ~ N(a (x_t - x_{t-1} / 2), 1), x_0 = 1."""
    a = numpyro.sample("a", dist.Normal(1.0, 0.5))

    def step(x, y):
        infer = {"enumerate": "parallel"}
        new = numpyro.sample("x", dist.DiscreteUniform(1, 2), infer=infer)
        numpyro.sample("y", dist.Normal(a * (new - x / 2), 1.0), obs=y)
        return new, None

    scan(step, 1, y)


def states_guide(y):
    """A wide guide of the parameter alone."""
    numpyro.sample("a", dist.Normal(1.0, 0.6))


def full_guide(model):
    """A normal over all latents."""
    return AutoMultivariateNormal(model)


def guide_without_states(model):
    """A normal over the continuous latents."""
    return AutoNormal(handlers.block(model, hide=["x"]))


def trace_enum():
    """The language's bound with discrete sites summed out."""
    return TraceEnum_ELBO()
