"""Chow-Liu trees and their mixtures: every tree tried, published log likelihoods."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.chow_liu import chow_liu, tree_mixture
from deepgen_ppl.datasets import read_npz

DEBD = Path(__file__).resolve().parents[3] / "shared" / "data" / "debd"

# Mean test log likelihood in nats of a Chow-Liu tree and of a mixture of trees.
CHOW_LIU = {"nltcs": -6.76, "dna": -87.70}
MIXTURES = {"nltcs": -6.01, "dna": -85.14}


def read(name: str) -> dict[str, np.ndarray]:
    path = DEBD / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with np.load(path) as file:
        columns = int(file["n_vars"])
    return read_npz(path, packed=("train", "valid", "test"), num_columns=columns)


def every_tree(names: list[str]):
    """Every labelled tree, by its Prüfer sequence, as parents of nodes away from the first."""
    size = len(names)
    for sequence in itertools.product(range(size), repeat=size - 2):
        degree = [1 + sequence.count(v) for v in range(size)]
        edges = []
        for v in sequence:
            leaf = degree.index(1)
            edges.append((leaf, v))
            degree[leaf] -= 1
            degree[v] -= 1
        edges.append(tuple(v for v in range(size) if degree[v] == 1))
        parents: dict[str, tuple[str, ...]] = {}
        found = {0}
        while len(found) < size:
            for a, b in edges:
                for above, below in ((a, b), (b, a)):
                    if above in found and below not in found:
                        parents[names[below]] = (names[above],)
                        found.add(below)
        yield parents


@pytest.mark.parametrize("seed", range(4))
def test_no_tree_makes_the_rows_more_probable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = {f"v{i}": tuple(map(str, range(rng.integers(2, 4)))) for i in range(5)}
    full = BayesNet.full_joint(states)
    tables = {v: rng.dirichlet(np.ones(t.shape[-1]), t.shape[:-1]) for v, t in full.tables.items()}
    rows = BayesNet(states, full.parents, tables).sample(300, seed=seed)
    weights = rng.integers(1, 4, size=300)
    best = max(
        weights @ BayesNet.from_structure(states, parents).fit(rows, weights=weights).log_prob(rows)
        for parents in every_tree(list(states))
    )
    tree = chow_liu(rows, states, weights=weights)
    assert weights @ tree.log_prob(rows) == pytest.approx(best, abs=1e-9)
    repeated = chow_liu(np.repeat(rows, weights, axis=0), states)
    assert repeated.parents == tree.parents


def test_the_pseudocount_is_so_many_rows_of_a_uniform_distribution() -> None:
    states = {f"v{i}": ("a", "b") for i in range(3)}
    rows = BayesNet.full_joint(states).sample(40, seed=0)
    uniform = np.array(list(itertools.product((0, 1), repeat=3)))
    smoothed = chow_liu(rows, states, pseudocount=4.0)
    weights = np.concatenate([np.ones(40), np.full(8, 0.5)])
    explicit = chow_liu(np.concatenate([rows, uniform]), states, weights=weights)
    assert smoothed.parents == explicit.parents
    for variable, table in smoothed.tables.items():
        np.testing.assert_allclose(table, explicit.tables[variable], atol=1e-12)


@pytest.mark.parametrize("pseudocount", [0.0, 2.0])
def test_em_of_a_mixture_never_loses(pseudocount: float) -> None:
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 2, size=400)
    rows = rng.integers(0, 2, size=(400, 5))
    rows[:, 1] = np.where(kind == 0, rows[:, 0], rows[:, 2])
    rows[:, 3] = np.where(kind == 0, 1 - rows[:, 4], rows[:, 0])
    mixture = tree_mixture(rows, 3, pseudocount=pseudocount, num_steps=60, tolerance=-1.0, seed=2)
    assert len(mixture.objective) == 60
    assert (np.diff(mixture.objective) > -1e-10).all()
    assert mixture.objective[-1] > mixture.objective[0] + 0.05
    every = np.array(list(itertools.product((0, 1), repeat=5)))
    assert np.exp(mixture.log_prob(every)).sum() == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(mixture.responsibilities(rows).sum(1), 1.0, atol=1e-12)


def test_draws_of_a_mixture_have_its_probabilities() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, size=(300, 3)) * rng.integers(0, 2, size=(300, 1))
    mixture = tree_mixture(rows, 2, pseudocount=1.0)
    every = np.array(list(itertools.product((0, 1), repeat=3)))
    drawn = mixture.sample(40_000, seed=3) @ [4, 2, 1]
    share = np.bincount(drawn, minlength=8) / 40_000
    expected = np.exp(mixture.log_prob(every))
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 40_000)).all()


@pytest.mark.parametrize("name", CHOW_LIU)
def test_a_tree_has_the_published_test_log_likelihood(name: str) -> None:
    data = read(name)
    tree = chow_liu(data["train"], pseudocount=0.1)
    # published to two digits, with another smoothing of the counts
    assert tree.log_prob(data["test"]).mean() == pytest.approx(CHOW_LIU[name], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_chosen_on_the_validation_rows_comes_near_the_published_one(name: str) -> None:
    data = read(name)
    fits = [tree_mixture(data["train"], k, pseudocount=5.0) for k in (2, 5, 10)]
    best = max(fits, key=lambda fit: fit.log_prob(data["valid"]).mean())
    assert best.log_prob(data["test"]).mean() == pytest.approx(MIXTURES[name], rel=0.005)


def test_labels_and_unequal_numbers_of_states() -> None:
    states = {"size": ("s", "m", "l"), "colour": ("red", "blue")}
    rows = [["s", "red"], ["l", "blue"], ["l", "blue"], ["m", "red"], ["s", "red"]]
    tree = chow_liu(rows, states)
    assert tree.parents["colour"] == ("size",)
    np.testing.assert_allclose(tree.tables["colour"], [[1, 0], [1, 0], [0, 1]], atol=1e-12)


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ValueError, match="'x1' is missing in row 0"):
        chow_liu(np.ma.MaskedArray([[0, 1], [1, 0]], [[False, True], [False, False]]))
    with pytest.raises(ValueError, match="'x0' is 2 in row 1"):
        chow_liu([[0, 1], [2, 0]], {"x0": ("0", "1"), "x1": ("0", "1")})
    with pytest.raises(ValueError, match="num_components is 0"):
        tree_mixture([[0, 1]], 0)
