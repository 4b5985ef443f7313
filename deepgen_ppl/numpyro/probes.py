"""Questions that are asked of a program by running it: are rows independent, what is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array

from deepgen_ppl.numpyro.program import (
    Inputs,
    Pair,
    as_pair_inputs,
    log_weights,
    run,
    split_keys,
    sum_terms,
)


def check_rows_independent(
    pair: Pair, params: Mapping[str, Any], data: Any, key: Array, num_rows: int = 64
) -> bool:
    """Tell whether changing the data of one row leaves every other row's log weight as it was.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
        key: seeds the draw.
        num_rows: number of rows that are looked at.
    """
    inputs = as_pair_inputs(pair, data)
    size = min(inputs.num_rows, num_rows)
    if size < 2:
        return True
    middle = size // 2

    @jax.jit
    def moved(inputs: Inputs, params: Mapping[str, Any], key: Array) -> Array:
        rows = jnp.arange(size) if size < inputs.num_rows else None
        before = log_weights(pair, params, inputs, rows, key=key).rows
        # The middle row takes the value of the last row of all: inside one batch both directions.
        swap = jax.tree.map(lambda x: x.at[middle].set(x[-1]) if x.ndim else x, inputs.data)
        after = log_weights(pair, params, inputs._replace(data=swap), rows, key=key).rows
        change = jnp.abs(after - before) > 1e-4 * (1.0 + jnp.abs(before))
        return jnp.any(change.at[middle].set(False))

    return not bool(moved(inputs, dict(params), key))


def first_nonfinite(
    pair: Pair, params: Mapping[str, Any], data: Any, rows: Any, key: Array
) -> tuple[str | None, list[int]]:
    """Return the first site whose log density, else gradient, is not finite, and its data rows.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
        rows: batch rows, None for all.
        key: seeds the draw; several draws are tried.
    """
    inputs = as_pair_inputs(pair, data)
    index = None if rows is None else jnp.asarray(rows)
    size = inputs.num_rows if rows is None else len(rows)
    plates = set(pair.data_plates)

    def densities(free: Mapping[str, Any], key: Array) -> dict[str, Array]:
        values = {**params, **free}
        model_key, guide_key = split_keys(key)
        found, latents = {}, {}
        for program, subkey in zip(pair.programs[::-1], (guide_key, model_key), strict=False):
            seen = run(program, inputs, {**values, **latents}, subkey, rows=index)
            sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
            latents = {n: m["value"] for n, m in sites.items() if n in pair.model.latents}
            for name, msg in sites.items():
                terms = sum_terms({name: msg}, program, size)
                local = plates & {frame.name for frame in msg["cond_indep_stack"]}
                found[f"{program.role}:{name}"] = terms.rows if local else terms.shared
        return found

    free = {name: params[name] for name in pair.params}
    for subkey in (key, *random.split(key, 4)):
        for name, value in densities(free, subkey).items():
            if not jnp.all(jnp.isfinite(value)):
                bad = jnp.flatnonzero(~jnp.isfinite(jnp.atleast_1d(value)))
                local = jnp.ndim(value) > 0
                which = bad if rows is None else jnp.asarray(rows)[bad]
                return name.split(":", 1)[1], which.tolist() if local else []
        names = list(densities(free, subkey))
        jacobian = jax.jacrev(lambda free: [jnp.sum(v) for v in densities(free, subkey).values()])  # noqa: B023
        for name, grads in zip(names, jacobian(free), strict=True):
            if not all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads)):
                return name.split(":", 1)[1], []
    return None, []
