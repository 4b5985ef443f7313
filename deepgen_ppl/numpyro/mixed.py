"""The path of programs whose discrete latents are drawn: coordinates of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int

from deepgen_ppl.blocks import find_blocks, singly
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.joint import Layout
from deepgen_ppl.numpyro.kernels import gibbs
from deepgen_ppl.numpyro.mixed_joint import MixedJoint
from deepgen_ppl.numpyro.structure import Pair

_POINTS = 8
_WIDTH = 64


@dataclass(frozen=True, eq=False)
class MixedPath:
    r"""The densities between a reference that is drawn from exactly and the joint density.

    \[ \log \pi_\beta(x, z) = (1 - \beta) \log q(x, z) + \beta \log p(y, x, z)
       = \sum_t f_t^\beta(x, z), \qquad 0 \le \beta \le 1 \]

    over discrete coordinates x and unconstrained continuous ones z. The reference q is the prior,
    or a guide with the prior of the discrete latents that it does not draw. It is a `Path` in all
    but the kind of its coordinates: a position holds the continuous ones and, after them, the
    numbers of the discrete ones' values. Where every latent is local to the data plate and rows do
    not touch each other, there is one such path for each row.

    Attributes:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters and mutable state.
        inputs: Inputs at all rows.
        rows: Name of the data plate where there is a path for each row, else None.
        layout: Where each continuous site's unconstrained value stands in a position.
        coordinates: The discrete latents, of one row where the path is by rows.
        index: The rows that are looked at, None for all.
    """

    pair: Pair
    params: dict[str, Any]
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
    def dim(self) -> int:
        """Length D of a position, of one row where the path is by rows."""
        return self.layout.size + self.coordinates.size

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
        guide, places = self.pair.guide, self.coordinates.places.items()
        own = tuple((n, p.start, p.shape, p.support.shape, p.support.tobytes()) for n, p in places)
        return (None if guide is None else guide.fn, self.rows, own)

    @property
    def copies(self) -> int:
        """Number of densities of one position that are held at once."""
        return self.coordinates.num_values

    @property
    def sites(self) -> list[str]:
        """The latent sites whose values make a position."""
        return self._joint.sites

    @property
    def row_axes(self) -> dict[str, int]:
        """Axis of the rows in the value of each of these sites, empty where it is not by rows."""
        return self._joint.row_axes

    def at(
        self, params: Mapping[str, Any], inputs: Inputs, index: Int[Array, " B"] | None = None
    ) -> MixedPath:
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
        return jax.vmap(self._joint.draw)(random.split(key, num))

    def log_densities(
        self, z: Float[Array, "*batch D"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Return the log densities of reference and target, Jacobians included.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        joint = self._joint

        def both(one: Array) -> tuple[Array, Array]:
            reference, target = joint.terms(*joint.split(one))
            return reference.sum(-1), target.sum(-1)

        return self._over(both, z)

    def tempered(
        self, beta: Float[Array, "*batch"] | float
    ) -> Callable[[Array], tuple[Any, Array]]:
        r"""Return the potential energy at a temperature with its gradient, as a kernel takes it.

        It returns \(((U_\beta, \log p - \log q), \nabla U_\beta)\); the gradient is zero along
        discrete coordinates.

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

    def sweep(
        self,
        key: Array,
        z: Float[Array, "K *row D"],
        beta: Float[Array, "*each"] | float,
        table: gibbs.Table,
        *,
        backwards: bool = False,
        check: Any = True,
    ) -> tuple[Float[Array, "K *row D"], Float[Array, ""]]:
        """Draw every discrete coordinate once from its full conditional at a temperature.

        Args:
            key: Random key.
            z: Positions.
            beta: Inverse temperature above 0: one number, one of each row, or of each chain.
            table: The blocks of coordinates that move at once.
            backwards: Whether to take the blocks in the opposite order, which makes of a sweep the
                reversal of another.
            check: Whether to compare the terms that were put together with the whole.

        Returns:
            The positions, and the largest relative difference that was found.
        """
        free = z[..., : self.num_free]
        x = z[..., self.num_free :].astype(jnp.int32)
        terms = self.terms(free, beta)
        state = gibbs.init(x, terms)
        order = "reversed" if backwards else "systematic"
        options: dict[str, Any] = {"num_values": self.coordinates.num_values, "scan": order}
        state, info = gibbs.step(key, state, terms, table, check=check, **options)
        moved = jnp.concatenate([free, state.position.astype(z.dtype)], axis=-1)
        return moved, info.discrepancy.max()

    def terms(
        self, free: Float[Array, "K *row C"], beta: Float[Array, "*each"] | float
    ) -> Callable[[Int[Array, "*more K *row X"]], Float[Array, "*more K *row T"]]:
        """Return the terms of the log density at a temperature over discrete coordinates.

        Args:
            free: Continuous coordinates of each chain.
            beta: Inverse temperature above 0: one number, one of each row, or of each chain.
        """
        each, joint = jnp.broadcast_to(jnp.asarray(beta, free.dtype), free.shape[:-1]), self._joint

        def one(free: Array, weight: Array, x: Array) -> Array:
            weight = weight[..., None]
            reference, target = joint.terms(free, x)
            between = reference + weight * (target - reference)
            # What the reference never draws has no density below the top.
            between = jnp.where(jnp.isneginf(reference), reference, between)
            return jnp.where(weight >= 1.0, target, between)

        def terms(x: Array) -> Array:
            fn = jax.vmap(one)
            for _ in range(x.ndim - free.ndim):
                fn = jax.vmap(fn, in_axes=(None, None, 0))
            return fn(free, each, x)

        return terms

    def constrain(self, z: Float[Array, "*batch D"]) -> dict[str, Array]:
        """Return the values of the model's latent sites at positions.

        Deterministic sites are added where the path is not by rows.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        return self._over(self._joint.values, z)

    def unconstrain(self, sites: Mapping[str, Array]) -> Float[Array, "*batch D"]:
        """Return the positions of latent sites' values: the inverse of `constrain`.

        Args:
            sites: Value of each latent site of the model.
        """
        return self._joint.position(sites)

    def site_log_probs(self, z: Float[Array, "*row D"]) -> dict[str, Array]:
        """Return the log density of each site of the model at one position, to find a bad one."""
        return self._joint.log_probs(z)

    # ----------------------------------------------------------------------------- helpers

    @property
    def _joint(self) -> MixedJoint:
        own = (self.pair, self.params, self.inputs, self.rows, self.layout, self.coordinates)
        return MixedJoint(*own, self.index)

    def _over(self, fn: Callable[[Array], Any], z: Array) -> Any:
        shape = self.shape
        batch = z.shape[: z.ndim - len(shape)]
        found = jax.vmap(fn)(z.reshape(-1, *shape))
        return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)


def find_table(path: MixedPath, key: Array, apart: bool = False) -> gibbs.Table:
    """Return the blocks of discrete coordinates that move at once, of one row where it is by rows.

    Args:
        path: The path.
        key: Random key.
        apart: Whether every coordinate moves by itself, whatever terms it touches.
    """
    coordinates, build = path.coordinates, build_of(path.pair, *path.static[1:])

    def start(params: Any, inputs: Inputs, key: Array, index: Any) -> Array:
        return path.at(params, inputs, index).sample(key, 1)[0]

    def evaluate(params: Any, inputs: Inputs, x: Array, z: Array, index: Any) -> Array:
        here = path.at(params, inputs, index)
        free = jnp.broadcast_to(z[..., : path.num_free], (*x.shape[:-1], path.num_free))
        return here.terms(free, 0.7)(x).reshape(len(x), -1)

    args, number = (path.params, path.inputs), path.inputs.num_rows

    def terms(x: np.ndarray, point: int) -> np.ndarray:
        """Return the terms at a point that each number stands for, of a row of its own."""
        index = None if path.rows is None else jnp.asarray([point * number // _POINTS])
        call = (*args, random.fold_in(key, point), index)
        z, found = compiled(build, "path point", start, *call, once=True)(*call), []
        for first in range(0, len(x), _WIDTH):
            chosen = np.minimum(np.arange(first, first + _WIDTH), len(x) - 1)
            rows = jnp.asarray(x[chosen], jnp.int32)
            call = (*args, rows if index is None else rows[:, None], z, index)
            run_terms = compiled(build, "path terms", evaluate, *call, once=True)
            found.append(np.asarray(run_terms(*call))[: len(x) - first])
        return np.concatenate(found)

    cardinality, groups = coordinates.cardinality, coordinates.groups
    blocks = singly(coordinates.size) if apart else find_blocks(terms, cardinality, groups)
    num_terms = terms(np.zeros((1, coordinates.size), int), 0).shape[1]
    return gibbs.table(blocks, cardinality, num_terms)
