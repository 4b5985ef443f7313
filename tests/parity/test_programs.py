"""The ready discrete programs have equal densities, and equal answers, on both wings."""

import numpy as np
import pytest

import deepgen_ppl.numpyro as dg_numpyro
import deepgen_ppl.pyro as dg_pyro
from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.markov_chain import MarkovChain

from .sides import numpyro_side, pyro_side

SAME = {"rtol": 1e-6, "atol": 1e-9}
NET = BayesNet(
    {"rain": ("no", "yes"), "grass": ("dry", "damp", "wet"), "mood": ("bad", "good")},
    {"grass": ("rain",), "mood": ("rain", "grass")},
    {
        "rain": [0.7, 0.3],
        "grass": [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]],
        "mood": [[[0.5, 0.5], [0.6, 0.4], [0.7, 0.3]], [[0.8, 0.2], [0.9, 0.1], [1.0, 0.0]]],
    },
)
ROWS = NET.sample(30, seed=0)
CHAIN = MarkovChain(([0.5, 0.3, 0.2],), [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]])
RNG = np.random.default_rng(0)
TABLES = {f"{v}_table": RNG.dirichlet(np.ones(t.shape[-1]), t.shape[:-1])
          for v, t in NET.tables.items()}  # fmt: skip

PROGRAMS = {
    "net": (lambda dg: dg.bayes_net(NET), (ROWS,), {}),
    "net with parameters": (lambda dg: dg.bayes_net(NET, learnable="point"), (ROWS,), {}),
    "net with latents": (lambda dg: dg.bayes_net(NET, learnable="dirichlet"), (ROWS,), TABLES),
    "chain": (lambda dg: dg.markov_chain(CHAIN), (CHAIN.sample(9, 6),), {}),
    "chain of unequal lengths": (
        lambda dg: dg.markov_chain(CHAIN), (CHAIN.sample(9, 6), np.arange(9) % 7), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_densities_agree(name: str) -> None:
    build, data, latents = PROGRAMS[name]
    sides = (
        numpyro_side(build(dg_numpyro), None, data),
        pyro_side(build(dg_pyro), None, data),
    )
    left, right = (side.log_density(side.pair.model, latents) for side in sides)
    for mine, other in zip(left, right, strict=True):
        np.testing.assert_allclose(mine, other, **SAME)


def test_answers_about_hidden_states_agree() -> None:
    emission = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    moves, x = np.array([[0.9, 0.1], [0.3, 0.7]]), CHAIN.sample(4, 5, seed=1)
    found = [dg.exact(dg.hmm(2, emission, transition=moves), x) for dg in (dg_numpyro, dg_pyro)]
    total = [float(np.sum(answer.log_evidence)) for answer in found]
    np.testing.assert_allclose(*total, **SAME)
    states = found[0].marginals["state"]
    for t in range(5):
        mine, other = states[..., t, :, :], found[1].marginals[f"state_{t}"]
        np.testing.assert_allclose(mine.reshape(4, 2), other.reshape(4, 2), **SAME)


def test_learned_tables_agree() -> None:
    mask = np.random.default_rng(1).random(ROWS.shape) < 0.7
    start = BayesNet.from_structure(NET.states, NET.parents)
    options = {"jitter": 0.2, "num_steps": 30, "tolerance": 0.0}
    left, right = (dg.learn_bayes_net(start, ROWS, mask, **options) for dg in (dg_numpyro, dg_pyro))
    np.testing.assert_allclose(left.log_likelihoods, right.log_likelihoods, **SAME)
    for variable, table in left.net.tables.items():
        np.testing.assert_allclose(table, right.net.tables[variable], rtol=1e-6, atol=1e-7)
