"""The pilot run of a climb: which temperatures, step sizes and scales it takes."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl.annealing import Moves, Schedule, next_temperature
from deepgen_ppl.evidence_checks import refuse_start
from deepgen_ppl.pyro.infer.annealing import Chains, Climb, systematic
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.path import Path

_MOST_NUMBERS = 1 << 24  # of the covariances' factors
_TARGET = 0.8
_TURN = 1.6  # longest trajectory: a quarter of a turn in units of the widths
_PILOT_FRACTION, _PILOT_MOVES, _FIRST_MOVES = 0.8, 6, 15
_FEWEST_PILOTS, _MOST_PILOTS = 64, 256
_MOST_STAGES = 1000


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
        root = spread(chains.position[..., : climb.path.num_free], weights, dense)
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


def _fits(path: Path | MixedPath, num_chains: int) -> bool:
    """Tell whether factors of covariances fit in memory at a thousand temperatures."""
    numbers = 1000 * path.num_free**2 * (path.num_rows or 1)
    return 1 < path.num_free <= num_chains and numbers <= _MOST_NUMBERS


def _check(path: Path | MixedPath, chains: Chains, differences: Tensor, stage: int) -> None:
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
