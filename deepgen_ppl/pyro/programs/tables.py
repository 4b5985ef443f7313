"""Tables of probabilities as constants, parameters or Dirichlet latents."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from deepgen_ppl.program_checks import Learnable, interior


def log_table(
    name: str, table: Float[np.ndarray, "*parents states"], learnable: Learnable, prior: float
) -> Float[Tensor, "*parents states"]:
    """The logarithm of a table, made a site of the program where it is to be learned.

    Args:
        name: Name of the site.
        table: Its value, or where a parameter starts (moved a little into the simplex).
        learnable: False, "point" or "dirichlet".
        prior: Concentration of each cell under "dirichlet".
    """
    if learnable == "point":
        start = torch.as_tensor(interior(table), dtype=torch.get_default_dtype())
        return pyro.param(name, start, constraint=constraints.simplex).log()
    if learnable == "dirichlet":
        alpha = torch.full(table.shape, prior)
        prior_rows = dist.Dirichlet(alpha).to_event(table.ndim - 1)
        return pyro.sample(name, prior_rows).log()
    return torch.tensor(table, dtype=torch.get_default_dtype()).log()


def categorical(logits: Float[Tensor, "*batch states"]) -> dist.TorchDistribution:
    """A categorical distribution that may forbid states: minus infinity is a logarithm of zero."""
    return dist.Categorical(logits=logits)
