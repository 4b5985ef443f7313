"""Importance sampling: exact log evidence, weights per datum or of the whole data, chunks."""

import signal
import sys
import threading
import time
from types import ModuleType

import numpy as np
import pytest

X = np.random.default_rng(2).normal(1.0, 1.0, 12).astype(np.float32)
SLOPE = {"slope": np.float32(0.4)}


def log_normal(x: np.ndarray, variance: float) -> np.ndarray:
    return -0.5 * (x**2 / variance + np.log(2 * np.pi * variance))


def local(dg: ModuleType, zoo: ModuleType, guide: str = "local_normal_guide", **options):
    settings = {"params": SLOPE, "num_particles": 2000, **options}
    proposal = None if guide == "prior" else getattr(zoo, guide)
    return dg.importance(zoo.local_normal, proposal, X, **settings)


# -------------------------------------------------------------------------------------- per datum


@pytest.mark.parametrize("guide", ["local_normal_guide", "prior"])
def test_each_datum_has_its_own_evidence(dg: ModuleType, zoo: ModuleType, guide: str) -> None:
    found = local(dg, zoo, guide)
    evidence, exact = found.evidence, log_normal(X, 2.0)
    assert found.row_dim == "data"
    assert found.log_weights.shape == (1, 2000, len(X))
    assert found.draws["z"].shape == (1, 2000, len(X))
    gap = np.abs(evidence.per_row - exact)
    assert (gap < 5 * evidence.per_row_standard_error).all()
    assert abs(evidence.log_evidence - exact.sum()) < 4 * evidence.standard_error


def test_the_exact_guide_has_constant_weights(dg: ModuleType, zoo: ModuleType) -> None:
    found = dg.importance(zoo.local_normal, zoo.exact_guide, X, num_particles=50)
    np.testing.assert_allclose(found.evidence.per_row, log_normal(X, 2.0), atol=1e-4)
    np.testing.assert_allclose(np.ptp(found.log_weights, axis=1), 0.0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_chunks_of_rows_change_nothing_but_noise(
    dg: ModuleType, zoo: ModuleType, batch_size: int
) -> None:
    evidence = local(dg, zoo, batch_size=batch_size).evidence
    gap = np.abs(evidence.per_row - log_normal(X, 2.0))
    assert (gap < 5 * evidence.per_row_standard_error).all()


def test_a_row_keeps_its_own_draws(dg: ModuleType, zoo: ModuleType) -> None:
    found = local(dg, zoo, batch_size=5)
    smooth = found.resample(1000, seed=0).draws["z"][0]
    # z_i | x_i ~ N(x_i / 2, 1/2)
    np.testing.assert_allclose(smooth.mean(0), X / 2, atol=5 * (0.5 / 400) ** 0.5)


def test_num_draws_keeps_equally_weighted_draws(dg: ModuleType, zoo: ModuleType) -> None:
    found = local(dg, zoo, num_draws=800, batch_size=5)
    assert found.log_weights is None
    assert found.draws["z"].shape == (1, 800, len(X))
    np.testing.assert_allclose(found.draws["z"][0].mean(0), X / 2, atol=5 * (0.5 / 400) ** 0.5)


def test_without_draws_the_evidence_is_the_same(dg: ModuleType, zoo: ModuleType) -> None:
    with_draws, without = local(dg, zoo), local(dg, zoo, keep_draws=False)
    assert without.draws == {}
    np.testing.assert_array_equal(with_draws.log_weights, without.log_weights)


# ---------------------------------------------------------------------------- of the whole data


def test_rows_that_touch_each_other_are_weighed_together(dg: ModuleType, zoo: ModuleType) -> None:
    found = local(dg, zoo, "coupled_guide")
    assert found.row_dim is None
    assert found.log_weights.shape == (1, 2000)


@pytest.mark.parametrize("data", [X, np.full_like(X, 0.3)], ids=["distinct", "equal"])
@pytest.mark.parametrize("model", ["random_walk", "coin_walk"])
def test_rows_that_touch_each_other_by_latents_are_weighed_together(
    dg: ModuleType, zoo: ModuleType, model: str, data: np.ndarray
) -> None:
    found = dg.importance(getattr(zoo, model), None, data, num_particles=100)
    assert found.row_dim is None


def test_equal_rows_keep_their_own_evidence(dg: ModuleType, zoo: ModuleType) -> None:
    found = dg.importance(zoo.local_normal, None, np.full_like(X, 0.3), num_particles=100)
    assert found.row_dim == "data"


def test_shared_latents_are_weighed_together(dg: ModuleType, zoo: ModuleType) -> None:
    found = dg.importance(zoo.normal_mean, zoo.loose_guide, X, params={"loc": 0.9, "scale": 0.4},
                          num_particles=4000)  # fmt: skip
    size, total = len(X), X.sum()
    exact = log_normal(X, 1.0).sum() - 0.5 * np.log(size + 1) + 0.5 * total**2 / (size + 1)
    assert found.evidence.per_row is None
    assert abs(found.evidence.log_evidence - exact) < 4 * found.evidence.standard_error
    log_w = found.stats["lp"] - found.stats["log_q"]
    np.testing.assert_allclose(log_w, found.log_weights, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------- bad input


def test_parameters_without_a_value_are_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="'slope'"):
        local(dg, zoo, params=None)


def test_a_positive_number_of_particles_is_needed(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="num_particles must be positive"):
        local(dg, zoo, num_particles=0)
    with pytest.raises(ValueError, match=r"num_particles must be a whole number, got 1000\.0"):
        local(dg, zoo, num_particles=1e3)
    with pytest.raises(ValueError, match="batch_size must be positive"):
        local(dg, zoo, batch_size=0)
    with pytest.raises(TypeError, match="the guide is the class"):
        dg.importance(zoo.local_normal, type(zoo.auto_normal(zoo.local_normal)), X)


def test_nan_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    bad = np.where(np.arange(len(X)) == 4, np.nan, X)
    with pytest.raises(ValueError, match="data argument 'x' holds NaN in 1 of 12 rows: 4"):
        dg.importance(zoo.local_normal, zoo.local_normal_guide, bad, params=SLOPE)


def test_values_of_unknown_parameters_are_refused(dg: ModuleType, zoo: ModuleType) -> None:
    params = {**SLOPE, "slop": np.float32(0.1)}
    message = r"params holds 'slop', which neither the model nor the guide has .*'slope'"
    with pytest.raises(ValueError, match=message):
        local(dg, zoo, params=params)
    with pytest.raises(ValueError, match=message):
        dg.predict(zoo.local_normal, X, guide=zoo.local_normal_guide, params=params)
    fit = dg.svi(zoo.local_normal, zoo.local_normal_guide, X, num_steps=2, progress=False)
    fit.params["slop"] = params["slop"]
    with pytest.raises(ValueError, match="'slop'"):
        fit.posterior(num_samples=3)


@pytest.mark.parametrize(
    ("model", "num_particles", "unit"),
    [("local_normal", 20_000, "rows"), ("normal_mean", 1_000_000, "particles")],
)
def test_ctrl_c_says_how_far_it_was(
    dg: ModuleType,
    zoo: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    num_particles: int,
    unit: str,
) -> None:
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(4.0, press)
    verb = sys.modules[dg.importance.__module__]
    explained = verb.explained

    def started(*about):
        timer.start()  # with the draws: reading the program comes before
        return explained(*about)

    monkeypatch.setattr(verb, "explained", started)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    options = {"num_particles": num_particles, "keep_draws": False}
    message = rf"importance interrupted after \d+ of \d+ {unit}; nothing is kept"
    try:
        with pytest.raises(KeyboardInterrupt, match=message):
            dg.importance(getattr(zoo, model), None, np.zeros(60_000, np.float32), **options)
        assert time.monotonic() - pressed[0] < 3.0
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
