"""What both wings say and compute about ready energies: bad input, log Z given, ranks, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.harmonium import Units


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


LEAST_SWAPS = 0.1
"""Share of tries below which neighbouring temperatures are told to swap too seldom."""


def seldom_swaps(rate: float) -> str:
    """Return what is to be said of temperatures that swap too seldom; nothing of others.

    Args:
        rate: share of tries in which the pair that swaps least does.

    Example:
        >>> seldom_swaps(0.3)
        ''
        >>> seldom_swaps(0.04)[:50]
        'Neighbouring temperatures swap in 0.04 of the trie'
    """
    if rate >= LEAST_SWAPS:
        return ""
    return (
        f"Neighbouring temperatures swap in {rate:.2g} of the tries: nothing comes down from the "
        "base. Raise num_temperatures."
    )
