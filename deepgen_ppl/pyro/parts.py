"""The parts of a bound at draws of a guide: the likelihood, and what each latent costs by unit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro.layered import LayeredNormal
from deepgen_ppl.pyro.parameters import installed
from deepgen_ppl.pyro.program import batch_handlers, call, propose
from deepgen_ppl.pyro.relaxation import divergence
from deepgen_ppl.pyro.structure import Pair, Program
from deepgen_ppl.pyro.terms import terms

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
    """

    rows: Float[Tensor, " B"]
    shared: Float[Tensor, ""]
    costs: dict[str, Float[Tensor, "B units"]]
    shared_costs: dict[str, Float[Tensor, " units"]]
    scale: float
    score_rows: Float[Tensor, " B"]
    score_shared: Float[Tensor, ""]
    draws: dict[str, Tensor]


def parts(
    pair: Pair,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Int[Tensor, " B"] | None = None,
    *,
    analytic: bool = False,
    stopped: bool = False,
) -> Parts:
    r"""Draw once from the guide and return the parts of the draw's log weight.

    $$\log w = \log p(x \mid z) - \sum_j \bigl[\log q(z_j) - \log p(z_j)\bigr], \qquad z \sim q$$

    Args:
        pair: model and guide.
        params: constrained parameters.
        data: the full data.
        rows: rows of the minibatch, None for all.
        analytic: take the mean of a latent's cost over q in closed form, where torch has it and the
            guide draws first what the model draws first.
        stopped: hold the guide's parameters in log q, so that its gradient is the draws' alone.
    """
    total = data_.num_rows(data)
    size = len(rows) if rows is not None else total
    drawn: dict[str, Any] = {}
    indices: dict[str, Any] = {}
    score_rows = score_shared = None
    if pair.guide is not None:
        seen = propose(pair, params, data, rows)
        drawn = _drawn(seen)
        indices = {n: m["value"] for n, m in seen.plates.items()}
        if pair.scored:
            score_rows, score_shared = terms(seen, pair.guide, size, total, only_score=True)
    draws = {name: msg["value"] for name, msg in drawn.items()}
    if stopped and pair.guide is not None:
        drawn = _drawn(_guide_at(pair, params, draws, data, rows))
    with installed(pair.params.values(), params) as answers:
        around = (*batch_handlers(pair.model, rows, total), answers)
        run = call(pair.model, data_.take(data, rows), *around, handlers.replay(draws, indices))
    skip = pair.model.latents.keys()
    row, shared = terms(run, pair.model, size, total, skip=skip)
    costs, shared_costs = _costs(pair, drawn, run, size, total, analytic)
    return Parts(
        rows=row,
        shared=shared,
        costs=costs,
        shared_costs=shared_costs,
        scale=total / size if total and size else 1.0,
        score_rows=torch.zeros_like(row) if score_rows is None else score_rows,
        score_shared=torch.zeros_like(shared) if score_shared is None else score_shared,
        draws=draws,
    )


def weigh(
    pair: Pair,
    params: Mapping[str, Tensor],
    draws: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Int[Tensor, " B"] | None,
) -> tuple[Float[Tensor, " B"], Float[Tensor, ""]]:
    """Return the log weight of given draws by row and shared, the guide's parameters held."""
    assert pair.guide is not None
    total = data_.num_rows(data)
    size = len(rows) if rows is not None else total
    q_rows, q_shared = terms(_guide_at(pair, params, draws, data, rows), pair.guide, size, total)
    with installed(pair.params.values(), params) as answers:
        around = (*batch_handlers(pair.model, rows, total), answers)
        run = call(pair.model, data_.take(data, rows), *around, handlers.replay(draws))
    absent = pair.model.latents.keys() - draws
    p_rows, p_shared = terms(run, pair.model, size, total, skip=absent)
    return p_rows - q_rows, p_shared - q_shared


def guide_draws(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], rows: Int[Tensor, " B"] | None
) -> dict[str, Tensor]:
    """Draw once from the guide; return the draws by site."""
    seen = _drawn(propose(pair, params, data, rows))
    return {name: msg["value"] for name, msg in seen.items()}


def guide_rows(
    pair: Pair,
    params: Mapping[str, Tensor],
    draws: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Int[Tensor, " B"] | None,
) -> Float[Tensor, " B"]:
    """Return the log density of given draws under the guide, by row."""
    assert pair.guide is not None
    total = data_.num_rows(data)
    seen = propose(pair, params, data, rows, held=draws)
    return terms(seen, pair.guide, len(rows) if rows is not None else total, total)[0]


def prior_draws(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], rows: Int[Tensor, " B"] | None
) -> Float[Tensor, "B size"]:
    """Draw the rows' latents from the model, side by side for each row."""
    with installed(pair.params.values(), params) as answers:
        around = (*batch_handlers(pair.model, rows, data_.num_rows(data)), answers)
        seen = call(pair.model, data_.take(data, rows), *around).sites
    return beside(pair.model, {name: seen[name]["value"] for name in local_latents(pair)})


def local_latents(pair: Pair) -> list[str]:
    """Return the latents of the model in data plates that the guide draws."""
    known = {} if pair.guide is None else pair.guide.sites
    return [n for n, s in pair.model.latents.items() if n in known and s.row_plate is not None]


def beside(program: Program, values: Mapping[str, Tensor]) -> Float[Tensor, "B size"]:
    """Return values of sites in data plates side by side, one row of numbers for each row."""
    columns = []
    for name, value in values.items():
        site = program.sites[name]
        axis = site.plates.index(site.row_plate) + value.dim() - len(site.shape)
        columns.append(_rows_first(value, axis))
    return torch.cat(columns, -1)


def scaled_gradients(
    pair: Pair, draws: Mapping[str, Tensor], factor: Float[Tensor, "*B"]
) -> dict[str, Tensor]:
    """Return the same draws, their gradients multiplied by a factor (of each row, or of all)."""
    assert pair.guide is not None
    found = {}
    for name, value in draws.items():
        gate, site = factor.detach(), pair.guide.sites[name]
        if gate.dim():
            axis = site.plates.index(site.row_plate) if site.row_plate in site.plates else 0
            gate = gate.reshape((-1,) + (1,) * (value.dim() - 1 - axis))
        still = value.detach()
        found[name] = still + gate * (value - still) if value.is_floating_point() else value
    return found


# ------------------------------------------------------------------------------------- helpers


def _guide_at(
    pair: Pair, params: Mapping[str, Tensor], draws: Mapping[str, Tensor], data: Sequence[Any],
    rows: Tensor | None,
) -> handlers.record:  # fmt: skip
    """Run the guide at given draws, its parameters held."""
    return propose(pair, {n: x.detach() for n, x in params.items()}, data, rows, held=draws)


def _costs(
    pair: Pair, drawn: dict[str, Any], run: handlers.record, size: int | None, total: int | None,
    analytic: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Return log q - log p of each latent: of those in data plates by row, of the others."""
    if pair.guide is None:
        return {}, {}
    scale = total / size if total and size else 1.0
    if any(name not in pair.model.latents for name in drawn):  # others that they are made of
        q = handlers.record()
        q.sites = drawn
        log_q = terms(q, pair.guide, size, total)
        keep = pair.model.sites.keys() - drawn
        log_p = terms(run, pair.model, size, total, skip=keep)
        rows, shared = (
            _sized(one, size) - _sized(other, size) if number == 0 else one - other
            for number, (one, other) in enumerate(zip(log_q, log_p, strict=True))
        )
        return {TOGETHER: rows[:, None]}, {TOGETHER: shared[None]}
    first = _drawn_as_in_the_model(pair, list(drawn))
    local, shared = {}, {}
    for name, msg in drawn.items():
        frame = next((f for f in msg["cond_indep_stack"] if f.name in pair.guide.data_plates), None)
        factor = 1.0 if frame is None else scale
        cost, event_dim = _cost(msg, run.sites[name], analytic and name in first, factor)
        batch_dim = cost.dim() - event_dim
        if frame is not None and frame.dim is not None and batch_dim >= -frame.dim:
            local[name] = _rows_first(cost, batch_dim + frame.dim)
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


def _cost(q: Message, p: Message, analytic: bool, factor: float) -> tuple[Tensor, int]:
    """Return the cost of a latent and how many of its dimensions are the event's."""
    event_dim, value = q["fn"].event_dim, q["value"]
    scales = q["scale"] / factor, p["scale"] / factor
    plain = not _is_masked(q) and not _is_masked(p)
    same = q["scale"] is p["scale"] or _equal_numbers(*scales)
    one, other = _layers(q["fn"]), _layers(p["fn"])
    if plain and one is not None and other is not None:
        return _layered(one, other, value, analytic and same, scales), 1
    if analytic and plain and same:
        found = _divergence(q["fn"], p["fn"])
        if found is not None:
            divergence, left = found
            shape = value.shape[: value.dim() - event_dim + left]
            return divergence.expand(shape) * _raised(scales[0], left), left
    log_q, log_p = (None, None) if not plain else (_by_element(m["fn"], value) for m in (q, p))
    if log_q is None or log_p is None:
        ours, theirs = (messages.log_prob(dict(m, value=value)) for m in (q, p))
        return (ours - theirs) / factor, 0
    return log_q * _raised(scales[0], event_dim) - log_p * _raised(scales[1], event_dim), event_dim


def _layered(
    q: LayeredNormal, p: LayeredNormal, value: Tensor, analytic: bool, scales: tuple[Any, Any]
) -> Tensor:
    """Return the cost of each layer of latents, given the layers above."""
    if analytic:
        return q.divergence(p, value) * _raised(scales[0], 1)
    return q.by_layer(value) * _raised(scales[0], 1) - p.by_layer(value) * _raised(scales[1], 1)


def _layers(fn: Any) -> LayeredNormal | None:
    """Return the distribution of latents in layers, None where it is no such."""
    while isinstance(fn, ExpandedDistribution):
        fn = fn.base_dist
    return fn if isinstance(fn, LayeredNormal) else None


def _divergence(q: Any, p: Any) -> tuple[Tensor, int] | None:
    """Return KL(q || p) by element where they are independent, and what it keeps of an event.

    None where torch has no closed form.
    """
    for one, other, left in ((_elements(q), _elements(p), q.event_dim), (q, p, 0)):
        if one is None or other is None:
            continue
        if (found := divergence(one, other)) is not None:
            return found, left
        try:
            return kl_divergence(one, other), left
        except NotImplementedError:
            continue
    return None


def _by_element(fn: Any, value: Tensor) -> Tensor | None:
    """Return the log density of each element of a site, None where they are not independent."""
    elements = _elements(fn)
    if elements is None:
        return None
    return elements.log_prob(value).expand(value.shape)


def _elements(fn: Any) -> Any:
    """Return the distribution of the elements of a site; None where they are not independent."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn if fn.event_dim == 0 and not isinstance(fn, MaskedDistribution) else None


def _is_masked(msg: Message) -> bool:
    fn = msg["fn"]
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return msg["mask"] is not None or isinstance(fn, MaskedDistribution)


def _equal_numbers(one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and abs(one - other) <= 1e-6 * abs(one)


def _raised(scale: Any, event_dim: int) -> Any:
    """Return a scale of batch shape with the dimensions of an event behind it."""
    if not isinstance(scale, Tensor) or not scale.dim():
        return scale
    return scale.reshape(scale.shape + (1,) * event_dim)


def _rows_first(value: Tensor, axis: int) -> Tensor:
    moved = value.movedim(axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _sized(rows: Tensor, size: int | None) -> Tensor:
    return rows if len(rows) else rows.new_zeros(size or 0)


def _drawn(seen: handlers.record) -> dict[str, Any]:
    return {
        n: m
        for n, m in seen.sites.items()
        if not m["is_observed"] and not m["infer"].get("_deterministic")
    }
