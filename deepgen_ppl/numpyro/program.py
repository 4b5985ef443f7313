"""The one place that runs a native program for its values: log weights, densities, draws."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int
from numpyro.handlers import substitute, trace

from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.data import Inputs, as_key, unwrap
from deepgen_ppl.numpyro.handlers import minibatch, reader, split_seed, stop_scores, unobserve
from deepgen_ppl.numpyro.reading import read, read_pair
from deepgen_ppl.numpyro.structure import (
    Pair,
    Plate,
    Program,
    Site,
    execute,
    learned,
    site_log_prob,
)
from deepgen_ppl.numpyro.terms import (
    Terms,
    enumerated_rows,
    enumerated_total,
    normalised,
    sum_terms,
)
from deepgen_ppl.numpyro.unconstrained import row_axis

__all__ = [
    "Inputs", "Pair", "Plate", "Program", "Site", "Weights", "abstract_params",
    "as_key", "init_params", "learned", "log_density", "log_probs", "log_weights",
    "read", "read_pair", "scaled_call", "simulate", "unwrap",
]  # fmt: skip


class Weights(NamedTuple):
    """Log weights log p - log q of one draw from the guide.

    Attributes:
        rows: of each row of the data plate, shape (B,), unscaled; zeros without a data plate.
        shared: of everything outside the data plates.
        scale: N / B, by which a sum over rows is multiplied.
        score_rows: log q of each row's draws that carry no gradient.
        score_shared: log q of the shared draws that carry no gradient.
        latents: the draws, by site of the model.
        state: new values of mutable state.
        log_q: log q of the whole draw, scaled as the total is.
        deterministic: values of the model's deterministic sites; none where sites are summed out.
    """

    rows: Float[Array, " B"]
    shared: Float[Array, ""]
    scale: float
    score_rows: Float[Array, " B"]
    score_shared: Float[Array, ""]
    latents: dict[str, Array]
    state: dict[str, Any]
    log_q: Float[Array, ""]
    deterministic: dict[str, Array]

    @property
    def total(self) -> Float[Array, ""]:
        """Log weight of the whole data: shared plus scaled rows."""
        return self.shared + self.scale * jnp.sum(self.rows)


def run(
    program: Program,
    inputs: Inputs,
    values: Mapping[str, Any],
    key: Array | tuple[Array, Array],
    *,
    rows: Int[Array, " B"] | None = None,
    scaled: bool = False,
    redraw: Collection[str] | None = (),
    stand_in: bool = False,
    stopped: bool = True,
) -> dict[str, Any]:
    """Run a program and return its trace; nothing outside this room sees one.

    Args:
        program: the program.
        inputs: its inputs at all rows.
        values: parameters (constrained), mutable state and latent draws by name.
        key: seeds what is drawn; a pair of keys seeds shared and local draws apart.
        rows: batch rows, None for all.
        scaled: whether sites in data plates carry the scale N / B.
        redraw: observed sites to draw again, None for all of them.
        stand_in: give sites of improper prior some value, where the program is only looked at.
        stopped: block gradients through draws of sites without a reparametrised sampler.
    """
    fn = prepared(
        program, inputs, values, key, rows=rows, scaled=scaled, redraw=redraw, stand_in=stand_in
    )
    with stop_scores(values) if stopped else nullcontext(), trace() as seen:
        fn()
    return seen


def prepared(
    program: Program,
    inputs: Inputs,
    values: Mapping[str, Any],
    key: Array | tuple[Array, Array],
    *,
    rows: Int[Array, " B"] | None = None,
    scaled: bool = False,
    redraw: Collection[str] | None = (),
    stand_in: bool = False,
) -> Callable[[], Any]:
    """Return a program with its inputs, values and seed, ready to run; arguments as of `run`."""
    call, size = inputs, inputs.num_rows
    if rows is not None:
        call = inputs.gather(rows)
    given = {n: v for n, v in values.items() if v is not None and n not in program.fixed}
    fn: Callable = substitute(lambda: execute(program.fn, call, program.role), data=given)
    if redraw is None or redraw:
        fn = unobserve(fn, redraw)
    if rows is not None:
        fn = minibatch(
            fn,
            rows=rows,
            num_rows=size,
            data_plates=program.data_plates,
            tables=program.tables,
            scaled=scaled,
        )
    shared, local = key if isinstance(key, tuple) else random.split(key)
    keys: dict[str, Any] = {"shared": shared, "local": local, "stand_in": stand_in}
    return split_seed(fn, data_plates=program.data_plates, **keys)


def scaled_call(
    program: Program, inputs: Inputs, rows: Int[Array, " B"] | None = None
) -> Callable[[], Any]:
    """Return a program as a function of no arguments whose data sites carry the scale N / B.

    For objectives of the language itself, which run programs their own way.
    """
    if rows is None:
        return lambda: execute(program.fn, inputs, program.role)
    call, size = inputs.gather(rows), inputs.num_rows

    def run() -> Any:
        fn = minibatch(
            lambda: execute(program.fn, call, program.role),
            rows=rows,
            num_rows=size,
            data_plates=program.data_plates,
            tables=program.tables,
        )
        return fn()

    return run


def init_params(
    pair: Pair, data: Any, *, seed: int | Array = 0, params: Any = None
) -> dict[str, Any]:
    """Return the initial parameters (constrained) and mutable state of a model and guide.

    Args:
        pair: model and guide.
        data: data arguments, or `Inputs`.
        seed: seeds the initial values.
        params: values to start from instead, by name, or a `Fit`.

    Returns:
        Values by name; what the guide and the model share is the guide's.
    """
    inputs = as_pair_inputs(pair, data)
    given = learned(params)
    # Compiled, so that only what the initial values need is computed, not a pass over all rows.
    key = as_key(seed)
    start = compiled(build_of(pair), "start", partial(_start, pair), inputs, key, once=True)
    values = start(inputs, key)
    return {name: given.get(name, value) for name, value in values.items()}


def abstract_params(pair: Pair, data: Any) -> dict[str, Any]:
    """Return shapes and dtypes of what `init_params` returns, without computing anything."""
    return jax.eval_shape(partial(_start, pair), as_pair_inputs(pair, data), random.key(0))


def _start(pair: Pair, inputs: Inputs, key: Array) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for program, subkey in zip(pair.programs[::-1], random.split(key), strict=False):
        marked = reader(lambda program=program: execute(program.fn, inputs, program.role))
        with trace() as seen:
            fixed = substitute(marked, data=values)
            split_seed(fixed, shared=subkey, local=subkey, stand_in=True)()
        values |= {n: seen[n]["value"] for n in program.params if n not in values}
        values |= {n: v for n, v in marked.mutable.items() if n not in values}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), values)


def log_weights(
    pair: Pair,
    params: Mapping[str, Any],
    data: Any,
    rows: Int[Array, " B"] | None = None,
    *,
    key: Array | tuple[Array, Array],
) -> Weights:
    r"""Draw once from the guide and weigh the draw: the primitive of all estimation.

    $$\log w = \log p(x, z) - \log q(z \mid x), \qquad z \sim q,$$

    split into one term per row of the data plate and one for all else, with the discrete latents
    summed out that the pair says so of. Without a guide the latents are drawn from the prior and
    $\log w = \log p(x \mid z)$.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`, all N rows.
        rows: rows of the minibatch, None for all.
        key: seeds the draw; a pair of keys seeds shared and local draws apart.

    Returns:
        The weights, the draw and the new mutable state.
    """
    inputs = as_pair_inputs(pair, data)
    model_key, guide_key = split_keys(key)
    size = inputs.num_rows if rows is None else rows.shape[0]
    values = dict(params)
    latents: dict[str, Any] = {}
    log_q, score = Terms.zero(size), Terms.zero(size)
    state: dict[str, Any] = {}
    if pair.guide is not None:
        seen = run(pair.guide, inputs, values, guide_key, rows=rows)
        drawn = {n: m for n, m in seen.items() if m["type"] == "sample" and not m["is_observed"]}
        log_q = sum_terms(drawn, pair.guide, size)
        # A score is the log density of the draw itself, whatever mask and scale its term carries.
        blind = normalised({n: m for n, m in drawn.items() if not m["fn"].has_rsample})
        score = sum_terms(blind, pair.guide, size) if blind else score
        latents = {n: m["value"] for n, m in drawn.items() if n in pair.model.sites}
        state = _state(seen)
    values |= state | latents
    seen = run(pair.model, inputs, values, model_key, rows=rows)
    state |= _state(seen)
    sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
    # Latents that the guide lacks are drawn from the model, whose density cancels, or summed out.
    absent = [name for name in pair.model.latents if name not in latents]
    latents |= {name: sites[name]["value"] for name in absent if name not in pair.enumerated}
    log_p = sum_terms({n: m for n, m in sites.items() if n not in absent}, pair.model, size)
    if pair.enumerated:
        run_ = partial(run, pair.model, inputs, key=model_key, rows=rows)
        fn = prepared(pair.model, inputs, values, model_key, rows=rows)
        log_p = _summed_out(fn, pair.model, pair.enumerated, log_p, size, values, run_)
    deterministic = {n: m["value"] for n, m in seen.items() if m["type"] == "deterministic"}
    scale = inputs.num_rows / size if rows is not None else 1.0
    return Weights(
        rows=log_p.rows - log_q.rows,
        shared=log_p.shared - log_q.shared,
        scale=scale,
        score_rows=score.rows,
        score_shared=score.shared,
        latents=latents,
        state=state,
        log_q=log_q.shared + scale * jnp.sum(log_q.rows),
        deterministic={} if pair.enumerated else deterministic,
    )


def log_density(
    program: Program,
    params: Mapping[str, Any],
    latents: Mapping[str, Array],
    data: Any,
    rows: Int[Array, " B"] | None = None,
    enumerated: Collection[str] = (),
) -> tuple[Float[Array, " B"], Float[Array, ""]]:
    """Return the log density of given latents and the data: per row, and of all else.

    Args:
        program: a model.
        params: constrained parameters and mutable state.
        latents: value of each latent site (of the batch rows, with `rows`).
        data: data arguments or `Inputs`.
        rows: rows of the minibatch, None for all.
        enumerated: discrete latents to sum out.
    """
    inputs = data if isinstance(data, Inputs) else program.inputs(data)
    values, key = {**params, **latents}, random.key(0)
    seen = run(program, inputs, values, key, rows=rows)
    size = inputs.num_rows if rows is None else rows.shape[0]
    sites = {n: m for n, m in seen.items() if m["type"] == "sample" and n not in enumerated}
    found = sum_terms(sites, program, size)
    if not enumerated:
        return found
    fn = prepared(program, inputs, values, key, rows=rows)
    run_ = partial(run, program, inputs, key=key, rows=rows)
    return _summed_out(fn, program, enumerated, found, size, values, run_)


def log_probs(
    program: Program, params: Mapping[str, Any], latents: Mapping[str, Array], data: Any
) -> dict[str, Array]:
    """Return the log density of each sample site, of its batch shape.

    Args:
        program: a model.
        params: constrained parameters and mutable state.
        latents: value of each latent site.
        data: data arguments or `Inputs`.
    """
    inputs = data if isinstance(data, Inputs) else program.inputs(data)
    seen = run(program, inputs, {**params, **latents}, random.key(0))
    return {n: site_log_prob(m) for n, m in seen.items() if m["type"] == "sample"}


def simulate(
    program: Program,
    params: Mapping[str, Any],
    data: Any,
    key: Array,
    latents: Mapping[str, Array] | None = None,
    redraw: Collection[str] | None = None,
    stand_in: bool = False,
) -> dict[str, Array]:
    """Run a model forwards and return the value of every sample and deterministic site.

    Args:
        program: a model.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`.
        key: seeds the draws.
        latents: value of latent sites; what is missing is drawn from the prior.
        redraw: observed sites to draw again: None for all, () for none. Factors stay.
        stand_in: give sites of improper prior some value, where only the data are looked at.
    """
    inputs = data if isinstance(data, Inputs) else program.inputs(data)
    values = {**params, **(latents or {})}
    seen = run(program, inputs, values, key, redraw=redraw, stand_in=stand_in)
    kinds = ("sample", "deterministic")
    return {
        name: msg["value"]
        for name, msg in seen.items()
        if msg["type"] in kinds and name not in program.factors
    }


# ------------------------------------------------------------------------------------- helpers


def _summed_out(
    fn: Callable[[], Any],
    program: Program,
    names: Collection[str],
    others: Terms,
    size: int,
    values: Mapping[str, Any],
    again: Callable[..., dict[str, Any]],
) -> Terms:
    """Return the terms of a run with discrete sites summed out.

    They stand by row where the sites are the rows' own, and all together otherwise.
    """
    from deepgen_ppl.numpyro import marginal

    if (sources := marginal.prepared(program, size)) is not None:
        found = marginal.summed_out(sources, lambda x: again({**values, **x}))
        return found if found.rows.size else Terms(jnp.zeros(size), found.shared)
    own = all(row_axis(program, program.sites[name]) is not None for name in names)
    if own and not program.outside:
        return Terms(enumerated_rows(fn, program, names, size), others.shared)
    return Terms(jnp.zeros(size), enumerated_total(fn, program, names))


def _state(seen: Mapping[str, Any]) -> dict[str, Any]:
    return {n: m["value"] for n, m in seen.items() if m["type"] == "mutable"}


def as_pair_inputs(pair: Pair, data: Any) -> Inputs:
    return data if isinstance(data, Inputs) else pair.inputs(data)


def split_keys(key: Array | tuple[Array, Array]) -> tuple[Any, Any]:
    if isinstance(key, tuple):
        shared, local = (random.split(k) for k in key)
        return (shared[0], local[0]), (shared[1], local[1])
    model_key, guide_key = random.split(key)
    return model_key, guide_key
