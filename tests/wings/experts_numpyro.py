"""Experts and families as functions of NumPy arrays: the NumPyro side of the tests."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax


def adam(rate: float) -> Any:
    return optax.adam(rate)


def array(value: Any) -> Any:
    return jnp.asarray(value)


def numpy(value: Any) -> np.ndarray:
    return np.asarray(value)


def normal(location: Any, scale: Any, size: int) -> Any:
    """Independent normals of some entries."""
    return dist.Normal(location, scale).expand([size]).to_event(1)


def bits(probs: Any) -> Any:
    """Independent bits."""
    return dist.Bernoulli(probs=jnp.asarray(probs)).to_event(1)


def draw(distribution: Any, count: int, seed: int = 0) -> np.ndarray:
    sample = jax.jit(lambda key: distribution.sample(key, (count,)))
    return np.asarray(sample(jax.random.key(seed)))


def with_logits(mixture: Any) -> np.ndarray:
    return np.asarray(mixture.logits)


def compiled(function: Any) -> Any:
    """The function, compiled where the language does that."""
    return jax.jit(function)


def rows() -> dict[str, Any]:
    """Families: statistics, base, natural parameters, the language's own distribution, data."""
    stack, log, log1p = jnp.stack, jnp.log, jnp.log1p
    like = jnp.asarray
    return {
        "bernoulli": (
            lambda x: x[..., None] * 1.0, dist.Bernoulli(probs=like(0.5)), [0.7],
            dist.Bernoulli(logits=like(0.7)), [0.0, 1.0],
        ),
        "poisson": (
            lambda x: x[..., None] * 1.0, dist.Poisson(like(1.0)), [1.2],
            dist.Poisson(like(np.exp(1.2))), [0.0, 3.0, 9.0],
        ),
        "normal": (
            lambda x: stack([x, x**2], -1), dist.Normal(like(0.0), 1.0), [1.0, -0.3],
            dist.Normal(like(1.0 / 1.6), 1.6**-0.5), [-1.0, 0.3, 4.0],
        ),
        "gamma": (
            lambda x: stack([log(x), x], -1), dist.Gamma(like(2.0), like(1.0)), [0.7, -0.5],
            dist.Gamma(like(2.7), like(1.5)), [0.1, 1.0, 5.0],
        ),
        "beta": (
            lambda x: stack([log(x), log1p(-x)], -1), dist.Beta(like(2.0), like(2.0)), [0.7, -0.5],
            dist.Beta(like(2.7), like(1.5)), [0.1, 0.5, 0.9],
        ),
        "categorical": (
            lambda x: jax.nn.one_hot(x, 3),
            dist.Categorical(logits=like([0.0, 0.0, 0.0])), [1.2, 0.1, -1.0],
            dist.Categorical(logits=like([1.2, 0.1, -1.0])), [0, 1, 2],
        ),
        "spins": (
            lambda x: stack([x[..., 0] + x[..., 1], x[..., 0] * x[..., 1]], -1),
            bits([0.5, 0.5]), [0.3, 1.0], None, [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
        ),
    }  # fmt: skip


def exponential() -> dict[str, Any]:
    """The exponential distribution as textbooks write it."""
    return {
        "statistics": lambda x: x[..., None],
        "base": dist.Exponential(1.0),
        "log_base": lambda x: 0.0 * x,
        "log_partition": lambda eta: -jnp.log(-eta[..., 0]),
    }


def coupled() -> dict[str, Any]:
    """Two normals whose product is a statistic: no sum is known."""
    return {"statistics": lambda x: x[..., :1] * x[..., 1:], "base": normal(0.0, 1.0, 2)}


def exact_net(weights: Any, places: Any, width: float, scale: float) -> Any:
    """The network with which a noise-conditional energy is that of a mixture of normals."""
    log_w, places = jnp.log(jnp.asarray(weights)), jnp.asarray(places)

    def net(scaled: Any, log_level: Any) -> Any:
        level = jnp.exp(log_level)
        total = jnp.sqrt(scale**2 + level**2)
        apart = ((scaled * total)[..., None, :] - places) ** 2
        v = width**2 + level**2
        parts = log_w - 0.5 * apart.sum(-1) / v - 0.5 * places.shape[-1] * jnp.log(v)
        log_p = jax.nn.logsumexp(parts, -1)
        return -(log_p + 0.5 * (scaled**2).sum(-1)) * level[..., 0] / scale

    return net


def simple(x: Any) -> None:
    """A mean and its data."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def tilted(x: Any) -> None:
    """A guide that is not normalised."""
    mean = numpyro.sample("mean", dist.Normal(numpyro.param("place", 0.0), 1.0))
    numpyro.factor("tilt", -(mean**2))


def growing() -> None:
    """A factor that grows faster than the base falls off."""
    numpyro.factor("growth", numpyro.sample("x", dist.Normal(0.0, 1.0)) ** 2)


def tied(x: Any, scale: float) -> Any:
    """Bits of a prior that is an energy, seen through noise."""
    tie = numpyro.param("tie", 0.0)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", bits([0.5, 0.5]))
        numpyro.factor("prior", tie * (2 * z[..., 0] - 1) * (2 * z[..., 1] - 1))
        numpyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)
