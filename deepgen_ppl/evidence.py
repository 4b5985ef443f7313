"""The evidence: log importance weights in, log evidence with error and limits, ESS and Pareto k out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_Z95 = 1.6448536269514722  # 95% point of the standard normal
_MARKOV95 = np.log(0.05)  # P(Z_hat >= Z / 0.05) <= 0.05 for a non-negative unbiased Z_hat


@dataclass(frozen=True)
class Evidence:
    """The log evidence log p(x) that a set of importance weights estimates, and how far to trust it.

    Attributes:
        log_evidence: Estimate of log p(x); the sum over rows where there are rows.
        standard_error: Its standard error (delta method).
        lower_limit: One-sided 95% lower limit of log p(x).
        upper_limit: One-sided 95% upper limit of log p(x), asymptotic: believe it where `pareto_k` is below 0.7.
        ess: Effective sample size 1 / sum of squared normalised weights, from 1 to `num_particles`; per row.
        pareto_k: Pareto shape of the largest weights: nan when there are too few particles to tell, -inf when the
            largest weights are all equal; per row.
        num_particles: Number K of weights (for each row).
        method: What made the weights.
        rows: Name of the data plate when the weights are per row, else None.
        per_row: Estimates of log p(x_i), None when the weights are global.
        per_row_standard_error: Their standard errors, None when the weights are global.
    """

    log_evidence: float
    standard_error: float
    lower_limit: float
    upper_limit: float
    ess: float | Float[np.ndarray, "N"]
    pareto_k: float | Float[np.ndarray, "N"]
    num_particles: int
    method: str = "importance sampling"
    rows: str | None = None
    per_row: Float[np.ndarray, "N"] | None = None
    per_row_standard_error: Float[np.ndarray, "N"] | None = None

    def attrs(self) -> dict[str, float | int | str]:
        """The scalars, ready to be attributes of a dataset.

        Example:
            >>> evidence(np.zeros(100)).attrs()["log_evidence"]
            0.0
        """
        summary: dict[str, float | int | str] = {
            "log_evidence": float(self.log_evidence),
            "log_evidence_standard_error": float(self.standard_error),
            "log_evidence_lower_limit": float(self.lower_limit),
            "log_evidence_upper_limit": float(self.upper_limit),
            "log_evidence_ess": float(np.min(self.ess)),
            "log_evidence_pareto_k": float(_worst_k(self.pareto_k)),
            "log_evidence_num_particles": int(self.num_particles),
            "log_evidence_method": self.method,
        }
        return summary | ({"log_evidence_rows": self.rows} if self.rows is not None else {})

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, arrays as NumPy arrays.

        Example:
            >>> evidence(np.zeros(100)).to_dict()["num_particles"]
            100
        """
        return dict(self.__dict__)

    def __str__(self) -> str:
        over = "" if self.per_row is None else f" over {len(self.per_row)} rows of '{self.rows}'"
        per_row = "" if self.per_row is None else "worst row: "
        return (
            f"log evidence {self.log_evidence:.4g} +/- {self.standard_error:.2g}{over}"
            f" (95% limits: at least {self.lower_limit:.4g}, at most {self.upper_limit:.4g}; {self.method},"
            f" {self.num_particles} particles; {per_row}ESS {float(np.min(self.ess)):.1f},"
            f" Pareto k {float(_worst_k(self.pareto_k)):.2f})"
        )


def evidence(
    log_weights: Float[np.ndarray, "K"] | Float[np.ndarray, "K N"],
    *,
    rows: str | None = None,
    method: str = "importance sampling",
    relative_efficiency: float = 1.0,
) -> Evidence:
    r"""Estimate the log evidence from log importance weights.

    With weights w_k = p(x, z_k) / q(z_k):

    .. math:: \log \hat Z = \log \tfrac1K \sum_k w_k, \qquad
        \mathrm{se}^2 = \frac{1}{K e} \frac{\mathrm{var}(w)}{\mathrm{mean}(w)^2}, \qquad
        \mathrm{ESS} = e\,\frac{(\sum_k w_k)^2}{\sum_k w_k^2}

    where e is the relative efficiency. The lower limit is :math:`\log\hat Z - 1.645\,\mathrm{se}` or, where that is
    higher, :math:`\log\hat Z - \log 20`, which Markov's inequality grants to any unbiased non-negative estimate. The
    upper limit is :math:`\log\hat Z + \tfrac12\mathrm{se}^2 + 1.645\,\mathrm{se}`: Jensen's bias, which adds up over
    rows while errors cancel, is put back. With rows, :math:`\log\hat Z` and the squared errors are summed over them.

    Args:
        log_weights: Log weights of K particles, or of K particles for each of N rows. -inf (weight zero) is allowed.
        rows: Name of the data plate that the second axis runs over.
        method: What made the weights, for the report.
        relative_efficiency: Effective over actual number of particles where they are autocorrelated.

    Returns:
        The evidence; per row too when `log_weights` has two axes.

    Raises:
        ValueError: There are no particles, or a log weight is NaN or +inf (the message names the rows).

    Cost:
        O(K N) and one Pareto fit per row (about 0.5 ms each).

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry: Pareto smoothed importance sampling. JMLR 25(72), 2024.
        https://arxiv.org/abs/1507.02646
        Owen: Monte Carlo theory, methods and examples, chapter 9, 2013. https://artowen.su.domains/mc/

    Example:
        >>> import numpy as np
        >>> log_weights = np.random.default_rng(0).normal(-0.125, 0.5, 10_000)  # mean weight 1
        >>> result = evidence(log_weights)
        >>> result.lower_limit < 0.0 < result.upper_limit
        True
    """
    log_w = _checked(log_weights, rows)
    table = log_w if log_w.ndim == 2 else log_w[:, None]
    num_particles = len(table)
    largest = table.max(axis=0)
    weights = np.exp(table - np.where(np.isfinite(largest), largest, 0.0))
    total = weights.sum(axis=0)
    alive = total > 0.0
    safe = np.where(alive, total, 1.0)
    log_z = np.where(alive, largest + np.log(safe / num_particles), -np.inf)
    weights /= safe
    squares = np.einsum("kn,kn->n", weights, weights)
    if num_particles > 1:
        variance = (
            num_particles / (num_particles - 1) * np.maximum(squares - 1.0 / num_particles, 0.0)
        )
    else:
        variance = np.full_like(squares, np.inf)
    error = np.where(alive, np.sqrt(variance / relative_efficiency), np.inf)
    ess = np.where(alive, relative_efficiency / np.where(alive, squares, 1.0), 0.0)
    pareto_k = smooth(table, relative_efficiency=relative_efficiency)[1]

    log_evidence = float(log_z.sum())
    variance_sum = float((error**2).sum())
    standard_error = float(np.sqrt(variance_sum))
    per_row = log_w.ndim == 2
    return Evidence(
        log_evidence=log_evidence,
        standard_error=standard_error,
        lower_limit=log_evidence + max(-_Z95 * standard_error, _MARKOV95),
        upper_limit=_upper_limit(log_evidence, variance_sum),
        ess=ess if per_row else float(ess[0]),
        pareto_k=pareto_k if per_row else float(pareto_k[0]),
        num_particles=num_particles,
        method=method,
        rows=(rows or "rows") if per_row else None,
        per_row=log_z if per_row else None,
        per_row_standard_error=error if per_row else None,
    )


def smooth(
    log_weights: Float[np.ndarray, "K *N"], *, relative_efficiency: float = 1.0
) -> tuple[Float[np.ndarray, "K *N"], Float[np.ndarray, "*N"]]:
    """Replace the largest weights by the quantiles of a Pareto tail fitted to them (PSIS), and normalise.

    The fit is ArviZ's. Where it cannot be made the weights are normalised as they are: fewer than 25 particles give
    k = nan; as many particles of weight zero as leave no tail give k = inf; a tail of equal weights (the guide is the
    posterior) gives k = -inf.

    Args:
        log_weights: Log weights, particles along axis 0.
        relative_efficiency: Effective over actual number of particles.

    Returns:
        The smoothed log weights, normalised to sum to one over axis 0, and the Pareto shape k.

    Cost:
        About 0.5 ms a column of 1,000 particles.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry: Pareto smoothed importance sampling. JMLR 25(72), 2024.
        https://arxiv.org/abs/1507.02646

    Example:
        >>> import numpy as np
        >>> smoothed, k = smooth(np.random.default_rng(0).normal(size=1000))
        >>> round(float(np.exp(smoothed).sum()), 6), bool(k < 0.7)
        (1.0, True)
    """
    log_w = _checked(log_weights, None)
    table = log_w.reshape(len(log_w), -1)
    num_particles = len(table)
    tail = _tail_length(num_particles, relative_efficiency)
    smoothed = _normalise(table)
    pareto_k = np.full(table.shape[1], np.nan)
    if tail >= 5:
        top = np.partition(table, num_particles - tail - 1, axis=0)[num_particles - tail - 1 :]
        cutoff, largest = top[0], top.max(axis=0)
        fits = np.isfinite(cutoff) & (largest - top[1:].min(axis=0) > 1e-12)
        pareto_k = np.where(np.isfinite(cutoff), -np.inf, np.inf)
        for row in np.flatnonzero(fits):
            column, k = _psis(table[:, row], relative_efficiency)
            if np.isfinite(k) and np.all(np.isfinite(column) | np.isneginf(column)):
                smoothed[:, row], pareto_k[row] = column, k
            elif largest[row] - cutoff[row] > 1e-2:  # a wide tail that no Pareto law fits
                pareto_k[row] = np.inf
    return smoothed.reshape(log_w.shape), pareto_k.reshape(log_w.shape[1:])


def resample(
    log_weights: Float[np.ndarray, "K *N"], num_draws: int, seed: int = 0
) -> Int[np.ndarray, "S *N"]:
    r"""Draw particles in proportion to their Pareto-smoothed weights, by systematic resampling.

    Particle k is drawn :math:`n_k` times with :math:`\mathbb E\,n_k = S w_k` exactly and :math:`|n_k - S w_k| < 1`;
    the draws come in random order. Columns are drawn independently of each other.

    Args:
        log_weights: Log weights, particles along axis 0.
        num_draws: Number S of draws.
        seed: Seed of the random numbers.

    Returns:
        Indices of particles.

    Raises:
        ValueError: All weights of a column are zero.

    Cost:
        O((K + S log K) N), beside one Pareto fit per column.

    References:
        Douc, Cappé, Moulines: Comparison of resampling schemes for particle filtering. 2005.
        https://arxiv.org/abs/cs/0507025

    Example:
        >>> import numpy as np
        >>> resample(np.array([0.0, -np.inf, 0.0]), 4, seed=0).tolist().count(0)
        2
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")
    log_w = _checked(log_weights, None)
    smoothed = smooth(log_w)[0].reshape(len(log_w), -1)
    dead = np.flatnonzero(~np.isfinite(smoothed.max(axis=0)))
    if dead.size:
        raise ValueError(
            f"All particles of row {_some(dead)} have weight zero, so there is nothing to resample. Use a guide that "
            "covers the posterior, or more particles."
        )
    rng = np.random.default_rng(seed)
    indices = np.empty((num_draws, smoothed.shape[1]), dtype=np.int64)
    for row in range(smoothed.shape[1]):
        cumulative = np.cumsum(np.exp(smoothed[:, row]))
        points = (rng.random() + np.arange(num_draws)) / num_draws * cumulative[-1]
        points = np.minimum(points, np.nextafter(cumulative[-1], 0.0))
        indices[:, row] = rng.permutation(np.searchsorted(cumulative, points, side="right"))
    return indices.reshape(num_draws, *log_w.shape[1:])


def _checked(log_weights: np.ndarray, rows: str | None) -> np.ndarray:
    log_w = np.asarray(log_weights, dtype=np.float64)
    if log_w.ndim == 0 or len(log_w) == 0:
        raise ValueError(f"There are no particles: log_weights has shape {log_w.shape}.")
    bad = np.isnan(log_w) | np.isposinf(log_w)
    if bad.any():
        where = ""
        if log_w.ndim > 1:
            where = (
                f" in row {_some(np.flatnonzero(bad.any(axis=0).ravel()))} of '{rows or 'rows'}'"
            )
        raise ValueError(
            f"{int(bad.sum())} of {log_w.size} log weights are NaN or +inf{where}. The model or the guide has no "
            "finite log density there: check the data and the learned parameters of these rows."
        )
    return log_w


def _some(indices: np.ndarray, limit: int = 5) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:limit])
    return shown if len(indices) <= limit else f"{shown}, ... ({len(indices)} in all)"


def _normalise(table: np.ndarray) -> np.ndarray:
    largest = table.max(axis=0)
    shifted = table - np.where(np.isfinite(largest), largest, 0.0)
    total = np.exp(shifted).sum(axis=0)
    return shifted - np.log(np.where(total > 0.0, total, 1.0))


def _tail_length(num_particles: int, relative_efficiency: float) -> int:
    if num_particles * relative_efficiency > 225:
        return int(3 * np.sqrt(num_particles / relative_efficiency))
    return num_particles // 5


def _psis(column: np.ndarray, relative_efficiency: float) -> tuple[np.ndarray, float]:
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        smoothed, k = array_stats.psislw(-column, r_eff=relative_efficiency)
    return smoothed, float(k)


def _upper_limit(log_evidence: float, variance: float) -> float:
    if not np.isfinite(variance):
        return np.inf
    return log_evidence + 0.5 * variance + _Z95 * float(np.sqrt(variance))


def _worst_k(pareto_k: float | np.ndarray) -> float:
    values = np.atleast_1d(pareto_k)
    return float("nan") if np.isnan(values).all() else float(np.nanmax(values))
