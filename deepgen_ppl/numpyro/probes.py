"""Questions that are asked of a program by running it: are rows independent, what is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array
from numpyro.ops.provenance import eval_provenance

from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.messages import is_delta
from deepgen_ppl.numpyro.program import (
    Inputs,
    Pair,
    as_pair_inputs,
    log_weights,
    run,
    split_keys,
    sum_terms,
)
from deepgen_ppl.numpyro.structure import site_log_prob


def check_rows_independent(
    pair: Pair, params: Mapping[str, Any], data: Any, key: Array, num_rows: int = 64
) -> bool:
    """Tell whether moving one row's data and latents leaves every other row's log weight as it was.

    The declared plates promise it; a network that mixes rows (batch normalisation in training
    mode, attention over the batch) or a density that reads other rows' latents (a cumulative sum)
    breaks the promise.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
        key: seeds the draws.
        num_rows: number of rows that are looked at.
    """
    inputs = as_pair_inputs(pair, data)
    size = min(inputs.num_rows, num_rows)
    if size < 2:
        return True
    middle, values = size // 2, dict(params)
    rows = jnp.arange(size) if size < inputs.num_rows else None

    def moved(inputs: Inputs, values: dict[str, Any], key: Array) -> tuple[Inputs, dict, dict]:
        draws = [_draw(pair, inputs, values, subkey, rows) for subkey in random.split(key, 5)]
        others = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *draws[1:])
        swapped = with_row(inputs.data, inputs.data, middle)
        return inputs._replace(data=swapped), draws[0], with_row(draws[0], others, middle)

    def by_row(inputs: Inputs, values: dict[str, Any], key: Array, held: dict) -> Array:
        held = {n: jnp.moveaxis(value, 0, _row_axis(pair, n)) for n, value in held.items()}
        return log_weights(pair, {**values, **held}, inputs, rows, key=key).rows

    build = build_of(pair)
    run_moved = compiled(build, "moved", moved, inputs, values, key, once=True)
    swapped, drawn, other = run_moved(inputs, values, key)
    run_by_row = compiled(build, "by row", by_row, inputs, values, key, drawn, once=True)
    before = run_by_row(inputs, values, key, drawn)
    after = run_by_row(swapped, values, key, other)
    change = jnp.abs(after - before) > 1e-4 * (1.0 + jnp.abs(before))
    return not bool(jnp.any(change.at[middle].set(False)))


def _draw(
    pair: Pair,
    inputs: Inputs,
    values: Mapping[str, Any],
    key: Array,
    rows: Array | None,
) -> dict[str, Array]:
    """Return a draw of each random site of the guide (or prior), its rows on the leading axis."""
    program = pair.guide or pair.model
    seen = run(program, inputs, values, key, rows=rows)
    free = [name for name in program.latents if not is_delta(seen[name]["fn"])]
    return {n: jnp.moveaxis(seen[n]["value"], _row_axis(pair, n), 0) for n in free}


def _row_axis(pair: Pair, name: str) -> int:
    program = pair.guide or pair.model
    plates = program.sites[name].plates
    return next(i for i, plate in enumerate(plates) if plate in program.data_plates)


def with_row(values: Any, others: Any, row: int) -> Any:
    """Return arrays whose row is another's: the one that differs from it in most of them."""
    arrays = [
        (v, o) for v, o in zip(*map(jax.tree.leaves, (values, others)), strict=True) if v.ndim
    ]
    if not arrays:
        return values
    differs = [jnp.any((o != v[row]).reshape(len(o), -1), axis=1) for v, o in arrays]
    source = jnp.argmax(jnp.sum(jnp.stack(differs), axis=0))
    return jax.tree.map(lambda v, o: v.at[row].set(o[source]) if v.ndim else v, values, others)


def points(pair: Pair, params: Mapping[str, Any], data: Any, key: Array) -> list[str]:
    """Return the continuous latents that the guide gives one value only, as a MAP guide does.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
        key: seeds the draws.
    """
    guide = pair.guide
    if guide is None:
        return []
    inputs = as_pair_inputs(pair, data)
    free = {n for n, site in pair.model.latents.items() if not site.is_discrete}

    def draw(inputs: Inputs, values: dict[str, Any], key: Array) -> dict[str, Array]:
        seen = run(guide, inputs, values, key)
        return {n: seen[n]["value"] for n in free & set(seen) if is_delta(seen[n]["fn"])}

    args = (inputs, dict(params))
    build = build_of(pair)
    run_draw = compiled(build, "point", draw, *args, key, once=True)
    one, other = (run_draw(*args, subkey) for subkey in random.split(key))
    return [n for n in pair.model.latents if n in one and bool(jnp.all(one[n] == other[n]))]


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

    def sums(free: Mapping[str, Any], key: Array) -> list[Array]:
        return [jnp.sum(value) for value in densities(free, key).values()]

    free = {name: params[name] for name in pair.params}
    for subkey in (key, *random.split(key, 4)):
        for name, value in densities(free, subkey).items():
            if not jnp.all(jnp.isfinite(value)):
                bad = jnp.flatnonzero(~jnp.isfinite(jnp.atleast_1d(value)))
                local = jnp.ndim(value) > 0
                which = bad if rows is None else jnp.asarray(rows)[bad]
                return name.split(":", 1)[1], which.tolist() if local else []
        names = list(densities(free, subkey))
        jacobian = jax.jacrev(sums)(free, subkey)
        for name, grads in zip(names, jacobian, strict=True):
            if not all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads)):
                return name.split(":", 1)[1], []
    return None, []


def moving_factors(pair: Pair, params: Mapping[str, Any], data: Any) -> list[str]:
    """Return the model's factors that depend on a parameter and on a sample site.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
    """
    names = list(pair.model.factors)
    if not names or not pair.model.params or not pair.model.observed:
        return []
    inputs = as_pair_inputs(pair, data)
    state = {n: v for n, v in params.items() if n not in pair.model.params}

    def factors(own: dict[str, Any], noise: Array) -> dict[str, Array]:
        key = random.wrap_key_data(noise)
        seen = run(pair.model, inputs, {**state, **own}, key, redraw=None, stand_in=True)
        return {name: site_log_prob(seen[name]) for name in names}

    own = {name: params[name] for name in pair.model.params}
    found = eval_provenance(factors, own=own, noise=random.key_data(random.key(0)))
    return [n for n in names if {"own", "noise"} <= set(found[n])]
