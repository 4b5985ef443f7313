"""The log density of a program with its discrete latents summed out by the exact engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from deepgen_ppl.marginal import Sources, sources_of
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.contraction import log_sum
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import read_coordinates, values_of
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.tables import Tables, element_log_probs
from deepgen_ppl.numpyro.terms import MOST_ENUMERATED, Terms
from deepgen_ppl.slices import layout_of
from deepgen_ppl.tabulation import unobserved_name

_PREPARED: WeakKeyDictionary[Program, dict[int, Sources]] = WeakKeyDictionary()


def prepare(
    program: Program,
    params: Mapping[str, Any],
    inputs: Inputs,
    batch_size: int | None = None,
    needed: bool = True,
) -> None:
    """Read how a program is summed out, so that its density can be inside compiled functions.

    Args:
        program: a model.
        params: constrained parameters and mutable state.
        inputs: inputs at all rows.
        batch_size: rows it will be called with, None for all.
        needed: False leaves it to the language's enumeration where that has dimensions enough, and
            takes the parameters for what they will be.

    Raises:
        ValueError: a latent has no finite support, or a term depends on too many of them.
    """
    discrete = [name for name, site in program.latents.items() if site.is_discrete]
    fixed = not needed
    # The languages' enumeration counts the observed elements of a masked site once for each state.
    needed = needed or any(unobserved_name(name, program.sites) for name in discrete)
    if not discrete or (not needed and len(discrete) <= MOST_ENUMERATED):
        return
    size = inputs.num_rows if batch_size is None else batch_size
    if size in _PREPARED.get(program, {}):
        return
    shown = program if size == program.num_rows else _shortened(program, size)
    if size != inputs.num_rows:
        rows = jnp.arange(size)
        params = {n: jnp.take(v, rows, axis=program.tables[n]) if n in program.tables else v
                  for n, v in params.items()}  # fmt: skip
        inputs = inputs.gather(rows)
    seen = program_.run(shown, inputs, params, random.key(0), stand_in=True)
    held = {n: seen[n]["value"] for n, s in program.latents.items() if not s.is_discrete}
    coordinates = read_coordinates(shown, {**params, **held}, inputs, "exact")
    tables = Tables(shown, coordinates, params, inputs, held, fixed=fixed)
    plates = {name: program.sites[name].plates for name in coordinates.places}
    sources = sources_of(tables.tabulation, tables.terms, plates, program.data_plates)
    _PREPARED.setdefault(program, {})[size] = sources


def prepared(program: Program, size: int) -> Sources | None:
    """Return how a program is summed out at a number of rows, None where it was not prepared."""
    return _PREPARED.get(program, {}).get(size)


def summed_out(sources: Sources, run: Callable[[dict[str, Array]], Mapping[str, Any]]) -> Terms:
    r"""Return the log density of a run with its discrete latents summed out.

    \[ \log \sum_z p(x, z) \]

    It stands by row where the rows are apart, and is differentiable in all that the run depends on.

    Args:
        sources: how the program is summed out.
        run: values of the discrete latents to the trace of a run.

    Returns:
        Terms of each row (none without a data plate), and the sum of all others.

    Cost:
        One vectorised run of the program at the states that its largest table needs, and one pass
        through the tables.
    """

    def at(x: Array) -> tuple[Float[Array, " T"], Float[Array, ""]]:
        found = element_log_probs(run(values_of(sources.coordinates, x)))
        others = [jnp.sum(term) for name, term in found.items() if name not in sources.names]
        own = jnp.concatenate([jnp.ravel(found[name]) for name in sources.names])
        return own, sum(others, start=jnp.zeros(()))

    seen = [jax.vmap(at)(jnp.asarray(bundle, jnp.int32)) for bundle in sources.bundles]
    flat = jnp.concatenate([jnp.ravel(terms) for terms, _ in seen])
    first, others = seen[0][0][0], seen[0][1][0]
    values, rows = [first[sources.constants]], [sources.constant_rows]
    for part in sources.parts:
        tables = [jnp.zeros(place.shape) if blank else flat[place] for place, blank in part.tables]
        values.append(log_sum(part.plan, tables, layout_of(part.plan)))
        rows.append(part.rows)
    where = np.concatenate(rows) + 1
    total = jnp.zeros(sources.num_rows + 1).at[where].add(jnp.concatenate(values))
    return Terms(total[1:], total[0] + others)


def _shortened(program: Program, size: int) -> Program:
    """Return a program's structure at another number of rows."""

    def short(site: Any) -> Any:
        pairs = zip(site.batch_shape, site.plates, strict=True)
        shape = tuple(size if plate in program.data_plates else n for n, plate in pairs)
        return site._replace(batch_shape=shape)

    return replace(
        program, sites={name: short(site) for name, site in program.sites.items()}, num_rows=size
    )
