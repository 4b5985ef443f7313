"""The unconstrained view of a program that MCMC walks on: energy, values, starting points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import util
from numpyro.infer.initialization import init_to_uniform

from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.structure import Program, Site, execute
from deepgen_ppl.numpyro.terms import enumerated, room_for


class Potential:
    r"""Potential energy of a program's unconstrained continuous latents, and the maps around it.

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete latents summed out.

    Args:
        program: The model.
        params: Constrained values by name, and mutable state.
        inputs: The data; inside a compiled function they may be traced.

    Raises:
        ValueError: A discrete latent cannot be enumerated.
    """

    def __init__(self, program: Program, params: Mapping[str, Any], inputs: Inputs) -> None:
        self.program, self.inputs = program, inputs
        self.params = {n: v for n, v in params.items() if n not in program.fixed}
        self.continuous = {n: s for n, s in program.latents.items() if not s.is_discrete}
        self.discrete = {n: s for n, s in program.latents.items() if s.is_discrete}

    def energy(self, z: dict[str, Array]) -> Float[Array, ""]:
        """Return the potential energy of one unconstrained point, a scalar."""
        return self._energy(z, self.inputs, self.params)

    def rows(self, z: dict[str, Array]) -> Float[Array, " N"]:
        r"""Return \(\log p(x_i, T(z_i) \mid T(z)) + \log |\det J_i|\) of each row.

        Discrete sites, which must be the rows' own, are summed out.
        """
        from deepgen_ppl.numpyro.program import log_density

        values, summed = self.values(z), tuple(self.discrete)
        total, _ = log_density(self.program, self.params, values, self.inputs, enumerated=summed)
        return total + self.local_jacobian(z)

    def local_jacobian(self, z: dict[str, Array]) -> Float[Array, " N"]:
        """Return log |det J| of each row's own sites."""
        total = jnp.zeros(self.inputs.num_rows)
        for name, site in self.continuous.items():
            axis = row_axis(self.program, site)
            if axis is not None and name in z:
                transform = biject_to(site.support)
                log_det = transform.log_abs_det_jacobian(z[name], transform(z[name]))
                total = total + jnp.moveaxis(log_det, axis, 0).reshape(len(total), -1).sum(1)
        return total

    def values(self, z: dict[str, Array]) -> dict[str, Array]:
        """Return the latent sites' values, where no support depends on another site."""
        return {name: biject_to(self.continuous[name].support)(u) for name, u in z.items()}

    def constrain(self, z: dict[str, Array]) -> dict[str, Array]:
        """Return the sites' values at an unconstrained point, deterministic ones included.

        Deterministic sites are left out where discrete sites, which have no value, are summed out.
        """
        seeded = seed(self._plain(self.inputs, self.params), random.key(0))
        return util.constrain_fn(seeded, (), {}, z, return_deterministic=not self.discrete)

    def init(self, key: Array, strategy: Callable | None = None) -> dict[str, Array]:
        """Return one unconstrained starting point."""
        strategy = init_to_uniform if strategy is None else strategy
        strategy = strategy if isinstance(strategy, partial) else strategy()
        run = seed(self._plain(self.inputs, self.params), key)
        seen = trace(substitute(run, substitute_fn=strategy)).get_trace()
        sites = {name: seen[name] for name in self.continuous}
        found = {n: biject_to(m["fn"].support).inv(m["value"]) for n, m in sites.items()}
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float, x)), found)

    def _plain(self, inputs: Inputs, params: Mapping[str, Any]) -> Callable[[], Any]:
        run = partial(execute, self.program.fn, inputs, self.program.role)
        return substitute(run, data=dict(params))

    def _energy(self, z: dict[str, Array], inputs: Inputs, params: Mapping[str, Any]) -> Array:
        fn: Callable = seed(self._plain(inputs, params), random.key(0))
        if not self.discrete:
            return jnp.asarray(util.potential_energy(fn, (), {}, z))
        from deepgen_ppl.numpyro import marginal

        if (sources := marginal.prepared(self.program, inputs.num_rows)) is not None:
            found = marginal.summed_out(sources, partial(self._seen, z, inputs, params))
            return -(found.shared + jnp.sum(found.rows))
        with room_for(self.discrete):
            fn = enumerated(fn, self.program, self.discrete)
            return jnp.asarray(util.potential_energy(fn, (), {}, z, enum=True))

    def _seen(
        self,
        z: dict[str, Array],
        inputs: Inputs,
        params: Mapping[str, Any],
        discrete: Mapping[str, Array],
    ) -> dict[str, Any]:
        """Return the trace at an unconstrained point, Jacobians among its sites."""
        from deepgen_ppl.numpyro.joint import place

        run = partial(execute, self.program.fn, inputs, self.program.role)
        placed = substitute(run, substitute_fn=partial(place, z))
        given = substitute(placed, data={**params, **discrete})
        return trace(seed(given, random.key(0))).get_trace()


def row_axis(program: Program, site: Site) -> int | None:
    """Return the batch axis of a site that is a data plate's, None for a site the rows share."""
    axes = [axis for axis, name in enumerate(site.plates) if name in program.data_plates]
    return axes[0] if axes else None
