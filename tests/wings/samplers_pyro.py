"""Programs and single steps for the tests of samplers: the Pyro twin of `samplers_numpyro.py`."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch import Tensor

from deepgen_ppl.pyro.kernels import chees, hmc, langevin, rwm


def correlated(root: Tensor) -> None:
    """Normal with covariance root root^T."""
    size = len(root)
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(size), scale_tril=root))


def skewed() -> None:
    """Gamma of shape 3 and rate 2, and one half of a normal: asymmetric on the unconstrained."""
    pyro.sample("rate", dist.Gamma(3.0, 2.0))
    pyro.sample("size", dist.HalfNormal(2.0))


def coin(flips: Tensor) -> None:
    """A coin: p ~ Beta(2, 1)."""
    p = pyro.sample("p", dist.Beta(2.0, 1.0))
    with pyro.plate("data", len(flips)):
        pyro.sample("flip", dist.Bernoulli(p), obs=flips)


def square_root(y: Tensor) -> None:
    """Of a square only the square is seen, with noise: x may be either root."""
    x = pyro.sample("x", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x**2, 1.0), obs=y)


def banana() -> None:
    """A ridge along a parabola: E b = 1/2, Var b = 3/2."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(a**2 / 2, 1.0))


def nowhere(y: Tensor) -> None:
    """A density that is zero everywhere."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("wall", torch.where(x == x, -torch.inf, 0.0) + 0.0 * y.sum())


def counts(y: Tensor) -> None:
    """A latent count without bound."""
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("data", len(y)):
        count = pyro.sample("count", dist.Poisson(rate))
        pyro.sample("y", dist.Normal(count, 1.0), obs=y)


def iaf(model):
    """A flow guide."""
    return AutoIAFNormal(model, hidden_dim=[8, 8], num_transforms=1)


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
    generator = torch.Generator().manual_seed(seed)
    state = hmc.init(torch.as_tensor(position), value_and_grad)
    state, info = STEPS[name](generator, state, value_and_grad, **options)
    return state.position.numpy(), float(info.acceptance.mean())


def gumbel(z: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and gradient of independent standard Gumbel numbers."""
    return (z + torch.exp(-z)).sum(-1), 1.0 - torch.exp(-z)


def normal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and gradient of independent standard normal numbers."""
    return 0.5 * (z**2).sum(-1), z
