"""Contrastive training: its gradient is that of the enumerated likelihood; chains are watched."""

import importlib
import itertools
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(0)
INFORMED = ("gibbs_with_gradients", "discrete_langevin")
SPINS = (RNG.random((200, 4)) < [0.7, 0.4, 0.6, 0.5]).astype("float32")
BITS = (RNG.random((150, 3)) < [0.6, 0.3, 0.7]).astype("float32")
POINTS = RNG.normal(0.5, 0.7, (400, 2)).astype("float32")
GRID = ((0, 1), (1, 2), (2, 3), (3, 0))
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The programs of this wing."""
    return importlib.import_module(f"{__package__}.energy_{wing}")


def states(size: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=size)))


def expected(log_p: np.ndarray, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of statistics under a table of log weights."""
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ statistics
    return mean, np.sqrt(np.maximum(p @ statistics**2 - mean**2, 0.0))


def value(params: dict, name: str) -> np.ndarray:
    return np.asarray(params[name], float)


def gradient(dg, programs, model, data, before: dict, **options) -> dict[str, np.ndarray]:
    """The gradient per datum of one step, by how far a plain gradient step went."""
    fit = dg.contrastive(
        model, *data, num_steps=1, optim=programs.sgd(1.0 / len(data[0])), **options, **QUIET
    )
    return {name: np.asarray(old) - value(fit.params, name) for name, old in before.items()}


def spin_statistics(x: np.ndarray) -> np.ndarray:
    s = 2.0 * x - 1.0
    return np.concatenate([s, np.stack([s[:, i] * s[:, j] for i, j in GRID], 1)], 1)


@pytest.mark.parametrize(
    "sampler",
    [None, *(pytest.param(name, marks=pytest.mark.slow) for name in INFORMED)],
)
def test_the_gradient_of_an_ising_ring_is_the_enumerated_one(dg, programs, sampler) -> None:
    before = {"field": [0.3, -0.2, 0.1, 0.0], "tie": [0.4, -0.3, 0.5, 0.2]}
    chains = 2000
    options = {"num_chains": chains, "chain_steps": 8 if sampler else 20, "start": "base"}
    found = gradient(dg, programs, programs.ising, (SPINS,), before, sampler=sampler, **options)
    table = spin_statistics(states(4))
    theta = np.concatenate([before["field"], before["tie"]])
    mean, deviation = expected(table @ theta, table)
    exact = mean - spin_statistics(SPINS).mean(0)
    both = np.concatenate([found["field"], found["tie"]])
    # Four chains set out from one datum: independent after many sweeps.
    assert (abs(both - exact) < 5 * deviation / np.sqrt(chains) + 1e-5).all()


@pytest.mark.parametrize(
    ("positive", "persistent"),
    [("exact", True), pytest.param("sampled", False, marks=pytest.mark.slow)],
)
def test_the_gradient_of_a_harmonium_is_the_enumerated_one(
    dg, programs, positive, persistent
) -> None:
    weight = np.array([[0.8, -0.5], [0.3, 0.9], [-0.6, 0.4]])
    bias = np.array([0.2, -0.1, 0.3])
    data = np.tile(BITS, (10, 1))
    found = gradient(
        dg, programs, programs.harmonium, (data,), {"weight": weight, "bias": bias},
        positive=positive, persistent=persistent, num_chains=1500, chain_steps=15,
    )  # fmt: skip
    both = states(5)
    x, h = both[:, :3], both[:, 3:]
    statistics = np.concatenate([(x[:, :, None] * h[:, None]).reshape(32, 6), x], 1)
    log_p = statistics @ np.concatenate([weight.ravel(), bias])
    mean, deviation = expected(log_p, statistics)
    on = 1.0 / (1.0 + np.exp(-(data @ weight)))
    given = np.concatenate([(data[:, :, None] * on[:, None]).mean(0).ravel(), data.mean(0)])
    got = np.concatenate([found["weight"].ravel(), found["bias"]])
    error = deviation / np.sqrt(1500)
    if positive == "sampled":
        spread = np.sqrt((data[:, :, None] * (on * (1 - on))[:, None]).mean(0) / len(data))
        error = np.hypot(error, np.concatenate([spread.ravel(), np.zeros(3)]))
    assert (abs(got - (mean - given)) < 5 * error + 1e-5).all()


@pytest.mark.slow
def test_a_guide_bounds_the_positive_phase(dg, programs) -> None:
    fit = dg.contrastive(programs.harmonium, BITS, guide=programs.mean_field, num_steps=20, **QUIET)
    assert np.isfinite(fit.losses).all()
    assert set(fit.chains) >= {"x", "first", "second"}


@pytest.mark.parametrize("sampler", ["mala", pytest.param("hmc", marks=pytest.mark.slow)])
def test_continuous_chains_find_the_likelihood_of_a_gaussian(dg, programs, sampler) -> None:
    fit = dg.contrastive(
        programs.gaussian, POINTS, sampler=sampler, num_chains=512, chain_steps=2,
        num_steps=300, optim=programs.adam(0.02), **QUIET,
    )  # fmt: skip
    rate, shift = value(fit.params, "rate"), value(fit.params, "shift")
    precision = rate**2 + 0.25
    # Stationary noise of Adam at this rate is some 0.02 of each parameter.
    assert abs(precision - 1.0 / np.mean((POINTS - POINTS.mean(0)) ** 2)) < 0.25
    assert abs(rate**2 * shift / precision - POINTS.mean()) < 0.1
    assert fit.diagnose().ok


ALL_ON = np.ones((256, 6), "float32")
FAR = np.full(256, 3.0, "float32")


def test_tempered_chains_reach_the_other_mode_of_spins(dg, programs) -> None:
    # All data are all on, and so are plain chains for ever: their mean would stay above 5.5.
    before = {"field": 0.05, "tie": 0.6}
    options = {"persistent": False, "chain_steps": 40, "sampler": "tempering"}
    found = gradient(dg, programs, programs.magnet, (ALL_ON,), before, **options)
    total = (2.0 * states(6) - 1.0).sum(1)
    table = np.stack([total, 0.5 * (total**2 - 6.0)], 1)
    mean, deviation = expected(table @ [0.05, 0.6], table)
    both = np.array([found["field"] + 6.0, found["tie"] + 15.0])  # with the means of the data
    assert (abs(both - mean) < 5 * deviation / np.sqrt(len(ALL_ON)) + 1e-4).all()


@pytest.mark.parametrize("kernel", ["mala", pytest.param("chees", marks=pytest.mark.slow)])
def test_tempered_chains_reach_the_other_well(dg, programs, kernel) -> None:
    ladder = dg.ParallelTempering(kernel, num_temperatures=6)
    options = {"persistent": False, "chain_steps": 100, "sampler": ladder}
    found = gradient(dg, programs, programs.wells, (FAR,), {"tilt": 0.1}, **options)
    x = np.linspace(-5.0, 5.0, 4001)
    mean, deviation = expected(0.1 * x - 2.0 * (x**2 - 9.0) ** 2 - x**2 / 18.0, x[:, None])
    assert abs(found["tilt"] + 3.0 - mean) < 5 * deviation / np.sqrt(len(FAR)) + 1e-4


@pytest.mark.slow
def test_tempered_chains_of_both_kinds_see_covariates(dg, programs) -> None:
    side = np.repeat(np.float32([-1.0, 1.0, 4.0]), 200)
    data = (np.full(600, 3.0, "float32"), np.ones(600, "float32"), side)
    before = {"place": [-3.0, 3.0], "slope": 0.3}
    options = {"persistent": False, "chain_steps": 100, "sampler": "tempering"}
    found = gradient(dg, programs, programs.apart, data, before, **options)
    one = 1.0 / (1.0 + np.exp(-0.3 * side))  # the wells of both classes weigh the same
    mean, deviation = (side * one).mean(), np.sqrt((side**2 * one * (1.0 - one)).mean())
    assert abs(found["slope"] + side.mean() - mean) < 5 * deviation / np.sqrt(600) + 1e-4


def test_a_ladder_is_watched_and_kept_with_the_run(dg, programs, tmp_path) -> None:
    ladder = dg.ParallelTempering("mala", num_temperatures=2)
    options = {"sampler": ladder, "num_chains": 16, "params": {"tilt": 0.1}, **QUIET}
    whole = dg.contrastive(programs.wells, FAR, num_steps=60, **options)
    dg.contrastive(programs.wells, FAR, num_steps=30, checkpoint=tmp_path / "run", **options)
    again = dg.contrastive(
        programs.wells, FAR, num_steps=60, checkpoint=tmp_path / "run", **options
    )
    np.testing.assert_array_equal(value(again.params, "tilt"), value(whole.params, "tilt"))
    assert any("num_temperatures" in check.advice for check in whole.diagnose().failed)


def test_covariates_stay_and_every_row_has_a_chain(dg, programs) -> None:
    x = RNG.normal(size=300).astype("float32")
    y = (RNG.random(300) < 1 / (1 + np.exp(-1.5 * x))).astype("float32")
    fit = dg.contrastive(
        programs.regression, x, y, negative=["y"], num_steps=400, optim=programs.adam(0.02), **QUIET
    )
    assert fit.chains["y"].shape[0] == len(x)
    slope = 0.0
    for _ in range(50):  # Newton on the logistic likelihood
        p = 1 / (1 + np.exp(-slope * x))
        slope += (x @ (y - p)) / (x**2 @ (p * (1 - p)))
    information = x.astype(float) ** 2 @ (p * (1 - p))
    assert abs(value(fit.params, "slope") - slope) < 3 / np.sqrt(information)


def test_discrete_and_continuous_sites_are_drawn_in_turn(dg, programs) -> None:
    y = (RNG.random(300) < 0.5).astype("float32")
    x = RNG.normal(np.where(y == 1, 1.0, -1.0), 0.6).astype("float32")
    fit = dg.contrastive(
        programs.classes, x, y, num_chains=256, chain_steps=2, num_steps=150,
        optim=programs.adam(0.03), **QUIET,
    )  # fmt: skip
    place = value(fit.params, "place")
    mean = place * 2.0 / (2.0 + 0.25)  # a factor of precision 2 times a base of precision 1/4
    wanted = np.array([x[y == 0].mean(), x[y == 1].mean()])
    assert (abs(mean - wanted) < 0.25).all()


def test_a_resumed_run_is_the_uninterrupted_run(dg, programs, tmp_path) -> None:
    options = {"batch_size": 50, "num_chains": 16, "buffer_size": 32, "restart": 0.1, **QUIET}
    whole = dg.contrastive(programs.ising, SPINS, num_steps=12, **options)
    path = tmp_path / "run.zip"
    dg.contrastive(programs.ising, SPINS, num_steps=6, checkpoint=path, **options)
    again = dg.contrastive(programs.ising, SPINS, num_steps=12, checkpoint=path, **options)
    np.testing.assert_array_equal(whole.losses, again.losses)
    np.testing.assert_array_equal(np.asarray(whole.chains["x"]), np.asarray(again.chains["x"]))


def test_a_fit_is_saved_with_its_monitors(dg, programs, tmp_path) -> None:
    fit = dg.contrastive(programs.ising, SPINS, num_steps=5, **QUIET)
    back = dg.load_fit(fit.save(tmp_path / "fit.zip"), programs.ising)
    assert back.verb == "contrastive"
    assert "energy_chains" in back.history
    assert "contrastive, 5 steps" in str(back.diagnose())


@pytest.mark.filterwarnings("ignore:the negative chains diverge")
def test_chains_of_an_energy_without_normaliser_run_away(dg, programs) -> None:
    x = RNG.normal(size=100).astype("float32")
    try:
        fit = dg.contrastive(
            programs.exploding, x, sampler="langevin", num_steps=500, chain_steps=5,
            optim=programs.sgd(0.0), **QUIET,
        )  # fmt: skip
    except dg.NonFiniteError as error:
        assert "the energy of chain" in str(error)
        return
    assert "diverge" in fit.stopped
    assert any("integrable" in check.advice for check in fit.diagnose().failed)


SAMPLERS = ("rwm", "mala", "langevin", "hmc", "gibbs", *INFORMED)


@pytest.mark.parametrize(
    "sampler",
    ["rwm", *(pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS[1:])],
)
def test_an_energy_that_is_nan_names_chain_and_step(dg, programs, sampler) -> None:
    discrete = sampler in ("gibbs", *INFORMED)
    model = programs.undefined_bits if discrete else programs.undefined
    x = np.zeros((20, 3), "float32") if discrete else np.full(20, 1.4, "float32")
    with pytest.raises(dg.NonFiniteError, match=r"step 0: the energy of chain \d+ is not finite"):
        dg.contrastive(model, x, sampler=sampler, start="base", num_steps=5, num_chains=64, **QUIET)


def test_an_rbm_whose_energy_is_nan_names_chain_and_step(dg) -> None:
    rbm = dg.RBM(3, 2).with_weights(np.full((3, 2), np.inf), np.zeros(3), np.zeros(2))
    with pytest.raises(dg.NonFiniteError, match=r"step 0: the energy of chain \d+ is not finite"):
        dg.contrastive(rbm, BITS[:20], num_steps=5, num_chains=16, batch_size=10, **QUIET)


BAD = {
    "no observed site": ("raw", POINTS[:, 0], {}, "base distribution"),
    "data outside the support": ("positive", -abs(POINTS[:, 0]), {}, "outside|support"),
    "guide with a factor": ("harmonium", BITS, {"guide": "tilted_guide"}, "guide has factor"),
    "discrete kernel": ("gaussian", POINTS, {"sampler": "gibbs"}, "'mala'"),
    "continuous kernel": ("ising", SPINS, {"sampler": "mala"}, "'gibbs'"),
    "unknown kernel": ("ising", SPINS, {"sampler": "nuts"}, "'gibbs_with_gradients'"),
    "unknown site": ("ising", SPINS, {"negative": ["y"]}, "'y'"),
    "small buffer": ("ising", SPINS, {"buffer_size": 8}, "less than the num_chains"),
    "no steps": ("ising", SPINS, {"chain_steps": 0}, "chain_steps"),
    "start": ("ising", SPINS, {"start": "noise"}, "'data', 'base'"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told_with_their_cure(dg, programs, case) -> None:
    name, data, options, message = BAD[case]
    if "guide" in options:
        options = {"guide": getattr(programs, options["guide"])}
    with pytest.raises(ValueError, match=message):
        dg.contrastive(getattr(programs, name), data, **options, **QUIET)


def test_svi_names_the_verb_where_the_normaliser_moves(dg, programs) -> None:
    with pytest.warns(UserWarning, match="'energy'.*dg.contrastive"):
        dg.svi(programs.gaussian, None, POINTS, num_steps=2, **QUIET)
