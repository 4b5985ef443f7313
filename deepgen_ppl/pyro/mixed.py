"""The path of programs whose discrete latents are drawn: coordinates of both kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.blocks import find_blocks, singly
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.pyro import graphs
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.kernels import gibbs
from deepgen_ppl.pyro.mixed_joint import MixedJoint
from deepgen_ppl.pyro.parameters import forked_rng
from deepgen_ppl.pyro.path import Densities, quiet
from deepgen_ppl.pyro.pointwise import Pointwise, one_by_one, over, vmap
from deepgen_ppl.pyro.structure import Pair

_POINTS = 8
_WIDTH = 64
_CHUNK_NUMBERS = 1 << 24
_CHECKED = 4


class MixedPath:
    r"""The densities between a reference that is drawn from exactly and the joint density.

    \[ \log \pi_\beta(x, z) = (1 - \beta) \log q(x, z) + \beta \log p(y, x, z)
       = \sum_t f_t^\beta(x, z), \qquad 0 \le \beta \le 1 \]

    over discrete coordinates x and unconstrained continuous ones z. The reference q is the prior,
    or a guide with the prior of the discrete latents that it does not draw. It is a `Path` in all
    but the kind of its coordinates: a position holds the continuous ones and, after them, the
    numbers of the discrete ones' values. Where every latent is local to the data plate and rows do
    not touch each other, there is one such path for each row.

    Args:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters.
        data: The data, tensors.
        by_rows: Whether there is a path for each row.
        coordinates: The discrete latents, of one row where the path is by rows.
        index: The rows that are looked at, None for all.

    Attributes:
        rows: Name of the data plate where there is a path for each row, else None.
        layout: How the continuous sites' unconstrained values lie in a position.
        device: Where positions live.
        numbers: Roughly how many numbers the densities of one position take with their gradients.

    Cost:
        A few runs of the program.
    """

    def __init__(
        self,
        pair: Pair,
        params: Mapping[str, Tensor],
        data: Sequence[Any],
        by_rows: bool,
        coordinates: Coordinates,
        index: Int[Tensor, " B"] | None = None,
    ) -> None:
        self.pair, self.data, self.index = pair, tuple(data), index
        self.params, self.coordinates = dict(params), coordinates
        values = {name: value.detach() for name, value in params.items()}
        self.rows = pair.model.data_plates[0] if by_rows else None
        with quiet(pair):
            self._joint = MixedJoint(pair, values, self.data, self.rows, coordinates, index)
        self.layout, self.device = self._joint.layout, self._joint.device
        self._both = Pointwise(self._sums, self._quiet)
        sizes = [math.prod(site.shape) for p in pair.programs for site in p.sites.values()]
        share = 1.0 if index is None else len(index) / (pair.num_rows or 1)
        self.numbers = int(16 * share * sum(sizes)) * self.copies + 1
        self._moves: dict[int, gibbs.Moves] = {}
        self._mapped: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

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
        return self.pair.model.num_rows if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one position: (D,), or (N, D) by rows."""
        return (self.dim,) if self.num_rows is None else (self.num_rows, self.dim)

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

    @property
    def compiled(self) -> str:
        """How gradients run: "torchscript", "traced" or "eager"; empty before the first."""
        return self._both.compiled

    @property
    def reason(self) -> str:
        """Why they run no better than that."""
        return self._both.reason

    @property
    def moving(self) -> tuple[str, ...]:
        """Sites whose support depends on other sites."""
        return self._joint.potential.moving

    def take(self, index: Int[Tensor, " B"]) -> MixedPath:
        """Return the path at some rows.

        Args:
            index: Their numbers.
        """
        by_rows = self.rows is not None
        return MixedPath(self.pair, self.params, self.data, by_rows, self.coordinates, index)

    def sample(self, generator: torch.Generator, num: int) -> Float[Tensor, "K *row D"]:
        """Draw positions from the reference exactly.

        Args:
            generator: Source of the draws.
            num: Number K of draws.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with self._quiet(), torch.no_grad(), forked_rng(seed):
            chunks = torch.arange(num).split(self._length(num))
            return torch.cat([over(lambda _: self._joint.draw(), chunk) for chunk in chunks])

    def log_densities(
        self, z: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the log densities of reference and target, Jacobians included.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        positions = z.reshape(-1, *self.shape)
        chunks = positions.split(self._length(len(positions)))
        parts = zip(*map(self._both.values, chunks), strict=True)
        reference, target = (torch.cat(part).reshape(z.shape[:-1]) for part in parts)
        return reference, target

    def densities(self, z: Float[Tensor, "*batch D"]) -> Densities:
        """Return both log densities and their gradients, which are zero along discrete coordinates.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.

        Cost:
            One gradient of the batch; 0.1 to 1 s to trace at the first batch of a size.
        """
        if not self.num_free:
            nothing = torch.zeros_like(z)
            return Densities(*self.log_densities(z), nothing, nothing)
        positions = z.detach().reshape(-1, *self.shape)
        length = self._length(len(positions))
        missing = -len(positions) % length
        if missing:  # equal chunks share a graph
            positions = torch.cat([positions, positions[-1:].expand(missing, *self.shape)])
        parts = [self._both.gradients(chunk) for chunk in positions.split(length)]
        joined = [torch.cat(part)[: z.numel() // math.prod(self.shape)] for part in
                  zip(*parts, strict=True)]  # fmt: skip
        shapes = (z.shape[:-1], z.shape[:-1], z.shape, z.shape)
        return Densities(*(p.reshape(shape) for p, shape in zip(joined, shapes, strict=True)))

    def tempered(
        self, beta: Float[Tensor, "*batch"] | float
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        r"""Return the potential energy at a temperature with its gradient, as a kernel takes it.

        It maps positions to \(U_\beta = -\log \pi_\beta\) and \(\nabla U_\beta\).

        Args:
            beta: Inverse temperature above 0, one number or one of each position.
        """
        return lambda z: self.densities(z).energy(beta)

    def sweep(
        self,
        generator: torch.Generator,
        z: Float[Tensor, "K *row D"],
        beta: Float[Tensor, "*each"] | float,
        table: gibbs.Table,
        *,
        backwards: bool = False,
        check: bool = True,
    ) -> tuple[Float[Tensor, "K *row D"], float]:
        """Draw every discrete coordinate once from its full conditional at a temperature.

        Args:
            generator: Source of random numbers.
            z: Positions.
            beta: Inverse temperature above 0: one number, one of each row, or of each chain.
            table: The blocks of coordinates that move at once.
            backwards: Whether to take the blocks in the opposite order, which makes of a sweep the
                reversal of another.
            check: Whether to compare the terms that were put together with the whole.

        Returns:
            The positions, and the largest relative difference that was found.
        """
        free, x = z[..., : self.num_free], z[..., self.num_free :].long()
        more = (free, torch.as_tensor(beta).to(free).expand(z.shape[:-1]))
        with self._quiet(), torch.no_grad():
            if id(table) not in self._moves:
                moves = gibbs.Moves.of(self.terms, table.cardinality, self.coordinates.num_values)
                self._moves = {id(table): gibbs.Moves(*map(graphs.Traced, moves))}
                self._terms_of = graphs.Traced(self.terms)
            given = gibbs.Moves(*(_with(move, more) for move in self._moves[id(table)]))
            own = _with(self._terms_of, more)
            options: dict[str, Any] = {"scan": "reversed" if backwards else "systematic"}
            options |= {"num_values": self.coordinates.num_values, "moves": given, "check": check}
            state, info = gibbs.step(generator, gibbs.init(x, own), own, table, **options)
        moved = torch.cat([free, state.position.to(z)], -1)
        return moved, float(info.discrepancy.max()) if check else 0.0

    def terms(
        self,
        x: Int[Tensor, "*more K *row X"],
        free: Float[Tensor, "K *row C"],
        beta: Float[Tensor, " K *row"],
    ) -> Float[Tensor, "*more K *row T"]:
        """Return the terms of the log density at a temperature.

        Args:
            x: Discrete coordinates.
            free: Continuous coordinates of each chain.
            beta: Inverse temperature above 0 of each chain.
        """
        lead = x.shape[: x.dim() - free.dim()]
        own = free.expand((*lead, *free.shape))
        z = torch.cat([own, x.to(own)], -1).reshape(-1, *self.shape)
        reference, target = (
            part.reshape(*x.shape[:-1], -1) for part in self._vectorised(z[:_CHECKED])(z)
        )
        weight = beta.unsqueeze(-1)
        between = reference + weight * (target - reference)
        # What the reference never draws has no density below the top.
        between = torch.where(reference == -math.inf, reference, between)
        return torch.where(weight >= 1.0, target, between)

    def constrain(self, z: Float[Tensor, "K *row D"]) -> dict[str, np.ndarray]:
        """Return the values of the model's latent sites at positions, on the host.

        Deterministic sites are added where the path is not by rows.

        Args:
            z: Positions, `(K, D)` or `(K, N, D)`.
        """
        with self._quiet():
            found = evaluate.over_draws(lambda draw: self._joint.values(draw["z"]), {"z": z})
        return self.coordinates.integers(found)

    def unconstrain(self, sites: Mapping[str, Any]) -> Float[Tensor, "K *row D"]:
        """Return the positions of latent sites' values: the inverse of `constrain`.

        Args:
            sites: Values `(K, *shape)` of each latent site of the model.
        """
        values = {name: torch.as_tensor(sites[name]) for name in self.sites}
        with self._quiet(), torch.no_grad(), forked_rng(0):
            return over(self._joint.position, values)

    def first_nonfinite(self, z: Float[Tensor, "*row D"]) -> tuple[str | None, float]:
        """Return the first site whose log density is not finite at a position, and that density.

        Args:
            z: One position; where the path is by rows, those of all rows.
        """
        with self._quiet(), torch.no_grad(), forked_rng(0):
            found = self._joint.log_probs(z)
        for zero in (False, True):  # a density of zero only where nothing is worse
            for name, log_prob in found.items():
                bad = log_prob[~log_prob.isfinite() & ((log_prob == -math.inf) == zero)]
                if bad.numel():
                    return name, float(bad.flatten()[0])
        return None, math.nan

    # ----------------------------------------------------------------------------- helpers

    def _quiet(self) -> AbstractContextManager[Any]:
        return quiet(self.pair)

    def _length(self, num: int) -> int:
        """Return the length of the fewest equal chunks of `num` positions that fit in memory."""
        most = max(_CHUNK_NUMBERS // self.numbers, 1)
        return -(-num // -(-num // most))

    def _sums(self, z: Float[Tensor, "*row D"]) -> tuple[Tensor, ...]:
        return tuple(part.sum(-1) for part in self._joint.terms(z))

    def _vectorised(self, z: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the terms at points along the leading axis, one by one where it has to be."""
        if self._mapped is None:
            self._mapped = mapped = vmap(self._joint.terms)
            try:
                wanted = one_by_one(self._joint.terms, z)
                for one, other in zip(mapped(z), wanted, strict=True):
                    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True):
                        raise ValueError("the density's control flow depends on its latents")
            except Exception:  # control flow, `.item()`, operations without a batching rule
                self._mapped = lambda z: one_by_one(self._joint.terms, z)
        return self._mapped


def find_table(path: MixedPath, generator: torch.Generator, apart: bool = False) -> gibbs.Table:
    """Return the blocks of discrete coordinates that move at once, of one row where it is by rows.

    Args:
        path: The path.
        generator: Source of random numbers.
        apart: Whether every coordinate moves by itself, whatever terms it touches.
    """
    coordinates, points = path.coordinates, {}
    for point in range(_POINTS):
        here = path
        if path.num_rows is not None:
            here = path.take(torch.tensor([point * path.num_rows // _POINTS], device=path.device))
        points[point] = here, here.sample(generator, 1)

    def terms(x: np.ndarray, point: int) -> np.ndarray:
        """Return the terms at a point that each number stands for, of a row of its own."""
        (here, z), found = points[point], []
        for first in range(0, len(x), _WIDTH):
            rows = torch.as_tensor(x[first : first + _WIDTH], device=path.device)
            rows = rows.reshape(len(rows), *z.shape[1:-1], -1)
            free = z[..., : path.num_free].expand(*rows.shape[:-1], path.num_free)
            with quiet(path.pair), torch.no_grad():
                part = here.terms(rows, free, torch.full_like(rows[..., 0], 0.7, dtype=z.dtype))
            found.append(part.reshape(len(rows), -1).cpu().numpy())
        return np.concatenate(found)

    cardinality, groups = coordinates.cardinality, coordinates.groups
    blocks = singly(coordinates.size) if apart else find_blocks(terms, cardinality, groups)
    num_terms = terms(np.zeros((1, coordinates.size), int), 0).shape[1]
    found = gibbs.table(blocks, cardinality, num_terms)
    return gibbs.Table(*(part.to(path.device) for part in found))


def _with(fn: Callable[..., Any], more: tuple[Tensor, ...]) -> Callable[..., Any]:
    return lambda *args: fn(*args, *more)
