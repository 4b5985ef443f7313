"""What the tests of ready programs need of Pyro: emissions, native enumeration, values."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor


def normal_emission():
    """States three apart, noise one."""
    return lambda state: dist.Normal(3.0 * state, 1.0)


def learned_emission():
    """A mean for each of two states, shared by all steps."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    return lambda state: dist.Normal(mean[state], 1.0)


def log_joint(model, values, *data) -> float:
    """Log density of the program at given values."""
    given = {k: torch.as_tensor(v) for k, v in values.items()}
    data = tuple(torch.as_tensor(d) for d in data)
    trace = poutine.trace(poutine.condition(model, data=given)).get_trace(*data)
    return float(trace.log_prob_sum())


def log_marginal(model, *data) -> float:
    """Log density with the discrete sites summed out by the language."""
    data = tuple(torch.as_tensor(d) for d in data)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    return -float(elbo.loss(model, lambda *_: None, *data))


def table(value: Tensor) -> np.ndarray:
    """A parameter as an array."""
    return value.detach().double().numpy()
