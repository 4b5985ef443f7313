"""Programs for parity, in Pyro."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.poutine import mask, scale
from torch import Tensor
from torch.nn.functional import softplus

from .weights import HIDDEN, LATENT, WEIGHTS


def layer(name: str, x: Tensor) -> Tensor:
    """An affine map whose last row of weights is the bias."""
    w = pyro.param(name, torch.as_tensor(WEIGHTS[name]))
    return x @ w[:-1] + w[-1]


def vae(x: Tensor) -> None:
    """A decoder of bits."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
        hidden = torch.tanh(layer("decoder_1", z))
        logits = layer("decoder_2", hidden)
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def vae_guide(x: Tensor) -> None:
    """Its encoder."""
    with pyro.plate("data", len(x)):
        hidden = torch.tanh(layer("encoder_1", x))
        spread = softplus(layer("encoder_scale", hidden))
        pyro.sample("z", dist.Normal(layer("encoder_loc", hidden), spread).to_event(1))


def autoencoder(x: Tensor) -> None:
    """A deterministic code: maximum likelihood, no latents."""
    with pyro.plate("data", len(x)):
        code = layer("encoder_loc", torch.tanh(layer("encoder_1", x)))
        logits = layer("decoder_2", torch.tanh(layer("decoder_1", code)))
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def handled(y: Tensor) -> None:
    """Shared and local latents, factors inside and outside the plate, a mask and a scale."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        with scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.factor("inside", -0.1 * (y - mu) ** 2)
        with mask(mask=y > 0):
            pyro.sample("y", dist.StudentT(3.0, z, 0.7), obs=y)
    pyro.factor("outside", -(mu**4))


def handled_guide(y: Tensor) -> None:
    """Independent normals."""
    loc = pyro.param("loc", torch.tensor(0.2))
    width = pyro.param("width", torch.tensor(0.6), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc, width))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(0.5 * y, 0.8))


def constrained(y: Tensor) -> None:
    """A latent for each kind of support."""
    positive = pyro.sample("positive", dist.Gamma(2.0, 1.5))
    unit = pyro.sample("unit", dist.Beta(2.0, 3.0))
    interval = pyro.sample("interval", dist.Uniform(-1.0, 2.0))
    moving = pyro.sample("moving", dist.Uniform(0.0, 2.0 + interval))
    simplex = pyro.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    ordered = pyro.sample("ordered", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    pyro.factor("ordered_prior", dist.Normal(0.0, 2.0).log_prob(ordered).sum(-1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(3, 1.5))
    with pyro.plate("column", HIDDEN):
        column = pyro.sample("column_scale", dist.LogNormal(0.0, 0.5))
    pyro.deterministic("total", column.sum())
    mean = interval + moving + unit * ordered[1] + simplex @ correlation[-1]
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, positive + column.sum()), obs=y)


def mixture(y: Tensor) -> None:
    """Two components whose assignments are summed out."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(mu[k], 0.8), obs=y)


def supports(y: Tensor) -> None:
    """A proper latent for each kind of support, one of them moved by another."""
    positive = pyro.sample("positive", dist.Gamma(2.0, 1.5))
    unit = pyro.sample("unit", dist.Beta(2.0, 3.0))
    interval = pyro.sample("interval", dist.Uniform(-1.0, 2.0))
    moving = pyro.sample("moving", dist.Uniform(0.0, 2.0 + interval))
    simplex = pyro.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    correlation = pyro.sample("correlation", dist.LKJCholesky(3, 1.5))
    with pyro.plate("column", HIDDEN):
        column = pyro.sample("column_scale", dist.LogNormal(0.0, 0.5))
    mean = interval + moving + unit + simplex @ correlation[-1]
    pyro.factor("tilt", -(unit**2))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, positive + column.sum()), obs=y)


def local_mixture(y: Tensor) -> None:
    """For each datum a component, which is summed out, and two latents that depend on it."""
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        width = pyro.sample("width", dist.Gamma(2.0 + k, 1.0))
        z = pyro.sample("z", dist.Normal(torch.tensor([-1.0, 1.0])[k], width))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)
