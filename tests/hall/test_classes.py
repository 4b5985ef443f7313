"""Closed forms of count families against enumeration, and how a classifier is judged."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from deepgen_ppl import conjugate
from deepgen_ppl.classes import check_network, grouped, learn, reliability
from deepgen_ppl.conjugate import Pair
from deepgen_ppl.families import family
from deepgen_ppl.mixtures import Part, layout

RNG = np.random.default_rng(0)
CELLS = RNG.random((6, 2)) < 0.7
BITS, COUNTS = RNG.integers(2, size=(6, 2)), RNG.integers(5, size=(6, 2))
LABELS = np.array([0, 1, 0, 0, 1, 1])
BETA = Pair(np.full((2, 2), 2.0), np.full((2, 2), 3.0))
GAMMA = Pair(np.full((2, 2), 2.0), np.full((2, 2), 0.5))
DIRICHLET = Pair(np.full((2, 2, 5), 0.7))


def integral(kind: str, rows: np.ndarray) -> float:
    """Log evidence of one column of one class, by quadrature."""
    if kind == "bernoulli":
        prior, like = stats.beta(2, 3), stats.bernoulli
        top = 1.0
    else:
        prior, like = stats.gamma(2, scale=2), stats.poisson
        top = 60.0
    return np.log(quad(lambda v: prior.pdf(v) * np.prod(like.pmf(rows, v)), 0, top, limit=200)[0])


@pytest.mark.parametrize("cells", [None, CELLS], ids=["whole", "missing"])
@pytest.mark.parametrize(
    ("kind", "x", "prior"), [("bernoulli", BITS, BETA), ("poisson", COUNTS, GAMMA)]
)
def test_evidence_is_the_integral(kind, x, prior, cells) -> None:
    after = conjugate.posterior(kind, prior, x, np.eye(2)[LABELS], cells)
    seen = np.ones((6, 2), bool) if cells is None else cells
    expected = sum(integral(kind, x[(k == LABELS) & seen[:, d], d]) for k in (0, 1) for d in (0, 1))
    found = conjugate.log_evidence(kind, prior, after, x.astype(float), cells)
    assert abs(found - expected) < 1e-6


def test_evidence_of_states_is_that_of_one_after_the_other() -> None:
    after = conjugate.posterior("categorical", DIRICHLET, COUNTS, np.eye(2)[LABELS], None)
    total = 0.0
    counts = np.full((2, 2, 5), 0.7)
    for row, label in zip(COUNTS, LABELS, strict=True):
        for d, state in enumerate(row):
            total += np.log(counts[label, d, state] / counts[label, d].sum())
            counts[label, d, state] += 1
    found = conjugate.log_evidence("categorical", DIRICHLET, after, COUNTS, None)
    assert abs(found - total) < 1e-9
    np.testing.assert_allclose(after.first, counts)


@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "poisson"])
def test_draws_have_the_posterior_mean_and_the_mode_is_highest(kind: str) -> None:
    prior = {"bernoulli": BETA, "categorical": DIRICHLET, "poisson": GAMMA}[kind]
    x = BITS if kind == "bernoulli" else COUNTS
    after = conjugate.posterior(kind, prior, x, np.eye(2)[LABELS], None)
    drawn = conjugate.draws(kind, after, 20_000, np.random.default_rng(1))
    error = drawn.std(0) / 20_000**0.5
    assert (np.abs(drawn.mean(0) - conjugate.mean(kind, after)) < 5 * error).all()
    if kind == "bernoulli":
        fn = stats.beta(after.first, after.second)
    elif kind == "poisson":
        fn = stats.gamma(after.first, scale=1 / after.second)
    else:
        return
    top = conjugate.mode(kind, after, 1e-9)
    assert all((fn.logpdf(top) >= fn.logpdf(top + step)).all() for step in (-1e-3, 1e-3))


def test_a_classifier_is_learned_in_closed_form() -> None:
    prior = {"probs": Pair(np.array(1.0), np.array(1.0))}
    made = layout([Part("x", family("bernoulli"))], 2, None, 1.0, True, prior)
    drawn, total = learn(made, BITS.astype(float), None, LABELS, 50, 0)
    assert drawn["probs"].shape == (50, 2, 2)
    # log p(x, y) is the sum over orders of predictive probabilities: here enumerated by columns.
    expected = np.log(1 / (7 * len(list(itertools.combinations(range(6), LABELS.sum())))))
    for k in (0, 1):
        for d in (0, 1):
            mine = BITS[k == LABELS, d]
            expected -= np.log((len(mine) + 1) * len(
                list(itertools.combinations(range(len(mine)), mine.sum()))))  # fmt: skip
    assert abs(total - expected) < 1e-9
    with pytest.raises(ValueError, match="needs the class of every row"):
        learn(made, BITS.astype(float), None, np.where(LABELS == 0, -1, 1), 5, 0)
    with pytest.raises(ValueError, match="no closed form"):
        learn(layout([Part("x", family("gaussian"))], 2, None, 1.0, True), BITS, None, LABELS, 5, 0)


def test_confidence_is_compared_with_accuracy() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 20_000)
    table = np.stack([sure, 1 - sure], 1)
    honest = (rng.random(20_000) > sure).astype(int)
    found = reliability(table, honest)
    assert found.ece < 5 * 0.5 / (20_000 / 10) ** 0.5
    assert found.count.sum() == 20_000
    boastful = reliability(table, (rng.random(20_000) > 0.6).astype(int))
    assert abs(boastful.ece - np.abs(sure - 0.6).mean()) < 0.02
    np.testing.assert_allclose(found.log_loss, -np.log(table[np.arange(20_000), honest]).mean())


def test_features_are_grouped_or_refused() -> None:
    assert grouped({"poisson": [1, 2], "bernoulli": [0]}) == {"poisson": (1, 2), "bernoulli": (0,)}
    with pytest.raises(ValueError, match="column 1 is given two families"):
        grouped({"poisson": [1, 2], "bernoulli": [1]})
    with pytest.raises(TypeError, match="features must be a family's name"):
        grouped(3)
    with pytest.raises(ValueError, match="a family without columns"):
        grouped({"poisson": []})
    with pytest.raises(ValueError, match="hidden must be whole numbers of at least 1, got 0"):
        check_network(2, (4, 0), None)
    with pytest.raises(ValueError, match="prior_scale must be a positive number or None"):
        check_network(2, (), -1.0)
    with pytest.raises(ValueError, match="do not fit"):
        reliability(np.ones((3, 2)), np.zeros(2, int))
    with pytest.raises(ValueError, match="classes from 0 to 1"):
        reliability(np.full((1, 2), 0.5), np.array([2]))
