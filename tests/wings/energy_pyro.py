"""Programs with energies, in Pyro."""

import functools

import pyro
import pyro.distributions as dist
import torch

from deepgen_ppl.pyro import nets

GRID = ((0, 1), (1, 2), (2, 3), (3, 0))


def sgd(rate: float):
    """Plain gradient steps."""
    return functools.partial(torch.optim.SGD, lr=rate)


def adam(rate: float):
    """Adam at a rate."""
    return functools.partial(torch.optim.Adam, lr=rate)


def param(name: str, value):
    """Give a real parameter."""
    return pyro.param(name, torch.as_tensor(value, dtype=torch.get_default_dtype()))


def ising(x) -> None:
    """Four spins on a ring, with fields and ties."""
    field = param("field", [0.3, -0.2, 0.1, 0.0])
    tie = param("tie", [0.4, -0.3, 0.5, 0.2])
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Bernoulli(0.5).expand([4]).to_event(1), obs=x)
        s = 2.0 * x - 1.0
        pairs = torch.stack([s[..., i] * s[..., j] for i, j in GRID], -1)
        pyro.factor("energy", s @ field + pairs @ tie)


def harmonium(x) -> None:
    """Three visible and two hidden binary units."""
    weight = param("weight", [[0.8, -0.5], [0.3, 0.9], [-0.6, 0.4]])
    bias = param("bias", [0.2, -0.1, 0.3])
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Bernoulli(0.5).expand([3]).to_event(1), obs=x)
        first = pyro.sample("first", dist.Bernoulli(0.5))
        second = pyro.sample("second", dist.Bernoulli(0.5))
        tied = x @ weight
        pyro.factor("energy", x @ bias + first * tied[..., 0] + second * tied[..., 1])


def gaussian(x) -> None:
    """A standard normal that a factor narrows, and moves by a learned amount."""
    rate = param("rate", 0.5)
    shift = param("shift", 0.2)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 2.0).expand([2]).to_event(1), obs=x)
        pyro.factor("energy", -0.5 * rate**2 * ((x - shift) ** 2).sum(-1))


def regression(x, y) -> None:
    """A binary answer, its log odds a factor of a covariate."""
    slope = param("slope", 0.0)
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Bernoulli(0.5), obs=y)
        pyro.factor("energy", slope * x * y)


def classes(x, y) -> None:
    """A number and its class: an energy over both."""
    place = param("place", [-0.5, 0.5])
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        y = pyro.sample("y", dist.Bernoulli(0.5), obs=y)
        pyro.factor("energy", -((x - torch.where(y == 1, place[1], place[0])) ** 2))


def magnet(x) -> None:
    """Six spins that want to be equal: two modes that single changes do not cross between."""
    field = param("field", 0.05)
    tie = param("tie", 0.6)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Bernoulli(0.5).expand([6]).to_event(1), obs=x)
        total = (2.0 * x - 1.0).sum(-1)
        pyro.factor("energy", field * total + 0.5 * tie * (total**2 - 6.0))


def wells(x) -> None:
    """A number near -3 or 3, with a learned tilt."""
    tilt = param("tilt", 0.1)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 3.0), obs=x)
        pyro.factor("energy", tilt * x - 2.0 * (x**2 - 9.0) ** 2)


def apart(x, y, side) -> None:
    """A number and its class, whose places are far apart, and a covariate that prefers a side."""
    place = param("place", [-3.0, 3.0])
    slope = param("slope", 0.3)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 3.0), obs=x)
        y = pyro.sample("y", dist.Bernoulli(0.5), obs=y)
        near = -2.0 * (x - torch.where(y == 1, place[1], place[0])) ** 2
        pyro.factor("energy", near + slope * side * y)


def raw(x) -> None:
    """A factor of the argument itself."""
    rate = param("rate", 1.0)
    with pyro.plate("data", len(x)):
        pyro.factor("energy", -rate * x**2)


def exploding(x) -> None:
    """An energy without a normaliser."""
    rate = param("rate", 1.0)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        pyro.factor("energy", (1.0 + rate**2) * x**2)


def undefined(x) -> None:
    """An energy that is not a number where chains go."""
    rate = param("rate", 1.0)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        pyro.factor("energy", rate * torch.where(x < 1.5, 0.0, float("nan")))


def undefined_bits(x) -> None:
    """An energy that is not a number but where the data are."""
    rate = param("rate", 1.0)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1), obs=x)
        pyro.factor("energy", rate * torch.where((x == 0).all(-1), 0.0, float("nan")))


def positive(x) -> None:
    """An energy over positive numbers."""
    rate = param("rate", 1.0)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Exponential(1.0), obs=x)
        pyro.factor("energy", -(rate**2) * x)


def tilted_guide(x) -> None:
    """A guide with a factor."""
    chance = pyro.param("chance", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("first", dist.Bernoulli(chance))
        pyro.sample("second", dist.Bernoulli(chance))
        pyro.factor("tilt", 0.1 * x[..., 0])


def mean_field(x) -> None:
    """A guide of the harmonium's hidden units."""
    weight = param("encoder", [[0.8, -0.5], [0.3, 0.9], [-0.6, 0.4]])
    with pyro.plate("data", len(x)):
        logits = x @ weight
        pyro.sample("first", dist.Bernoulli(logits=logits[..., 0]))
        pyro.sample("second", dist.Bernoulli(logits=logits[..., 1]))


def mlp(seed: int = 0):
    """A small network of a plane."""
    return nets.MLP(2, 1, (32, 32), activation="silu", seed=seed)


def wide():
    """A wide normal on the plane."""
    return dist.Normal(0.0, 1.5).expand([2]).to_event(1)


def batched():
    """A base that is no event."""
    return dist.Normal(torch.zeros(2), 1.0)


def even(size: int):
    """Fair coins."""
    return dist.Bernoulli(0.5).expand([size]).to_event(1)


def line(scale: float):
    """A normal on the line."""
    return dist.Normal(0.0, scale)


def narrowed(x) -> None:
    """A normal that a learned factor narrows."""
    rate = param("rate", 0.0)
    with pyro.plate("data", len(x)):
        x = pyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        pyro.factor("energy", -0.5 * rate * x**2)
