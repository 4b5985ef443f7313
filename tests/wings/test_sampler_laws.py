"""Laws of vectorised kernels: a step keeps its target, draws have closed forms, spaces are bent."""

import importlib
from functools import partial

import numpy as np
import pytest
from arviz_stats.base import array_stats

RNG = np.random.default_rng(0)
Y = RNG.normal(1.0, 1.0, 20).astype("float32")
ROOT = np.linalg.cholesky(np.array([[4.0, 1.9, 0.0], [1.9, 1.0, 0.1], [0.0, 0.1, 9.0]]))
FLIPS = (np.arange(30) < 11).astype("float32")
QUICK = {"num_warmup": 240, "num_samples": 250, "num_chains": 32, "progress": False}
KERNELS = {"chees": {}, "mala": {"num_samples": 1000}, "rwm": {"num_samples": 3000}}


@pytest.fixture(scope="module")
def programs(wing):
    """The programs and steps of `samplers_<wing>.py`."""
    return importlib.import_module(f"tests.wings.samplers_{wing}")


def check_mean(draws, expected):
    """Draws (chain, draw) have this mean, within five of their Monte Carlo errors."""
    draws = np.asarray(draws, float)
    error = draws.std() / np.sqrt(float(np.asarray(array_stats.ess(draws, method="mean"))))
    assert abs(draws.mean() - expected) < 5 * error, (draws.mean(), expected, error)


def check_moments(draws, mean, variance):
    """Draws (chain, draw) have this mean and variance."""
    check_mean(draws, mean)
    check_mean((np.asarray(draws, float) - mean) ** 2, variance)


# ------------------------------------------------------------------------------- laws of a step

STEPS = {
    "hmc": {"step_size": 0.5, "num_steps": 4},
    "chees": {"step_size": 0.4, "trajectory_length": 1.1},
    "rwm": {"step_size": 1.5},
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_leaves_the_target_as_it_is(programs, name):
    exact = np.random.default_rng(1).gumbel(size=(40_000, 2)).astype("float32")
    found, acceptance = programs.step(name, exact, "gumbel", seed=2, **STEPS[name])
    assert 0.3 < acceptance < 0.999
    for power in (1, 2, 3):
        change = found.astype(float) ** power - exact.astype(float) ** power
        assert np.all(abs(change.mean(0)) < 5 * change.std(0) / len(change) ** 0.5), power


@pytest.mark.parametrize("name", STEPS)
def test_small_steps_are_accepted(programs, name):
    options = {**STEPS[name], "step_size": 1e-3}
    exact = np.random.default_rng(1).gumbel(size=(1000, 2)).astype("float32")
    assert programs.step(name, exact, "gumbel", seed=2, **options)[1] > 0.995


def test_unadjusted_langevin_has_the_variance_of_its_step_size(programs):
    size = 0.8  # z' = (1 - size^2 / 2) z + size u is stationary at variance 1 / (1 - size^2 / 4)
    variance = 1.0 / (1.0 - size**2 / 4.0)
    start = np.random.default_rng(3).normal(0.0, variance**0.5, (40_000, 1)).astype("float32")
    found, _ = programs.step("langevin", start, "normal", seed=4, step_size=size)
    change = found.astype(float) ** 2 - variance
    assert abs(change.mean()) < 5 * change.std() / len(change) ** 0.5


# --------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_correlated_normal(dg, programs, kernel):
    root = ROOT.astype("float32")
    found = dg.mcmc(programs.correlated, root, kernel=kernel, **{**QUICK, **KERNELS[kernel]})
    z = found.draws["z"]
    for d, variance in enumerate((4.0, 1.0, 9.0)):
        check_moments(z[..., d], 0.0, variance)
    check_mean(z[..., 0] * z[..., 1], 1.9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_coin(dg, programs, kernel):
    found = dg.mcmc(programs.coin, FLIPS, kernel=kernel, **{**QUICK, **KERNELS[kernel]})
    a, b = 13.0, 20.0
    check_moments(found.draws["p"], a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1)))


def test_an_asymmetric_target(dg, programs):
    found = dg.mcmc(programs.skewed, kernel="chees", **QUICK)
    check_moments(found.draws["rate"], 1.5, 0.75)
    check_mean(found.draws["rate"] ** 3, 3 * 4 * 5 / 8)
    check_mean(found.draws["size"], 2.0 * np.sqrt(2 / np.pi))


def test_conjugate_regression_by_many_chains(dg, zoo):
    x = np.random.default_rng(5).normal(size=(40, 2)).astype("float32")
    y = x @ np.array([0.7, -0.4], "float32") + 0.5
    found = dg.mcmc(zoo.regression, x, y, kernel="chees", **QUICK)
    covariance = np.linalg.inv(np.eye(2) + x.T @ x / 0.25)
    mean = covariance @ x.T @ y / 0.25
    for d in range(2):
        check_moments(found.draws["weights"][..., d], mean[d], covariance[d, d])
    assert found.superchains.tolist() == np.repeat(np.arange(4), 8).tolist()
    rows = {check.name: check for check in found.diagnose().checks}
    assert rows["nested R-hat"].ok and found.diagnose().ok
    tree = found.to_datatree(groups=("sample_stats", "adaptation"))
    assert tree["adaptation"]["root"].shape == (2, 2)


# ----------------------------------------------------------------------- kernels, compiling, starts


def test_kernels_by_name_class_partial_and_instance(dg, zoo):
    kernels = ("mala", dg.MALA, dg.MALA(step_size=0.1), partial(dg.MALA, dense=True))
    options = {**QUICK, "num_samples": 50, "target_accept_prob": 0.7}
    first, *others = (dg.mcmc(zoo.normal_mean, Y, kernel=k, **options) for k in kernels)
    for other in others:
        np.testing.assert_array_equal(first.draws["mean"], other.draws["mean"])
    assert abs(first.stats["acceptance_rate"].mean() - 0.7) < 0.1


def test_few_chains(dg, zoo):
    options = {**QUICK, "num_chains": 4, "num_samples": 1500, "thinning": 3}
    found = dg.mcmc(zoo.normal_mean, Y, kernel="chees", **options)
    assert found.draws["mean"].shape == (4, 500) and found.superchains is None
    check_moments(found.draws["mean"], Y.sum() / 21, 1 / 21)


def test_native_kernels_start_from_draws(dg, zoo):
    drawn = dg.mcmc(zoo.normal_mean, Y, kernel="chees", **QUICK)
    options = {"num_warmup": 100, "num_samples": 200, "num_chains": 2, "progress": False}
    found = dg.mcmc(zoo.normal_mean, Y, kernel="nuts", init=drawn, **options)
    check_mean(found.draws["mean"], Y.sum() / 21)


def test_a_second_run_compiles_nothing(dg, zoo, wing):
    if wing == "pyro":
        pytest.skip("the Pyro wing traces its gradient anew in every call")
    import jax

    dg.mcmc(zoo.normal_mean, Y, kernel="chees", **QUICK)
    compiled: list[str] = []

    def note(event: str, _: float, **about: object) -> None:
        compiled.append(event) if "backend_compile" in event else None

    jax.monitoring.register_event_duration_secs_listener(note)
    longer = {**QUICK, "num_warmup": 300, "num_samples": 400, "thinning": 2}
    dg.mcmc(zoo.normal_mean, Y + 1, kernel="chees", seed=7, **longer)
    assert not compiled


# ---------------------------------------------------------------------------------------- NeuTra


def test_a_fitted_flow_straightens_the_space(dg, programs):
    guide = programs.iaf(programs.banana)
    fit = dg.svi(programs.banana, guide, num_steps=1500, progress=False)
    for kernel in ("chees", "nuts"):
        options = QUICK if kernel == "chees" else {**QUICK, "num_chains": 2, "num_samples": 500}
        options = {**options, "target_accept_prob": 0.95}  # the flow is steep in its tails
        found = dg.mcmc(programs.banana, kernel=kernel, neutra=fit, **options)
        check_moments(found.draws["a"], 0.0, 1.0)
        check_moments(found.draws["b"], 0.5, 1.5)


# ------------------------------------------------------------------------------ parallel tempering


def test_tempering_crosses_where_single_chains_never_do(dg, programs):
    y = np.full(4, 36.0, "float32")
    options = {**QUICK, "num_chains": 16, "num_samples": 1000}
    with pytest.warns(UserWarning, match="have not mixed"):
        alone = dg.mcmc(programs.square_root, y, kernel="chees", **options).draws["x"]
    assert not (np.diff(np.sign(alone), axis=1) != 0).any()
    kernel = dg.ParallelTempering("chees", num_temperatures=8)
    found = dg.mcmc(programs.square_root, y, kernel=kernel, **options)
    x = found.draws["x"]
    assert (np.diff(np.sign(x), axis=1) != 0).mean() > 0.02
    check_mean(x > 0, 0.5)
    # |x| is close to normal: its log density is -2 (x^2 - 36)^2 - x^2 / 50
    grid = np.linspace(5.0, 7.0, 20_001)
    density = np.exp(-2.0 * (grid**2 - 36.0) ** 2 - grid**2 / 50.0)
    check_mean(np.abs(x), (grid * density).sum() / density.sum())
    assert found.attrs["mixed"]
    rates, betas = found.attrs["swap_acceptance"], found.attrs["temperatures"]
    assert rates.shape == (7,) and np.all((rates > 0.2) & (rates < 0.95))
    assert betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) > 0)
    assert "swap_acceptance" in found.to_datatree(groups=()).attrs


def test_bad_tempering(dg, programs):
    with pytest.raises(ValueError, match="num_temperatures must be at least 2, got 1"):
        dg.ParallelTempering(num_temperatures=1)
    y = np.full(4, 36.0, "float32")
    with pytest.raises(ValueError, match="ParallelTempering cannot wrap 'langevin'"):
        dg.mcmc(programs.square_root, y, kernel=dg.ParallelTempering("langevin"), **QUICK)


# --------------------------------------------------------------------------------------- bad input


def test_bad_input(dg, programs):
    with pytest.raises(ValueError, match=r"No starting point of finite density.*'wall' is -inf"):
        dg.mcmc(programs.nowhere, Y, kernel="chees", **QUICK)
    with pytest.raises(ValueError, match=r"discrete latent 'count' has no finite support"):
        dg.mcmc(programs.counts, Y, kernel="chees", **QUICK)
