"""Autoencoders of equal weights are equal on both wings, to 1e-6, on every axis."""

from typing import Any

import numpy as np
import pytest

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro

from ..wings import vae_numpyro, vae_pyro
from ..wings.test_vae import LIKELIHOODS, POSTERIORS, PRIORS, data_of

SIDES = ((on_numpyro, vae_numpyro), (on_pyro, vae_pyro))
FEATURES, LATENTS = 4, 2


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def both(options: dict[str, Any], *data: Any) -> None:
    """Compare weights of equal seeds, then densities after the same noise on them."""
    z = np.random.default_rng(1).normal(size=(len(data[0]), LATENTS))
    built = [
        dg.VAE((8,), (8,), features=FEATURES, latents=LATENTS, seed=3,
               **{n: v(dg) if callable(v) else v for n, v in options.items()})
        for dg, _ in SIDES
    ]  # fmt: skip
    for read in (lambda on, vae: on.weights(vae), lambda on, vae: on.weights(on.stirred(vae))):
        ours, theirs = (read(on, vae) for vae, (_, on) in zip(built, SIDES, strict=True))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            agree(value, theirs[name])
    found = [on.densities(vae, z, *data) for vae, (_, on) in zip(built, SIDES, strict=True)]
    assert np.isfinite(found[0]).all()
    agree(*found)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood(name: str) -> None:
    kind = LIKELIHOODS[name]
    x = data_of(kind, 6, FEATURES)
    both({"likelihood": kind}, x)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_every_posterior_and_prior(prior: str, posterior: str) -> None:
    x = data_of(LIKELIHOODS["bernoulli"], 6, FEATURES)
    both({"prior": PRIORS[prior], "posterior": POSTERIORS[posterior]}, x)


@pytest.mark.parametrize("name", ["categorical", "poisson, zero-inflated"])
def test_missing_cells(name: str) -> None:
    x = data_of(LIKELIHOODS[name], 6, FEATURES)
    mask = np.random.default_rng(2).uniform(size=x.shape) < 0.7
    mask[:, 0] = True
    both({"likelihood": LIKELIHOODS[name]}, x, None, mask)


def test_conditions() -> None:
    x = data_of(LIKELIHOODS["gaussian"], 6, FEATURES)
    y = np.random.default_rng(3).normal(size=(6, 3))
    options = {"context": 3, "prior": lambda dg: dg.flows.NICE(LATENTS, 3, hidden=(8,))}
    both({"likelihood": "gaussian", **options}, x, y)


def test_ladder() -> None:
    x = data_of(LIKELIHOODS["bernoulli"], 6, FEATURES)
    both({"prior": PRIORS["hierarchical"], "posterior": "ladder"}, x)
