"""Questions put to a program by running it: which site is not finite, do rows touch each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro.autoguides import autoguide_rows
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.program import (
    Pair,
    Program,
    batch_handlers,
    call,
    log_weights,
    propose,
    terms,
)


def check_rows_independent(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], key: int = 0, num_rows: int = 64
) -> bool:
    """Tell whether moving one row's data and latents leaves every other row's log weight as it was.

    The declared plates promise it; a network that mixes rows (batch normalisation in training
    mode, attention over the batch) or a density that reads other rows' latents (a cumulative sum)
    breaks the promise.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        key: Seed of the draws.
        num_rows: Number of rows that are looked at.
    """
    total = data_.num_rows(data)
    if not pair.local or total is None:
        return False
    local = [site for program in pair.programs for site in program.latents.values()]
    if any(site.row_plate not in site.plates for site in local):
        return False  # a sequential plate: each row has sites of its own
    size = min(total, num_rows)
    if size < 2:
        return True
    rows = torch.arange(size) if size < total else None
    middle = size // 2
    with torch.no_grad(), private_store(), preserved(pair.modules), forked_rng(key):
        drawn, *others = (_draw(pair, params, data, rows) for _ in range(5))
        other = {name: torch.cat([values[name] for values in others]) for name in drawn}
        moved = with_row(drawn, other, middle)
        arrays = {str(i): value for i, value in enumerate(data) if data_.has_rows(value)}
        arrays = with_row(arrays, arrays, middle)
        swapped = tuple(arrays.get(str(i), value) for i, value in enumerate(data))
        axes = {name: _row_axis(pair, name) for name in drawn}
        before, after = (
            log_weights(pair, params, inputs, rows, key,
                        {name: value.movedim(0, axes[name]) for name, value in held.items()}).rows
            for inputs, held in ((data, drawn), (swapped, moved))
        )  # fmt: skip
    change = torch.abs(after - before) > 1e-4 * (1.0 + torch.abs(before))
    change[middle] = False
    return not bool(change.any())


def _draw(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], rows: Tensor | None
) -> dict[str, Tensor]:
    """Return a draw of each random site of the guide (or prior), its rows on the leading axis."""
    sites = propose(pair, params, data, rows).sites
    names = (pair.guide or pair.model).latents
    free = {n: sites[n]["value"] for n in names if not messages.is_delta(sites[n]["fn"])}
    return {name: value.movedim(_row_axis(pair, name), 0) for name, value in free.items()}


def _row_axis(pair: Pair, name: str) -> int:
    site = (pair.guide or pair.model).sites[name]
    return site.plates.index(site.row_plate)


def with_row(
    values: Mapping[str, Tensor], others: Mapping[str, Tensor], row: int
) -> dict[str, Tensor]:
    """Return arrays whose row is another's: the one that differs from it in most of them."""
    if not values:
        return {}
    differs = [(others[n] != v[row]).reshape(len(others[n]), -1).any(1) for n, v in values.items()]
    source = int(torch.stack(differs).sum(0).argmax())
    out = {name: value.clone() for name, value in values.items()}
    for name, value in out.items():
        value[row] = others[name][source]
    return out


def points(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], key: int = 0
) -> list[str]:
    """Return the continuous latents that the guide gives one value only, as a MAP guide does.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        key: Seed of the draws.
    """
    if pair.guide is None:
        return []
    free = {n for n, site in pair.model.latents.items() if not site.is_discrete}
    with torch.no_grad(), private_store(), preserved(pair.modules), forked_rng(key):
        one, other = (propose(pair, params, data, None).sites for _ in range(2))
    fixed = {n for n in free & set(one) if messages.is_delta(one[n]["fn"])}
    same = {n for n in fixed if torch.equal(one[n]["value"], other[n]["value"])}
    return [name for name in pair.model.latents if name in same]


def first_nonfinite(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], rows: Any, key: int
) -> tuple[str | None, list[int]]:
    """Find the first site whose log density, or else whose gradient, is not finite.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        rows: Row numbers of the batch, None for all.
        key: Seed of the draw.

    Returns:
        The site's name (None where nothing was found) and the data rows where it is not finite.
    """
    total = data_.num_rows(data)
    rows = None if rows is None else torch.as_tensor(rows)
    torch.manual_seed(key)
    values = {n: p.value(p.inverse(params[n]).detach()) for n, p in pair.params.items()}
    leaves = [v.requires_grad_() for n, v in values.items() if pair.params[n].trainable]
    seen: list[tuple[Program, handlers.record]] = []
    drawn: dict[str, Tensor] = {}
    with installed(pair.params.values(), values) as answers:
        batch = data_.take(data, rows)
        size = len(rows) if rows is not None else total
        for program in reversed(pair.programs):
            around = (*batch_handlers(program, rows, total), answers, handlers.replay(drawn))
            with autoguide_rows(program.modules, pair.data_plates, total or 0, size or 0):
                run = call(program, batch, *around)
            seen.append((program, run))
            drawn |= {n: m["value"] for n, m in run.sites.items() if not m["is_observed"]}
    sums: dict[str, Tensor] = {}
    for program, run in seen:
        for name, msg in run.sites.items():
            if msg["infer"].get("_deterministic") or msg["mask"] is False:
                continue
            by_row, shared = terms(run, program, size, total, only=name)
            sums[name] = by_row.sum() + shared
            if not bool(torch.isfinite(sums[name])):
                bad = torch.nonzero(~torch.isfinite(by_row)).flatten()
                return name, [int(i) for i in (bad if rows is None else rows[bad.cpu()])]
    for name, value in sums.items():
        if value.requires_grad:
            grads = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
            if not all(bool(torch.isfinite(g).all()) for g in grads if g is not None):
                return name, []
    return None, []


def moving_factors(pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any]) -> list[str]:
    """Return the model's factors that depend on a parameter and on a sample site.

    Args:
        pair: Model and guide.
        params: Constrained values by name, of leaves that require gradients.
        data: The full data.
    """
    names, program = list(pair.model.factors), pair.model
    if not names or not program.observed:
        return []
    seen = []
    for seed in (0, 1):
        with (
            forked_rng(seed),
            private_store(),
            handlers.validation(False),
            preserved(program.modules),
            torch.enable_grad(),
            installed(program.params.values(), params) as answers,
        ):
            around = (handlers.feasible(), handlers.unobserve(), answers)
            sites = call(program, data, *around).sites
        seen.append({name: messages.log_prob(sites[name]) for name in names})
    one, other = seen
    return [n for n in names if one[n].requires_grad and not torch.equal(one[n], other[n])]
