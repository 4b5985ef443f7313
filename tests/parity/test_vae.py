"""Autoencoders of equal weights are equal on both wings, to 1e-6, on every axis."""

from typing import Any

import numpy as np
import pytest
import torch

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro
from deepgen_ppl.joint_states import grid
from deepgen_ppl.numpyro import relaxation as numpyro_relaxation
from deepgen_ppl.pyro import relaxation as pyro_relaxation

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


DISCRETE: dict[str, Any] = {
    "binary": {"posterior": "binary", "prior": "binary"},
    "categorical": {
        "posterior": lambda dg: dg.vae.CategoricalPosterior(3),
        "prior": lambda dg: dg.vae.CategoricalPrior(3),
    },
}


@pytest.mark.parametrize("kind", DISCRETE)
def test_discrete_codes_are_summed_over(kind: str) -> None:
    """The enumerated bound is the sum by hand over all codes, and the same on both wings."""
    latents = 3 if kind == "binary" else 6
    x = data_of(LIKELIHOODS["bernoulli"], 6, FEATURES)
    codes = grid([2] * 3) if kind == "binary" else np.eye(3)[grid([3] * 2)].reshape(9, 6)
    bounds, losses = [], []
    for dg, on in SIDES:
        options = {n: v(dg) if callable(v) else v for n, v in DISCRETE[kind].items()}
        vae = on.stirred(dg.VAE((8,), (8,), features=FEATURES, latents=latents, seed=3, **options))
        found = np.array([on.densities(vae, np.tile(z, (6, 1)), x) for z in codes])
        log_p, log_q = found[:, 0], found[:, 1]
        agree(np.exp(log_q).sum(0), 1.0)
        bounds.append((np.exp(log_q) * (log_p - log_q)).sum(0).mean())
        fit = dg.svi(*vae, x, num_steps=1, loss=dg.EnumeratedELBO(), progress=False)
        losses.append(fit.losses[0])
    agree(bounds[0], bounds[1])
    agree(-np.array(losses), np.array(bounds))


def test_relaxed_draws_of_the_same_noise() -> None:
    rng = np.random.default_rng(0)
    logits, noise = rng.normal(size=(2, 5, 3, 4))
    for straight in (False, True):
        for name in ("soft_bits", "soft_states"):
            ours = getattr(numpyro_relaxation, name)(logits, noise, 0.7, straight)
            tensors = torch.as_tensor(logits), torch.as_tensor(noise)
            theirs = getattr(pyro_relaxation, name)(*tensors, 0.7, straight)
            agree(np.asarray(ours), theirs.numpy())
            assert straight == bool(np.isin(np.round(ours, 12), (0.0, 1.0)).all())
