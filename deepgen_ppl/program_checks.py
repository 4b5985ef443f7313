"""What the ready discrete programs are built from and called with, and sentences if it is wrong."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from deepgen_ppl.net_checks import checked_table

Learnable = Literal[False, "point", "dirichlet"]
_INTERIOR = 1e-3


def check_learnable(learnable: Any, concentration: float) -> None:
    """Raise a ValueError unless tables are constants, "point" or "dirichlet"."""
    if learnable not in (False, "point", "dirichlet"):
        raise ValueError(
            f"learnable={learnable!r}: it is False (tables are constants), 'point' (tables are "
            "parameters) or 'dirichlet' (rows of tables are latent, a priori Dirichlet)."
        )
    if not concentration > 0:
        raise ValueError(f"concentration is {concentration}; a Dirichlet's is positive.")


def check_sites(sites: Collection[str], *, plates: Collection[str] = ("data",)) -> None:
    """Raise a ValueError where the program's own names collide with the user's."""
    names = list(sites)
    for name in [*plates, *(f"{v}{end}" for v in names for end in ("_table", "_observed"))]:
        if name in names:
            raise ValueError(
                f"A variable is called '{name}', which the program needs for itself: rename it."
            )


def check_data(data: Any, mask: Any, columns: Sequence[str] | None, *, whole: bool) -> None:
    """Raise where data or mask have another shape or kind than a program over them needs.

    Args:
        data: Array or tensor, `(row, column)`.
        mask: Observed cells in the shape of the data, or None.
        columns: Names of the columns where their number is fixed.
        whole: Whether data are numbers of states.

    Raises:
        ValueError: The shape.
        TypeError: The kind of number.
    """
    if data.ndim < 2 or (columns is not None and (data.ndim != 2 or data.shape[1] != len(columns))):
        wanted = "(row, time)" if columns is None else f"(row, {len(columns)})"
        of = "" if columns is None else f", a column for each of {list(columns)}"
        raise ValueError(f"The data have the shape {wanted}{of}; these have {tuple(data.shape)}.")
    kind = str(data.dtype).removeprefix("torch.")
    if whole and not kind.startswith(("int", "uint")):
        raise TypeError(
            f"The data are numbers of states, integers; these are {kind}. Missing cells are "
            "told by mask=, True where a cell is observed, and not by NaN."
        )
    if mask is not None:
        kind = str(mask.dtype).removeprefix("torch.")
        if kind != "bool" or tuple(mask.shape) != tuple(data.shape[:2]):
            raise ValueError(
                f"mask is boolean, True where a cell is observed, and has the shape "
                f"{tuple(data.shape[:2])}; this one is {kind} of shape {tuple(mask.shape)}."
            )


def interior(table: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The table moved a little towards uniform, so that no probability starts at zero.

    Example:
        >>> interior(np.array([1.0, 0.0])).round(6).tolist()
        [0.9995, 0.0005]
    """
    return (1 - _INTERIOR) * table + _INTERIOR / table.shape[-1]


def check_length(length: int | None) -> int:
    """The number of steps to draw where a program of sequences has no data.

    Raises:
        ValueError: There is none.
    """
    if length is None or length < 1:
        raise ValueError(f"length is {length}: without data, say by it how many steps are drawn.")
    return length


def hidden_chain(num_states: int, initial: Any, transition: Any, emission: Any) -> dict[str, Any]:
    """The tables of a hidden Markov model, checked, uniform where none are given.

    Example:
        >>> {n: t.shape for n, t in hidden_chain(2, None, None, 3).items()}
        {'initial': (2,), 'transition': (2, 2), 'emission': (2, 3)}
    """
    uniform = np.full((num_states, num_states), 1 / num_states)
    names = {"state": tuple(map(str, range(num_states)))}
    names["next state"] = names["state"]
    tables = {
        "initial": checked_table("state", names, (), uniform[0] if initial is None else initial),
        "transition": checked_table(
            "next state", names, ("state",), uniform if transition is None else transition
        ),
    }
    if not callable(emission):
        if np.ndim(emission) == 0:
            emission = np.full((num_states, int(emission)), 1 / int(emission))
        symbols = {"x": tuple(map(str, range(np.shape(emission)[-1])))}
        tables["emission"] = checked_table("x", names | symbols, ("state",), emission)
    return tables
