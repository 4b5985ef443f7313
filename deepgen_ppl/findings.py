"""What is known of discrete variables, row by row: states, missing cells, likelihoods of states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl.checks import quote
from deepgen_ppl.discrete import Coordinates, Place


@dataclass(frozen=True, eq=False)
class Findings:
    """Evidence on discrete coordinates, for each of B rows of evidence.

    Attributes:
        states: Number of the state of each coordinate, -1 where it is not known.
        soft: Log likelihoods of the states of coordinates, by coordinate, `(K, B or 1)`.
        batched: Whether evidence was given in rows; otherwise B is 1.
    """

    states: Int[np.ndarray, "B D"]
    soft: Mapping[int, Float[np.ndarray, "K B"]]
    batched: bool

    @property
    def num_rows(self) -> int:
        """Number B of rows."""
        return len(self.states)

    @property
    def fixed(self) -> Int[np.ndarray, " n"]:
        """The coordinates to condition on: those known, where all rows know the same ones."""
        known = self.states >= 0
        same = (known == known[:1]).all()
        hard = known[0] & ~np.isin(np.arange(known.shape[1]), list(self.soft))
        return np.flatnonzero(hard) if same else np.zeros(0, int)

    def log_likelihood(
        self, coordinates: Int[np.ndarray, "*n"], num_states: int
    ) -> Float[np.ndarray, "K *n B"]:
        """Return the evidence as log likelihoods of states, zero where nothing is known.

        Args:
            coordinates: The coordinates.
            num_states: Their number K of states.
        """
        if not self.soft and (self.states < 0).all():
            return np.zeros((num_states, *coordinates.shape, len(self.states)), np.float32)
        small = np.int8 if num_states < 128 else self.states.dtype
        known = np.ascontiguousarray(self.states.T.astype(small))[coordinates]  # *n, B
        numbers = np.arange(num_states, dtype=small).reshape(-1, *(1,) * known.ndim)
        fits = (known < 0) | (known == numbers)
        kind = float if self.soft else np.float32  # which holds zero and minus infinity as well
        found = np.where(fits, kind(0.0), kind(-np.inf))
        for place in np.ndindex(coordinates.shape) if self.soft else ():
            extra = self.soft.get(int(coordinates[place]))
            if extra is not None:
                found[(slice(None), *place)] += extra
        return found

    def one(self, row: int, kept: Bool[np.ndarray, " D"]) -> Findings:
        """Return the evidence of one row on some coordinates alone."""
        soft = {
            c: table[:, row : row + 1] if table.shape[1] > 1 else table
            for c, table in self.soft.items()
            if kept[c]
        }
        return Findings(np.where(kept, self.states[row], -1)[None], soft, False)


def read_findings(
    coordinates: Coordinates,
    given: Mapping[str, Any] | None = None,
    soft: Mapping[str, Any] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    names: Mapping[str, str] | None = None,
) -> Findings:
    """Read evidence as users write it.

    Args:
        coordinates: The discrete sites.
        given: Site names to values: of the site's shape, or with a leading axis of rows; masked
            arrays leave cells unknown; labels where states have some.
        soft: Site names to likelihoods of the values, of the site's shape and one more axis.
        labels: Names of the states of sites that have some.
        names: Names that users know sites by, where these differ.

    Raises:
        ValueError: An unknown site, another shape, numbers of rows that differ, a value that is no
            state (with variable and row), NaN, negative likelihoods.

    Example:
        >>> sites = Coordinates.of({"a": np.arange(2)[None], "b": np.arange(3)[None]},
        ...                        {"a": (), "b": ()})
        >>> read_findings(sites, {"b": np.ma.array([2, 0], mask=[False, True])}).states.tolist()
        [[-1, 2], [-1, -1]]
    """
    names, labels = dict(names or {}), dict(labels or {})
    public = {names.get(site, site): site for site in coordinates.places}
    unknown = [n for n in (*(given or {}), *(soft or {})) if n not in public]
    if unknown:
        raise ValueError(
            f"evidence on {quote(unknown)}: there is no such discrete latent site. The model has "
            f"{quote(list(public)) or 'none'}."
        )
    parts: list[tuple[str, np.ndarray, bool]] = []
    for name, value in (given or {}).items():
        place = coordinates.places[public[name]]
        numbers = numbers_of(name, value, place, labels.get(name))
        parts.append((name, *_rows(name, numbers, place.shape, ())))
    tables: list[tuple[str, np.ndarray, bool]] = []
    for name, value in (soft or {}).items():
        place = coordinates.places[public[name]]
        likelihood = _likelihood(name, value)
        kinds = (place.support.shape[1],)
        tables.append((name, *_rows(name, likelihood, place.shape, kinds)))
    sizes = {name: len(value) for name, value, rows in (*parts, *tables) if rows}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"evidence of different numbers of rows: {sizes}.")
    count = next(iter(sizes.values()), 1)
    if count == 0:
        raise ValueError(f"evidence on {quote(list(sizes))} has no rows.")
    states = np.full((count, coordinates.size), -1, order="F")
    for name, value, _ in parts:
        place = coordinates.places[public[name]]
        states[:, place.start : place.start + place.size] = value
    known: dict[int, np.ndarray] = {}
    for name, value, _ in tables:
        place = coordinates.places[public[name]]
        with np.errstate(divide="ignore"):
            log = np.log(value)  # rows, size, K
        known |= {place.start + i: log[:, i].T for i in range(place.size)}
    return Findings(states, known, bool(sizes))


# ------------------------------------------------------------------------------------- helpers


def numbers_of(
    name: str, value: Any, place: Place, labels: Sequence[str] | None
) -> Int[np.ndarray, "*shape"]:
    """Return the numbers of states, -1 where they are masked."""
    mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
    array = np.asarray(np.ma.getdata(value) if mask is not None else value)
    if array.dtype.kind in "US" or array.dtype == object:
        return _labelled(name, array, mask, labels)
    if array.dtype.kind == "f" and np.isnan(array if mask is None else array[~mask]).any():
        raise ValueError(
            f"given['{name}'] holds NaN. Mark missing cells by a masked array "
            "(np.ma.masked_invalid), or by the program's obs_mask."
        )
    support = place.support
    event = support.ndim - 2
    if place.is_counting and array.dtype.kind in "iu":
        numbers = array.astype(int, copy=False)
        known = numbers.view(np.uint) < support.shape[1]  # negative numbers are large ones there
        return _checked(name, array, numbers, known, mask, place)
    if event and mask is not None:
        mask = np.asarray(mask.reshape(*mask.shape[: mask.ndim - event], -1).any(-1))
    shape = array.shape[: array.ndim - event]
    if shape[len(shape) - len(place.shape) :] != place.shape:
        raise ValueError(_shape_message(name, array.shape, place.shape + support.shape[2:]))
    lead = math.prod(shape[: len(shape) - len(place.shape)])
    flat = array.reshape(lead, place.size, 1, *support.shape[2:])
    same = (flat == support[None]).reshape(*flat.shape[:2], support.shape[1], -1).all(-1)
    known = same.any(-1).reshape(shape)
    return _checked(name, array, same.argmax(-1).reshape(shape), known, mask, place)


def _checked(
    name: str,
    array: np.ndarray,
    numbers: Int[np.ndarray, "*shape"],
    known: Bool[np.ndarray, "*shape"],
    mask: Bool[np.ndarray, "*shape"] | None,
    place: Place,
) -> Int[np.ndarray, "*shape"]:
    """Refuse values that are no states, and mark masked ones by -1."""
    right = known if mask is None else known | mask
    if not right.all():
        at = tuple(int(i) for i in np.argwhere(~right)[0])
        support = place.support
        states = np.unique(support).tolist() if support.ndim == 2 else support[0].tolist()
        where = f" at {at}" if at else ""
        shown = f"{states[0]} to {states[-1]}" if len(states) > 6 else str(states)
        raise ValueError(
            f"given['{name}']{where} is {array[at].tolist()}, which is none of its states {shown}. "
            "Mark missing cells by a masked array."
        )
    return numbers if mask is None else np.where(mask, -1, numbers)


def _labelled(
    name: str, array: np.ndarray, mask: np.ndarray | None, labels: Sequence[str] | None
) -> Int[np.ndarray, "*shape"]:
    if labels is None:
        raise ValueError(
            f"given['{name}'] holds {array.dtype} values, and its states have no names. Pass their "
            "numbers."
        )
    place = {str(label): i for i, label in enumerate(labels)}
    found = np.full(array.shape, -1)
    for at in np.ndindex(array.shape):
        if mask is not None and mask[at]:
            continue
        if str(array[at]) not in place:
            where = f" at {at}" if at else ""
            raise ValueError(
                f"given['{name}']{where} is '{array[at]}', which is none of its states "
                f"{quote(list(place))}."
            )
        found[at] = place[str(array[at])]
    return found


def _likelihood(name: str, value: Any) -> Float[np.ndarray, "*shape K"]:
    array = np.asarray(value, float)
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(
            f"soft['{name}'] must hold likelihoods, finite and not negative (no logarithms)."
        )
    return array


def _rows(
    name: str, value: np.ndarray, shape: tuple[int, ...], last: tuple[int, ...]
) -> tuple[np.ndarray, bool]:
    """Return values as rows, `(B or 1, size, *last)`, and whether they had rows."""
    wanted, size = (*shape, *last), math.prod(shape)
    if value.shape == wanted:
        return value.reshape(1, size, *last), False
    if value.ndim == len(wanted) + 1 and value.shape[1:] == wanted:
        return value.reshape(len(value), size, *last), True
    raise ValueError(_shape_message(name, value.shape, wanted))


def _shape_message(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return (
        f"the evidence on '{name}' has shape {found}; the site's is {wanted}, and a leading axis "
        "of rows may stand before it."
    )
