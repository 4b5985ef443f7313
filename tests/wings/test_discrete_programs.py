"""Bayes nets, Markov chains and hidden Markov models as programs: densities, learning, refusals."""

import importlib
from types import ModuleType

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.markov_chain import MarkovChain

STUDENT = BayesNet.student()
ROWS = STUDENT.sample(400, seed=0)
INITIAL = np.array([0.6, 0.3, 0.1])
MOVES = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])


@pytest.fixture(scope="module")
def language(wing: str) -> ModuleType:
    """Emissions, native enumeration and values in the wing's language."""
    return importlib.import_module(f"{__package__}.programs_{wing}")


def random_chain(order: int) -> MarkovChain:
    rng = np.random.default_rng(order)
    tables = [rng.dirichlet(np.ones(3), size=(3,) * j) for j in range(order + 1)]
    return MarkovChain(tuple(tables[:-1]), tables[-1])


def test_the_density_of_a_net_is_that_of_its_tables(dg: ModuleType, language: ModuleType) -> None:
    model = dg.bayes_net(STUDENT)
    expected = STUDENT.log_prob(ROWS).sum()
    assert language.log_joint(model, {}, ROWS) == pytest.approx(expected, rel=1e-5)
    for row in ROWS[:5]:
        values = dict(zip(STUDENT.variables, row, strict=True))
        one = language.log_joint(model, values, *())
        assert one == pytest.approx(STUDENT.log_prob([row])[0], rel=1e-5)


def test_what_is_impossible_has_density_zero(dg: ModuleType, language: ModuleType) -> None:
    net = BayesNet({"a": ("0", "1"), "b": ("0", "1")}, {"b": ("a",)},
                   {"a": [0.5, 0.5], "b": [[1.0, 0.0], [0.0, 1.0]]})  # fmt: skip
    model = dg.bayes_net(net)
    assert language.log_joint(model, {}, np.array([[0, 1]])) == -np.inf
    assert language.log_joint(model, {}, np.array([[1, 1]])) == pytest.approx(np.log(0.5))


def test_prior_draws_have_the_frequencies_of_the_net(dg: ModuleType) -> None:
    draws = dg.predict(dg.bayes_net(STUDENT), num_samples=4000, seed=1)["prior"]
    table = STUDENT.tables["grade"]
    both = np.einsum("d,i,dig->dg", STUDENT.tables["difficulty"], STUDENT.tables["intelligence"],
                     table)  # fmt: skip
    found = np.zeros_like(both)
    np.add.at(found, (np.asarray(draws["difficulty"], int).ravel(),
                      np.asarray(draws["grade"], int).ravel()), 1 / 4000)  # fmt: skip
    assert (np.abs(found - both) < 5 * np.sqrt(both * (1 - both) / 4000)).all()


def test_missing_cells_are_latent(dg: ModuleType, language: ModuleType) -> None:
    mask = np.ones_like(ROWS[:20], bool)
    mask[:, 2] = False  # the grade, which has a parent on either side and a child
    hidden = np.full(20, 1)
    values = {"grade_unobserved": hidden}
    whole = ROWS[:20].copy()
    whole[:, 2] = hidden
    found = language.log_joint(dg.bayes_net(STUDENT), values, np.where(mask, ROWS[:20], 7), mask)
    assert found == pytest.approx(STUDENT.log_prob(whole).sum(), rel=1e-5)


def test_learned_tables_are_shares_of_counts(
    dg: ModuleType, zoo: ModuleType, language: ModuleType
) -> None:
    start = BayesNet.from_structure(STUDENT.states, STUDENT.parents)
    model = dg.bayes_net(start, learnable="point")
    fit = dg.svi(model, None, ROWS, optim=zoo.adam(0.1), num_steps=400, progress=False)
    learned = STUDENT.fit(ROWS)
    for variable, table in learned.tables.items():
        found = language.table(fit.params[f"{variable}_table"])
        np.testing.assert_allclose(found, table, atol=1e-3)
    best = -learned.log_prob(ROWS).mean()
    assert best - 1e-4 < fit.losses[-1] < best + 1e-3


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_density_of_a_chain_is_that_of_its_tables(
    dg: ModuleType, language: ModuleType, order: int
) -> None:
    chain = random_chain(order)
    x, lengths = chain.sample(30, 8, seed=1), np.arange(30) % 9
    model = dg.markov_chain(chain)
    expected = chain.log_prob(x).sum()
    assert language.log_joint(model, {}, x) == pytest.approx(expected, rel=1e-5)
    expected = chain.log_prob([row[:n] for row, n in zip(x, lengths, strict=True)]).sum()
    assert language.log_joint(model, {}, x, lengths) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_a_chain_is_drawn_and_learned(
    dg: ModuleType, zoo: ModuleType, language: ModuleType, order: int
) -> None:
    chain = random_chain(order)
    tree = dg.predict(dg.markov_chain(chain, length=4), num_samples=3000, seed=1)["prior"]
    parts = [tree["x"]] if "x" in tree else [tree[f"x_{t}"] for t in range(4)]
    x = np.concatenate([np.asarray(p, int).reshape(3000, -1) for p in parts], axis=1)
    share = np.bincount(x @ [27, 9, 3, 1], minlength=81) / 3000
    expected = np.exp(chain.log_prob(np.stack(np.unravel_index(np.arange(81), (3,) * 4), 1)))
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)).all()
    model = dg.markov_chain(MarkovChain.uniform(3, order=order), learnable="point")
    fit = dg.svi(model, None, x, optim=zoo.adam(0.1), num_steps=400, progress=False)
    closed = MarkovChain.fit(x, num_states=3, order=order)
    for name, table in closed.tables.items():
        np.testing.assert_allclose(language.table(fit.params[name]), table, atol=2e-3)


def forward(y: np.ndarray, mask: np.ndarray, log_emissions) -> float:
    """Log probability of a sequence, its missing emissions summed out."""
    weight = np.log(INITIAL)
    for t, value in enumerate(y):
        if t:
            weight = logsumexp(weight[:, None] + np.log(MOVES), axis=0)
        weight = weight + (log_emissions(value) if mask[t] else 0.0)
    return float(logsumexp(weight))


def test_hidden_states_summed_out_give_the_forward_recursion(
    dg: ModuleType, language: ModuleType
) -> None:
    y = np.random.default_rng(0).normal(3.0, 3.0, size=(5, 6)).astype(np.float32)
    mask = np.random.default_rng(1).random(y.shape) < 0.7
    model = dg.hmm(3, language.normal_emission, initial=INITIAL, transition=MOVES)

    def density(value: float) -> np.ndarray:
        return stats.norm.logpdf(value, 3.0 * np.arange(3), 1.0)

    for seen in (np.ones_like(mask), mask):
        data = (y,) if seen.all() else (y, mask)
        expected = sum(forward(row, m, density) for row, m in zip(y, seen, strict=True))
        assert language.log_marginal(model, *data) == pytest.approx(expected, rel=1e-5)


def test_emissions_from_a_table(dg: ModuleType, language: ModuleType) -> None:
    emission = np.array([[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]])
    x = np.random.default_rng(0).integers(0, 2, size=(4, 7))
    model = dg.hmm(3, emission, initial=INITIAL, transition=MOVES)
    whole = np.ones(7, bool)
    expected = sum(forward(row, whole, lambda v: np.log(emission[:, v])) for row in x)
    assert language.log_marginal(model, x) == pytest.approx(expected, rel=1e-5)


def test_shared_emissions_are_learned_by_chains(dg: ModuleType, language: ModuleType) -> None:
    rng = np.random.default_rng(0)
    moves = np.array([[0.9, 0.1], [0.1, 0.9]])
    states = MarkovChain(([0.5, 0.5],), moves).sample(4, 15, seed=3)
    y = (np.array([-2.0, 2.0])[states] + rng.normal(size=states.shape)).astype(np.float32)
    model = dg.hmm(2, language.learned_emission, transition=moves)
    options = {"num_warmup": 100, "num_samples": 100, "num_chains": 1, "progress": False}
    draws = np.asarray(dg.mcmc(model, y, **options).draws["mean"], float)
    known = np.array([y[states == k].mean() for k in (0, 1)])  # what known states would tell
    low, high = sorted(draws.reshape(-1, 2).mean(0))
    count = min((states == k).sum() for k in (0, 1))
    assert abs(low - known[0]) < 5 / count**0.5 and abs(high - known[1]) < 5 / count**0.5


MISTAKES = {
    "learnable": lambda dg: dg.bayes_net(STUDENT, learnable="map"),
    "concentration": lambda dg: dg.bayes_net(STUDENT, learnable="dirichlet", concentration=0.0),
    "name": lambda dg: dg.bayes_net(BayesNet.independent({"data": ("0", "1")})),
    "table name": lambda dg: dg.bayes_net(
        BayesNet.independent({"a": ("0", "1"), "a_table": ("0", "1")})
    ),
    "columns": lambda dg: dg.svi(
        dg.bayes_net(STUDENT, learnable="point"), None, ROWS[:, :3], progress=False
    ),
    "mask": lambda dg: dg.mcmc(dg.bayes_net(STUDENT), ROWS, np.ones(5), progress=False),
    "length": lambda dg: dg.predict(dg.markov_chain(MarkovChain.uniform(2)), num_samples=2),
    "table": lambda dg: dg.hmm(2, 3, transition=[[0.5, 0.6], [0.5, 0.5]]),
    "shape": lambda dg: dg.hmm(2, 3, initial=[1.0]),
}
SENTENCES = {
    "learnable": "learnable='map': it is False",
    "concentration": "concentration is 0.0",
    "name": "A variable is called 'data'",
    "table name": "A variable is called 'a_table'",
    "columns": r"\(row, 5\), a column for each of \['difficulty'.*these have \(400, 3\)",
    "mask": r"mask is boolean.*shape \(400, 5\)",
    "length": "length is None: without data",
    "table": r"'next state' for state=0 sum to 1\.1",
    "shape": r"'state' has the shape \(1,\)",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused(dg: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=SENTENCES[name]):
        MISTAKES[name](dg)


def test_data_that_are_no_integers_are_refused(dg: ModuleType, zoo: ModuleType) -> None:
    data = ROWS.astype(np.float32)
    model = dg.bayes_net(STUDENT, learnable="point")
    with pytest.raises(TypeError, match="integers; these are float32"):
        dg.svi(model, None, data, optim=zoo.adam(0.1), num_steps=2, progress=False)


@pytest.mark.parametrize("variable", ["intelligence", "letter"])  # without and with a parent unseen
def test_a_state_out_of_range_is_refused_by_variable_and_row(dg: ModuleType, variable: str) -> None:
    rows, mask = ROWS[:5].copy(), np.ones((5, 5), bool)
    mask[:, 2] = False  # the grade
    rows[3, STUDENT.variables.index(variable)] = 7
    with pytest.raises(ValueError, match=rf"'{variable}_observed'.* in rows 3"):
        dg.exact(dg.bayes_net(STUDENT), rows, mask)
