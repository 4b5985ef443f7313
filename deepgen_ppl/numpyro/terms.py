"""The log density of one run of a program: by row of the data plates, and shared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.handlers import infer_config

from deepgen_ppl import checks
from deepgen_ppl.numpyro.handlers import on_support, rows_alone
from deepgen_ppl.numpyro.structure import Program, site_log_prob

MOST_ENUMERATED = 25
"""Dimensions that NumPyro's enumeration has."""


class Terms(NamedTuple):
    """A log density in parts.

    Attributes:
        rows: the terms of each row, unscaled, shape (B,).
        shared: the sum of all others.
    """

    rows: Float[Array, " B"]
    shared: Float[Array, ""]

    @classmethod
    def zero(cls, size: int) -> Terms:
        """Return the terms of nothing."""
        return cls(jnp.zeros(size), jnp.zeros(()))


def sum_terms(sites: Mapping[str, Any], program: Program, size: int) -> Terms:
    """Sum log densities: per row for sites in a data plate, together for the others."""
    rows, shared = Terms.zero(size)
    for msg in sites.values():
        log_prob = site_log_prob(msg)
        dims = [f.dim for f in msg["cond_indep_stack"] if f.name in program.data_plates]
        if not dims or jnp.ndim(log_prob) < -dims[0]:
            shared = shared + jnp.sum(log_prob)
            continue
        row = jnp.ndim(log_prob) + dims[0]
        axes = tuple(axis for axis in range(jnp.ndim(log_prob)) if axis != row)
        rows = rows + jnp.sum(log_prob, axis=axes)
    return Terms(rows, shared)


def normalised(sites: Mapping[str, Any]) -> dict[str, Any]:
    """Return sites of a trace as what their draws are from: without masks and scales."""
    return {n: {**m, "fn": unmasked(m["fn"]), "scale": None} for n, m in sites.items()}


def unmasked(fn: Any) -> Any:
    """Return the distribution that a draw is from, below the masks of its log density."""
    if isinstance(fn, dist.MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, dist.Independent):
        return dist.Independent(unmasked(fn.base_dist), fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.ExpandedDistribution):
        return unmasked(fn.base_dist).expand(fn.batch_shape)
    return fn


def enumerated(
    fn: Callable[[], Any], program: Program, names: Collection[str]
) -> Callable[[], Any]:
    """Let discrete sites of a program take all their values at once, a dimension for each site.

    Args:
        fn: the program, its other sites given or seeded.
        program: what was read of it.
        names: the discrete sites.
    """
    from numpyro.contrib.funsor import enum

    def parallel(site: dict) -> dict:
        return {"enumerate": "parallel" if site["name"] in names else None}

    depth = max((-plate.dim for plate in program.plates.values()), default=0)
    return on_support(enum(infer_config(fn, config_fn=parallel), -depth - 1), names)


def enumerated_total(
    fn: Callable[[], Any], program: Program, names: Collection[str]
) -> Float[Array, ""]:
    """Return the log density of a run with discrete sites summed out.

    Raises:
        ValueError: they need more dimensions at once than NumPyro has.
    """
    from numpyro.contrib.funsor import log_density

    with room_for(names):
        return jnp.asarray(log_density(enumerated(fn, program, names), (), {}, {})[0])


def enumerated_rows(
    fn: Callable[[], Any], program: Program, names: Collection[str], size: int
) -> Float[Array, " B"]:
    """Return the terms of each row of a run, with the rows' own discrete sites summed out.

    Args:
        fn: the program, its other sites given or seeded.
        program: what was read of it.
        names: discrete sites, all within data plates.
        size: number B of rows.

    Raises:
        ValueError: they need more dimensions at once than NumPyro has.
    """
    import funsor
    from funsor.optimizer import apply_optimizer
    from numpyro.contrib.funsor.infer_util import _enum_log_density

    alone = rows_alone(enumerated(fn, program, names), program.data_plates)
    operations = (funsor.ops.logaddexp, funsor.ops.add)
    with room_for(names):
        found: Any = _enum_log_density(alone, (), {}, {}, *operations, apply_optimizer=False)[0]
        found = apply_optimizer(found)
    plates = [name for name in program.data_plates if name in found.inputs]
    dims = {name: -1 - axis for axis, name in enumerate(plates)}
    table = jnp.asarray(funsor.to_data(found, name_to_dim=dims))
    index = jnp.arange(size)
    return table[(index,) * table.ndim] if table.ndim else jnp.broadcast_to(table, (size,))


@contextmanager
def room_for(names: Collection[str]) -> Iterator[None]:
    """Say what is wrong where discrete sites need more dimensions than NumPyro has."""
    try:
        yield
    except ValueError as error:
        if "free dim" not in str(error):
            raise
        raise ValueError(
            f"the discrete latents {checks.quote(names)} need more than {MOST_ENUMERATED} "
            "dimensions at once to be summed out, NumPyro's limit. Put them into a plate, or write "
            "the chain with numpyro's scan or markov; or draw them, by mcmc(kernel='gibbs')."
        ) from error
