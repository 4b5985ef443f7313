"""The pilot run of a climb: which temperatures, step sizes and scales it takes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from deepgen_ppl.annealing import Moves, Schedule, next_step_size, next_temperature, systematic
from deepgen_ppl.evidence_checks import refuse_start
from deepgen_ppl.numpyro.infer.annealing import Climb

_PILOT_CHAINS, _PILOT_FRACTION, _PILOT_MOVES, _FIRST_MOVES = (64, 256), 0.8, 3, 15
_MOST_STAGES = 1000


def pilot(
    climb: Climb,
    key: Array,
    *,
    num_chains: int,
    fraction: float = _PILOT_FRACTION,
) -> Schedule:
    """Find temperatures, step sizes and scales on chains that climb and are resampled on the way.

    What follows is run at what was found, with other random numbers, so that its estimates are as
    unbiased as if all had been chosen beforehand.

    Args:
        climb: The moves.
        key: Random key.
        num_chains: Number of chains that will follow; the pilot has as many, from 64 to 256.
        fraction: Effective fraction that each step in temperature keeps.

    Raises:
        ValueError: The joint density is nowhere finite, or NaN, at draws of the reference.
    """
    began, told = random.split(key)
    num_chains = int(np.clip(num_chains, *_PILOT_CHAINS))
    climb.tell, tell = lambda count: None, climb.tell
    z = np.asarray(climb.begin(began, num_chains).position)
    beta, sizes = np.zeros(z.shape[1:-1]), np.full(z.shape[1:-1], 0.5 / climb.num_leapfrogs)
    rng = np.random.default_rng(np.asarray(random.key_data(told), np.uint32))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    number = 0
    for stage in range(_MOST_STAGES):
        differences = np.subtract(*climb.log_densities(jnp.asarray(z))[::-1])
        _check(climb, z, differences, stage)
        last = stage == _MOST_STAGES - 1
        above = np.ones_like(beta) if last else next_temperature(differences, beta, fraction)
        weights = _normalise((above - beta) * np.where(above > beta, differences, 0.0))
        scale = _spread(z, weights)
        z = np.take_along_axis(z, systematic(weights, rng.random(beta.shape))[..., None], axis=0)
        for _ in range(_PILOT_MOVES if stage else _FIRST_MOVES):
            moves = Moves(*(part[None] for part in (above, np.zeros_like(above), sizes, scale)))
            at = climb.at(jnp.asarray(z))
            chains, acceptance = climb.run(random.fold_in(told, number), at, moves, number)
            z, number = np.asarray(chains.position), number + 1
            sizes = next_step_size(sizes, acceptance[0], climb.num_leapfrogs)
        found.append((above, sizes, scale))
        beta = above
        if (beta >= 1.0).all():
            break
    climb.tell = tell
    betas, sizes, scales = (np.stack(part) for part in zip(*found, strict=True))
    return Schedule(
        np.concatenate([np.zeros_like(betas[:1]), betas]),
        np.concatenate([sizes[:1], sizes]),
        np.concatenate([scales[:1], scales]),
    )


def _check(climb: Climb, z: np.ndarray, differences: np.ndarray, stage: int) -> None:
    bad = np.isnan(differences) | (differences == np.inf)
    if not bad.any() and stage == 0:
        bad = np.broadcast_to(~np.isfinite(differences).any(axis=0), bad.shape)
    if not bad.any():
        return
    worst = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
    path = climb.path.at(climb.path.params, climb.path.inputs, climb.index)
    rows = np.flatnonzero(bad[worst]) if path.rows is not None else np.array([], int)
    rows = rows if climb.index is None else np.asarray(climb.index)[rows]
    value = float(np.nan if np.isnan(differences).any() else -np.inf)
    for name, log_prob in path.site_log_probs(jnp.asarray(z[worst])).items():
        odd = ~np.isfinite(np.asarray(log_prob))
        if odd.any():
            refuse_start(name, float(np.asarray(log_prob)[odd].flat[0]), rows.tolist())
    refuse_start(None, value, rows.tolist())


def _normalise(log_weights: np.ndarray) -> np.ndarray:
    largest = log_weights.max(axis=0)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, 0.0))
    return weights / weights.sum(axis=0)


def _spread(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted standard deviation of each coordinate."""
    z, weights = np.asarray(z, np.float64), weights[..., None]
    mean = (weights * z).sum(axis=0)
    return np.sqrt((weights * (z - mean) ** 2).sum(axis=0)) + 1e-6
