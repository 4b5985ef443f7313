"""Vectorised samplers: the right law, every statistic, warm starts, and no silent failure."""

import importlib
from functools import partial

import numpy as np
import pytest
from scipy import special, stats

RNG = np.random.default_rng(1)
Y = RNG.normal(1.0, 1.0, 20).astype("float32")
WAITS = RNG.exponential(0.5, 6).astype("float32")
SHORT = {"num_warmup": 120, "num_samples": 100, "progress": False}
EXACT = stats.norm(Y.sum() / 21, 21**-0.5)
KERNELS = ("chees", "mala", "rwm")
STATS = {"lp", "diverging", "energy", "n_steps", "acceptance_rate", "step_size"}


def close(draws, mean):
    """Whether the mean of draws (chain, draw) is this, within five of its Monte Carlo errors."""
    from arviz_stats.base import array_stats

    error = draws.std() / np.sqrt(float(array_stats.ess(np.asarray(draws, float))))
    return abs(draws.mean() - mean) < 5 * error


@pytest.fixture(scope="module")
def posterior(dg, zoo):
    """64 chains on a posterior of known law."""
    return dg.mcmc(zoo.normal_mean, Y, kernel="chees", **SHORT)


@pytest.mark.parametrize("kernel", KERNELS)
def test_draws_have_the_law_of_the_posterior(dg, zoo, kernel):
    found = dg.mcmc(zoo.normal_mean, Y, kernel=kernel, **{**SHORT, "num_samples": 300})
    draws = found.draws["mean"]
    assert draws.shape == (64, 300)
    assert close(draws, EXACT.mean())
    assert close((draws - EXACT.mean()) ** 2, EXACT.var())
    assert set(found.stats) == STATS
    assert found.attrs["mixed"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_skewed_posterior_on_a_bounded_support(dg, zoo, kernel):
    found = dg.mcmc(zoo.waiting, WAITS, kernel=kernel, **{**SHORT, "num_samples": 300})
    shape, rate = 2 + len(WAITS), 1 + WAITS.sum()  # of the Gamma posterior
    assert close(found.draws["rate"], shape / rate)
    assert close(np.log(found.draws["rate"]), special.digamma(shape) - np.log(rate))


def test_statistics(posterior):
    found = posterior.stats
    lp = stats.norm.logpdf(posterior.draws["mean"])
    lp += stats.norm.logpdf(Y[:, None, None], posterior.draws["mean"]).sum(0)
    np.testing.assert_allclose(found["lp"], lp, rtol=1e-4)
    assert found["diverging"].dtype == bool
    assert np.all(found["n_steps"] >= 1)
    assert np.all((found["acceptance_rate"] >= 0) & (found["acceptance_rate"] <= 1))
    assert 0.6 < found["acceptance_rate"].mean() < 0.95  # adapted to 0.8
    assert len(np.unique(found["step_size"])) == 1


def test_diagnosis_is_that_of_many_chains(posterior):
    assert posterior.superchains.shape == (64,)
    assert posterior.diagnose().ok
    assert any("nested" in check.name for check in posterior.diagnose().checks)


def test_deterministic_sites_and_plates(dg, zoo):
    x = np.linspace(0, 1, 5).astype("float32")
    found = dg.mcmc(zoo.line, x, 2 * x, kernel="chees", **SHORT)
    np.testing.assert_allclose(found.draws["mu"], found.draws["slope"][..., None] * x, rtol=1e-5)
    assert found.to_datatree(groups=()).posterior["mu"].dims == ("chain", "draw", "data")


def test_thinning_keeps_every_third_step(dg, zoo, posterior):
    found = dg.mcmc(zoo.normal_mean, Y, kernel="chees", thinning=3, **SHORT)
    np.testing.assert_array_equal(found.draws["mean"], posterior.draws["mean"][:, 2::3][:, :33])


def test_discrete_sites_are_summed_out(dg, zoo):
    sure = np.array([-3.5, 5.2] * 10, "float32")  # the coins are beyond doubt
    found = dg.mcmc(zoo.two_coins, sure, kernel="chees", **SHORT)
    assert set(found.draws) == {"shift"}
    assert close(found.draws["shift"], (sure - np.where(sure > 0, 9.0, 0.0) + 4.0).sum() / 21)


def test_learned_parameters(dg, zoo):
    x = np.array([1.0, 2.0], "float32")
    found = dg.mcmc(zoo.decoder, x, kernel="chees", params={"weight": 2.0, "bias": 1.0}, **SHORT)
    for i in range(2):  # z_i | x_i ~ N(2 (x_i - 1) / 5, 1 / 5)
        assert close(found.draws["z"][..., i], 2 * (x[i] - 1) / 5)


def test_seeds(dg, zoo, posterior):
    same, other = (
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", seed=seed, **SHORT).draws["mean"]
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(same, posterior.draws["mean"])
    assert not np.array_equal(other, posterior.draws["mean"])
    assert len(np.unique(same[:, -1])) > 60  # chains have random numbers of their own


def test_progress_is_shown(dg, zoo, capsys):
    dg.mcmc(zoo.normal_mean, Y, kernel="chees", **{**SHORT, "progress": True})
    assert "100%" in capsys.readouterr().err


def test_options_of_kernels(dg, zoo):
    for kernel in (dg.ChEES(max_num_steps=3), dg.ChEES, partial(dg.ChEES, max_num_steps=3)):
        found = dg.mcmc(zoo.normal_mean, Y, kernel=kernel, **SHORT)
        assert found.attrs["kernel"] == "ChEES"
        assert close(found.draws["mean"], EXACT.mean())
    assert found.stats["n_steps"].max() <= 3
    small = dg.mcmc(zoo.normal_mean, Y, kernel="chees", target_accept_prob=0.98, **SHORT)
    assert small.stats["step_size"].max() < found.stats["step_size"].min()
    diagonal = dg.mcmc(zoo.normal_mean, Y, kernel=dg.MALA(dense=False), **SHORT)
    assert diagonal.adaptation["root"].shape == (1,)


def test_auto_says_why(dg, zoo):
    found = dg.mcmc(zoo.normal_mean, Y, kernel="auto", **SHORT)
    assert found.attrs["kernel"] == "ChEES"
    assert found.attrs["kernel_reason"].startswith("chees: ")
    few = dg.mcmc(zoo.normal_mean, Y, kernel="auto", num_chains=2, **SHORT)
    assert few.attrs["kernel"] == "NUTS"
    assert "2 chains are too few" in few.attrs["kernel_reason"]


def test_adaptation_is_taken_over(dg, zoo, posterior):
    known = posterior.adaptation
    assert set(known) == {"step_size", "root", "trajectory_length"}
    np.testing.assert_allclose(known["root"], [[EXACT.std()]], rtol=0.2)
    options = {**SHORT, "num_warmup": 0, "init": posterior, "adaptation": known}
    found = dg.mcmc(zoo.normal_mean, Y, kernel="chees", **options)
    np.testing.assert_allclose(found.stats["step_size"], known["step_size"], rtol=1e-5)
    assert close(found.draws["mean"], EXACT.mean())
    x = np.ones((4, 2), "float32")
    with pytest.raises(ValueError, match=r"adaptation is that of another model.*2 unconstrained"):
        dg.mcmc(zoo.regression, x, x[:, 0], kernel="chees", adaptation=known, **SHORT)
    with pytest.raises(ValueError, match=r"no step_size"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", adaptation={"root": known["root"]}, **SHORT)
    with pytest.raises(ValueError, match=r"adaptation= is for vectorised kernels"):
        dg.mcmc(zoo.normal_mean, Y, kernel="nuts", adaptation=known, **SHORT)


@pytest.mark.filterwarnings("ignore:The 8 chains of RWM have not mixed")
def test_chains_start_from_draws(dg, zoo, posterior):
    options = {"num_warmup": 0, "num_samples": 4, "progress": False, "num_chains": 8}
    still = dg.RWM(step_size=1e-6)
    found = dg.mcmc(zoo.normal_mean, Y, kernel=still, init=posterior, **options)
    starts = posterior.draws["mean"].ravel()
    nearest = np.abs(found.draws["mean"][:, 0, None] - starts).min(1)
    assert nearest.max() < 1e-4
    with pytest.raises(ValueError, match=r"init is of another model: the latent site 'rate'"):
        dg.mcmc(zoo.waiting, WAITS, kernel="chees", init=posterior, **SHORT)
    with pytest.raises(TypeError, match=r"init must be a Posterior or a Fit, not dict"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", init={}, **SHORT)


def test_fits_start_and_precondition_chains(dg, zoo):
    fit = dg.svi(zoo.normal_mean, zoo.auto_full(zoo.normal_mean), Y, num_steps=200, progress=False)
    for kernel in ("chees", "mala"):
        found = dg.mcmc(zoo.normal_mean, Y, kernel=kernel, neutra=fit, init=fit, **SHORT)
        assert set(found.draws) == {"mean"}
        assert close(found.draws["mean"], EXACT.mean())
    plain = dg.svi(
        zoo.normal_mean, zoo.auto_normal(zoo.normal_mean), Y, num_steps=2, progress=False
    )
    with pytest.raises(TypeError, match=r"autoguide with a transform.*not AutoNormal"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", neutra=plain, **SHORT)


@pytest.mark.filterwarnings("ignore:The draws of Langevin")
def test_unadjusted_langevin_is_close_and_says_that_it_is_biased(dg, zoo):
    with pytest.warns(UserWarning, match=r"draws of Langevin are biased"):
        found = dg.mcmc(zoo.normal_mean, Y, kernel="langevin", **{**SHORT, "num_samples": 300})
    draws = found.draws["mean"]
    assert close(draws, EXACT.mean())  # a normal keeps its mean under it
    assert EXACT.var() < draws.var() < 2 * EXACT.var()  # and not its variance
    assert found.attrs["biased"]


def test_chains_that_have_not_mixed_are_told_of(dg, zoo):
    with pytest.warns(UserWarning, match=r"have not mixed.*R-hat.*site 'where'.*Do not trust"):
        found = dg.mcmc(zoo.two_modes, np.zeros(1, "float32"), kernel="chees", **SHORT)
    assert not found.attrs["mixed"]
    assert not found.diagnose().ok
    crossings = np.diff(np.sign(found.draws["where"]), axis=1) != 0
    assert not crossings.any()  # single chains never cross
    with pytest.warns(UserWarning, match=r"3 draws of each chain are too few"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", **{**SHORT, "num_samples": 3})
    stuck = dg.RWM(step_size=1e-30)
    with pytest.warns(UserWarning, match=r"64 of the chains never moved"):
        dg.mcmc(zoo.normal_mean, Y, kernel=stuck, **{**SHORT, "num_warmup": 0})


def test_bad_options(dg, zoo):
    with pytest.raises(ValueError, match=r"max_num_steps must be a positive number, got 0"):
        dg.ChEES(max_num_steps=0)
    with pytest.raises(ValueError, match=r"trajectory_lengths is empty"):
        dg.ChEES(trajectory_lengths=())
    with pytest.raises(ValueError, match=r"target_accept_prob must lie between 0 and 1, got 1.5"):
        dg.mcmc(zoo.normal_mean, Y, kernel="mala", target_accept_prob=1.5, **SHORT)
    with pytest.raises(ValueError, match=r"RWM has no option 'depth'"):
        dg.mcmc(zoo.normal_mean, Y, kernel=partial(dg.RWM, depth=3), **SHORT)
    with pytest.raises(ValueError, match=r"chain_method must be 'auto' or 'vectorized'"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", chain_method="sequential", **SHORT)
    with pytest.raises(ValueError, match=r"Unknown kernel 'chess'.*'chees'"):
        dg.mcmc(zoo.normal_mean, Y, kernel="chess", **SHORT)


def test_bad_models(dg, zoo, wing, monkeypatch):
    with pytest.raises(ValueError, match=r"Plate 'data' subsamples"):
        dg.mcmc(zoo.subsampling, Y, kernel="chees", **SHORT)
    if wing == "pyro":  # which sees the values of the data, unless validation is off
        from torch.distributions import Distribution

        monkeypatch.setattr(Distribution, "_validate_args", False)
    with pytest.raises(ValueError, match=r"No starting point of finite density.*site 'y' is"):
        dg.mcmc(zoo.positive, -np.abs(Y), kernel="chees", **SHORT)


def test_nothing_of_the_users_changes(dg, zoo, wing):
    if wing == "numpyro":
        state = np.random.get_state()[1].copy()
        dg.mcmc(zoo.normal_mean, Y, kernel="chees", **SHORT)
        np.testing.assert_array_equal(np.random.get_state()[1], state)
        return
    import pyro
    import torch
    from torch.distributions import Distribution

    pyro.clear_param_store()
    pyro.get_param_store()["mine"] = torch.ones(2)
    before, flag = torch.get_rng_state(), Distribution._validate_args
    dg.mcmc(zoo.normal_mean, Y, kernel="chees", **SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert Distribution._validate_args == flag
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


@pytest.mark.parametrize("kernel", ["hmc", "mala", "rwm"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_step_keeps_exact_draws_exact(wing, kernel, preconditioned):
    """Positions log Gamma(3) in each of two dimensions, energy e^z - 3 z: skewed."""
    advance = {"numpyro": _advance_numpyro, "pyro": _advance_pyro}[wing]
    exact = np.log(np.random.default_rng(3).gamma(3.0, size=(40_000, 2)))
    root = np.array([[0.7, 0.0], [0.3, 0.5]]) if preconditioned else None
    size = {"hmc": 0.8, "mala": 1.0, "rwm": 1.0}[kernel]
    moved, rate = advance(kernel, exact, root, size)
    assert 0.3 < rate < 0.97  # some proposals are rejected, so that the test has something to see
    assert not np.array_equal(moved, exact)
    for value, mean in ((moved, special.digamma(3.0)), (np.exp(moved), 3.0)):
        error = value.std(0) / np.sqrt(len(value))
        assert np.all(np.abs(value.mean(0) - mean) < 5 * error)
    product = (moved[:, 0] - special.digamma(3.0)) * (moved[:, 1] - special.digamma(3.0))
    assert abs(product.mean()) < 5 * product.std() / np.sqrt(len(product))


def _advance_numpyro(kernel, start, root, size):
    import jax.numpy as jnp
    from jax import random

    kernels = importlib.import_module("deepgen_ppl.numpyro.kernels.hmc")
    rwm = importlib.import_module("deepgen_ppl.numpyro.kernels.rwm")

    def energy(z):
        return (jnp.exp(z) - 3.0 * z).sum(-1), jnp.exp(z) - 3.0

    state = kernels.init(jnp.asarray(start, jnp.float32), energy)
    options = {"step_size": size, "root": None if root is None else jnp.asarray(root, jnp.float32)}
    if kernel == "rwm":
        state, info = rwm.step(random.key(0), state, energy, **options)
    else:
        num = {"hmc": 3, "mala": 1}[kernel]
        state, info = kernels.step(random.key(0), state, energy, num_steps=num, **options)
    return np.asarray(state.position, float), float(info.acceptance.mean())


def _advance_pyro(kernel, start, root, size):
    import torch

    kernels = importlib.import_module("deepgen_ppl.pyro.kernels.hmc")
    rwm = importlib.import_module("deepgen_ppl.pyro.kernels.rwm")

    def energy(z):
        return (z.exp() - 3.0 * z).sum(-1), z.exp() - 3.0

    generator = torch.Generator().manual_seed(0)
    state = kernels.init(torch.as_tensor(start, dtype=torch.float32), energy)
    root = None if root is None else torch.as_tensor(root, dtype=torch.float32)
    options = {"step_size": size, "root": root}
    if kernel == "rwm":
        state, info = rwm.step(generator, state, energy, **options)
    else:
        num = {"hmc": 3, "mala": 1}[kernel]
        state, info = kernels.step(generator, state, energy, num_steps=num, **options)
    return state.position.numpy().astype(float), float(info.acceptance.mean())
