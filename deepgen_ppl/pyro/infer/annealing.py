"""Climbing temperatures: the chains of a path, their pilot run and their moves, on a flat graph."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import discrete as discrete_
from deepgen_ppl.annealing import Moves
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.kernels import gibbs, hmc
from deepgen_ppl.pyro.mixed import MixedPath, find_table
from deepgen_ppl.pyro.path import Densities, Path

_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk of rows may take, roughly."""
_JITTER = 0.25


class Chains(NamedTuple):
    """Chains on a path.

    Attributes:
        position: Where they are, `(K, *rows, D)`.
        densities: Both log densities there, with gradients.
        log_weights: Their log weights in double precision, `(K, *rows)`.
    """

    position: Float[Tensor, "K *rows D"]
    densities: Densities
    log_weights: Float[Tensor, " K *rows"]

    @property
    def differences(self) -> Float[Tensor, " K *rows"]:
        """Log target less log reference, in double precision."""
        reference, target = self.densities.log_reference, self.densities.log_target
        found = target.double() - reference.double()
        return torch.where(target == -math.inf, -math.inf, found)

    def take(self, chosen: Int[Tensor, " S *rows"]) -> Chains:
        """Return the chains of these numbers, of each row its own."""

        def pick(value: Tensor) -> Tensor:
            if value.dim() == chosen.dim():
                return value.gather(0, chosen)
            index = chosen.unsqueeze(-1)
            return value.gather(0, index.expand(*chosen.shape, value.shape[-1]))

        densities = Densities(*map(pick, self.densities))
        return Chains(pick(self.position), densities, pick(self.log_weights))


@dataclass
class Climb:
    """The moves of chains on a path.

    Attributes:
        path: The path.
        num_leapfrogs: Leapfrog steps of a transition.
        tell: Told the number of moves after each.
        gradients: Gradients taken so far, of one row each where the path is by rows.
        compile_seconds: Time of the first gradients, which trace the program.
        table: The blocks in which discrete coordinates move, None where there are none.
        discrepancy: Largest relative difference of terms put together in a sweep from the whole.
    """

    path: Path | MixedPath
    num_leapfrogs: int
    tell: Callable[[int], Any] = lambda count: None
    table: gibbs.Table | None = None
    gradients: int = field(default=0, init=False)
    compile_seconds: float = field(default=0.0, init=False)
    discrepancy: float = field(default=0.0, init=False)

    def begin(self, generator: torch.Generator, num_chains: int) -> Chains:
        """Return chains at exact draws of the reference.

        Args:
            generator: Source of the draws.
            num_chains: Their number K.
        """
        return self.at(self.path.sample(generator, num_chains))

    def at(self, position: Float[Tensor, "K *rows D"]) -> Chains:
        """Return chains of equal weight at some positions."""
        began = time.perf_counter()
        densities = self.path.densities(position)
        self.compile_seconds += time.perf_counter() - began
        return Chains(position, densities, torch.zeros_like(densities.log_target).double())

    def weigh(self, chains: Chains, increment: Float[np.ndarray, " *rows"] | float) -> Chains:
        """Add so much of log target less log reference to the log weights."""
        by = torch.as_tensor(increment).to(chains.log_weights)
        gained = torch.where(by > 0, by * chains.differences, 0.0)
        return chains._replace(log_weights=chains.log_weights + gained)

    def run(
        self, generator: torch.Generator, chains: Chains, moves: Moves, backwards: bool = False
    ) -> tuple[Chains, np.ndarray]:
        """Make moves, one after the other.

        Trajectories of the continuous coordinates come first and a sweep over the discrete ones
        after them, or the other way round: then a move is the reversal of what it is else.

        Args:
            generator: Source of random numbers.
            chains: The chains.
            moves: The moves.
            backwards: Whether moves are reversed.

        Returns:
            The chains, and the mean acceptance probability of each move, `(T, *rows)`.
        """
        like = chains.position
        betas, sizes, scales = (
            torch.as_tensor(part).to(like)
            for part in (moves.temperatures, moves.step_sizes, moves.scales)
        )
        rising, moving = (
            np.any(np.reshape(part, (len(betas), -1)), axis=1)
            for part in (moves.increments, moves.step_sizes)
        )
        rates = []
        for t in range(len(betas)):
            if rising[t]:
                chains = self.weigh(chains, moves.increments[t])
            rate = torch.ones_like(sizes[t])
            if moving[t]:
                beta = float(betas[t]) if betas.dim() == 1 else betas[t]
                if backwards:
                    chains = self._sweep(generator, chains, beta, t, backwards)
                if self.path.num_free:
                    chains, acceptance = self._move(generator, chains, beta, sizes[t], scales[t])
                    rate = acceptance.mean(0)
                if not backwards:
                    chains = self._sweep(generator, chains, beta, t, backwards)
            rates.append(rate)
            self.tell(1)
        each = self.num_leapfrogs * bool(self.path.num_free) + (self.table is not None)
        self.gradients += int(np.sum(moving)) * each * chains.log_weights.numel()
        return chains, torch.stack(rates).cpu().double().numpy()

    def resample(
        self, generator: torch.Generator, chains: Chains, num_islands: int
    ) -> tuple[Chains, Float[np.ndarray, "G ..."]]:
        """Resample chains systematically within islands, which are consecutive chains.

        Args:
            generator: Source of random numbers.
            chains: The chains; their weights are one afterwards.
            num_islands: Number G of islands.

        Returns:
            The chains, and the log of the mean weight of each island.
        """
        log_w = chains.log_weights
        size = len(log_w) // num_islands
        islands = log_w.reshape(num_islands, size, *log_w.shape[1:]).movedim(0, 1)
        means = torch.logsumexp(islands, 0) - math.log(size)
        lost = islands.max(0).values == -math.inf  # an island without weight is kept as it is
        weights = torch.softmax(torch.where(lost, 0.0, islands), 0)
        chosen = systematic(generator, weights, size)
        first = size * torch.arange(num_islands, device=chosen.device)
        chosen = chosen + first.reshape(-1, *[1] * (log_w.dim() - 1))
        chains = chains.take(chosen.movedim(1, 0).reshape(log_w.shape))
        return chains._replace(log_weights=torch.zeros_like(log_w)), means.cpu().numpy()

    def _sweep(
        self, generator: torch.Generator, chains: Chains, beta: float | Tensor, number: int,
        backwards: bool,
    ) -> Chains:  # fmt: skip
        """Draw the discrete coordinates, where there are any, by Gibbs sampling."""
        if self.table is None or not isinstance(self.path, MixedPath):
            return chains
        check = number % discrete_.CHECKED_EVERY == 0
        options: dict[str, Any] = {"backwards": backwards, "check": check}
        z, error = self.path.sweep(generator, chains.position, beta, self.table, **options)
        self.discrepancy = max(self.discrepancy, error)
        return Chains(z, self.path.densities(z), chains.log_weights)

    def _move(
        self,
        generator: torch.Generator,
        chains: Chains,
        beta: float | Tensor,
        size: Tensor,
        root: Tensor,
    ) -> tuple[Chains, Tensor]:
        """Move chains by HMC that leaves the density of a temperature as it is."""
        origin, last = chains.position, chains.densities
        still = origin[..., self.path.num_free :]

        def moved(shift: Tensor) -> Tensor:
            free = origin[..., : self.path.num_free] + _times(root, shift)
            return torch.cat([free, still], -1) if still.shape[-1] else free

        def value_and_grad(shift: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal last
            last = self.path.densities(moved(shift))
            return _energy(last, beta, root)

        like: dict[str, Any] = {"dtype": origin.dtype, "device": origin.device}
        jitter = torch.rand(chains.log_weights.shape, generator=generator, **like)
        nothing = torch.zeros_like(origin[..., : self.path.num_free])
        state = hmc.HMCState(nothing, *_energy(last, beta, root))
        state, info = hmc.step(
            generator, state, value_and_grad, num_steps=self.num_leapfrogs,
            step_size=size * (1.0 - _JITTER + 2.0 * _JITTER * jitter),
        )  # fmt: skip
        accepted, each = info.accepted, info.accepted.unsqueeze(-1)
        pairs = zip(chains.densities, last, strict=True)
        densities = (
            torch.where(accepted if old.dim() == accepted.dim() else each, new, old)
            for old, new in pairs
        )
        position = moved(state.position)
        return Chains(position, Densities(*densities), chains.log_weights), info.acceptance


def systematic(
    generator: torch.Generator, weights: Float[Tensor, " K *rows"], num: int
) -> Int[Tensor, " num *rows"]:
    """Return the particles drawn by systematic resampling, for each row.

    Args:
        generator: Source of one uniform number for each row.
        weights: Weights that sum to one over axis 0.
        num: Number of draws.

    References:
        Douc, Cappé, Moulines: Comparison of resampling schemes for particle filtering. 2005.
        https://arxiv.org/abs/cs/0507025
    """
    cumulative = weights.double().cumsum(0).movedim(0, -1).contiguous()
    cumulative = cumulative / cumulative[..., -1:]
    like: dict[str, Any] = {"dtype": cumulative.dtype, "device": cumulative.device}
    offset = torch.rand(cumulative.shape[:-1], generator=generator, **like)
    places = (offset.unsqueeze(-1) + torch.arange(num, **like)) / num
    chosen = torch.searchsorted(cumulative, places.contiguous(), right=True)
    return chosen.clamp(max=len(weights) - 1).movedim(-1, 0)


def with_blocks(
    path: Path | MixedPath, seed: int, work: Callable[[gibbs.Table | None], Any]
) -> Any:
    """Do work whose discrete coordinates move in blocks, again one by one where these are wrong.

    Args:
        path: The path.
        seed: Seed of the points at which blocks are looked for.
        work: Blocks, None where nothing is discrete, to what it leaves, with its `attrs` and its
            `discrepancy`.
    """
    if not isinstance(path, MixedPath):
        return work(None)
    generator = torch.Generator(path.device).manual_seed(seed)
    table = find_table(path, generator)
    found = work(table)
    if found.discrepancy > discrete_.MOST_DISCREPANCY:
        table = find_table(path, generator, apart=True)
        found = work(table)
    found.attrs["num_blocks"] = len(table.places) + len(table.singles)
    return found


def parts(
    path: Path | MixedPath, num_chains: int, batch_size: int | None
) -> Iterator[tuple[Path | MixedPath, int]]:
    """Yield the path at some rows, a chunk at a time, and how many of them count.

    All chunks have one length: the last one repeats the last row.

    Args:
        path: The path.
        num_chains: Number of chains at each row.
        batch_size: Rows of a chunk; None chooses as many as fit in memory.
    """
    size = path.num_rows
    if size is None:
        yield path, 0
        return
    sites = [site for program in path.pair.programs for site in program.sites.values()]
    numbers = 16 * path.copies * sum(math.prod(site.shape) for site in sites) // size + 1
    length = batch_size or int(np.clip(_CHUNK_NUMBERS // (numbers * num_chains), 1, size))
    if length >= size:
        yield path, size
        return
    for start in range(0, size, length):
        rows = np.minimum(np.arange(start, start + length), size - 1)
        yield path.take(torch.as_tensor(rows)), min(length, size - start)


def as_posterior(path: Path | MixedPath, draws: Mapping[str, np.ndarray], method: str, began: float,
                 **fields: Any) -> Posterior:  # fmt: skip
    """Return draws `(K, *shape)` as a posterior of one chain with its evaluators."""
    from deepgen_ppl.pyro.infer.evaluate import fields as about
    from deepgen_ppl.pyro.infer.evaluate import restoring

    model = path.pair.model
    attrs = {"sampling_time": time.perf_counter() - began, **fields.pop("attrs", {})}
    found = about(model, path.params, path.data)
    if isinstance(path, MixedPath):
        restored = path.coordinates.restored
        found["evaluators"] = restoring(restored, found["evaluators"])
    return Posterior(
        {name: value[None] for name, value in draws.items()},
        method=method,
        row_dim=path.rows,
        row_axis=path.row_axes,
        independent=True,
        attrs=attrs,
        **found,
        **fields,
    )


def _energy(densities: Densities, beta: float | Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return the potential energy at a temperature, and its gradient in units of the root."""
    energy, gradient = densities.energy(beta)
    return energy, _times(root, gradient[..., : root.shape[-1]], transposed=True)


def _times(root: Tensor, z: Tensor, transposed: bool = False) -> Tensor:
    """Return L z or L^T z of each chain, where L may be given by its diagonal."""
    if root.dim() < z.dim():
        return root * z
    if z.dim() == 2:
        return z @ (root if transposed else root.T)
    return torch.einsum("ned,kne->knd" if transposed else "nde,kne->knd", root, z)
