"""Sums over factor graphs agree with each other and with the enumeration to 1e-6 and better."""

import numpy as np
import pytest

from deepgen_ppl import loops
from deepgen_ppl.contraction import plan_of
from deepgen_ppl.numpyro import engine as numpyro_engine
from deepgen_ppl.plans import Plan
from deepgen_ppl.pyro import engine as pyro_engine

from ..wings import factor_graphs
from ..wings.factor_graphs import GRAPHS, enumerated

SAME = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=["second order", "factorial", "star", "threes"])
def plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A small graph; steps that repeat thrice are a loop."""
    monkeypatch.setattr(loops, "_LEAST_LOOP", 3)
    return plan_of(*GRAPHS[request.param])


def test_sums_marginals_slopes_and_best_states(plan: Plan) -> None:
    """In double precision both wings are the enumeration, impossible states among the tables."""
    shared = factor_graphs.factors(plan)[:1]
    tables = factor_graphs.tables(plan, 3, seed=9, shared=shared)
    directions = factor_graphs.tables(plan, 3, seed=10, forbidden=0.0, shared=shared)
    law = enumerated(plan, tables)
    wanted = range(len(tables))
    theirs, ours = (engine.marginals(plan, tables, wanted)
                    for engine in (numpyro_engine, pyro_engine))  # fmt: skip
    np.testing.assert_allclose(theirs[0], law.log_sums, **SAME)
    np.testing.assert_allclose(ours[0], law.log_sums, **SAME)
    for number, truth in enumerate(factor_graphs.marginals(plan, law)):
        truth = truth.sum(-1, keepdims=True) if number in shared else truth
        np.testing.assert_allclose(theirs[1][number], truth, **SAME)
        np.testing.assert_allclose(ours[1][number], truth, **SAME)
    np.testing.assert_allclose(
        pyro_engine.slopes(plan, tables, directions),
        numpyro_engine.slopes(plan, tables, directions),
        **SAME,
    )
    states, value = numpyro_engine.best(plan, tables)
    own_states, own_value = pyro_engine.best(plan, tables)
    np.testing.assert_array_equal(own_states, states)
    np.testing.assert_allclose(own_value, value, **SAME)
