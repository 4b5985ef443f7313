"""All marginals of a Bayesian network by pgmpy's variable elimination, row after row."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deepgen_ppl import BayesNet


def make(net: BayesNet) -> Callable[[Sequence[Mapping[str, int]]], None]:
    """Return `run(rows)`, which computes the marginals of all unobserved variables of each row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations, at import
        from pgmpy.factors.discrete import TabularCPD
        from pgmpy.inference import VariableElimination
        from pgmpy.models import DiscreteBayesianNetwork
    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    other = DiscreteBayesianNetwork([(p, v) for v, above in net.parents.items() for p in above])
    other.add_nodes_from(net.variables)
    for variable, table in net.tables.items():
        above = list(net.parents[variable])
        values = np.moveaxis(table, -1, 0).reshape(table.shape[-1], -1)
        sizes = list(table.shape[:-1])
        other.add_cpds(TabularCPD(variable, table.shape[-1], values, above or None, sizes or None))
    engine = VariableElimination(other)

    def run(rows: Sequence[Mapping[str, int]]) -> None:
        for evidence in rows:
            for variable in net.variables:  # several at once would fill their joint table
                if variable not in evidence:
                    engine.query([variable], evidence=dict(evidence), show_progress=False)

    return run
