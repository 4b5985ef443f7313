"""`exact` on published networks against pyAgrum: marginals, evidence, most probable rows."""

from types import ModuleType

import numpy as np
import pytest

from . import networks

SETS = 20

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "name",
    [*networks.SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in networks.LARGE)],
)
def test_marginals_and_best_rows_are_those_of_pyagrum(dg: ModuleType, name: str) -> None:
    net = networks.read(name)
    other = networks.to_agrum(net)
    sets = [{}, *networks.evidence_sets(net, SETS, seed=1)]
    answer = dg.exact(net, given=networks.masked_rows(net, sets))
    best = answer.map()
    for row, evidence in enumerate(sets):
        marginals, log_evidence = networks.agrum_marginals(other, evidence)
        assert answer.log_evidence[row] == pytest.approx(log_evidence, abs=1e-6)
        for variable, expected in marginals.items():
            found = answer.marginals[variable][row]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"{variable}, {row}")
        values = np.array([[best.values[v][row] for v in net.variables]])
        assert all(best.values[v][row] == state for v, state in evidence.items())
        assert net.log_prob(values)[0] == pytest.approx(best.log_prob[row], abs=1e-6)
        assert best.log_prob[row] == pytest.approx(networks.most_probable(net, evidence), abs=1e-6)


@pytest.mark.parametrize("name", ["asia", pytest.param("child", marks=pytest.mark.slow)])
def test_the_program_of_a_network_has_its_marginals(dg: ModuleType, name: str) -> None:
    net = networks.read(name)
    (evidence,) = networks.evidence_sets(net, 1, seed=2)
    from_net, from_program = (
        dg.exact(net, given=evidence),
        dg.exact(dg.bayes_net(net), given=evidence),
    )
    assert float(from_net.log_evidence) == pytest.approx(float(from_program.log_evidence), abs=1e-9)
    for variable in set(net.variables) - set(evidence):
        found = from_program.marginals[variable]
        np.testing.assert_allclose(found, from_net.marginals[variable], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.TOO_WIDE)
def test_networks_that_are_too_wide_are_refused_with_the_numbers(dg: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=r"width|bytes"):
        dg.exact(networks.read(name), max_bytes=1 << 26)


def test_masked_cells_of_the_program_are_summed_out(dg: ModuleType) -> None:
    net = networks.read("asia")
    rows = net.sample(12, seed=0)
    mask = np.random.default_rng(0).random(rows.shape) < 0.6
    given = {v: np.ma.MaskedArray(rows[:, i], ~mask[:, i]) for i, v in enumerate(net.variables)}
    from_net, from_program = dg.exact(net, given=given), dg.exact(dg.bayes_net(net), rows, mask)
    np.testing.assert_allclose(from_program.log_evidence, from_net.log_evidence, atol=1e-9)
    for column, variable in enumerate(net.variables):
        hidden = ~mask[:, column]
        found = from_program.marginals[variable][hidden]
        np.testing.assert_allclose(found, from_net.marginals[variable][hidden], atol=1e-9)
