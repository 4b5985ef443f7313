"""Tables from rows: counts, Dirichlet posteriors and the driver of EM against enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.net_learning import (
    dirichlet_posterior,
    distinct_rows,
    family_counts,
    jittered,
    maximise,
    normalised,
)

STUDENT = BayesNet.student()
ROWS = STUDENT.sample(500, seed=0)


def enumerated(net: BayesNet, numbers: np.ndarray, observed: np.ndarray):
    """Expected counts and the log probability of observed cells, over every completion."""
    sizes = [len(labels) for labels in net.states.values()]
    every = np.array(list(itertools.product(*map(range, sizes))))
    joint = np.exp(net.log_prob(every))
    agrees = ((numbers[:, None] == every) | ~observed[:, None]).all(-1)
    evidence = agrees @ joint
    weights = (agrees * joint / evidence[:, None]).sum(0)
    return family_counts(net, every, weights=weights), float(np.log(evidence).sum())


def test_maximum_likelihood_is_the_share_of_counts() -> None:
    learned = STUDENT.fit(ROWS)
    hard_and_high = ROWS[(ROWS[:, 0] == 1) & (ROWS[:, 1] == 1)]
    shares = np.bincount(hard_and_high[:, 2], minlength=3) / len(hard_and_high)
    np.testing.assert_allclose(learned.tables["grade"][1, 1], shares, atol=1e-12)
    assert learned.log_prob(ROWS).sum() > STUDENT.log_prob(ROWS).sum()


def test_weights_count_rows_and_what_never_occurred_becomes_uniform() -> None:
    learned = STUDENT.fit(ROWS[:4], weights=[0, 0, 3, 0])
    row = ROWS[2]
    table = learned.tables["grade"]
    assert table[row[0], row[1], row[2]] == 1.0
    np.testing.assert_allclose(table[1 - row[0], row[1]], 1 / 3)
    repeated = STUDENT.fit(np.repeat(ROWS[:3], [2, 1, 5], axis=0), pseudocount=0.5)
    weighted = STUDENT.fit(ROWS[:3], weights=[2, 1, 5], pseudocount=0.5)
    for variable, found in repeated.tables.items():
        np.testing.assert_allclose(found, weighted.tables[variable], atol=1e-12)


def test_the_dirichlet_posterior_is_that_of_one_row_after_the_other() -> None:
    posterior = dirichlet_posterior(STUDENT, ROWS[:40], concentration=0.7)
    log_evidence = 0.0
    for i in range(40):  # the chain rule: each row under the mean of the posterior of those before
        before = normalised(STUDENT, family_counts(STUDENT, ROWS[:i]), pseudocount=0.7)
        log_evidence += before.log_prob(ROWS[i : i + 1])[0]
    assert posterior.log_evidence == pytest.approx(log_evidence, abs=1e-9)
    alpha = posterior.concentrations["grade"][0, 1]
    exact = stats.dirichlet(alpha)
    np.testing.assert_allclose(posterior.mean.tables["grade"][0, 1], exact.mean())
    np.testing.assert_allclose(posterior.standard_deviations["grade"][0, 1] ** 2, exact.var())
    draws = exact.rvs(200_000, random_state=0)
    error = np.log(draws).std(0) / 200_000**0.5
    assert (np.abs(np.log(draws).mean(0) - posterior.mean_log["grade"][0, 1]) < 5 * error).all()


def test_evidence_prefers_the_structure_that_made_the_rows() -> None:
    rows = STUDENT.sample(2000, seed=1)
    structures = {
        "truth": STUDENT,
        "independent": BayesNet.independent(STUDENT.states),
        "chain": BayesNet.chain(STUDENT.states),
        "full joint": BayesNet.full_joint(STUDENT.states),
    }
    evidence = {k: dirichlet_posterior(net, rows).log_evidence for k, net in structures.items()}
    assert max(evidence, key=evidence.__getitem__) == "truth"
    assert tuple(net.num_parameters for net in structures.values()) == (15, 6, 12, 47)


@pytest.mark.parametrize("pseudocount", [0.0, 1.0])
def test_em_climbs_to_a_stationary_point_whatever_is_missing(pseudocount: float) -> None:
    rng = np.random.default_rng(3)
    rows = STUDENT.sample(400, seed=3)
    observed = rng.random(rows.shape) < 0.7
    start = jittered(BayesNet.from_structure(STUDENT.states, STUDENT.parents), 0, 0.3)

    def expect(net: BayesNet):
        return enumerated(net, rows, observed)

    net, objective, converged = maximise(
        start, expect, num_steps=400, tolerance=1e-10, pseudocount=pseudocount, num_rows=400
    )
    assert converged and (np.diff(objective) > -1e-9).all()
    again = normalised(net, expect(net)[0], pseudocount)  # a fixed point of its own update
    for variable, table in net.tables.items():
        np.testing.assert_allclose(again.tables[variable], table, atol=2e-3)


def test_gains_that_rounding_loses_end_it() -> None:
    """In single precision the log likelihood stands still long before the tables do."""
    rng = np.random.default_rng(1)
    observed = rng.random(ROWS.shape) < 0.7
    start = jittered(BayesNet.from_structure(STUDENT.states, STUDENT.parents), 0, 0.2)

    def rounded(net: BayesNet):
        counts, log_likelihood = enumerated(net, ROWS, observed)
        return counts, float(np.float32(log_likelihood))

    options = {"num_steps": 300, "tolerance": 0.0, "pseudocount": 0.0, "num_rows": len(ROWS)}
    _, objective, converged = maximise(start, rounded, **options)
    assert converged and objective[-1] - objective[-2] == 0
    assert 0 < objective[-2] - objective[-3] < 1e-2


def test_em_without_missing_cells_is_counting() -> None:
    observed = np.ones_like(ROWS, bool)
    net, objective, converged = maximise(
        BayesNet.from_structure(STUDENT.states, STUDENT.parents),
        lambda net: enumerated(net, ROWS, observed),
        num_steps=5, tolerance=1e-9, pseudocount=0.0, num_rows=len(ROWS),
    )  # fmt: skip
    assert converged and len(objective) == 3
    for variable, table in STUDENT.fit(ROWS).tables.items():
        np.testing.assert_allclose(net.tables[variable], table, atol=1e-12)


def test_equal_rows_are_put_together() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, size=(60, 3))
    observed = rng.random(rows.shape) < 0.6
    numbers, mask, counts = distinct_rows(rows, observed)
    assert counts.sum() == 60 and len(counts) < 60
    found = np.repeat(np.where(mask, numbers, -1), counts, axis=0)
    expected = np.where(observed, rows, -1)
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="'grade' is missing in row 1: counting needs whole rows"):
        missing = np.zeros((2, 5), bool)
        missing[1, 2] = True
        STUDENT.fit(np.ma.MaskedArray(ROWS[:2], missing))
    with pytest.raises(ValueError, match="weights of shape"):
        STUDENT.fit(ROWS[:3], weights=[1, 2])
    with pytest.raises(ValueError, match="pseudocount is -1"):
        STUDENT.fit(ROWS, pseudocount=-1)
    with pytest.raises(ValueError, match="concentration is 0"):
        dirichlet_posterior(STUDENT, ROWS, concentration=0)
    certain = BayesNet({"a": ("0", "1")}, tables={"a": [1.0, 0.0]})
    with pytest.raises(ValueError, match="impossible under the network that EM starts from"):
        maximise(certain, lambda net: ({"a": np.zeros(2)}, -np.inf), num_steps=3, tolerance=0.0,
                 pseudocount=0.0, num_rows=1)  # fmt: skip
