"""Programs with discrete latents that their guides lack, in NumPyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.funsor import config_enumerate
from numpyro.handlers import block, mask
from numpyro.infer import TraceEnum_ELBO
from numpyro.infer.autoguide import AutoNormal

WEIGHTS = jnp.array([0.3, 0.7])
MEANS = jnp.array([-2.0, 2.0])


@config_enumerate
def shared_means(x: Array) -> None:
    """Means that the rows share; each row's group is its own."""
    with numpyro.plate("parts", 2):
        mean = numpyro.sample("mean", dist.Normal(MEANS, 0.5))
    with numpyro.plate("data", len(x)):
        group = numpyro.sample("group", dist.Categorical(WEIGHTS))
        numpyro.sample("x", dist.Normal(mean[group], 0.8), obs=x)


def means_guide(x: Array) -> None:
    """Means a little wider than their prior."""
    with numpyro.plate("parts", 2):
        numpyro.sample("mean", dist.Normal(MEANS, 0.6))


def auto_guide() -> AutoNormal:
    """An autoguide of the means alone."""
    return AutoNormal(block(shared_means, hide=["group"]))


def trace_enum() -> TraceEnum_ELBO:
    """The language's ELBO that sums out what the guide lacks."""
    return TraceEnum_ELBO()


def own_values(x: Array) -> None:
    """A group, a coin and a value of each row."""
    with numpyro.plate("data", len(x)):
        group = numpyro.sample("group", dist.Categorical(WEIGHTS))
        coin = numpyro.sample("coin", dist.Bernoulli(WEIGHTS[group]))
        value = numpyro.sample("value", dist.Normal(MEANS[group] + coin, 1.0))
        numpyro.sample("x", dist.Normal(value, 0.5), obs=x)


enumerated_values = config_enumerate(own_values)


def values_guide(x: Array) -> None:
    """The values alone."""
    scale = numpyro.param("scale", 0.9)
    with numpyro.plate("data", len(x)):
        numpyro.sample("value", dist.Normal(0.8 * x, scale))


def values_and_coins(x: Array) -> None:
    """The values, and one of the discrete sites."""
    scale = numpyro.param("scale", 0.9)
    with numpyro.plate("data", len(x)):
        numpyro.sample("coin", dist.Bernoulli(0.5 * jnp.ones(())))
        numpyro.sample("value", dist.Normal(0.8 * x, scale))


def one_group(x: Array) -> None:
    """A group that all rows share."""
    group = numpyro.sample("group", dist.Categorical(WEIGHTS))
    mean = numpyro.sample("mean", dist.Normal(MEANS[group], 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 0.8), obs=x)


def one_mean_guide(x: Array) -> None:
    """The mean alone."""
    numpyro.sample("mean", dist.Normal(jnp.mean(x), 0.5))


def counted(x: Array) -> None:
    """A count of infinite support."""
    count = numpyro.sample("count", dist.Poisson(3.0))
    mean = numpyro.sample("mean", dist.Normal(count, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 0.8), obs=x)


def coins(x: Array, masked: Array) -> None:
    """A coin of each row: b_i ~ Bernoulli(0.3), x_i ~ N(2 b_i, 1)."""
    with numpyro.plate("data", len(x)):
        b = numpyro.sample("b", dist.Bernoulli(probs=0.3))
        numpyro.sample("x", dist.Normal(2.0 * b, 1.0), obs=x)


def masked_coins_guide(x: Array, masked: Array) -> None:
    """A coin of each row, in some rows without its log density."""
    logits = numpyro.param("logits", 0.4 * jnp.ones(len(x)))
    with numpyro.plate("data", len(x)), mask(mask=~masked):
        numpyro.sample("b", dist.Bernoulli(logits=logits))


def own_mask_coins_guide(x: Array, masked: Array) -> None:
    """The same mask, as the distribution's own."""
    logits = numpyro.param("logits", 0.4 * jnp.ones(len(x)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("b", dist.Bernoulli(logits=logits).mask(~masked))


def far_guide(x: Array) -> None:
    """A narrow guide of `local_normal` of the zoo, far from its posterior."""
    shift = numpyro.param("shift", 3.0)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(0.5 * x + shift, 0.05))
