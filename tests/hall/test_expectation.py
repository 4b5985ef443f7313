"""EM: it climbs, it ends, it says what collapsed; draws are given common names."""

import itertools

import numpy as np
import pytest
from scipy import stats

from deepgen_ppl import relabelling
from deepgen_ppl.expectation import Expected, best, climb, collapse, kmeans_start, normalise
from deepgen_ppl.families import Gaussian

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-2, 1, 80), RNG.normal(2, 0.6, 120)])


def expect(values: dict) -> Expected:
    parts = stats.norm.logpdf(X[:, None], values["loc"], values["scale"])
    return Expected(parts + np.log(values["weights"]), 0.0)


def maximise(responsibilities: np.ndarray, old: dict) -> dict:
    found = Gaussian("diagonal").maximise(X, responsibilities, None, old)
    return {**found, "weights": responsibilities.mean(0)}


START = {"loc": np.array([-1.0, 1.0]), "scale": np.ones(2), "weights": np.full(2, 0.5)}
OPTIONS = {"num_steps": 200, "tolerance": 1e-9, "floor": 1e-6}


def test_it_climbs_to_a_stationary_point() -> None:
    run = climb(expect, maximise, START, **OPTIONS)
    assert (np.diff(run.objective) > -1e-6).all()
    assert "less than 1e-09 nats a row" in run.stopped
    again = maximise(expect(run.values).responsibilities, run.values)
    for name, value in run.values.items():
        np.testing.assert_allclose(value, again[name], atol=1e-4)
    assert run.collapsed == ""


def test_a_step_that_falls_is_undone() -> None:
    def worse(responsibilities: np.ndarray, old: dict) -> dict:
        return {**old, "loc": old["loc"] + 1.0}

    run = climb(expect, worse, START, **OPTIONS)
    assert run.values is START
    assert "lowered the objective" in run.stopped


def test_a_component_on_one_datum_is_told_and_avoided() -> None:
    narrow = {"loc": np.array([X[0], 0.5]), "scale": np.array([1e-4, 2.0])}
    run = climb(expect, maximise, {**narrow, "weights": np.array([0.01, 0.99])}, **OPTIONS)
    assert "component 0 collapsed onto" in run.collapsed
    sound = climb(expect, maximise, START, **OPTIONS)
    assert best([run, sound]) is sound
    with pytest.warns(UserWarning, match=r"In each of 1 starts component 0 collapsed.*larger flo"):
        assert best([run]) is run


def test_a_lost_component_is_told() -> None:
    values = {"loc": np.zeros(2), "scale": np.ones(2)}
    assert collapse(values, np.array([0.1, 9.9]), 1e-6) == "component 0 lost all its rows."


def test_data_of_no_density_stop_it() -> None:
    def nowhere(values: dict) -> Expected:
        table = np.zeros((3, 2))
        table[1] = -np.inf
        return Expected(table, 0.0)

    with pytest.raises(FloatingPointError, match="row 1 under every component"):
        climb(nowhere, maximise, START, **OPTIONS)


def test_kmeans_finds_groups_far_apart() -> None:
    rows = np.concatenate([RNG.normal(c, 0.1, (20, 2)) for c in (0, 5, 10)])
    found = kmeans_start(rows, 3, np.random.default_rng(1)).argmax(1)
    assert all(len(set(found[i : i + 20])) == 1 for i in (0, 20, 40))
    assert len(set(found)) == 3
    with pytest.raises(ValueError, match="distinct rows: 2"):
        kmeans_start(np.array([[0.0], [1.0], [1.0]]), 3, np.random.default_rng(0))


def test_rows_of_a_table_become_probabilities() -> None:
    table = np.array([[-1000.0, -1001.0], [-np.inf, 3.0]])
    found = normalise(table)
    np.testing.assert_allclose(found, [[0.731059, 0.268941], [0, 1]], atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("method", ["stephens", "ecr"])
def test_shuffled_names_are_found_again(size: int, method: str) -> None:
    rng = np.random.default_rng(size)
    truth = rng.dirichlet(np.full(size, 0.2), 40)
    draws = normalise(np.log(truth + 1e-3) + 0.3 * rng.normal(size=(30, 40, size)))
    shuffle = np.stack([rng.permutation(size) for _ in range(30)])
    shuffle[0] = np.arange(size)
    mixed = np.stack([d[:, s] for d, s in zip(draws, shuffle, strict=True)])
    order = relabelling.permutations(mixed, pivot=0, method=method)
    back = np.take_along_axis(shuffle, order, axis=1)
    assert (back == np.arange(size)).all()
    values = relabelling.permute(shuffle[..., None].astype(float), order)
    assert (values[..., 0] == np.arange(size)).all()


def test_the_cheapest_matching_is_that_of_all_permutations() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), (1, 25))
    both = np.concatenate([probabilities, rng.dirichlet(np.ones(4), (1, 25))])
    order = relabelling.permutations(both, pivot=0, num_rounds=1)[1]
    p, q = both[1], both[0]
    losses = {
        nu: sum((p[:, nu[k]] * np.log(p[:, nu[k]] / q[:, k])).sum() for k in range(4))
        for nu in itertools.permutations(range(4))
    }
    assert tuple(order) == min(losses, key=losses.get)


def test_bad_requests_are_refused() -> None:
    table = np.full((2, 3, 2), 0.5)
    with pytest.raises(ValueError, match="'stephens' or 'ecr', not 'order'"):
        relabelling.permutations(table, method="order")
    with pytest.raises(ValueError, match="pivot=2 is none of the 2 draws"):
        relabelling.permutations(table, pivot=2)


def test_sticks_and_weights_are_inverse() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), 7)
    np.testing.assert_allclose(relabelling.weights(relabelling.sticks(weights)), weights)
