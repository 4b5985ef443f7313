"""Harmoniums: two sides of units that see only each other, as plain data, and their exact log Z."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from deepgen_ppl.flow_checks import choice, whole

KINDS = ("bernoulli", "gaussian", "categorical")
MOST_UNITS = 25  # binary units of the smaller side that are enumerated
_ENTRIES = 1 << 21  # of a block of states


class Units(NamedTuple):
    r"""A layer of units of one kind, with sufficient statistics f.

    Given natural parameters \(\eta\), units are independent,
    \(p(f) \propto g(f) \exp(\eta \cdot f)\): binary (f is 0 or 1), Gaussian
    (\(g = e^{-f^2/2}\)), or categorical (f is one of K indicators).

    Attributes:
        kind: "bernoulli", "gaussian" or "categorical".
        number: how many units.
        states: values of a categorical unit, else 1.
    """

    kind: str
    number: int
    states: int = 1

    @property
    def size(self) -> int:
        """Number of sufficient statistics."""
        return self.number * self.states

    @property
    def log_states(self) -> float:
        """Log of the number of joint states; infinite for Gaussian units."""
        if self.kind == "gaussian":
            return float("inf")
        return self.number * float(np.log(max(self.states, 2)))


class Sides(NamedTuple):
    r"""An energy over two sides of units, none of which touches another one of its own side.

    \[ \log p^*(a, b) = c + \log g(a) + \log g(b) + \alpha \cdot f_a + f_a^\top W f_b
       + \beta \cdot f_b \]

    Arrays are NumPy's or the wing's.

    Attributes:
        first: layers of the first side, whose statistics stand one after the other.
        second: layers of the second side.
        weight: W, of shape (first, second).
        first_bias: natural parameters alpha.
        second_bias: natural parameters beta.
        constant: the constant c.
    """

    first: tuple[Units, ...]
    second: tuple[Units, ...]
    weight: Any
    first_bias: Any
    second_bias: Any
    constant: Any = 0.0

    def swapped(self) -> Sides:
        """Return the same energy, the sides in the other order.

        Example:
            >>> first, second = (Units("bernoulli", 2),), (Units("bernoulli", 3),)
            >>> sides = Sides(first, second, np.ones((2, 3)), np.zeros(2), np.ones(3))
            >>> sides.swapped().weight.shape
            (3, 2)
        """
        return Sides(
            self.second, self.first, self.weight.T, self.second_bias, self.first_bias, self.constant
        )

    def small_first(self) -> Sides:
        """Return the energy with the side of fewer joint states in front."""
        sizes = [sum(units.log_states for units in side) for side in (self.first, self.second)]
        return self if sizes[0] <= sizes[1] else self.swapped()


def check_units(kind: object, states: object) -> int:
    """Return the number of values of a visible unit, 1 where it has no list of them.

    Args:
        kind: "bernoulli", "gaussian" or "categorical".
        states: values of a categorical unit, None for the other kinds.

    Raises:
        ValueError: an unknown kind, or states that are missing or not asked for.

    Example:
        >>> check_units("categorical", 3)
        3
        >>> check_units("bernoulli", 3)
        Traceback (most recent call last):
        ...
        ValueError: only categorical units have states=, and these are bernoulli.
    """
    choice("units", kind, KINDS)
    if kind != "categorical":
        if states is not None:
            raise ValueError(f"only categorical units have states=, and these are {kind}.")
        return 1
    if states is None:
        raise ValueError("categorical units need states=, the number of values of each.")
    return whole("states", states, 2)


def can_enumerate(sides: Sides) -> bool:
    """Return whether the smaller side has at most 2**25 joint states.

    Example:
        >>> first, second = (Units("gaussian", 2),), (Units("bernoulli", 30),)
        >>> can_enumerate(Sides(first, second, np.ones((2, 30)), np.zeros(2), np.ones(30)))
        False
    """
    first = sides.small_first().first
    return bool(sum(units.log_states for units in first) <= MOST_UNITS * np.log(2.0) + 1e-9)


def log_partition(side: Sequence[Units], eta: Float[np.ndarray, "*n size"]) -> np.ndarray:
    r"""Return \(\log \sum_f g(f) \exp(\eta \cdot f)\), over all layers of a side.

    Args:
        side: its layers.
        eta: natural parameters, of all layers one after the other.

    Example:
        >>> float(log_partition((Units("bernoulli", 2),), np.zeros(2)).round(4))
        1.3863
        >>> float(log_partition((Units("categorical", 2, 3),), np.zeros(6)).round(4))
        2.1972
    """
    total = np.zeros(eta.shape[:-1])
    start = 0
    for units in side:
        part = eta[..., start : start + units.size]
        start += units.size
        if units.kind == "bernoulli":
            total += _softplus_sums(part)
        elif units.kind == "gaussian":
            total += 0.5 * (part**2).sum(-1) + 0.5 * units.number * np.log(2.0 * np.pi)
        else:
            table = part.reshape(*part.shape[:-1], units.number, units.states)
            top = table.max(-1, keepdims=True)
            total += (np.log(np.exp(table - top).sum(-1)) + top[..., 0]).sum(-1)
    return total


def exact_log_z(sides: Sides) -> float:
    r"""Return log Z by listing every state of the smaller side, in double precision.

    \[ \log Z = c + \log \sum_a \exp \Bigl( \alpha \cdot f_a + A_b(\beta + W^\top f_a) \Bigr) \]

    where \(A_b\), the log partition of the other side's independent units, is closed.

    Args:
        sides: the energy.

    Raises:
        ValueError: the smaller side has more than 2**25 joint states.

    Cost:
        States times units of the larger side: 16 binary units against 784 take about 0.4 s, each
        further unit doubles it.

    References:
        Salakhutdinov, Murray: On the quantitative analysis of deep belief networks. ICML 2008.
        https://doi.org/10.1145/1390156.1390266

    Example:
        >>> first, second = (Units("bernoulli", 2),), (Units("bernoulli", 3),)
        >>> round(exact_log_z(Sides(first, second, np.zeros((2, 3)), np.zeros(2), np.zeros(3))), 4)
        3.4657
    """
    if not can_enumerate(sides):
        raise ValueError(
            f"log Z by enumeration needs at most {MOST_UNITS} binary units (2**{MOST_UNITS} "
            'states) on the smaller side; this energy has more. Use method="ais".'
        )
    total = -np.inf
    for _, values in states(sides.small_first()):
        top = values.max()
        total = np.logaddexp(total, np.log(np.exp(values - top).sum()) + top)
    return float(total + float(np.asarray(sides.constant)))


def states(sides: Sides) -> Iterator[tuple[Float[np.ndarray, "n first"], Float[np.ndarray, " n"]]]:
    """Yield blocks of states of the first side with their log marginals, without the constant.

    Args:
        sides: the energy; its first side has no Gaussian units.

    Example:
        >>> first, second = (Units("bernoulli", 1),), (Units("bernoulli", 1),)
        >>> sides = Sides(first, second, np.ones((1, 1)), np.zeros(1), np.zeros(1))
        >>> [(f.tolist(), values.round(3).tolist()) for f, values in states(sides)]
        [([[0.0], [1.0]], [0.693, 1.313])]
    """
    weight = np.asarray(sides.weight, np.float64)
    bias, other = (np.asarray(x, np.float64) for x in (sides.first_bias, sides.second_bias))
    rows = _indicators(sides.first)
    most = max(1, _ENTRIES // max(len(other), 1))
    split = len(rows)
    while split > 0 and np.prod([float(len(r)) for r in rows[split - 1 :]]) <= most:
        split -= 1
    low = _products(rows[split:], len(bias))
    low_field, low_score = low @ weight + other, low @ bias
    for high in _each_product(rows[:split], len(bias)):
        field = low_field + high @ weight
        yield low + high, low_score + high @ bias + log_partition(sides.second, field)


def _indicators(side: Sequence[Units]) -> list[np.ndarray]:
    """Return the statistics of each value of each unit, of shape (values, statistics of all)."""
    size = sum(units.size for units in side)
    found, start = [], 0
    for units in side:
        for unit in range(units.number):
            table = np.zeros((max(units.states, 2), size))
            if units.kind == "bernoulli":
                table[1, start + unit] = 1.0
            else:
                columns = start + unit * units.states + np.arange(units.states)
                table[np.arange(units.states), columns] = 1.0
            found.append(table)
        start += units.size
    return found


def _products(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the statistics of all joint states of some units."""
    table = np.zeros((1, size))
    for row in rows:
        table = (table[:, None] + row[None]).reshape(-1, size)
    return table


def _each_product(rows: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield them one by one."""
    for index in np.ndindex(*(len(row) for row in rows)):
        yield sum((row[i] for row, i in zip(rows, index, strict=True)), np.zeros(size))


def _softplus_sums(x: np.ndarray) -> np.ndarray:
    """Sums of log(1 + exp x) over the last axis, one logarithm for as many as a double can hold."""
    total = np.maximum(x, 0.0).sum(-1)
    factors = 1.0 + np.exp(-np.abs(x))  # between 1 and 2
    for start in range(0, x.shape[-1], 1000):
        total += np.log(factors[..., start : start + 1000].prod(-1))
    return total


def rows_log_sums(sides: Sides, f: Float[np.ndarray, "N visible"]) -> Float[np.ndarray, " N"]:
    """Return the log density of rows of the first side's first layer, all else summed out.

    Args:
        sides: the energy.
        f: statistics of that layer.

    Raises:
        ValueError: both sides have more than 2**25 joint states beside that layer.

    Cost:
        The states of the smaller side, for each row.

    Example:
        >>> first, second = (Units("bernoulli", 1),), (Units("bernoulli", 1),)
        >>> sides = Sides(first, second, np.ones((1, 1)), np.zeros(1), np.zeros(1))
        >>> rows_log_sums(sides, np.array([[0.0], [1.0]])).round(3).tolist()
        [0.693, 1.313]
    """
    size = sides.first[0].size
    weight, first_bias, second_bias = (np.asarray(x, np.float64) for x in sides[2:5])
    f = np.asarray(f, np.float64)
    direct = f @ first_bias[:size] + float(np.asarray(sides.constant))
    if sides.first[0].kind == "gaussian":
        direct = direct - 0.5 * (f**2).sum(-1)
    rest = Sides(sides.first[1:], sides.second, weight[size:], first_bias[size:], second_bias)
    if not can_enumerate(rest):
        raise ValueError(
            f"summing hidden layers out takes at most {MOST_UNITS} units in the even or in the odd "
            "ones; this machine has more in both. unnormalised_log_prob is a lower bound."
        )
    fields = second_bias + f @ weight[:size]
    sums = [exact_log_z(rest._replace(second_bias=field)) for field in fields]
    return direct + np.asarray(sums)
