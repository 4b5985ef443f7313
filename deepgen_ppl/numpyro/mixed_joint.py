"""Both ends of a mixed path at one position: a reference and the joint density, term by term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int
from numpyro.distributions import biject_to
from numpyro.handlers import substitute

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.joint import Layout, is_jacobian, place, unconstrained
from deepgen_ppl.numpyro.messages import is_delta
from deepgen_ppl.numpyro.program import run
from deepgen_ppl.numpyro.structure import Pair, site_log_prob
from deepgen_ppl.numpyro.terms import normalised


@dataclass(frozen=True, eq=False)
class MixedJoint:
    """Terms of the log densities of reference and joint over discrete and continuous coordinates.

    A position holds the unconstrained value of each random continuous site of the reference (of the
    guide where there is one, else of the model) and, after them, the numbers of the values of the
    model's discrete latents.

    Attributes:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters and mutable state; they may be traced.
        inputs: Inputs at all rows; they may be traced.
        rows: Name of the data plate where positions are those of each row, else None.
        layout: Where each continuous site's unconstrained value stands in a position.
        coordinates: The discrete latents, of one row where positions are by rows.
        index: The rows that are looked at, None for all.
    """

    pair: Pair
    params: Mapping[str, Any]
    inputs: Inputs
    rows: str | None
    layout: Layout
    coordinates: Coordinates
    index: Int[Array, " B"] | None = None

    @property
    def num_free(self) -> int:
        """Number of continuous coordinates, which come first."""
        return self.layout.size

    @property
    def sites(self) -> list[str]:
        """The latent sites whose values make a position."""
        return list(self.pair.model.latents)

    @property
    def row_axes(self) -> dict[str, int]:
        """Axis of the rows in the value of each of these sites, empty where it is not by rows."""
        sites = self.pair.model.sites
        return {n: sites[n].plates.index(self.rows) for n in self.sites} if self.rows else {}

    def draw(self, key: Array) -> Float[Array, "*row D"]:
        """Return one position drawn from the reference.

        Args:
            key: Random key.
        """
        key, own = random.split(key)
        pair, values, free = self.pair, dict(self.params), {}
        if pair.guide is not None:
            seen = run(pair.guide, self.inputs, values, own, rows=self.index)
            free = unconstrained(seen)
            values |= {n: seen[n]["value"] for n in pair.model.latents if n in seen}
        seen = run(pair.model, self.inputs, values, key, rows=self.index)
        free = free if pair.guide is not None else unconstrained(seen)
        return self.join(free, {n: seen[n]["value"] for n in self.coordinates.places})

    def terms(
        self, free: Float[Array, "*row C"], x: Int[Array, "*row X"]
    ) -> tuple[Float[Array, "*row T"], Float[Array, "*row T"]]:
        """Return the terms of reference and target at a position.

        Args:
            free: Its continuous coordinates.
            x: Its discrete ones.
        """
        model, reference, target = self.pair.model, [], []
        *before, seen = self._seen(free, x)
        drawn: set[str] = set()
        for name, msg in before[0].items() if before else ():
            if msg["type"] != "sample" or (msg["is_observed"] and not is_jacobian(name)):
                continue
            drawn.add(name)
            (bare,) = normalised({name: msg}).values()
            log_prob = self._flat(bare)
            zero = jnp.zeros_like(log_prob)
            made = is_delta(msg["fn"])  # from auxiliary sites, by a map whose Jacobian it carries
            reference.append(zero if made else log_prob)
            target.append(-log_prob if made else log_prob if is_jacobian(name) else zero)
        for name, msg in seen.items():
            if msg["type"] != "sample":
                continue
            own = is_jacobian(name) or (name in model.latents and name not in drawn)
            # What latents are drawn from knows no mask and no scale.
            log_prob = self._flat(normalised({name: msg})[name] if own else msg)
            reference.append(log_prob if own else jnp.zeros_like(log_prob))
            target.append(log_prob)
        return jnp.concatenate(reference, axis=-1), jnp.concatenate(target, axis=-1)

    def values(self, z: Float[Array, "*row D"]) -> dict[str, Array]:
        """Return the values of the model's latent sites at a position.

        Deterministic sites are added where positions are not by rows.

        Args:
            z: The position.
        """
        found, kinds = {}, () if self.rows else ("deterministic",)
        for seen in self._seen(*self.split(z)):
            found |= {n: m["value"] for n, m in seen.items() if n in self.pair.model.latents}
            found |= {n: m["value"] for n, m in seen.items() if m["type"] in kinds}
        return found

    def position(self, values: Mapping[str, Array]) -> Float[Array, "*row D"]:
        """Return the position of values of all latent sites: the inverse of `values`."""
        program = self.pair.guide or self.pair.model
        given = {**self.params, **values}
        seen = run(program, self.inputs, given, random.key(0), rows=self.index)
        free = {n: biject_to(seen[n]["fn"].support).inv(seen[n]["value"])
                for n in self.layout.shapes}  # fmt: skip
        return self.join(free, values)

    def log_probs(self, z: Float[Array, "*row D"]) -> dict[str, Array]:
        """Return the log density of each site of the model at a position."""
        *_, seen = self._seen(*self.split(z))
        return {n: site_log_prob(m) for n, m in seen.items() if m["type"] == "sample"}

    def split(self, z: Float[Array, "*row D"]) -> tuple[Array, Array]:
        """Return the continuous and the discrete coordinates of a position."""
        x = jax.lax.stop_gradient(z[..., self.num_free :]).astype(jnp.int32)
        return z[..., : self.num_free], x

    # ----------------------------------------------------------------------------- helpers

    def join(self, free: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
        """Return the position of unconstrained continuous sites and values of discrete ones."""
        parts = [self.layout.join(free)] if self.num_free else []
        for name, found in self.coordinates.places.items():
            axis, support = self.row_axes.get(name), jnp.asarray(found.support)
            value = values[name] if axis is None else jnp.moveaxis(values[name], axis, 0)
            lead = () if axis is None else value.shape[:1]
            value = value.reshape(*lead, found.size, 1, *support.shape[2:])
            same = (value == support).reshape(*lead, found.size, support.shape[1], -1).all(-1)
            parts.append(same.argmax(-1).astype(jnp.result_type(float)))
        return jnp.concatenate(parts, axis=-1)

    def _held(self, x: Int[Array, "*row X"]) -> dict[str, Array]:
        """Return the values of discrete sites."""
        found = {}
        for name, spot in self.coordinates.places.items():
            part, support = x[..., spot.start : spot.start + spot.size], jnp.asarray(spot.support)
            row = jnp.arange(spot.size) if len(support) > 1 else 0
            value = support[row, part].reshape(*x.shape[:-1], *spot.shape, *support.shape[2:])
            axis = self.row_axes.get(name)
            found[name] = value if axis is None else jnp.moveaxis(value, 0, axis)
        return found

    def _seen(self, free: Array, x: Array) -> Iterator[dict[str, Any]]:
        """Run guide, where there is one, and model at a point."""
        u = self.layout.split(free) if self.num_free else {}
        values = {**self.params, **self._held(x)}
        for program in self.pair.programs[::-1]:
            fn = program.fn
            if program is (self.pair.guide or self.pair.model):
                fn = substitute(fn, substitute_fn=partial(place, u))
            placed, key = replace(program, fn=fn), random.key(0)
            seen = run(placed, self.inputs, values, key, rows=self.index, stopped=False)
            values |= {n: seen[n]["value"] for n in self.pair.model.latents if n in seen}
            yield seen

    def _flat(self, msg: dict[str, Any]) -> Float[Array, "*row T"]:
        """Return the terms of a site, by rows where the path is."""
        log_prob = site_log_prob(msg)
        if self.rows is None:
            return jnp.ravel(log_prob)
        plates = self.pair.data_plates
        (dim,) = (f.dim for f in msg["cond_indep_stack"] if f.name in plates)
        return jnp.moveaxis(log_prob, dim, 0).reshape(log_prob.shape[dim], -1)
