"""Which discrete coordinates of a density may move at once: those that share none of its terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Evaluate = Callable[[Int[np.ndarray, "P D"], int], Float[np.ndarray, "P T"]]

_POINTS = 8  # at which each coordinate is moved
_PROBES = 48  # random subsets by which one coordinate of many is told from the others
_MOST = 50_000_000  # terms times coordinates that are looked at one by one
_CHUNK = 2**22  # terms that are held at a time
_TOLERANCE = 1e-5


class Blocks(NamedTuple):
    """Discrete coordinates in blocks; those of one block touch no common term of the density.

    Given all else, the coordinates of a block are independent, and the conditional density of each
    is proportional to the exponential of the sum of the terms that it touches.

    Attributes:
        coordinates: Coordinates of each block, the number D where a block is shorter than others.
        elements: Terms that each of them touches, the number T where they are fewer.
        singles: Coordinates that share terms with too many others: each moves by itself.
    """

    coordinates: Int[np.ndarray, "B M"]
    elements: Int[np.ndarray, "B M E"]
    singles: Int[np.ndarray, " S"]

    @property
    def num_moves(self) -> int:
        """Number of updates, one after the other, that move every coordinate once."""
        return len(self.coordinates) + len(self.singles)

    def owners(self, num_terms: int) -> Int[np.ndarray, "B T"]:
        """Return the place in its block of the coordinate that touches each term, M for none.

        Args:
            num_terms: Number T of terms.
        """
        width = self.coordinates.shape[1]
        found = np.full((len(self.coordinates), num_terms + 1), width)
        for owner, elements in zip(found, self.elements, strict=True):
            owner[elements] = np.arange(width)[:, None]
        return found[:, :num_terms]

    def places(self, num_coordinates: int) -> Int[np.ndarray, "B D"]:
        """Return the place of each coordinate in each block, M where it is not in it.

        Args:
            num_coordinates: Number D of coordinates.
        """
        width = self.coordinates.shape[1]
        found = np.full((len(self.coordinates), num_coordinates + 1), width)
        for place, coordinates in zip(found, self.coordinates, strict=True):
            place[coordinates] = np.arange(width)
        return found[:, :num_coordinates]


def singly(num_coordinates: int) -> Blocks:
    """Return blocks of nothing: every coordinate moves by itself.

    Example:
        >>> singly(3).singles
        array([0, 1, 2])
    """
    empty = np.zeros((0, 0), int)
    return Blocks(empty, empty[:, :, None], np.arange(num_coordinates))


def find_blocks(
    evaluate: Evaluate,
    cardinality: Int[np.ndarray, " D"],
    groups: Sequence[Int[np.ndarray, " n"]],
    seed: int = 0,
) -> Blocks:
    """Find coordinates that may move at once, by moving them and looking at the terms that change.

    Every coordinate is moved at several random points. Where that is too much, the coordinates of
    a group are moved in random subsets, and the subsets in which a term changes tell which one of
    them it depends on. What a term depends on at rare points only can stay unseen, so that samplers
    compare the sum of the parts with the whole as they go.

    Args:
        evaluate: `(x, point) -> terms` of a batch of coordinates, each a number below its
            cardinality; all else has a value for each of the numbers `point` below 8.
        cardinality: Number of values of each coordinate.
        groups: Coordinates that are alike, as those of one site.
        seed: Seed of the points.

    Returns:
        The blocks, as few as a greedy colouring finds.

    Cost:
        8 (D + 1) densities; for each group of more than that allows about 150.

    References:
        Gonzalez, Low, Gretton, Guestrin: Parallel Gibbs sampling: from colored fields to thin
        junction trees. AISTATS 2011. https://proceedings.mlr.press/v15/gonzalez11a.html

    Example:
        >>> def chain(x, point):  # each coordinate meets the next one
        ...     return np.where(x[:, 1:] == x[:, :-1], 0.5, 0.0)
        >>> blocks = find_blocks(chain, np.full(6, 2), [np.arange(6)])
        >>> blocks.num_moves
        2
    """
    rng = np.random.default_rng(seed)
    size = len(cardinality)
    num_terms = evaluate(np.zeros((1, size), int), 0).shape[1]
    if size * num_terms <= _MOST:
        touched = one_by_one(evaluate, cardinality, num_terms, rng)
        return _packed(_coloured(touched, num_terms), touched, num_terms, size)
    touched = [np.zeros(0, int) for _ in range(size)]
    colours: list[list[int]] = []
    for group in groups:
        found = _told_apart(evaluate, cardinality, group, rng)
        if found is None:
            colours += [[int(d)] for d in group]
            continue
        for coordinate, elements in zip(group, found, strict=True):
            touched[coordinate] = elements
        colours.append([int(d) for d in group])
    return _packed(colours, touched, num_terms, size)


def differ(one: Any, other: Any) -> Any:
    """Tell where two arrays of any language differ by more than rounding.

    Infinities of one sign are the same, and so are two NaN.

    Example:
        >>> differ(np.array([1.0, -np.inf, 0.0]), np.array([1.1, -np.inf, 1e-9])).tolist()
        [True, False, False]
    """
    with np.errstate(invalid="ignore"):
        close = abs(one - other) <= _TOLERANCE * (1.0 + abs(one))
    return ~(close | (one == other) | ((one != one) & (other != other)))  # NaN alone is not itself


def one_by_one(
    evaluate: Evaluate, cardinality: np.ndarray, num_terms: int, rng: np.random.Generator
) -> list[Int[np.ndarray, " e"]]:
    """Return the terms that change with each coordinate, at some random points.

    Args:
        evaluate: As `find_blocks` takes it.
        cardinality: Number of values of each coordinate.
        num_terms: Number of terms.
        rng: Source of the points.
    """
    size = len(cardinality)
    step = max(1, min(size, _CHUNK // max(num_terms, 1)))
    touched = [np.zeros(0, int) for _ in range(size)]
    for point in range(_POINTS):
        start = rng.integers(0, cardinality)
        other = _others(start, cardinality, rng)
        for first in range(0, size, step):
            moved = np.arange(first, first + step) % size  # equal chunks are compiled once
            x = np.repeat(start[None], step + 1, 0)
            x[np.arange(step), moved] = other[moved]
            terms = evaluate(x, point)
            changed = differ(terms[-1:], terms[:-1])
            for row, d in zip(changed, moved, strict=True):
                touched[d] = np.union1d(touched[d], np.flatnonzero(row))
    return touched


def _told_apart(
    evaluate: Evaluate, cardinality: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray] | None:
    """Return the terms of each coordinate of a group; None where two touch the same one."""
    owner: dict[int, int] = {}
    for point in range(3):
        start = rng.integers(0, cardinality)
        other = _others(start, cardinality, rng)
        subsets = rng.random((_PROBES, len(group))) < 0.5
        names = {row.tobytes(): i for i, row in enumerate(np.packbits(subsets, axis=0).T)}
        if len(names) < len(group):
            return None
        x = np.repeat(start[None], _PROBES + 1, 0)
        x[1:, group] = np.where(subsets, other[group], start[group])
        changed = _changes(evaluate, x, point)
        codes = np.packbits(changed, axis=0).T
        for element in np.flatnonzero(codes.any(axis=1)):
            found = names.get(codes[element].tobytes())
            if found is None or owner.setdefault(int(element), found) != found:
                return None
    touched: list[list[int]] = [[] for _ in group]
    for element, place in owner.items():
        touched[place].append(element)
    return [np.array(sorted(elements), int) for elements in touched]


def _changes(evaluate: Evaluate, x: np.ndarray, point: int) -> Bool[np.ndarray, "P T"]:
    """Tell which terms differ from those of the first row, a few rows at a time."""
    first = evaluate(x[:1], point)
    step = max(1, _CHUNK // first.shape[1])
    parts = [evaluate(x[i : i + step], point) for i in range(1, len(x), step)]
    return np.concatenate([differ(first, part) for part in parts])


def _others(start: np.ndarray, cardinality: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return another value of each coordinate that has one."""
    shift = 1 + rng.integers(0, np.maximum(cardinality - 1, 1))
    return (start + shift) % cardinality


def _coloured(touched: Sequence[np.ndarray], num_terms: int) -> list[list[int]]:
    """Colour the coordinates so that those of one colour touch no common term."""
    colours: list[list[int]] = []
    taken: list[np.ndarray] = []
    most: list[int] = []
    for d in sorted(range(len(touched)), key=lambda d: -len(touched[d])):
        elements = touched[d]
        for colour, busy in enumerate(taken):
            room = (len(colours[colour]) + 1) * most[colour] <= 4 * num_terms + 64
            if room and not busy[elements].any():
                break
        else:
            colour = len(colours)
            colours.append([])
            taken.append(np.zeros(num_terms, bool))
            most.append(len(elements))
        colours[colour].append(d)
        taken[colour][elements] = True
    return colours


def _packed(
    colours: Sequence[Sequence[int]], touched: Sequence[np.ndarray], num_terms: int, size: int
) -> Blocks:
    """Return colours as arrays of equal rows; a colour of one coordinate is a single."""
    several = [sorted(colour) for colour in colours if len(colour) > 1]
    singles = sorted(d for colour in colours if len(colour) == 1 for d in colour)
    width = max((len(colour) for colour in several), default=0)
    depth = max((len(touched[d]) for colour in several for d in colour), default=0)
    coordinates = np.full((len(several), width), size)
    elements = np.full((len(several), width, depth), num_terms)
    for block, colour in enumerate(several):
        coordinates[block, : len(colour)] = colour
        for place, d in enumerate(colour):
            elements[block, place, : len(touched[d])] = touched[d]
    return Blocks(coordinates, elements, np.array(singles, int))
