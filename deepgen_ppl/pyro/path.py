r"""The path from a law that can be drawn from to a program's joint density, on flat vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.joint import Joint, Layout
from deepgen_ppl.pyro.parameters import forked_rng, preserved, private_store
from deepgen_ppl.pyro.pointwise import Pointwise, over
from deepgen_ppl.pyro.structure import Pair

_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk may take, roughly."""


class Densities(NamedTuple):
    """Both log densities at some points, with their gradients.

    Attributes:
        log_reference: Log density of the reference, shape `(*batch,)`.
        log_target: Log density of the joint, shape `(*batch,)`.
        grad_reference: Gradient of the first, shape `(*batch, D)`.
        grad_target: Gradient of the second, shape `(*batch, D)`.
    """

    log_reference: Float[Tensor, "*batch"]
    log_target: Float[Tensor, "*batch"]
    grad_reference: Float[Tensor, "*batch D"]
    grad_target: Float[Tensor, "*batch D"]

    def energy(
        self, beta: float | Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch D"]]:
        """Return the potential energy at an inverse temperature above 0, and its gradient.

        Args:
            beta: One number, or one of each point.
        """
        # At the top the reference has no say, not even where it is zero.
        if not isinstance(beta, Tensor):
            if beta >= 1.0:
                return -self.log_target, -self.grad_target
            energy = torch.lerp(self.log_reference, self.log_target, beta)
            return -energy, -torch.lerp(self.grad_reference, self.grad_target, beta)
        beta = beta.to(self.log_target)
        top, each = beta >= 1.0, beta.unsqueeze(-1)
        energy = (1.0 - beta) * self.log_reference + beta * self.log_target
        gradient = (1.0 - each) * self.grad_reference + each * self.grad_target
        energy = torch.where(top, self.log_target, energy)
        return -energy, -torch.where(top.unsqueeze(-1), self.grad_target, gradient)


class Path:
    r"""The densities between a reference that is drawn from exactly and the joint density.

    \[ \log \pi_\beta(z) = (1 - \beta) \log q(z) + \beta \log p(x, z), \qquad 0 \le \beta \le 1 \]

    on the unconstrained space, Jacobians included. The reference q is the prior or a guide, and is
    normalised; the target is the joint density of latents and data with its factors, discrete
    sites of finite support summed out. Where every latent is local to the data plate and rows do
    not touch each other, there is one such path for each row: positions are `(*batch, N, D)` and
    densities `(*batch, N)`; else they are `(*batch, D)` and `(*batch,)`.

    Args:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained parameters.
        data: The data, tensors.
        by_rows: Whether there is a path for each row.
        index: The rows that are looked at, None for all.
        warp: Where positions are those of a guide's space, the way to the model's and back: then
            both densities have the Jacobian of its transform too, and the path is the same.

    Attributes:
        rows: Name of the data plate where there is a path for each row, else None.
        layout: How the sites' unconstrained values lie in a position.
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
        index: Int[Tensor, " B"] | None = None,
        warp: Any = None,
    ) -> None:
        self.pair, self.data, self.index, self.warp = pair, tuple(data), index, warp
        self.params = dict(params)
        values = {name: value.detach() for name, value in params.items()}
        self.rows = pair.model.data_plates[0] if by_rows else None
        with quiet(pair):
            self._joint = Joint(pair, values, self.data, by_rows, index)
            start = self._joint.potential.init(0)
            self.layout = Layout.of(self._joint.potential.continuous, start, by_rows)
        self.device = next(iter(start.values())).device
        self._both = Pointwise(self._densities, self._quiet)
        sizes = [math.prod(site.shape) for p in pair.programs for site in p.sites.values()]
        share = 1.0 if index is None else len(index) / (pair.num_rows or 1)
        self.numbers = int(16 * share * sum(sizes)) + 1  # layers of networks counted roughly

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
        return self.pair.model.num_rows if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one position: (D,), or (N, D) by rows."""
        return (self.dim,) if self.num_rows is None else (self.num_rows, self.dim)

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

    def take(self, index: Int[Tensor, " B"]) -> Path:
        """Return the path at some rows.

        Args:
            index: Their numbers.
        """
        return Path(self.pair, self.params, self.data, self.rows is not None, index, self.warp)

    def sample(self, generator: torch.Generator, num: int) -> Float[Tensor, "K *row D"]:
        """Draw positions from the reference exactly.

        Args:
            generator: Source of the draws.
            num: Number K of draws.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))

        def draw(_: Tensor) -> Tensor:
            return self._position(self._joint.draw())

        with self._quiet(), torch.no_grad(), forked_rng(seed):
            chunks = torch.arange(num).split(self._length(num))
            return torch.cat([over(draw, chunk) for chunk in chunks])

    def log_densities(
        self, z: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the log densities of reference and target, Jacobians included.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.
        """
        positions = self._flat(z)
        chunks = positions.split(self._length(len(positions)))
        parts = zip(*map(self._both.values, chunks), strict=True)
        reference, target = (torch.cat(part).reshape(z.shape[:-1]) for part in parts)
        return reference, target

    def single(self, z: Float[Tensor, "*row D"]) -> tuple[Tensor, Tensor]:
        """Return the log densities of reference and target at one position, by the program itself.

        Args:
            z: One position; where the path is by rows, those of all rows.
        """
        with self._quiet(), torch.no_grad(), forked_rng(0):
            return self._densities(z)

    def densities(self, z: Float[Tensor, "*batch D"]) -> Densities:
        """Return both log densities and their gradients, from a graph traced at the first call.

        Args:
            z: Positions, `(*batch, D)` or `(*batch, N, D)`.

        Cost:
            One gradient of the batch; 0.1 to 1 s to trace at the first batch of a size.
        """
        positions = self._flat(z.detach())
        length = self._length(len(positions))
        missing = -len(positions) % length
        if missing:  # equal chunks share a graph
            positions = torch.cat([positions, positions[-1:].expand(missing, *self.shape)])
        parts = [self._both.gradients(chunk) for chunk in positions.split(length)]
        joined = parts[0] if len(parts) == 1 else [torch.cat(p) for p in zip(*parts, strict=True)]
        if missing:
            joined = [part[:-missing] for part in joined]
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

    def constrain(self, z: Float[Tensor, "K *row D"]) -> dict[str, np.ndarray]:
        """Return the values of the model's continuous latent sites at positions, on the host.

        Deterministic sites are added where nothing is summed out and the path is not by rows.

        Args:
            z: Positions, `(K, D)` or `(K, N, D)`.
        """
        potential = self._joint.potential
        values = potential.constrain if self.rows is None else lambda u: potential.values(u)[0]
        with self._quiet():
            return evaluate.over_draws(lambda one: values(self._sites(one["z"])[0]), {"z": z})

    def unconstrain(self, sites: Mapping[str, Any]) -> Float[Tensor, "K *row D"]:
        """Return the positions of latent sites' values: the inverse of `constrain`.

        Args:
            sites: Values `(K, *shape)` of each continuous latent site of the model.
        """
        values = {name: torch.as_tensor(sites[name]) for name in self._joint.potential.continuous}
        with self._quiet(), torch.no_grad(), forked_rng(0):
            return over(lambda one: self._position(self._joint.unconstrain(one)), values)

    def first_nonfinite(self, z: Float[Tensor, "*row D"]) -> tuple[str | None, float]:
        """Return the first site whose log density is not finite at a position, and that density.

        Args:
            z: One position; where the path is by rows, those of all rows.
        """
        with self._quiet(), torch.no_grad(), forked_rng(0):
            values, _ = self._joint.potential.values(self._sites(z)[0])
            found = self._joint.log_probs(values)
        for zero in (False, True):  # a density of zero only where nothing is worse
            for name, log_prob in found.items():
                bad = log_prob[~log_prob.isfinite() & ((log_prob == -math.inf) == zero)]
                if bad.numel():
                    return name, float(bad.flatten()[0])
        return None, math.nan

    def _sites(self, z: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Return the unconstrained sites at one position, and the log Jacobian of the warp."""
        if self.warp is None:
            return self.layout.split(z), 0.0
        return self.warp.forward(z)

    def _position(self, sites: dict[str, Tensor]) -> Tensor:
        return self.layout.join(sites) if self.warp is None else self.warp.inverse(sites)

    def _densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        sites, log_det = self._sites(z)
        reference, target = self._joint.log_densities(sites)
        return reference + log_det, target + log_det

    def _quiet(self) -> AbstractContextManager[Any]:
        return quiet(self.pair)

    def _flat(self, z: Tensor) -> Tensor:
        if z.shape[-len(self.shape) :] != self.shape:
            raise ValueError(
                f"positions of shape {tuple(z.shape)} do not end with the path's {self.shape}."
            )
        return z.reshape(-1, *self.shape)

    def _length(self, num: int) -> int:
        """Return the length of the fewest equal chunks of `num` positions that fit in memory."""
        most = max(_CHUNK_NUMBERS // self.numbers, 1)
        return -(-num // -(-num // most))


@contextmanager
def quiet(pair: Pair) -> Iterator[None]:
    """Run programs with validation off, a param store of their own and buffers put back."""
    with (
        private_store(),
        handlers.validation(False),
        preserved(pair.modules),
        warnings.catch_warnings(),
    ):
        # Learned values are constants here, of which Pyro warns.
        warnings.filterwarnings("ignore", ".*because requires_grad=False", UserWarning)
        yield
