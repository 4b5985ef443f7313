"""Tables from rows with missing cells: EM beside pyAgrum's, the truth, and gradients."""

from types import ModuleType

import numpy as np
import pytest

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.net_learning import jittered

from . import networks

pytestmark = pytest.mark.usefixtures("float64")
WEATHER = BayesNet(
    {"rain": ("no", "yes"), "grass": ("dry", "damp", "wet")},
    {"grass": ("rain",)},
    {"rain": [0.7, 0.3], "grass": [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]},
)


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
    fit = dg.learn_bayes_net(start, labels, num_steps=5000, tolerance=1e-12)
    assert fit.converged and (np.diff(fit.log_likelihoods) > -1e-7).all()
    file = tmp_path / "rows.csv"
    lines = [",".join(net.variables), *(",".join(c or "?" for c in row) for row in labels)]
    file.write_text("\n".join(lines))
    learner = gum.BNLearner(str(file), networks.to_agrum(start), ["?"])
    learner.useNoPrior()
    learner.useEMWithDiffCriterion(1e-10, 0.0)
    theirs = learner.learnParameters(networks.to_agrum(start))
    for variable, table in fit.net.tables.items():
        axes = [*net.parents[variable], variable]
        names = list(reversed(theirs.cpt(variable).names))
        expected = theirs.cpt(variable).toarray().transpose([names.index(a) for a in axes])
        np.testing.assert_allclose(table, expected, atol=1e-5, err_msg=variable)


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


def test_gradients_of_the_exact_evidence_lead_to_the_same_tables(
    dg: ModuleType, programs: ModuleType
) -> None:
    rows = WEATHER.sample(200, seed=0)
    mask = np.random.default_rng(0).random(rows.shape) < 0.7
    start = jittered(BayesNet.from_structure(WEATHER.states, WEATHER.parents), 0, 0.3)
    em = dg.learn_bayes_net(start, rows, mask, num_steps=1000, tolerance=1e-9)
    model = dg.bayes_net(start, learnable="point")
    options = {"optim": programs.adam(0.1, 200), "num_steps": 200, "progress": False}
    fit = dg.svi(model, None, rows, mask, loss=dg.ExactMarginal(), **options)
    assert fit.losses[-1] == pytest.approx(-em.log_likelihoods[-1] / 200, abs=1e-4)
