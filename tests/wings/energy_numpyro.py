"""Programs with energies, in NumPyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax

from deepgen_ppl.numpyro import nets

GRID = ((0, 1), (1, 2), (2, 3), (3, 0))


def sgd(rate: float):
    """Plain gradient steps."""
    return optax.sgd(rate)


def adam(rate: float):
    """Adam at a rate."""
    return optax.adam(rate)


def param(name: str, value):
    """Give a real parameter."""
    return numpyro.param(name, jnp.asarray(value, float))


def ising(x) -> None:
    """Four spins on a ring, with fields and ties."""
    field = param("field", [0.3, -0.2, 0.1, 0.0])
    tie = param("tie", [0.4, -0.3, 0.5, 0.2])
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Bernoulli(0.5).expand([4]).to_event(1), obs=x)
        s = 2.0 * x - 1.0
        pairs = jnp.stack([s[..., i] * s[..., j] for i, j in GRID], -1)
        numpyro.factor("energy", s @ field + pairs @ tie)


def harmonium(x) -> None:
    """Three visible and two hidden binary units."""
    weight = param("weight", [[0.8, -0.5], [0.3, 0.9], [-0.6, 0.4]])
    bias = param("bias", [0.2, -0.1, 0.3])
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Bernoulli(0.5).expand([3]).to_event(1), obs=x)
        first = numpyro.sample("first", dist.Bernoulli(0.5))
        second = numpyro.sample("second", dist.Bernoulli(0.5))
        tied = x @ weight
        numpyro.factor("energy", x @ bias + first * tied[..., 0] + second * tied[..., 1])


def gaussian(x) -> None:
    """A standard normal that a factor narrows, and moves by a learned amount."""
    rate = param("rate", 0.5)
    shift = param("shift", 0.2)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 2.0).expand([2]).to_event(1), obs=x)
        numpyro.factor("energy", -0.5 * rate**2 * ((x - shift) ** 2).sum(-1))


def regression(x, y) -> None:
    """A binary answer, its log odds a factor of a covariate."""
    slope = param("slope", 0.0)
    with numpyro.plate("data", len(x)):
        y = numpyro.sample("y", dist.Bernoulli(0.5), obs=y)
        numpyro.factor("energy", slope * x * y)


def classes(x, y) -> None:
    """A number and its class: an energy over both."""
    place = param("place", [-0.5, 0.5])
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        y = numpyro.sample("y", dist.Bernoulli(0.5), obs=y)
        numpyro.factor("energy", -((x - jnp.where(y == 1, place[1], place[0])) ** 2))


def magnet(x) -> None:
    """Six spins that want to be equal: two modes that single changes do not cross between."""
    field = param("field", 0.05)
    tie = param("tie", 0.6)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Bernoulli(0.5).expand([6]).to_event(1), obs=x)
        total = (2.0 * x - 1.0).sum(-1)
        numpyro.factor("energy", field * total + 0.5 * tie * (total**2 - 6.0))


def wells(x) -> None:
    """A number near -3 or 3, with a learned tilt."""
    tilt = param("tilt", 0.1)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 3.0), obs=x)
        numpyro.factor("energy", tilt * x - 2.0 * (x**2 - 9.0) ** 2)


def apart(x, y, side) -> None:
    """A number and its class, whose places are far apart, and a covariate that prefers a side."""
    place = param("place", [-3.0, 3.0])
    slope = param("slope", 0.3)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 3.0), obs=x)
        y = numpyro.sample("y", dist.Bernoulli(0.5), obs=y)
        near = -2.0 * (x - jnp.where(y == 1, place[1], place[0])) ** 2
        numpyro.factor("energy", near + slope * side * y)


def raw(x) -> None:
    """A factor of the argument itself."""
    rate = param("rate", 1.0)
    with numpyro.plate("data", len(x)):
        numpyro.factor("energy", -rate * x**2)


def exploding(x) -> None:
    """An energy without a normaliser."""
    rate = param("rate", 1.0)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        numpyro.factor("energy", (1.0 + rate**2) * x**2)


def undefined(x) -> None:
    """An energy that is not a number where chains go."""
    rate = param("rate", 1.0)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        numpyro.factor("energy", rate * jnp.where(x < 1.5, 0.0, jnp.nan))


def undefined_bits(x) -> None:
    """An energy that is not a number but where the data are."""
    rate = param("rate", 1.0)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Bernoulli(jnp.full(3, 0.5)).to_event(1), obs=x)
        numpyro.factor("energy", rate * jnp.where((x == 0).all(-1), 0.0, jnp.nan))


def positive(x) -> None:
    """An energy over positive numbers."""
    rate = param("rate", 1.0)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Exponential(1.0), obs=x)
        numpyro.factor("energy", -(rate**2) * x)


def tilted_guide(x) -> None:
    """A guide with a factor."""
    chance = numpyro.param("chance", jnp.asarray(0.5))
    with numpyro.plate("data", len(x)):
        numpyro.sample("first", dist.Bernoulli(chance))
        numpyro.sample("second", dist.Bernoulli(chance))
        numpyro.factor("tilt", 0.1 * x[..., 0])


def mean_field(x) -> None:
    """A guide of the harmonium's hidden units."""
    weight = param("encoder", [[0.8, -0.5], [0.3, 0.9], [-0.6, 0.4]])
    with numpyro.plate("data", len(x)):
        logits = x @ weight
        numpyro.sample("first", dist.Bernoulli(logits=logits[..., 0]))
        numpyro.sample("second", dist.Bernoulli(logits=logits[..., 1]))


def mlp(seed: int = 0):
    """A small network of a plane."""
    return nets.MLP(2, 1, (32, 32), activation="silu", seed=seed)


def wide():
    """A wide normal on the plane."""
    return dist.Normal(0.0, 1.5).expand([2]).to_event(1)


def batched():
    """A base that is no event."""
    return dist.Normal(jnp.zeros(2), 1.0)


def even(size: int):
    """Fair coins."""
    return dist.Bernoulli(0.5).expand([size]).to_event(1)


def line(scale: float):
    """A normal on the line."""
    return dist.Normal(0.0, scale)


def narrowed(x) -> None:
    """A normal that a learned factor narrows."""
    rate = param("rate", 0.0)
    with numpyro.plate("data", len(x)):
        x = numpyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        numpyro.factor("energy", -0.5 * rate * x**2)
