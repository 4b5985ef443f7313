"""Chains of latents in native Pyro: an autoregression, hidden states, written with markov."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal


def autoregression(y):
    """A latent autoregression: z_t ~ N(0.8 z_{t-1}, 0.5), y_t ~ N(z_t, 1)."""
    z = torch.zeros(())
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Normal(0.8 * z, 0.5))
        pyro.sample(f"y_{t}", dist.Normal(z, 1.0), obs=y[t])


def hidden_states(y):
    """Hidden states: a ~ N(1, 0.5), x_t | x_{t-1} in {0, 1}, y_t ~ N(a (2 x_t - 1), 1)."""
    a = pyro.sample("a", dist.Normal(1.0, 0.5))
    x = torch.zeros(())
    for t in pyro.markov(range(len(y))):
        infer = {"enumerate": "parallel"}
        x = pyro.sample(f"x_{t}", dist.Bernoulli(0.2 + 0.6 * x), infer=infer)
        pyro.sample(f"y_{t}", dist.Normal(a * (2 * x - 1), 1.0), obs=y[t])


def states_guide(y):
    """A wide guide of the parameter alone."""
    pyro.sample("a", dist.Normal(1.0, 0.6))


def full_guide(model):
    """A normal over all latents."""
    return AutoMultivariateNormal(model)


def guide_without_states(model):
    """A normal over the continuous latents."""
    return AutoNormal(poutine.block(model, hide_fn=lambda msg: msg["name"].startswith("x_")))


def trace_enum():
    """The language's bound with discrete sites summed out."""
    return TraceEnum_ELBO(max_plate_nesting=0)
