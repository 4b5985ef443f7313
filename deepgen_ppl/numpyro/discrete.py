"""The discrete view of a program: its discrete latents as one vector of numbers of values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int
from numpyro.distributions import constraints
from numpyro.handlers import seed, substitute
from numpyro.infer import util

from deepgen_ppl.discrete import Coordinates, check_discrete, check_supports, values_between
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.messages import base
from deepgen_ppl.numpyro.structure import Program, Site, execute
from deepgen_ppl.numpyro.unconstrained import Potential


class Discrete:
    r"""The joint density of a program over its discrete coordinates and its continuous point.

    \[ \log p(x, T(z)) = \sum_t f_t(x, z) \]

    The terms f are the log densities of single elements of the sample sites, factors and data
    among them, masked and scaled. Continuous latents z are given unconstrained.

    Args:
        program: A model whose discrete latents have finite supports.
        coordinates: Where they stand in x.
        params: Constrained parameters and mutable state; they may be traced.
        inputs: Inputs at all rows; they may be traced.
    """

    def __init__(
        self, program: Program, coordinates: Coordinates, params: Mapping[str, Any], inputs: Inputs
    ) -> None:
        self.program, self.coordinates, self.inputs = program, coordinates, inputs
        self.potential = Potential(program, params, inputs)
        self.params = self.potential.params
        self.is_moving = any(s.support is None for s in self.potential.continuous.values())

    def values(self, x: Int[Array, " D"]) -> dict[str, Array]:
        """Return the value of each discrete site.

        Args:
            x: The coordinates of one chain.
        """
        return values_of(self.coordinates, x)

    def hold(self, z: dict[str, Array]) -> dict[str, Array]:
        """Return what `terms` needs of a continuous point: the sites' values, computed once.

        Where a support depends on other sites it is the point itself.
        """
        return z if self.is_moving else self.potential.values(z)

    def terms(self, x: Int[Array, " D"], held: Mapping[str, Array]) -> Float[Array, " T"]:
        """Return the terms of the log density at the coordinates of one chain.

        Args:
            x: The coordinates.
            held: The continuous sites, by `hold`.
        """
        values = self.values(x)
        if self.is_moving:
            return -self._energy(dict(held), values)[None]
        latents = {**values, **held}
        found = program_.log_probs(self.program, self.params, latents, self.inputs)
        return jnp.concatenate([jnp.ravel(term) for term in found.values()])

    def energy(self, z: dict[str, Array], x: Int[Array, " D"]) -> Float[Array, ""]:
        """Return the potential energy of an unconstrained point, the coordinates given."""
        return self._energy(z, self.values(x))

    def gains(self, x: Int[Array, " D"], z: dict[str, Array]) -> tuple[Array, Array]:
        r"""Return the log density, and what each value of each coordinate adds to it, about.

        \[ d_{ik} = \langle \nabla_{v_i} \log p(v, z), \, s_{ik} - v_i \rangle \]

        to first order, for site values \(v_i\) with supports \(s_{ik}\), relaxed to real numbers.

        Args:
            x: The coordinates.
            z: Unconstrained point of the continuous latents.

        Returns:
            log p, a scalar, and d of shape (D, K).

        Raises:
            TypeError: The program takes no real numbers for these sites, as where they index.
        """
        relaxed = {n: v.astype(jnp.result_type(float)) for n, v in self.values(x).items()}
        energy, slopes = jax.value_and_grad(lambda v: self._energy(z, v))(relaxed)
        parts = []
        for name, place in self.coordinates.places.items():
            support = jnp.asarray(place.support, relaxed[name].dtype)
            value = relaxed[name].reshape(place.size, 1, *support.shape[2:])
            slope = slopes[name].reshape(place.size, 1, *support.shape[2:])
            gain = -(slope * (support - value)).reshape(place.size, support.shape[1], -1).sum(-1)
            missing = self.coordinates.num_values - support.shape[1]
            parts.append(jnp.pad(gain, ((0, 0), (0, missing))))
        return -energy, jnp.concatenate(parts)

    def constrain(self, x: Int[Array, " D"], z: dict[str, Array]) -> dict[str, Array]:
        """Return the values of all latent and deterministic sites."""
        values = self.values(x)
        fn = seed(self._given(values), random.key(0))
        return {**values, **util.constrain_fn(fn, (), {}, z, return_deterministic=True)}

    def _energy(self, z: dict[str, Array], values: Mapping[str, Array]) -> Array:
        fn = seed(self._given(values), random.key(0))
        return jnp.asarray(util.potential_energy(fn, (), {}, z))

    def _given(self, values: Mapping[str, Array]) -> Any:
        run = partial(execute, self.program.fn, self.inputs, self.program.role)
        return substitute(run, data={**self.params, **values})


def values_of(coordinates: Coordinates, x: Int[Array, " D"]) -> dict[str, Array]:
    """Return the value of each discrete site.

    Args:
        coordinates: Where the sites stand.
        x: Coordinates, one number for each.
    """
    found = {}
    for name, place in coordinates.places.items():
        part, support = x[place.start : place.start + place.size], place.support
        if place.is_counting:
            value = part.astype(jax.dtypes.canonicalize_dtype(support.dtype))
        else:
            row = jnp.arange(place.size) if len(support) > 1 else 0
            value = jnp.asarray(support)[row, part]
        found[name] = value.reshape(*place.shape, *support.shape[2:])
    return found


def read_coordinates(
    program: Program, params: Mapping[str, Any], inputs: Inputs, kernel: str
) -> Coordinates:
    """Read the supports of a program's discrete latents.

    Args:
        program: A model.
        params: Constrained parameters and mutable state.
        inputs: Inputs at all rows.
        kernel: Name of the kernel that needs them, for the messages.

    Raises:
        ValueError: There is no discrete latent, or one has no finite support, or one whose support
            depends on other latents.

    Cost:
        Two runs of the program, compiled at the first; none where supports are plain numbers.
    """
    shapes = {name: site.shape for name, site in program.latents.items() if site.is_discrete}
    check_discrete(kernel, list(shapes), list(program.latents))
    known = {name: _listed(program.latents[name]) for name in shapes}
    if all(values is not None for values in known.values()):
        return Coordinates.of({n: v for n, v in known.items() if v is not None}, shapes)

    def supports(params: Any, inputs: Inputs, key: Array) -> dict[str, tuple[Array, ...]]:
        run = program_.run(program, inputs, params, key, stand_in=True)
        return {name: _support(run[name]["fn"]) for name in shapes}

    seen = []
    for number in (0, 1):
        call = (dict(params), inputs, random.key(number))
        run = compiled(program.fn, "supports", supports, *call, static=tuple(shapes), once=True)
        listed = jax.device_get(run(*call))
        found = {name: _values(listed[name], shape) for name, shape in shapes.items()}
        check_supports(kernel, [name for name, support in found.items() if support is None], [])
        seen.append(found)
    moving = [name for name in shapes if not np.array_equal(seen[0][name], seen[1][name])]
    check_supports(kernel, [], moving)
    return Coordinates.of(seen[0], shapes)


def _listed(site: Site) -> np.ndarray | None:
    """Return the values of a site between bounds that are plain numbers, None of others."""
    support = site.support
    if support is constraints.boolean:
        support = constraints.integer_interval(0, 1)
    bounds = [getattr(support, n, None) for n in ("lower_bound", "upper_bound")]
    low, high = (int(b) if isinstance(b, int | np.integer) else None for b in bounds)
    if low is None or high is None or not site.enumerable or site.event_shape:
        return None
    return np.arange(low, high + 1, dtype=jnp.result_type(int))[None]


def _support(fn: Any) -> tuple[Array, ...]:
    """Return bounds that differ from element to element, or all values; nothing where endless."""
    fn = base(fn)
    low, high = (getattr(fn.support, n, None) for n in ("lower_bound", "upper_bound"))
    if low is not None and high is not None and jnp.ndim(high):
        return jnp.asarray(low), jnp.asarray(high)
    if not fn.has_enumerate_support:
        return ()
    values = jnp.asarray(fn.enumerate_support(expand=False))
    return (values.reshape(len(values), *values.shape[values.ndim - fn.event_dim :]),)


def _values(listed: tuple[Array, ...], shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the values of each coordinate, `(n, K, *event)`; None where they have no end."""
    if len(listed) == 2:
        return values_between(*listed, shape)
    return np.asarray(listed[0])[None] if listed else None
