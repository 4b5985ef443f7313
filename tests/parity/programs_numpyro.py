"""Programs for parity, in NumPyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, nn
from numpyro.distributions import constraints
from numpyro.handlers import mask, scale

from .weights import HIDDEN, LATENT, WEIGHTS


def layer(name: str, x: Array) -> Array:
    """An affine map whose last row of weights is the bias."""
    w = numpyro.param(name, jnp.asarray(WEIGHTS[name]))
    return x @ w[:-1] + w[-1]


def vae(x: Array) -> None:
    """A decoder of bits."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        hidden = jnp.tanh(layer("decoder_1", z))
        logits = layer("decoder_2", hidden)
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def vae_guide(x: Array) -> None:
    """Its encoder."""
    with numpyro.plate("data", len(x)):
        hidden = jnp.tanh(layer("encoder_1", x))
        spread = nn.softplus(layer("encoder_scale", hidden))
        numpyro.sample("z", dist.Normal(layer("encoder_loc", hidden), spread).to_event(1))


def autoencoder(x: Array) -> None:
    """A deterministic code: maximum likelihood, no latents."""
    with numpyro.plate("data", len(x)):
        code = layer("encoder_loc", jnp.tanh(layer("encoder_1", x)))
        logits = layer("decoder_2", jnp.tanh(layer("decoder_1", code)))
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def handled(y: Array) -> None:
    """Shared and local latents, factors inside and outside the plate, a mask and a scale."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        with scale(scale=0.5):
            z = numpyro.sample("z", dist.Normal(mu, 1.0))
        numpyro.factor("inside", -0.1 * (y - mu) ** 2)
        with mask(mask=y > 0):
            numpyro.sample("y", dist.StudentT(3.0, z, 0.7), obs=y)
    numpyro.factor("outside", -(mu**4))


def handled_guide(y: Array) -> None:
    """Independent normals."""
    loc = numpyro.param("loc", jnp.array(0.2))
    width = numpyro.param("width", jnp.array(0.6), constraint=constraints.positive)
    numpyro.sample("mu", dist.Normal(loc, width))
    with numpyro.plate("data", len(y)):
        numpyro.sample("z", dist.Normal(0.5 * y, 0.8))


def constrained(y: Array) -> None:
    """A latent for each kind of support."""
    positive = numpyro.sample("positive", dist.Gamma(2.0, 1.5))
    unit = numpyro.sample("unit", dist.Beta(2.0, 3.0))
    interval = numpyro.sample("interval", dist.Uniform(-1.0, 2.0))
    moving = numpyro.sample("moving", dist.Uniform(0.0, 2.0 + interval))
    simplex = numpyro.sample("simplex", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    ordered = numpyro.sample("ordered", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    numpyro.factor("ordered_prior", dist.Normal(0.0, 2.0).log_prob(ordered).sum(-1))
    correlation = numpyro.sample("correlation", dist.LKJCholesky(3, 1.5))
    with numpyro.plate("column", HIDDEN):
        column = numpyro.sample("column_scale", dist.LogNormal(0.0, 0.5))
    numpyro.deterministic("total", column.sum())
    mean = interval + moving + unit * ordered[1] + simplex @ correlation[-1]
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean, positive + column.sum()), obs=y)


def mixture(y: Array) -> None:
    """Two components whose assignments are summed out."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", len(y)):
        k = numpyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu[k], 0.8), obs=y)


def supports(y: Array) -> None:
    """A proper latent for each kind of support, one of them moved by another."""
    positive = numpyro.sample("positive", dist.Gamma(2.0, 1.5))
    unit = numpyro.sample("unit", dist.Beta(2.0, 3.0))
    interval = numpyro.sample("interval", dist.Uniform(-1.0, 2.0))
    moving = numpyro.sample("moving", dist.Uniform(0.0, 2.0 + interval))
    simplex = numpyro.sample("simplex", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    correlation = numpyro.sample("correlation", dist.LKJCholesky(3, 1.5))
    with numpyro.plate("column", HIDDEN):
        column = numpyro.sample("column_scale", dist.LogNormal(0.0, 0.5))
    mean = interval + moving + unit + simplex @ correlation[-1]
    numpyro.factor("tilt", -(unit**2))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean, positive + column.sum()), obs=y)


def local_mixture(y: Array) -> None:
    """For each datum a component, which is summed out, and two latents that depend on it."""
    with numpyro.plate("data", len(y)):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
        width = numpyro.sample("width", dist.Gamma(2.0 + k, 1.0))
        z = numpyro.sample("z", dist.Normal(jnp.array([-1.0, 1.0])[k], width))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y)
