"""Programs with discrete latents that their guides lack, in Pyro."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.poutine import block
from torch import Tensor

WEIGHTS = torch.tensor([0.3, 0.7])
MEANS = torch.tensor([-2.0, 2.0])


@config_enumerate
def shared_means(x: Tensor) -> None:
    """Means that the rows share; each row's group is its own."""
    with pyro.plate("parts", 2):
        mean = pyro.sample("mean", dist.Normal(MEANS, 0.5))
    with pyro.plate("data", len(x)):
        group = pyro.sample("group", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(mean[group], 0.8), obs=x)


def means_guide(x: Tensor) -> None:
    """Means a little wider than their prior."""
    with pyro.plate("parts", 2):
        pyro.sample("mean", dist.Normal(MEANS, 0.6))


def auto_guide() -> AutoNormal:
    """An autoguide of the means alone."""
    return AutoNormal(block(shared_means, hide=["group"]))


def trace_enum() -> TraceEnum_ELBO:
    """The language's ELBO that sums out what the guide lacks."""
    return TraceEnum_ELBO(max_plate_nesting=1)


def own_values(x: Tensor) -> None:
    """A group, a coin and a value of each row."""
    with pyro.plate("data", len(x)):
        group = pyro.sample("group", dist.Categorical(WEIGHTS))
        coin = pyro.sample("coin", dist.Bernoulli(WEIGHTS[group]))
        value = pyro.sample("value", dist.Normal(MEANS[group] + coin, 1.0))
        pyro.sample("x", dist.Normal(value, 0.5), obs=x)


enumerated_values = config_enumerate(own_values)


def values_guide(x: Tensor) -> None:
    """The values alone."""
    scale = pyro.param("scale", torch.tensor(0.9))
    with pyro.plate("data", len(x)):
        pyro.sample("value", dist.Normal(0.8 * x, scale))


def values_and_coins(x: Tensor) -> None:
    """The values, and one of the discrete sites."""
    scale = pyro.param("scale", torch.tensor(0.9))
    with pyro.plate("data", len(x)):
        pyro.sample("coin", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("value", dist.Normal(0.8 * x, scale))


def one_group(x: Tensor) -> None:
    """A group that all rows share."""
    group = pyro.sample("group", dist.Categorical(WEIGHTS))
    mean = pyro.sample("mean", dist.Normal(MEANS[group], 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 0.8), obs=x)


def one_mean_guide(x: Tensor) -> None:
    """The mean alone."""
    pyro.sample("mean", dist.Normal(x.mean(), 0.5))


def counted(x: Tensor) -> None:
    """A count of infinite support."""
    count = pyro.sample("count", dist.Poisson(3.0))
    mean = pyro.sample("mean", dist.Normal(count, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 0.8), obs=x)


def coins(x: Tensor, masked: Tensor) -> None:
    """A coin of each row: b_i ~ Bernoulli(0.3), x_i ~ N(2 b_i, 1)."""
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Bernoulli(probs=0.3))
        pyro.sample("x", dist.Normal(2.0 * b, 1.0), obs=x)


def masked_coins_guide(x: Tensor, masked: Tensor) -> None:
    """A coin of each row, in some rows without its log density."""
    logits = pyro.param("logits", 0.4 * torch.ones(len(x)))
    with pyro.plate("data", len(x)), poutine.mask(mask=~masked):
        pyro.sample("b", dist.Bernoulli(logits=logits))


def own_mask_coins_guide(x: Tensor, masked: Tensor) -> None:
    """The same mask, as the distribution's own."""
    logits = pyro.param("logits", 0.4 * torch.ones(len(x)))
    with pyro.plate("data", len(x)):
        pyro.sample("b", dist.Bernoulli(logits=logits).mask(~masked))


def far_guide(x: Tensor) -> None:
    """A narrow guide of `local_normal` of the zoo, far from its posterior."""
    shift = pyro.param("shift", torch.tensor(3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x + shift, 0.05))
