"""What both wings say and compute about ready energies: bad input, log Z given, ranks, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.evidence import Evidence, evidence
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.harmonium import Units


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


def refuse_draw(name: str) -> str:
    """Return why a distribution has no draw of its own.

    Args:
        name: what kind of energy.

    Example:
        >>> refuse_draw("RBM")[:44]
        'draws of this RBM come from Markov chains: i'
    """
    return (
        f"draws of this {name} come from Markov chains: its own, with draws(num_chains, num_steps) "
        "where it has one, or dg.mcmc(m.model, None, ...). Nothing here draws from it forwards."
    )


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


def ranked(values: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Return rows in the order of their log densities, the least probable first.

    Args:
        values: log densities, normalised or not.

    Example:
        >>> ranked(np.array([0.0, -5.0, 3.0])).tolist()
        [1, 0, 2]
    """
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"rank takes rows of data, one leading axis, and got {values.shape}.")
    return np.argsort(values, kind="stable")


def check_event(shape: Sequence[int], event_shape: Sequence[int], name: str) -> None:
    """Refuse values of another shape.

    Args:
        shape: their shape.
        event_shape: shape of one value.
        name: what kind of energy.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_event((5, 3), (4,), "RBM")
        Traceback (most recent call last):
        ...
        ValueError: values of this RBM have shape (*batch, 4), these have (5, 3).
    """
    shape, event_shape = tuple(shape), tuple(event_shape)
    if len(shape) < len(event_shape) or shape[len(shape) - len(event_shape) :] != event_shape:
        wanted = ", ".join(["*batch", *map(str, event_shape)])
        raise ValueError(f"values of this {name} have shape ({wanted}), these have {shape}.")


def check_number(name: str, value: Any) -> float:
    """Return a finite number.

    Raises:
        ValueError: it is none.

    Example:
        >>> check_number("power", -1)
        -1.0
    """
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not good or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")
    return float(value)


def check_base(base: Any) -> None:
    """Refuse a base distribution that has a batch, or no event shape.

    Args:
        base: the distribution.

    Raises:
        TypeError: it is none. ValueError: naming its shapes.
    """
    if not hasattr(base, "log_prob"):
        raise TypeError(
            f"base must be a distribution, or a module that gives one, not {type(base).__name__}."
        )
    if tuple(base.batch_shape):
        raise ValueError(
            f"base has batch shape {tuple(base.batch_shape)} and event shape "
            f"{tuple(base.event_shape)}: one value must be one event. Write base.to_event("
            f"{len(base.batch_shape)})."
        )
    if getattr(getattr(base, "support", None), "is_discrete", False):
        raise ValueError(
            "the values of an EnergyModel are continuous and this base is discrete. Use dg.RBM, or "
            "write the energy as a factor in a program."
        )


def small_weights(seed: int | np.random.Generator, *shape: int) -> Float[np.ndarray, ...]:
    """Draw the initial weights of a harmonium, normal with deviation 0.01.

    Args:
        seed: seed, or a NumPy generator.
        *shape: their shape.

    References:
        Hinton: A practical guide to training restricted Boltzmann machines. 2010.
        https://doi.org/10.1007/978-3-642-35289-8_32

    Example:
        >>> small_weights(0, 3, 2).shape
        (3, 2)
    """
    return 0.01 * np.random.default_rng(seed).normal(size=shape)


def base_rates(
    x: Float[np.ndarray, "N ..."], kind: str, states: int
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...] | None]:
    """Return the natural parameters of independent units that have the means of data.

    Binary and categorical rates are those of the data with one further row, spread evenly over the
    values. Gaussian units have the means and deviations of the data.

    Args:
        x: data, rows of units.
        kind: "bernoulli", "gaussian" or "categorical".
        states: values of a categorical unit, else 1.

    Returns:
        Biases in units of the statistics, and log deviations of Gaussian units, else None.

    Raises:
        ValueError: a value that is none of the kind's, or a constant Gaussian column.

    Example:
        >>> base_rates(np.array([[0, 1], [1, 1]]), "bernoulli", 1)[0].round(3).tolist()
        [0.0, 1.609]
    """
    x = np.asarray(x)
    if kind == "gaussian":
        deviation = x.std(0)
        if (flat := np.flatnonzero(deviation == 0)).size:
            raise ValueError(f"column {int(flat[0])} of the data is constant: it has no scale.")
        return x.mean(0) / deviation, np.log(deviation)
    check_values(x, kind, states)
    if kind == "bernoulli":
        rate = (x.sum(0) + 0.5) / (len(x) + 1)
        return np.log(rate) - np.log1p(-rate), None
    counts = (x[..., None] == np.arange(states)).sum(0) + 1.0 / states
    return np.log(counts / (len(x) + 1)).reshape(-1), None


def check_values(x: np.ndarray, kind: str, states: int) -> None:
    """Refuse data that units of a kind do not take.

    Args:
        x: data, rows of units.
        kind: "bernoulli", "gaussian" or "categorical".
        states: values of a categorical unit.

    Raises:
        ValueError: naming the first row and its value.

    Example:
        >>> check_values(np.array([[0.0, 0.5]]), "bernoulli", 1)
        Traceback (most recent call last):
        ...
        ValueError: row 0 holds 0.5, and binary units are 0 or 1. Binarise the data first, ...
    """
    if kind == "gaussian":
        bad = ~np.isfinite(x)
        wanted = "Gaussian units are finite numbers."
    elif kind == "bernoulli":
        bad = (x != 0) & (x != 1)
        wanted = "binary units are 0 or 1. Binarise the data first, or take Gaussian units."
    else:
        bad = (x < 0) | (x >= states) | (x != np.floor(x))
        wanted = f"categorical units of {states} values are whole numbers from 0 to {states - 1}."
    if bad.any():
        row = np.argwhere(bad)[0]
        raise ValueError(f"row {int(row[0])} holds {x[tuple(row)]}, and {wanted}")


def check_weights(given: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights of another shape than an energy's own.

    Args:
        given: shapes of what was given, by name.
        own: shapes of the energy's own.

    Raises:
        ValueError: naming the first that differs.

    Example:
        >>> check_weights({"weight": (3, 2)}, {"weight": (2, 3)})
        Traceback (most recent call last):
        ...
        ValueError: weight has shape (3, 2); this energy's has (2, 3).
    """
    for name, shape in given.items():
        if tuple(shape) != tuple(own[name]):
            raise ValueError(f"{name} has shape {tuple(shape)}; this energy's has {own[name]}.")


def rates(
    side: Sequence[Units], means: Float[np.ndarray, " size"], number: int
) -> Float[np.ndarray, " size"]:
    """Return the natural parameters of independent units with these mean statistics.

    Rates of binary and categorical units are drawn to even ones by one further row.

    Args:
        side: layers of units.
        means: mean statistics of a number of rows.
        number: how many rows.

    Example:
        >>> rates((Units("bernoulli", 2),), np.array([0.5, 1.0]), 2).round(3).tolist()
        [0.0, 1.609]
    """
    found, start = [], 0
    for units in side:
        part = np.asarray(means[start : start + units.size], np.float64)
        start += units.size
        if units.kind == "bernoulli":
            rate = (part * number + 0.5) / (number + 1)
            part = np.log(rate) - np.log1p(-rate)
        elif units.kind == "categorical":
            part = np.log((part * number + 1.0 / units.states) / (number + 1))
        found.append(part)
    return np.concatenate(found)


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


_RUN_AWAY = 1000.0
METHODS = ("auto", "exact", "ais", "reverse")
APPROXIMATE = "reverse annealing (approximate: its chains begin at long-run draws)"
ASSUMES = "approximate: its chains begin at long-run draws of the energy's own chain"


def wrong_method(method: str, name: str, why: str) -> ValueError:
    """Return the error of a method that an energy does not have.

    Args:
        method: the method.
        name: what kind of energy.
        why: the reason and the cure.
    """
    return ValueError(f'log_z(method="{method}") does not fit this {name}: {why}')
