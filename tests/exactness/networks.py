"""Published networks, evidence for them, and the answers of pyAgrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.elimination import best_order

NETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "bayes_nets"
SMALL = ("asia", "cancer", "earthquake", "survey", "sachs", "child", "alarm")
LARGE = ("hepar2", "andes", "water", "barley")
TOO_WIDE = {"link": 10**8, "diabetes": 10**7}  # entries of the largest table, at the least


def read(name: str) -> BayesNet:
    """A published network."""
    path = NETS / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return BayesNet.from_bif(path)


def evidence_sets(net: BayesNet, count: int, seed: int) -> list[dict[str, int]]:
    """Random evidence on up to a third of the variables, its values those of a draw of the net."""
    rng = np.random.default_rng(seed)
    rows = net.sample(count, seed=seed)
    found = []
    for row in rows:
        size = rng.integers(1, max(2, len(row) // 3))
        columns = rng.choice(len(row), size=size, replace=False)
        found.append({net.variables[c]: int(row[c]) for c in sorted(columns)})
    return found


def masked_rows(net: BayesNet, sets: Sequence[Mapping[str, int]]) -> dict[str, np.ma.MaskedArray]:
    """Evidence in rows, unknown where a set says nothing."""
    given = {}
    for variable in net.variables:
        values = np.array([s.get(variable, 0) for s in sets])
        given[variable] = np.ma.MaskedArray(values, [variable not in s for s in sets])
    return given


def to_agrum(net: BayesNet):
    """The same network in pyAgrum."""
    gum = pytest.importorskip("pyagrum", reason="pyagrum is not installed")
    other = gum.BayesNet(net.name)
    for variable, labels in net.states.items():
        other.add(gum.LabelizedVariable(variable, variable, list(labels)))
    for variable, above in net.parents.items():
        for parent in above:
            other.addArc(parent, variable)
    for variable, table in net.tables.items():
        axes = [*net.parents[variable], variable]
        theirs = list(reversed(other.cpt(variable).names))  # the axes of its arrays
        moved = table.transpose([axes.index(name) for name in theirs])
        other.cpt(variable)[:] = np.ascontiguousarray(moved)
    return other


def agrum_marginals(other, evidence: Mapping[str, int]) -> tuple[dict[str, np.ndarray], float]:
    """Marginals of all variables, and the log probability of the evidence."""
    import pyagrum as gum

    engine = gum.LazyPropagation(other)
    engine.setEvidence(dict(evidence))
    engine.makeInference()
    found = {other.variable(i).name(): engine.posterior(i).toarray() for i in other.nodes()}
    return found, float(np.log(engine.evidenceProbability())) if evidence else 0.0


def most_probable(net: BayesNet, evidence: Mapping[str, int]) -> float:
    """Log probability of the most probable row that agrees with the evidence.

    By eliminating maxima one after the other in NumPy: pyAgrum's own answer fails where evidence or
    the graph leaves parts without a link.
    """
    place = {v: i for i, v in enumerate(net.variables)}
    tables: list[tuple[tuple[int, ...], np.ndarray]] = []
    constant = 0.0
    for variable, log_table in net.log_tables.items():
        scope = (*net.parents[variable], variable)
        table = log_table[tuple(evidence.get(v, slice(None)) for v in scope)]
        kept = tuple(place[v] for v in scope if v not in evidence)
        if kept:
            tables.append((kept, table))
        else:
            constant += float(table)
    cards = [len(labels) for labels in net.states.values()]
    order, _ = best_order(cards, [scope for scope, _ in tables])
    for v in order:
        mine = [(scope, table) for scope, table in tables if v in scope]
        if not mine:
            continue
        tables = [pair for pair in tables if v not in pair[0]]
        scope = (*sorted({u for s, _ in mine for u in s} - {v}), v)
        total = np.zeros([cards[u] for u in scope])
        for own, table in mine:
            order_of_axes = np.argsort([scope.index(u) for u in own])
            shape = [cards[u] if u in own else 1 for u in scope]
            total += table.transpose(order_of_axes).reshape(shape)
        best = total.max(-1)
        if best.ndim:
            tables.append((scope[:-1], best))
        else:
            constant += float(best)
    return constant
