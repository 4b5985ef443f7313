"""Parallel tempering: modes that no single chain crosses between, the ladder, and bad input."""

import importlib
import importlib.util
import itertools

import numpy as np
import pytest

SEEN = np.zeros(1, "float32")
OPTIONS = {"num_warmup": 200, "num_samples": 300, "num_chains": 16, "progress": False}


def error(draws):
    """Monte Carlo standard error of the mean of draws (chain, draw)."""
    from arviz_stats.base import array_stats

    return draws.std() / np.sqrt(float(array_stats.ess(np.asarray(draws, float))))


def close(draws, mean):
    """Whether the mean of draws (chain, draw) is this, within five of its Monte Carlo errors."""
    return abs(draws.mean() - mean) < 5 * error(draws)


@pytest.fixture(scope="module")
def tempering(wing):
    """The kernel of the wing."""
    name = f"deepgen_ppl.{wing}.kernels.tempering"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the {wing} wing has no parallel tempering")
    return importlib.import_module(name).ParallelTempering


@pytest.mark.parametrize("kernel", ["chees", "mala", "rwm"])
def test_both_modes_have_their_weight(dg, zoo, tempering, kernel):
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(kernel), **OPTIONS)
    where = found.draws["where"]
    above = where > 0
    assert close(above.astype(float), 0.75)
    mean, sd = 8.0 * 16.0 / 16.25, (16.0 * 0.25 / 16.25) ** 0.5  # N(0, 4) seen with error 1/2
    assert close(np.where(above, where - mean, -where - mean), 0.0)
    assert close(np.where(above, where - mean, -where - mean) ** 2, sd**2)
    crossings = np.diff(above, axis=1).sum(1)
    assert crossings.min() >= 1  # each chain is in both; single ones never leave theirs
    assert found.attrs["mixed"]


def test_the_ladder(dg, zoo, tempering):
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=tempering("mala", num_temperatures=5), **OPTIONS)
    betas, rates = found.attrs["temperatures"], found.attrs["swap_acceptance"]
    assert betas.shape == (5,) and rates.shape == (4,)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and np.all(np.diff(betas) > 0)
    assert np.all(rates > 0.2) and np.ptp(rates) < 0.2  # neighbours reject about equally often
    assert set(found.stats) >= {"lp", "acceptance_rate", "step_size"}


def test_a_guide_of_one_mode_hides_no_other(dg, zoo, tempering):
    """Its coordinates are walked in, and the ladder goes from the prior as ever."""
    guide = zoo.auto_full(zoo.two_modes)
    adam = zoo.adam(0.05)
    fit = dg.svi(zoo.two_modes, guide, SEEN, num_steps=400, optim=adam, progress=False)
    start = fit.posterior(SEEN, num_samples=500)
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=tempering("mala"), neutra=fit, **OPTIONS)
    above = found.draws["where"] > 0
    assert close(above.astype(float), 0.75)
    assert np.diff(above, axis=1).sum(1).min() >= 1
    side = np.sign(start.draws["where"]).flat[0]
    assert (np.sign(start.draws["where"]) == side).all()  # what the guide alone has seen
    two = tempering("mala", num_temperatures=2)  # the prior's draws are hardly ever taken
    options = {**OPTIONS, "num_warmup": 0, "num_samples": 4, "neutra": fit, "init": start}
    with pytest.warns(UserWarning, match="have not mixed"):
        again = dg.mcmc(zoo.two_modes, SEEN, kernel=two, **options)
    assert np.mean(np.sign(again.draws["where"][:, 0]) == side) > 0.8  # where they set out from


def test_bad_ladders(dg, zoo, tempering):
    with pytest.raises(ValueError, match=r"num_temperatures must be at least 2, got 1"):
        tempering(num_temperatures=1)
    for kernel in ("nuts", "langevin", tempering()):
        with pytest.raises(ValueError, match=r"ParallelTempering cannot wrap.*'chees'"):
            dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(kernel), **OPTIONS)
    with pytest.raises(ValueError, match=r"'step_size'.*of a posterior that it drew itself"):
        known = {"step_size": np.array(0.1)}
        dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(), adaptation=known, **OPTIONS)
    known = {"temperatures": np.arange(3.0), "step_sizes": np.ones(3), "roots": np.ones((3, 1, 1))}
    with pytest.raises(ValueError, match=r"temperatures have shape \(3,\).*has 8 temperatures"):
        dg.mcmc(zoo.two_modes, SEEN, kernel=tempering(), adaptation=known, **OPTIONS)


def test_a_ladder_is_used_again(dg, zoo, tempering):
    kernel = tempering("mala", num_temperatures=5)
    found = dg.mcmc(zoo.two_modes, SEEN, kernel=kernel, **OPTIONS)
    known = {"init": found, "adaptation": found.adaptation, "num_warmup": 0, "num_samples": 900}
    again = dg.mcmc(zoo.two_modes, SEEN, kernel=kernel, **{**OPTIONS, **known})
    np.testing.assert_allclose(again.attrs["temperatures"], found.attrs["temperatures"])
    assert close((again.draws["where"] > 0).astype(float), 0.75)
    assert np.diff(again.draws["where"] > 0, axis=1).sum(1).min() >= 1


# ------------------------------------------------------------------------------- discrete latents

FIELD = (np.random.default_rng(3).normal(size=10) * 0.1).astype("float32")
COUPLING = np.triu(np.full((10, 10), 0.5, "float32"), 1)  # all spins up, or all down
SPINS = np.array(list(itertools.product((0, 1), repeat=10)))


@pytest.fixture(scope="module")
def programs(wing):
    """Programs of discrete latents in the wing's language."""
    return importlib.import_module(f"{__package__}.discrete_{wing}")


def test_magnets_turn_over(dg, programs, tempering):
    s = 2.0 * SPINS - 1.0
    energy = np.einsum("ni,ij,nj->n", s, COUPLING, s) + s @ FIELD
    law = np.exp(energy - energy.max())
    law /= law.sum()
    options = {**OPTIONS, "num_samples": 600}
    found = dg.mcmc(programs.ising, COUPLING, FIELD, kernel=tempering("gibbs"), **options)
    assert found.draws["x"].shape == (16, 600, 10) and found.draws["x"].dtype.kind == "i"
    up = found.draws["x"].sum(-1) > 5
    assert close(up.astype(float), law[SPINS.sum(1) > 5].sum())
    assert close(found.draws["x"][..., 0].astype(float), (law * SPINS[:, 0]).sum())
    turned = np.diff(up, axis=1).sum(1)
    assert turned.min() >= 1  # single chains stay as they are: some 10,000 sweeps to turn over
    assert found.attrs["mixed"] and found.attrs["num_blocks"] == 10
    lp = energy[(found.draws["x"] * 2 ** np.arange(9, -1, -1)).sum(-1)] + 10 * np.log(0.5)
    np.testing.assert_allclose(found.stats["lp"], lp, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_mixed_programs_are_tempered_too(dg, programs, tempering):
    y = np.array([-3.1, -2.2, -2.6, 2.0, 2.4, 3.3, 1.8, 2.9], "float32")
    weights = np.array([0.4, 0.6], "float32")
    summed = dg.mcmc(programs.mixture, y, weights, kernel="chees", seed=4, **OPTIONS)
    found = dg.mcmc(programs.mixture, y, weights, kernel=tempering("gibbs"), **OPTIONS)
    assert found.draws["z"].shape == (16, 300, 8) and found.attrs["num_blocks"] == 1
    for name in ("low", "gap"):
        for power in (1, 2):
            one, other = (draws.draws[name] ** power for draws in (found, summed))
            assert abs(one.mean() - other.mean()) < 5 * np.hypot(error(one), error(other))
    assert found.evaluate("posterior_predictive")["y"].shape == (16, 300, 8)


def test_bad_ladders_of_discrete_latents(dg, zoo, programs, tempering):
    with pytest.raises(ValueError, match=r"the model has none"):
        dg.mcmc(zoo.two_modes, SEEN, kernel=tempering("gibbs"), **OPTIONS)
    with pytest.raises(ValueError, match=r"ParallelTempering cannot wrap 'gibbs_with_gradients'"):
        kernel = tempering("gibbs_with_gradients")
        dg.mcmc(programs.ising, COUPLING, FIELD, kernel=kernel, **OPTIONS)
    with pytest.raises(TypeError, match="init must be a Posterior"):
        kernel = tempering("gibbs")
        dg.mcmc(programs.ising, COUPLING, FIELD, kernel=kernel, init=3.0, **OPTIONS)
