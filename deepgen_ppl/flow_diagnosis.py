"""What a flow is checked for, in the same words on both wings: `dg.check_flow`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deepgen_ppl.diagnosis import Check, Diagnosis

_SOURCE = "Papamakarios et al. 2021, https://arxiv.org/abs/1912.02762"
_LIPSCHITZ = "Behrmann et al. 2021, https://arxiv.org/abs/2006.09347"


class Found(NamedTuple):
    """What a wing computes of a flow at points, float64 arrays.

    Attributes:
        there: base points z, shape (points, D).
        back: what pushing and pulling them gives, the same shape.
        log_det: log determinant that the transform gives, shape (points,).
        jacobian: Jacobian of the transform by automatic differentiation, shape (points, D', D).
        log_prob: log density of the pushed points, shape (points,).
        log_prob_drawn: the same from drawing, shape (points,).
        integral: integral of the density over a box around many draws, None where D > 2 or the
            support is bounded.
    """

    there: np.ndarray
    back: np.ndarray
    log_det: np.ndarray
    jacobian: np.ndarray
    log_prob: np.ndarray
    log_prob_drawn: np.ndarray
    integral: float | None


def diagnose_flow(title: str, found: Found, tolerance: float, precision: float) -> Diagnosis:
    """Judge a flow by what a wing computed of it.

    Args:
        title: what was checked.
        found: the numbers.
        tolerance: largest error of round trips and of log densities.
        precision: the relative precision of its numbers.

    Example:
        >>> z, eye = np.ones((5, 2)), np.broadcast_to(np.eye(2), (5, 2, 2))
        >>> found = Found(z, z, np.zeros(5), eye, np.ones(5), np.ones(5), 1.0)
        >>> diagnose_flow("the identity", found, 1e-3, 1e-7).ok
        True
    """
    trip = _worst((found.back - found.there) / (1.0 + np.abs(found.there)))
    agree = _worst((found.log_prob - found.log_prob_drawn) / (1.0 + np.abs(found.log_prob)))
    limit = f"< {tolerance:.1g}"
    rows = (
        Check(
            "round trip", trip, limit, trip < tolerance,
            "Largest relative error of pulling what was pushed. A large one means a wrong or an "
            "ill-conditioned inverse: bound scales, lower the depth, or compute in float64.",
            _SOURCE,
        ),
        _log_det(found, tolerance, limit),
        Check(
            "log_prob against draws", agree, limit, agree < tolerance,
            "Largest relative difference between the density of draws and that of the same values "
            "by log_prob.",
            _SOURCE,
        ),
        _integral(found.integral),
        *_lipschitz(found.jacobian, precision),
    )  # fmt: skip
    return Diagnosis(title, rows)


def _worst(errors: np.ndarray) -> float:
    return float(np.max(np.abs(errors))) if np.all(np.isfinite(errors)) else float("inf")


def _log_det(found: Found, tolerance: float, limit: str) -> Check:
    shape = found.jacobian.shape
    if shape[-1] != shape[-2]:
        advice = "The values have more entries than the base, so that there is no determinant."
        return Check("log-determinant", None, limit, None, advice, _SOURCE)
    truth = np.linalg.slogdet(found.jacobian)[1]
    error = _worst((found.log_det - truth) / (1.0 + np.abs(truth)))
    advice = "Largest relative error against automatic differentiation."
    return Check("log-determinant", error, limit, error < tolerance, advice, _SOURCE)


def _integral(integral: float | None) -> Check:
    name, limit = "integral of the density", "within 0.02 of 1"
    if integral is None:
        advice = "Computed on a grid for one or two real features only."
        return Check(name, None, limit, None, advice, _SOURCE)
    ok = bool(abs(integral - 1.0) < 0.02)
    advice = "Over a box around many draws. Far from 1, log_prob is no density of the draws."
    return Check(name, integral, limit, ok, advice, _SOURCE)


def _lipschitz(jacobian: np.ndarray, precision: float) -> tuple[Check, Check]:
    singular = np.linalg.svd(jacobian, compute_uv=False)
    stretch, squeeze = float(singular.max()), float(1.0 / max(singular.min(), 1e-300))
    largest = 0.1 / precision
    advice = (
        "Largest stretch of a small step, {}. A float has few digits left where this is near the "
        "inverse of its precision: bound scales, or compute in float64."
    )
    return tuple(
        Check(name, value, f"< {largest:.1g}", value < largest, advice.format(way), _LIPSCHITZ)
        for name, value, way in (
            ("Lipschitz constant", stretch, "from base to data"),
            ("Lipschitz constant of the inverse", squeeze, "from data to base"),
        )
    )  # type: ignore[return-value]
