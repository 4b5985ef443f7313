"""Which elements of a discrete site each term of a density touches, found by trying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Touched(NamedTuple):
    """The coordinates of one site that the elements of one term touch.

    Attributes:
        coordinates: Coordinates of each element, -1 for none.
        colours: Colour of each: the coordinates of one element have different ones.
        count: Number of colours.
    """

    coordinates: Int[np.ndarray, "n s"]
    colours: Int[np.ndarray, "n s"]
    count: int


def touched_by(
    terms: Sequence[Int[np.ndarray, " e"]], coordinates: range, elements: range
) -> Touched:
    """Return what some terms were seen to touch.

    Args:
        terms: Terms that change with each coordinate.
        coordinates: Coordinates of the site.
        elements: The terms that are asked about.

    Example:
        >>> chain = [np.array([0]), np.array([0, 1]), np.array([1])]  # a term for each two
        >>> found = touched_by(chain, range(3), range(2))
        >>> found.coordinates.tolist(), found.colours.tolist(), found.count
        ([[0, 1], [1, 2]], [[1, 0], [0, 1]], 2)
    """
    own = {c: terms[c][(terms[c] >= elements.start) & (terms[c] < elements.stop)] - elements.start
           for c in coordinates}  # fmt: skip
    busy: list[set[int]] = [set() for _ in elements]
    colour: dict[int, int] = {}
    for c in sorted(own, key=lambda c: -len(own[c])):
        taken = set().union(*(busy[e] for e in own[c]))
        colour[c] = next(k for k in range(len(taken) + 1) if k not in taken)
        for e in own[c]:
            busy[e].add(colour[c])
    width = max(map(len, busy), default=0)
    found, colours = (np.full((len(busy), width), blank) for blank in (-1, 0))
    room = np.zeros(len(busy), int)
    for c, places in own.items():
        found[places, room[places]], colours[places, room[places]] = c, colour[c]
        room[places] += 1
    return Touched(found, colours, max((k + 1 for k in colour.values() if width), default=0))
