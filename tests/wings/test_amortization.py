"""Refined posteriors and the two parts of an inference gap, against closed forms."""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import multivariate_normal, norm

FEATURES, LATENTS, ROWS = 5, 2, 60


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """The wing's autoencoders as functions of arrays."""
    return importlib.import_module(f"tests.wings.vae_{wing}")


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """Programs in the wing's language."""
    return importlib.import_module(f"tests.wings.amortization_{wing}")


class Linear:
    """A linear Gaussian autoencoder whose posterior is correlated, in closed form."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.weight = rng.normal(size=(LATENTS, FEATURES))
        self.weight[1] = 0.7 * self.weight[0] + 0.5 * self.weight[1]
        noise, self.variance = rng.normal(size=(ROWS, FEATURES)), 0.5
        x = rng.normal(size=(ROWS, LATENTS)) @ self.weight + self.variance**0.5 * noise
        self.x = x.astype("float32")
        covariance: Any = self.weight.T @ self.weight + self.variance * np.eye(FEATURES)
        self.log_evidence = multivariate_normal(np.zeros(FEATURES), covariance).logpdf(self.x)
        self.precision = np.eye(LATENTS) + self.weight @ self.weight.T / self.variance
        self.encoder = self.weight.T @ np.linalg.inv(self.precision) / self.variance
        self.means = self.x @ self.encoder
        self.spread = np.diag(self.precision) ** -0.5

    @property
    def family(self) -> float:
        """What the best diagonal normal lacks at every row."""
        return 0.5 * (np.log(np.diag(self.precision)).sum() - np.linalg.slogdet(self.precision)[1])

    def divergence(self, means: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Divergence of diagonal normals from the posterior, by row."""
        off = means - self.means
        trace = spread**2 @ np.diag(self.precision) - LATENTS
        logs = -2 * np.log(spread).sum() - np.linalg.slogdet(self.precision)[1]
        return 0.5 * (trace + logs + np.einsum("ni,ij,nj->n", off, self.precision, off))

    def put_into(self, on: ModuleType, vae: Any, slope: float = 1.0, wider: float = 1.0) -> None:
        """Give an autoencoder without hidden layers the weights, or an encoder that is off."""
        on.set_linear(vae, "decoder", self.weight, np.zeros(FEATURES))
        count = vae.posterior.outputs(LATENTS)
        encoder, bias = np.zeros((FEATURES, count)), np.zeros(count)
        encoder[:, :LATENTS] = slope * self.encoder
        if vae.posterior.name == "full":
            root = np.linalg.cholesky(np.linalg.inv(self.precision))
            bias[LATENTS:] = *np.log(wider * np.diag(root)), wider * root[1, 0]
        else:
            bias[LATENTS:] = np.log(wider * self.spread)
        on.set_linear(vae, "encoder", encoder, bias)
        on.set_value(vae, "likelihood", "log_scale", 0.5 * np.log(self.variance))


class Found(NamedTuple):
    vae: Any
    best: Any
    crippled: Any


@pytest.fixture(scope="module")
def truth() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def diagonal(dg: ModuleType, on: ModuleType, truth: Linear) -> Found:
    """A diagonal autoencoder with the best encoder, and with one that is off."""
    options = {"features": FEATURES, "latents": LATENTS, "likelihood": "gaussian"}
    one, other = (dg.VAE((), (), **options) for _ in range(2))
    truth.put_into(on, one)
    truth.put_into(on, other, 0.6, 1.5)
    return Found(one, on.params(one, truth.x), on.params(other, truth.x))


def near(values: np.ndarray, expected: Any, slack: float = 0.01) -> bool:
    """Whether the mean over rows is as expected, within five errors of it and a little."""
    apart = values - expected
    return abs(apart.mean()) < 5 * apart.std(ddof=1) / len(apart) ** 0.5 + slack


def test_the_best_encoder_leaves_the_family_alone(
    dg: ModuleType, truth: Linear, diagonal: Found
) -> None:
    found = dg.amortization_gap(*diagonal.vae, diagonal.best, truth.x)
    assert near(found.log_evidence, truth.log_evidence)
    assert near(found.log_evidence - found.refined, truth.family)
    assert abs(found.amortization) < 5 * found.amortization_error + 0.005
    assert found.settled.all()
    checks = {check.name: check.ok for check in found.diagnosis.checks}
    assert checks["amortization gap"] and not checks["approximation gap"]
    assert (found.own, found.shared) == (4, 24)


def test_an_encoder_that_is_off_costs_its_divergence(
    dg: ModuleType, truth: Linear, diagonal: Found
) -> None:
    evidence = truth.log_evidence
    found = dg.amortization_gap(*diagonal.vae, diagonal.crippled, truth.x, evidence=evidence)
    off = truth.divergence(0.6 * truth.means, 1.5 * truth.spread)
    assert near(found.log_evidence - found.bound, off)
    assert near(found.refined - found.bound, off - truth.family)
    assert near(found.log_evidence - found.refined, truth.family)
    assert found.amortization > 5 * found.amortization_error
    failed = [check.name for check in found.diagnosis.failed]
    assert failed == ["amortization gap"]
    assert "dg.refine" in repr(found)


def test_a_family_that_holds_the_posterior_leaves_no_gap(
    dg: ModuleType, on: ModuleType, truth: Linear
) -> None:
    options = {"features": FEATURES, "latents": LATENTS, "likelihood": "gaussian"}
    vae = dg.VAE((), (), posterior="full", **options)
    truth.put_into(on, vae, 0.6, 1.5)
    found = dg.amortization_gap(*vae, on.params(vae, truth.x), truth.x)
    assert abs(found.approximation) < 5 * found.approximation_error + 0.005
    assert found.inference > 0.3
    np.testing.assert_allclose(found.log_evidence, truth.log_evidence, atol=0.01)


def test_refining_only_helps(dg: ModuleType, truth: Linear, diagonal: Found) -> None:
    """More steps, higher bounds; no row is left below the encoder's, and none above the best."""
    few = dg.refine(*diagonal.vae, diagonal.crippled, truth.x, num_steps=10)
    many = dg.refine(*diagonal.vae, diagonal.crippled, truth.x)
    for found in (few, many):
        assert (found.history["bound"] >= found.history["encoder_bound"]).all()
    best = truth.log_evidence - truth.family
    start = (truth.log_evidence - truth.divergence(0.6 * truth.means, 1.5 * truth.spread)).mean()
    assert start + 0.1 < few.history["bound"].mean() < many.history["bound"].mean()
    assert near(many.history["bound"], best)
    assert many.history["settled"].all() and len(few.losses) == 10
    means = 0.6 * truth.means + np.asarray(many.params["own_z_loc"])
    np.testing.assert_allclose(means, truth.means, atol=0.1)
    # What it returns is a fit as any other.
    weighed = many.importance(num_particles=200).evidence
    assert abs(weighed.log_evidence - truth.log_evidence.sum()) < 5 * weighed.standard_error


def test_latents_that_hang_together(dg: ModuleType, programs: ModuleType) -> None:
    """The guide keeps how one latent is drawn given the other, and moves both."""
    x = np.array([-2.0, 0.3, 1.5], "float32")
    found = dg.refine(programs.chain, programs.blind_chain, {}, x)
    assert (
        np.abs(found.history["bound"] - norm.logpdf(x, scale=(1 + 0.49 + 0.25) ** 0.5)).max() < 0.02
    )
    low = np.asarray(found.params["own_low_loc"])
    np.testing.assert_allclose(low, x * 1.49 / 1.74, atol=0.03)


def test_discrete_latents_go_by_their_score(dg: ModuleType, programs: ModuleType) -> None:
    x = np.array([-1.0, 1.0, 1.5, 3.0], "float32")
    found = dg.refine(programs.coins, programs.blind_coins, {}, x, num_particles=32)
    odds = np.log(0.3 / 0.7) + norm.logpdf(x, 2) - norm.logpdf(x)
    exact = np.logaddexp(np.log(0.3) + norm.logpdf(x, 2), np.log(0.7) + norm.logpdf(x))
    logits = np.asarray(found.params["own_z_logits"])
    np.testing.assert_allclose(expit(logits), expit(odds), atol=0.05)
    np.testing.assert_allclose(found.history["bound"], exact, atol=0.02)


@pytest.mark.parametrize(
    ("model", "guide", "match"),
    [
        ("shared", "shared_guide", "needs every latent.*in the data plate"),
        ("chain", "point", "one value"),
        ("chain", "touching", "depends on another row"),
    ],
)
def test_what_has_no_bound_of_its_own_is_refused(
    dg: ModuleType, programs: ModuleType, model: str, guide: str, match: str
) -> None:
    pair = getattr(programs, model), getattr(programs, guide)
    with pytest.raises(ValueError, match=match):
        dg.refine(*pair, {}, np.array([0.5, -1.0, 2.0], "float32"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0}, "num_steps must be a positive whole number"),
        ({"num_steps": 20.0}, "num_steps must be a positive whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_of_refine_that_are_refused(
    dg: ModuleType, programs: ModuleType, options: dict, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        dg.refine(programs.chain, programs.blind_chain, {}, np.zeros(3, "float32"), **options)


def test_evidence_that_does_not_fit_is_refused(dg: ModuleType, programs: ModuleType) -> None:
    x, pair = np.zeros(3, "float32"), (programs.chain, programs.blind_chain)
    with pytest.raises(ValueError, match="one number for each of the 3 rows"):
        dg.amortization_gap(*pair, {}, x, evidence=np.zeros(2))
    with pytest.raises(TypeError, match="before the data, not a ndarray"):
        dg.amortization_gap(*pair, x)
    with pytest.raises(ValueError, match="num_particles be two or more"):
        dg.amortization_gap(*pair, {}, x[:1], num_particles=1)


def test_a_single_row_is_refined_too(dg: ModuleType, programs: ModuleType) -> None:
    """To the closed form, and the fit serves on as that of more rows."""
    x = np.array([1.5], "float32")
    found = dg.refine(programs.chain, programs.blind_chain, {}, x)
    exact = norm.logpdf(x, scale=(1 + 0.49 + 0.25) ** 0.5)
    assert np.abs(found.history["bound"] - exact).max() < 0.02
    np.testing.assert_allclose(np.asarray(found.params["own_low_loc"]), x * 1.49 / 1.74, atol=0.03)
    weighed = found.importance(num_particles=500).evidence
    np.testing.assert_allclose(weighed.per_row, exact, atol=5 * weighed.standard_error + 1e-4)
    gap = dg.amortization_gap(programs.chain, programs.blind_chain, {}, x, num_particles=500)
    assert 0 < gap.inference_error < 0.2
    assert gap.inference == pytest.approx(exact[0] - gap.bound[0], abs=5 * gap.inference_error)
    assert "+- nan" not in repr(gap)
