"""NumPyro programs of the benchmarks, written as a user writes them: for the full data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def _dense(name: str, x: jax.Array, width: int) -> jax.Array:
    weight = numpyro.param(
        f"{name}_weight",
        lambda key: jax.nn.initializers.glorot_normal()(key, (x.shape[-1], width)),
    )
    return x @ weight + numpyro.param(f"{name}_bias", jnp.zeros(width))


def vae(pixels: int, hidden: int, latent: int):
    """Return model and guide of a Bernoulli variational autoencoder with one hidden layer each."""

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            logits = _dense("pixels", jax.nn.relu(_dense("decoder", z, hidden)), pixels)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            features = jax.nn.relu(_dense("encoder", x, hidden))
            loc, log_scale = _dense("loc", features, latent), _dense("log_scale", features, latent)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


def eight_schools(effects, errors):
    """Hierarchical normal model of the eight schools, non-centred."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(effects)):
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0))
        numpyro.sample("effect", dist.Normal(mean + spread * raw, errors), obs=effects)


def gaussian(root):
    """Normal with covariance root root^T."""
    numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(len(root)), scale_tril=root))


def logistic(covariates, labels):
    """Logistic regression with standard normal weights."""
    columns = covariates.shape[1]
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(columns), 1.0).to_event(1))
    with numpyro.plate("data", len(covariates)):
        numpyro.sample("label", dist.Bernoulli(logits=covariates @ weights), obs=labels)


def mixture(x):
    """Mixture of two Gaussians with diagonal scales, assignments summed out.

    The second component lies above the first in both columns (long eruptions follow long waits), so
    that no chain is caught with its labels exchanged.
    """
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    centre = numpyro.sample("centre", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    gap = numpyro.sample("gap", dist.HalfNormal(jnp.full(2, 2.0)).to_event(1))
    scales = numpyro.sample("scales", dist.LogNormal(jnp.full((2, 2), -1.0), 0.3).to_event(2))
    means = centre + gap * jnp.array([[-0.5], [0.5]])
    components = dist.Normal(means, scales).to_event(1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=x)


def spins(coupling, field):
    """Spins in one factor of all of them, and a normal beside them."""
    numpyro.sample("u", dist.Normal(0.0, 1.0))
    with numpyro.plate("spins", len(field)):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
    s = 2.0 * x - 1.0
    numpyro.factor("energy", s @ coupling @ s + s @ field)


def assigned(y):
    """A mixture of two normals whose assignments are latent; the second mean is the larger."""
    low = numpyro.sample("low", dist.Normal(-1.0, 2.0))
    gap = numpyro.sample("gap", dist.Gamma(4.0, 1.0))
    means = jnp.stack([low, low + gap])
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
