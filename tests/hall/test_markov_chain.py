"""Markov chains as data: counts, probabilities and draws agree with each other."""

import itertools

import numpy as np
import pytest

from deepgen_ppl.markov_chain import MarkovChain


def random_chain(order: int, num_states: int = 3, seed: int = 0) -> MarkovChain:
    rng = np.random.default_rng(seed)
    tables = [rng.dirichlet(np.ones(num_states), size=(num_states,) * j) for j in range(order + 1)]
    return MarkovChain(tuple(tables[:-1]), tables[-1])


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_all_sequences_together_have_probability_one(order: int) -> None:
    every = list(itertools.product(range(3), repeat=5))
    assert np.exp(random_chain(order).log_prob(every)).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_draws_have_the_probabilities_of_sequences(order: int) -> None:
    chain, num_samples = random_chain(order, seed=order), 40_000
    drawn = chain.sample(num_samples, 3, seed=1) @ [9, 3, 1]
    share = np.bincount(drawn, minlength=27) / num_samples
    expected = np.exp(chain.log_prob(itertools.product(range(3), repeat=3)))
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / num_samples)).all()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_no_chain_makes_the_sequences_more_probable(order: int) -> None:
    truth = random_chain(order, seed=5)
    sequences = [row[: 4 + i % 9] for i, row in enumerate(truth.sample(200, 12, seed=2))]
    fit = MarkovChain.fit(sequences, num_states=3, order=order)
    best = fit.log_prob(sequences).sum()
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = []
        for table in (*fit.starts, fit.transition):
            noise = table * rng.uniform(0.9, 1.1, size=table.shape)
            moved.append(noise / noise.sum(-1, keepdims=True))
        assert MarkovChain(tuple(moved[:-1]), moved[-1]).log_prob(sequences).sum() <= best


def test_parameters_are_counted() -> None:
    assert [MarkovChain.uniform(4, order=k).num_parameters for k in range(3)] == [3, 15, 63]
    assert list(MarkovChain.uniform(2, order=2).tables) == ["initial", "initial_1", "transition"]


def test_sequences_shorter_than_the_order_have_their_own_tables() -> None:
    chain = random_chain(2)
    expected = np.log(chain.starts[0][1]) + np.log(chain.starts[1][1, 2])
    assert chain.log_prob([[1, 2], []]).tolist() == [pytest.approx(expected), 0.0]


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at place 2 of sequence 1 is 3; .* 0 to 2"):
        MarkovChain.uniform(3).log_prob([[0], [0, 1, 3]])
    with pytest.raises(ValueError, match=r"has the shape \(2,\); .* the shape \(3,\)"):
        MarkovChain(([0.5, 0.5],), [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    with pytest.raises(ValueError, match=r"for x\[t-1\]=1 sum to 1\.1"):
        MarkovChain(([0.5, 0.5],), [[0.5, 0.5], [0.6, 0.5]])
    with pytest.raises(ValueError, match="order -1"):
        MarkovChain.uniform(2, order=-1)
