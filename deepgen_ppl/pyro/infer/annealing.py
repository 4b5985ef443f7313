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

from deepgen_ppl.annealing import Moves, Schedule, next_temperature
from deepgen_ppl.evidence_checks import refuse_start
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.kernels import hmc
from deepgen_ppl.pyro.path import Densities, Path

_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk of rows may take, roughly."""
_JITTER = 0.25
_TARGET = 0.8
_TURN = 1.6  # longest trajectory: a quarter of a turn in units of the widths
_PILOT_FRACTION, _PILOT_MOVES, _FIRST_MOVES = 0.8, 6, 15
_FEWEST_PILOTS, _MOST_PILOTS = 64, 256
_MOST_STAGES = 1000


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
    """

    path: Path
    num_leapfrogs: int
    tell: Callable[[int], Any] = lambda count: None
    gradients: int = field(default=0, init=False)
    compile_seconds: float = field(default=0.0, init=False)

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
        self, generator: torch.Generator, chains: Chains, moves: Moves
    ) -> tuple[Chains, np.ndarray]:
        """Make moves, one after the other.

        Args:
            generator: Source of random numbers.
            chains: The chains.
            moves: The moves.

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
                chains, acceptance = self._move(generator, chains, beta, sizes[t], scales[t])
                rate = acceptance.mean(0)
            rates.append(rate)
            self.tell(1)
        self.gradients += int(np.sum(moving)) * self.num_leapfrogs * chains.log_weights.numel()
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

        def value_and_grad(shift: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal last
            last = self.path.densities(origin + _times(root, shift))
            return _energy(last, beta, root)

        like: dict[str, Any] = {"dtype": origin.dtype, "device": origin.device}
        jitter = torch.rand(chains.log_weights.shape, generator=generator, **like)
        state = hmc.HMCState(torch.zeros_like(origin), *_energy(last, beta, root))
        state, info = hmc.step(
            generator, state, value_and_grad, num_steps=self.num_leapfrogs,
            step_size=size * (1.0 - _JITTER + 2.0 * _JITTER * jitter),
        )  # fmt: skip
        accepted, moved = info.accepted, info.accepted.unsqueeze(-1)
        pairs = zip(chains.densities, last, strict=True)
        densities = (
            torch.where(accepted if old.dim() == accepted.dim() else moved, new, old)
            for old, new in pairs
        )
        position = origin + _times(root, state.position)
        return Chains(position, Densities(*densities), chains.log_weights), info.acceptance


def pilot(
    climb: Climb,
    generator: torch.Generator,
    *,
    num_chains: int | None = None,
    fraction: float = _PILOT_FRACTION,
    dense: bool | None = None,
) -> Schedule:
    """Find temperatures, step sizes and scales on chains that climb and are resampled on the way.

    What follows is run at what was found, with other random numbers, so that its estimates are as
    unbiased as if all had been chosen beforehand.

    Args:
        climb: The moves.
        generator: Source of random numbers.
        num_chains: Number of chains; 64 to 256, by the number of coordinates, when None.
        fraction: Effective fraction that each step in temperature keeps.
        dense: Whether scales are lower factors of covariances; where these fit when None.

    Raises:
        ValueError: The joint density is nowhere finite, or NaN, at draws of the reference.
    """
    tell, climb.tell = climb.tell, lambda count: None
    if num_chains is None:
        num_chains = int(np.clip(2 * climb.path.dim, _FEWEST_PILOTS, _MOST_PILOTS))
    dense = _fits(climb.path, num_chains) if dense is None else dense
    chains = climb.begin(generator, num_chains)
    beta = np.zeros(climb.path.shape[:-1])
    sizes = np.full(beta.shape, 1.0 / climb.num_leapfrogs)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for stage in range(_MOST_STAGES):
        differences = chains.differences
        _check(climb.path, chains, differences, stage)
        above = next_temperature(differences.cpu().numpy(), beta, fraction)
        above = np.ones_like(beta) if stage == _MOST_STAGES - 1 else above
        gap = torch.as_tensor(above - beta).to(differences)
        weights = torch.softmax(torch.where(gap > 0, gap * differences, 0.0), 0)
        root = spread(chains.position, weights, dense)
        chains = chains.take(systematic(generator, weights, num_chains))
        chains, sizes = _settle(climb, generator, chains, above, sizes, root, stage)
        found.append((above, sizes, root.cpu().double().numpy()))
        beta = above
        if (beta >= 1.0).all():
            break
    climb.tell = tell
    return Schedule(
        *(
            np.concatenate([np.zeros_like(part[0])[None] if not i else part[0][None], part])
            for i, part in enumerate(map(np.stack, zip(*found, strict=True)))
        )
    )


def _settle(
    climb: Climb,
    generator: torch.Generator,
    chains: Chains,
    beta: np.ndarray,
    sizes: np.ndarray,
    root: Tensor,
    stage: int,
) -> tuple[Chains, np.ndarray]:
    """Move chains at one temperature while step sizes approach an acceptance of 0.8."""
    scales, still = root.cpu().double().numpy(), np.zeros_like(beta)
    count = _PILOT_MOVES if stage else _FIRST_MOVES
    kept = []
    for number in range(count):
        moves = Moves(*(part[None] for part in (beta, still, sizes, scales)))
        chains, acceptance = climb.run(generator, chains, moves)
        change = 2.0 * (acceptance[0] - _TARGET) / (1.0 + number) ** 0.6
        sizes = np.minimum(sizes * np.exp(change), _TURN / climb.num_leapfrogs)
        kept.append(np.log(sizes))
    return chains, np.exp(np.mean(kept[count // 2 :], axis=0))


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


def spread(
    position: Float[Tensor, "K *rows D"], weights: Float[Tensor, " K *rows"], dense: bool
) -> Tensor:
    r"""Return the widths of weighted particles: standard deviations, or factors of covariances.

    Correlations are shrunk towards zero by how far chance may make them up.

    Args:
        position: The particles.
        weights: Weights that sum to one over axis 0.
        dense: Whether to return lower factors.

    Returns:
        Standard deviations `(*rows, D)`, or lower factors `(*rows, D, D)`.

    References:
        Schäfer and Strimmer: A shrinkage approach to large-scale covariance matrix estimation.
        Statistical Applications in Genetics and Molecular Biology 4(1), 2005.
        https://doi.org/10.2202/1544-6115.1175
    """
    share = weights.unsqueeze(-1).to(position)
    centred = position - (share * position).sum(0)
    deviation = (share * centred**2).sum(0).sqrt() + 1e-6
    if not dense:
        return deviation
    standard = centred / deviation
    correlation = torch.einsum("k...d,k...e->...de", share * standard, standard)
    eye = torch.eye(position.shape[-1]).to(position)
    others = 1.0 - eye
    squares = others * correlation.square().clamp(max=1.0)
    noise = (others * (1.0 - squares) ** 2).sum((-1, -2)) * (share[..., 0] ** 2).sum(0)
    kept = 1.0 - (noise / squares.sum((-1, -2)).clamp(min=1e-30)).clamp(0.0, 1.0)
    shrunk = kept[..., None, None] * others * correlation + eye * (1.0 + 1e-5)
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    sound = (failed == 0) & factor.isfinite().all(-1).all(-1)
    factor = torch.where(sound[..., None, None], factor, eye)
    return deviation.unsqueeze(-1) * factor


def parts(path: Path, num_chains: int, batch_size: int | None) -> Iterator[tuple[Path, int]]:
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
    numbers = 16 * sum(math.prod(site.shape) for site in sites) // size + 1
    length = batch_size or int(np.clip(_CHUNK_NUMBERS // (numbers * num_chains), 1, size))
    if length >= size:
        yield path, size
        return
    for start in range(0, size, length):
        rows = np.minimum(np.arange(start, start + length), size - 1)
        yield path.take(torch.as_tensor(rows)), min(length, size - start)


def join(path: Path, pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the sites of chunks of rows, `(K, *shape)` each, as those of all rows."""
    if path.rows is None:
        return pieces[0]
    axis = {n: 1 + path.pair.model.sites[n].plates.index(path.rows) for n in pieces[0]}
    return {n: np.concatenate([p[n] for p in pieces], axis=axis[n]) for n in pieces[0]}


def cut(path: Path, sites: Mapping[str, np.ndarray], used: int) -> dict[str, np.ndarray]:
    """Return the sites of the first rows of a chunk, `(K, *shape)` each."""
    if path.rows is None:
        return dict(sites)
    axis = {n: 1 + path.pair.model.sites[n].plates.index(path.rows) for n in sites}
    return {n: np.take(v, np.arange(used), axis=axis[n]) for n, v in sites.items()}


def as_posterior(path: Path, draws: Mapping[str, np.ndarray], method: str, began: float,
                 **fields: Any) -> Posterior:  # fmt: skip
    """Return draws `(K, *shape)` as a posterior of one chain with its evaluators."""
    from deepgen_ppl.pyro.infer.evaluate import fields as about

    model = path.pair.model
    row_axis = {} if path.rows is None else {n: model.sites[n].plates.index(path.rows)
                                             for n in draws}  # fmt: skip
    attrs = {
        "compiled": path.compiled,
        "compiled_reason": path.reason,
        "sampling_time": time.perf_counter() - began,
        **fields.pop("attrs", {}),
    }
    return Posterior(
        {name: value[None] for name, value in draws.items()},
        method=method,
        row_dim=path.rows,
        row_axis=row_axis,
        independent=True,
        attrs=attrs,
        **about(model, path.params, path.data),
        **fields,
    )


def _energy(densities: Densities, beta: float | Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return the potential energy at a temperature, and its gradient in units of the root."""
    energy, gradient = densities.energy(beta)
    return energy, _times(root, gradient, transposed=True)


def _times(root: Tensor, z: Tensor, transposed: bool = False) -> Tensor:
    """Return L z or L^T z of each chain, where L may be given by its diagonal."""
    if root.dim() < z.dim():
        return root * z
    if z.dim() == 2:
        return z @ (root if transposed else root.T)
    return torch.einsum("ned,kne->knd" if transposed else "nde,kne->knd", root, z)


def _fits(path: Path, num_chains: int) -> bool:
    """Tell whether factors of covariances fit in memory at a thousand temperatures."""
    numbers = 1000 * path.dim**2 * (path.num_rows or 1)
    return 1 < path.dim <= num_chains and numbers <= _CHUNK_NUMBERS


def _check(path: Path, chains: Chains, differences: Tensor, stage: int) -> None:
    """Refuse chains at which the joint density is NaN, or zero for all of them at the start."""
    nan = differences.isnan() | (differences == math.inf)
    dead = (differences == -math.inf).all(0) & (stage == 0)
    if not bool(nan.any() | dead.any()):
        return
    rows = torch.arange(0) if path.rows is None else (nan.any(0) | dead).nonzero().flatten()
    rows = rows if path.index is None else path.index[rows]
    bad = nan if bool(nan.any()) else dead.expand(nan.shape)
    first = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
    refuse_start(*path.first_nonfinite(chains.position[first]), rows.tolist())
