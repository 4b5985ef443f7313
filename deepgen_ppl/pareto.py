"""Pareto smoothing of importance weights, all columns of a table at once."""

from typing import Any

import numpy as np
from jaxtyping import Float


def smooth_columns(
    table: Float[np.ndarray, "K N"], relative_efficiency: float
) -> tuple[Float[np.ndarray, "K N"], Float[np.ndarray, "N"]]:
    """Replace the largest weights of each column by quantiles of a Pareto law, and normalise.

    Args:
        table: Log weights.
        relative_efficiency: Effective over actual number of particles.

    Returns:
        The smoothed log weights, and the Pareto shape of each column.

    Example:
        >>> smoothed, k = smooth_columns(np.random.default_rng(0).normal(size=(1000, 1)), 1.0)
        >>> round(float(np.exp(smoothed).sum()), 6)
        1.0
    """
    num = len(table)
    tail = tail_length(num, relative_efficiency)
    smoothed, _ = normalise(table)
    if tail < 5:
        return smoothed, np.full(table.shape[1], np.nan)
    top = np.partition(table, num - tail - 1, axis=0)[num - tail - 1 :]
    cutoff, lowest, largest = top[0], top[1:].min(axis=0), top.max(axis=0)
    pareto_k = np.where(np.isfinite(cutoff), -np.inf, np.inf)
    for column in np.flatnonzero(np.isfinite(cutoff) & (lowest < largest)):
        found, k = _psis(table[:, column], relative_efficiency)
        if np.isfinite(k) and not np.isnan(found).any():
            smoothed[:, column], pareto_k[column] = found, k
        elif largest[column] - cutoff[column] > 0.01:  # a wide tail, and no Pareto law fits
            pareto_k[column] = np.inf
    return smoothed, pareto_k


def normalise(
    table: Float[np.ndarray, "K N"],
) -> tuple[Float[np.ndarray, "K N"], Float[np.ndarray, "N"]]:
    """Return log weights that sum to one, and the log of their sum; columns of -inf stay.

    Args:
        table: Log weights.

    Example:
        >>> normalise(np.zeros((4, 1)))[1].round(4)
        array([1.3863])
    """
    largest = table.max(axis=0)
    shifted = table - np.where(np.isneginf(largest), 0.0, largest)
    total = np.exp(shifted).sum(axis=0)
    log_total = np.log(np.where(total > 0.0, total, 1.0))
    return shifted - log_total, largest + log_total


def tail_length(num_particles: int, relative_efficiency: float) -> int:
    """Return how many of the largest weights the Pareto law is fitted to.

    Args:
        num_particles: Number of weights.
        relative_efficiency: Effective over actual number of particles.

    Example:
        >>> tail_length(1000, 1.0)
        94
    """
    if num_particles * relative_efficiency > 225:
        return int(3 * np.sqrt(num_particles / relative_efficiency))
    return num_particles // 5


def _psis(column: np.ndarray, relative_efficiency: float) -> tuple[np.ndarray, float]:
    from arviz_stats.base import array_stats

    stats: Any = array_stats
    with np.errstate(all="ignore"):
        smoothed, k = stats.psislw(-column, r_eff=relative_efficiency)
    return smoothed, float(k)
