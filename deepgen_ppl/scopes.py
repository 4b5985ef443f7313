"""Which discrete latents each term of a density touches: read from plates, checked, and tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl.blocks import differ, one_by_one
from deepgen_ppl.checks import quote
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.touching import Touched, touched_by

Evaluate = Callable[[Int[np.ndarray, "P D"]], Float[np.ndarray, "P T"]]

Differs = Callable[[Int[np.ndarray, "2P D"], Bool[np.ndarray, "P T"]], bool]
"""Coordinates, the same with changes, and some terms for each, to whether any of these changes."""

_MOST_TERMS = 1 << 24
"""Values of terms that are held at a time."""

_WINDOWS = ((0,), (-1, 0), (0, 1), (-2, -1, 0), (-1, 0, 1), (-3, -2, -1, 0))
"""Steps of a sequence that an element may depend on, in the order in which they are tried."""

_TESTS = 32
"""Random changes by which it is checked that terms depend on nothing else."""

_MANY = 4
"""Elements of sites above which it is tried which of them a term really touches."""

_MOST_TRIED = 1 << 28
"""Terms times coordinates up to which that is tried."""

_ROUNDS = 4
"""Times that it is tried until random changes find nothing more."""

_MOST_ENTRIES = 1 << 22
"""Entries of one table of a term."""


class Term(NamedTuple):
    """Terms of the log density that one site contributes.

    Attributes:
        name: The site.
        start: Where its first element stands among all terms.
        shape: Shape of its elements.
        plates: Name of the plate of each axis, None for an axis without.
        depends: The discrete latent sites on which its density may depend.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    plates: tuple[str | None, ...]
    depends: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def columns(self) -> Int[np.ndarray, " n"]:
        """Its elements among all terms."""
        return np.arange(self.start, self.start + self.size)


class Piece(NamedTuple):
    """Elements of one site whose tables have one shape.

    Attributes:
        columns: The elements, among all terms.
        scopes: Coordinates of each.
        runs: The run in which each entry of each table is seen, `(*cards, n)`.
        bundle: Number of the bundle of runs.
        name: The site.
    """

    columns: Int[np.ndarray, " n"]
    scopes: Int[np.ndarray, "n s"]
    runs: Int[np.ndarray, "*cards n"]
    bundle: int
    name: str


class Scopes:
    """For each term and each site it depends on: which elements of the site each element touches.

    The way is a number: the place in `_WINDOWS` along sequences, then -1 for whole sequences, -2
    for all elements of the site, whatever the plates.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        plates: Mapping[str, tuple[str | None, ...]],
        terms: Sequence[Term],
    ) -> None:
        self.coordinates, self.plates, self.terms = coordinates, plates, terms
        self.ways = {(t.name, site): 0 for t in terms for site in t.depends}
        self.tried: dict[tuple[str, str], Touched] = {}
        self._drawn: tuple[tuple, tuple[np.ndarray, np.ndarray]] | None = None
        self.cardinality = coordinates.cardinality
        places = coordinates.places.items()
        self._most = {n: int(p.cardinality.max(initial=1)) for n, p in places}

    def axes(self, term: Term, site: str) -> list[tuple[int | None, tuple[int, ...] | None]]:
        """Return for each axis of a site the axis of the term that it goes along with, if any.

        Beside it stand the steps along a sequence; None where all elements are touched.
        """
        way, place = self.ways[term.name, site], self.coordinates.places[site]
        names = _named(self.plates[site], len(place.shape))
        own = _named(term.plates, len(term.shape))
        found: list[tuple[int | None, tuple[int, ...] | None]] = []
        for axis, name in enumerate(names):
            if way == -2:
                found.append((None, None))
            elif name is not None:
                found.append((own.index(name), (0,)) if name in own else (None, None))
            else:
                other = axis - len(names) + len(own)  # the same axis, counted from the right
                same = other >= 0 and own[other] is None
                same = same and term.shape[other] == place.shape[axis] > 1
                steps = _WINDOWS[way] if way >= 0 else None
                found.append((other, steps) if same and steps else (None, None))
        return found

    def touched(self, term: Term, site: str) -> tuple[Int[np.ndarray, "n s"], np.ndarray]:
        """Return the coordinates of a site that each element of a term touches, -1 for none.

        Beside them stands the colour of each: coordinates of one colour take one value together.
        """
        if (known := self.tried.get((term.name, site))) is not None:
            return known.coordinates, known.colours
        place = self.coordinates.places[site]
        index = np.indices(term.shape).reshape(len(term.shape), term.size)
        choices, colours, base = [], [], []
        for size, (other, steps) in zip(place.shape, self.axes(term, site), strict=True):
            if other is None or steps is None:
                choices.append(np.broadcast_to(np.arange(size)[:, None], (size, term.size)))
                colours.append(choices[-1])
                base.append(size)
            else:
                at = index[other] + np.array(steps)[:, None]
                choices.append(np.where((at >= 0) & (at < size), at, -1))
                colours.append(at % len(steps))
                base.append(len(steps))
        found = np.zeros((1, term.size), int)
        colour = np.zeros((1, term.size), int)
        for size, at, shade, count in zip(place.shape, choices, colours, base, strict=True):
            merged = np.where((found[:, None] < 0) | (at < 0), -1, found[:, None] * size + at)
            found = merged.reshape(-1, term.size)
            colour = (colour[:, None] * count + shade).reshape(-1, term.size)
        return np.where(found < 0, -1, found + place.start).T, colour.T

    def num_colours(self, term: Term, site: str) -> int:
        """Return how many values elements of a site take at once."""
        if (known := self.tried.get((term.name, site))) is not None:
            return known.count
        place = self.coordinates.places[site]
        axes = self.axes(term, site)
        return math.prod(
            size if steps is None else len(steps)
            for size, (_, steps) in zip(place.shape, axes, strict=True)
        )

    def cards(self, term: Term) -> tuple[int, ...]:
        """Return how many values each colour of a term takes."""
        found: list[int] = []
        for site in term.depends:
            found += [self._most[site]] * self.num_colours(term, site)
        return tuple(found)

    def num_runs(self, term: Term) -> int:
        """Return how many runs show the tables of a term.

        Raises:
            ValueError: They are too many.
        """
        cards = self.cards(term)
        count = math.prod(cards)
        if count > _MOST_ENTRIES:
            self._refuse(term, len(cards), count)
        return count

    def fill(self, term: Term, x: Int[np.ndarray, "R D"]) -> None:
        """Let the first runs go through all values of a term's colours."""
        digits = np.indices(self.cards(term), np.int32).reshape(len(self.cards(term)), -1)
        first = 0
        for site in term.depends:
            coordinates, colours = self.touched(term, site)
            known = coordinates >= 0
            at = coordinates[known]
            values = np.minimum(digits[first + colours[known]], self.cardinality[at, None] - 1)
            x.T[at, : digits.shape[1]] = values  # rows of one coordinate stand side by side
            first += self.num_colours(term, site)

    def pieces(self, term: Term, bundle: int) -> Iterator[Piece]:
        """Yield the tables of a term, those of equal shape together."""
        cards = self.cards(term)
        if not term.depends:
            return
        strides = np.array([math.prod(cards[i + 1 :]) for i in range(len(cards))], int)
        found, colours, first = [], [], 0
        for site in term.depends:
            coordinates, colour = self.touched(term, site)
            found.append(coordinates)
            colours.append(colour + first)
            first += self.num_colours(term, site)
        coordinates, colour = np.concatenate(found, 1), np.concatenate(colours, 1)
        sizes = np.where(coordinates < 0, 0, self.cardinality[coordinates])
        for kind in np.unique(sizes, axis=0):
            rows = np.flatnonzero((sizes == kind).all(1))
            kept = np.flatnonzero(kind)
            shape = tuple(kind[kept].tolist())
            steps = strides[colour[rows][:, kept]]
            runs = np.zeros((*shape, len(rows)), int)
            for axis, size in enumerate(shape):
                digit = np.arange(size).reshape((-1,) + (1,) * (len(shape) - axis))
                runs = runs + digit * steps[:, axis]
            columns, scopes = term.start + rows, coordinates[rows][:, kept]
            yield Piece(columns, scopes, runs.astype(np.int32), bundle, term.name)

    def check(self, evaluate: Evaluate, rng: np.random.Generator, fixed: bool) -> None:
        """Take in more of the sites until random changes of all else leave terms as they are."""
        start, other = self._draw(rng)
        moved = start != other
        changed = changes_of(evaluate, np.concatenate([start, other]), self._num_terms)
        for term in self.terms:
            if not self._holds(term, changed, moved):
                self._widen(term, changed, moved)
        large = [term for term in self.terms if self._num_told_apart(term) > _MANY]
        if fixed and large and len(self.cardinality) * self._num_terms <= _MOST_TRIED:
            self._try(large, evaluate, rng, changed, moved)

    def hold(self, differs: Differs, seed: int, terms: Sequence[Term]) -> bool:
        """Tell whether random changes find nothing more at other data and parameters.

        Args:
            differs: Coordinates, the same with changes, and terms, to whether some of these change.
            seed: Seed of the changes.
            terms: The terms that are asked about, side by side.
        """
        key = (seed, *(term.name for term in terms))
        if self._drawn is None or self._drawn[0] != key:
            start, other = self._draw(np.random.default_rng(seed))
            still = [~self._explained(term, start != other) for term in terms]
            small = np.int8 if self.cardinality.max(initial=1) < 128 else np.int32
            both = np.concatenate([start, other]).astype(small)
            self._drawn = key, (both, np.concatenate(still, 1))
        return not differs(*self._drawn[1])

    def _draw(self, rng: np.random.Generator) -> tuple[Int[np.ndarray, "P D"], ...]:
        """Draw coordinates, and the same with random changes."""
        cards = self.cardinality
        start = rng.integers(0, cards, (_TESTS, len(cards)))
        share = rng.choice([0.5, 0.2, 0.05], (_TESTS, 1))
        moved = rng.random((_TESTS, len(cards))) < share
        other = np.where(moved, rng.integers(0, cards, start.shape), start)
        return start.astype(np.int32), other.astype(np.int32)

    def _try(
        self,
        large: Sequence[Term],
        evaluate: Evaluate,
        rng: np.random.Generator,
        changed: np.ndarray,
        moved: np.ndarray,
    ) -> None:
        """Find which elements some terms touch, by moving each coordinate at random points."""
        terms = [np.zeros(0, int) for _ in self.cardinality]
        for _ in range(_ROUNDS):
            more = one_by_one(lambda x, _: evaluate(x), self.cardinality, self._num_terms, rng)
            terms = [np.union1d(one, other) for one, other in zip(terms, more, strict=True)]
            for term in large:
                for site in term.depends:
                    place = self.coordinates.places[site]
                    inside = range(place.start, place.start + place.size)
                    elements = range(term.start, term.start + term.size)
                    self.tried[term.name, site] = touched_by(terms, inside, elements)
            large = [term for term in large if not self._holds(term, changed, moved)]
            if not large:
                return
        for term in large:
            for site in term.depends:
                del self.tried[term.name, site]

    def _num_told_apart(self, term: Term) -> int:
        """Return how many elements of sites of several elements a term touches."""
        several = [site for site in term.depends if self.coordinates.places[site].size > 1]
        return sum(self.num_colours(term, site) for site in several)

    @property
    def _num_terms(self) -> int:
        return sum(term.size for term in self.terms)

    def _holds(self, term: Term, changed: np.ndarray, moved: np.ndarray) -> bool:
        return not (changed[:, term.columns] & ~self._explained(term, moved)).any()

    def _explained(self, term: Term, moved: np.ndarray) -> Bool[np.ndarray, "P n"]:
        """Return where a term touches what was moved."""
        explained = np.zeros((len(moved), term.size), bool)
        for site in term.depends:
            coordinates, _ = self.touched(term, site)
            for column in coordinates.T:
                explained |= moved[:, column] & (column >= 0)
        return explained

    def _widen(self, term: Term, changed: np.ndarray, moved: np.ndarray) -> None:
        """Find the least that explains the changes, first together, then for each site alone."""
        ways = [*range(1, len(_WINDOWS)), -1, -2]
        for way in ways:
            for site in term.depends:
                self.ways[term.name, site] = way
            if self._holds(term, changed, moved):
                break
        else:
            raise ValueError(
                f"the density of site '{term.name}' changes with discrete latents that it was not "
                f"seen to use; those seen are {quote(term.depends) or 'none'}. Python control flow "
                "on values cannot be read: index by them, or use torch.where or jax.numpy.where."
            )
        for site in term.depends:
            wide = self.ways[term.name, site]
            for narrower in [0, *ways]:
                self.ways[term.name, site] = narrower
                if narrower == wide or self._holds(term, changed, moved):
                    break

    def _refuse(self, term: Term, num_elements: int, count: int) -> None:
        whole = [site for site in term.depends if self.ways[term.name, site] < 0]
        many = f"{count:.1e}" if count > 1e6 else str(count)
        cure = (
            "Write it as a product of smaller terms, give some of the latents by given=, or draw "
            "them by mcmc(kernel='gibbs') or importance."
        )
        if whole:
            raise ValueError(
                f"site '{term.name}' depends on many elements of {quote(whole)} at once (the "
                f"elements of their plate touch each other): its table over {num_elements} latents "
                f"would have {many} entries. {cure}"
            )
        raise ValueError(
            f"site '{term.name}' depends on {num_elements} discrete latents at once (of "
            f"{quote(term.depends)}): its table would have {many} entries. {cure}"
        )


def _named(plates: tuple[str | None, ...], rank: int) -> list[str | None]:
    """Return the plates of all axes; axes of the event, on the right, have none."""
    return [*plates, *[None] * (rank - len(plates))]


def chunks_of(x: Int[np.ndarray, "R D"], num_terms: int) -> Iterator[Int[np.ndarray, "P D"]]:
    """Yield runs, as many at a time as their terms fit in memory."""
    step = max(1, _MOST_TERMS // max(num_terms, 1))
    for first in range(0, len(x), step):
        yield x[first : first + step]


def changes_of(
    evaluate: Evaluate, both: Int[np.ndarray, "2P D"], num_terms: int
) -> Bool[np.ndarray, "P T"]:
    """Return which terms change from the first half of some coordinates to the second.

    Args:
        evaluate: Coordinates to terms.
        both: Coordinates, and the same with changes.
        num_terms: Number T of terms.
    """
    count = len(both) // 2
    if 2 * count * num_terms <= _MOST_TERMS:  # in one run: a wing may run them by Python
        seen = evaluate(both)
        return differ(seen[:count], seen[count:])
    parts = [np.concatenate([evaluate(rows) for rows in chunks_of(x, num_terms)])
             for x in (both[:count], both[count:])]  # fmt: skip
    return differ(*parts)


def compare(
    evaluate: Evaluate,
    num_terms: int,
    both: Int[np.ndarray, "2P D"],
    still: Bool[np.ndarray, "P T"],
) -> bool:
    """Tell whether some terms change that should not.

    Args:
        evaluate: Coordinates to terms.
        num_terms: Number T of terms.
        both: Coordinates, and the same with changes.
        still: Which terms should not change.
    """
    return bool((changes_of(evaluate, both, num_terms) & still).any())
