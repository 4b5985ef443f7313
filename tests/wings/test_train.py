"""The training loop: exact resume, early stopping, interruption, losses that turn non-finite."""

import signal
from types import ModuleType

import numpy as np
import pytest

Y = np.random.default_rng(1).normal(1.0, 1.0, 30).astype(np.float32)


def fit_of(dg: ModuleType, zoo: ModuleType, y=Y, **options):
    start = {"batch_size": 10, "num_steps": 200, "optim": zoo.adam(0.02), "progress": False}
    return dg.svi(zoo.normal_mean, zoo.loose_guide, y, **{**start, **options})


def same(zoo: ModuleType, one, other) -> None:
    np.testing.assert_array_equal(one.losses, other.losses)
    for name, value in one.params.items():
        np.testing.assert_array_equal(zoo.to_numpy(value), zoo.to_numpy(other.params[name]))


def test_the_same_seed_gives_the_same_fit(dg: ModuleType, zoo: ModuleType) -> None:
    first, again, other = (fit_of(dg, zoo, seed=seed) for seed in (3, 3, 4))
    same(zoo, first, again)
    assert not np.array_equal(first.losses, other.losses)


def test_a_resumed_run_is_the_uninterrupted_run(dg: ModuleType, zoo: ModuleType, tmp_path) -> None:
    whole = fit_of(dg, zoo, compile="auto")
    path = tmp_path / "run.ckpt"
    part = fit_of(dg, zoo, checkpoint=path, callbacks=[lambda told: told.step >= 70])
    assert len(part.losses) < 200
    assert part.stopped == "a callback asked to stop"
    clear_stop(path)
    same(zoo, whole, fit_of(dg, zoo, checkpoint=path))


def clear_stop(path) -> None:
    """Let a run go on that a callback has stopped for good."""
    from deepgen_ppl import archive

    arrays, manifest = archive.load(path)
    archive.save(path, arrays, {**manifest, "stopped": ""})


def test_a_checkpoint_of_another_run_is_refused(dg: ModuleType, zoo: ModuleType, tmp_path) -> None:
    path = tmp_path / "run.ckpt"
    fit_of(dg, zoo, checkpoint=path, num_steps=20)
    with pytest.raises(ValueError, match="of another run: batch_size was 10, now 15"):
        fit_of(dg, zoo, checkpoint=path, batch_size=15)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    dg: ModuleType, zoo: ModuleType, tmp_path
) -> None:
    path = tmp_path / "run.ckpt"

    def press(told) -> None:
        if told.step == 50:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after step 5\d of 200; its state"):
        fit_of(dg, zoo, checkpoint=path, callbacks=[press])
    assert signal.getsignal(signal.SIGINT) is before
    same(zoo, fit_of(dg, zoo), fit_of(dg, zoo, checkpoint=path))


def test_callbacks_hear_of_every_report(dg: ModuleType, zoo: ModuleType) -> None:
    told = []
    fit = fit_of(dg, zoo, callbacks=[lambda now: told.append((now.step, now.loss, now.params()))])
    assert [step for step, _, _ in told] == list(fit.history["step"])
    np.testing.assert_allclose([loss for _, loss, _ in told], fit.history["loss"])
    assert {"loc", "scale"} <= set(told[0][2])
    assert told[-1][2]["loc"] == pytest.approx(float(fit.params["loc"]))


def test_patience_stops_and_restores_the_best(dg: ModuleType, zoo: ModuleType) -> None:
    seen = []
    fit = fit_of(
        dg,
        zoo,
        num_steps=2000,
        batch_size=None,
        optim=zoo.sgd(1e-3),
        validation_data=Y - 10.0,  # what fits Y better fits these worse, every time
        patience=3,
        callbacks=[lambda now: seen.append(now.params()["loc"])],
    )
    assert "no better validation loss in 3 validations" in fit.stopped
    assert len(fit.history["validation_loss"]) == 4
    assert float(fit.params["loc"]) == pytest.approx(float(seen[0]))


def test_clip_norm_bounds_the_step(dg: ModuleType, zoo: ModuleType) -> None:
    free, clipped = (
        fit_of(dg, zoo, num_steps=1, batch_size=None, optim=zoo.sgd(1.0), clip_norm=clip)
        for clip in (None, 1e-3)
    )
    start = {"loc": 0.5, "scale": np.log(0.5)}

    def step(fit) -> float:
        loc, scale = float(fit.params["loc"]), np.log(float(fit.params["scale"]))
        return float(np.hypot(loc - start["loc"], scale - start["scale"]))

    assert step(free) > 0.1
    assert step(clipped) == pytest.approx(1e-3, rel=1e-2)


def test_a_non_finite_loss_names_step_site_and_row(dg: ModuleType, zoo: ModuleType) -> None:
    y = Y.copy()
    y[17] = 1e30  # its square is no float32
    with pytest.raises(dg.NonFiniteError, match=r"site 'y'.*\(data rows 17\)") as caught:
        fit_of(dg, zoo, y=y)
    error = caught.value
    assert error.site == "y"
    assert 17 in error.rows
    assert len(error.fit.losses) == error.step < 3
    assert np.isfinite(error.fit.losses).all()
    kept = {name: zoo.to_numpy(value) for name, value in error.fit.params.items()}
    assert all(np.isfinite(value).all() for value in kept.values())
    short = fit_of(dg, zoo, y=np.where(y > 1e20, 0.0, y).astype(np.float32), num_steps=3)
    np.testing.assert_array_equal(short.losses[: error.step], error.fit.losses)


def test_a_gradient_that_is_not_finite_stops_the_step(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(dg.NonFiniteError, match=r"gradient of site 'root'") as caught:
        dg.svi(zoo.cusp, None, Y, num_steps=300, progress=False)
    assert caught.value.step == 0
    assert float(caught.value.fit.params["loc"]) == 0.0


@pytest.mark.parametrize("mode", ["eager", "traced"])
def test_an_annealed_run_is_resumed_at_its_weight(
    dg: ModuleType, zoo: ModuleType, tmp_path, mode: str
) -> None:
    if dg.__name__.endswith(".numpyro"):
        if mode == "eager":
            pytest.skip("the NumPyro wing compiles always")
        mode = "auto"
    loss = dg.ELBO(beta=dg.KLAnnealing(150, start=0.1))
    whole = fit_of(dg, zoo, loss=loss, compile=mode)
    path = tmp_path / "run.ckpt"
    stop = [lambda told: told.step >= 70]
    part = fit_of(dg, zoo, loss=loss, checkpoint=path, callbacks=stop, compile=mode)
    assert len(part.losses) < 150
    clear_stop(path)
    again = fit_of(dg, zoo, loss=loss, checkpoint=path, compile=mode)
    same(zoo, whole, again)
    for name in ("loss", "bound", "kl"):
        np.testing.assert_allclose(again.history[name], whole.history[name], rtol=1e-6)
    weight = loss.beta(np.arange(200)).reshape(-1, 2).mean(1)
    expected = (weight - 1) * whole.history["kl"] - whole.history["bound"]
    np.testing.assert_allclose(whole.history["loss"], expected, rtol=0.02)


def test_validation_is_judged_by_the_bound(dg: ModuleType, zoo: ModuleType) -> None:
    options = {"optim": zoo.sgd(0.0), "validation_data": Y, "num_steps": 3, "batch_size": None}
    fits = [fit_of(dg, zoo, loss=dg.ELBO(beta=b), **options) for b in (1.0, 5.0)]
    np.testing.assert_allclose(*(fit.history["validation_loss"] for fit in fits), rtol=1e-5)
    assert fits[1].history["loss"][-1] > fits[0].history["loss"][-1] + 0.01
