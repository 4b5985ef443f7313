"""Small native programs for the contract tests: the Pyro twin of `zoo_numpyro.py`."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor


def normal_mean(y: Tensor) -> None:
    """An unknown mean: mean ~ N(0, 1), y_i ~ N(mean, 1)."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def normal_mean_guide(y: Tensor) -> None:
    """A normal around a parameter that starts at 5."""
    loc = pyro.param("loc", torch.tensor(5.0))
    pyro.sample("mean", dist.Normal(loc, 0.1))


def tilted(y: Tensor) -> None:
    """An unknown mean whose density a factor tilts."""
    normal_mean(y)
    pyro.factor("tilt", torch.tensor(0.5))


def line(x: Tensor, y: Tensor | None = None) -> None:
    """A line through the origin, its mean kept: slope ~ N(0, 1), y_i ~ N(slope x_i, 1/2)."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        mu = pyro.deterministic("mu", slope * x)
        pyro.sample("y", dist.Normal(mu, 0.5), obs=y)


def regression(x: Tensor, y: Tensor) -> None:
    """A linear regression: weights ~ N(0, I), y_i ~ N(x_i . weights, 1/2)."""
    weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, 0.5), obs=y)


def eight_schools(y: Tensor, sigma: Tensor) -> None:
    """Eight schools, not centred: obs_i ~ N(mu + tau z_i, sigma_i)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu + tau * z, sigma), obs=y)


def mixture(x: Tensor) -> None:
    """Two Gaussian components of two features; each datum belongs to one of them."""
    weight = pyro.sample("weight", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("component", 2):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        sd = pyro.sample("sd", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        member = pyro.sample("member", dist.Categorical(weight))
        pyro.sample("x", dist.Normal(mean[member], sd[member]).to_event(1), obs=x)


def sgd(rate: float) -> Callable[..., torch.optim.Optimizer]:
    """Plain gradient descent."""
    return partial(torch.optim.SGD, lr=rate)


def adam(rate: float) -> Callable[..., torch.optim.Optimizer]:
    """Adam."""
    return partial(torch.optim.Adam, lr=rate)


def to_numpy(value: Tensor) -> np.ndarray:
    """A learned value on the host."""
    return value.detach().numpy()


def auto_normal(model: Callable[..., None]) -> AutoNormal:
    """The mean-field autoguide."""
    return AutoNormal(model)


def auto_laplace(model: Callable[..., None]) -> AutoLaplaceApproximation:
    """The autoguide of the normal at the mode."""
    return AutoLaplaceApproximation(model)


def auto_point(model: Callable[..., None]) -> AutoDelta:
    """The autoguide of the mode alone."""
    return AutoDelta(model)


def loose_guide(y: Tensor) -> None:
    """A normal whose location and scale are learned."""
    loc = pyro.param("loc", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    pyro.sample("mean", dist.Normal(loc, scale))


def mean_only(y: Tensor) -> None:
    """Maximum likelihood: y_i ~ N(loc, 1)."""
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def empty_guide(y: Tensor) -> None:
    """A guide without sites."""


def guide_of_another(y: Tensor) -> None:
    """A guide with a site that `normal_mean` lacks."""
    loose_guide(y)
    pyro.sample("slope", dist.Normal(0.0, 1.0))


def observing_guide(y: Tensor) -> None:
    """A guide that conditions on a site that `normal_mean` lacks."""
    loose_guide(y)
    pyro.sample("w", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def wide_guide(y: Tensor) -> None:
    """A guide whose site has another shape than the model's."""
    pyro.sample("mean", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0))


def subsampling(y: Tensor) -> None:
    """A model that subsamples by itself."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample_size=5) as rows:
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


def plateless(y: Tensor) -> None:
    """A vectorised model without a plate."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mean, 1.0).expand(y.shape).to_event(1), obs=y)


def factor_outside(y: Tensor) -> None:
    """A model with a factor of the data outside its plate."""
    normal_mean(y)
    pyro.factor("tilt", -0.01 * y.sum())


def hidden_coins(y: Tensor) -> None:
    """A coin per row that shifts it: b_i ~ Bernoulli(0.3), y_i ~ N(b_i, 1)."""
    with pyro.plate("data", len(y)):
        b = pyro.sample("b", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y)


def hidden_coins_guide(y: Tensor) -> None:
    """One learned probability for all coins: draws without gradient."""
    logit = pyro.param("logit", torch.tensor(0.4))
    with pyro.plate("data", len(y)):
        pyro.sample("b", dist.Bernoulli(logits=logit))


def hierarchical(x: Tensor) -> None:
    """A shared mean and one latent per datum: mu ~ N(0, 1), z_i ~ N(mu, 1), x_i ~ N(z_i, 1)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def hierarchical_guide(x: Tensor) -> None:
    """A normal for the mean and, for each datum, one that is linear in it."""
    loc = pyro.param("loc", torch.tensor(0.2))
    slope = pyro.param("slope", torch.tensor(0.4))
    pyro.sample("mu", dist.Normal(loc, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.7))


def hierarchical_table(x: Tensor) -> None:
    """A normal for the mean and, for each datum, one with a location of its own."""
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.2)), 0.5))
    table = pyro.param("table", torch.zeros(len(x)))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(table, 0.7))


def local_normal(x: Tensor) -> None:
    """One latent per datum: z_i ~ N(0, 1), x_i ~ N(z_i, 1), so that x_i ~ N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local_normal_guide(x: Tensor) -> None:
    """A normal linear in the datum, wider than the posterior."""
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.9))


def coupled_guide(x: Tensor) -> None:
    """A normal that looks at the mean of all data, so that rows touch each other."""
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x + 0.1 * x.mean(), 0.9))


def plated_factor(x: Tensor) -> None:
    """An unknown mean whose likelihood is a factor in the data plate, tilted by one outside."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.factor("tilt", 0.3 * mean)
    with pyro.plate("data", len(x)):
        pyro.factor("likelihood", -0.5 * (x - mean) ** 2)


def mean_guide(x: Tensor) -> None:
    """A normal for `mean`."""
    pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.3))


def two_sources(x: Tensor, y: Tensor) -> None:
    """One mean seen by two plates that both follow the data."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("first", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    with pyro.plate("second", len(y)):
        pyro.sample("y", dist.Normal(mean, 2.0), obs=y)


def two_sources_guide(x: Tensor, y: Tensor) -> None:
    """A normal for `mean`."""
    mean_guide(x)


def nested(x: Tensor) -> None:
    """A mean per feature; data and features are two nested plates."""
    features = pyro.plate("features", x.shape[1], dim=-1)
    with features:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-2), features:
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def nested_guide(x: Tensor) -> None:
    """A normal per feature."""
    loc = pyro.param("loc", torch.full((x.shape[1],), 0.5))
    with pyro.plate("features", x.shape[1], dim=-1):
        pyro.sample("mean", dist.Normal(loc, 0.3))


def scaled_prior(weights: Tensor, x: Tensor) -> None:
    """An unknown mean with a prior bound to the program: mean ~ N(weights[0], weights[1])."""
    mean = pyro.sample("mean", dist.Normal(weights[0], weights[1]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def handled(name: str):
    """`hierarchical` under one of the language's poutine."""
    return {
        "reparam": lambda: poutine.reparam(hierarchical, config={"z": LocScaleReparam(0.0)}),
        "mask": lambda: poutine.mask(hierarchical, mask=torch.tensor(False)),
        "scale": lambda: poutine.scale(hierarchical, scale=2.0),
        "block": lambda: poutine.block(hierarchical, hide=["x"]),
        "condition": lambda: poutine.condition(hierarchical, data={"mu": torch.tensor(0.7)}),
        "substitute": lambda: poutine.substitute(hierarchical, data={"mu": torch.tensor(0.7)}),
    }[name]()


def unit_normal(x: Tensor) -> None:
    """Data of a known law: x_i ~ N(loc, 1), with loc a parameter."""
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


doubled = poutine.scale(unit_normal, scale=2.0)


def with_constant(x: Tensor, sd: float = 1.0) -> None:
    """An unknown mean seen with noise of a constant sd."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, sd), obs=x)


def with_constant_guide(x: Tensor, sd: float = 1.0) -> None:
    """A normal whose sd is a fraction of the constant."""
    pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.2 * sd))


def auto_full(model: Callable[..., None]) -> AutoMultivariateNormal:
    """The autoguide with a full covariance of all latents."""
    return AutoMultivariateNormal(model)


def positive(y: Tensor) -> None:
    """Positive data of unknown location: mean ~ N(0, 1), y_i ~ LogNormal(mean, 1)."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.LogNormal(mean, 1.0), obs=y)


def decoder(x: Tensor) -> None:
    """One latent per datum and learned weights: x_i ~ N(weight z_i + bias, 1)."""
    weight = pyro.param("weight", torch.tensor(1.0))
    bias = pyro.param("bias", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(weight * z + bias, 1.0), obs=x)


def two_coins(y: Tensor) -> None:
    """A shared shift and a coin per datum: b_i ~ Bernoulli(1/2), y_i ~ N(shift + 9 b_i - 4, 1)."""
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        b = pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(shift + 9.0 * b - 4.0, 1.0), obs=y)


def exact_guide(x: Tensor) -> None:
    """The posterior of `local_normal`: z_i ~ N(x_i / 2, 1/2)."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.5**0.5))


def cusp(y: Tensor) -> None:
    """Finite log density everywhere, whose gradient at the start is not."""
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.factor("root", -torch.sqrt(torch.abs(loc)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def random_walk(x: Tensor) -> None:
    """Each datum sees the sum of the latents up to its own, so that rows touch each other."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(torch.cumsum(z, 0), 1.0), obs=x)


def coin_walk(x: Tensor) -> None:
    """Each datum sees the number of heads up to its own coin."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.9))
        pyro.sample("x", dist.Normal(torch.cumsum(z, 0), 1.0), obs=x)


def line_guide(x: Tensor, y: Tensor | None = None) -> None:
    """A narrow normal over the slope."""
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("slope", dist.Normal(loc, 0.1))


half_coins = poutine.scale(hidden_coins, scale=0.5)
half_coins_guide = poutine.scale(hidden_coins_guide, scale=0.5)


def waiting(y: Tensor) -> None:
    """Waiting times of an unknown rate: rate ~ Gamma(2, 1), y_i ~ Exponential(rate)."""
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Exponential(rate), obs=y)


def two_modes(y: Tensor) -> None:
    """A place near 8 or -8, with 3/4 and 1/4: where ~ N(0, 4), seen with 8 added or taken."""
    where = pyro.sample("where", dist.Normal(0.0, 4.0))
    weights = dist.Categorical(torch.tensor([0.75, 0.25]))
    with pyro.plate("data", len(y)):
        signs = dist.Normal(torch.stack([where - 8.0, where + 8.0], -1), 0.5)
        pyro.sample("y", dist.MixtureSameFamily(weights, signs), obs=y)


def columns(xy: Tensor) -> None:
    """A line through the origin whose covariate and datum are two columns of one array."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(xy)):
        pyro.sample("y", dist.Normal(slope * xy[:, 0], 0.5), obs=xy[:, 1])


def logarithms(y: Tensor) -> None:
    """An unknown mean of the logarithms of the data."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("log_y", dist.Normal(mean, 1.0), obs=torch.log(y))


def autoregression(x: Tensor) -> None:
    """Each datum leans on the one before it: x_i ~ N(a x_{i-1}, 1)."""
    a = pyro.sample("a", dist.Normal(0.0, 0.5))
    before = torch.cat([torch.zeros(1), x[:-1]])
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a * before, 1.0), obs=x)


def flat_mean(y: Tensor) -> None:
    """An unknown mean of improper prior."""
    mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def slope_guide(x: Tensor) -> None:
    """A guide of `local_normal` that is its posterior when its slope is 1/2."""
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.5**0.5))


def shifted_guide(x: Tensor) -> None:
    """A guide of `local_normal` whose mean is 0.3 too high once its slope is learned."""
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x + 0.3, 0.5**0.5))


def shift_guide(x: Tensor) -> None:
    """A guide of `two_coins` that leaves its coins to be summed out."""
    pyro.sample("shift", dist.Normal(0.0, 1.0))
