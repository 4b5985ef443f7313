"""The parts of a bound at draws of a guide: the likelihood, and what each latent costs by unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Float, Int
from numpyro.distributions import kl_divergence

from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.layered import LayeredNormal
from deepgen_ppl.numpyro.program import as_pair_inputs, run, split_keys
from deepgen_ppl.numpyro.relaxation import divergence
from deepgen_ppl.numpyro.structure import Pair, Program, site_log_prob
from deepgen_ppl.numpyro.terms import Terms, normalised, sum_terms
from deepgen_ppl.numpyro.unconstrained import row_axis

TOGETHER = "latents"
"""Name of the costs of all latents together, where a guide draws them by way of others."""

Message = Mapping[str, Any]


class Parts(NamedTuple):
    """A log weight in parts: the likelihood less the costs of the latents.

    Attributes:
        rows: log density of what is observed and of factors, of each row, unscaled, shape (B,).
        shared: the same outside the data plates.
        costs: log q - log p of each latent in a data plate (or its mean over q, in closed form),
            by row and unit: the elements of a site where they are independent under both q and p,
            else the site as a whole.
        shared_costs: the same of latents that the rows share, by unit.
        scale: N / B, by which a sum over rows is multiplied.
        score_rows: log q of each row's draws that carry no gradient.
        score_shared: log q of the shared draws that carry no gradient.
        draws: what the guide drew, by site of the guide.
        state: new values of mutable state.
    """

    rows: Float[Array, " B"]
    shared: Float[Array, ""]
    costs: dict[str, Float[Array, "B units"]]
    shared_costs: dict[str, Float[Array, " units"]]
    scale: float
    score_rows: Float[Array, " B"]
    score_shared: Float[Array, ""]
    draws: dict[str, Array]
    state: dict[str, Any]


def parts(
    pair: Pair,
    params: Mapping[str, Any],
    data: Any,
    rows: Int[Array, " B"] | None = None,
    *,
    key: Array,
    analytic: bool = False,
    stopped: bool = False,
) -> Parts:
    r"""Draw once from the guide and return the parts of the draw's log weight.

    $$\log w = \log p(x \mid z) - \sum_j \bigl[\log q(z_j) - \log p(z_j)\bigr], \qquad z \sim q$$

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        data: data arguments or `Inputs`, all N rows.
        rows: rows of the minibatch, None for all.
        key: seeds the draw.
        analytic: take the mean of a latent's cost over q in closed form, where NumPyro has it and
            the guide draws first what the model draws first.
        stopped: hold the guide's parameters in log q, so that its gradient is the draws' alone.
    """
    inputs = as_pair_inputs(pair, data)
    model_key, guide_key = split_keys(key)
    size = inputs.num_rows if rows is None else rows.shape[0]
    drawn: dict[str, Any] = {}
    score, state = Terms.zero(size), {}
    if pair.guide is not None:
        seen = run(pair.guide, inputs, params, guide_key, rows=rows)
        drawn = _drawn(seen)
        state = _state(seen)
        blind = normalised({n: m for n, m in drawn.items() if not m["fn"].has_rsample})
        score = sum_terms(blind, pair.guide, size) if blind else score
    draws = {name: msg["value"] for name, msg in drawn.items()}
    if stopped and pair.guide is not None:
        held = {**lax.stop_gradient(dict(params)), **draws}
        drawn = _drawn(run(pair.guide, inputs, held, guide_key, rows=rows))
    latents = {n: v for n, v in draws.items() if n in pair.model.sites}
    seen = run(pair.model, inputs, {**params, **state, **latents}, model_key, rows=rows)
    state |= _state(seen)
    sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
    likelihood = sum_terms(
        {n: m for n, m in sites.items() if n not in pair.model.latents}, pair.model, size
    )
    costs, shared_costs = _costs(pair, drawn, sites, size, analytic)
    return Parts(
        rows=likelihood.rows,
        shared=likelihood.shared,
        costs=costs,
        shared_costs=shared_costs,
        scale=inputs.num_rows / size if rows is not None else 1.0,
        score_rows=score.rows,
        score_shared=score.shared,
        draws=draws,
        state=state,
    )


def propose(
    pair: Pair,
    params: Mapping[str, Any],
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Draw once from the guide; return the draws by site and the new mutable state."""
    assert pair.guide is not None
    seen = run(pair.guide, inputs, params, split_keys(key)[1], rows=rows)
    return {name: msg["value"] for name, msg in _drawn(seen).items()}, _state(seen)


def weigh(
    pair: Pair,
    params: Mapping[str, Any],
    draws: Mapping[str, Array],
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
) -> tuple[Float[Array, " B"], Float[Array, ""], dict[str, Any]]:
    """Return the log weight of given draws by row and shared, the guide's parameters held."""
    assert pair.guide is not None
    model_key, guide_key = split_keys(key)
    size = inputs.num_rows if rows is None else rows.shape[0]
    held = {**lax.stop_gradient(dict(params)), **draws}
    log_q = sum_terms(_drawn(run(pair.guide, inputs, held, guide_key, rows=rows)), pair.guide, size)
    latents = {n: v for n, v in draws.items() if n in pair.model.sites}
    seen = run(pair.model, inputs, {**params, **latents}, model_key, rows=rows)
    sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
    absent = [name for name in pair.model.latents if name not in draws]
    log_p = sum_terms({n: m for n, m in sites.items() if n not in absent}, pair.model, size)
    return log_p.rows - log_q.rows, log_p.shared - log_q.shared, _state(seen)


def guide_rows(
    pair: Pair,
    params: Mapping[str, Any],
    draws: Mapping[str, Array],
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
) -> Float[Array, " B"]:
    """Return the log density of given draws under the guide, by row."""
    assert pair.guide is not None
    size = inputs.num_rows if rows is None else rows.shape[0]
    seen = run(pair.guide, inputs, {**params, **draws}, key, rows=rows)
    return sum_terms(_drawn(seen), pair.guide, size).rows


def prior_draws(
    pair: Pair,
    params: Mapping[str, Any],
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
) -> Float[Array, "B size"]:
    """Draw the rows' latents from the model, side by side for each row."""
    seen = run(pair.model, inputs, params, key, rows=rows)
    return beside(pair.model, {name: seen[name]["value"] for name in local_latents(pair)})


def local_latents(pair: Pair) -> list[str]:
    """Return the latents of the model in data plates that the guide draws."""
    known = {} if pair.guide is None else pair.guide.sites
    sites = {n: site for n, site in pair.model.latents.items() if n in known}
    return [name for name, site in sites.items() if row_axis(pair.model, site) is not None]


def beside(program: Program, values: Mapping[str, Array]) -> Float[Array, "B size"]:
    """Return values of sites in data plates side by side, one row of numbers for each row."""
    columns = []
    for name, value in values.items():
        site = program.sites[name]
        axis = row_axis(program, site)
        assert axis is not None
        axis += jnp.ndim(value) - len(site.shape)
        columns.append(_rows_first(value, axis))
    return jnp.concatenate(columns, axis=-1)


def scaled_gradients(
    pair: Pair, draws: Mapping[str, Array], factor: Float[Array, "*B"]
) -> dict[str, Array]:
    """Return the same draws, their gradients multiplied by a factor (of each row, or of all)."""
    assert pair.guide is not None
    found = {}
    for name, value in draws.items():
        gate, site = lax.stop_gradient(factor), pair.guide.sites[name]
        if jnp.ndim(gate):
            axis = row_axis(pair.guide, site)
            gate = gate.reshape((-1,) + (1,) * (jnp.ndim(value) - 1 - (axis or 0)))
        still = lax.stop_gradient(value)
        found[name] = still + gate * (value - still) if _is_real(value) else value
    return found


# ------------------------------------------------------------------------------------- helpers


def _costs(
    pair: Pair, drawn: dict[str, Any], sites: dict[str, Any], size: int, analytic: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return log q - log p of each latent: of those in data plates by row, of the others."""
    if pair.guide is None:
        return {}, {}
    if any(name not in pair.model.latents for name in drawn):  # others that they are made of
        log_q = sum_terms(drawn, pair.guide, size)
        log_p = sum_terms({n: m for n, m in sites.items() if n in drawn}, pair.model, size)
        rows, shared = log_q.rows - log_p.rows, log_q.shared - log_p.shared
        return {TOGETHER: rows[:, None]}, {TOGETHER: shared[None]}
    first = _drawn_as_in_the_model(pair, list(drawn))
    local, shared = {}, {}
    for name, msg in drawn.items():
        cost, event_dim = _cost(msg, sites[name], analytic and name in first)
        dims = [f.dim for f in msg["cond_indep_stack"] if f.name in pair.guide.data_plates]
        batch_ndim = jnp.ndim(cost) - event_dim
        if dims and batch_ndim >= -dims[0]:
            local[name] = _rows_first(cost, batch_ndim + dims[0])
        else:
            shared[name] = cost.reshape(-1)
    return local, shared


def _drawn_as_in_the_model(pair: Pair, order: list[str]) -> set[str]:
    """Return the latents before which the guide draws all that the model draws before them.

    Of these alone is the mean of log q - log p, the other draws given, the divergence of the two
    distributions: a prior that depends on a later draw of the guide moves with the latent itself.
    """
    model = list(pair.model.latents)
    return {n for k, n in enumerate(order) if set(model[: model.index(n)]) <= set(order[:k])}


def _cost(q: Message, p: Message, analytic: bool) -> tuple[Array, int]:
    """Return the cost of a latent and how many of its dimensions are the event's."""
    event_dim = q["fn"].event_dim
    scales = _scale(q), _scale(p)
    plain = not _is_masked(q["fn"]) and not _is_masked(p["fn"])
    same = scales[0] is scales[1] or _equal_numbers(*scales)
    one, other = _layers(q["fn"]), _layers(p["fn"])
    if plain and one is not None and other is not None:
        return _layered(one, other, q["value"], analytic and same, scales), 1
    if analytic and plain and same:
        found = _divergence(q["fn"], p["fn"])
        if found is not None:
            value, left = found
            shape = jnp.shape(q["value"])[: jnp.ndim(q["value"]) - event_dim + left]
            return jnp.broadcast_to(value, shape) * _raised(scales[0], left), left
    log_q, log_p = _by_element(q["fn"], q["value"]), _by_element(p["fn"], q["value"])
    if log_q is None or log_p is None:
        return site_log_prob(dict(q)) - site_log_prob(dict(p)), 0
    return log_q * _raised(scales[0], event_dim) - log_p * _raised(scales[1], event_dim), event_dim


def _layered(
    q: LayeredNormal, p: LayeredNormal, value: Array, analytic: bool, scales: tuple[Any, Any]
) -> Array:
    """Return the cost of each layer of latents, given the layers above."""
    if analytic:
        return q.divergence(p, value) * _raised(scales[0], 1)
    return q.by_layer(value) * _raised(scales[0], 1) - p.by_layer(value) * _raised(scales[1], 1)


def _layers(fn: Any) -> LayeredNormal | None:
    """Return the distribution of latents in layers, None where it is no such."""
    while isinstance(fn, dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn if isinstance(fn, LayeredNormal) else None


def _divergence(q: Any, p: Any) -> tuple[Array, int] | None:
    """Return KL(q || p) by element where they are independent, and what it keeps of an event.

    None where NumPyro has no closed form.
    """
    for one, other, left in ((_elements(q), _elements(p), q.event_dim), (q, p, 0)):
        if one is None or other is None:
            continue
        if (found := divergence(one, other)) is not None:
            return found, left
        try:
            return jnp.asarray(kl_divergence(one, other)), left
        except NotImplementedError:
            continue
    return None


def _by_element(fn: Any, value: Array) -> Array | None:
    """Return the log density of each element of a site, None where they are not independent."""
    elements = _elements(fn)
    if elements is None:
        return None
    return jnp.broadcast_to(elements.log_prob(value), jnp.shape(value))


def _elements(fn: Any) -> Any:
    """Return the distribution of the elements of a site; None where they are not independent."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn if fn.event_dim == 0 and not isinstance(fn, dist.MaskedDistribution) else None


def _is_masked(fn: Any) -> bool:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return isinstance(fn, dist.MaskedDistribution)


def _scale(msg: Message) -> Any:
    return 1.0 if msg["scale"] is None else msg["scale"]


def _equal_numbers(one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and abs(one - other) <= 1e-6 * abs(one)


def _raised(scale: Any, event_dim: int) -> Array:
    """Return a scale of batch shape with the dimensions of an event behind it."""
    scale = jnp.asarray(scale)
    return scale.reshape(scale.shape + (1,) * event_dim) if scale.ndim else scale


def _rows_first(value: Array, axis: int) -> Array:
    moved = jnp.moveaxis(value, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _is_real(value: Array) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _drawn(seen: Mapping[str, Any]) -> dict[str, Any]:
    return {n: m for n, m in seen.items() if m["type"] == "sample" and not m["is_observed"]}


def _state(seen: Mapping[str, Any]) -> dict[str, Any]:
    return {n: m["value"] for n, m in seen.items() if m["type"] == "mutable"}


def several(draw: Any, key: Array, num_particles: int) -> Any:
    """Return what a function of a key gives for several keys, along a leading axis."""
    if num_particles == 1:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], draw(key))
    return jax.vmap(draw)(random.split(key, num_particles))
