"""Score matching: closed forms of Gaussians, supports, and mistakes."""

import importlib
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(0)
POINTS = RNG.normal(0.5, 0.7, (400, 2)).astype("float32")
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The programs of this wing."""
    return importlib.import_module(f"{__package__}.energy_{wing}")


def value(fit, name: str) -> float:
    return float(np.asarray(fit.params[name]))


def test_the_exact_objective_finds_a_gaussian_in_closed_form(dg, programs) -> None:
    """Its minimum is the sample's mean and inverse variance, whatever the base."""
    fit = dg.score_matching(
        programs.gaussian, POINTS, num_steps=600, optim=programs.adam(0.03), **QUIET
    )
    rate, shift = value(fit, "rate"), value(fit, "shift")
    precision, mean = rate**2 + 0.25, rate**2 * shift / (rate**2 + 0.25)
    # One mean for both columns: the slope's expectation is matched over both.
    wanted = 1.0 / np.mean((POINTS - POINTS.mean()) ** 2)
    assert abs(precision - wanted) < 1e-2 * wanted
    assert abs(mean - POINTS.mean()) < 1e-2
    second = np.mean(np.sum((POINTS - mean) ** 2, 1))
    least = -2.0 * precision + 0.5 * precision**2 * second
    assert abs(fit.losses[-1] - least) < 1e-2 * abs(least)
    assert fit.diagnose() is not None


def test_sliced_directions_agree_with_the_exact_trace(dg, programs) -> None:
    fit = dg.score_matching(
        programs.gaussian, POINTS, method="sliced", num_slices=4, num_steps=600, batch_size=200,
        optim=programs.adam(0.01), **QUIET,
    )  # fmt: skip
    precision = value(fit, "rate") ** 2 + 0.25
    wanted = 1.0 / np.mean((POINTS - POINTS.mean()) ** 2)
    assert abs(precision - wanted) < 0.15 * wanted  # trace noise: sqrt(2 / (2 * 400 * 4)) a step


def test_denoising_fits_the_data_with_noise(dg, programs) -> None:
    fit = dg.score_matching(
        programs.gaussian, POINTS, method="denoising", noise_level=0.5, num_steps=800,
        optim=programs.adam(0.01), **QUIET,
    )  # fmt: skip
    precision = value(fit, "rate") ** 2 + 0.25
    wanted = 1.0 / (np.mean((POINTS - POINTS.mean()) ** 2) + 0.25)
    assert abs(precision - wanted) < 0.1 * wanted


def test_positive_data_are_matched_where_they_live_unconstrained(dg, programs) -> None:
    """In u = log x an exponential of rate r has log density u - r exp(u): matched at 1 / r."""
    x = RNG.exponential(0.5, 500).astype("float32")
    fit = dg.score_matching(programs.positive, x, num_steps=400, optim=programs.adam(0.03), **QUIET)
    rate = 1.0 + value(fit, "rate") ** 2
    # Stationary point: E[-r x + (1 - r x) (-x)] = 0, so r = 2 E x / E x^2.
    wanted = 2.0 * x.mean() / np.mean(x**2)
    assert abs(rate - wanted) < 1e-2 * wanted


BAD = {
    "discrete": ("ising", (RNG.random((20, 4)) < 0.5).astype("float32"), {}, "discrete"),
    "hidden": ("harmonium", (RNG.random((20, 3)) < 0.5).astype("float32"), {}, "discrete"),
    "method": ("gaussian", POINTS, {"method": "noisy"}, "'sliced'"),
    "noise": ("gaussian", POINTS, {"noise_level": -1.0}, "positive"),
    "argument": ("raw", POINTS[:, 0], {}, "base distribution"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told_with_their_cure(dg, programs, case) -> None:
    name, data, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        dg.score_matching(getattr(programs, name), data, **options, **QUIET)
