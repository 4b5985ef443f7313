"""Questions put to a program by running it: which site is not finite, do rows touch each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.program import Pair, Program, batch_handlers, call, log_weights, terms


def check_rows_independent(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], key: int = 0, num_rows: int = 64
) -> bool:
    """Tell whether changing the data of one row leaves every other row's log weight as it was.

    The declared plates promise it; a network that mixes rows (batch normalisation in training
    mode, attention over the batch) breaks the promise.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        key: Seed of the draw.
        num_rows: Number of rows that are looked at.
    """
    total = data_.num_rows(data)
    if not pair.local or total is None:
        return False
    size = min(total, num_rows)
    if size < 2:
        return True
    rows = torch.arange(size) if size < total else None
    middle = size // 2
    moved = tuple(_with_row(v, middle) if data_.has_rows(v) else v for v in data)
    with torch.no_grad(), private_store(), preserved(pair.modules), forked_rng(None):
        before = log_weights(pair, params, data, rows, key).rows
        after = log_weights(pair, params, moved, rows, key).rows
    change = torch.abs(after - before) > 1e-4 * (1.0 + torch.abs(before))
    change[middle] = False
    return not bool(change.any())


def _with_row(value: Tensor, row: int) -> Tensor:
    value = value.clone()
    value[row] = value[-1]  # the last of all: inside one batch both directions
    return value


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
            with handlers.autoguide_rows(program.modules, pair.data_plates, total or 0, size or 0):
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
