"""Programs of known evidence: the Pyro twin of `evidence_pyro.py`."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor


def gaussian(x: Tensor) -> None:
    """An unknown vector: z ~ N(0, I), x_i ~ N(z, I)."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def beta_binomial(k: Tensor) -> None:
    """Successes in ten trials each: p ~ Beta(2, 3), k_i ~ Binomial(10, p)."""
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    with pyro.plate("data", len(k)):
        pyro.sample("k", dist.Binomial(10, p), obs=k)


def regression(x: Tensor, y: Tensor) -> None:
    """A linear regression: weights ~ N(0, I), y_i ~ N(x_i . weights, 1/2)."""
    weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, 0.5), obs=y)


def ppca(x: Tensor) -> None:
    """Probabilistic PCA: z_i ~ N(0, I), x_i ~ N(z_i loading, 1/2), the loading learned."""
    loading = pyro.param("loading", torch.ones((2, x.shape[1])))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ loading, 0.5).to_event(1), obs=x)


def ppca_guide(x: Tensor) -> None:
    """A normal whose mean is linear in the datum; its widths are learned."""
    slope = pyro.param("slope", torch.zeros((x.shape[1], 2)))
    width = pyro.param("width", torch.ones(2), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ slope, width).to_event(1))


def coins(x: Tensor) -> None:
    """A coin per datum, summed out: k_i ~ Bernoulli(0.3), x_i ~ N(mean + 2 k_i, 1)."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mean + 2.0 * k, 1.0), obs=x)


def local_coins(x: Tensor) -> None:
    """A coin and a normal of its own for each datum: z_i ~ N(2 k_i, 1), x_i ~ N(z_i, 1)."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(2.0 * k, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rates(x: Tensor) -> None:
    """Sites of several supports: scale ~ HalfNormal(1), share ~ Dirichlet(1, 1, 1)."""
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(share[0] - share[1], scale), obs=x)


def flat(x: Tensor) -> None:
    """A mean without a proper prior."""
    mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def endless(x: Tensor) -> None:
    """A count without a bound beside a mean."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    count = pyro.sample("count", dist.Poisson(2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean + count, 1.0), obs=x)


def only_coins(x: Tensor) -> None:
    """A model of discrete latents alone."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def broken(x: Tensor) -> None:
    """A factor that is NaN for half of the prior's draws."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    pyro.factor("root", torch.sqrt(mean))


def impossible(x: Tensor) -> None:
    """A factor of density zero everywhere."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    pyro.factor("never", torch.where(mean < 1e6, -torch.inf, mean))


def doubled_data(x: Tensor) -> None:
    """Observes twice its argument."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=2.0 * x)


def real_guide(x: Tensor) -> None:
    """A guide of `rates` whose scale may be negative."""
    pyro.sample("scale", dist.Normal(0.5, 0.1))
    pyro.sample("share", dist.Dirichlet(torch.ones(3)))


def discrete_guide(x: Tensor) -> None:
    """A guide of `coins` that draws the coins too."""
    pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Bernoulli(0.3))


def auto_normal(model: Callable[..., None]) -> AutoNormal:
    """The mean-field autoguide."""
    return AutoNormal(model)


def auto_full(model: Callable[..., None]) -> AutoMultivariateNormal:
    """The autoguide with a full covariance of all latents."""
    return AutoMultivariateNormal(model)


def auto_point(model: Callable[..., None]) -> AutoDelta:
    """The autoguide of the mode alone."""
    return AutoDelta(model)
