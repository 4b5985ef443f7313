"""What the tests of ready programs need of NumPyro: emissions, native enumeration, values."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.infer.util import log_density


def normal_emission():
    """States three apart, noise one."""
    return lambda state: dist.Normal(3.0 * state, 1.0)


def learned_emission():
    """A mean for each of two states, shared by all steps."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    return lambda state: dist.Normal(mean[state], 1.0)


def log_joint(model, values, *data) -> float:
    """Log density of the program at given values."""
    given = {k: np.asarray(v) for k, v in values.items()}
    with handlers.seed(rng_seed=0):  # sites that are masked out wherever they are latent
        return float(log_density(model, data, {}, given)[0])


def log_marginal(model, *data) -> float:
    """Log density with the discrete sites summed out by the language."""
    from numpyro.contrib.funsor import enum
    from numpyro.contrib.funsor import log_density as summed

    @jax.jit
    def total(*data):
        with handlers.seed(rng_seed=0), enum(first_available_dim=-2):
            return summed(model, data, {}, {})[0]

    return float(total(*data))


def table(value: Array) -> np.ndarray:
    """A parameter as an array."""
    return np.asarray(jax.device_get(value), float)
