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
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval
from jaxtyping import Float, Int
from numpyro.ops.provenance import track_deps_jaxpr

from deepgen_ppl.blocks import differ
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.exact_subjects import check_integrated
from deepgen_ppl.kept import Kept
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import compiled, structure_of
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import values_of
from deepgen_ppl.numpyro.fingerprint import fingerprint, surroundings
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.terms import unmasked
from deepgen_ppl.readings import Found, Reading, digests
from deepgen_ppl.scopes import Differs, Evaluate, compare
from deepgen_ppl.tabulation import Tabulation, Term, tabulate, unobserved_name

_MOST_NUMBERS = 1 << 24
_FEW_NUMBERS = 1 << 20
"""Terms at all states up to which compiling fast counts for more than fast code."""

READINGS: Kept[Reading] = Kept()
"""What was read of programs, at the shapes at which it was."""

_TRACED: Kept[Any] = Kept()
"""Programs of many sites as they were traced, beside their readings."""

_MOST_FOLLOWED = 64
"""Sites up to which it is followed which arguments each of them uses."""

_MANY_SITES = 100
"""Sites from which compiling takes as long as many runs that are not compiled."""

_MOST_PLAIN = 16
"""Runs of one program, of one shape, after which it is compiled all the same."""

_RUNS: Kept[int] = Kept()
"""How many such runs there were."""

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
        self.terms: list[Term] = []
        self._width = 0
        self._runs = _RUNS.of(program.fn)
        self._contents = digests(map(_content, jax.tree.leaves(self.args)))
        kept, traced = READINGS.of(program.fn), _TRACED.of(program.fn)
        own = (coordinates.key, tuple(integrated), fixed, surroundings())
        key = (fingerprint(program.fn), structure_of(self.args), own)
        self._traced: Any = None
        if key in kept:
            self._reading, self._traced = kept[key], traced.get(key)
            self.terms = self._reading.terms
            if self._reading.holds(self.evaluate, self._only, self._contents, self._differs):
                return
        self.terms, uses = self._read()
        plates = {name: program.sites[name].plates for name in coordinates.places}
        found = tabulate(coordinates, plates, self.terms, self.evaluate, fixed=fixed)
        self._reading = kept[key] = Reading(self.terms, found, uses, self._contents)
        traced[key] = self._traced
        for old in list(kept)[:-_MOST_KEPT]:
            del kept[old]
            traced.pop(old, None)

    @property
    def tabulation(self) -> Tabulation:
        """How the tables are found."""
        return self._reading.tabulation

    def tables(self) -> Found:
        """Return the tables of all pieces, and the constant terms."""
        return self._reading.tables(self.evaluate, self._only, self._contents)

    def evaluate(self, x: Int[np.ndarray, "P D"]) -> Float[np.ndarray, "P T"]:
        """Return the terms at some coordinates, on the host."""
        num_terms = max(sum(term.size for term in self.terms), 1)
        width = self._width or min(max(len(x), 32), max(_MOST_NUMBERS // num_terms, 1))
        self._width = width
        once = num_terms * width < _FEW_NUMBERS
        return self._evaluated(x, self.terms, width, once)

    def _only(self, terms: Sequence[Term]) -> Evaluate:
        """Return what evaluates some terms alone."""
        most = max(_MOST_NUMBERS // max(sum(term.size for term in terms), 1), 1)
        return lambda x: self._evaluated(x, terms, min(len(x), most), False)

    def _evaluated(
        self, x: Int[np.ndarray, "P D"], terms: Sequence[Term], width: int, once: bool
    ) -> Float[np.ndarray, "P T"]:
        names = tuple(term.name for term in terms)

        static = (self.coordinates.key, tuple(self.integrated), width, names)
        if len(names) > _MANY_SITES and self._runs.get(static, 0) < _MOST_PLAIN:
            self._runs[static] = self._runs.get(static, 0) + 1
            return self._plainly(x, names)

        def batch(args: Any, x: Array) -> Array:
            return jax.vmap(partial(self.at, args, names=names))(x)

        found = []
        for first in range(0, len(x), width):
            rows = np.minimum(np.arange(first, first + width), len(x) - 1)
            call = (self.args, jnp.asarray(x[rows].astype(np.int32, copy=False)))
            run = compiled(self.program.fn, "tables", batch, *call, static=static, once=once)
            found.append(np.asarray(run(*call))[: len(x) - first])
        return np.concatenate(found)

    def _plainly(self, x: Int[np.ndarray, "P D"], names: Sequence[str]) -> np.ndarray:
        """Return some terms by what was traced, one operation after the other."""
        run, leaves = jaxpr_as_fun(self._traced), jax.tree.leaves(self.args)
        values = {name: jnp.asarray(value) for name, value in _rows(self.coordinates, x).items()}
        seen = jax.vmap(lambda own: run(*jax.tree.leaves(own), *leaves))(values)
        found = dict(zip(sorted(term.name for term in self.terms), seen, strict=True))
        return np.concatenate([np.asarray(found[n]).reshape(len(x), -1) for n in names], 1)

    def _differs(self, terms: Sequence[Term]) -> Differs:
        """Return what tells whether some terms change, compared where they are computed."""
        names = tuple(term.name for term in terms)
        num_terms = max(sum(term.size for term in terms), 1)
        static = (self.coordinates.key, tuple(self.integrated), names)
        if len(names) > _MANY_SITES:
            evaluate = self._only(terms)
            return lambda *at: compare(evaluate, num_terms, *at)

        def some(args: Any, both: Array, still: list[Array]) -> Array:
            seen = jax.vmap(partial(self._named, args))(both)
            halves = [(seen[n][: len(still[0])], seen[n][len(still[0]) :]) for n in names]
            pairs = zip(halves, still, strict=True)
            return jnp.stack([jnp.any(differ(*half) & own) for half, own in pairs]).any()

        def run(both: np.ndarray, still: np.ndarray) -> bool:
            count = len(still)
            width = max(min(count, _MOST_NUMBERS // num_terms), 1)
            ends = np.cumsum([term.size for term in terms])[:-1]
            apart = [
                own.reshape(count, *term.shape)
                for own, term in zip(np.split(still, ends, 1), terms, strict=True)
            ]
            for first in range(0, count, width):
                at = slice(min(first, count - width), first + width)
                rows = [both] if width == count else [both[:count][at], both[count:][at]]
                call = (self.args, np.concatenate(rows), [own[at] for own in apart])
                if compiled(self.program.fn, "differs", some, *call, static=static)(*call):
                    return True
            return False

        return run

    def at(self, args: Any, x: Int[Array, " D"], names: Sequence[str]) -> Float[Array, " T"]:
        """Return some terms at the coordinates; parameters and inputs may be traced."""
        found = self._named(args, x)
        return jnp.concatenate([jnp.ravel(found[name]) for name in names])

    def _named(self, args: Any, x: Int[Array, " D"]) -> dict[str, Array]:
        params, inputs, held = args
        values = {**params, **held, **values_of(self.coordinates, x)}
        return element_log_probs(program_.run(self.program, inputs, values, random.key(0)))

    def _read(self) -> tuple[list[Term], dict[str, frozenset[int]]]:
        """Return what each site contributes, and which arguments it uses."""
        values = values_of(self.coordinates, jnp.zeros(self.coordinates.size, jnp.int32))

        shapes: dict[str, tuple[int, ...]] = {}

        def densities(values: dict[str, Array], args: Any) -> dict[str, Array]:
            params, inputs, held = args
            given = {**params, **held, **values}
            found = element_log_probs(program_.run(self.program, inputs, given, random.key(0)))
            shapes.update({name: log_prob.shape for name, log_prob in found.items()})
            return found

        closed = jax.make_jaxpr(densities)(values, self.args)
        origins = [{name: frozenset({name}) for name in values}]
        for tree in self.args[:2]:
            origins.append(jax.tree.map(lambda _: frozenset(), tree))
        origins.append({n: frozenset({n} & set(self.integrated)) for n in self.args[2]})
        depends = track_deps_jaxpr(closed.jaxpr, jax.tree.leaves(origins))
        seen = dict(
            zip(sorted(shapes), depends, strict=True)
        )  # a dict's leaves stand in this order
        check_integrated(self.integrated, seen)
        terms, start = [], 0
        for name, shape in shapes.items():
            if name in self.integrated:
                continue
            own = tuple(site for site in values if site in seen[name])
            term = Term(name, start, shape, self.program.sites[name].plates, own)
            terms.append(term)
            start += term.size
        kept = [name not in self.integrated for name in sorted(shapes)]
        if len(terms) > _MANY_SITES:
            needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, kept, instantiate=True)
            self._traced = ClosedJaxpr(needed, closed.consts)
        if len(terms) > _MOST_FOLLOWED:
            return terms, {}
        return terms, _uses(closed.jaxpr, len(values), sorted(shapes))


def _uses(jaxpr: Any, first: int, names: Sequence[str]) -> dict[str, frozenset[int]]:
    """Return the numbers of the leaves of the arguments that each density is computed from."""
    found = {}
    for number, name in enumerate(names):
        wanted = [i == number for i in range(len(names))]
        used = partial_eval.dce_jaxpr(jaxpr, wanted)[1]
        found[name] = frozenset(np.flatnonzero(used[first:]).tolist())
    return found


def _rows(coordinates: Coordinates, x: Int[np.ndarray, "P D"]) -> dict[str, np.ndarray]:
    """Return the values of each site at some coordinates."""
    found = {}
    for name, place in coordinates.places.items():
        part, support = x[:, place.start : place.start + place.size], place.support
        row = np.arange(place.size) if len(support) > 1 else 0
        found[name] = support[row, part].reshape(len(x), *place.shape, *support.shape[2:])
    return found


def _content(leaf: Any) -> np.ndarray:
    """Return an argument as an array of numbers."""
    if isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(random.key_data(leaf))
    return np.asarray(leaf)


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
