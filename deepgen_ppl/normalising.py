"""Log Z of ready energies as both wings take it: given, listed, annealed, reversed, missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from deepgen_ppl.evidence import Evidence, evidence
from deepgen_ppl.factor_graph import FactorGraph

_RUN_AWAY = 1000.0
METHODS = ("auto", "exact", "ais", "reverse")
APPROXIMATE = "reverse annealing (approximate: its chains begin at long-run draws)"
ASSUMES = "approximate: its chains begin at long-run draws of the energy's own chain"


def as_log_z(value: Any) -> Evidence:
    """Return a log Z as evidence; a number counts as exact.

    Args:
        value: an `Evidence`, as `dg.log_z` gives it, or a number.

    Raises:
        TypeError: it is neither. ValueError: it is not finite.

    Example:
        >>> as_log_z(2.5)
        log evidence 2.5000 +/- 0, with 95% confidence at least 2.5000, at most 2.5000 ...
        >>> as_log_z("2.5")
        Traceback (most recent call last):
        ...
        TypeError: with_log_z takes what dg.log_z returns, or a number, not str.
    """
    if isinstance(value, Evidence):
        found = value
    elif isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(
            f"with_log_z takes what dg.log_z returns, or a number, not {type(value).__name__}."
        )
    else:
        found = exact_evidence(float(value), "given")
    if not np.isfinite(found.log_evidence):
        raise ValueError(f"log Z must be finite, got {found.log_evidence}.")
    return found


def temperatures(number: int) -> Float[np.ndarray, " number+1"]:
    r"""Return inverse temperatures of annealing, from 0 to 1, ever denser towards 1.

    \[ \beta_t = 1 - (1 - t / T)^2 \]

    Chains part for good where modes grow apart, near the end; where units are still independent
    few temperatures do. On machines whose modes mix well all of it is worth as little as a tenth of
    the standard error, the other way.

    Args:
        number: number T of temperatures.

    References:
        Salakhutdinov, Murray: On the quantitative analysis of deep belief networks. ICML 2008 (most
        temperatures between 0.9 and 1). https://doi.org/10.1145/1390156.1390266

    Example:
        >>> temperatures(4).tolist()
        [0.0, 0.4375, 0.75, 0.9375, 1.0]
    """
    return 1.0 - np.linspace(1.0, 0.0, number + 1) ** 2


def exact_evidence(log_z: float, method: str) -> Evidence:
    """Return a log Z without an error as evidence.

    Args:
        log_z: its value.
        method: how it was found.

    Example:
        >>> exact_evidence(1.0, "enumeration").standard_error
        0.0
    """
    return Evidence(log_z, 0.0, log_z, log_z, 1.0, float("-inf"), 1, method)


def need_log_z(name: str, log_z: Evidence | None) -> Evidence:
    """Return the log Z of an energy that has one.

    Args:
        name: what kind of energy.
        log_z: its log Z.

    Raises:
        ValueError: it has none.

    Example:
        >>> need_log_z("RBM", None)
        Traceback (most recent call last):
        ...
        ValueError: the log Z of this RBM is not known, so it has no log_prob yet: ...
    """
    if log_z is None:
        raise ValueError(
            f"the log Z of this {name} is not known, so it has no log_prob yet: m = "
            "m.with_log_z(dg.log_z(m)). Comparisons need none: unnormalised_log_prob, log_ratio, "
            "rank."
        )
    return log_z


def limits(
    values: Float[np.ndarray, "*batch"], log_z: Evidence
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Return one-sided 95% limits of log densities, from those of log Z.

    Args:
        values: unnormalised log densities.
        log_z: the log Z.

    Example:
        >>> limits(np.zeros(1), as_log_z(2.0))
        (array([-2.]), array([-2.]))
    """
    values = np.asarray(values, np.float64)
    return values - log_z.upper_limit, values - log_z.lower_limit


def reverse_evidence(log_weights: Float[np.ndarray, " K"], method: str) -> Evidence:
    r"""Return the log Z of weights whose reciprocals are unbiased, as reverse annealing gives them.

    \[ \log \hat Z = -\log \frac1K \sum_k \frac1{w_k}, \qquad \mathbb E\, \frac1{w_k} = \frac1Z \]

    Its limits are those of \(1/Z\), the other way round: the upper one is the safe one.

    Args:
        log_weights: log weights of K chains.
        method: what made them.

    Example:
        >>> log_w = np.random.default_rng(0).normal(0.125, 0.5, 1000)
        >>> found = reverse_evidence(log_w, "reverse annealing")
        >>> found.lower_limit < 0.0 < found.upper_limit
        True
    """
    found = evidence(-np.asarray(log_weights, np.float64), method=method)
    return replace(
        found, log_evidence=-found.log_evidence, lower_limit=-found.upper_limit,
        upper_limit=-found.lower_limit,
    )  # fmt: skip


def is_narrow(graph: FactorGraph) -> bool:
    """Return whether a factor graph is summed out in moderate memory.

    Args:
        graph: the factor graph.

    Example:
        >>> is_narrow(FactorGraph({"a": 2}, [(("a",), np.zeros(2))]))
        True
    """
    return graph.cost(0.2).largest <= 1 << 22


def check_integrable(log_weights: Any) -> None:
    """Refuse the weights of annealed chains that ran away.

    Args:
        log_weights: log weights of the chains.

    Raises:
        ValueError: they are not numbers, or one stands a thousand nats above the median, as where
            a density has no normaliser.

    Example:
        >>> check_integrable(np.array([1e6, 0.0, 0.0]))
        Traceback (most recent call last):
        ...
        ValueError: the annealed chains run away: their log weights reach 1e+06, a thousand nats ...
    """
    found = np.asarray(log_weights, np.float64).ravel()
    some = found[~np.isneginf(found)]
    if not some.size:
        return
    top, middle = some.max(), np.median(some)
    if not np.isfinite(top) or top - middle > _RUN_AWAY:
        raise ValueError(
            f"the annealed chains run away: their log weights reach {top:g}, a thousand nats and "
            f"more above their median {middle:g}. The energy may not be integrable over its "
            "continuous sites: no normaliser exists then. Give the model a base whose tails fall "
            "off faster than its factors grow, or bound them; where log Z exists, raise "
            "num_temperatures."
        )


def wrong_method(method: str, name: str, why: str) -> ValueError:
    """Return the error of a method that an energy does not have.

    Args:
        method: the method.
        name: what kind of energy.
        why: the reason and the cure.
    """
    return ValueError(f'log_z(method="{method}") does not fit this {name}: {why}')
