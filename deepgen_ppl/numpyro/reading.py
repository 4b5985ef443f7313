"""Reading a native program, by abstract traces at two row counts: which plates follow the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.core import Tracer
from numpyro.distributions import biject_to, constraints
from numpyro.handlers import substitute, trace
from numpyro.ops.provenance import eval_provenance

from deepgen_ppl import checks, data_checks
from deepgen_ppl.energy_checks import check_guide_factors
from deepgen_ppl.kept import Kept
from deepgen_ppl.numpyro import data as data_
from deepgen_ppl.numpyro.compilation import structure_of
from deepgen_ppl.numpyro.data import Inputs, argument_names, as_inputs, as_key, unwrap
from deepgen_ppl.numpyro.fingerprint import entire, surroundings
from deepgen_ppl.numpyro.handlers import minibatch, observe_draws, split_seed
from deepgen_ppl.numpyro.structure import (
    Pair,
    Plate,
    Program,
    Reading,
    Site,
    autoguides,
    execute,
    learned,
    read_once,
    site_log_prob,
)

_READ: Kept[Program] = Kept()
"""Programs as they were read, without their functions."""

_MOST_KEPT = 16
"""Readings that are kept of one program."""


def _nothing() -> None:
    """Stand in for a program where only its structure is kept."""


def read(
    model: Callable,
    data: Sequence,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    batch_size: int | None = None,
    seed: int | Array = 0,
    role: str = "model",
    data_plates: Sequence[str] = (),
) -> Program:
    """Read a native program by abstract traces at N rows and at another row count.

    Args:
        model: a model or guide; `functools.partial` and handlers around it are understood.
        data: data arguments; the leading axis of arrays is the data axis.
        model_kwargs: constants passed by name.
        params: learned values, whose shapes are checked.
        batch_size: rows per minibatch; asking for one makes a program that cannot be cut an error.
        seed: seeds the set-up of autoguides.
        role: "model" or "guide".
        data_plates: data plates of the model, when a guide is read.

    Returns:
        The program's structure at this data shape.

    Raises:
        ValueError: bad data, in-model subsampling with `batch_size`, or sites that depend on the
            rows outside data plates with `batch_size`.
        TypeError: integer data at a site of real support.

    Example:
        >>> import numpyro, numpy as np, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> program = read(model, (np.ones(10),))
        >>> list(program.latents), list(program.observed), program.data_plates
        (['mu'], ['x'], ('data',))
    """
    fn, args, kwargs = unwrap(model)
    bound = (args, {**kwargs, **(model_kwargs or {})})
    names = argument_names(fn, len(args), len(data))
    num_rows = data_.check(names, data, batch_size)
    if role == "model":
        data_.check_own(fn, data)
    inputs = Inputs(as_inputs(tuple(data)), **{role: as_inputs(bound)})
    if role == "guide":
        _set_up_autoguides(fn, inputs, num_rows, data_plates, seed)
    own = entire(fn) if role == "model" else None
    kept = {} if own is None else _READ.of(fn)
    key = (own, surroundings(), structure_of(inputs), batch_size)
    program = kept.get(key)
    if program is None:
        about = (names, num_rows, batch_size)
        program, is_fixed = _traced(fn, inputs, role, bound, tuple(data_plates), *about)
        if is_fixed:
            kept[key] = replace(program, fn=_nothing, bound=((), {}))
        for old in list(kept)[:-_MOST_KEPT]:
            del kept[old]
    program = replace(program, fn=fn, bound=bound)
    _check_params(program, learned(params))
    return program


def _traced(
    fn: Callable,
    inputs: Inputs,
    role: str,
    bound: tuple[tuple, dict],
    data_plates: tuple[str, ...],
    names: tuple[str, ...],
    num_rows: int | None,
    batch_size: int | None,
) -> tuple[Program, bool]:
    """Trace a program at two row counts; tell beside it whether no value of its inputs counted."""
    full = read_once(fn, inputs, role)
    _check_full(full, batch_size)
    transforms = _transforms(fn, inputs, role, full)
    cut, rows = None, 0
    if batch_size is not None or full.plates or full.params:  # without, nothing follows the rows
        cut, rows = _read_cut(fn, inputs, role, num_rows, batch_size, data_plates)
    follows = _following(full, cut, num_rows, rows)
    tables = _tables(full, cut)
    outside: tuple[str, ...] = ()
    if cut is not None:
        outside = _outside(fn, inputs, role, full, cut, follows, tuple(tables))
    if batch_size is not None and batch_size != num_rows:
        checks.check_outside(outside, batch_size, num_rows or 0)
        if role == "model" and not follows:
            checks.check_outside(
                [s for s in full.sites if full.sites[s].role != "latent"], batch_size, num_rows or 0
            )
    plates = {
        name: Plate(name, dim, size, sub is not None and sub != size, name in follows)
        for name, (dim, size, sub) in full.plates.items()
    }
    program = Program(
        fn,
        role,
        bound,
        names,
        full.sites,
        plates,
        follows,
        full.params,
        transforms,
        tables,
        full.state,
        num_rows,
        outside,
        full.fixed,
    )
    leaves = jax.tree.leaves(list(full.constraints.values()))
    return program, not any(isinstance(leaf, Tracer) for leaf in leaves)


def read_pair(
    model: Callable,
    guide: Callable | None,
    data: Sequence,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    batch_size: int | None = None,
    seed: int | Array = 0,
    prior: bool = False,
    enumerated: bool = False,
    partial: bool = False,
    alone: bool = False,
) -> Pair:
    """Read a model and its guide and check that their sites match.

    Args:
        model: the model.
        guide: the guide, None for no latents.
        data: data arguments of both.
        model_kwargs: constants passed by name to both.
        params: learned values, whose shapes are checked.
        batch_size: rows per minibatch.
        seed: seeds the set-up of autoguides.
        prior: with `guide=None`, allow latents: they are drawn from the prior.
        enumerated: allow discrete latents that the guide lacks: they are summed out.
        partial: allow latents that the guide lacks: they are drawn from the model.
        alone: sum discrete latents out without a guide too.

    Returns:
        Both programs and whether all their sites are local to the data plates.

    Raises:
        ValueError: the sites of model and guide do not match, or what `read` raises.
    """
    checks.check_guide(guide)
    options: dict[str, Any] = dict(
        model_kwargs=model_kwargs, params=params, batch_size=batch_size, seed=seed
    )
    reading = read(model, data, **options)
    latents = {name: reading.sites[name].shape for name in reading.latents}
    if guide is None:
        summed = tuple(n for n in latents if alone and reading.sites[n].is_discrete)
        if not prior:
            left = {name: shape for name, shape in latents.items() if name not in summed}
            checks.check_pair(left, reading.observed, None)
        return Pair(reading, None, reading.local, summed)
    proposal = read(guide, data, role="guide", data_plates=reading.data_plates, **options)
    check_guide_factors(proposal.factors)
    drawn = {name: s.shape for name, s in proposal.latents.items() if not s.auxiliary}
    absent = [n for n in latents if partial or (enumerated and reading.sites[n].is_discrete)]
    checks.check_pair(latents, reading.observed, drawn, proposal.observed, absent)
    summed = () if partial else tuple(name for name in absent if name not in drawn)
    checks.check_enumerable(name for name in summed if not reading.sites[name].enumerable)
    if batch_size is not None and batch_size != reading.num_rows:
        checks.check_local(
            [
                n
                for n in drawn
                if _stands_in(reading.sites[n], reading.data_plates)
                and not _stands_in(proposal.sites[n], proposal.data_plates)
            ],
            batch_size,
        )
    return Pair(reading, proposal, reading.local and proposal.local, summed)


def _check_full(full: Reading, batch_size: int | None) -> None:
    subsampled = {
        name: (size, sub)
        for name, (_, size, sub) in full.plates.items()
        if sub is not None and sub != size
    }
    checks.check_subsampling(subsampled, batch_size)
    for name, shape in full.shapes.items():
        data_checks.check_shape(name, shape, full.sites[name].shape)
    for name, dtype in full.integers.items():
        data_checks.refuse_integers(name, dtype)


def _set_up_autoguides(
    fn: Callable,
    inputs: Inputs,
    num_rows: int | None,
    data_plates: Sequence[str],
    seed: int | Array,
) -> None:
    # An autoguide keeps the arrays of its first call, so that call must not be an abstract one.
    found = autoguides(fn)
    if any(guide.prototype_trace is None for guide in found):
        key = random.fold_in(as_key(seed), 1)
        abstract = any(
            isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(inputs.data)
        )
        models = {guide: guide.model for guide in found}
        if abstract:  # a fit from a file: shapes without values
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs.data)
            inputs = inputs._replace(data=zeros)
            for guide, model in models.items():
                guide.model = observe_draws(model)
        try:
            with trace(), split_seed(shared=key, local=key, stand_in=True):
                execute(fn, inputs, "guide")
        finally:
            for guide, model in models.items():
                guide.model = model
    for guide in found:
        for name, frame in guide._prototype_frames.items():
            if name in data_plates and frame.size != num_rows:
                raise ValueError(
                    f"the guide was set up for {frame.size} rows of plate '{name}' and is now "
                    f"given {num_rows}: it has parameters for each row. Make a new "
                    f"{type(guide).__name__}(model), or use an amortised guide."
                )


def _read_cut(
    fn: Callable,
    inputs: Inputs,
    role: str,
    num_rows: int | None,
    batch_size: int | None,
    data_plates: tuple[str, ...],
) -> tuple[Reading | None, int]:
    if num_rows is None:
        return None, 0
    asked = batch_size is not None and batch_size < num_rows
    rows = batch_size if asked and batch_size else num_rows - 1 if num_rows > 1 else 2
    small = inputs._replace(
        data=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) if x.ndim else x,
            inputs.data,
        )
    )

    def handler(run: Callable) -> Callable:
        index = jnp.arange(rows)
        return minibatch(run, rows=index, num_rows=num_rows, data_plates=data_plates)

    try:
        return read_once(fn, small, role, handler), rows
    except Exception as error:
        if not asked:
            return None, 0  # a program of fixed size: nothing of it follows the rows
        raise ValueError(
            f"batch_size={batch_size}: the {role} runs on {num_rows} rows but not on {rows}: "
            f"{error} Write its sizes as len(x), and pass arrays with a row per datum as data."
        ) from error


def _stands_in(site: Site, plates: Sequence[str]) -> bool:
    return bool(set(site.plates) & set(plates))


def _following(
    full: Reading, cut: Reading | None, num_rows: int | None, rows: int
) -> tuple[str, ...]:
    if cut is None:
        return ()
    follows = []
    for name, (_, size, sub) in full.plates.items():
        small = cut.plates.get(name)
        if small is None or size != num_rows or sub not in (None, size):
            continue
        if small[1] == rows or small[1:] == (num_rows, rows):
            follows.append(name)
    return tuple(follows)


def _tables(full: Reading, cut: Reading | None) -> dict[str, int]:
    tables = {}
    for name, value in full.params.items():
        small = None if cut is None else cut.params.get(name)
        if isinstance(value, jax.ShapeDtypeStruct) and isinstance(small, jax.ShapeDtypeStruct):
            axes = [
                i for i, (a, b) in enumerate(zip(value.shape, small.shape, strict=False)) if a != b
            ]
            if axes:
                tables[name] = axes[0]
    return tables


def _outside(
    fn: Callable,
    inputs: Inputs,
    role: str,
    full: Reading,
    cut: Reading,
    follows: Sequence[str],
    tables: Sequence[str],
) -> tuple[str, ...]:
    sites = {n: s for n, s in full.sites.items() if s.role != "deterministic"}
    free = [name for name, site in sites.items() if not _stands_in(site, follows)]
    changed = [n for n in free if n in cut.sites and cut.sites[n].shape != sites[n].shape]
    if len(changed) == len(free):
        return tuple(changed)
    local = {
        name: jax.ShapeDtypeStruct(site.shape, full.dtypes[name])
        for name, site in sites.items()
        if site.role == "latent" and _stands_in(site, follows)
    }
    rest = {name: full.params[name] for name in tables}

    def densities(data: tuple, rows: dict[str, Any]) -> dict[str, Any]:
        key = random.key(0)
        with trace() as seen, split_seed(shared=key, local=key, stand_in=True):
            substitute(lambda: execute(fn, inputs._replace(data=data), role), data=rows)()
        return {name: (site_log_prob(seen[name]), seen[name]["value"]) for name in free}

    needed = eval_provenance(densities, data=inputs.data, rows={**local, **rest})
    return tuple(n for n in free if n in changed or any(jax.tree.leaves(needed[n])))


def _transforms(fn: Callable, inputs: Inputs, role: str, full: Reading) -> dict[str, Any]:
    found = {n: c for n, c in full.constraints.items() if n in full.params}
    leaves = jax.tree.leaves(list(found.values()))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        concrete = read_once(fn, inputs, role, abstract=False)
        found = {name: concrete.constraints[name] for name in found}
    return {name: biject_to(c) for name, c in found.items() if c is not constraints.real}


def _check_params(program: Program, params: Mapping[str, Any]) -> None:
    for name, expected in program.params.items():
        if name not in params:
            continue
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (params[name], expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"parameter '{name}' has shape {shapes[0]}, but the {program.role} on this data "
                f"needs {shapes[1]}. Pass the parameters of this model and data."
            )
