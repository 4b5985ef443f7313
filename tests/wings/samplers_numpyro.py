"""Programs and single steps for the tests of samplers: the NumPyro twin of `samplers_pyro.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal

from deepgen_ppl.numpyro.kernels import chees, hmc, langevin, rwm


def correlated(root: Array) -> None:
    """Normal with covariance root root^T."""
    size = len(root)
    numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(size), scale_tril=root))


def skewed() -> None:
    """Gamma of shape 3 and rate 2, and one half of a normal: asymmetric on the unconstrained."""
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("size", dist.HalfNormal(2.0))


def coin(flips: Array) -> None:
    """A coin: p ~ Beta(2, 1)."""
    p = numpyro.sample("p", dist.Beta(2.0, 1.0))
    with numpyro.plate("data", len(flips)):
        numpyro.sample("flip", dist.Bernoulli(p), obs=flips)


def square_root(y: Array) -> None:
    """Of a square only the square is seen, with noise: x may be either root."""
    x = numpyro.sample("x", dist.Normal(0.0, 5.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(x**2, 1.0), obs=y)


def banana() -> None:
    """A ridge along a parabola: E b = 1/2, Var b = 3/2."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(a**2 / 2, 1.0))


def nowhere(y: Array) -> None:
    """A density that is zero everywhere."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("wall", jnp.where(x == x, -jnp.inf, 0.0) + 0.0 * y.sum())


def counts(y: Array) -> None:
    """A latent count without bound."""
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    with numpyro.plate("data", len(y)):
        count = numpyro.sample("count", dist.Poisson(rate))
        numpyro.sample("y", dist.Normal(count, 1.0), obs=y)


def iaf(model):
    """A flow guide."""
    return AutoIAFNormal(model, num_flows=1, hidden_dims=[8, 8])


def full_normal(model):
    """A normal guide with full covariance."""
    return AutoMultivariateNormal(model)


def mean_field(model):
    """A guide without a transform."""
    return AutoNormal(model)


STEPS = {"hmc": hmc.step, "chees": chees.step, "langevin": langevin.step, "rwm": rwm.step}


def step(name: str, position: np.ndarray, which: str, seed: int, **options):
    """Take one step of a kernel from given positions; return positions and the mean acceptance."""
    value_and_grad = {"gumbel": gumbel, "normal": normal}[which]

    def run(key: Array, z: Array):
        return STEPS[name](key, hmc.init(z, value_and_grad), value_and_grad, **options)

    state, info = jax.jit(run)(random.key(seed), jnp.asarray(position))
    return np.asarray(state.position), float(info.acceptance.mean())


def gumbel(z: Array) -> tuple[Array, Array]:
    """Energy and gradient of independent standard Gumbel numbers."""
    return (z + jnp.exp(-z)).sum(-1), 1.0 - jnp.exp(-z)


def normal(z: Array) -> tuple[Array, Array]:
    """Energy and gradient of independent standard normal numbers."""
    return 0.5 * (z**2).sum(-1), z
