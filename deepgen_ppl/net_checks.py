"""What makes states, parents and tables a Bayesian network, and the sentences where they do not."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

_TOLERANCE = 1e-6  # files of the bnlearn repository keep it within 3e-7


def check_names(
    states: Mapping[str, Sequence[str]],
    parents: Mapping[str, Sequence[str]],
    named: Collection[str],
    tables: Collection[str],
) -> None:
    """Raise a ValueError where variables, states, parents and tables do not fit together."""
    if not states:
        raise ValueError("A network has at least one variable; `states` is empty.")
    for where, names in (("parents", named), ("tables", tables)):
        unknown = [v for v in names if v not in states]
        if unknown:
            raise ValueError(
                f"`{where}` has {unknown[0]!r}, which is no variable; `states` has {list(states)}."
            )
    for variable, labels in states.items():
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"The states of '{variable}' are a tuple of strings; got {labels!r}.")
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(
                f"The states of '{variable}' are {list(labels)}; there is at least one, and no two "
                "are equal."
            )
        if variable not in tables:
            raise ValueError(f"'{variable}' has no table; `tables` has {list(tables)}.")
        above = parents[variable]
        if isinstance(above, str):
            raise ValueError(f"The parents of '{variable}' are a tuple of names; got {above!r}.")
        unknown = [p for p in above if p not in states]
        if unknown:
            raise ValueError(
                f"The parent {unknown[0]!r} of '{variable}' is no variable; the variables are "
                f"{list(states)}."
            )
        if len(set(above)) < len(above):
            raise ValueError(f"'{variable}' has a parent twice: {list(above)}.")


def checked_table(
    variable: str, states: Mapping[str, Sequence[str]], parents: Sequence[str], table: Any
) -> Float[np.ndarray, "*parents states"]:
    """The table as float64 that nobody can write to, its rows normalised.

    Raises:
        ValueError: Its shape, an entry or the sum of a row is wrong.
    """
    try:
        array = np.array(table, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"The table of '{variable}' is no array of numbers: {error}.") from error
    expected = tuple(len(states[v]) for v in (*parents, variable))
    if array.shape != expected:
        axes = ", ".join(f"{v}: {len(states[v])}" for v in (*parents, variable))
        raise ValueError(
            f"The table of '{variable}' has the shape {array.shape}; its axes are its parents in "
            f"order and its own states, ({axes}), the shape {expected}."
        )
    wrong = wrong_row(variable, states, parents, array)
    if wrong is not None:
        raise ValueError(wrong[1])
    sums = array.sum(-1, keepdims=True)
    close = np.abs(sums - 1) <= array.shape[-1] * np.finfo(np.float64).eps  # normalised already
    array = np.where(close, array, array / sums)
    array.flags.writeable = False
    return array


def wrong_row(
    variable: str, states: Mapping[str, Sequence[str]], parents: Sequence[str], table: np.ndarray
) -> tuple[tuple[int, ...], str] | None:
    """The place and what is wrong of a row that is no distribution, None where all rows are some.

    Args:
        variable: Whose table it is.
        states: States of each variable.
        parents: Its parents.
        table: Numbers of the right shape.

    Example:
        >>> states = {"rain": ("yes", "no"), "wet": ("yes", "no")}
        >>> wrong_row("wet", states, ["rain"], np.array([[0.5, 0.5], [0.5, 0.7]]))[0]
        (1,)
    """
    for wrong, what in ((~np.isfinite(table), "not finite"), (table < 0, "negative")):
        if wrong.any():
            index = tuple(map(int, np.argwhere(wrong)[0]))
            where = _where(states, parents, index)
            return index[:-1], (
                f"The table of '{variable}' is {what}, {table[index]}, for "
                f"{variable}={states[variable][index[-1]]}{where}."
            )
    sums = table.sum(-1)
    off = np.abs(sums - 1)
    if off.max() <= _TOLERANCE:
        return None
    index = tuple(map(int, np.unravel_index(off.argmax(), off.shape)))
    where = _where(states, parents, index).replace(" given", " for", 1)
    return index, (
        f"The probabilities of '{variable}'{where} sum to {sums[index]:.9g}, and have to sum to "
        f"one within {_TOLERANCE:g}."
    )


def _where(states: Mapping[str, Sequence[str]], parents: Sequence[str], index: Sequence) -> str:
    labels = [f"{p}={states[p][i]}" for p, i in zip(parents, index, strict=False)]
    return f" given {', '.join(labels)}" if labels else ""
