"""Both ends of a path at one unconstrained point: a reference and the joint density."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int
from numpyro.distributions import biject_to
from numpyro.distributions.util import sum_rightmost
from numpyro.handlers import block, substitute
from numpyro.infer.autoguide import AutoContinuous

from deepgen_ppl import checks
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.messages import is_delta
from deepgen_ppl.numpyro.program import run, sum_terms
from deepgen_ppl.numpyro.structure import Pair, Program, Site, autoguides, site_log_prob
from deepgen_ppl.numpyro.terms import normalised
from deepgen_ppl.numpyro.unconstrained import Potential, row_axis

_JACOBIAN = "_log_det_of_place"


@dataclass(frozen=True, eq=False)
class Joint:
    """Log densities of a reference and of the joint density at one unconstrained point.

    A point has the unconstrained value of each random continuous site of the reference: of the
    guide where there is one, which may draw auxiliary sites, else of the model.

    Attributes:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters and mutable state; they may be traced.
        inputs: Inputs at all rows; they may be traced.
        by_rows: Whether densities are those of each row, which must not touch each other.
        index: The rows that are looked at, None for all.
    """

    pair: Pair
    params: Mapping[str, Any]
    inputs: Inputs
    by_rows: bool
    index: Int[Array, " B"] | None = None

    @property
    def reference(self) -> Program:
        """The program that is drawn from."""
        return self.pair.guide or self.pair.model

    @property
    def summed(self) -> bool:
        """Whether discrete latents are summed out."""
        return any(site.is_discrete for site in self.pair.model.latents.values())

    def layout(self) -> Layout:
        """Return where each site of a point stands in a vector."""
        program = self.reference

        def draw(params: Any, inputs: Inputs) -> dict[str, Array]:
            return unconstrained(run(program, inputs, params, random.key(0)))

        shapes, axes = {}, {}
        for name, value in jax.eval_shape(draw, self.params, self.inputs).items():
            axes[name] = row_axis(program, program.sites[name]) if self.by_rows else None
            shapes[name] = tuple(size for i, size in enumerate(value.shape) if i != axes[name])
        return Layout(shapes, axes)

    def draw(self, key: Array) -> dict[str, Array]:
        """Return one point drawn from the reference."""
        return unconstrained(run(self.reference, self.inputs, self.params, key, rows=self.index))

    def log_densities(self, u: dict[str, Array]) -> tuple[Array, Array]:
        """Return those of the reference and of the joint, Jacobians included."""
        if self.pair.guide is not None:
            return self._from_guide(u)
        if self.summed and self.by_rows:
            return self._alone(Joint._summed_prior, u)
        return self._summed_prior(u) if self.summed else self._from_prior(u)

    def values(self, u: dict[str, Array]) -> dict[str, Array]:
        """Return the values of the model's continuous latents at a point.

        Deterministic sites are added where nothing is summed out and rows are not apart.
        """
        seen = self._seen(self.reference, u)
        found = {n: seen[n]["value"] for n in self._continuous}
        if self.summed or self.by_rows:
            return found
        seen = run(self.pair.model, self.inputs, {**self.params, **found}, random.key(0))
        fixed = {n: m["value"] for n, m in seen.items() if m["type"] == "deterministic"}
        return {**found, **fixed}

    def point(self, values: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
        """Return the point at which the model's continuous latents have these values.

        Args:
            values: value of each of them.
            names: sites of a point.

        Raises:
            ValueError: the guide makes them from auxiliary sites in a way that is not known.
        """
        guide = self.pair.guide
        absent = [name for name in names if name not in values]
        given = {**self.params, **values}
        if guide is None or not absent:
            return unconstrained(run(self.reference, self.inputs, given, random.key(0),
                                     rows=self.index))  # fmt: skip
        auto = [g for g in autoguides(guide.fn) if isinstance(g, AutoContinuous)]
        if not auto or absent != [f"_{auto[0].prefix}_latent"]:
            raise ValueError(
                f"the guide draws {checks.quote(absent)}, from which the model's sites are made, "
                "and the way back is not known. Use another guide, or None."
            )
        # The one latent vector of such a guide is the model's sites, unconstrained, in order.
        seen = run(self.pair.model, self.inputs, given, random.key(0))
        return {absent[0]: ravel_pytree({n: unconstrained(seen)[n] for n in self._continuous})[0]}

    def site_log_probs(self, u: dict[str, Array]) -> dict[str, Array]:
        """Return the log density of each site of the model; discrete sites are drawn."""
        seen = self._seen(self.reference, u)
        values = {n: seen[n]["value"] for n in self._continuous}
        given = {**self.params, **values}
        seen = run(self.pair.model, self.inputs, given, random.key(0), rows=self.index)
        return {n: site_log_prob(m) for n, m in seen.items() if m["type"] == "sample"}

    # ----------------------------------------------------------------------------- helpers

    @property
    def _continuous(self) -> list[str]:
        return [name for name, site in self.pair.model.latents.items() if not site.is_discrete]

    def _seen(self, program: Program, u: Mapping[str, Array]) -> dict[str, Any]:
        placed = replace(program, fn=substitute(program.fn, substitute_fn=partial(place, u)))
        seen = run(placed, self.inputs, self.params, random.key(0), rows=self.index, stopped=False)
        return {n: m for n, m in seen.items() if m["type"] == "sample"}

    def _sum(self, sites: Mapping[str, Any]) -> Array:
        size = self.inputs.num_rows if self.index is None else self.index.shape[0]
        terms = sum_terms(sites, self.reference, max(size, 1))
        return terms.rows if self.by_rows else terms.shared + jnp.sum(terms.rows)

    def _from_prior(self, u: dict[str, Array]) -> tuple[Array, Array]:
        seen = self._seen(self.pair.model, u)
        prior = {n: m for n, m in seen.items() if n in self.pair.model.latents or is_jacobian(n)}
        reference = self._sum(normalised(prior))
        return reference, reference + self._sum({n: m for n, m in seen.items() if n not in prior})

    def _from_guide(self, u: dict[str, Array]) -> tuple[Array, Array]:
        seen = self._seen(self.reference, u)
        drawn = {n: m for n, m in seen.items() if not m["is_observed"] or is_jacobian(n)}
        drawn = normalised(drawn)
        made = {n: m for n, m in drawn.items() if is_delta(m["fn"])}  # from auxiliary sites
        own = {n: m for n, m in drawn.items() if n not in made}
        jacobian = self._sum({n: m for n, m in own.items() if is_jacobian(n)}) - self._sum(made)
        values = {n: seen[n]["value"] for n in self.pair.model.latents if n in seen}
        return self._sum(own), self._joint(values) + jacobian

    def _joint(self, values: Mapping[str, Array]) -> Array:
        if self.summed and self.by_rows:
            return self._alone(Joint._joint, values)
        model, given = self.pair.model, {**self.params, **values}
        seen = run(model, self.inputs, given, random.key(0), rows=self.index, stopped=False)
        sites = {n: m for n, m in seen.items() if m["type"] == "sample"}
        if not self.summed:
            return self._sum(sites)
        u = {n: v for n, v in unconstrained(sites).items() if n in values}
        jacobian = jnp.zeros(())
        for name, value in u.items():
            transform = biject_to(sites[name]["fn"].support)
            log_det = transform.log_abs_det_jacobian(value, transform(value))
            jacobian = jacobian + jnp.sum(log_det)
        return -Potential(model, self.params, self.inputs).energy(u) - jacobian

    def _summed_prior(self, u: dict[str, Array]) -> tuple[Array, Array]:
        model = self.pair.model
        prior = replace(model, fn=block(model.fn, hide=[*model.observed, *model.factors]))
        reference, target = (
            -Potential(program, self.params, self.inputs).energy(u) for program in (prior, model)
        )
        return reference, target

    def _alone(self, fn: Callable[[Joint, Any], Any], values: Mapping[str, Array]) -> Any:
        """Apply a function to each row: rows do not touch each other, so each sums out its own."""
        model, whole = self.pair.model, jnp.arange(self.inputs.num_rows)
        index = whole if self.index is None else self.index
        axes = {name: row_axis(model, model.sites[name]) for name in values}

        def one(at: Array, row: Array) -> Any:
            params = {n: jnp.take(v, row[None], axis=model.tables[n]) if n in model.tables else v
                      for n, v in self.params.items()}  # fmt: skip
            joint = Joint(self.pair, params, self.inputs.gather(row[None]), False)
            return fn(joint, {n: jnp.take(v, at[None], axis=axes[n]) for n, v in values.items()})

        return jax.vmap(one)(jnp.arange(index.shape[0]), index)


class Layout(NamedTuple):
    """Unconstrained sites as one vector, or as one for each row.

    Attributes:
        shapes: shape of each site, without the axis of the rows where there is one.
        axes: axis of the rows in each site; None where they are all one vector.
    """

    shapes: dict[str, tuple[int, ...]]
    axes: dict[str, int | None]

    @property
    def size(self) -> int:
        """Length of a vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def join(self, sites: Mapping[str, Array]) -> Float[Array, "*rows size"]:
        """Return the sites' values as vectors."""
        parts = []
        for name, axis in self.axes.items():
            lead = () if axis is None else (sites[name].shape[axis],)
            value = sites[name] if axis is None else jnp.moveaxis(sites[name], axis, 0)
            parts.append(value.reshape(*lead, -1))
        return jnp.concatenate(parts, axis=-1)

    def split(self, z: Float[Array, "*rows size"]) -> dict[str, Array]:
        """Return the vectors as sites."""
        sites, start = {}, 0
        for name, shape in self.shapes.items():
            part = z[..., start : start + math.prod(shape)].reshape(*z.shape[:-1], *shape)
            axis = self.axes[name]
            sites[name] = part if axis is None else jnp.moveaxis(part, 0, axis)
            start += math.prod(shape)
        return sites


def place(u: Mapping[str, Array], msg: dict[str, Any]) -> Array | None:
    """Return a site's value at an unconstrained one, noting the Jacobian as a factor beside it.

    For `substitute(fn, substitute_fn=partial(place, u))`.

    Args:
        u: unconstrained values by site.
        msg: the site.
    """
    name = msg["name"]
    if msg["type"] != "sample" or name not in u:
        return None
    value, transform = u[name], biject_to(msg["fn"].support)
    step = msg["infer"].get("_scan_current_index")
    shift = transform.codomain.event_dim - transform.domain.event_dim
    if step is not None and jnp.ndim(value) > len(msg["fn"].shape()) - shift:
        value = value[step]
    constrained = transform(value)
    log_det = transform.log_abs_det_jacobian(value, constrained)
    extra = jnp.ndim(log_det) - jnp.ndim(constrained) + len(msg["fn"].event_shape)
    numpyro.factor(f"_{name}{_JACOBIAN}", sum_rightmost(log_det, extra))
    return constrained


def is_jacobian(name: str) -> bool:
    """Tell whether a site is a Jacobian that `place` noted."""
    return name.endswith(_JACOBIAN)


def unconstrained(seen: Mapping[str, Any]) -> dict[str, Array]:
    """Return the unconstrained values of the random continuous sites of a trace."""
    found = {}
    for name, msg in seen.items():
        if msg["type"] != "sample" or msg["is_observed"] or is_delta(msg["fn"]):
            continue
        if msg["fn"].support is not None and not msg["fn"].support.is_discrete:
            found[name] = biject_to(msg["fn"].support).inv(msg["value"])
    return found


def differing_supports(
    model: Program, guide: Program, names: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Return the supports in model and guide of the sites where they are not the same set.

    Values spread over either support have to lie in the other; supports that depend on other sites
    are not compared.

    Args:
        model: the model.
        guide: the guide.
        names: sites of the guide.
    """
    differing = {}
    for name in names:
        own, other = guide.sites[name], model.sites.get(name)
        if other is None or own.support is None or other.support is None:
            continue
        if not (_covers(own.support, other) and _covers(other.support, own)):
            differing[name] = (str(other.support), str(own.support))
    return differing


def _covers(support: Any, site: Site) -> bool:
    transform = biject_to(site.support)
    u = 3.0 * random.normal(random.key(0), (16, *transform.inverse_shape(site.shape)))
    return bool(jnp.all(support(transform(u))))
