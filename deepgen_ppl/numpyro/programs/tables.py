"""Tables of probabilities as constants, parameters or Dirichlet latents."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float
from numpyro.distributions import constraints

from deepgen_ppl.program_checks import Learnable, interior


def log_table(
    name: str, table: Float[np.ndarray, "*parents states"], learnable: Learnable, prior: float
) -> Float[Array, "*parents states"]:
    """The logarithm of a table, made a site of the program where it is to be learned.

    Args:
        name: Name of the site.
        table: Its value, or where a parameter starts (moved a little into the simplex).
        learnable: False, "point" or "dirichlet".
        prior: Concentration of each cell under "dirichlet".
    """
    if learnable == "point":
        start = jnp.asarray(interior(table), jnp.result_type(float))
        return jnp.log(jnp.asarray(numpyro.param(name, start, constraint=constraints.simplex)))
    if learnable == "dirichlet":
        alpha = jnp.full(table.shape, prior, jnp.result_type(float))
        prior_rows = dist.Dirichlet(alpha).to_event(table.ndim - 1)
        return jnp.log(jnp.asarray(numpyro.sample(name, prior_rows)))
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(table), jnp.result_type(float))


def categorical(logits: Float[Array, "*batch states"]) -> dist.Distribution:
    """A categorical distribution that may forbid states: minus infinity is a logarithm of zero."""
    return dist.CategoricalLogits(logits, validate_args=False)
