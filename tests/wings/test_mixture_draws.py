"""Draws of mixtures: names of components, assignments, sticks, evidence of every naming."""

import importlib
import itertools
from types import ModuleType

import numpy as np
import pytest

from deepgen_ppl import relabelling

RNG = np.random.default_rng(0)
FIRST = RNG.random(300) < 0.4
NEAR = np.where(FIRST[:, None], RNG.normal(-1, 1, (300, 2)), RNG.normal(1, 1, (300, 2)))
NEAR = NEAR.astype("float32")
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def language(wing: str) -> ModuleType:
    """The language's distributions."""
    return importlib.import_module(f"{wing}.distributions")


def test_draws_of_the_posterior_are_relabelled(dg: ModuleType) -> None:
    rng = np.random.default_rng(1)
    model = dg.mixture("gaussian", 2, covariance="diagonal", priors=True)
    fit = dg.em(model, NEAR, num_starts=1, **QUIET)
    posterior = fit.posterior(num_samples=400)
    shuffle = np.argsort(rng.random((400, 2)), -1)
    for name, value in posterior.draws.items():
        noisy = value[0] * (1 if name == "weights" else 1 + 0.02 * rng.normal(size=value[0].shape))
        posterior.draws[name] = relabelling.permute(noisy, shuffle)[None].astype("float32")
    before = posterior.evaluate("log_likelihood")["x"]
    for method in ("stephens", "ecr"):
        named = model.relabel(posterior, NEAR, method=method)
        assert posterior.draws["loc"][0, :, 0, 0].std() > 0.3
        assert named.draws["loc"][0, :, 0, 0].std() < 0.1
        np.testing.assert_allclose(named.evaluate("log_likelihood")["x"], before, atol=1e-3)
    told = model.assign(named, NEAR, seed=1)
    share = told.draws["responsibilities"].mean((0, 1))
    hits = (told.draws["assignment"] == 1).mean((0, 1))
    error = np.sqrt(share[:, 1] * (1 - share[:, 1]) / 400)
    unsure = np.abs(share[:, 1] - 0.5) < 0.4
    assert unsure.sum() > 20
    assert (np.abs(hits - share[:, 1]) < 5 * error)[unsure].all()
    assert abs((hits - share[:, 1]).sum()) < 5 * np.sqrt((error**2).sum())
    likely = model.responsibilities(fit, NEAR)
    assert min(np.abs(share - likely).max(), np.abs(share[:, ::-1] - likely).max()) < 0.1
    tree = told.to_datatree(groups=())
    assert tree.posterior["loc"].dims[:3] == ("chain", "draw", "component")
    assert tree.posterior["responsibilities"].dims[2] == "data"


def test_sticks_follow_their_weights(dg: ModuleType) -> None:
    model = dg.mixture("gaussian", 3, weights="stick_breaking", priors=True)  # one column
    x = np.concatenate([RNG.normal(m, 0.5, 40) for m in (-3, 0, 3)]).astype("float32")
    posterior = dg.em(model, x, num_starts=1, **QUIET).posterior(num_samples=4)
    order = np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]])
    shares = relabelling.weights(posterior.draws["sticks"])[0]
    for name in ("loc", "scale"):
        posterior.draws[name] = relabelling.permute(posterior.draws[name][0], order)[None]
    posterior.draws["sticks"] = relabelling.sticks(relabelling.permute(shares, order))[None]
    before = posterior.evaluate("log_likelihood")["x"]
    named = model.relabel(posterior, x)
    assert np.ptp(posterior.draws["loc"], axis=1).max() > 2
    assert np.ptp(named.draws["loc"], axis=1).max() < 1e-5
    np.testing.assert_allclose(named.evaluate("log_likelihood")["x"], before, atol=2e-3)
    np.testing.assert_allclose(named.draws["weights"].sum(-1), 1, atol=1e-5)


def test_evidence_counts_every_naming(dg: ModuleType, language: ModuleType) -> None:
    # Two Gaussians of known spread and conjugate locations: 2^8 assignments are enumerated.
    from scipy.special import betaln
    from scipy.stats import multivariate_normal

    x = np.array([-3.2, -2.6, -3.4, -2.9, 3.1, 2.7, 3.3, 2.8], "float32")
    model = dg.mixture(
        "gaussian", 2, concentration=100.0,
        priors={"loc": language.Normal(0.0, 3.0), "scale": language.LogNormal(0.0, 0.01)},
    )  # fmt: skip
    total = []
    for groups in itertools.product((0, 1), repeat=8):
        same = np.equal.outer(groups, groups)
        ones = sum(groups)
        share = betaln(100 + ones, 108 - ones) - betaln(100, 100)
        total.append(multivariate_normal.logpdf(x, None, 9.0 * same + np.eye(8)) + share)
    exact = np.logaddexp.reduce(total)
    fit = dg.em(model, x, num_starts=1, **QUIET)
    rng = np.random.default_rng(0)
    posterior = fit.posterior(num_samples=800)
    counts = np.array([4, 4])
    for k in (0, 1):  # the exact posterior of one naming, where groups are sure
        mine = x[x < 0] if posterior.draws["loc"][0, 0, k] < 0 else x[x > 0]
        variance = 1 / (1 / 9 + counts[k])
        noise = rng.normal(size=(1, 800)) * variance**0.5
        posterior.draws["loc"][..., k] = mine.sum() * variance + noise
    posterior.draws["scale"] = rng.lognormal(0, 0.01, (1, 800, 2)).astype("float32")
    posterior.draws["weights"] = rng.dirichlet([104.0, 104.0], (1, 800)).astype("float32")
    found = model.bridge(posterior, x).evidence
    assert abs(found.log_evidence - exact) < 5 * found.standard_error + 0.02  # spread is not 1
    sticks = dg.mixture("gaussian", 2, weights="stick_breaking", priors=True)
    with pytest.raises(ValueError, match="under stick-breaking"):
        sticks.bridge(posterior, x)
