"""Expectation maximisation: its loop, its starts, and what it says of components that collapse."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deepgen_ppl.moments import Values, tril

_NEAR_FLOOR = 4.0
"""A variance below this many times the floor is the floor's, not the data's."""
_FEW_ROWS = 0.5
"""Expected rows below which a component is empty."""
_ROUNDING = 1e-6
"""Relative loss of log density that is rounding in single precision."""


class Expected:
    """What a program says at given parameters.

    Attributes:
        log_joint: log p(x_n, z_n = k) of each row and component.
        log_prior: log density of the parameters' priors; zero without any.
        log_sums: log density of each row.
        responsibilities: posterior probabilities of the components, by row.
    """

    def __init__(self, log_joint: Float[np.ndarray, "N K"], log_prior: float) -> None:
        self.log_joint, self.log_prior = log_joint, log_prior
        self.responsibilities, self.log_sums = _normalised(log_joint)

    @property
    def objective(self) -> float:
        """Log likelihood, and the log prior where there is one."""
        return float(self.log_sums.sum()) + self.log_prior


@dataclass(frozen=True)
class Climbed:
    """One run of EM.

    Attributes:
        values: the parameters at its end, by name.
        objective: objective of each step, before its update.
        stopped: why it ended.
        collapsed: what is said of components that collapsed; empty where none did.
    """

    values: Values
    objective: list[float]
    stopped: str
    collapsed: str


def normalise(log_joint: Float[np.ndarray, "*lead K"]) -> Float[np.ndarray, "*lead K"]:
    """Return probabilities from log joint densities, along the last axis.

    Example:
        >>> normalise(np.log([[1.0, 3.0]])).tolist()
        [[0.25, 0.75]]
    """
    return _normalised(log_joint)[0]


def climb(
    expect: Callable[[Values], Expected],
    maximise: Callable[[np.ndarray, Values], Values],
    values: Values,
    *,
    num_steps: int,
    tolerance: float,
    floor: float,
    report: Callable[[int, float], object] = lambda step, objective: None,
) -> Climbed:
    r"""Run EM from one start until the objective rises by less than `tolerance` a row.

    \[ r_{nk} = p(z_n = k \mid x_n, \theta), \qquad
       \theta \leftarrow \arg\max_\theta \sum_{nk} r_{nk} \log p(x_n, z_n = k \mid \theta)
       + \log p(\theta) \]

    No step may lower the objective; one that does (a floor took hold) is undone and ends the run.

    Args:
        expect: the E step: what the program says at given parameters.
        maximise: the M step: responsibilities and the parameters so far to the next ones.
        values: where to start.
        num_steps: most steps.
        tolerance: least rise of the objective, in nats a row, that keeps it going.
        floor: least variance of a component, by which collapse is told.
        report: is told each step and its objective per row.

    Raises:
        FloatingPointError: the density of some row is not finite under every component.

    References:
        Dempster, Laird, Rubin: Maximum likelihood from incomplete data via the EM algorithm. JRSS
        B 39, 1977.
    """
    objective: list[float] = []
    seen = _finite(expect(values), 0)
    size, stopped = len(seen.log_joint), ""
    for step in range(num_steps):
        objective.append(seen.objective)
        report(step, objective[-1] / size)
        new = maximise(seen.responsibilities, values)
        later = _finite(expect(new), step + 1)
        rise = later.objective - objective[-1]
        if rise < -_ROUNDING * abs(objective[-1]):
            stopped = f"step {step + 1} lowered the objective by {-rise:.2g}, and was undone"
            break
        values, seen = new, later
        if rise < tolerance * size:
            stopped = f"the objective rose by less than {tolerance:g} nats a row"
            break
    objective.append(seen.objective)
    counts = seen.responsibilities.sum(0)
    return Climbed(values, objective, stopped, collapse(values, counts, floor))


def best(runs: Sequence[Climbed]) -> Climbed:
    """Return the highest run, of those without collapsed components where there are any.

    Warns:
        UserWarning: components collapsed in every run.
    """
    sound = [run for run in runs if not run.collapsed]
    chosen = max(sound or runs, key=lambda run: run.objective[-1])
    if not sound:
        warnings.warn(
            f"In each of {len(runs)} starts {chosen.collapsed} Such a likelihood has no maximum: "
            "ask for fewer components, a larger floor=, a simpler covariance=, or priors=.",
            UserWarning,
            stacklevel=4,
        )
    return chosen


def collapse(values: Values, counts: Float[np.ndarray, " K"], floor: float) -> str:
    """Say which components collapsed: onto the floor of the variance, or to no rows at all.

    Args:
        values: parameters of the components.
        counts: expected rows of each.
        floor: least variance.

    Example:
        >>> values = {"loc": np.zeros(2), "scale": np.array([1.0, 1e-3])}
        >>> collapse(values, np.array([5.0, 3.0]), 1e-6)
        'component 1 collapsed onto 3.0 rows (its least variance is the floor, 1e-06).'
    """
    parts = [f"component {k} lost all its rows." for k in np.flatnonzero(counts < _FEW_ROWS)]
    if "scale" in values and "loc" in values:
        factors = tril(values)
        least = np.linalg.svd(factors, compute_uv=False).min(-1) ** 2
        least = np.broadcast_to(least, counts.shape)
        narrow = (least <= _NEAR_FLOOR * floor) & (counts >= _FEW_ROWS)
        parts += [
            f"component {k} collapsed onto {counts[k]:.1f} rows (its least variance is the floor, "
            f"{floor:g})."
            for k in np.flatnonzero(narrow)
        ]
    return " ".join(parts)


def kmeans_start(
    x: Float[np.ndarray, "N D"], num_components: int, rng: np.random.Generator, num_steps: int = 10
) -> Float[np.ndarray, "N K"]:
    """Return one-hot responsibilities of a k-means++ start and some steps of Lloyd's algorithm.

    Args:
        x: rows, their columns of like scale.
        num_components: number K of groups.
        rng: source of the choice.
        num_steps: steps of Lloyd's algorithm.

    Raises:
        ValueError: there are fewer distinct rows than groups.

    References:
        Arthur, Vassilvitskii: k-means++: the advantages of careful seeding. SODA 2007.

    Example:
        >>> rows = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> found = kmeans_start(rows, 2, np.random.default_rng(0))
        >>> bool((found[0] == found[1]).all() and (found[2] == found[3]).all())
        True
    """
    centres = x[rng.integers(len(x))][None]
    square = ((x - centres) ** 2).sum(1)
    while len(centres) < num_components:
        if not square.any():
            raise ValueError(
                f"{num_components} components are more than the data have distinct rows: "
                f"{len(centres)}. Ask for fewer."
            )
        chosen = x[rng.choice(len(x), p=square / square.sum())]
        centres = np.concatenate([centres, chosen[None]])
        square = np.minimum(square, ((x - chosen) ** 2).sum(1))
    groups = np.zeros(len(x), int)
    for _ in range(num_steps):
        groups = _distances(x, centres).argmin(1)
        for k in np.unique(groups):
            centres[k] = x[groups == k].mean(0)
    return np.eye(num_components)[groups]


def _normalised(log_joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities along the last axis, and the logarithms of what they were divided by."""
    top = log_joint.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    parts = np.exp(log_joint - top)
    total = parts.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return parts / total, (np.log(total) + top)[..., 0]


def _distances(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return (centres**2).sum(1) - 2 * x @ centres.T  # of each row up to a constant


def _finite(seen: Expected, step: int) -> Expected:
    total = seen.log_sums
    if not np.isfinite(total).all() or not np.isfinite(seen.log_prior):
        rows = np.flatnonzero(~np.isfinite(total))
        where = f"of row {rows[0]} under every component" if len(rows) else "of the parameters"
        raise FloatingPointError(
            f"step {step} of EM: the log density {where} is not finite. Check the data against the "
            "components' support, and labels against the number of classes."
        )
    return seen
