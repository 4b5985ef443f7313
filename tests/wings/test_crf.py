"""Conditional random fields: everything exact against enumeration, and training by `svi`."""

import importlib
import itertools
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.special import logsumexp

ROWS, TIME, FEATURES, STATES = 5, 4, 2, 3
LENGTHS = np.array([4, 1, 3, 2, 4])
X = np.random.default_rng(0).normal(size=(ROWS, TIME, FEATURES)).astype("float32")


class Listed(NamedTuple):
    """All labellings of one row with their unnormalised log density."""

    labels: np.ndarray
    values: np.ndarray

    @property
    def p(self) -> np.ndarray:
        return np.exp(self.values - logsumexp(self.values))


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """Labelled sequences of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.labels_{wing}")


@pytest.fixture(scope="module")
def crf(dg: Any, wing: str) -> Any:
    """A field away from its initial weights."""
    energies = importlib.import_module(f"{__package__}.energies_{wing}")
    return energies.shaken(dg.CRF(FEATURES, STATES, seed=1), 0.8)


@pytest.fixture(scope="module")
def found(crf: Any) -> Any:
    return crf(X, LENGTHS)


@pytest.fixture(scope="module")
def listed(crf: Any, on: Any) -> list[Listed]:
    """The truth of each row, term by term from the potentials."""
    unary = on.numpy(crf(X).unary).astype(float)
    a, first, last = (on.numpy(p).astype(float) for p in (crf.transition, crf.initial, crf.final))
    rows = []
    for own, length in zip(unary, LENGTHS, strict=True):
        labels = np.array(list(itertools.product(range(STATES), repeat=length)))
        values = first[labels[:, 0]] + last[labels[:, -1]]
        values += own[np.arange(length), labels].sum(-1)
        values += a[labels[:, :-1], labels[:, 1:]].sum(-1)
        rows.append(Listed(labels, values))
    return rows


def padded(labels: np.ndarray) -> np.ndarray:
    return np.pad(labels, ((0, 0), (0, TIME - labels.shape[1])))


def test_log_z_is_the_sum_over_all_labellings(found: Any, on: Any, listed: Any) -> None:
    truth = [np.log(np.exp(row.values).sum()) for row in listed]
    np.testing.assert_allclose(on.numpy(found.log_z), truth, rtol=1e-5)


def test_density_of_every_labelling(found: Any, on: Any, listed: Any) -> None:
    """And what stands beyond the length of a row does not matter."""
    number = max(len(row.values) for row in listed)
    y = np.stack([np.resize(padded(row.labels), (number, TIME)) for row in listed], 1)
    truth = np.stack([np.resize(row.p, number) for row in listed], 1)
    values = on.numpy(found.log_prob(on.array(y)))
    np.testing.assert_allclose(np.exp(values), truth, atol=1e-5)
    y = np.where(np.arange(TIME) < LENGTHS[:, None], y, 7)
    np.testing.assert_allclose(on.numpy(found.log_prob(on.array(y))), values, rtol=1e-6)


def test_marginals(found: Any, on: Any, listed: Any) -> None:
    """Of places and of pairs of neighbours; zero beyond the length."""
    places, pairs = np.zeros((ROWS, TIME, STATES)), np.zeros((ROWS, TIME - 1, STATES, STATES))
    for row, truth in enumerate(listed):
        for labels, p in zip(truth.labels, truth.p, strict=True):
            places[row, np.arange(len(labels)), labels] += p
            pairs[row, np.arange(len(labels) - 1), labels[:-1], labels[1:]] += p
    np.testing.assert_allclose(on.numpy(found.marginals), places, atol=1e-5)
    np.testing.assert_allclose(on.numpy(found.pair_marginals), pairs, atol=1e-5)


def test_mode_is_the_most_probable_labelling(found: Any, on: Any, listed: Any) -> None:
    truth = [padded(row.labels[[row.values.argmax()]])[0] for row in listed]
    assert on.numpy(found.mode).tolist() == np.array(truth).tolist()


def test_agrees_with_the_exact_engine(dg: Any, crf: Any, on: Any, listed: Any) -> None:
    """The chain as a factor graph: log Z, marginals, the most probable labels."""
    one = crf(X[2], LENGTHS[2])
    graph = one.factor_graph()
    assert abs(dg.log_z(graph).log_evidence - logsumexp(listed[2].values)) < 1e-5
    answer = dg.exact(graph)
    names = [f"y{t}" for t in range(LENGTHS[2])]
    marginals = np.stack([np.asarray(answer.marginals[name]) for name in names])
    np.testing.assert_allclose(on.numpy(one.marginals)[: len(names)], marginals, atol=1e-5)
    best = [int(answer.map().values[name]) for name in names]
    assert on.numpy(one.mode)[: len(names)].tolist() == best


def test_draws_have_the_enumerated_law(found: Any, on: Any, listed: Any) -> None:
    """Each labelling of each row within five standard errors; zeros beyond the length."""
    number = 4000
    y = on.draws(found, number)
    assert y.shape == (number, ROWS, TIME)
    for row, truth in enumerate(listed):
        length = LENGTHS[row]
        assert not y[:, row, length:].any()
        same = (y[:, row, None, :length] == truth.labels).all(-1).mean(0)
        error = np.sqrt(truth.p * (1 - truth.p) / number)
        assert (abs(same - truth.p) < 5 * error + 1e-4).all()


def test_some_labels_known(crf: Any, found: Any, on: Any, listed: Any) -> None:
    """Their log probability is the difference of log Z; what is known has probability one."""
    known = np.full((ROWS, TIME), -1)
    known[:, 0], known[0, 2] = 1, 2
    given = found.given(on.array(known))
    for row, truth in enumerate(listed):
        cells = known[row, : LENGTHS[row]]
        agree = ((truth.labels == cells) | (cells < 0)).all(-1)
        value = on.numpy(given.log_z - found.log_z)[row]
        np.testing.assert_allclose(value, np.log(truth.p[agree].sum()), rtol=1e-4, atol=1e-5)
    marginals = on.numpy(given.marginals)
    np.testing.assert_allclose(marginals[:, 0, 1], 1.0, atol=1e-6)
    np.testing.assert_allclose(marginals[0, 2, 2], 1.0, atol=1e-6)
    assert (on.numpy(given.mode)[:, 0] == 1).all()
    assert np.isfinite(on.numpy(given.log_prob(given.mode))).all()


def test_gradient_is_counts_less_expected_counts(crf: Any, found: Any, on: Any) -> None:
    """By the transitions and the ends, summed over rows."""
    y = on.numpy(found.mode).copy()
    y[:, 1] = (y[:, 1] + 1) % STATES
    inside = np.arange(TIME) < LENGTHS[:, None]
    places, pairs = (on.numpy(p) for p in (found.marginals, found.pair_marginals))
    at = np.eye(STATES)[y]
    steps = at[:, :-1, :, None] * at[:, 1:, None, :] * inside[:, 1:, None, None]
    ends = np.arange(ROWS), LENGTHS - 1
    truth = {
        "transition": (steps - pairs).sum((0, 1)),
        "initial": (at - places)[:, 0].sum(0),
        "final": (at[ends] - places[ends]).sum(0),
    }
    for name, value in on.gradient(crf, X, y, LENGTHS).items():
        np.testing.assert_allclose(value, truth[name], atol=2e-5, err_msg=name)


def test_long_chains_neither_overflow_nor_underflow(dg: Any, on: Any) -> None:
    """Of 400 places whose potentials are worth hundreds of powers of ten."""
    field = dg.CRF(on.wide(2), 2).with_weights([[9.0, 0.0], [0.0, 9.0]], [0.0, 0.0], [0.0, 0.0])
    labels = field(on.array(np.zeros((1, 400, 2), "float32")))
    truth = np.log(2) + 399 * np.logaddexp(9.0, 0.0)
    np.testing.assert_allclose(on.numpy(labels.log_z), [truth], rtol=1e-5)
    np.testing.assert_allclose(on.numpy(labels.marginals), 0.5, atol=1e-3)


def test_one_place(dg: Any, on: Any) -> None:
    """A sequence of one label is a categorical distribution."""
    labels = dg.CRF(FEATURES, STATES, seed=2)(X[:, :1])
    p = np.exp(on.numpy(labels.unary)[:, 0])
    truth = p / p.sum(-1, keepdims=True)
    np.testing.assert_allclose(on.numpy(labels.marginals)[:, 0], truth, rtol=1e-5)
    assert labels.pair_marginals.shape == (ROWS, 0, STATES, STATES)


def test_training_reaches_the_likelihoods_maximum(dg: Any, on: Any) -> None:
    """Where expected counts are the counts, as far above the truth as it should be."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 6, FEATURES)).astype("float32")
    lengths = rng.integers(2, 7, 300)
    field = dg.CRF(FEATURES, 2, seed=5)
    truth = field.with_weights([[1.0, -1.0], [-0.5, 1.5]], [0.5, 0.0], [0.0, 0.5])
    y = on.draws(truth(x, lengths), 1)[0]
    start = dg.CRF(FEATURES, 2, seed=0)
    fit = dg.svi(
        start.model, None, x, y, lengths, num_steps=250, optim=on.adam(0.05), progress=False
    )
    learned = dg.flows.fitted(start, fit, "crf")
    slope = on.gradient(learned, x, y, lengths)
    assert all(abs(value).max() < 0.5 for value in slope.values()), slope
    score = [on.numpy(m(x, lengths).log_prob(on.array(y))).sum() for m in (learned, truth)]
    assert 0 < score[0] - score[1] < 20  # twice the difference is chi squared with 12 parameters
    assert abs(fit.losses[-1] + score[0] / len(x)) < 1e-2
    tree = dg.predict(start.model, x, None, lengths, params=fit, num_samples=3)
    assert tree["prior"]["y"].shape == (1, 3, *y.shape)


def test_bad_input(dg: Any, on: Any, crf: Any) -> None:
    """Refused with the shape, row or value, and the cure."""
    with pytest.raises(ValueError, match="states must be a whole number of at least 2"):
        dg.CRF(FEATURES, 1)
    with pytest.raises(TypeError, match="number of features or a network"):
        dg.CRF("words", 3)
    with pytest.raises(ValueError, match=r"\(\*batch, time, 2\), these have \(5, 4, 1\)"):
        crf(X[..., :1])
    with pytest.raises(TypeError, match=r"crf\(x\)\.log_z"):
        dg.log_z(crf)
    with pytest.raises(ValueError, match=r"\(\*batch, time, 4\).*returned \(5, 4, 2\)"):
        dg.CRF(on.wide(2), 4)(on.array(X))
    with pytest.raises(ValueError, match=r"transition has shape \(2, 2\)"):
        crf.with_weights(np.zeros((2, 2)), np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"length of row 1 is 5; .* 1 to 4"):
        crf(X, np.array([4, 5, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"lengths have shape \(2,\)"):
        crf(X, np.array([4, 4]))
    y = np.zeros((ROWS, TIME), int)
    y[3, 1] = 3
    with pytest.raises(ValueError, match="label of row 3 at place 1 is 3"):
        crf(X, LENGTHS).log_prob(on.array(y))
    with pytest.raises(ValueError, match=r"from 0 to 2, or -1 where"):
        crf(X).given(on.array(y))
    with pytest.raises(ValueError, match="labels have shape"):
        dg.svi(crf.model, None, X, y[:, :2], LENGTHS, num_steps=1, progress=False)
    with pytest.raises(ValueError, match=r"crf\(x\[0\]\)"):
        crf(X).factor_graph()
