"""Discrete kernels against the enumeration of all states, alone and beside continuous sites."""

import importlib
import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest

KERNELS = ("gibbs", "gibbs_with_gradients", "discrete_langevin")
RNG = np.random.default_rng(3)
COUPLING = np.triu(RNG.normal(size=(12, 12)) * 0.2, 1).astype("float32")
FIELD = (RNG.normal(size=12) * 0.3).astype("float32")
EDGES = (RNG.normal(size=11) * 0.8).astype("float32")
SPINS = np.array(list(itertools.product((0, 1), repeat=12)))
Y = np.concatenate([RNG.normal(-2.5, 1.0, 10), RNG.normal(2.5, 1.0, 20)]).astype("float32")
WEIGHTS = np.array([0.4, 0.6], "float32")
TABLES = {
    "difficulty": np.array([0.6, 0.4], "float32"),
    "intelligence": np.array([0.7, 0.3], "float32"),
    "grade": np.array(
        [[[0.3, 0.4, 0.3], [0.05, 0.25, 0.7]], [[0.9, 0.08, 0.02], [0.5, 0.3, 0.2]]], "float32"
    ),
    "sat": np.array([[0.95, 0.05], [0.2, 0.8]], "float32"),
    "letter": np.array([[0.1, 0.9], [0.4, 0.6], [0.99, 0.01]], "float32"),
}
SHORT = {"num_warmup": 100, "num_samples": 300, "progress": False}


@pytest.fixture(scope="module")
def programs(wing):
    """The programs in the wing's language."""
    return importlib.import_module(f"{__package__}.discrete_{wing}")


def arrays(wing, tables):
    """Arrays of the wing's language."""
    if wing == "numpyro":
        return tables
    import torch

    return {name: torch.as_tensor(value) for name, value in tables.items()}


def error(draws):
    """Monte Carlo standard error of the mean of draws (chain, draw)."""
    from arviz_stats.base import array_stats

    draws = np.asarray(draws, float)
    stats: Any = array_stats
    return draws.std() / np.sqrt(float(stats.ess(draws, method="mean")))


def agrees(draws, law, states):
    """Whether means and products of all pairs are those of a law over enumerated states."""
    draws = draws.reshape(*draws.shape[:2], -1).astype(float)
    size = draws.shape[2]
    for i in range(size):
        for j in range(i, size):
            product, truth = draws[..., i] * draws[..., j], (states[:, i] * states[:, j]) @ law
            assert abs(product.mean() - truth) < 5 * error(product) + 1e-6, (i, j)


def normalised(log_density):
    law = np.exp(log_density - log_density.max())
    return law / law.sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("model", ("ising", "chain"))
def test_spins_have_the_enumerated_law(dg, programs, model, kernel):
    s = 2.0 * SPINS - 1.0
    if model == "ising":
        data, energy = (COUPLING, FIELD), np.einsum("ni,ij,nj->n", s, COUPLING, s) + s @ FIELD
    else:
        data, energy = (EDGES,), (s[:, 1:] * s[:, :-1]) @ EDGES
    found = dg.mcmc(getattr(programs, model), *data, kernel=kernel, seed=1, **SHORT)
    assert found.draws["x"].shape == (64, 300, 12)
    assert found.draws["x"].dtype.kind == "i"
    assert found.attrs["num_blocks"] == (12 if model == "ising" else 2)
    if kernel != "gibbs":
        assert found.attrs["differences"] == "gradient"
    agrees(found.draws["x"], normalised(energy), SPINS)
    lp = energy[(found.draws["x"] * 2 ** np.arange(11, -1, -1)).sum(-1)] + 12 * np.log(0.5)
    np.testing.assert_allclose(found.stats["lp"], lp, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bayes_net_given_evidence(dg, programs, wing, kernel):
    letter = 0
    states = np.array(list(itertools.product((0, 1), (0, 1), (0, 1, 2), (0, 1))))
    d, i, g, s = states.T
    law = TABLES["difficulty"][d] * TABLES["intelligence"][i] * TABLES["grade"][i, d, g]
    law = law * TABLES["sat"][i, s] * TABLES["letter"][g, letter]
    model = partial(programs.student, arrays(wing, TABLES))
    observed = arrays(wing, {"letter": np.array(letter)})["letter"]
    found = dg.mcmc(model, observed, kernel=kernel, seed=2, **SHORT)
    names = ("difficulty", "intelligence", "grade", "sat")
    agrees(np.stack([found.draws[name] for name in names], -1), law / law.sum(), states)


@pytest.mark.parametrize("kernel", KERNELS)
def test_assignments_of_a_mixture(dg, programs, kernel):
    means = np.array([-1.0, 1.0], "float32")
    y = Y[4:16]
    found = dg.mcmc(programs.assignments, y, WEIGHTS, means, kernel=kernel, seed=3, **SHORT)
    log_joint = np.log(WEIGHTS) - 0.5 * (y[:, None] - means) ** 2
    law = np.exp(log_joint) / np.exp(log_joint).sum(1, keepdims=True)
    draws = found.draws["z"]
    for i in range(12):
        least = np.sqrt(law[i, 0] * law[i, 1] / draws[..., i].size)  # where all draws agree
        assert abs(draws[..., i].mean() - law[i, 1]) < 5 * max(error(draws[..., i]), least)
    if kernel == "gibbs":  # one block: the rows do not touch each other
        assert found.attrs["num_blocks"] == 1
    assert found.to_datatree(groups=()).posterior["z"].dims == ("chain", "draw", "data")


@pytest.fixture(scope="module")
def summed(dg, programs):
    """The mixture with its assignments summed out."""
    return dg.mcmc(programs.mixture, Y, WEIGHTS, kernel="chees", **{**SHORT, "seed": 4})


@pytest.mark.parametrize(
    "kernel", ("gibbs", pytest.param("gibbs_with_gradients", marks=pytest.mark.slow))
)
def test_mixed_program_agrees_with_the_one_summed_out(dg, programs, summed, kernel):
    found = dg.mcmc(programs.mixture, Y, WEIGHTS, kernel=kernel, **{**SHORT, "seed": 4})
    assert found.draws["z"].dtype.kind == "i"
    assert found.draws["means"].shape == (64, 300, 2)
    assert {"lp", "diverging", "step_size", "acceptance_rate"} <= set(found.stats)
    for name in ("low", "gap"):
        for power in (1, 2):
            one, other = found.draws[name] ** power, summed.draws[name] ** power
            assert abs(one.mean() - other.mean()) < 5 * np.hypot(error(one), error(other))


def test_warm_start_from_a_posterior(dg, programs):
    options = {**SHORT, "num_samples": 100, "kernel": "gibbs"}
    found = dg.mcmc(programs.mixture, Y, WEIGHTS, seed=4, **options)
    known = {"init": found, "adaptation": found.adaptation}
    again = dg.mcmc(programs.mixture, Y, WEIGHTS, seed=5, **{**options, **known, "num_warmup": 0})
    for name in ("low", "gap"):
        one, other = found.draws[name], again.draws[name]
        assert abs(one.mean() - other.mean()) < 5 * np.hypot(error(one), error(other))
    with pytest.raises(TypeError, match="init must be a Posterior"):
        dg.mcmc(programs.mixture, Y, WEIGHTS, init=3.0, **options)


def test_supports_that_do_not_begin_at_zero(dg, programs):
    y = np.float32(2.0)
    values = np.array([(h, s, o) for h in range(4) for s in range(2, 6) for o in (0, 1)])
    h, s, o = values.T
    choose = np.array([1, 3, 3, 1])[h]
    law = choose * 0.3**h * 0.7 ** (3 - h) * np.where(o, 0.4, 0.6)
    law = normalised(np.log(law) - 0.5 * (y - h * o - 0.5 * s) ** 2)
    found = dg.mcmc(programs.counts, y, kernel="gibbs", seed=5, **SHORT)
    size = found.draws["size"] + (2 - found.draws["size"].min())
    agrees(np.stack([found.draws["heads"], size, found.draws["on"]], -1), law, values)


def test_control_flow_on_a_discrete_value(dg, programs, wing):
    if wing == "numpyro":
        pytest.skip("a NumPyro program cannot branch on the value of a site")
    y = np.float32(0.7)
    options = {"num_warmup": 10, "num_samples": 300, "num_chains": 4, "progress": False}
    found = dg.mcmc(programs.branching, y, kernel="gibbs", seed=13, **options)
    assert "chain by chain" in found.attrs["compiled_reason"]
    law = normalised(np.log([0.7, 0.3]) - 0.5 * (y - np.array([-1.0, 2.0])) ** 2)
    agrees(found.draws["x"][..., None], law, np.array([[0], [1]]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_vectors_that_are_one_in_one_place(dg, programs, wing, kernel):
    if wing == "numpyro":
        pytest.skip("NumPyro has no OneHotCategorical")
    y = np.float32(2.5)
    states = np.array(list(itertools.product(range(3), repeat=2)))
    law = np.array([0.2, 0.3, 0.5])[states].prod(1) * np.exp(-0.5 * (y - states.sum(1)) ** 2)
    found = dg.mcmc(programs.one_hot, y, kernel=kernel, seed=14, **SHORT)
    assert found.draws["x"].shape == (64, 300, 2, 3)
    hot = np.eye(3)[states].reshape(9, 6)
    agrees(found.draws["x"], law / law.sum(), hot)


def test_coupling_that_the_probes_miss_is_noticed(dg, programs, wing):
    from deepgen_ppl import blocks

    y = np.float32(7.0)
    values = np.array(list(itertools.product(range(10), (0, 1), (0, 1), (0, 1))))
    switch, x = values[:, 0], values[:, 1:]
    meet = np.where(switch == 7, 3.0 * (x[:, 1:] * x[:, :-1]).sum(1), 0.0)
    law = normalised(meet - 0.5 * (y - switch) ** 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_POINTS", 1)
        found = dg.mcmc(programs.hidden, y, kernel="gibbs", seed=6, **SHORT)
    assert found.attrs["num_blocks"] == 4  # one by one, whatever the first look said
    agrees(np.concatenate([found.draws["switch"][..., None], found.draws["x"]], -1), law, values)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_leaves_the_law_as_it_is(programs, kernel):
    rng, num = np.random.default_rng(7), 40_000
    energies = rng.normal(size=8)
    law = normalised(energies)
    states = np.array(list(itertools.product((0, 1), repeat=3)))
    drawn = rng.choice(8, num, p=law)
    moved = programs.kernel_step(kernel, states[drawn], energies, seed=8) @ [4, 2, 1]
    assert np.mean(moved != drawn) > 0.1
    counts = np.bincount(moved, minlength=8)
    # both samples are multinomial: the errors of a count and of where it came from
    assert np.all(np.abs(counts - num * law) < 5 * np.sqrt(num * law * (1 - law)))
    if kernel != "gibbs":  # reversible: as many there as back
        pairs = np.zeros((8, 8))
        np.add.at(pairs, (drawn, moved), 1)
        assert np.all(np.abs(pairs - pairs.T) < 5 * np.sqrt(pairs + pairs.T + 1))


@pytest.mark.filterwarnings("ignore:.*have not mixed:UserWarning")
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_seed_gives_the_same_draws(dg, programs, kernel):
    options = {"num_warmup": 20, "num_samples": 20, "progress": False}
    options["kernel"] = kernel
    one, two, other = (
        dg.mcmc(programs.chain, EDGES, seed=seed, **options).draws["x"] for seed in (9, 9, 10)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.filterwarnings("ignore:.*have not mixed:UserWarning")
def test_hundreds_of_chains_options_and_thinning(dg, programs):
    gibbs = dg.Gibbs(num_discrete_steps=2, scan="random")
    options = {**SHORT, "num_samples": 40, "thinning": 2, "seed": 11}
    found = dg.mcmc(programs.chain, EDGES, kernel=gibbs, num_chains=400, **options)
    assert found.draws["x"].shape == (400, 20, 12)
    s = 2.0 * SPINS - 1.0
    law = normalised((s[:, 1:] * s[:, :-1]) @ EDGES)
    agrees(found.draws["x"], law, SPINS)
    assert len(found.superchains) == 400


def test_diagnosis_and_evaluators(dg, programs):
    means = np.array([-1.0, 1.0], "float32")
    y = Y[4:16]
    found = dg.mcmc(programs.assignments, y, WEIGHTS, means, kernel="gibbs", seed=12, **SHORT)
    diagnosis = found.diagnose()
    assert diagnosis.ok, str(diagnosis)
    assert found.evaluate("posterior_predictive")["y"].shape == (64, 300, len(y))
    assert np.isfinite(found.evaluate("log_prior")["z"]).all()


def test_bad_input(dg, programs):
    y = np.ones(3, "float32")
    short = {"num_warmup": 5, "num_samples": 5, "progress": False}
    with pytest.raises(ValueError, match=r"'count'.*finite support.*Categorical"):
        dg.mcmc(programs.shots, y[0], kernel="gibbs", **short)
    with pytest.raises(ValueError, match=r"the model has none .*'mean'.*chees"):
        dg.mcmc(programs.nothing_discrete, y, kernel="gibbs_with_gradients", **short)
    with pytest.raises(ValueError, match="'gibbs_with_gradients'"):
        dg.mcmc(programs.chain, EDGES, kernel="nuts", **short)
    with pytest.raises(ValueError, match=r"100 tries.*'wall'"):
        dg.mcmc(programs.impossible, y, kernel="gibbs", **short)
    with pytest.raises(ValueError, match="continuous"):
        dg.mcmc(programs.chain, EDGES, kernel=dg.Gibbs(continuous="gibbs"), **short)
    means, gradient = np.zeros(2, "float32"), dg.GibbsWithGradients(differences="gradient")
    with pytest.raises(ValueError, match=r"takes no real numbers .*differences='exact'"):
        dg.mcmc(programs.assignments, y, WEIGHTS, means, kernel=gradient, **short)
    with pytest.raises(ValueError, match="scan"):
        dg.Gibbs(scan="sideways")
    with pytest.raises(ValueError, match="differences"):
        dg.GibbsWithGradients(differences="none")
    with pytest.raises(ValueError, match="num_discrete_steps"):
        dg.Gibbs(num_discrete_steps=0)
    with pytest.raises(ValueError, match=r"step_sizes must be one or more positive .*0.5, -1.0"):
        dg.DiscreteLangevin(step_sizes=(0.5, -1))
