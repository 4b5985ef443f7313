"""Where the tables of a summed-out density stand among the terms of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.exact_sums import planned
from deepgen_ppl.plans import Plan
from deepgen_ppl.tabulation import Tabulation, Term, row_numbers

_MOST_NUMBERS = 1 << 27
"""Terms that are held at once, at all states together."""


class Part(NamedTuple):
    """Connected parts of the factor graph that are alike.

    Attributes:
        plan: How one is summed out.
        tables: For each stack, where the entries of its tables stand among the evaluated terms,
            `(*cards, G, M)`, and whether they are zeros instead.
        rows: Row of the data that each part belongs to, -1 where it belongs to none.
    """

    plan: Plan
    tables: tuple[tuple[np.ndarray, bool], ...]
    rows: Int[np.ndarray, " M"]


class Sources(NamedTuple):
    """How the discrete latents of a program are summed out.

    Attributes:
        coordinates: The discrete latents.
        names: Sites whose terms are evaluated, in order.
        bundles: Coordinates at which they are, `(R, D)` each.
        parts: What becomes of them.
        constants: Terms that depend on no discrete latent.
        constant_rows: Row of each, -1 where it belongs to none.
        num_rows: Number of rows of the data plate, 0 without one.
        joins: A site whose terms join latents of several rows, or of rows and what is outside; None
            where rows are apart.
    """

    coordinates: Coordinates
    names: tuple[str, ...]
    bundles: tuple[Int[np.ndarray, "R D"], ...]
    parts: tuple[Part, ...]
    constants: Int[np.ndarray, " c"]
    constant_rows: Int[np.ndarray, " c"]
    num_rows: int
    joins: str | None


def sources_of(
    tabulation: Tabulation,
    terms: Sequence[Term],
    plates: Mapping[str, tuple[str | None, ...]],
    data_plates: Sequence[str],
) -> Sources:
    """Return where each table of each connected part is found.

    Args:
        tabulation: How the program is tabulated.
        terms: Its terms.
        plates: Plate of each axis of each latent site.
        data_plates: Plates that follow the data.

    Raises:
        ValueError: The terms at all states that are needed do not fit in memory.
    """
    width = tabulation.num_terms
    starts = np.cumsum([0, *(len(bundle) * width for bundle in tabulation.bundles)])
    if starts[-1] > _MOST_NUMBERS:
        raise ValueError(
            f"the {width} terms of the log density are needed at {starts[-1] // width} states of "
            f"the discrete latents, {starts[-1]:.1e} numbers at once. Pass batch_size, or write "
            "the model as a product of smaller terms."
        )
    places = [
        starts[piece.bundle] + piece.runs * width + piece.columns for piece in tabulation.pieces
    ]
    graph = tabulation.numbered(places)
    own, inside = row_numbers(tabulation, terms, plates, data_plates)
    parts, joins = [], None
    for group in planned(graph):
        tables: list[tuple[np.ndarray, bool]] = []
        rows = inside[group.variables]
        for stack in group.plan.stacks:
            if stack.unary:
                zeros = np.zeros((*stack.cards, len(stack.members), 1), np.int32)
                tables.append((zeros, True))
                continue
            numbers = group.factors[:, stack.members].T
            block, at = graph.placed(numbers)
            table = (graph.tables or ())[block][..., at]
            tables.append((table.astype(np.int32), False))
            columns = table.reshape(-1, *numbers.shape)[0].T % width  # parts, members
            strange = columns[own[columns] != rows[:, :1]]
            if joins is None and len(strange):
                joins = _site(terms, int(strange[0]))
            rows = np.concatenate([rows, own[columns]], 1)
        alike = (rows == rows[:, :1]).all(1)
        parts.append(Part(group.plan, tuple(tables), np.where(alike, rows[:, 0], -1)))
    return Sources(
        tabulation.coordinates,
        tuple(term.name for term in terms),
        tabulation.bundles,
        tuple(parts),
        tabulation.constants,
        own[tabulation.constants],
        int(max(own.max(initial=-1), inside.max(initial=-1))) + 1,
        joins,
    )


def _site(terms: Sequence[Term], column: int) -> str:
    return next(t.name for t in terms if t.start <= column < t.start + t.size)
