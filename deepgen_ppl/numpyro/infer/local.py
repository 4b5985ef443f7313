"""The log evidence of each datum given the shared sites, its own latents integrated out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.evaluate import over_draws
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
    widened. It is exact when all local latents are discrete. Where rows share a local latent (a sum
    over all of them, say), or one's support depends on other sites, nothing can be integrated and
    the conditional log density of each observed site is returned.

    Args:
        program: the model.
        params: constrained values of its parameters, and its mutable state.
        inputs: its inputs.
        draws: constrained draws of the continuous latents, shape `(S, ...)`.
        seed: seed of the particles.

    Returns:
        One array `(S, N)`, named as the observed site (as the data plate if there are several).

    Cost:
        128 runs of the model for each draw, vectorised; three when all local latents are discrete.
    """
    continuous = {n: s for n, s in program.latents.items() if not s.is_discrete and n in draws}
    axes = {n: row_axis(program, s) for n, s in continuous.items()}
    local = {name: axis for name, axis in axes.items() if axis is not None}
    label = next(iter(program.observed)) if len(program.observed) == 1 else program.data_plates[0]
    args = (dict(params), inputs)
    fixed = all(site.support is not None for site in continuous.values())
    kept = {name: draws[name] for name in continuous}

    def unconstrained(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        sites = {name: program.sites[name].support for name in draw}
        return {n: biject_to(sites[n]).inv(value) for n, value in draw.items()}

    def exact(z: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        return {label: Potential(program, params, inputs).rows(z)}

    def conditional(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        found = program_.log_probs(program, params, draw, inputs)
        return {name: found[name] for name in program.observed}

    if not fixed:
        return over_draws(program.fn, "log_likelihood", conditional, kept, args)
    z = over_draws(program.fn, "unconstrained", unconstrained, kept, args)
    if not local:
        return over_draws(program.fn, "log_likelihood", exact, z, args, copies=3)
    if _coupled(program, args, {name: value[0] for name, value in z.items()}, local):
        return over_draws(program.fn, "log_likelihood", conditional, kept, args)
    proposal = StudentT.fit({name: z[name] for name in local}, local)
    layout = _Layout(
        {name: np.moveaxis(z[name], 1 + axis, 1).shape[2:] for name, axis in local.items()}, local
    )

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
            found = program_.log_probs(program, params, potential.values(point), inputs)
            prior = sum(_per_row(found[name], axis) for name, axis in local.items())
            prior = prior + potential.local_jacobian(point)
            return potential.rows(point) - jnp.logaddexp(prior, proposal.log_prob(u)) + math.log(2)

        def pair(key: Array) -> Array:
            first, second = random.split(key)
            return jax.vmap(weigh)(jnp.stack([prior_draw(first), proposal.sample(second)]))

        weights = jax.vmap(pair)(random.split(key, _NUM_PARTICLES // 2))
        return {
            label: logsumexp(weights.reshape(_NUM_PARTICLES, -1), axis=0) - math.log(_NUM_PARTICLES)
        }

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


def _per_row(log_prob: Array, axis: int) -> Array:
    moved = jnp.moveaxis(log_prob, axis, 0)
    return moved.reshape(len(moved), -1).sum(1)


def _coupled(
    program: Program, args: Any, z: Mapping[str, np.ndarray], local: Mapping[str, int]
) -> bool:
    """Tell whether moving one row's latents changes another row's log density."""

    def fn(z: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
        potential = Potential(program, params, inputs)
        middle = inputs.num_rows // 2
        moved = dict(z)
        for name, axis in local.items():
            rows = jnp.moveaxis(z[name], axis, 0).at[middle].add(0.5)
            moved[name] = jnp.moveaxis(rows, 0, axis)
        before, after = potential.rows(z), potential.rows(moved)
        change = jnp.abs(after - before) > 1e-4 * (1.0 + jnp.abs(before))
        return {"coupled": jnp.any(change.at[middle].set(False))}

    once = {name: value[None] for name, value in z.items()}
    return bool(over_draws(program.fn, "coupled", fn, once, args)["coupled"][0])
