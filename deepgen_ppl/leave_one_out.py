"""Log evidence of rows in the form that leave-one-out cross-validation takes."""

import numpy as np
from jaxtyping import Float

from deepgen_ppl.evidence import Evidence
from deepgen_ppl.pareto import tail_length


def pointwise_draws(found: Evidence, num_draws: int) -> Float[np.ndarray, "S N"]:
    r"""Spread the log evidence of each row over draws, in the form of a log likelihood.

    A datum whose latents are its own has :math:`p(x_i \mid x_{-i}) = p(x_i)`, so leave-one-out must
    return its log evidence. LOO takes the harmonic mean over draws and fits a Pareto law to their
    reciprocals, which a constant does not have. Here the reciprocals are lognormal quantiles of
    width se with a Pareto tail of the row's own k, in an order of the row's own; their mean is
    exactly :math:`1/\hat Z_i`. LOO then returns :math:`\log\hat Z_i`, with p_loo about
    :math:`\mathrm{se}^2` and about the row's Pareto k.

    Args:
        found: Evidence with rows.
        num_draws: Number S of draws.

    Returns:
        Log evidence of each row, for each draw.

    Raises:
        ValueError: The evidence has no rows.

    Cost:
        O(S N).

    Example:
        >>> from deepgen_ppl.evidence import evidence
        >>> found = evidence(np.random.default_rng(0).normal(size=(1000, 2)) / 2)
        >>> draws = pointwise_draws(found, 500)
        >>> bool(np.allclose(-np.log(np.exp(-draws).mean(axis=0)), found.per_row))
        True
    """
    from scipy.special import logsumexp, ndtri

    if found.per_row is None or found.per_row_standard_error is None:
        raise ValueError("Only evidence per row has draws for every row; this one is global.")
    error = found.per_row_standard_error
    error = np.where(np.isfinite(error), np.maximum(error, 1e-6), 1e-6)
    k = np.clip(np.nan_to_num(found.pareto_k, nan=0.0, posinf=5.0, neginf=-0.5), -0.5, 5.0)
    k = np.where(np.abs(k) < 1e-3, 1e-3, k)
    spread = np.multiply.outer(ndtri((np.arange(num_draws) + 0.5) / num_draws), error)
    tail = tail_length(num_draws, 1.0)
    if 0 < tail < num_draws:
        cutoff = spread[-tail - 1]
        points = (np.arange(tail)[:, None] + 0.5) / tail
        spread[-tail:] = cutoff + np.log1p(error / k * np.expm1(-k * np.log1p(-points)))
    spread -= logsumexp(spread, axis=0) - np.log(num_draws)
    return found.per_row - np.random.default_rng(0).permuted(spread, axis=0)
