"""Objectives of discrete latents against the exact bound, summed and integrated on a grid."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

START = {"weight": 1.2, "odds": 0.4, "slope": 0.6}
COPIES, RUNS = 2000, 10
DATUM = 1.3
NODES, MASS = np.polynomial.hermite_e.hermegauss(40)
MASS = MASS / MASS.sum()


def log_weights(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log w and the mass of q at both states and all nodes, flat."""
    weight, odds, slope = theta
    found, mass = [], []
    for z in (0, 1):
        share = expit((2 * z - 1) * odds * DATUM)
        mean = slope * DATUM - 0.5 * z
        u = mean + 0.6 * NODES
        log_q = np.log(share) + norm.logpdf(u, mean, 0.6)
        log_p = np.log(0.3 if z else 0.7) + norm.logpdf(u, z, 1.0)
        found.append(log_p + norm.logpdf(DATUM, weight * u + z, 0.5) - log_q)
        mass.append(share * MASS)
    return np.concatenate(found), np.concatenate(mass)


def elbo(theta: np.ndarray) -> float:
    """The loss per datum of the evidence lower bound."""
    log_w, mass = log_weights(theta)
    return float(-mass @ log_w)


def iwae(theta: np.ndarray) -> float:
    """The loss per datum of the bound of two particles."""
    log_w, mass = log_weights(theta)
    pairs = np.stack(np.broadcast_arrays(log_w[:, None], log_w[None, :]))
    bounds = logsumexp(pairs, axis=0) - np.log(2)
    return float(-mass @ bounds @ mass)


def gradient(loss: Callable[[np.ndarray], float]) -> np.ndarray:
    """Its central differences at START."""
    theta, steps = np.array(list(START.values())), 1e-4 * np.eye(3)
    return np.array([(loss(theta + h) - loss(theta - h)) / 2e-4 for h in steps])


def estimates(dg: ModuleType, programs: ModuleType, objective: Any) -> np.ndarray:
    """Gradients per datum of several seeds, each over many copies of the datum."""
    y, rate, found = np.full(COPIES, DATUM, np.float32), 0.1, []
    for seed in range(RUNS):
        fit = dg.svi(
            programs.switch,
            programs.switch_guide,
            y,
            params={name: np.asarray(value, np.float32) for name, value in START.items()},
            optim=programs.descent(rate / COPIES),
            loss=objective,
            num_steps=1,
            progress=False,
            seed=seed,
        )
        found.append([(v - float(fit.params[n])) / rate for n, v in START.items()])
    return np.array(found)


ROWS = {
    "enumerated": (lambda dg: dg.EnumeratedELBO(), elbo),
    "score": (lambda dg: dg.ELBO(), elbo),
    "leave one out": (lambda dg: dg.ELBO(4), elbo),
    "vimco": (lambda dg: dg.IWAE(2), iwae),
}
SPREAD: dict[tuple[str, str], np.ndarray] = {}


@pytest.mark.parametrize("name", ROWS)
def test_the_mean_gradient_is_the_enumerated_one(
    dg: ModuleType, programs: ModuleType, wing: str, name: str
) -> None:
    make, loss = ROWS[name]
    found = estimates(dg, programs, make(dg))
    SPREAD[wing, name] = found.std(0, ddof=1) * COPIES**0.5
    error = found.std(0, ddof=1) / RUNS**0.5
    assert np.all(np.abs(found.mean(0) - gradient(loss)) < 5 * error + 2e-5)
    assert np.all(error < 0.05)
    if name == "leave one out" and (wing, "score") in SPREAD:
        ones, ours = SPREAD[wing, "score"][1], 2 * SPREAD[wing, name][1]
        assert SPREAD[wing, "enumerated"][1] < ours < ones  # of the log odds, at equal draws


@pytest.mark.parametrize("name", ["relaxed", "straight through"])
def test_a_relaxed_gradient_nears_the_enumerated_one_as_it_cools(
    dg: ModuleType, programs: ModuleType, name: str
) -> None:
    """Its bias falls with the temperature where draws stay soft; the reported bound is discrete."""
    through = name == "straight through"
    exact, away = gradient(elbo), []
    for temperature in (2.0, 0.2):
        found = estimates(dg, programs, dg.RelaxedELBO(temperature, through))
        error = found.std(0, ddof=1) / RUNS**0.5
        away.append((np.abs(found.mean(0) - exact), error))
    if not through:
        assert away[0][0][1] > 5 * away[0][1][1]  # hot: a bias that shows
        assert np.all(away[1][0] < 0.5 * away[0][0].max())
    y = np.full(COPIES, DATUM, np.float32)
    options = {"num_steps": 10, "optim": programs.standing_still(), "progress": False}
    start = {name: np.asarray(value, np.float32) for name, value in START.items()}
    loss = dg.RelaxedELBO(2.0, through)
    fit = dg.svi(programs.switch, programs.switch_guide, y, loss=loss, params=start, **options)
    bound, losses = np.asarray(fit.history["bound"]), np.asarray(fit.history["loss"])
    error = bound.std(ddof=1) / 10**0.5
    assert abs(bound.mean() + elbo(np.array(list(START.values())))) < 5 * error
    if through:
        np.testing.assert_allclose(losses, -bound, rtol=1e-5)
    else:
        assert abs(losses.mean() + bound.mean()) > 10 * error  # a soft loss is no bound


def test_a_bit_of_all_rows_is_summed_over(dg: ModuleType, programs: ModuleType) -> None:
    y = np.array([0.3, 1.1, 0.8, -0.2], np.float32)
    fit = dg.svi(
        programs.shared_switch,
        programs.shared_switch_guide,
        y,
        params={"weight": np.float32(1.2), "odds": np.float32(0.4)},
        optim=programs.standing_still(),
        loss=dg.EnumeratedELBO(),
        num_steps=1,
        progress=False,
    )
    q = np.array([expit(-0.4), expit(0.4)])
    log_p = [np.log(p) + norm.logpdf(y, 1.2 * z, 1.0).sum() for z, p in ((0, 0.7), (1, 0.3))]
    assert abs(fit.losses[0] * len(y) + q @ (log_p - np.log(q))) < 1e-5


def test_minibatches_of_the_enumerated_bound_have_its_mean(
    dg: ModuleType, programs: ModuleType
) -> None:
    """One epoch of batches of a guide without continuous draws: no noise but the rows'."""
    vae = dg.VAE((), (), features=3, latents=2, posterior="binary", prior="binary")
    x = np.random.default_rng(0).integers(0, 2, (24, 3)).astype("float32")
    options = {"optim": programs.standing_still(), "loss": dg.EnumeratedELBO(), "progress": False}
    whole = dg.svi(*vae, x, num_steps=1, **options)
    parts = dg.svi(*vae, x, num_steps=4, batch_size=6, **options)
    np.testing.assert_allclose(parts.losses.mean(), whole.losses[0], rtol=1e-5)
    assert np.ptp(parts.losses) > 1e-3


MISTAKES: dict[str, tuple[Any, Any, str, Any, str]] = {
    "no discrete latents": (
        "weighted_normal", "local_normal_guide", "EnumeratedELBO", {}, "this guide has none"),
    "nothing to relax": (
        "weighted_normal", "local_normal_guide", "RelaxedELBO", {}, "this guide has none"),
    "endless": ("count", "count_guide", "EnumeratedELBO", {}, "'n': Poisson has no finite"),
    "no relaxation": ("count", "count_guide", "RelaxedELBO", {}, "'n' draws from Poisson"),
    "shared and local": (
        "both_switches", "both_switches_guide", "EnumeratedELBO", {}, "'own' and 'z'"),
    "too many": (
        "switch", "switch_guide", "EnumeratedELBO", {"max_states": 1},
        "2 joint states, more than max_states=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(dg: ModuleType, programs: ModuleType, name: str) -> None:
    model, guide, loss, options, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        dg.svi(
            getattr(programs, model),
            getattr(programs, guide),
            np.ones(4, np.float32),
            loss=getattr(dg, loss)(**options),
            num_steps=1,
            progress=False,
        )


def test_options_are_checked(dg: ModuleType) -> None:
    for make, words in (
        (lambda: dg.EnumeratedELBO(max_states=0), "max_states must be positive"),
        (lambda: dg.RelaxedELBO(0.0), "temperature must be positive"),
        (lambda: dg.RelaxedELBO(dg.KLAnnealing(10)), "temperature must be positive"),
        (lambda: dg.VAE((), (), features=2, latents=2, posterior="binary"), "prior='binary'"),
        (lambda: dg.VAE((), (), features=2, latents=2, prior="binary"), "posterior='binary'"),
        (
            lambda: dg.VAE((), (), features=2, latents=5, prior="categorical",
                           posterior="categorical"),
            "latents=5 is no multiple of states=10",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            make()
