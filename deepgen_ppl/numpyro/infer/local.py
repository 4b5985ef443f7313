"""The log evidence of each datum given the shared sites, its own latents integrated out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.handlers import block

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.evaluate import over_draws
from deepgen_ppl.numpyro.probes import with_row
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.unconstrained import Potential, row_axis

_NUM_PARTICLES = 128
_DEGREES = 5.0
_WIDEN = 1.25


def log_evidence(
    program: Program,
    params: Mapping[str, Any],
    inputs: Inputs,
    draws: Mapping[str, Any],
    seed: int | Array = 0,
) -> dict[str, np.ndarray]:
    r"""Estimate \(\log p(x_i \mid \theta_s)\) of every datum at every draw.

    \[ \log p(x_i \mid \theta_s) \approx \log \frac1K \sum_k
       \frac{p(x_i, z_{ik} \mid \theta_s)}{q_i(z_{ik} \mid \theta_s)}, \qquad z_{ik} \sim q_i \]

    on the unconstrained space, where \(q_i\) is, half and half, the prior \(p(z_i \mid \theta_s)\)
    and a Student-t with 5 degrees of freedom, the mean of that datum's draws and their covariance
    widened; the Student-t alone where a prior is improper. It is exact when all local latents are
    discrete. Where rows share a local latent (a sum over all of them, say), or one's support
    depends on other sites, nothing can be integrated and the conditional log density of each
    observed site is returned, or nothing where discrete latents have no draws.

    Args:
        program: the model.
        params: constrained values of its parameters, and its mutable state.
        inputs: its inputs.
        draws: constrained draws of the latents, shape `(S, ...)`; discrete ones may be left out.
        seed: seed of the particles.

    Returns:
        One array `(S, N)`, named as the observed site (as the data plate if there are several).

    Cost:
        128 runs of the model for each draw, vectorised; one when all local latents are discrete.
    """
    continuous = {n: s for n, s in program.latents.items() if not s.is_discrete and n in draws}
    axes = {n: row_axis(program, s) for n, s in continuous.items()}
    local = {name: axis for name, axis in axes.items() if axis is not None}
    label = next(iter(program.observed)) if len(program.observed) == 1 else program.data_plates[0]
    args = (dict(params), inputs)
    fixed = all(site.support is not None for site in continuous.values())
    discrete = tuple(name for name, site in program.latents.items() if site.is_discrete)
    kept = {name: draws[name] for name in program.latents if name in draws}

    def unconstrained(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        sites = {name: program.sites[name].support for name in draw}
        return {n: biject_to(sites[n]).inv(value) for n, value in draw.items()}

    def exact(z: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        place = {name: value for name, value in z.items() if name in continuous}
        return {label: Potential(program, params, inputs).rows(place)}

    def conditional(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        found = program_.log_probs(program, params, draw, inputs)
        return {name: found[name] for name in program.observed}

    first = {name: draws[name][:1] for name in continuous}
    if not fixed or _coupled(program, args, first or {"draw number": np.zeros(1)}):
        complete = all(name in draws for name in program.latents)
        return over_draws(program.fn, "conditional", conditional, kept, args) if complete else {}
    z: dict[str, np.ndarray] = {"draw number": np.arange(len(next(iter(draws.values()))))}
    if continuous:
        z = {name: draws[name] for name in continuous}
        z = over_draws(program.fn, "unconstrained", unconstrained, z, args)
    if not local:
        return over_draws(program.fn, "log_likelihood", exact, z, args)
    proposal = StudentT.fit({name: z[name] for name in local}, local)
    layout = _Layout(
        {name: np.moveaxis(z[name], 1 + axis, 1).shape[2:] for name, axis in local.items()}, local
    )

    proper = not any(program.sites[name].improper for name in local)
    prior = replace(program, fn=block(program.fn, hide=[*program.observed, *program.factors]))

    def one(z: Any, key: Any, proposal: StudentT, params: Any, inputs: Inputs) -> dict[str, Array]:
        potential = Potential(program, params, inputs)
        shared = {name: value for name, value in z.items() if name not in local}
        values = potential.values(shared)

        def prior_draw(key: Array) -> Array:
            drawn = program_.simulate(program, params, inputs, key, values, redraw=())
            return layout.join(
                {n: biject_to(program.sites[n].support).inv(drawn[n]) for n in local}
            )

        def weigh(u: Float[Array, "N size"]) -> Float[Array, " N"]:
            point = {**shared, **layout.split(u)}
            here, jacobian = potential.values(point), potential.local_jacobian(point)
            log_p, log_q = potential.rows(point), proposal.log_prob(u)
            if not proper:
                return log_p - log_q
            log_prior, _ = program_.log_density(prior, params, here, inputs, enumerated=discrete)
            return log_p - jnp.logaddexp(log_prior + jacobian, log_q) + math.log(2)

        def several(key: Array) -> Array:
            first, second = random.split(key)
            drawn = [proposal.sample(second)] + ([prior_draw(first)] if proper else [])
            return jax.vmap(weigh)(jnp.stack(drawn))

        count = _NUM_PARTICLES // 2 if proper else _NUM_PARTICLES
        weights = jax.vmap(several)(random.split(key, count)).reshape(_NUM_PARTICLES, -1)
        return {label: logsumexp(weights, axis=0) - math.log(_NUM_PARTICLES)}

    args = (proposal, *args)
    return over_draws(program.fn, "log_evidence", one, z, args, seed, copies=_NUM_PARTICLES)


class _Layout(NamedTuple):
    """Local sites as one vector for each row."""

    shapes: dict[str, tuple[int, ...]]
    axes: dict[str, int]

    def join(self, sites: Mapping[str, Array]) -> Float[Array, "N size"]:
        """Return the sites' values, row by row."""
        moved = [jnp.moveaxis(sites[name], axis, 0) for name, axis in self.axes.items()]
        return jnp.concatenate([value.reshape(len(value), -1) for value in moved], axis=1)

    def split(self, u: Float[Array, "N size"]) -> dict[str, Array]:
        """Return the vectors as sites."""
        sites, start = {}, 0
        for name, shape in self.shapes.items():
            part = u[:, start : start + math.prod(shape)].reshape(len(u), *shape)
            sites[name] = jnp.moveaxis(part, 0, self.axes[name])
            start += math.prod(shape)
        return sites


class StudentT(NamedTuple):
    """A Student-t of each datum's local latents, all its sites in one vector."""

    loc: Float[Array, "N size"]
    root: Float[Array, "N size size"]

    @classmethod
    def fit(cls, z: Mapping[str, np.ndarray], axes: Mapping[str, int]) -> StudentT:
        """Fit to draws `(S, ...)` of each site; the covariance is shrunk towards its diagonal."""
        moved = [np.moveaxis(z[name], 1 + axis, 1) for name, axis in axes.items()]
        flat = np.concatenate([v.reshape(*v.shape[:2], -1) for v in moved], axis=-1)
        flat = flat.astype(np.float64)
        loc = flat.mean(0)
        centred, size = flat - loc, flat.shape[-1]
        covariance = np.einsum("snd,sne->nde", centred, centred) / max(len(flat) - 1, 1)
        diagonal = np.einsum("ndd->nd", covariance)
        keep = min(1.0, len(flat) / (len(flat) + 5.0 * size))
        spread = (1 - keep + 1e-4) * diagonal + 1e-8
        covariance = keep * covariance + spread[..., None] * np.eye(size)
        root = _WIDEN * np.linalg.cholesky(covariance)
        return cls(jnp.asarray(loc, float), jnp.asarray(root, float))

    def sample(self, key: Array) -> Float[Array, "N size"]:
        """Return one draw for each row."""
        first, second = random.split(key)
        normal = random.normal(first, self.loc.shape)
        chi = random.normal(second, (len(self.loc), int(_DEGREES)))
        t = normal * jnp.sqrt(_DEGREES / (chi**2).sum(-1, keepdims=True))
        return self.loc + jnp.einsum("nde,ne->nd", self.root, t)

    def log_prob(self, u: Float[Array, "N size"]) -> Float[Array, " N"]:
        """Return the log density of one point for each row."""
        size = u.shape[-1]
        solve = jax.vmap(lambda root, x: jax.scipy.linalg.solve_triangular(root, x, lower=True))
        t = solve(self.root, u - self.loc)
        norm = gammaln(0.5 * (_DEGREES + size)) - gammaln(0.5 * _DEGREES)
        norm = norm - 0.5 * size * math.log(_DEGREES * math.pi)
        norm = norm - jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1)).sum(-1)
        return norm - 0.5 * (_DEGREES + size) * jnp.log1p((t**2).sum(-1) / _DEGREES)


def _coupled(program: Program, args: Any, point: Mapping[str, np.ndarray]) -> bool:
    """Tell whether moving one row's latents changes another row's log density."""
    axes = {name: row_axis(program, site) for name, site in program.latents.items()}
    local = {name: axis for name, axis in axes.items() if axis is not None}

    def fn(point: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        middle = inputs.num_rows // 2
        shared = {name: v for name, v in point.items() if name in axes and name not in local}

        def draw(key: Array) -> dict[str, Array]:
            options = {"redraw": (), "stand_in": True}
            found = program_.simulate(program, params, inputs, key, shared, **options)
            return {name: jnp.moveaxis(found[name], axis, 0) for name, axis in local.items()}

        def density(rows: Mapping[str, Array]) -> Array:
            moved = {name: jnp.moveaxis(v, 0, local[name]) for name, v in rows.items()}
            return program_.log_density(program, params, {**shared, **moved}, inputs)[0]

        drawn, *others = [draw(subkey) for subkey in random.split(key, 5)]
        other = {name: jnp.concatenate([rows[name] for rows in others]) for name in drawn}
        before, after = density(drawn), density(with_row(drawn, other, middle))
        change = jnp.abs(after - before) > 1e-4 * (1.0 + jnp.abs(before))
        return {"coupled": jnp.any(change.at[middle].set(False))}

    if args[-1].num_rows < 2:
        return False
    return bool(over_draws(program.fn, "coupled", fn, point, args)["coupled"][0])
