"""EM in double precision: scikit-learn's figures from the same start, the same on both wings."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import deepgen_ppl.numpyro as numpyro_wing
import deepgen_ppl.pyro as pyro_wing

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-1, 1, (150, 3)), RNG.normal(2, [0.5, 1, 2], (250, 3))])
NAMES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
COUNTS = RNG.negative_binomial(3, 1 / (1 + RNG.choice([0.7, 6], (300, 1)) * np.ones(2)))
BITS = RNG.random((300, 6)) < RNG.choice([0.2, 0.85], (300, 1))
TAILS = RNG.standard_t(3, (300, 2)) + RNG.choice([-2, 2], (300, 1))
TABLE = {
    "student_t": (TAILS, {}),
    "student_t diagonal": (TAILS, {"covariance": "diagonal"}),
    "bernoulli": (BITS, {}),
    "categorical": (COUNTS % 3, {"num_states": 3}),
    "poisson": (COUNTS, {}),
    "negative_binomial": (COUNTS, {}),
}


def fitted(steps: int, covariance: str, **options) -> GaussianMixture:
    """scikit-learn's mixture of three after so many steps."""
    kind = NAMES[covariance]
    model = GaussianMixture(3, covariance_type=kind, max_iter=steps, tol=0.0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def start_of(model: GaussianMixture, covariance: str) -> dict[str, np.ndarray]:
    """A mixture's parameters under our names."""
    found = {"weights": model.weights_, "loc": model.means_}
    if covariance in ("diagonal", "spherical"):
        return {**found, "scale": np.sqrt(model.covariances_)}
    scale = np.sqrt(np.diagonal(model.covariances_, axis1=-2, axis2=-1))
    correlation = model.covariances_ / scale[..., :, None] / scale[..., None, :]
    return {**found, "scale": scale, "correlation_tril": np.linalg.cholesky(correlation)}


@pytest.mark.parametrize("covariance", NAMES)
def test_the_log_likelihood_is_that_of_scikit_learn(covariance: str) -> None:
    first = fitted(1, covariance, init_params="random", random_state=1)
    given = {"weights_init": first.weights_, "means_init": first.means_,
             "precisions_init": first.precisions_}  # fmt: skip
    start = start_of(first, covariance)
    for steps in (1, 5, 30):
        theirs = fitted(steps, covariance, **given)
        for wing in (numpyro_wing, pyro_wing):
            model = wing.mixture("gaussian", 3, covariance=covariance)
            ours = wing.em(
                model, X, params=start, num_steps=steps, tolerance=1e-300, progress=False
            )
            assert abs(-ours.losses[-1] * len(X) - theirs.score(X) * len(X)) < 1e-6
            assert (np.diff(ours.losses) <= 1e-9).all()
            np.testing.assert_allclose(ours.params["loc"], theirs.means_, atol=1e-6)


@pytest.mark.parametrize("row", TABLE)
def test_every_family_climbs_alike_on_both_wings(row: str) -> None:
    x, options = TABLE[row]
    losses = []
    for wing in (numpyro_wing, pyro_wing):
        model = wing.mixture(row.split()[0], 2, **options)
        fit = wing.em(model, x.astype(float), num_starts=1, num_steps=25, progress=False)
        assert (np.diff(fit.losses) <= 1e-7).all()  # Student-t: the floor of 1e-6 costs a little
        losses.append(fit.losses)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
