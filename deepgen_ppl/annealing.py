"""Climbing from a reference to a posterior: how temperatures are spaced, and the moves at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from deepgen_ppl.evidence import Evidence, evidence


def next_temperature(
    differences: Float[np.ndarray, "K ..."],
    beta: Float[np.ndarray, "..."],
    target: float,
) -> Float[np.ndarray, "..."]:
    r"""Return the temperature up to which equally weighted particles keep an effective fraction.

    The largest \(\beta' \le 1\) whose conditional effective sample size is at least the target,

    \[ \frac{\bigl(\tfrac1K \sum_k w_k\bigr)^2}{\tfrac1K \sum_k w_k^2} \ge \text{target},
       \qquad w_k = e^{(\beta' - \beta)\,\delta_k}, \qquad \delta = \log p(x, z) - \log q(z), \]

    by bisection. Particles of weight zero leave at the first step and count against no other.

    Args:
        differences: \(\delta\) of K particles, for each row; -inf is allowed.
        beta: Temperature they are at.
        target: Effective fraction, between 0 and 1.

    References:
        Zhou, Johansen, Aston: Toward automatic model comparison: an adaptive sequential Monte Carlo
        approach. 2016. https://arxiv.org/abs/1303.3123

    Example:
        >>> float(next_temperature(np.zeros(10), np.zeros(()), 0.9))
        1.0
        >>> bool(0 < next_temperature(np.arange(10.0) ** 2, np.zeros(()), 0.9) < 0.1)
        True
    """
    delta = np.asarray(differences, np.float64)
    alive = np.isfinite(delta)
    share = alive.mean(axis=0)
    largest = np.max(np.where(alive, delta, -np.inf), axis=0)
    below = np.where(alive, delta - np.where(share > 0, largest, 0.0), -np.inf)

    def fraction(step: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            weights = np.where(alive, np.exp(step * np.where(alive, below, 0.0)), 0.0)
        total, squares = weights.mean(axis=0), (weights**2).mean(axis=0)
        return total**2 / np.where(squares > 0, squares, 1.0) / np.where(share > 0, share, 1.0)

    room = 1.0 - np.asarray(beta, np.float64)
    low, high = np.log(np.full(room.shape, 1e-12)), np.log(np.maximum(room, 1e-12))
    whole = (fraction(room) >= target) | (share == 0)
    for _ in range(50):
        middle = 0.5 * (low + high)
        enough = fraction(np.exp(middle)) >= target
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return np.where(whole, 1.0, np.minimum(beta + np.exp(low), 1.0))


@dataclass(frozen=True, eq=False)
class Schedule:
    """Temperatures, and how to move at each: what a pilot run found, for each row.

    Attributes:
        temperatures: From 0 to 1, the same number for all rows; a row may stand at 1 early.
        step_sizes: Leapfrog step at each temperature.
        scales: Width of the density along each coordinate, at each temperature.
    """

    temperatures: Float[np.ndarray, "T+1 ..."]
    step_sizes: Float[np.ndarray, "T+1 ..."]
    scales: Float[np.ndarray, "T+1 ... D"]

    def refine(self, num: int) -> "Schedule":
        r"""Return a schedule of other length, its steps equally far apart in thermodynamic length.

        The temperatures of a pilot run are equally far apart, since each step was made as long as
        the conditional effective sample size allowed; what lies between them is interpolated.

        Args:
            num: Number T of steps.

        References:
            Gelman and Meng: Simulating normalizing constants. Statistical Science 13(2), 1998.
            https://doi.org/10.1214/ss/1028905934

        Example:
            >>> coarse = Schedule(np.array([0.0, 0.1, 1.0]), np.ones(3), np.ones((3, 2)))
            >>> coarse.refine(4).temperatures.tolist()
            [0.0, 0.05, 0.1, 0.55, 1.0]
        """
        length = len(self.temperatures) - 1
        rows = self.temperatures.reshape(length + 1, -1)
        # A row is done where it first stands at 1; what comes later is not to be spread over.
        done = np.argmax(rows >= 1.0, axis=0)
        at = np.linspace(0.0, 1.0, num + 1)[:, None] * done
        below = np.minimum(at.astype(int), np.maximum(done - 1, 0))
        weight = at - below

        def between(values: np.ndarray) -> np.ndarray:
            flat = values.reshape(length + 1, rows.shape[1], -1)
            column = np.arange(rows.shape[1])
            low, high = flat[below, column], flat[below + 1, column]
            found = low + weight[..., None] * (high - low)
            return found.reshape(num + 1, *values.shape[1:])

        temperatures = between(self.temperatures)
        temperatures[-1] = 1.0
        return Schedule(temperatures, between(self.step_sizes), between(self.scales))

    def rows(self, chosen: np.ndarray | slice) -> "Schedule":
        """Return the schedule of some rows."""
        parts = (self.temperatures, self.step_sizes, self.scales)
        return Schedule(*(part[:, chosen] for part in parts))


class Moves(NamedTuple):
    """Steps of a climb: first weights change, then all positions move, at one temperature each.

    Attributes:
        temperatures: Temperature of each move.
        increments: By how much of log p - log q the log weights change before it.
        step_sizes: Leapfrog step of each move; 0 does not move.
        scales: Width of the density along each coordinate.
    """

    temperatures: np.ndarray
    increments: np.ndarray
    step_sizes: np.ndarray
    scales: np.ndarray


class Climbed(NamedTuple):
    """What the chains of a climb leave.

    Attributes:
        log_weights: Log weights of the chains, or log estimates of the islands.
        draws: The model's sites at the chains' ends.
        attrs: How it went.
        discrepancy: Largest relative difference of terms put together in a sweep over discrete
            coordinates from the whole.
    """

    log_weights: np.ndarray
    draws: dict[str, np.ndarray]
    attrs: dict[str, Any]
    discrepancy: float


def upwards(schedule: Schedule, num_moves: int = 1) -> Moves:
    r"""Return the moves of annealed importance sampling from the reference to the target.

    \[ \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \, \delta(z_{t-1}), \qquad
       z_t \sim K_{\beta_t}(z_{t-1}) \]

    Args:
        schedule: The temperatures.
        num_moves: Transitions at each of them.
    """
    betas = schedule.temperatures
    increments = np.zeros((len(betas) - 1, num_moves, *betas.shape[1:]))
    increments[:, 0] = np.diff(betas, axis=0)
    again = [np.repeat(part[1:], num_moves, axis=0) for part in
             (betas, schedule.step_sizes, schedule.scales)]  # fmt: skip
    return Moves(again[0], increments.reshape(-1, *betas.shape[1:]), again[1], again[2])


def downwards(schedule: Schedule) -> Moves:
    r"""Return the moves of reverse annealing, from an exact draw of the target to the reference.

    \[ \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \, \delta(z_{t-1}), \qquad
       z_{t-1} \sim K_{\beta_t}(z_t), \qquad \mathbb E\, w^{-1} = Z^{-1} \]

    since each transition is reversible.

    Args:
        schedule: The temperatures.
    """
    betas, steps = schedule.temperatures, np.diff(schedule.temperatures, axis=0)
    still = np.zeros_like(betas[:1])
    return Moves(
        np.concatenate([betas[:0:-1], betas[1:2]]),
        np.concatenate([still, steps[::-1]]),
        np.concatenate([schedule.step_sizes[:0:-1], still]),
        np.concatenate([schedule.scales[:0:-1], schedule.scales[1:2]]),
    )


def padded(moves: Moves, start: int, length: int) -> Moves:
    """Return some of the moves, the last one repeated where there are no more.

    Args:
        moves: All moves.
        start: The first of them.
        length: Their number.
    """
    chosen = np.minimum(np.arange(start, start + length), len(moves.temperatures) - 1)
    return Moves(*(part[chosen] for part in moves))


def next_step_size(
    step_sizes: Float[np.ndarray, "..."],
    acceptance: Float[np.ndarray, "..."],
    num_leapfrogs: int,
) -> Float[np.ndarray, "..."]:
    """Return step sizes moved towards an acceptance of 0.8, trajectories no longer than 2 widths.

    Args:
        step_sizes: Leapfrog steps, in widths of the density.
        acceptance: Mean acceptance probability they had.
        num_leapfrogs: Steps of a trajectory.
    """
    return np.clip(step_sizes * np.exp(2.0 * (acceptance - 0.8)), 1e-5, 2.0 / num_leapfrogs)


def systematic(weights: Float[np.ndarray, "K ..."], uniform: np.ndarray) -> np.ndarray:
    """Return the particles drawn by systematic resampling, for each row.

    Args:
        weights: Weights that sum to one over axis 0.
        uniform: A number between 0 and 1 for each row.
    """
    size = len(weights)
    table = weights.reshape(size, -1)
    start = np.broadcast_to(uniform, weights.shape[1:]).reshape(-1)
    drawn = np.empty(table.shape, int)
    for column, (row, first) in enumerate(zip(table.T, start, strict=True)):
        cumulative = np.cumsum(row)
        points = (first + np.arange(size)) / size * cumulative[-1]
        points = np.minimum(points, np.nextafter(cumulative[-1], 0.0))
        drawn[:, column] = np.searchsorted(cumulative, points, side="right")
    return drawn.reshape(weights.shape)


def staying(schedule: Schedule, num: int) -> Moves:
    """Return transitions of the target.

    Args:
        schedule: The temperatures, of which the last counts.
        num: Number of transitions.
    """
    last = (schedule.temperatures, schedule.temperatures, schedule.step_sizes, schedule.scales)
    moves = Moves(*(np.repeat(part[-1:], num, axis=0) for part in last))
    return moves._replace(increments=np.zeros_like(moves.increments))


def cut(sites: Mapping[str, np.ndarray], axes: Mapping[str, int], used: int) -> dict:
    """Return the sites of the first rows of a chunk.

    Args:
        sites: Values of each site, `(K, *shape)`.
        axes: Axis of the rows in the shape of each; empty where there are no rows.
        used: Number of rows.
    """
    return {n: np.take(v, np.arange(used), axis=1 + axes[n]) if n in axes else v
            for n, v in sites.items()}  # fmt: skip


def join(pieces: Sequence[Mapping[str, np.ndarray]], axes: Mapping[str, int]) -> dict:
    """Return the sites of chunks of rows as those of all rows.

    Args:
        pieces: Values of each site of each chunk, `(K, *shape)`.
        axes: Axis of the rows in the shape of each; empty where there are no rows.

    Example:
        >>> join([{"z": np.zeros((5, 2))}, {"z": np.zeros((5, 1))}], {"z": 0})["z"].shape
        (5, 3)
    """
    if not axes:
        return dict(pieces[0])
    return {n: np.concatenate([piece[n] for piece in pieces], axis=1 + axes[n]) for n in pieces[0]}


def of_islands(log_z: Float[np.ndarray, "G ..."], num_particles: int, rows: str | None) -> Evidence:
    """Return the evidence of independent unbiased estimates, one of each island.

    Args:
        log_z: Log estimates, `(G,)` or `(G, N)`.
        num_particles: Number of particles in all islands.
        rows: Name of the data plate where there are rows.
    """
    found = evidence(log_z, rows=rows, method=f"sequential Monte Carlo, {len(log_z)} islands")
    ess = found.ess * (num_particles / len(log_z))
    return replace(found, num_particles=num_particles, ess=ess)
