"""The path from a reference to the joint density, for every method that climbs temperatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int

from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.joint import Joint, Layout
from deepgen_ppl.numpyro.structure import Pair

LogDensities = tuple[Float[Array, "*batch"], Float[Array, "*batch"]]


@dataclass(frozen=True, eq=False)
class Path:
    r"""The densities between a reference that is drawn from exactly and the joint density.

    \[ \log \pi_\beta(z) = (1 - \beta) \log q(z) + \beta \log p(x, z), \qquad 0 \le \beta \le 1 \]

    on the unconstrained space, Jacobians included. The reference q is the prior or a guide, and is
    normalised; the target is the joint density of latents and data with its factors, discrete
    sites of finite support summed out. Where every latent is local to the data plate and rows do
    not touch each other, there is one such path for each row: positions are `(*batch, N, D)` and
    densities `(*batch, N)`; else they are `(*batch, D)` and `(*batch,)`. `at` binds other inputs
    of the same shapes, so that a function compiled once can be used again.

    Attributes:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters and mutable state.
        inputs: Inputs at all rows.
        rows: Name of the data plate where there is a path for each row, else None.
        layout: Where each site's unconstrained value stands in a position.
        index: The rows that are looked at, None for all.
        warp: Where positions are those of a guide's space, the way to the model's and back: then
            both densities have the Jacobian of its transform too, and the path is the same.
    """

    pair: Pair
    params: dict[str, Any]
    inputs: Inputs
    rows: str | None
    layout: Layout
    index: Int[Array, " B"] | None = None
    warp: Any = None

    @property
    def dim(self) -> int:
        """Length D of a position, of one row where the path is by rows."""
        return self.layout.size

    @property
    def num_free(self) -> int:
        """Number of continuous coordinates: all of them, as discrete latents are summed out."""
        return self.dim

    @property
    def copies(self) -> int:
        """Number of densities of one position that are held at once."""
        return 1

    @property
    def sites(self) -> list[str]:
        """The latent sites whose values make a position."""
        return [name for name, site in self.pair.model.latents.items() if not site.is_discrete]

    @property
    def row_axes(self) -> dict[str, int]:
        """Axis of the rows in the value of each of these sites, empty where it is not by rows."""
        sites = self.pair.model.sites
        return {n: sites[n].plates.index(self.rows) for n in self.sites} if self.rows else {}

    @property
    def num_rows(self) -> int | None:
        """Number of rows that are looked at, None where the path is not by rows."""
        if self.rows is None:
            return None
        return self.inputs.num_rows if self.index is None else self.index.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one position: (D,), or (N, D) by rows."""
        return (self.dim,) if self.num_rows is None else (self.num_rows, self.dim)

    @property
    def owner(self) -> Callable:
        """The model's own function, by which compiled functions are kept."""
        return self.pair.model.fn

    @property
    def static(self) -> tuple[Any, ...]:
        """What compiled code depends on beside the shapes of `params`, `inputs` and `index`."""
        guide = self.pair.guide
        own = () if self.warp is None else (self.warp.static,)
        return (None if guide is None else guide.fn, self.rows, *own)

    def at(
        self, params: Mapping[str, Any], inputs: Inputs, index: Int[Array, " B"] | None = None
    ) -> Path:
        """Return this path at other parameters, inputs and rows of the same structure.

        Args:
            params: Constrained parameters and mutable state; they may be traced.
            inputs: Inputs at all rows; they may be traced.
            index: Rows to look at, None for all.
        """
        return replace(self, params=dict(params), inputs=inputs, index=index)

    def sample(self, key: Array, num: int) -> Float[Array, "K *row D"]:
        """Draw positions from the reference exactly.

        Args:
            key: Random key.
            num: Number K of draws.
        """
        draw = self._joint.draw
        return jax.vmap(lambda key: self._position(draw(key)))(random.split(key, num))

    def log_densities(self, z: Float[Array, "*batch D"]) -> LogDensities:
        """Return the log densities of reference and target, Jacobians included.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        joint = self._joint

        def both(sites: dict[str, Array], log_det: Any) -> LogDensities:
            reference, target = joint.log_densities(sites)
            return reference + log_det, target + log_det

        return self._over(both, z)

    def tempered(
        self, beta: Float[Array, "*batch"] | float
    ) -> Callable[[Array], tuple[Any, Array]]:
        r"""Return the potential energy at a temperature with its gradient, as a kernel takes it.

        It returns \(((U_\beta, \log p - \log q), \nabla U_\beta)\), of which the difference is by
        what weights change from one temperature to the next.

        Args:
            beta: Inverse temperature above 0, one number or one of each position.
        """

        def total(z: Array) -> tuple[Array, tuple[Array, Array]]:
            reference, target = self.log_densities(z)
            difference = target - reference
            energy = -(reference + beta * difference)
            return energy.sum(), (energy, difference)

        def value_and_grad(z: Array) -> tuple[tuple[Array, Array], Array]:
            (_, found), gradient = jax.value_and_grad(total, has_aux=True)(z)
            return found, gradient

        return value_and_grad

    def constrain(self, z: Float[Array, "*batch D"]) -> dict[str, Array]:
        """Return the values of the model's continuous latent sites at positions.

        Deterministic sites are added where nothing is summed out and the path is not by rows.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        values = self._joint.values
        return self._over(lambda sites, _: values(sites), z)

    def unconstrain(self, sites: Mapping[str, Array]) -> Float[Array, "*batch D"]:
        """Return the positions of latent sites' values: the inverse of `constrain`.

        Args:
            sites: Values `(*batch, *shape)` of each continuous latent site of the model.

        Raises:
            ValueError: The guide draws them from auxiliary sites in a way that is not known.
        """
        names = [name for name, site in self.pair.model.latents.items() if not site.is_discrete]
        values = {name: jnp.asarray(sites[name]) for name in names}
        lead = values[names[0]].ndim - len(self.pair.model.latents[names[0]].shape)
        batch = values[names[0]].shape[:lead]
        flat = {name: value.reshape(-1, *value.shape[lead:]) for name, value in values.items()}

        def position(values: dict[str, Array]) -> Array:
            return self._position(self._joint.point(values, self.layout.shapes))

        return jax.vmap(position)(flat).reshape(*batch, *self.shape)

    def site_log_probs(self, z: Float[Array, "*row D"]) -> dict[str, Array]:
        """Return the log density of each site of the model at one position, to find a bad one."""
        return self._joint.site_log_probs(self._sites(z)[0])

    @property
    def _joint(self) -> Joint:
        return Joint(self.pair, self.params, self.inputs, self.rows is not None, self.index)

    def _sites(self, z: Array) -> tuple[dict[str, Array], Any]:
        """Return the unconstrained sites at one position, and the log Jacobian of the warp."""
        if self.warp is None:
            return self.layout.split(z), 0.0
        return self.warp.forward(self.params, z)

    def _position(self, sites: dict[str, Array]) -> Array:
        if self.warp is None:
            return self.layout.join(sites)
        return self.warp.inverse(self.params, sites)

    def _over(self, fn: Callable[..., Any], z: Array) -> Any:
        shape = self.shape
        batch = z.shape[: z.ndim - len(shape)]
        found = jax.vmap(lambda one: fn(*self._sites(one)))(z.reshape(-1, *shape))
        return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)
