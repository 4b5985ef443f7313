"""The log density of a program with its discrete latents summed out by the exact engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pyro.poutine.messenger import Messenger
from torch import Tensor

from deepgen_ppl.marginal import Sources, sources_of
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.contraction import log_sum
from deepgen_ppl.pyro.discrete import read_coordinates
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.structure import Program, Site
from deepgen_ppl.pyro.tables import Tables
from deepgen_ppl.tabulation import unobserved_name

MOST_ENUMERATED = 25
"""Discrete latents up to which summing out is left to Pyro's own enumeration."""


class Prepared(NamedTuple):
    """A program as it is summed out.

    Attributes:
        tables: Its terms.
        sources: How they are summed out.
    """

    tables: Tables
    sources: Sources


def prepare(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    batch_size: int | None = None,
    needed: bool = True,
) -> None:
    """Read how a program is summed out, so that its density can be inside traced functions.

    Args:
        program: a model.
        params: constrained parameters.
        data: the full data, tensors.
        batch_size: rows it will be called with, None for all.
        needed: False leaves it to the language's enumeration where there are few, and takes the
            parameters for what they will be.

    Raises:
        ValueError: a latent has no finite support, or a term depends on too many of them.
    """
    discrete = [name for name, site in program.latents.items() if site.is_discrete]
    fixed = not needed
    # The languages' enumeration counts the observed elements of a masked site once for each state.
    needed = needed or any(unobserved_name(name, program.sites) for name in discrete)
    if not discrete or (not needed and len(discrete) <= MOST_ENUMERATED):
        return
    total = data_.num_rows(data)
    size = total if batch_size is None else batch_size
    if prepared(program, size) is not None:
        return
    rows = None if size == total or size is None else torch.arange(size)
    around = program_.batch_handlers(program, rows, total, scaled=False)
    batch = data_.take(data, rows)
    params = {name: value.detach() for name, value in params.items()}
    shown = program if size is None else _shortened(program, size)
    held = some_values(shown, params, batch, *around)
    coordinates = read_coordinates(shown, params, batch, "exact", *around)
    tables = Tables(shown, coordinates, params, batch, held, *around, fixed=fixed)
    plates = {name: program.sites[name].plates for name in coordinates.places}
    sources = sources_of(tables.tabulation, tables.terms, plates, program.data_plates)
    program.notes[f"summed out at {size}"] = Prepared(tables, sources)


def prepared(program: Program, size: int | None) -> Prepared | None:
    """Return how a program is summed out at a number of rows, None where it was not prepared."""
    return program.notes.get(f"summed out at {size}")


def summed_out(
    how: Prepared,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    held: Mapping[str, Tensor],
    *around: Messenger,
) -> tuple[Float[Tensor, " N"], Float[Tensor, ""]]:
    r"""Return the log density of a run with its discrete latents summed out.

    \[ \log \sum_z p(x, z) \]

    It stands by row where the rows are apart, and is differentiable in all that the run depends on.

    Args:
        how: how the program is summed out.
        params: constrained parameters.
        data: the data, of the shapes it was prepared with.
        held: values of the continuous latents.
        *around: handlers that it runs under, the first outermost.

    Returns:
        Terms of each row (none without a data plate), and the sum of all others.

    Cost:
        One vectorised run of the program at the states that its largest table needs, and one pass
        through the tables.
    """
    tables, sources = how
    runs = torch.from_numpy(np.concatenate(sources.bundles))
    flat = tables.at(runs, params, data, held, *around).reshape(-1)
    values = [flat[torch.from_numpy(sources.constants)]]
    rows = [sources.constant_rows]
    for part in sources.parts:
        own = [flat.new_zeros(place.shape) if blank else flat[torch.from_numpy(place).long()]
               for place, blank in part.tables]  # fmt: skip
        values.append(log_sum(part.plan, own))
        rows.append(part.rows)
    where = torch.from_numpy(np.concatenate(rows) + 1).to(flat.device)
    total = flat.new_zeros(sources.num_rows + 1).index_add(0, where, torch.cat(values))
    return total[1:], total[0]


def some_values(
    program: Program, params: Mapping[str, Tensor], data: Sequence[Any], *around: Messenger
) -> dict[str, Tensor]:
    """Return values of the continuous latents at which the program can be looked at.

    Args:
        program: a model.
        params: constrained parameters.
        data: its data, tensors.
        *around: handlers that it runs under, the first outermost.
    """
    names = [name for name, site in program.latents.items() if not site.is_discrete]
    with (
        forked_rng(0),
        torch.no_grad(),
        private_store(),
        handlers.validation(False),
        preserved(program.modules),
        installed(program.params.values(), params) as answers,
    ):
        run = program_.call(program, data, *around, answers, handlers.feasible())
    return {name: run.sites[name]["value"].detach() for name in names}


def _shortened(program: Program, size: int) -> Program:
    """Return a program's structure at another number of rows."""

    def short(site: Site) -> Site:
        pairs = zip(site.batch_shape, site.plates, strict=True)
        shape = tuple(size if plate in program.data_plates else n for n, plate in pairs)
        return site._replace(batch_shape=shape)

    return replace(program, sites={name: short(site) for name, site in program.sites.items()})
