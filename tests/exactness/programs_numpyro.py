"""Conjugate models as NumPyro programs, with guides; `oracles.py` knows their answers."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal


def adam(step_size: float, num_steps: int) -> optax.GradientTransformation:
    """Adam whose step size falls to nothing along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(step_size, num_steps))


def descent(rate: float) -> optax.GradientTransformation:
    """Plain gradient descent."""
    return optax.sgd(rate)


def standing_still() -> optax.GradientTransformation:
    """An optimizer that never moves."""
    return optax.sgd(0.0)


def normal_mean(y: Array) -> None:
    """An unknown mean: mu ~ N(0, 2), y_i ~ N(mu, 1)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def normal_mean_guide(y: Array) -> None:
    """A normal that starts away from the answer."""
    loc = numpyro.param("loc", jnp.array(0.3))
    scale = numpyro.param("scale", jnp.array(0.4), constraint=constraints.positive)
    numpyro.sample("mu", dist.Normal(loc, scale))


def regression(y: Array, x: Array) -> None:
    """Linear regression: w ~ N(0, I), y_i ~ N(x_i w, 1/2)."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def regression_guide() -> AutoMultivariateNormal:
    """The full normal over the weights."""
    return AutoMultivariateNormal(regression)


def coin(y: Array) -> None:
    """A coin: p ~ Beta(2, 3), y_i ~ Bernoulli(p)."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Bernoulli(p), obs=y)


def coin_guide(y: Array) -> None:
    """A beta over the coin's probability."""
    a = numpyro.param("a", jnp.array(3.0), constraint=constraints.positive)
    b = numpyro.param("b", jnp.array(3.0), constraint=constraints.positive)
    numpyro.sample("p", dist.Beta(a, b))


def counts(y: Array) -> None:
    """Counts of one rate: rate ~ Gamma(3, 1), y_i ~ Poisson(rate)."""
    rate = numpyro.sample("rate", dist.Gamma(3.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def counts_guide(y: Array) -> None:
    """A gamma over the rate, by its mean and shape."""
    mean = numpyro.param("mean", jnp.array(2.0), constraint=constraints.positive)
    shape = numpyro.param("shape", jnp.array(20.0), constraint=constraints.positive)
    numpyro.sample("rate", dist.Gamma(shape, shape / mean))


def local_normal(y: Array) -> None:
    """One latent for each datum: z_i ~ N(0, 1), y_i ~ N(z_i, 1/2)."""
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y)


def local_normal_guide(y: Array) -> None:
    """A normal whose mean is linear in the datum."""
    slope = numpyro.param("slope", jnp.array(0.6))
    scale = numpyro.param("scale", jnp.array(0.6), constraint=constraints.positive)
    with numpyro.plate("data", len(y)):
        numpyro.sample("z", dist.Normal(slope * y, scale))


def group(y: Array) -> None:
    """A shared mean and local latents: mu ~ N(0, 2), z_i ~ N(mu, 1), y_i ~ N(z_i, 1/2)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y)


def group_guide(y: Array) -> None:
    """Independent normals, the data's with a mean linear in the datum."""
    loc = numpyro.param("loc", jnp.array(0.3))
    scale = numpyro.param("scale", jnp.array(0.4), constraint=constraints.positive)
    numpyro.sample("mu", dist.Normal(loc, scale))
    slope = numpyro.param("slope", jnp.array(0.6))
    width = numpyro.param("width", jnp.array(0.6), constraint=constraints.positive)
    with numpyro.plate("data", len(y)):
        numpyro.sample("z", dist.Normal(slope * y, width))


def group_table() -> AutoNormal:
    """Independent normals, one with parameters of its own for each datum."""
    return AutoNormal(group)


def factor_analysis(y: Array) -> None:
    """Probabilistic PCA: z_i ~ N(0, I), y_i ~ N(z_i loading + centre, noise I), all learned."""
    loading = numpyro.param("loading", jnp.array([[0.5, 0.1, -0.4, 0.2], [0.1, 0.6, 0.3, -0.2]]))
    centre = numpyro.param("centre", jnp.zeros(4))
    noise = numpyro.param("noise", jnp.array(0.7), constraint=constraints.positive)
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(z @ loading + centre, noise).to_event(1), obs=y)


def factor_analysis_guide(y: Array) -> None:
    """A normal with a mean linear in the datum and one full covariance."""
    slope = numpyro.param("slope", jnp.full((4, 2), 0.1))
    shift = numpyro.param("shift", jnp.zeros(2))
    tril = numpyro.param("tril", 0.5 * jnp.eye(2), constraint=constraints.lower_cholesky)
    with numpyro.plate("data", len(y)):
        numpyro.sample("z", dist.MultivariateNormal(y @ slope + shift, scale_tril=tril))


def dirichlet_guide(net):
    """A Dirichlet for each row of the tables: the family that holds the posterior."""

    def guide(*_):
        for variable, table in net.tables.items():
            name = f"{variable}_table"
            start = jnp.full(table.shape, 5.0)
            alpha = numpyro.param(f"{name}_alpha", start, constraint=constraints.positive)
            numpyro.sample(name, dist.Dirichlet(alpha).to_event(table.ndim - 1))

    return guide


def weighted_normal(y: Array) -> None:
    """One latent for each datum: z_i ~ N(0, 1), y_i ~ N(weight z_i, noise)."""
    weight = numpyro.param("weight", jnp.array(1.2))
    noise = numpyro.param("noise", jnp.array(0.5), constraint=constraints.positive)
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(weight * z, noise), obs=y)


def ladder(y: Array) -> None:
    """Two latents for each datum: top_i ~ N(0, 1), z_i ~ N(top_i, 1), y_i ~ N(z_i, 1/2)."""
    with numpyro.plate("data", len(y)):
        top = numpyro.sample("top", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Normal(top, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y)


def ladder_guide(y: Array) -> None:
    """Upwards: z_i ~ N(slope y_i, 1/2), then top_i ~ N(up z_i, 0.7)."""
    slope, up = numpyro.param("slope", jnp.array(0.6)), numpyro.param("up", jnp.array(0.7))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(slope * y, 0.5))
        numpyro.sample("top", dist.Normal(up * z, 0.7))


def switch(y: Array) -> None:
    """A bit and a normal for each datum: y_i ~ N(weight u_i + z_i, 1/2)."""
    weight = numpyro.param("weight", jnp.array(1.2))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        u = numpyro.sample("u", dist.Normal(z * 1.0, 1.0))
        numpyro.sample("y", dist.Normal(weight * u + z, 0.5), obs=y)


def switch_guide(y: Array) -> None:
    """Log odds and a mean that are linear in the datum; the mean sees the bit."""
    odds = numpyro.param("odds", jnp.array(0.4))
    slope = numpyro.param("slope", jnp.array(0.6))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(logits=odds * y))
        numpyro.sample("u", dist.Normal(slope * y - 0.5 * z, 0.6))


def shared_switch(y: Array) -> None:
    """One bit of all data: y_i ~ N(weight z, 1)."""
    weight = numpyro.param("weight", jnp.array(1.2))
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(weight * z, 1.0), obs=y)


def shared_switch_guide(y: Array) -> None:
    """Log odds of the bit."""
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("odds", jnp.array(0.4))))


def both_switches(y: Array) -> None:
    """A bit of all data beside one of each."""
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("data", len(y)):
        own = numpyro.sample("own", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(1.0 * z + own, 1.0), obs=y)


def both_switches_guide(y: Array) -> None:
    """Fair bits."""
    numpyro.sample("z", dist.Bernoulli(0.5))
    with numpyro.plate("data", len(y)):
        numpyro.sample("own", dist.Bernoulli(0.5))


def count(y: Array) -> None:
    """A count of each datum: y_i ~ N(n_i, 1)."""
    with numpyro.plate("data", len(y)):
        n = numpyro.sample("n", dist.Poisson(2.0))
        numpyro.sample("y", dist.Normal(1.0 * n, 1.0), obs=y)


def count_guide(y: Array) -> None:
    """Counts of one rate."""
    rate = numpyro.param("rate", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("data", len(y)):
        numpyro.sample("n", dist.Poisson(rate))
