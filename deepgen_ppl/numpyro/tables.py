"""The factor graph of a program: the terms of its log density, element by element, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float, Int
from numpyro.ops.provenance import eval_provenance

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.exact_subjects import check_integrated
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import Kept, compiled, structure_of
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import values_of
from deepgen_ppl.numpyro.fingerprint import fingerprint
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.terms import unmasked
from deepgen_ppl.tabulation import Tabulation, Term, tabulate, unobserved_name

_MOST_NUMBERS = 1 << 24
_FEW_NUMBERS = 1 << 20
"""Terms at all states up to which compiling fast counts for more than fast code."""

TABULATIONS: Kept[tuple[list[Term], Tabulation]] = Kept()
"""What was read of programs, at the shapes at which it was."""

_MOST_KEPT = 4
"""Readings that are kept of one program."""


class Tables:
    """The terms of a program at its discrete latents, and how they are tabulated.

    Args:
        program: a model whose discrete latents have finite supports.
        coordinates: its discrete latents.
        params: constrained parameters and mutable state.
        inputs: inputs at all rows.
        held: values of its continuous latents.
        integrated: sites among these whose own density integrates to one and is left out.
        fixed: whether parameters and held values stay as they are.

    Raises:
        ValueError: something else depends on one of `integrated`.

    Attributes:
        terms: what each site contributes.
        tabulation: how the tables are found.
    """

    def __init__(
        self,
        program: Program,
        coordinates: Coordinates,
        params: Mapping[str, Any],
        inputs: Inputs,
        held: Mapping[str, Array],
        integrated: Sequence[str] = (),
        fixed: bool = True,
    ) -> None:
        self.program, self.coordinates, self.integrated = program, coordinates, integrated
        self.args = (dict(params), inputs, dict(held))
        self._width = 0
        kept = TABULATIONS.of(program.fn)
        own = (coordinates.key, tuple(integrated), fixed)
        key = (fingerprint(program.fn), structure_of(self.args), own)
        if key in kept:
            self.terms, self.tabulation = kept[key]
            if self.tabulation.holds(self.evaluate):  # what is touched may depend on data
                return
        self.terms = self._read()
        plates = {name: program.sites[name].plates for name in coordinates.places}
        self.tabulation = tabulate(coordinates, plates, self.terms, self.evaluate, fixed=fixed)
        kept[key] = self.terms, self.tabulation
        for old in list(kept)[:-_MOST_KEPT]:
            del kept[old]

    def evaluate(self, x: Int[np.ndarray, "P D"]) -> Float[np.ndarray, "P T"]:
        """Return the terms at some coordinates, on the host."""
        num_terms = max(sum(term.size for term in self.terms), 1)
        width = self._width or min(max(len(x), 32), max(_MOST_NUMBERS // num_terms, 1))
        self._width = width

        def batch(args: Any, x: Array) -> Array:
            return jax.vmap(partial(self.at, args))(x)

        found = []
        for first in range(0, len(x), width):
            rows = np.minimum(np.arange(first, first + width), len(x) - 1)
            call = (self.args, jnp.asarray(x[rows].astype(np.int32)))
            static = (self.coordinates.key, tuple(self.integrated), width)
            once = num_terms * width < _FEW_NUMBERS
            run = compiled(self.program.fn, "tables", batch, *call, static=static, once=once)
            found.append(np.asarray(run(*call), float)[: len(x) - first])
        return np.concatenate(found)

    def at(self, args: Any, x: Int[Array, " D"]) -> Float[Array, " T"]:
        """Return the terms at the coordinates; parameters and inputs may be traced."""
        params, inputs, held = args
        values = {**params, **held, **values_of(self.coordinates, x)}
        found = element_log_probs(program_.run(self.program, inputs, values, random.key(0)))
        return jnp.concatenate([jnp.ravel(found[term.name]) for term in self.terms])

    def _read(self) -> list[Term]:
        params, inputs, held = self.args
        values = values_of(self.coordinates, jnp.zeros(self.coordinates.size, jnp.int32))

        def densities(**values: Array) -> dict[str, Array]:
            given = {**params, **held, **values}
            return element_log_probs(program_.run(self.program, inputs, given, random.key(0)))

        followed = {**values, **{name: held[name] for name in self.integrated}}
        shapes = jax.eval_shape(densities, **followed)
        seen = eval_provenance(densities, **followed)
        check_integrated(self.integrated, seen)
        terms, start = [], 0
        for name, shape in shapes.items():
            if name in self.integrated:
                continue
            depends = tuple(site for site in values if site in seen[name])
            term = Term(name, start, shape.shape, self.program.sites[name].plates, depends)
            terms.append(term)
            start += term.size
        return terms


def element_log_probs(seen: Mapping[str, Any]) -> dict[str, Array]:
    """Return the log density of each sample site, element by element where elements are apart.

    Independent dimensions are not summed. The missing elements that `obs_mask` makes a latent site
    of keep their density, and those that are observed take the observed value.

    Args:
        seen: the trace of a run.
    """
    found = {}
    for name, msg in seen.items():
        if msg["type"] != "sample":
            continue
        whole = unobserved_name(name, seen)
        fn = msg["fn"] if whole is None else unmasked(msg["fn"])
        log_prob = _elements(fn, msg["value"], msg["intermediates"])
        if whole is not None:
            log_prob = _pinned(log_prob, msg, seen[f"{whole}_observed"])
        if msg["scale"] is not None:
            scale = jnp.asarray(msg["scale"])
            extra = log_prob.ndim - len(fn.batch_shape)
            log_prob = log_prob * scale.reshape(*scale.shape, *(1,) * (extra if scale.ndim else 0))
        found[name] = log_prob
    return found


def _elements(fn: Any, value: Array, intermediates: Any) -> Array:
    if intermediates:
        return jnp.asarray(fn.log_prob(value, intermediates))
    if isinstance(fn, dist.Independent):
        return _elements(fn.base_dist, value, None)
    if isinstance(fn, dist.MaskedDistribution):
        if fn._mask is False:
            return jnp.asarray(fn.log_prob(value))
        inner = _elements(fn.base_dist, value, None)
        mask = jnp.broadcast_to(jnp.asarray(fn._mask), fn.batch_shape)
        mask = mask.reshape(*mask.shape, *(1,) * (inner.ndim - mask.ndim))
        return jnp.where(mask, inner, 0.0)
    return jnp.asarray(fn.log_prob(value))


def _pinned(log_prob: Array, missing: dict, observed: dict) -> Array:
    """Let the elements that are observed take the observed value alone."""
    fn = observed["fn"]
    while not isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    same = missing["value"] == observed["value"]
    for _ in range(jnp.ndim(same) - log_prob.ndim):
        same = jnp.all(same, axis=-1)
    mask = jnp.asarray(fn._mask)
    mask = mask.reshape(*mask.shape, *(1,) * (log_prob.ndim - mask.ndim if mask.ndim else 0))
    return jnp.where(mask, jnp.where(same, 0.0, -jnp.inf), log_prob)
