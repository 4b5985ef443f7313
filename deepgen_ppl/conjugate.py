"""Conjugate learning of count families: posteriors, modes, draws and log evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepgen_ppl.moments import Cells

KINDS = {"bernoulli": "Beta", "categorical": "Dirichlet", "poisson": "Gamma"}
"""The conjugate prior of each family."""


class Pair(NamedTuple):
    """The two numbers of a Beta or Gamma, or the concentrations of a Dirichlet, for each cell.

    Attributes:
        first: of ones, of events, or of all states (on the last axis).
        second: of zeros, or the rate of a Gamma; None for a Dirichlet.
    """

    first: np.ndarray
    second: np.ndarray | None = None


def posterior(
    family: str, prior: Pair, x: np.ndarray, weights: Float[np.ndarray, "N K"], cells: Cells
) -> Pair:
    r"""Return the posterior of every component and column.

    \[ a' = a + \sum_n r_{nk} x_{nd}, \qquad b' = b + \sum_n r_{nk} (1 - x_{nd})
       \quad \text{(Beta)} \]

    with \(b' = b + \sum_n r_{nk}\) for a Gamma and a count of every state for a Dirichlet.

    Args:
        family: "bernoulli", "categorical" or "poisson".
        prior: of the shape of the parameter.
        x: rows (N,) or (N, D).
        weights: of each row in each component.
        cells: which are observed.

    Example:
        >>> prior = Pair(np.ones((1, 2)), np.ones((1, 2)))
        >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> posterior("bernoulli", prior, x, np.ones((3, 1)), None).first.tolist()
        [[4.0, 2.0]]
    """
    shape = prior.first.shape
    rows = np.asarray(x, float).reshape(len(x), -1)
    seen = np.ones(rows.shape) if cells is None else cells.reshape(rows.shape).astype(float)
    if family == "categorical":
        states = np.arange(shape[-1])
        counts = np.stack([weights.T @ ((rows == state) * seen) for state in states], -1)
        return Pair(prior.first + counts.reshape(shape))
    total = (weights.T @ (np.where(seen > 0, rows, 0.0))).reshape(shape)
    count = (weights.T @ seen).reshape(shape)
    below = count - total if family == "bernoulli" else count
    return Pair(prior.first + total, np.asarray(prior.second) + below)


def mode(family: str, found: Pair, floor: float) -> np.ndarray:
    """Return the highest points of posteriors, at least `floor` inside the support.

    Example:
        >>> mode("bernoulli", Pair(np.array([3.0]), np.array([2.0])), 1e-6).round(4).tolist()
        [0.6667]
    """
    if family == "categorical":
        top = np.maximum(found.first - 1, 0.0) + 1e-300
        probs = np.maximum(top / top.sum(-1, keepdims=True), floor)
        return probs / probs.sum(-1, keepdims=True)
    if found.second is None:
        raise ValueError("a Beta and a Gamma have two numbers.")
    if family == "poisson":
        return np.maximum((found.first - 1) / found.second, floor)
    both = np.maximum(found.first + found.second - 2, 1e-300)
    return np.clip((found.first - 1) / both, floor, 1 - floor)


def mean(family: str, found: Pair) -> np.ndarray:
    """Return the means of posteriors.

    Example:
        >>> mean("poisson", Pair(np.array([3.0]), np.array([2.0]))).tolist()
        [1.5]
    """
    if found.second is None:
        return found.first / found.first.sum(-1, keepdims=True)
    below = found.second if family == "poisson" else found.first + found.second
    return found.first / below


def draws(family: str, found: Pair, num: int, rng: np.random.Generator) -> np.ndarray:
    """Return independent draws of a posterior, (num, *shape).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draws("categorical", Pair(np.ones((2, 3))), 5, rng).sum(-1).round(6).max()
        np.float64(1.0)
    """
    first = np.maximum(rng.standard_gamma(found.first, (num, *found.first.shape)), 1e-300)
    if found.second is None:
        return first / first.sum(-1, keepdims=True)
    if family == "poisson":
        return first / found.second
    second = np.maximum(rng.standard_gamma(found.second, first.shape), 1e-300)
    return first / (first + second)


def log_evidence(family: str, prior: Pair, found: Pair, x: np.ndarray, cells: Cells) -> float:
    r"""Return the log density of rows whose components are known, parameters integrated out.

    \[ \log p(x \mid z) = \sum_{kd} \log \frac{B(a'_{kd}, b'_{kd})}{B(a_{kd}, b_{kd})} \]

    and its like for a Dirichlet and for a Gamma, whose counts add \(-\sum \log x!\).

    Args:
        family: "bernoulli", "categorical" or "poisson".
        prior: before the rows.
        found: after them, by `posterior`.
        x: the rows.
        cells: which are observed.

    Example:
        >>> prior, x = Pair(np.ones((1, 1)), np.ones((1, 1))), np.array([[1.0], [0.0]])
        >>> found = posterior("bernoulli", prior, x, np.ones((2, 1)), None)
        >>> round(log_evidence("bernoulli", prior, found, x, None), 6)  # log 1/6
        -1.791759
    """
    from scipy.special import gammaln

    def norm(pair: Pair) -> float:
        if pair.second is None:
            return float(np.sum(gammaln(pair.first)) - np.sum(gammaln(pair.first.sum(-1))))
        if family == "poisson":
            return float(np.sum(gammaln(pair.first) - pair.first * np.log(pair.second)))
        both = gammaln(pair.first + pair.second)
        return float(np.sum(gammaln(pair.first) + gammaln(pair.second) - both))

    total = norm(found) - norm(prior)
    if family != "poisson":
        return total
    seen = np.ones(np.shape(x), bool) if cells is None else cells
    return total - float(np.sum(gammaln(np.where(seen, x, 0.0) + 1)))
