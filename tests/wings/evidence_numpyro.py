"""Programs of known evidence: the NumPyro twin of `evidence_pyro.py`."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal


def gaussian(x: Array) -> None:
    """An unknown vector: z ~ N(0, I), x_i ~ N(z, I)."""
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def beta_binomial(k: Array) -> None:
    """Successes in ten trials each: p ~ Beta(2, 3), k_i ~ Binomial(10, p)."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with numpyro.plate("data", len(k)):
        numpyro.sample("k", dist.Binomial(10, p), obs=k)


def regression(x: Array, y: Array) -> None:
    """A linear regression: weights ~ N(0, I), y_i ~ N(x_i . weights, 1/2)."""
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(x @ weights, 0.5), obs=y)


def ppca(x: Array) -> None:
    """Probabilistic PCA: z_i ~ N(0, I), x_i ~ N(z_i loading, 1/2), the loading learned."""
    loading = numpyro.param("loading", jnp.ones((2, x.shape[1])))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(z @ loading, 0.5).to_event(1), obs=x)


def ppca_guide(x: Array) -> None:
    """A normal whose mean is linear in the datum; its widths are learned."""
    slope = numpyro.param("slope", jnp.zeros((x.shape[1], 2)))
    width = numpyro.param("width", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ slope, width).to_event(1))


def coins(x: Array) -> None:
    """A coin per datum, summed out: k_i ~ Bernoulli(0.3), x_i ~ N(mean + 2 k_i, 1)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(mean + 2.0 * k, 1.0), obs=x)


def local_coins(x: Array) -> None:
    """A coin and a normal of its own for each datum: z_i ~ N(2 k_i, 1), x_i ~ N(z_i, 1)."""
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        z = numpyro.sample("z", dist.Normal(2.0 * k, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rates(x: Array) -> None:
    """Sites of several supports: scale ~ HalfNormal(1), share ~ Dirichlet(1, 1, 1)."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(share[0] - share[1], scale), obs=x)


def flat(x: Array) -> None:
    """A mean without a proper prior."""
    mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def endless(x: Array) -> None:
    """A count without a bound beside a mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    count = numpyro.sample("count", dist.Poisson(2.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean + count, 1.0), obs=x)


def only_coins(x: Array) -> None:
    """A model of discrete latents alone."""
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(k, 1.0), obs=x)


def broken(x: Array) -> None:
    """A factor that is NaN for half of the prior's draws."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    numpyro.factor("root", jnp.sqrt(mean))


def impossible(x: Array) -> None:
    """A factor of density zero everywhere."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    numpyro.factor("never", jnp.where(mean < 1e6, -jnp.inf, mean))


def doubled_data(x: Array) -> None:
    """Observes twice its argument."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=2.0 * x)


def real_guide(x: Array) -> None:
    """A guide of `rates` whose scale may be negative."""
    numpyro.sample("scale", dist.Normal(0.5, 0.1))
    numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))


def discrete_guide(x: Array) -> None:
    """A guide of `coins` that draws the coins too."""
    numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("k", dist.Bernoulli(0.3))


def auto_normal(model: Callable[..., None]) -> AutoNormal:
    """The mean-field autoguide."""
    return AutoNormal(model)


def auto_full(model: Callable[..., None]) -> AutoMultivariateNormal:
    """The autoguide with a full covariance of all latents."""
    return AutoMultivariateNormal(model)


def auto_point(model: Callable[..., None]) -> AutoDelta:
    """The autoguide of the mode alone."""
    return AutoDelta(model)
