"""Exact inference of programs: against the language's own density at all states."""

import itertools
import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from deepgen_ppl import readings

PROGRAMS = "exact"
RNG = np.random.default_rng(11)
X = RNG.normal(size=4).astype("float32") + 0.5
CELLS = RNG.normal(size=(3, 2)).astype("float32")
BINARY, THREE = np.array([0.0, 1.0], "float32"), np.arange(3)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Case(NamedTuple):
    """A program and its sites.

    Attributes:
        data: Its data.
        sites: Values of each site, and its shape.
        width: Induced width that reading its structure gives, at most.
        rows: Number of rows that stand apart, None where they do not.
    """

    data: tuple[np.ndarray, ...]
    sites: dict[str, tuple[np.ndarray, tuple[int, ...]]]
    width: int
    rows: int | None = None


CASES: dict[str, Case] = {
    "mixture": Case((X,), {"z": (THREE, (4,))}, 0, 4),
    "student": Case(
        (),
        {name: (THREE if name == "grade" else BINARY, ())
         for name in ("hard", "clever", "grade", "sat", "letter")},
        2,
    ),
    "nested": Case((CELLS,), {"z": (BINARY, (3, 1)), "w": (BINARY, (3, 2))}, 1, 3),
    "crossed": Case((CELLS,), {"c": (BINARY, (2,)), "z": (BINARY, (3, 2))}, 1),
    "events": Case((CELLS[:, [0, 1, 0]],), {"z": (BINARY, (3, 3))}, 0, 3),
    "touching": Case((X,), {"z": (BINARY, (4,))}, 3),
    "handled": Case((X,), {"z": (BINARY, (4,))}, 0, 4),
}  # fmt: skip


class Truth:
    """The law of a program by the log density at all states of its sites."""

    def __init__(self, programs: ModuleType, model: Any, data: tuple, sites: dict) -> None:
        self.sites = sites
        ranges = [len(values) for values, shape in sites.values() for _ in range(math.prod(shape))]
        states = np.array(list(itertools.product(*map(range, ranges))), int)
        self.states, first, chosen = {}, 0, {}
        for name, (values, shape) in sites.items():
            own = states[:, first : first + math.prod(shape)].reshape(-1, *shape)
            self.states[name], chosen[name] = own, values[own]
            first += math.prod(shape)
        self.values = chosen
        found = programs.log_densities(model, programs.tensors(data), chosen)
        self.log_joint = np.asarray(found, float)
        self.log_evidence = logsumexp(self.log_joint)
        self.probabilities = np.exp(self.log_joint - self.log_evidence)

    def marginal(self, name: str) -> np.ndarray:
        """Probability of each value of each element, `(*site, K)`."""
        kinds = np.arange(len(self.sites[name][0]))
        hits = self.states[name][..., None] == kinds
        return np.tensordot(self.probabilities, hits, 1)


@pytest.fixture(scope="module")
def truths(programs: ModuleType) -> dict[str, Truth]:
    """The law of each program."""
    return {
        name: Truth(programs, getattr(programs, name), case.data, case.sites)
        for name, case in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_evidence_and_marginals(
    name: str, exact: Any, programs: ModuleType, truths: dict[str, Truth]
) -> None:
    """They are those of the enumeration, at no more width than the structure asks for."""
    case, truth = CASES[name], truths[name]
    answer = exact(getattr(programs, name), *case.data)
    assert np.shape(answer.log_evidence) == (() if case.rows is None else (case.rows,))
    np.testing.assert_allclose(np.sum(answer.log_evidence), truth.log_evidence, **CLOSE)
    assert set(answer.marginals) == set(case.sites)
    for site, found in answer.marginals.items():
        np.testing.assert_allclose(found, truth.marginal(site), **CLOSE)
    assert answer.cost.width <= case.width


@pytest.mark.parametrize("name", ["student", "nested", "touching"])
def test_best_values_draws_and_entropy(
    name: str, exact: Any, programs: ModuleType, truths: dict[str, Truth]
) -> None:
    case, truth = CASES[name], truths[name]
    answer = exact(getattr(programs, name), *case.data, query=())
    best = answer.map()
    place = truth.log_joint.argmax()
    np.testing.assert_allclose(np.sum(best.log_prob), truth.log_joint[place], **CLOSE)
    for site, value in best.values.items():
        np.testing.assert_array_equal(value, truth.values[site][place])
    p = truth.probabilities
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum()
    np.testing.assert_allclose(np.sum(answer.entropy()), entropy, rtol=1e-4, atol=1e-4)
    drawn = answer.sample(2000, seed=3)
    for site in case.sites:
        seen = (drawn[site][..., None] == case.sites[site][0]).mean(0)
        law = truth.marginal(site)
        error = np.sqrt(np.maximum(law * (1 - law), 0.0) / 2000)
        assert (np.abs(seen - law) <= 5 * error + 1 / 2000).all()


def test_given_soft_and_rows_of_evidence(exact: Any, programs: ModuleType) -> None:
    """Any from any: states that are known, unknown in some rows, or likely to a degree."""
    sites = CASES["student"].sites
    truth = Truth(programs, programs.student, (), sites)
    letter = np.ma.array([1, 0, 1], mask=[False, False, True])
    answer = exact(
        programs.student,
        given={"letter": letter, "sat": np.array([1, 1, 0])},
        soft={"hard": [0.2, 0.9]},
    )
    weight = np.array([0.2, 0.9])[truth.states["hard"]]
    for row in range(3):
        keep = truth.states["sat"] == [1, 1, 0][row]
        if not letter.mask[row]:
            keep = keep & (truth.states["letter"] == letter.data[row])
        joint = np.exp(truth.log_joint) * weight * keep
        np.testing.assert_allclose(answer.log_evidence[row], np.log(joint.sum()), **CLOSE)
        for site, (values, _) in sites.items():
            law = np.array([joint[truth.states[site] == k].sum() for k in range(len(values))])
            np.testing.assert_allclose(answer.marginals[site][row], law / law.sum(), **CLOSE)


def test_missing_cells_of_an_observed_site(exact: Any, programs: ModuleType) -> None:
    """obs_mask: a row that is not observed has evidence one, and its cell the predictive law."""
    x, seen = np.array([0, 1, 2, 2]), np.array([True, False, True, False])
    answer = exact(programs.missing, x, seen)
    rows, moves = np.asarray(programs.ROWS), np.asarray(programs.MOVES)
    joint = rows[:, None] * moves
    np.testing.assert_allclose(
        answer.log_evidence, np.where(seen, np.log(joint.sum(0))[x], 0.0), **CLOSE
    )
    z = np.where(seen[:, None], (joint / joint.sum(0)).T[x], rows)
    np.testing.assert_allclose(answer.marginals["z"], z, **CLOSE)
    cells = np.where(seen[:, None], np.eye(3)[x], joint.sum(0))
    np.testing.assert_allclose(answer.marginals["x"], cells, **CLOSE)


def test_missing_rows_of_a_site_with_an_event(exact: Any, programs: ModuleType) -> None:
    """A row that is not seen has the predictive law of each of its elements."""
    x, seen = np.array([[1, 0, 1], [0, 1, 1]], "float32"), np.array([True, False])
    answer = exact(programs.pixels, x, seen)
    probs = np.array([[0.2, 0.9, 0.5], [0.7, 0.3, 0.5], [0.5, 0.5, 0.5]])
    rows = np.asarray(programs.ROWS)
    joint = rows * np.where(x[0] == 1, probs, 1 - probs).prod(1)
    np.testing.assert_allclose(answer.log_evidence, [np.log(joint.sum()), 0.0], **CLOSE)
    np.testing.assert_allclose(answer.marginals["z"], [joint / joint.sum(), rows], **CLOSE)
    np.testing.assert_allclose(answer.marginals["x"][..., 1], [x[0], rows @ probs], **CLOSE)


def test_missing_measurements_are_left_out(exact: Any, programs: ModuleType) -> None:
    """Missing continuous cells integrate to one where nothing depends on them."""
    x = RNG.normal(size=(3, 4)).astype("float32")
    seen = RNG.random((3, 4)) < 0.6
    seen[1] = False
    answer = exact(programs.features, x, seen)
    log = -((x[..., None] - np.asarray(programs.MEANS)) ** 2) / 2 - np.log(2 * np.pi) / 2
    joint = np.log(np.asarray(programs.ROWS)) + np.where(seen[..., None], log, 0.0).sum(1)
    total = logsumexp(joint, axis=1)
    np.testing.assert_allclose(answer.log_evidence, total, **CLOSE)
    law = np.exp(joint - total[:, None])[:, None]
    np.testing.assert_allclose(answer.marginals["z"], law, **CLOSE)
    with pytest.raises(ValueError, match=r"'x_unobserved' are continuous, and .*'y' depends"):
        exact(programs.downstream, x[0], seen[0])


def test_elements_that_are_picked_by_index(exact: Any, programs: ModuleType) -> None:
    """Rows touch the state of their own group alone, also where other data pick others."""
    x = RNG.normal(size=90).astype("float32")
    log = -((x[:, None] - 2.0 * np.arange(2)) ** 2) / 2 - np.log(2 * np.pi) / 2
    for group in (np.arange(90) % 30, RNG.permutation(90) // 3):
        answer = exact(programs.grouped, group, x)
        joint = np.tile(np.log([0.7, 0.3]), (30, 1))
        np.add.at(joint, group, log)
        total = logsumexp(joint, axis=1)
        np.testing.assert_allclose(np.sum(answer.log_evidence), total.sum(), rtol=1e-5)
        np.testing.assert_allclose(answer.marginals["z"], np.exp(joint - total[:, None]), **CLOSE)
        assert answer.cost.width == 0


@pytest.mark.parametrize("few", [1 << 20, 0], ids=["all terms", "changed terms"])
def test_what_rows_touch_may_change_with_the_data(
    exact: Any, programs: ModuleType, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read at some data is not taken for true at others."""
    monkeypatch.setattr(readings, "_FEW_NUMBERS", few)
    for weight in (np.zeros(4), np.zeros(4), np.array([0.0, 0.8, 0.0, 0.0]), np.zeros(4)):
        for x in (X, X, 2.0 * X):
            data = (x, weight.astype("float32"))
            truth = Truth(programs, programs.switched, data, {"z": (BINARY, (4,))})
            answer = exact(programs.switched, *data)
            np.testing.assert_allclose(np.sum(answer.log_evidence), truth.log_evidence, **CLOSE)
            np.testing.assert_allclose(answer.marginals["z"], truth.marginal("z"), **CLOSE)


def test_a_field_in_one_statement(exact: Any, programs: ModuleType) -> None:
    """Couplings of neighbours, written as slices: a chain, whose sum is known."""
    answer = exact(lambda: programs.field(40))
    np.testing.assert_allclose(answer.log_evidence, 39 * np.log(np.cosh(0.7)), rtol=1e-5)
    np.testing.assert_allclose(answer.marginals["z"], 0.5, **CLOSE)
    pair = answer.joint("z[3]", "z[4]")
    np.testing.assert_allclose(pair[0, 0] + pair[1, 1], 1 / (1 + np.exp(-1.4)), **CLOSE)
    assert answer.cost.width == 1
    with pytest.raises(ValueError, match=r"depends on many elements of 'z' at once|40 discrete"):
        exact(programs.entangled, X[0])


def test_counts(exact: Any, programs: ModuleType) -> None:
    answer = exact(programs.counted)
    prior = np.array([math.comb(3, k) * 0.4**k * 0.6 ** (3 - k) for k in range(4)])
    joint = prior * np.exp(-((1.7 - np.arange(4)) ** 2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(answer.log_evidence, np.log(joint.sum()), **CLOSE)
    np.testing.assert_allclose(answer.marginals["count"], joint / joint.sum(), **CLOSE)
    assert answer.map().values["count"] == joint.argmax()


def test_a_continuous_latent_is_given(exact: Any, programs: ModuleType) -> None:
    with pytest.raises(ValueError, match="'mean' is continuous"):
        exact(programs.regression, X)
    answer = exact(programs.regression, X, given={"mean": 0.3})
    prior = np.array([1 - 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(-0.3))])
    gap = X[:, None] - 0.3 - np.arange(2)
    joint = prior * np.exp(-(gap**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(answer.marginals["z"], joint / joint.sum(1, keepdims=True), **CLOSE)
    prior_of_mean = -(0.3**2) / 2 - np.log(2 * np.pi) / 2
    total = np.log(joint.sum(1)).sum() + prior_of_mean
    np.testing.assert_allclose(np.sum(answer.log_evidence), total, **CLOSE)


def test_a_hidden_markov_model(exact: Any, programs: ModuleType) -> None:
    """Evidence and smoothing marginals are those of the forward and backward recursions."""
    y = RNG.normal(size=60).astype("float32") * 2
    answer = exact(programs.hidden_states, y)
    moves, means = (np.asarray(x).astype(float) for x in (programs.MOVES, programs.MEANS))
    local = -((y[:, None] - means) ** 2) / 2 - np.log(2 * np.pi) / 2
    forward = [np.log(moves[0]) + local[0]]
    for own in local[1:]:
        forward.append(own + logsumexp(forward[-1][:, None] + np.log(moves), axis=0))
    backward = [np.zeros(3)]
    for own in local[:0:-1]:
        backward.append(logsumexp(np.log(moves) + own + backward[-1], axis=1))
    forward, backward = np.stack(forward), np.stack(backward[::-1])
    np.testing.assert_allclose(answer.log_evidence, logsumexp(forward[-1]), rtol=1e-5)
    law = np.exp(forward + backward - logsumexp(forward[-1]))
    found = [answer.marginals[name] for name in programs.chain_names(60)]
    found = found[0] if len(found) == 1 else np.stack(found)
    np.testing.assert_allclose(found, law, atol=2e-5)
    assert answer.cost.width == 1


def test_a_hundred_latents(exact: Any, programs: ModuleType) -> None:
    """A tree, past the languages' own limits: its law runs from the root to the leaves."""
    answer = exact(lambda: programs.tree(120))
    law = [0.5]
    for i in range(1, 120):
        law.append(0.3 + 0.4 * law[(i - 1) // 2])
    np.testing.assert_allclose(answer.log_evidence, 0.0, atol=1e-4)
    found = [answer.marginals[f"z{i}"][1] for i in range(120)]
    np.testing.assert_allclose(found, law, **CLOSE)
    assert answer.cost.width == 1


def test_bad_input(exact: Any, programs: ModuleType) -> None:
    with pytest.raises(ValueError, match="'count' has no finite support"):
        exact(programs.unlimited)
    with pytest.raises(ValueError, match=r"evidence on 'dog'.*'hard', 'clever'"):
        exact(programs.student, given={"dog": 1})
    with pytest.raises(ValueError, match=r"given\['grade'\] at \(1,\) is 5"):
        exact(programs.student, given={"grade": [0, 5]})
    with pytest.raises(ValueError, match=r"given\['hard'\] holds NaN"):
        exact(programs.student, given={"hard": [0.0, np.nan]})
    with pytest.raises(ValueError, match="query names 'dog'"):
        exact(programs.student, query=["dog"])
    with pytest.raises(ValueError, match="plate 'data' subsamples"):
        exact(programs.subsampling, X)
    with pytest.raises(TypeError, match="not int"):
        exact(3)
    with pytest.raises(ValueError, match=r"MiB|GiB|bytes"):
        exact(programs.student, max_bytes=10)


def test_parameters_are_taken(exact: Any, programs: ModuleType) -> None:
    weights, means = np.array([0.2, 0.5, 0.3], "float32"), np.array([-2.0, 0.0, 3.0], "float32")
    params = dict(zip(("weights", "means"), programs.tensors((weights, means)), strict=True))
    answer = exact(programs.learned, X, params=params)
    joint = weights * np.exp(-((X[:, None] - means) ** 2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(answer.log_evidence, np.log(joint.sum(1)), **CLOSE)


# ------------------------------------------------------------------------------ random programs


@st.composite
def random_parents(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    """Up to three parents of each of up to twelve binary states, and a seed."""
    size = draw(st.integers(2, 12))
    parents = [[]]
    for i in range(1, size):
        parents.append(sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))))
    return parents, draw(st.integers(0, 1 << 16))


def agrees_with_enumeration(exact: Any, programs: ModuleType, net: Any) -> None:
    """Whether evidence, marginals and best values of a random program are the enumeration's."""
    parents, seed = net
    size = len(parents)
    weights = np.random.default_rng(seed).normal(size=(size, size)).astype("float32") * 2
    (own,) = programs.tensors((weights,))
    model = lambda: programs.random_net(parents, own)  # noqa: E731
    z = np.array(list(itertools.product((0, 1), repeat=size)))
    log_joint = -((0.4 - (z[:, 0] - z[:, -1])) ** 2) / 2 - np.log(2 * np.pi) / 2
    for i, above in enumerate(parents):
        logit = weights[i, i] + z[:, above] @ weights[i, above]
        log_joint = log_joint - np.logaddexp(0.0, np.where(z[:, i] == 1, -logit, logit))
    answer = exact(model)
    total = logsumexp(log_joint)
    np.testing.assert_allclose(answer.log_evidence, total, **CLOSE)
    law = np.exp(log_joint - total) @ z
    found = [answer.marginals[f"z{i}"][1] for i in range(size)]
    np.testing.assert_allclose(found, law, **CLOSE)
    np.testing.assert_allclose(answer.map().log_prob, log_joint.max(), **CLOSE)


@settings(max_examples=3, derandomize=True, database=None, deadline=None)
@given(net=random_parents())
def test_random_programs(exact: Any, programs: ModuleType, net: Any) -> None:
    agrees_with_enumeration(exact, programs, net)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(net=random_parents())
def test_many_random_programs(exact: Any, programs: ModuleType, net: Any) -> None:
    agrees_with_enumeration(exact, programs, net)
