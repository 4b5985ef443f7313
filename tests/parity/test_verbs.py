"""The verbs give the same numbers where nothing is drawn, and weigh each other's draws alike."""

import numpy as np
import optax
import pyro
import pytest
import torch

import deepgen_ppl.numpyro as numpyro_wing
import deepgen_ppl.pyro as pyro_wing

from ..exactness import programs_numpyro as conjugate_numpyro
from ..exactness import programs_pyro as conjugate_pyro
from ..exactness.oracles import ORACLES
from . import programs_numpyro, programs_pyro
from .sides import pyro_side, ratio, to_numpy
from .weights import BITS


@pytest.fixture(autouse=True)
def empty_store():
    """No parameter of another test in Pyro's store."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optax.sgd(0.005), lambda params: torch.optim.SGD(params, lr=0.005)),
        (optax.adam(0.01), lambda params: torch.optim.Adam(params, lr=0.01)),
    ],
    ids=["sgd", "adam"],
)
def test_training_without_draws_takes_the_same_path(ours, theirs) -> None:
    """Fifty full steps of maximum likelihood: equal losses and equal weights at the end."""
    options = {"num_steps": 50, "progress": False}
    first = numpyro_wing.svi(programs_numpyro.autoencoder, None, BITS, optim=ours, **options)
    second = pyro_wing.svi(programs_pyro.autoencoder, None, BITS, optim=theirs, **options)
    np.testing.assert_allclose(first.losses, second.losses, rtol=1e-6)
    for name, value in to_numpy(second.params).items():
        np.testing.assert_allclose(first.params[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vae", "normal_mean", "counts"])
def test_importance_log_weights_of_equal_draws(name: str) -> None:
    """Draws and log weights of the NumPyro wing's `importance`, weighed again by the Pyro wing."""
    if name == "vae":
        first, second, data = programs_numpyro, programs_pyro, (BITS,)
    else:
        first, second, data = conjugate_numpyro, conjugate_pyro, ORACLES[name]().data
    model, guide = (getattr(first, f"{name}{suffix}") for suffix in ("", "_guide"))
    side = pyro_side(getattr(second, name), getattr(second, f"{name}_guide"), data)
    params = to_numpy(side.params)
    posterior = numpyro_wing.importance(model, guide, *data, num_particles=10, params=params)
    log_weights = np.asarray(posterior.log_weights)[0]
    for particle in range(10):
        latents = {site: np.asarray(x[0, particle]) for site, x in posterior.draws.items()}
        rows, shared = ratio(side, latents)
        expected = rows if log_weights.ndim == 2 else rows.sum() + shared
        np.testing.assert_allclose(log_weights[particle], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ELBO", "IWAE", "Renyi"])
def test_objectives_at_the_exact_posterior(name: str) -> None:
    """Where every log weight is the log evidence, each objective of either wing is minus that."""
    exact = ORACLES["local_normal"]()
    (y,) = exact.data
    losses = []
    for wing, programs in ((numpyro_wing, conjugate_numpyro), (pyro_wing, conjugate_pyro)):
        objective = wing.Renyi(0.5) if name == "Renyi" else getattr(wing, name)()
        fit = wing.svi(
            programs.local_normal,
            programs.local_normal_guide,
            y,
            params={"slope": np.asarray(0.8), "scale": np.asarray(0.2**0.5)},
            optim=programs.standing_still(),
            loss=objective,
            num_steps=2,
            progress=False,
        )
        losses.append(fit.losses)
    np.testing.assert_allclose(losses[0], -exact.log_evidence / len(y), rtol=1e-6)
    np.testing.assert_allclose(losses[1], -exact.log_evidence / len(y), rtol=1e-6)
