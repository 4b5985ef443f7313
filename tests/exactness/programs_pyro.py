"""Conjugate models as Pyro programs, with guides; `oracles.py` knows their answers."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor


def adam(step_size: float, num_steps: int) -> Callable[[Any], Any]:
    """Adam whose step size falls to nothing along a cosine."""

    def build(params: Any) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.Adam(params, lr=step_size)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)

    return build


def descent(rate: float):
    """Plain gradient descent."""
    return lambda params: torch.optim.SGD(params, lr=rate)


def standing_still() -> Callable[[Any], torch.optim.Optimizer]:
    """An optimizer that never moves."""
    return lambda params: torch.optim.SGD(params, lr=0.0)


def normal_mean(y: Tensor) -> None:
    """An unknown mean: mu ~ N(0, 2), y_i ~ N(mu, 1)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def normal_mean_guide(y: Tensor) -> None:
    """A normal that starts away from the answer."""
    loc = pyro.param("loc", torch.tensor(0.3))
    scale = pyro.param("scale", torch.tensor(0.4), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


def regression(y: Tensor, x: Tensor) -> None:
    """Linear regression: w ~ N(0, I), y_i ~ N(x_i w, 1/2)."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def regression_guide() -> AutoMultivariateNormal:
    """The full normal over the weights."""
    return AutoMultivariateNormal(regression)


def coin(y: Tensor) -> None:
    """A coin: p ~ Beta(2, 3), y_i ~ Bernoulli(p)."""
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(p), obs=y)


def coin_guide(y: Tensor) -> None:
    """A beta over the coin's probability."""
    a = pyro.param("a", torch.tensor(3.0), constraint=constraints.positive)
    b = pyro.param("b", torch.tensor(3.0), constraint=constraints.positive)
    pyro.sample("p", dist.Beta(a, b))


def counts(y: Tensor) -> None:
    """Counts of one rate: rate ~ Gamma(3, 1), y_i ~ Poisson(rate)."""
    rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def counts_guide(y: Tensor) -> None:
    """A gamma over the rate, by its mean and shape."""
    mean = pyro.param("mean", torch.tensor(2.0), constraint=constraints.positive)
    shape = pyro.param("shape", torch.tensor(20.0), constraint=constraints.positive)
    pyro.sample("rate", dist.Gamma(shape, shape / mean))


def local_normal(y: Tensor) -> None:
    """One latent for each datum: z_i ~ N(0, 1), y_i ~ N(z_i, 1/2)."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def local_normal_guide(y: Tensor) -> None:
    """A normal whose mean is linear in the datum."""
    slope = pyro.param("slope", torch.tensor(0.6))
    scale = pyro.param("scale", torch.tensor(0.6), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, scale))


def group(y: Tensor) -> None:
    """A shared mean and local latents: mu ~ N(0, 2), z_i ~ N(mu, 1), y_i ~ N(z_i, 1/2)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def group_guide(y: Tensor) -> None:
    """Independent normals, the data's with a mean linear in the datum."""
    loc = pyro.param("loc", torch.tensor(0.3))
    scale = pyro.param("scale", torch.tensor(0.4), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))
    slope = pyro.param("slope", torch.tensor(0.6))
    width = pyro.param("width", torch.tensor(0.6), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, width))


def group_table() -> AutoNormal:
    """Independent normals, one with parameters of its own for each datum."""
    return AutoNormal(group)


def factor_analysis(y: Tensor) -> None:
    """Probabilistic PCA: z_i ~ N(0, I), y_i ~ N(z_i loading + centre, noise I), all learned."""
    loading = pyro.param("loading", torch.tensor([[0.5, 0.1, -0.4, 0.2], [0.1, 0.6, 0.3, -0.2]]))
    centre = pyro.param("centre", torch.zeros(4))
    noise = pyro.param("noise", torch.tensor(0.7), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("y", dist.Normal(z @ loading + centre, noise).to_event(1), obs=y)


def factor_analysis_guide(y: Tensor) -> None:
    """A normal with a mean linear in the datum and one full covariance."""
    slope = pyro.param("slope", torch.full((4, 2), 0.1))
    shift = pyro.param("shift", torch.zeros(2))
    tril = pyro.param("tril", 0.5 * torch.eye(2), constraint=constraints.lower_cholesky)
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.MultivariateNormal(y @ slope + shift, scale_tril=tril))


def dirichlet_guide(net):
    """A Dirichlet for each row of the tables: the family that holds the posterior."""

    def guide(*_):
        for variable, table in net.tables.items():
            name = f"{variable}_table"
            start = torch.full(table.shape, 5.0)
            alpha = pyro.param(f"{name}_alpha", start, constraint=constraints.positive)
            pyro.sample(name, dist.Dirichlet(alpha).to_event(table.ndim - 1))

    return guide


def weighted_normal(y: Tensor) -> None:
    """One latent for each datum: z_i ~ N(0, 1), y_i ~ N(weight z_i, noise)."""
    weight = pyro.param("weight", torch.tensor(1.2))
    noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(weight * z, noise), obs=y)


def ladder(y: Tensor) -> None:
    """Two latents for each datum: top_i ~ N(0, 1), z_i ~ N(top_i, 1), y_i ~ N(z_i, 1/2)."""
    with pyro.plate("data", len(y)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(top, 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def ladder_guide(y: Tensor) -> None:
    """Upwards: z_i ~ N(slope y_i, 1/2), then top_i ~ N(up z_i, 0.7)."""
    slope, up = pyro.param("slope", torch.tensor(0.6)), pyro.param("up", torch.tensor(0.7))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(slope * y, 0.5))
        pyro.sample("top", dist.Normal(up * z, 0.7))


def switch(y: Tensor) -> None:
    """A bit and a normal for each datum: y_i ~ N(weight u_i + z_i, 1/2)."""
    weight = pyro.param("weight", torch.tensor(1.2))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        u = pyro.sample("u", dist.Normal(z * 1.0, 1.0))
        pyro.sample("y", dist.Normal(weight * u + z, 0.5), obs=y)


def switch_guide(y: Tensor) -> None:
    """Log odds and a mean that are linear in the datum; the mean sees the bit."""
    odds = pyro.param("odds", torch.tensor(0.4))
    slope = pyro.param("slope", torch.tensor(0.6))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Bernoulli(logits=odds * y))
        pyro.sample("u", dist.Normal(slope * y - 0.5 * z, 0.6))


def shared_switch(y: Tensor) -> None:
    """One bit of all data: y_i ~ N(weight z, 1)."""
    weight = pyro.param("weight", torch.tensor(1.2))
    z = pyro.sample("z", dist.Bernoulli(0.3))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(weight * z, 1.0), obs=y)


def shared_switch_guide(y: Tensor) -> None:
    """Log odds of the bit."""
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("odds", torch.tensor(0.4))))


def both_switches(y: Tensor) -> None:
    """A bit of all data beside one of each."""
    z = pyro.sample("z", dist.Bernoulli(0.3))
    with pyro.plate("data", len(y)):
        own = pyro.sample("own", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(1.0 * z + own, 1.0), obs=y)


def both_switches_guide(y: Tensor) -> None:
    """Fair bits."""
    pyro.sample("z", dist.Bernoulli(0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("own", dist.Bernoulli(0.5))


def count(y: Tensor) -> None:
    """A count of each datum: y_i ~ N(n_i, 1)."""
    with pyro.plate("data", len(y)):
        n = pyro.sample("n", dist.Poisson(2.0))
        pyro.sample("y", dist.Normal(1.0 * n, 1.0), obs=y)


def count_guide(y: Tensor) -> None:
    """Counts of one rate."""
    rate = pyro.param("rate", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("n", dist.Poisson(rate))
