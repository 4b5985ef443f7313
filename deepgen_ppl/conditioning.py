"""A factor graph given states of some of its variables: smaller tables, one for each row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.factor_graph import Numbered
from deepgen_ppl.findings import Findings
from deepgen_ppl.plans import Group


class Conditioned(NamedTuple):
    """What is left of a factor graph.

    Attributes:
        graph: Over the variables that are left; tables have a last axis of B rows, or of one.
        kept: These variables, in the old numbering.
        constants: Log values of the tables that no variable is left of, `(n, B or 1)`.
        owners: A variable, in the old numbering, of each of these tables.
    """

    graph: Numbered
    kept: Int[np.ndarray, " d"]
    constants: Float[np.ndarray, "n B"]
    owners: Int[np.ndarray, " n"]


def condition(
    graph: Numbered, fixed: Int[np.ndarray, " n"], states: Int[np.ndarray, "B n"]
) -> Conditioned:
    """Fix variables at states that differ from row to row.

    Args:
        graph: A factor graph with tables.
        fixed: Variables.
        states: Their states in each row.

    Example:
        >>> table = np.arange(6.0).reshape(2, 3, 1)
        >>> graph = Numbered(np.array([2, 3]), (np.array([[0, 1]]),), (table,), (np.arange(1),))
        >>> left = condition(graph, np.array([0]), np.array([[1], [0]]))
        >>> left.kept.tolist(), left.graph.tables[0][:, 0].T.tolist()
        ([1], [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]])
    """
    tables = graph.tables or ()
    if not len(fixed):
        whole = graph._replace(tables=tuple(table[..., None] for table in tables))
        return Conditioned(whole, np.arange(len(graph.cards)), np.zeros((0, 1)), np.zeros(0, int))
    column = np.full(len(graph.cards), -1)
    column[fixed] = np.arange(len(fixed))
    kept = np.flatnonzero(column < 0)
    place = np.full(len(graph.cards), -1)
    place[kept] = np.arange(len(kept))
    blocks: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    constants, owners = [np.zeros((0, 1))], [np.zeros(0, int)]
    for scopes, table, numbers in zip(graph.scopes, tables, graph.numbers, strict=True):
        known = column[scopes] >= 0
        for pattern in np.unique(known, axis=0):
            rows = np.flatnonzero((known == pattern).all(1))
            axes, rest = np.flatnonzero(pattern), np.flatnonzero(~pattern)
            part = np.moveaxis(table[..., rows], -1, 0).transpose(0, *(1 + axes), *(1 + rest))
            if len(axes):
                at = [states[:, column[scopes[rows, axis]]].T for axis in axes]
                part = part[(np.arange(len(rows))[:, None], *at)]  # factors, rows, rest
            else:
                part = part[:, None]
            if not len(rest):
                constants.append(part)
                owners.append(scopes[rows, 0])
                continue
            part = np.moveaxis(part, (0, 1), (-2, -1))
            own = place[scopes[rows][:, rest]]
            blocks.setdefault(part.shape[:-2], []).append((own, part, numbers[rows]))
    scopes, merged, numbers = [], [], []
    for parts in blocks.values():
        width = max(part.shape[-1] for _, part, _ in parts)
        wide = [np.broadcast_to(p, (*p.shape[:-1], width)) if len(parts) > 1 else p
                for _, p, _ in parts]  # fmt: skip
        scopes.append(np.concatenate([own for own, _, _ in parts]))
        merged.append(np.concatenate(wide, axis=-2))
        numbers.append(np.concatenate([number for _, _, number in parts]))
    left = Numbered(graph.cards[kept], tuple(scopes), tuple(merged), tuple(numbers))
    width = max(part.shape[1] for part in constants)
    flat = [np.broadcast_to(part, (len(part), width)) for part in constants]
    return Conditioned(left, kept, np.concatenate(flat), np.concatenate(owners))


def stacks_of(
    group: Group, graph: Numbered, findings: Findings, kept: Int[np.ndarray, " d"]
) -> list[np.ndarray]:
    """Return the tables that a plan takes, `(*cards, G, M)` for M parts times rows of evidence.

    Where all parts and rows have the same table it stands once; those of single variables, in
    which evidence stands, are always there for each.

    Args:
        group: Parts that are alike.
        graph: The conditioned graph, tables with a last axis of rows.
        findings: The evidence.
        kept: The graph's variables in the numbering of the evidence.
    """
    found = []
    rows = findings.num_rows
    for stack in group.plan.stacks:
        if stack.unary:
            coordinates = kept[group.variables[:, stack.members].T]  # G, parts
            table = findings.log_likelihood(coordinates, stack.cards[0])
        else:
            block, at = graph.placed(group.factors[:, stack.members].T)
            table = _taken((graph.tables or ())[block], at)
            if len(group.factors) > 1 and (table == table[..., :1, :]).all():
                table = table[..., :1, :]
        parts, width = table.shape[-2:]
        if (parts, width) != (1, 1) and (len(group.variables), rows) != (parts, width):
            full = (*table.shape[:-2], len(group.variables), rows)
            table = np.broadcast_to(table, full)
        found.append(table.reshape(*table.shape[:-2], -1))
    return found


def _taken(tables: Float[np.ndarray, "*cards n B"], at: Int[np.ndarray, "*n"]) -> np.ndarray:
    """Return some tables of a block: as a view where they stand one after the other."""
    first, size = int(at.flat[0]), at.size
    if not np.array_equal(at.reshape(-1), np.arange(first, first + size)):
        return tables[..., at, :]
    part = tables[..., first : first + size, :]
    return part.reshape(*part.shape[:-2], *at.shape, part.shape[-1])
