"""Weighted moments of rows, and the roots that some families' parameters are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Values = dict[str, np.ndarray]
Cells = Bool[np.ndarray, "N D"] | None

TINY = 10 * np.finfo(np.float64).eps
_MOST_CONCENTRATED = 1e3
"""Concentration of a negative binomial that is a Poisson for all that single precision can tell."""


def tril(values: Values) -> np.ndarray:
    """Return Cholesky factors of the covariances of components with these values."""
    scale = np.asarray(values["scale"], float)
    loc = np.asarray(values["loc"], float)
    dims = loc.shape[1] if loc.ndim > 1 else 1
    if "correlation_tril" in values:
        return scale[..., :, None] * np.asarray(values["correlation_tril"], float)
    if scale.ndim < 2:  # one for all columns
        scale = np.broadcast_to(scale.reshape(-1, 1), (len(loc), dims))
    return scale[..., :, None] * np.eye(dims)


def means(x: np.ndarray, weights: np.ndarray, cells: Cells) -> np.ndarray:
    """Return the weighted mean of each component and column, of its observed cells."""
    if cells is None:
        return weights.T @ x / (weights.sum(0) + TINY)[:, None]
    return weights.T @ np.where(cells, x, 0.0) / (weights.T @ cells + TINY)


def moments_of_cells(
    x: np.ndarray, weights: np.ndarray, cells: Bool[np.ndarray, "N D"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted means and variances of each component and column, of its observed cells."""
    seen = np.maximum(cells.sum(0), 1)
    middle = np.where(cells, x, 0.0).sum(0) / seen  # against cancellation
    centred = np.where(cells, x - middle, 0.0)
    counts = weights.T @ cells + TINY
    mean = weights.T @ centred / counts
    variance = np.maximum(weights.T @ centred**2 / counts - mean**2, 0.0)
    return mean + middle, variance


def scatter(
    x: np.ndarray, loc: np.ndarray, weights: np.ndarray, counts: np.ndarray, covariance: str,
    floor: float,
) -> Values:  # fmt: skip
    """Return scales (and correlations) of weighted squares about the locations."""
    if covariance in ("diagonal", "spherical"):
        middle = x.mean(0)  # against cancellation
        centred, aside = x - middle, loc - middle
        square = weights.T @ centred**2 - 2 * aside * (weights.T @ centred)
        square = np.maximum(square + weights.sum(0)[:, None] * aside**2, 0.0)
        return by_column(square / counts[:, None] + floor, covariance)
    found = []
    for mine, mean in zip(weights.T, loc, strict=True):
        centred = x - mean
        found.append((mine[:, None] * centred).T @ centred)
    spread = np.stack(found)
    if covariance == "tied":
        spread, counts = spread.sum(0), counts.sum()
    matrix = spread / np.asarray(counts)[..., None, None] + floor * np.eye(x.shape[1])
    scale = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))
    if x.shape[1] == 1:
        return {"scale": scale}
    correlation = matrix / scale[..., :, None] / scale[..., None, :]
    return {"scale": scale, "correlation_tril": np.linalg.cholesky(correlation)}


def by_column(variance: np.ndarray, covariance: str) -> Values:
    """Return the scales of variances by column, one for all columns where they are spherical."""
    return {"scale": np.sqrt(variance.mean(1) if covariance == "spherical" else variance)}


def distances(x: np.ndarray, values: Values) -> Float[np.ndarray, "N K"]:
    """Return squared Mahalanobis distances of rows to components."""
    loc = np.asarray(values["loc"], float).reshape(len(values["loc"]), -1)
    factors = np.broadcast_to(tril(values), (len(loc), x.shape[1], x.shape[1]))
    solved = [np.linalg.solve(f, (x - m).T) for f, m in zip(factors, loc, strict=True)]
    return np.stack([(s**2).sum(0) for s in solved], 1)


def degrees_of_freedom(target: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom v from 1 to 200 at which log(v/2) - psi(v/2) = -target."""
    from scipy.special import digamma

    low, high = np.full_like(target, np.log(1.0)), np.full_like(target, np.log(200.0))
    for _ in range(40):
        middle = (low + high) / 2
        half = np.exp(middle) / 2
        above = np.log(half) - digamma(half) + target > 0  # falls with v
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.exp((low + high) / 2)


def concentration(values: np.ndarray, table: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the roots of a negative binomial's score, one for each row of counts of values."""
    from scipy.special import digamma

    total = table.sum(1)
    low, high = np.full(len(mean), np.log(1e-3)), np.full(len(mean), np.log(_MOST_CONCENTRATED))
    for _ in range(40):
        middle = (low + high) / 2
        c = np.exp(middle)
        score = (table * (digamma(values + c[:, None]) - digamma(c)[:, None])).sum(1)
        rising = score + total * np.log(c / (c + mean)) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.exp((low + high) / 2)
