"""`mcmc`: the right posterior, every statistic, the languages' kernels, bad input, interruption."""

import _thread
import importlib
import threading
from functools import partial

import numpy as np
import pytest
from scipy import stats

RNG = np.random.default_rng(1)
Y = RNG.normal(1.0, 1.0, 20).astype("float32")
SHORT = {"num_warmup": 100, "num_samples": 100, "num_chains": 2, "progress": False}
STATS = {"lp", "diverging", "energy", "n_steps", "acceptance_rate", "step_size"}


def close(draws, mean):
    """Whether the mean of draws (chain, draw) is this, within five of its Monte Carlo errors."""
    from arviz_stats.base import array_stats

    error = draws.std() / np.sqrt(float(array_stats.ess(np.asarray(draws, float))))
    return abs(draws.mean() - mean) < 5 * error


@pytest.fixture(scope="module")
def kernels(wing):
    """The kernels of the wing's language."""
    return importlib.import_module(f"{wing}.infer")


@pytest.fixture(scope="module")
def posterior(dg, zoo):
    """A posterior of known law: N(sum y / 21, 1 / 21)."""
    return dg.mcmc(
        zoo.normal_mean, Y, num_warmup=300, num_samples=1000, num_chains=2, progress=False
    )


def test_conjugate_posterior(posterior):
    draws = posterior.draws["mean"]
    exact = stats.norm(Y.sum() / 21, 21**-0.5)
    assert draws.shape == (2, 1000)
    assert close(draws, exact.mean())
    assert close((draws - exact.mean()) ** 2, exact.var())
    assert posterior.diagnose().ok


def test_statistics(posterior):
    assert set(posterior.stats) == STATS | {"tree_depth"}
    found = posterior.stats
    lp = stats.norm.logpdf(posterior.draws["mean"])
    lp += stats.norm.logpdf(Y[:, None, None], posterior.draws["mean"]).sum(0)
    np.testing.assert_allclose(found["lp"], lp, rtol=1e-4)
    assert np.all(found["energy"] >= -found["lp"] - 1e-3)  # kinetic energy is positive
    assert found["diverging"].dtype == bool
    assert np.all(found["n_steps"] < 2.0 ** found["tree_depth"])
    assert np.all((found["acceptance_rate"] > 0) & (found["acceptance_rate"] <= 1))
    assert len(np.unique(found["step_size"][0])) == 1


def test_deterministic_sites_and_plates(dg, zoo):
    x = np.linspace(0, 1, 5).astype("float32")
    found = dg.mcmc(zoo.line, x, 2 * x, **SHORT)
    np.testing.assert_allclose(found.draws["mu"], found.draws["slope"][..., None] * x, rtol=1e-5)
    assert found.to_datatree(groups=()).posterior["mu"].dims == ("chain", "draw", "data")


def test_thinning_keeps_every_third_step(dg, zoo):
    assert dg.mcmc(zoo.normal_mean, Y, thinning=3, **SHORT).draws["mean"].shape == (2, 33)


def test_discrete_sites_are_summed_out(dg, zoo):
    sure = np.array([-3.5, 5.2] * 10, "float32")  # the coins are beyond doubt
    found = dg.mcmc(zoo.two_coins, sure, **SHORT)
    assert set(found.draws) == {"shift"}
    exact = (sure - np.where(sure > 0, 9.0, 0.0) + 4.0).sum() / 21
    assert close(found.draws["shift"], exact)


def test_kernels(dg, zoo, kernels, wing):
    dense = {"numpyro": "dense_mass", "pyro": "full_mass"}[wing]
    for kernel in (
        "hmc",
        kernels.HMC,
        partial(kernels.NUTS, max_tree_depth=4, **{dense: True}),
        partial(kernels.NUTS, **{dense: [("mean",)]}),
    ):
        found = dg.mcmc(zoo.normal_mean, Y, kernel=kernel, **SHORT)
        assert close(found.draws["mean"], Y.sum() / 21)
        assert set(found.stats) >= STATS


def test_target_acceptance_makes_steps_smaller(dg, zoo):
    """Of two runs that are one and the same but for the target."""
    usual = dg.mcmc(zoo.normal_mean, Y, **SHORT).stats
    strict = dg.mcmc(zoo.normal_mean, Y, target_accept_prob=0.99, **SHORT).stats
    assert strict["step_size"].mean() < 0.9 * usual["step_size"].mean()
    assert strict["acceptance_rate"].mean() > usual["acceptance_rate"].mean()


def test_starting_strategy(dg, zoo, kernels, wing):
    where = {"numpyro": "initialization", "pyro": "autoguide.initialization"}[wing]
    start = importlib.import_module(f"{wing}.infer.{where}").init_to_value
    still = partial(kernels.HMC, step_size=1e-6, trajectory_length=1e-5, adapt_step_size=False)
    values = {"mean": importlib.import_module("numpy").float32(3.0)}
    if wing == "pyro":
        values = {"mean": importlib.import_module("torch").tensor(3.0)}
    options = {**SHORT, "num_warmup": 0, "num_samples": 5}
    found = dg.mcmc(zoo.normal_mean, Y, kernel=still, init_strategy=start(values=values), **options)
    np.testing.assert_allclose(found.draws["mean"], 3.0, atol=1e-3)


def test_learned_parameters(dg, zoo):
    x = np.array([1.0, 2.0], "float32")
    found = dg.mcmc(zoo.decoder, x, params={"weight": 2.0, "bias": 1.0}, **SHORT)
    for i in range(2):  # z_i | x_i ~ N(2 (x_i - 1) / 5, 1 / 5)
        assert close(found.draws["z"][..., i], 2 * (x[i] - 1) / 5)
    with pytest.raises(ValueError, match=r"(?i)no learned value.*'weight'"):
        dg.mcmc(zoo.decoder, x, **SHORT)


def test_seeds(dg, zoo):
    first, second, third = (
        dg.mcmc(zoo.normal_mean, Y, seed=seed, **SHORT).draws["mean"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    assert not np.array_equal(first[0], first[1])


def test_progress_is_shown(dg, zoo, capsys):
    dg.mcmc(zoo.normal_mean, Y, **{**SHORT, "progress": True})
    shown = capsys.readouterr().err
    assert "400/400" in shown and "divergences" in shown


# where Ctrl-C falls into a callback of the garbage collector, Python drops it, and warns
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_run_returns_control(dg, zoo):
    before = dg.mcmc(zoo.normal_mean, Y, **SHORT).draws["mean"]
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        dg.mcmc(zoo.normal_mean, Y, **{**SHORT, "num_samples": 10**5})
    timer.join()
    np.testing.assert_array_equal(dg.mcmc(zoo.normal_mean, Y, **SHORT).draws["mean"], before)


def test_bad_kernels(dg, zoo, kernels):
    with pytest.raises(TypeError, match=r"instance of NUTS, which is bound.*partial\(NUTS"):
        dg.mcmc(zoo.normal_mean, Y, kernel=kernels.NUTS(zoo.normal_mean), **SHORT)
    with pytest.raises(ValueError, match=r"Unknown kernel 'gibs'"):
        dg.mcmc(zoo.normal_mean, Y, kernel="gibs", **SHORT)
    with pytest.raises(ValueError, match=r"NUTS has no option 'depth'"):
        dg.mcmc(zoo.normal_mean, Y, kernel=partial(kernels.NUTS, depth=3), **SHORT)
    with pytest.raises(TypeError, match=r"options by name only"):
        dg.mcmc(zoo.normal_mean, Y, kernel=partial(kernels.NUTS, zoo.normal_mean), **SHORT)


def test_bad_counts(dg, zoo):
    for name in ("num_warmup", "num_samples", "num_chains", "thinning"):
        with pytest.raises(ValueError, match=rf"{name} must be a whole number.* -1"):
            dg.mcmc(zoo.normal_mean, Y, **{**SHORT, name: -1})
    with pytest.raises(ValueError, match=r"thinning=200 keeps no draw of num_samples=100"):
        dg.mcmc(zoo.normal_mean, Y, thinning=200, **SHORT)
    with pytest.raises(ValueError, match=r"chain_method must be"):
        dg.mcmc(zoo.normal_mean, Y, chain_method="pmap", **SHORT)


def test_bad_models_and_data(dg, zoo, wing, monkeypatch):
    with pytest.raises(ValueError, match=r"needs a continuous latent site.*'b'"):
        dg.mcmc(zoo.hidden_coins, Y, **SHORT)
    with pytest.raises(ValueError, match=r"Plate 'data' subsamples"):
        dg.mcmc(zoo.subsampling, Y, **SHORT)
    with pytest.raises(ValueError, match=r"'y' holds NaN in 1 of 20 rows: 3"):
        dg.mcmc(zoo.normal_mean, np.where(np.arange(20) == 3, np.nan, Y), **SHORT)
    if wing == "pyro":  # which sees the values of the data, unless validation is off
        with pytest.raises(ValueError, match=r"data of site 'y' are outside its support"):
            dg.mcmc(zoo.positive, -np.abs(Y), **SHORT)
        from torch.distributions import Distribution

        monkeypatch.setattr(Distribution, "_validate_args", False)
    with pytest.raises(ValueError, match=r"No starting point of finite density.*site 'y' is"):
        dg.mcmc(zoo.positive, -np.abs(Y), **SHORT)


def test_second_run_compiles_nothing(dg, zoo, wing):
    if wing == "pyro":
        pytest.skip("Pyro's kernels run eagerly on a traced gradient: there is nothing to keep")
    import jax

    compiled: list[str] = []

    def note(event: str, _: float, **about: object) -> None:
        compiled.append(event) if "backend_compile" in event else None

    jax.monitoring.register_event_duration_secs_listener(note)
    weights = np.array([0.0, 1.0], "float32")
    model = partial(zoo.scaled_prior, weights)
    first = dg.mcmc(model, Y, **SHORT)
    assert compiled
    compiled.clear()
    again = dg.mcmc(partial(zoo.scaled_prior, weights + 1), Y + 1, seed=7, **SHORT)
    assert not compiled
    assert again.draws["mean"].mean() > first.draws["mean"].mean() + 0.5
    for chain_method in ("sequential", "parallel"):
        same = dg.mcmc(model, Y, chain_method=chain_method, **SHORT)
        np.testing.assert_array_equal(same.draws["mean"], first.draws["mean"])
    assert not compiled


def test_values_of_unknown_parameters_are_refused(dg, zoo):
    x = np.zeros(4, "float32")
    with pytest.raises(ValueError, match=r"params holds 'weigth', which the model lacks .*'bias'"):
        dg.mcmc(zoo.decoder, x, params={"weight": 2.0, "bias": 1.0, "weigth": 2.0}, **SHORT)


def test_vectorized_chains(dg, zoo, wing):
    if wing == "pyro":
        pytest.skip("Pyro's kernels move one chain at a time")
    found = dg.mcmc(zoo.normal_mean, Y, chain_method="vectorized", **SHORT)
    assert close(found.draws["mean"], Y.sum() / 21)


def test_compiled_functions_die_with_the_program(dg, wing):
    if wing == "pyro":
        pytest.skip("the Pyro wing keeps no compiled chains")
    import gc
    import weakref

    import numpyro
    import numpyro.distributions as dist

    def model():
        numpyro.sample("a", dist.Normal(0.0, 1.0))

    alive = weakref.ref(model)
    dg.mcmc(model, **{**SHORT, "num_chains": 1})
    del model
    gc.collect()
    assert alive() is None
