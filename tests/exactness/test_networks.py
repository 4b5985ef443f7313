"""`exact` on published networks against pyAgrum: marginals, evidence, most probable rows; EM."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.net_learning import jittered

from . import networks

SETS = 20


@pytest.fixture(autouse=True)
def float64(wing: str) -> Iterator[None]:
    """Double precision as the default of the wing's language, put back afterwards."""
    if wing == "numpyro":
        import jax

        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", before)
    else:
        import torch

        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(default)


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


@pytest.mark.parametrize("name", ["asia", "child"])
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


def at_random(net: BayesNet, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose cells are missing at random: more often where the first cell, seen, is 1."""
    rng = np.random.default_rng(seed)
    rows = net.sample(num_rows, seed=seed)
    chance = np.where(rows[:, :1] == 1, 0.5, 0.1)
    mask = rng.random(rows.shape) >= chance
    mask[:, 0] = True
    return rows, mask


def test_em_finds_the_tables_of_pyagrum(dg: ModuleType, tmp_path) -> None:
    gum = pytest.importorskip("pyagrum", reason="pyagrum is not installed")
    net = BayesNet.student()
    rows, mask = at_random(net, 600, seed=0)
    labels = net.decode(np.ma.MaskedArray(rows, ~mask))
    start = jittered(BayesNet.from_structure(net.states, net.parents), 0, 0.2)
    fit = dg.learn_bayes_net(start, labels, num_steps=2000, tolerance=1e-9)
    assert fit.converged and (np.diff(fit.log_likelihoods) > -1e-7).all()
    file = tmp_path / "rows.csv"
    lines = [",".join(net.variables), *(",".join(c or "?" for c in row) for row in labels)]
    file.write_text("\n".join(lines))
    learner = gum.BNLearner(str(file), networks.to_agrum(start), ["?"])
    learner.useNoPrior()
    learner.useEMWithDiffCriterion(1e-7, 0.0)
    theirs = learner.learnParameters(networks.to_agrum(start))
    for variable, table in fit.net.tables.items():
        axes = [*net.parents[variable], variable]
        names = list(reversed(theirs.cpt(variable).names))
        expected = theirs.cpt(variable).toarray().transpose([names.index(a) for a in axes])
        np.testing.assert_allclose(table, expected, atol=2e-3, err_msg=variable)


def test_em_is_right_where_cells_are_missing_at_random(dg: ModuleType) -> None:
    net = BayesNet.student()
    rows, mask = at_random(net, 20_000, seed=1)
    fit = dg.learn_bayes_net(net, rows, mask, tolerance=1e-7)
    whole = net.fit(rows)
    complete = net.fit(rows[mask.all(1)])
    for variable, table in fit.net.tables.items():
        # errors of a share with about two fifths of the cells left, at its rarest parents
        count = np.array([rows.shape[0] * 0.4 * 0.12])
        error = np.sqrt(net.tables[variable] * (1 - net.tables[variable]) / count)
        assert (np.abs(table - net.tables[variable]) < 5 * error + 1e-9).all()
        assert (np.abs(whole.tables[variable] - net.tables[variable]) < 5 * error).all()
    # rows with a gap left out are no longer a sample of all rows: easy courses are too many
    truth = net.tables["difficulty"][1]
    error = np.sqrt(truth * (1 - truth) / mask.all(1).sum())
    assert complete.tables["difficulty"][1] < truth - 20 * error
    assert abs(fit.net.tables["difficulty"][1] - truth) < 5 * error


def test_a_hidden_variable_is_learned_from_its_children(dg: ModuleType) -> None:
    net = BayesNet(
        {"kind": ("a", "b"), "x": ("0", "1"), "y": ("0", "1"), "z": ("0", "1", "2")},
        {"x": ("kind",), "y": ("kind",), "z": ("kind",)},
        {"kind": [0.4, 0.6], "x": [[0.9, 0.1], [0.2, 0.8]], "y": [[0.8, 0.2], [0.1, 0.9]],
         "z": [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]},
    )  # fmt: skip
    rows = net.sample(4000, seed=0)
    mask = np.ones_like(rows, bool)
    mask[:, 0] = False
    start = BayesNet.from_structure(net.states, net.parents)
    flat = dg.learn_bayes_net(start, rows, mask, num_steps=20)
    assert flat.net.tables["kind"].tolist() == [0.5, 0.5]  # states that start alike stay alike
    fit = dg.learn_bayes_net(start, rows, mask, jitter=0.5, num_steps=500, tolerance=1e-8, seed=1)
    # nothing is more probable than what the truth gives, but for as many parameters as there are
    answer = dg.exact(net, given={v: rows[:, i] for i, v in enumerate(net.variables) if i})
    gain = fit.log_likelihoods[-1] - answer.log_evidence.sum()
    assert 0 < gain < 5 * net.num_parameters
    assert fit.log_likelihoods[-1] > flat.log_likelihoods[-1] + 500


def test_em_without_missing_cells_is_counting(dg: ModuleType) -> None:
    net = BayesNet.student()
    rows = net.sample(200, seed=0)
    fit = dg.learn_bayes_net(BayesNet.from_structure(net.states, net.parents), rows)
    assert fit.converged and len(fit.log_likelihoods) == 3
    for variable, table in net.fit(rows).tables.items():
        np.testing.assert_allclose(fit.net.tables[variable], table, atol=1e-12)


def test_mistakes_are_refused(dg: ModuleType) -> None:
    net = BayesNet.student()
    with pytest.raises(ValueError, match="'grade' is 3 in row 0"):
        dg.learn_bayes_net(net, [[0, 0, 3, 0, 0]])
    with pytest.raises(ValueError, match="pseudocount is -1"):
        dg.learn_bayes_net(net, [[0, 0, 0, 0, 0]], pseudocount=-1)
    with pytest.raises(ValueError, match="mask is boolean"):
        dg.learn_bayes_net(net, [[0, 0, 0, 0, 0]], [[1, 1, 1, 1, 0]])
    certain = BayesNet({"a": ("0", "1"), "b": ("0", "1")}, {"b": ("a",)},
                       {"a": [1.0, 0.0], "b": [[1.0, 0.0], [0.5, 0.5]]})  # fmt: skip
    with pytest.raises(ValueError, match="impossible under the network that EM starts from"):
        dg.learn_bayes_net(certain, [[0, 1]], [[False, True]])
