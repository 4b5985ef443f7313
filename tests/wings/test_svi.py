"""Fits: minibatches, bad input, the user's own state, objectives, and a fit on disk."""

from types import ModuleType

import numpy as np
import pytest

Y = np.random.default_rng(0).normal(1.0, 1.0, 40).astype(np.float32)
QUIET = {"progress": False, "num_steps": 3}


def fit_of(dg: ModuleType, zoo: ModuleType, model: str, guide: str | None, y=Y, **options):
    guide_ = None if guide is None else getattr(zoo, guide)
    return dg.svi(getattr(zoo, model), guide_, y, **{**QUIET, **options})


# ---------------------------------------------------------------------------------- what comes out


def test_a_fit_has_losses_per_datum_and_parameters(dg: ModuleType, zoo: ModuleType) -> None:
    options = {"num_steps": 400, "optim": zoo.adam(0.02), "loss": dg.ELBO(num_particles=20)}
    fit = fit_of(dg, zoo, "normal_mean", "loose_guide", **options)
    exact = Y.sum() / (len(Y) + 1)
    assert fit.losses.shape == (400,)
    assert abs(float(fit.params["loc"]) - exact) < 0.05
    assert abs(float(fit.params["scale"]) - (len(Y) + 1) ** -0.5) < 0.05
    assert 1.0 < fit.losses[-50:].mean() < 2.0
    assert len(fit.history["step"]) == 100
    assert fit.history["step"][-1] == 400


def test_maximum_likelihood_without_a_guide(dg: ModuleType, zoo: ModuleType) -> None:
    fit = fit_of(dg, zoo, "mean_only", None, num_steps=300, optim=zoo.adam(0.05))
    assert abs(float(fit.params["loc"]) - Y.mean()) < 1e-2


def test_an_autoguide_in_minibatches(dg: ModuleType, zoo: ModuleType) -> None:
    guide = zoo.auto_normal(zoo.normal_mean)
    fit = dg.svi(
        zoo.normal_mean,
        guide,
        Y,
        batch_size=10,
        num_steps=600,
        optim=zoo.adam(0.03),
        progress=False,
    )
    found = fit.posterior(num_samples=500).draws["mean"]
    assert abs(found.mean() - Y.sum() / (len(Y) + 1)) < 0.15


def test_warm_start_from_another_fit(dg: ModuleType, zoo: ModuleType) -> None:
    first = fit_of(dg, zoo, "normal_mean", "loose_guide", num_steps=100, optim=zoo.adam(0.05))
    again = fit_of(dg, zoo, "normal_mean", "loose_guide", params=first, optim=zoo.sgd(0.0))
    for name, value in first.params.items():
        np.testing.assert_allclose(zoo.to_numpy(again.params[name]), zoo.to_numpy(value), rtol=1e-6)


# ------------------------------------------------------------------------------- points and normals


def exact_regression() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return x, y, the posterior's mean and covariance, and the log evidence."""
    rng = np.random.default_rng(3)
    x = np.stack([np.ones(50), rng.normal(1.0, 1.0, 50)], axis=1).astype(np.float32)
    y = (x @ [0.5, -1.0] + rng.normal(0.0, 0.5, 50)).astype(np.float32)
    covariance = np.linalg.inv(np.eye(2) + x.T @ x / 0.25)
    marginal = x @ x.T + 0.25 * np.eye(50)
    log_det = np.linalg.slogdet(2 * np.pi * marginal)[1]
    log_evidence = -0.5 * (log_det + y @ np.linalg.solve(marginal, y))
    return x, y, covariance @ x.T @ y / 0.25, covariance, float(log_evidence)


def test_laplace_is_exact_where_the_posterior_is_normal(
    dg: ModuleType, zoo: ModuleType, tmp_path
) -> None:
    x, y, mean, covariance, log_evidence = exact_regression()
    options = {"num_steps": 1500, "optim": zoo.adam(0.03), "progress": False}
    fit = dg.svi(zoo.regression, zoo.auto_laplace(zoo.regression), x, y, **options)
    draws = fit.posterior(num_samples=4000).draws["weights"][0]
    error = np.sqrt(np.diag(covariance) / 4000)
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * error)
    # The entries of a sample covariance have variance (c_ii c_jj + c_ij^2) / S.
    spread = np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * np.sqrt(spread / 4000))
    found = fit.importance(num_particles=1000)
    assert found.evidence.pareto_k < 0.5
    assert found.evidence.ess > 950
    assert abs(found.evidence.log_evidence - log_evidence) < 1e-2
    loaded = dg.load_fit(
        fit.save(tmp_path / "fit.dgp"), zoo.regression, zoo.auto_laplace(zoo.regression)
    )
    answers = [f.importance(x, y, num_particles=50).log_weights for f in (fit, loaded)]
    np.testing.assert_array_equal(*answers)


def test_a_point_is_drawn_but_not_weighed(dg: ModuleType, zoo: ModuleType) -> None:
    x, y, mean, _, _ = exact_regression()
    options = {"num_steps": 1500, "optim": zoo.adam(0.03), "progress": False}
    fit = dg.svi(zoo.regression, zoo.auto_point(zoo.regression), x, y, **options)
    draws = fit.posterior(num_samples=3).draws["weights"][0]
    np.testing.assert_allclose(draws, np.tile(mean, (3, 1)), atol=1e-3)
    with pytest.raises(ValueError, match="all its mass on one point of 'weights'"):
        fit.importance()
    assert [check.name for check in fit.diagnose().checks] == [
        "loss still falling",
        "non-finite steps",
    ]


# --------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize("coins, scale", [("hidden_coins", 1.0), ("half_coins", 0.5)])
def test_score_function_gradient_is_the_enumerated_one(
    dg: ModuleType, zoo: ModuleType, coins: str, scale: float
) -> None:
    y, logit = Y[:6], 0.4
    q = 1 / (1 + np.exp(-logit))
    fit = fit_of(
        dg,
        zoo,
        coins,
        f"{coins}_guide",
        y=y,
        num_steps=1,
        optim=zoo.sgd(1.0),
        loss=dg.ELBO(num_particles=20_000),
    )
    moved = float(fit.params["logit"]) - logit
    log_ratio = np.log(0.3 / 0.7) + 0.5 * (y**2 - (y - 1) ** 2) - logit
    exact = scale * float(np.sum(q * (1 - q) * log_ratio))
    # Each row's estimate has at most variance E[w^2] / K; five standard errors of the sum.
    error = scale * np.sqrt(np.sum((np.abs(log_ratio) + 4) ** 2) * q * (1 - q) / 20_000)
    assert abs(moved - exact) < 5 * error


@pytest.mark.parametrize("name", ["IWAE", "Renyi"])
def test_bounds_refuse_batches_of_shared_latents(
    dg: ModuleType, zoo: ModuleType, name: str
) -> None:
    loss = getattr(dg, name)(num_particles=4)
    with pytest.raises(ValueError, match="no latents in the data plate"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", batch_size=5, loss=loss)


def test_an_unknown_loss_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"loss must be dg\.ELBO"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", loss="elbo")


# ---------------------------------------------------------------------------------------- bad input

BAD_PAIRS = [
    ("normal_mean", None, "guide=None means no latent sites .* samples 'mean'"),
    ("normal_mean", "empty_guide", "the model samples 'mean', which the guide lacks"),
    ("normal_mean", "guide_of_another", "the guide samples 'slope', which the model lacks"),
    ("normal_mean", "observing_guide", "the guide conditions on site 'w', which the model lacks"),
    ("normal_mean", "wide_guide", "site 'mean' has shape .* in the model and .* in the guide"),
]


@pytest.mark.parametrize(("model", "guide", "message"), BAD_PAIRS)
def test_model_and_guide_must_match(
    dg: ModuleType, zoo: ModuleType, model: str, guide: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_of(dg, zoo, model, guide)


BAD_BATCHES = [
    ("normal_mean", 41, "batch_size=41 is larger than the data: 40 rows"),
    ("normal_mean", 0, "batch_size must be a positive whole number"),
    ("subsampling", 10, "plate 'data' subsamples by itself"),
    ("plateless", 10, "'y'.* stand outside any plate that follows the data"),
    ("factor_outside", 10, "'tilt' depend on the data rows but stand outside"),
]


@pytest.mark.parametrize(("model", "batch_size", "message"), BAD_BATCHES)
def test_batches_that_cannot_be_scaled_are_refused(
    dg: ModuleType, zoo: ModuleType, model: str, batch_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_of(dg, zoo, model, "loose_guide", batch_size=batch_size)


def test_a_model_that_subsamples_by_itself_is_left_alone(dg: ModuleType, zoo: ModuleType) -> None:
    fit = fit_of(dg, zoo, "subsampling", "loose_guide", num_steps=300, optim=zoo.adam(0.05))
    assert abs(float(fit.params["loc"]) - Y.sum() / (len(Y) + 1)) < 0.5


def test_unequal_leading_axes_are_refused_in_batches(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="equal leading axes, got x: 40, y: 39 rows"):
        dg.svi(zoo.line, zoo.auto_normal(zoo.line), Y, Y[:-1], batch_size=10, **QUIET)


def test_empty_data_are_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="data argument 'y' is empty"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", y=Y[:0])


def test_nan_in_the_data_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    y = Y.copy()
    y[[3, 7]] = np.nan
    with pytest.raises(ValueError, match="data argument 'y' holds NaN in 2 of 40 rows: 3, 7"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", y=y)


def test_integers_at_a_real_site_are_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(TypeError, match="site 'y' has real support but its data are integers"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", y=np.arange(40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be positive"),
        ({"patience": 3}, "patience counts validations"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"compile": "fast"}, "compile='fast'"),
    ],
)
def test_bad_options_are_refused(
    dg: ModuleType, zoo: ModuleType, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_of(dg, zoo, "normal_mean", "loose_guide", **options)


def test_an_optimizer_of_no_known_kind_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(TypeError, match="optim must be"):
        fit_of(dg, zoo, "normal_mean", "loose_guide", optim="adam")


# ------------------------------------------------------------------------------------------ on disk


def test_a_saved_fit_gives_the_same_answers(dg: ModuleType, zoo: ModuleType, tmp_path) -> None:
    fit = fit_of(dg, zoo, "normal_mean", "loose_guide", num_steps=50)
    loaded = dg.load_fit(fit.save(tmp_path / "fit.dgp"), zoo.normal_mean, zoo.loose_guide)
    np.testing.assert_array_equal(loaded.losses, fit.losses)
    answers = [f.importance(Y, num_particles=50).log_weights for f in (fit, loaded)]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(ValueError, match="holds no data"):
        loaded.importance(num_particles=5)


def test_a_truncated_fit_is_refused(dg: ModuleType, zoo: ModuleType, tmp_path) -> None:
    path = fit_of(dg, zoo, "normal_mean", "loose_guide").save(tmp_path / "fit.dgp")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"fit\.dgp"):
        dg.load_fit(path, zoo.normal_mean, zoo.loose_guide)


def test_a_fit_of_another_model_is_refused(dg: ModuleType, zoo: ModuleType, tmp_path) -> None:
    path = fit_of(dg, zoo, "normal_mean", "loose_guide").save(tmp_path / "fit.dgp")
    with pytest.raises(ValueError, match="fit of another model or guide"):
        dg.load_fit(path, zoo.hidden_coins, zoo.hidden_coins_guide)
