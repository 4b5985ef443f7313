"""What exact inference refuses, and why: what is too large, impossible, or not to be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from deepgen_ppl.checks import quote
from deepgen_ppl.factor_graph import Numbered, cost_of_groups
from deepgen_ppl.findings import Findings
from deepgen_ppl.plans import Group, chunk_of

if TYPE_CHECKING:
    from deepgen_ppl.exact_sums import Subject, Sums

_BYTES = 12
"""Bytes for each entry: messages, what their gradient needs, and the gradient, of 4 bytes each."""

_ELEMENT = re.compile(r"(?P<site>.*)\[(?P<index>[\d, ]+)\]")


class ExactCost(NamedTuple):
    """What exact inference takes.

    Attributes:
        width: Induced width: variables of the largest table less one.
        largest: Entries of the largest table.
        entries: Entries of all tables, for each row of evidence.
        bytes: Memory that is used at once, about.
    """

    width: int
    largest: int
    entries: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"induced width {self.width}, largest table {self.largest:,} entries, "
            f"{self.entries:,} entries in all, about {self.bytes / 2**20:,.0f} MiB"
        )


def cost_of(groups: Sequence[Group], num_rows: int) -> ExactCost:
    """Return what summing out groups of parts takes, for rows of evidence."""
    once = [
        chunk_of(group.plan, len(group.variables) * num_rows) * group.plan.cost.entries
        for group in groups
    ]
    return ExactCost(*cost_of_groups(groups), _BYTES * max(once, default=0))


def check_cost(cost: ExactCost, max_bytes: int) -> None:
    """Stop before memory runs out.

    Raises:
        ValueError: with the numbers and what else can be done.
    """
    if cost.bytes > max_bytes:
        raise ValueError(
            f"exact inference would need {cost}, and max_bytes={max_bytes:,} "
            f"({max_bytes / 2**20:,.0f} MiB). Give evidence on the same sites in every row "
            "(given=), which makes tables smaller; ask for less; raise max_bytes; or estimate, by "
            "mcmc(kernel='gibbs') or importance."
        )


def check_single(batched: bool, what: str) -> None:
    """Refuse rows of evidence where one is meant.

    Raises:
        ValueError: saying so.
    """
    if batched:
        raise ValueError(
            f"{what} is of one row of evidence, and given= has a leading axis of rows."
        )


def check_alike(one: Sums, other: Sums) -> None:
    """Refuse to compare answers of different structures.

    Raises:
        ValueError: saying so.
    """
    same = len(one.groups) == len(other.groups) and all(
        a.plan.key == b.plan.key and np.array_equal(a.variables, b.variables)
        for a, b in zip(one.groups, other.groups, strict=False)
    )
    same = same and np.array_equal(one.fixed, other.fixed)
    states = one.findings.states[:, one.fixed]
    if not same or not np.array_equal(states, other.findings.states[:, one.fixed]):
        raise ValueError(
            "kl compares answers on the same sites: factor graphs of one structure, with evidence "
            "on the same sites of the same states."
        )


def elements(
    subject: Subject, names: Sequence[str]
) -> tuple[Int[np.ndarray, "n k"], tuple[int, ...]]:
    """Return the coordinates of sites that are taken together, and the shape of the elements.

    Args:
        subject: The factor graph and its names.
        names: Sites, or elements of sites as `"z[3]"`.

    Raises:
        ValueError: An unknown site, no element of it, one named twice, or shapes that differ.
    """
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"joint takes different sites, got {list(names)}.")
    found = [_element(subject, name) for name in names]
    shapes = {name: f.shape for name, f in zip(names, found, strict=True) if f.shape}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"joint takes sites of one shape, element by element, and got {shapes}.")
    shape = next(iter(shapes.values()), ())
    columns = [np.broadcast_to(f, shape).reshape(-1) for f in found]
    coordinates = np.stack(columns, 1)
    if any(len(set(row)) < len(row) for row in coordinates[:1].tolist()):
        raise ValueError(f"joint takes different elements, got {list(names)}.")
    return coordinates, shape


def _element(subject: Subject, name: str) -> np.ndarray:
    places = {subject.public(site): p for site, p in subject.coordinates.places.items()}
    match = None if name in places else _ELEMENT.fullmatch(name)
    site = match["site"] if match else name
    if site not in places:
        raise ValueError(f"there is no discrete site '{site}'; there are {quote(list(places))}.")
    place = places[site]
    grid = np.arange(place.start, place.start + place.size).reshape(place.shape)
    if match is None:
        return grid
    index = tuple(int(part) for part in match["index"].split(","))
    if len(index) != grid.ndim or any(i >= n for i, n in zip(index, grid.shape, strict=False)):
        raise ValueError(f"'{site}' has shape {grid.shape}; there is no element '{name}'.")
    return grid[index]


def with_block(graph: Numbered, scopes: np.ndarray, tables: np.ndarray) -> Numbered:
    """Return a factor graph with more tables, numbered behind all others.

    Args:
        graph: The graph, its tables with a last axis of rows.
        scopes: Variables of the new tables, `(n, s)`.
        tables: The new tables, `(*cards, n, 1)`.
    """
    first = sum(map(len, graph.numbers))
    fresh = [(scopes, tables, np.arange(first, first + len(scopes)))]
    kept = []
    for old in zip(graph.scopes, graph.tables or (), graph.numbers, strict=True):
        (fresh if old[1].shape[:-2] == tables.shape[:-2] else kept).append(old)
    width = max(part.shape[-1] for _, part, _ in fresh)
    wide = [np.broadcast_to(part, (*part.shape[:-1], width)) for _, part, _ in fresh]
    merged = (
        np.concatenate([part for part, _, _ in fresh]),
        np.concatenate(wide, axis=-2),
        np.concatenate([part for _, _, part in fresh]),
    )
    columns = zip(*kept, merged, strict=True)
    return Numbered(graph.cards, *map(tuple, columns))


def separated(
    subject: Subject, findings: Findings, first: str, second: str, given: Sequence[str]
) -> bool:
    """Tell whether no path of factors joins two sites past what is known."""
    start, goal = (set(_element(subject, name).reshape(-1).tolist()) for name in (first, second))
    known = {int(c) for name in given for c in _element(subject, name).reshape(-1)}
    known |= set(np.flatnonzero((findings.states >= 0).all(0)).tolist())
    around: dict[int, set[int]] = {}
    for scopes in subject.graph.scopes:
        for scope in scopes.tolist():
            for c in scope:
                around.setdefault(c, set()).update(scope)
    seen = set(start - known)
    edge = list(seen)
    while edge:
        for c in around.get(edge.pop(), set()) - seen - known:
            seen.add(c)
            edge.append(c)
    return not (seen & goal)


def refuse_impossible(
    subject: Subject,
    findings: Findings,
    impossible: Bool[np.ndarray, "*rows"],
    possible: Callable[[Findings], bool],
) -> None:
    """Say that evidence cannot happen, and which of it is in conflict.

    Raises:
        ValueError: naming a row and the sites of a smallest set of evidence that is impossible.
    """
    place = tuple(int(i) for i in np.argwhere(impossible)[0])
    row = place[0] if findings.batched else 0
    known = findings.states[row] >= 0
    known[list(findings.soft)] = True
    where = (
        f" in {impossible.sum()} of {impossible.size} rows, the first at {place}," if place else ""
    )
    least = _conflict(findings, row, known, possible)
    if least is None:
        raise ValueError(
            f"the data are impossible under the model{where}: log evidence is minus infinity "
            "whatever the discrete sites are. Look for data outside a support."
        )
    labels, columns = _labels(subject, least)
    said = []
    for label, column in zip(labels, columns, strict=True):
        state = findings.states[row, column]
        site = label.split("[")[0]
        names = subject.labels.get(site)
        shown = "soft evidence" if state < 0 else str(names[state] if names else state)
        said.append(f"{label} = {shown}" if state >= 0 else f"{label} ({shown})")
    raise ValueError(
        f"the evidence is impossible{where}: log evidence is minus infinity and there is no "
        f"posterior. In conflict are {', '.join(said)}"
        f"{' with the data' if subject.has_data else ''}. `impossible` tells which rows."
    )


def _conflict(
    findings: Findings, row: int, known: np.ndarray, possible: Callable[[Findings], bool]
) -> Int[np.ndarray, " n"] | None:
    """Return coordinates whose evidence is impossible and would not be without any of them."""
    if not possible(findings.one(row, np.zeros_like(known))):
        return None
    left = known.copy()
    for c in np.flatnonzero(known):
        left[c] = False
        if possible(findings.one(row, left)):
            left[c] = True
    return np.flatnonzero(left)


def _labels(subject: Subject, columns: np.ndarray) -> tuple[list[str], np.ndarray]:
    found = []
    for column in columns:
        for site, place in subject.coordinates.places.items():
            if place.start <= column < place.start + place.size:
                index = np.unravel_index(column - place.start, place.shape) if place.shape else ()
                at = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
                found.append(f"{subject.public(site)}{at}")
    return found, columns
