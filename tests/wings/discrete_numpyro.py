"""Programs of discrete latents for the tests of kernels: the twin of `discrete_pyro.py`."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random

from deepgen_ppl.blocks import singly
from deepgen_ppl.numpyro.kernels import discrete_langevin, gibbs, gibbs_with_gradients

EFFECTS = jnp.array(
    [[2.5, -1.0, 0.3], [-0.7, 1.8, 1.1], [1.2, 0.6, -2.2], [-1.6, -0.9, -0.4], [0.4, 2.1, -1.3]]
)


def ising(coupling: Array, field: Array) -> None:
    """Spins in one factor of all of them: exp(s' J s + h' s)."""
    x = numpyro.sample("x", dist.Bernoulli(0.5).expand([len(field)]).to_event(1))
    s = 2.0 * x - 1.0
    numpyro.factor("energy", s @ coupling @ s + s @ field)


def chain(coupling: Array) -> None:
    """Spins along a line, a factor for each edge."""
    with numpyro.plate("spins", len(coupling) + 1):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
    s = 2.0 * x - 1.0
    with numpyro.plate("edges", len(coupling)):
        numpyro.factor("energy", coupling * s[1:] * s[:-1])


def student(tables: dict, letter: Array) -> None:
    """The student network, its letter observed."""
    difficulty = numpyro.sample("difficulty", dist.Categorical(tables["difficulty"]))
    intelligence = numpyro.sample("intelligence", dist.Categorical(tables["intelligence"]))
    grade = numpyro.sample("grade", dist.Categorical(tables["grade"][intelligence, difficulty]))
    numpyro.sample("sat", dist.Categorical(tables["sat"][intelligence]))
    numpyro.sample("letter", dist.Categorical(tables["letter"][grade]), obs=letter)


def assignments(y: Array, weights: Array, means: Array) -> None:
    """A mixture of known normals: which one made each datum."""
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def mixture(y: Array, weights: Array) -> None:
    """A mixture of normals with unknown means, the second one above the first."""
    low = numpyro.sample("low", dist.Normal(-1.0, 2.0))
    gap = numpyro.sample("gap", dist.Gamma(4.0, 1.0))
    means = numpyro.deterministic("means", jnp.stack([low, low + gap]))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def counts(y: Array) -> None:
    """Kinds of discrete sites: a number of successes, whole numbers from 2, and a switch."""
    heads = numpyro.sample("heads", dist.Binomial(3, 0.3))
    size = numpyro.sample("size", dist.DiscreteUniform(2, 5))
    on = numpyro.sample("on", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(heads * on + 0.5 * size, 1.0), obs=y)


def hidden(y: Array) -> None:
    """A coupling that shows at one state of ten only: what a few probes do not see."""
    switch = numpyro.sample("switch", dist.Categorical(jnp.ones(10) / 10.0))
    with numpyro.plate("spins", 3):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
    with numpyro.plate("terms", 2):
        numpyro.factor("meet", jnp.where(switch == 7, 3.0 * x[1:] * x[:-1], 0.0))
    numpyro.sample("y", dist.Normal(switch * 1.0, 1.0), obs=y)


def shots(y: Array) -> None:
    """A count without bound."""
    count = numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(count, 1.0), obs=y)


def nothing_discrete(y: Array) -> None:
    """A mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def impossible(y: Array) -> None:
    """A density that is zero everywhere."""
    x = numpyro.sample("x", dist.Bernoulli(0.5))
    numpyro.factor("wall", jnp.where(x < 2, -jnp.inf, 0.0) + 0.0 * y.sum())


def belief(x: Array) -> None:
    """Causes of each datum's own: b_ij ~ Bernoulli(0.3), s_i ~ N(0, 1), x_i ~ N(b_i w + s_i, 1)."""
    with numpyro.plate("data", len(x)):
        b = numpyro.sample("b", dist.Bernoulli(0.3).expand([5]).to_event(1))
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        mean = b.astype(float) @ EFFECTS + s[:, None]
        numpyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def belief_guide(x: Array) -> None:
    """A guide of `belief` that draws causes and shifts."""
    with numpyro.plate("data", len(x)):
        b = numpyro.sample("b", dist.Bernoulli(0.5).expand([5]).to_event(1))
        mean = 0.5 * (x.mean(1) - (b.astype(float) @ EFFECTS).mean(1))
        numpyro.sample("s", dist.Normal(mean, 0.8))


def shift_guide(x: Array) -> None:
    """A guide of `belief` that draws the shifts alone."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("s", dist.Normal(0.3 * x.mean(1), 1.0))


def causes_guide(x: Array) -> None:
    """A guide of `belief` that lacks the shifts."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("b", dist.Bernoulli(0.5).expand([5]).to_event(1))


def crowd(y: Array) -> None:
    """Thirty spins, each a site of its own, that all meet in one factor, and a mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    spins = [numpyro.sample(f"x{i}", dist.Bernoulli(0.5)) for i in range(30)]
    total = sum(spins)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean + 0.2 * total, 1.0), obs=y)


def kernel_step(kernel: str, states, energies, seed: int):
    """One step of a kernel on three spins, whose log density a table of 8 gives.

    Args:
        kernel: "gibbs", "gibbs_with_gradients" or "discrete_langevin".
        states: Coordinates of many chains, `(chain, 3)`.
        energies: Log density of each of the 8 states, unnormalised.
        seed: Seed of the step.
    """
    table = jnp.asarray(energies, jnp.float32)

    def terms(x: Array) -> Array:
        return table[4 * x[..., 0] + 2 * x[..., 1] + x[..., 2]][..., None]

    blocks = gibbs.table(singly(3), [2, 2, 2], 1)
    x, key = jnp.asarray(states), random.key(seed)
    if kernel == "gibbs":
        state = gibbs.init(x, terms)
        return jax.device_get(gibbs.step(key, state, terms, blocks, num_values=2)[0].position)

    def gains(x: Array) -> tuple[Array, Array]:
        state = gibbs.init(x, terms)
        found = gibbs.conditionals(state, terms, blocks, num_values=2)
        return state.terms.sum(-1), 0.7 * found  # gains that are wrong leave the law as it is

    state = gibbs_with_gradients.init(x, gains)
    step = {"discrete_langevin": discrete_langevin, "gibbs_with_gradients": gibbs_with_gradients}[
        kernel
    ].step
    return jax.device_get(step(key, state, gains, blocks.cardinality, num_steps=1)[0].position)
