"""What both wings say and compute about exponential families: statistics, nodes, bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

MOST_STATES = 1 << 14
MOST_COUNTS = 4096
_NODES = 2001
_REACH = 80.0


class Nodes(NamedTuple):
    """Where a density of few values or of one dimension is summed.

    Attributes:
        values: the values, shape (node, *event).
        log_weights: log weight of each.
        ends: which of the first and the last value more of the sum could lie beyond.
    """

    values: Float[np.ndarray, "node ..."]
    log_weights: Float[np.ndarray, " node"]
    ends: tuple[int, ...]


def listed(values: Float[np.ndarray, " value"], event_shape: Sequence[int]) -> Nodes | None:
    """Return all values of entries that have finitely many, None where there are too many.

    Args:
        values: values of an entry.
        event_shape: shape of the entries.

    Example:
        >>> listed(np.arange(2), (2,)).values.tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    size = int(np.prod(event_shape, dtype=int))
    count = len(values) ** size
    if count > MOST_STATES:
        return None
    digits = [np.arange(count) // len(values) ** i % len(values) for i in range(size)]
    found = values[np.stack(digits, -1)].reshape(count, *event_shape)
    return Nodes(found, np.zeros(count), ())


def counts(event_shape: Sequence[int]) -> Nodes:
    """Return the counts that a sum over all of them is cut to.

    Args:
        event_shape: shape of one value, of a single entry.

    Example:
        >>> counts(()).values[:3].tolist()
        [0.0, 1.0, 2.0]
    """
    values = np.arange(float(MOST_COUNTS)).reshape(MOST_COUNTS, *event_shape)
    return Nodes(values, np.zeros(MOST_COUNTS), (-1,))


def line() -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    r"""Return nodes of the real line and their log weights, dense about zero.

    The trapezoidal rule in u of \(z = \sinh u\), |z| up to 80, whose error falls off exponentially
    with the number of nodes for densities that are analytic.

    References:
        Takahasi, Mori: Double exponential formulas for numerical integration. 1974.

    Example:
        >>> z, log_w = line()
        >>> total = np.exp(log_w - 0.5 * z**2).sum()
        >>> bool(abs(np.log(total) - 0.5 * np.log(2 * np.pi)) < 1e-9)
        True
    """
    u = np.linspace(-1.0, 1.0, _NODES) * np.arcsinh(_REACH)
    return np.sinh(u), np.log(np.cosh(u) * (u[1] - u[0]))


def kept(
    nodes: Nodes, log_density: Callable[[Any], Any], statistics: Callable[[Any], Any]
) -> Nodes:
    """Return the nodes whose statistics are finite, as rounded bounds of a support are not.

    Args:
        nodes: the nodes.
        log_density: log base measure of values.
        statistics: statistics of values.
    """
    with np.errstate(all="ignore"):
        good = np.isfinite(np.asarray(log_density(nodes.values)))
        good &= np.isfinite(np.asarray(statistics(nodes.values))).all(-1)
    return Nodes(nodes.values[good], nodes.log_weights[good], nodes.ends)


EDGE = 10.0  # nats below the top that both ends of an open sum have to fall to


def check_statistics(shape: tuple[int, ...], natural: Any, is_needed: bool) -> np.ndarray:
    """Return the natural parameters that a family begins with.

    Args:
        shape: shape of the statistics of one value.
        natural: what was given, None for zeros.
        is_needed: whether zeros are no sensible start.

    Raises:
        ValueError: the statistics are no vector, or the natural parameters have another length.

    Example:
        >>> check_statistics((2,), None, False).tolist()
        [0.0, 0.0]
        >>> check_statistics((), None, False)
        Traceback (most recent call last):
        ...
        ValueError: the statistics of one value have shape (): they must be a vector, ...
    """
    if len(shape) != 1:
        raise ValueError(
            f"the statistics of one value have shape {shape}: they must be a vector, (*batch, K) "
            "for values (*batch, *event). Write x[..., None] for a single one."
        )
    if natural is None and is_needed:
        raise ValueError(
            "with log_base= the natural parameters have to begin where the density is integrable: "
            f"pass natural=, {shape[0]} numbers."
        )
    found = np.zeros(shape) if natural is None else np.asarray(natural, float)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"natural must be {shape[0]} finite numbers, got {natural!r}.")
    return found


def check_natural(shape: tuple[int, ...], size: int) -> None:
    """Refuse natural parameters of another length.

    Args:
        shape: their shape.
        size: number of statistics.

    Raises:
        ValueError: naming both.
    """
    if not shape or shape[-1] != size:
        raise ValueError(f"natural parameters have shape (*batch, {size}), these have {shape}.")


def unknown_partition() -> str:
    """Return why a family has no log partition function.

    Example:
        >>> unknown_partition()[:46]
        'the log partition function of this Exponential'
    """
    return (
        "the log partition function of this ExponentialFamily is not known: its values are neither "
        "few nor of one dimension. Pass log_partition=, a function of the natural parameters; or "
        "train it by dg.contrastive or dg.score_matching, and weigh it by dg.log_z."
    )


def check_partition(log_partition: float, natural: Any) -> float:
    """Return a log partition function that is finite.

    Args:
        log_partition: its value.
        natural: the natural parameters.

    Raises:
        ValueError: it is not, naming the natural parameters.

    Example:
        >>> check_partition(float("nan"), [1.0])
        Traceback (most recent call last):
        ...
        ValueError: the log partition function at natural parameters [1.0] is not finite: ...
    """
    if not np.isfinite(log_partition):
        raise ValueError(
            f"the log partition function at natural parameters {np.asarray(natural).tolist()} is "
            "not finite: they lie outside of the natural parameter space, or the density is too "
            "wide to be summed (real values within 80, counts below 4096). Begin elsewhere "
            "(natural=), rescale the data, or pass log_partition=."
        )
    return float(log_partition)
