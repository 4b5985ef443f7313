"""A guide's discrete latents at each of their joint states, and the log weights there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from deepgen_ppl import joint_states, objective_checks
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.messages import base
from deepgen_ppl.numpyro.program import run, split_keys
from deepgen_ppl.numpyro.structure import Pair
from deepgen_ppl.numpyro.terms import sum_terms
from deepgen_ppl.numpyro.unconstrained import row_axis


def summed(pair: Pair) -> tuple[list[str], list[str]]:
    """Return the discrete latents that a guide draws for each row, and those that rows share."""
    sites = {} if pair.guide is None else pair.guide.latents
    found = {n: s for n, s in sites.items() if s.is_discrete and n in pair.model.sites}
    local = [n for n, s in found.items() if pair.guide and row_axis(pair.guide, s) is not None]
    return local, [n for n in found if n not in local]


def states(
    pair: Pair, params: Mapping[str, Any], inputs: Inputs, rows: Any, key: Array, most: int
) -> dict[str, Array]:
    """Return all joint states of a guide's discrete latents: each row's own, the same for all rows.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        inputs: inputs at all rows.
        rows: rows of the minibatch, None for all.
        key: seeds the draws of other sites.
        most: the greatest number of them.

    Returns:
        Values by site with a leading axis of joint states.

    Raises:
        ValueError: there are more.
    """
    assert pair.guide is not None
    seen = run(pair.guide, inputs, params, split_keys(key)[1], rows=rows)
    local, shared = summed(pair)
    sizes: dict[str, list[int]] = {}
    supports: dict[str, Array] = {}
    for name in local or shared:
        fn, site = seen[name]["fn"], pair.guide.sites[name]
        own = base(fn)
        finite = bool(getattr(own, "has_enumerate_support", False))
        objective_checks.check_finite(name, finite, type(own).__name__)
        found = own.enumerate_support(expand=False)
        event = tuple(own.event_shape)
        supports[name] = found.reshape(-1, *event)
        size = int(np.prod(fn.shape())) // max(int(np.prod(event)), 1)
        axis = row_axis(pair.guide, site)
        size = size if axis is None else size // max(fn.batch_shape[axis], 1)
        sizes[name] = [len(supports[name])] * size
    every = [size for own in sizes.values() for size in own]
    objective_checks.check_states(sizes, joint_states.number(every), most)
    table, begin, values = joint_states.grid(every), 0, {}
    for name, own in sizes.items():
        fn, site = seen[name]["fn"], pair.guide.sites[name]
        chosen = supports[name][table[:, begin : begin + len(own)]]
        values[name] = _placed(chosen, fn, row_axis(pair.guide, site))
        begin += len(own)
    return values


def _placed(chosen: Array, fn: dist.Distribution, axis: int | None) -> Array:
    """Return joint states in the shape of a site, the same for all rows."""
    shape, count = list(fn.shape()), len(chosen)
    if axis is None:
        return chosen.reshape(count, *shape)
    alone = [*shape[:axis], 1, *shape[axis + 1 :]]
    return jnp.broadcast_to(chosen.reshape(count, *alone), (count, *shape))


def weigh_at(
    pair: Pair,
    params: Mapping[str, Any],
    fixed: Mapping[str, Array],
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
) -> tuple[Float[Array, " B"], Float[Array, ""], Float[Array, " B"], Float[Array, ""], dict]:
    """Return log w by row and shared at given discrete latents, their log q, and mutable state.

    Other latents are drawn from the guide; gradients reach its parameters through all terms.
    """
    assert pair.guide is not None
    model_key, guide_key = split_keys(key)
    size = inputs.num_rows if rows is None else rows.shape[0]
    seen = run(pair.guide, inputs, {**params, **fixed}, guide_key, rows=rows)
    drawn = {n: m for n, m in seen.items() if m["type"] == "sample" and not m["is_observed"]}
    log_q = sum_terms(drawn, pair.guide, size)
    chosen = sum_terms({n: drawn[n] for n in fixed}, pair.guide, size)
    state = {n: m["value"] for n, m in seen.items() if m["type"] == "mutable"}
    latents = {n: m["value"] for n, m in drawn.items() if n in pair.model.sites}
    seen = run(pair.model, inputs, {**params, **state, **latents}, model_key, rows=rows)
    state |= {n: m["value"] for n, m in seen.items() if m["type"] == "mutable"}
    sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
    absent = [name for name in pair.model.latents if name not in latents]
    log_p = sum_terms({n: m for n, m in sites.items() if n not in absent}, pair.model, size)
    found = log_p.rows - log_q.rows, log_p.shared - log_q.shared
    return *found, chosen.rows, chosen.shared, jax.tree.map(jnp.asarray, state)
