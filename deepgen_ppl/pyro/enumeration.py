"""A guide's discrete latents at each of their joint states, and the log weights there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import joint_states, objective_checks
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.parameters import installed
from deepgen_ppl.pyro.program import batch_handlers, call, propose
from deepgen_ppl.pyro.relaxation import base
from deepgen_ppl.pyro.structure import Pair, Site
from deepgen_ppl.pyro.terms import terms


def summed(pair: Pair) -> tuple[list[str], list[str]]:
    """Return the discrete latents that a guide draws for each row, and those that rows share."""
    sites = {} if pair.guide is None else pair.guide.latents
    found = {n: s for n, s in sites.items() if s.is_discrete and n in pair.model.sites}
    local = [n for n, s in found.items() if s.row_plate is not None]
    return local, [n for n in found if n not in local]


def states(
    pair: Pair,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Int[Tensor, " B"] | None,
    most: int,
) -> dict[str, Tensor]:
    """Return all joint states of a guide's discrete latents: each row's own, the same for all rows.

    Args:
        pair: model and guide.
        params: constrained parameters.
        data: the full data.
        rows: rows of the minibatch, None for all.
        most: the greatest number of them.

    Returns:
        Values by site with a leading axis of joint states.

    Raises:
        ValueError: there are more.
    """
    assert pair.guide is not None
    with torch.no_grad():
        seen = propose(pair, params, data, rows).sites
    local, shared = summed(pair)
    sizes: dict[str, list[int]] = {}
    supports: dict[str, Tensor] = {}
    for name in local or shared:
        fn, site = seen[name]["fn"], pair.guide.sites[name]
        own = base(fn)
        finite = bool(getattr(own, "has_enumerate_support", False))
        objective_checks.check_finite(name, finite, type(own).__name__)
        event = tuple(own.event_shape)
        supports[name] = own.enumerate_support(expand=False).reshape(-1, *event).detach()
        shape = tuple(fn.batch_shape + fn.event_shape)
        size = int(np.prod(shape)) // max(int(np.prod(event)), 1)
        axis = _axis(site)
        size = size if axis is None else size // max(fn.batch_shape[axis], 1)
        sizes[name] = [len(supports[name])] * size
    every = [size for own in sizes.values() for size in own]
    objective_checks.check_states(sizes, joint_states.number(every), most)
    table, begin, values = joint_states.grid(every), 0, {}
    for name, own in sizes.items():
        fn, site, support = seen[name]["fn"], pair.guide.sites[name], supports[name]
        index = torch.as_tensor(table[:, begin : begin + len(own)].copy(), device=support.device)
        values[name] = _placed(support[index], fn, _axis(site))
        begin += len(own)
    return values


def _axis(site: Site) -> int | None:
    return None if site.row_plate not in site.plates else site.plates.index(site.row_plate)


def _placed(chosen: Tensor, fn: Any, axis: int | None) -> Tensor:
    """Return joint states in the shape of a site, the same for all rows."""
    shape, count = [*fn.batch_shape, *fn.event_shape], len(chosen)
    if axis is None:
        return chosen.reshape(count, *shape)
    alone = [*shape[:axis], 1, *shape[axis + 1 :]]
    return chosen.reshape(count, *alone).expand(count, *shape)


def weigh_at(
    pair: Pair,
    params: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Int[Tensor, " B"] | None,
) -> tuple[Float[Tensor, " B"], Float[Tensor, ""], Float[Tensor, " B"], Float[Tensor, ""]]:
    """Return log w by row and shared at given discrete latents, and their log q.

    Other latents are drawn from the guide; gradients reach its parameters through all terms.
    """
    assert pair.guide is not None
    total = data_.num_rows(data)
    size = len(rows) if rows is not None else total
    seen = propose(pair, params, data, rows, held=fixed)
    q_rows, q_shared = terms(seen, pair.guide, size, total)
    skip = pair.guide.sites.keys() - fixed.keys()
    chosen_rows, chosen_shared = terms(seen, pair.guide, size, total, skip=skip)
    drawn = {n: m["value"] for n, m in seen.sites.items() if not m["is_observed"]}
    indices = {n: m["value"] for n, m in seen.plates.items()}
    with installed(pair.params.values(), params) as answers:
        around = (*batch_handlers(pair.model, rows, total), answers)
        run = call(pair.model, data_.take(data, rows), *around, handlers.replay(drawn, indices))
    absent = pair.model.latents.keys() - drawn
    p_rows, p_shared = terms(run, pair.model, size, total, skip=absent)
    blank = q_rows if len(q_rows) else p_rows.detach() * 0.0
    chosen_rows = chosen_rows if len(chosen_rows) else blank.detach() * 0.0
    return p_rows - blank, p_shared - q_shared, chosen_rows, chosen_shared
