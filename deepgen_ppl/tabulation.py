"""From a program to a factor graph: on which discrete latents each term depends, and its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.factor_graph import Numbered
from deepgen_ppl.scopes import Differs, Evaluate, Piece, Scopes, Term, chunks_of, compare

__all__ = ["Evaluate", "Piece", "Tabulation", "Term", "tabulate", "unobserved_name"]


_FEW_NUMBERS = 1 << 20
"""Values of terms up to which all bundles are evaluated at once."""


@dataclass(frozen=True, eq=False)
class Tabulation:
    """How the terms of a program are tabulated: what to evaluate, and where each entry is found.

    Attributes:
        coordinates: The discrete latents.
        bundles: Coordinates at which all terms are evaluated, `(R, D)` each.
        pieces: Where the tables stand in what comes out.
        constants: Terms that depend on no discrete latent.
        num_terms: Number T of terms.
        scopes: What each term touches; None where it was not found out by looking at values.
    """

    coordinates: Coordinates
    bundles: tuple[Int[np.ndarray, "R D"], ...]
    pieces: tuple[Piece, ...]
    constants: Int[np.ndarray, " c"]
    num_terms: int
    scopes: Scopes | None = None

    def holds(
        self,
        evaluate: Evaluate,
        terms: Sequence[Term],
        seed: int = 0,
        differs: Differs | None = None,
    ) -> bool:
        """Tell whether it is true of some terms at other data and parameters too.

        Args:
            evaluate: Coordinates to these terms, side by side.
            terms: The terms.
            seed: Seed of the changes by which it is checked.
            differs: What tells whether some of them change where they should not, if not `evaluate`
                does.
        """
        if self.scopes is None:
            return True
        tried = {name for name, _ in self.scopes.tried}
        if any(term.name in tried for term in terms):
            return False
        compared = partial(compare, evaluate, sum(term.size for term in terms))
        return self.scopes.hold(differs or compared, seed, terms)

    def tables(
        self, evaluate: Evaluate, few: int = _FEW_NUMBERS
    ) -> tuple[list[np.ndarray], Float[np.ndarray, " c"]]:
        """Return the tables of each piece, `(*cards, n)`, and the constant terms.

        Args:
            evaluate: Coordinates to terms.
            few: Values of terms up to which all bundles are evaluated at once.
        """
        found: list[np.ndarray] = [np.zeros(0)] * len(self.pieces)
        constants = np.zeros(len(self.constants))
        starts = np.cumsum([0, *(len(bundle) for bundle in self.bundles)])
        together = starts[-1] * self.num_terms <= few
        whole = [np.concatenate(self.bundles)] if together else self.bundles
        for number, bundle in enumerate(whole):
            own = [i for i, piece in enumerate(self.pieces) if together or piece.bundle == number]
            columns = np.concatenate([self.pieces[i].columns for i in own]) if own else []
            columns = np.asarray(columns, int)
            parts = []
            for rows in [bundle] if together else chunks_of(bundle, self.num_terms):
                terms = evaluate(rows)
                parts.append(terms[:, columns])
                constants = terms[0, self.constants]
            seen, first = np.concatenate(parts), 0
            for i in own:
                piece = self.pieces[i]
                place = np.arange(first, first + len(piece.columns))
                run = piece.runs + starts[piece.bundle] if together else piece.runs
                found[i] = seen[run, place]
                first += len(piece.columns)
        return found, constants

    def renewed(
        self,
        only: Callable[[Sequence[Term]], Evaluate],
        terms: Sequence[Term],
        before: tuple[Sequence[np.ndarray], Float[np.ndarray, " c"]],
    ) -> tuple[list[np.ndarray], Float[np.ndarray, " c"]]:
        """Return the tables where some terms are evaluated anew, each at the states it needs.

        Args:
            only: Some terms to what evaluates these alone, side by side.
            terms: The terms.
            before: Tables and constant terms as they were.
        """
        found, constants = list(before[0]), np.array(before[1])
        needed: dict[tuple[int, int], list[int]] = {}
        for i, piece in enumerate(self.pieces):
            if any(term.name == piece.name for term in terms):
                needed.setdefault((piece.bundle, int(piece.runs.max()) + 1), []).append(i)
        for (bundle, count), own in needed.items():
            names = {self.pieces[i].name for i in own}
            used = [term for term in terms if term.name in names]
            evaluate, x = only(used), self.bundles[bundle][:count]
            seen = np.concatenate([evaluate(rows) for rows in chunks_of(x, self.num_terms)])
            place = self._places(used)
            for i in own:
                found[i] = seen[self.pieces[i].runs, place[self.pieces[i].columns]]
        used = [term for term in terms if not term.depends]
        if used:
            mine = np.isin(self.constants, np.concatenate([term.columns for term in used]))
            place = self._places(used)[self.constants[mine]]
            constants[mine] = only(used)(self.bundles[0][:1])[0, place]
        return found, constants

    def _places(self, terms: Sequence[Term]) -> Int[np.ndarray, " T"]:
        """Return where each term stands where some of them stand side by side."""
        place, first = np.full(self.num_terms, -1), 0
        for term in terms:
            place[term.columns] = np.arange(first, first + term.size)
            first += term.size
        return place

    def numbered(self, tables: Sequence[np.ndarray] | None = None) -> Numbered:
        """Return the factor graph, with or without its tables."""
        blocks: dict[tuple[int, ...], list[int]] = {}
        for i, piece in enumerate(self.pieces):
            blocks.setdefault(piece.runs.shape[:-1], []).append(i)
        starts = np.cumsum([0, *(len(piece.columns) for piece in self.pieces)])
        scopes = [np.concatenate([self.pieces[i].scopes for i in ids]) for ids in blocks.values()]
        numbers = [np.concatenate([np.arange(starts[i], starts[i + 1]) for i in ids])
                   for ids in blocks.values()]  # fmt: skip
        joined = None
        if tables is not None:
            joined = tuple(np.concatenate([tables[i] for i in ids], -1) for ids in blocks.values())
        return Numbered(self.coordinates.cardinality, tuple(scopes), joined, tuple(numbers))


def tabulate(
    coordinates: Coordinates,
    plates: Mapping[str, tuple[str | None, ...]],
    terms: Sequence[Term],
    evaluate: Evaluate,
    certain: bool = True,
    fixed: bool = True,
    seed: int = 0,
) -> Tabulation:
    """Find out which coordinates each term depends on, and how to see its table.

    A term is taken to depend on the elements of a site that share its index in their common plates,
    on those near it along a sequence (an axis without plate that both have), and on all elements
    along other axes. That nothing else moves it is checked by random changes; where something
    does, more and more is taken in, in the end the whole site. So a table may be larger than need
    be, never too small. Where it would be large, as where elements are picked by index, each
    coordinate is moved at random points to see which terms it changes, and that is checked again.

    Args:
        coordinates: The discrete latents.
        plates: Plate of each axis of each latent site, None for an axis without.
        terms: The terms of the log density by site.
        evaluate: Coordinates to terms.
        certain: Whether the sites that terms depend on cannot have been missed: then there is
            nothing to check where sites have one element each.
        fixed: Whether all else stays as it is, so that what is seen by trying stays true.
        seed: Seed of the changes.

    Raises:
        ValueError: A site depends on more elements at once than a table can hold.

    Cost:
        About 70 densities for the checks; evaluating the bundles later takes as many as the
        largest table has entries, times the number of tables that need the same latents.
    """
    scopes = Scopes(coordinates, plates, terms)
    single = all(not place.shape for place in coordinates.places.values())
    if not (single and certain):
        scopes.check(evaluate, np.random.default_rng(seed), fixed)
    bundles: list[np.ndarray] = []
    pieces: list[Piece] = []
    for members in _packed(terms, scopes):
        rows = max(scopes.num_runs(term) for term in members)
        x = np.zeros((coordinates.size, rows), np.int32).T
        for term in members:
            scopes.fill(term, x)
            pieces += scopes.pieces(term, len(bundles))
        bundles.append(x)
    constants = [t.columns for t in terms if not t.depends]
    num_terms = sum(term.size for term in terms)
    if not bundles:
        bundles.append(np.zeros((1, coordinates.size), int))
    constant = np.concatenate(constants) if constants else np.zeros(0, int)
    looked = None if single and certain else scopes
    return Tabulation(coordinates, tuple(bundles), tuple(pieces), constant, num_terms, looked)


def _packed(terms: Sequence[Term], scopes: Scopes) -> list[list[Term]]:
    """Put terms that need different latents together: they share their runs."""
    bins: list[tuple[set[str], list[Term]]] = []
    for term in sorted((t for t in terms if t.depends), key=lambda t: -scopes.num_runs(t)):
        free = [entry for entry in bins if entry[0].isdisjoint(term.depends)]
        used, members = free[0] if free else (set(), [])
        if not free:
            bins.append((used, members))
        used.update(term.depends)
        members.append(term)
    return [members for _, members in bins]


def row_numbers(
    tabulation: Tabulation,
    terms: Sequence[Term],
    plates: Mapping[str, tuple[str | None, ...]],
    data_plates: Sequence[str],
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " D"]]:
    """Return the row of the data of each term and of each coordinate, -1 for none.

    Args:
        tabulation: How the program is tabulated.
        terms: Its terms.
        plates: Plate of each axis of each latent site.
        data_plates: Plates that follow the data.
    """
    own, inside = np.full(tabulation.num_terms, -1), np.full(tabulation.coordinates.size, -1)
    for term in terms:
        own[term.columns] = _row(term.shape, term.plates, data_plates)
    for site, place in tabulation.coordinates.places.items():
        index = _row(place.shape, plates[site], data_plates)
        inside[place.start : place.start + place.size] = index
    return own, inside


def _row(
    shape: tuple[int, ...], plates: Sequence[str | None], data_plates: Sequence[str]
) -> Int[np.ndarray, " n"] | int:
    axes = [i for i, name in enumerate(plates) if name in data_plates]
    return np.indices(shape)[axes[0]].reshape(-1) if axes else -1


def unobserved_name(site: str, sites: Mapping[str, object]) -> str | None:
    """Return the name that a site with missing elements has in the program, None for other sites.

    Args:
        site: A latent site.
        sites: All sites.

    Example:
        >>> unobserved_name("x_unobserved", {"x_unobserved": 0, "x_observed": 0, "x": 0})
        'x'
    """
    name = site.removesuffix("_unobserved")
    return name if name != site and f"{name}_observed" in sites and name in sites else None


def unobserved_names(latents: Iterable[str], sites: Mapping[str, object]) -> dict[str, str]:
    """Return the names that sites with missing elements have in the program, by latent site.

    Args:
        latents: Latent sites.
        sites: All sites.

    Example:
        >>> sites = {"z": 0, "x_unobserved": 0, "x_observed": 0, "x": 0}
        >>> unobserved_names(["z", "x_unobserved"], sites)
        {'x_unobserved': 'x'}
    """
    pairs = ((site, unobserved_name(site, sites)) for site in latents)
    return {site: name for site, name in pairs if name is not None}
