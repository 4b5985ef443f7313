"""All marginals of a Bayesian network by pyAgrum's lazy propagation, one thread, row after row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyagrum as gum

from deepgen_ppl import BayesNet


class Propagation:
    """One engine, whose evidence is exchanged."""

    def __init__(self, net: BayesNet) -> None:
        self.net = to_agrum(net)
        self.engine = gum.LazyPropagation(self.net)
        self.engine.setNumberOfThreads(1)
        self.nodes = [self.net.idFromName(v) for v in net.variables]

    def run(self, rows: Sequence[Mapping[str, int]]) -> None:
        """Compute, and throw away, the marginals of all variables for each row of evidence."""
        for evidence in rows:
            self.engine.setEvidence(evidence)
            self.engine.makeInference()
            for node in self.nodes:
                self.engine.posterior(node)

    def marginals(self, evidence: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return the marginals of one row."""
        self.engine.setEvidence(evidence)
        self.engine.makeInference()
        return {self.net.variable(n).name(): self.engine.posterior(n).toarray() for n in self.nodes}


def to_agrum(net: BayesNet) -> gum.BayesNet:
    """Return the network in pyAgrum."""
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
