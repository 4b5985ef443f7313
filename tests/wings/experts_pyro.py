"""Experts and families as functions of NumPy arrays: the Pyro side of the tests."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch


def adam(rate: float) -> Any:
    return partial(torch.optim.Adam, lr=rate)


def array(value: Any) -> Any:
    return torch.as_tensor(np.asarray(value))


def numpy(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)


def normal(location: Any, scale: Any, size: int) -> Any:
    """Independent normals of some entries."""
    return dist.Normal(torch.tensor(float(location)), float(scale)).expand([size]).to_event(1)


def bits(probs: Any) -> Any:
    """Independent bits."""
    return dist.Bernoulli(probs=torch.as_tensor(np.asarray(probs, "float32"))).to_event(1)


def draw(distribution: Any, count: int, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return distribution.sample((count,)).numpy()


def with_logits(mixture: Any) -> np.ndarray:
    return mixture.logits.detach().numpy()


def compiled(function: Any) -> Any:
    """The function, compiled where the language does that."""
    return function


def rows() -> dict[str, Any]:
    """Families: statistics, base, natural parameters, the language's own distribution, data."""
    stack, log, log1p = torch.stack, torch.log, torch.log1p
    like = torch.tensor
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
            lambda x: torch.nn.functional.one_hot(x.long(), 3) * 1.0,
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
        "base": dist.Exponential(torch.tensor(1.0)),
        "log_base": lambda x: 0.0 * x,
        "log_partition": lambda eta: -torch.log(-eta[..., 0]),
    }


def coupled() -> dict[str, Any]:
    """Two normals whose product is a statistic: no sum is known."""
    return {"statistics": lambda x: x[..., :1] * x[..., 1:], "base": normal(0.0, 1.0, 2)}


def exact_net(weights: Any, places: Any, width: float, scale: float) -> Any:
    """The network with which a noise-conditional energy is that of a mixture of normals."""
    log_w, places = torch.tensor(weights).log(), torch.tensor(places)

    def net(scaled: Any, log_level: Any) -> Any:
        level = log_level.exp()
        total = (scale**2 + level**2).sqrt()
        apart = ((scaled * total)[..., None, :] - places) ** 2
        v = width**2 + level**2
        parts = log_w - 0.5 * apart.sum(-1) / v - 0.5 * places.shape[-1] * torch.log(v)
        log_p = parts.logsumexp(-1)
        return -(log_p + 0.5 * (scaled**2).sum(-1)) * level[..., 0] / scale

    return net


def simple(x: Any) -> None:
    """A mean and its data."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def tilted(x: Any) -> None:
    """A guide that is not normalised."""
    mean = pyro.sample("mean", dist.Normal(pyro.param("place", torch.tensor(0.0)), 1.0))
    pyro.factor("tilt", -(mean**2))


def growing() -> None:
    """A factor that grows faster than the base falls off."""
    pyro.factor("growth", pyro.sample("x", dist.Normal(0.0, 1.0)) ** 2)


def tied(x: Any, scale: float) -> Any:
    """Bits of a prior that is an energy, seen through noise."""
    tie = pyro.param("tie", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", bits([0.5, 0.5]))
        pyro.factor("prior", tie * (2 * z[..., 0] - 1) * (2 * z[..., 1] - 1))
        pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)
