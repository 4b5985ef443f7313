"""What latents carry: a collapsed posterior is caught, and the advised remedy revives it."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

X = (load_digits().data[:1000] > 7).astype(np.float32)
OPTIONS = {"num_steps": 400, "batch_size": 200, "progress": False}


def autoencoder(dg: ModuleType) -> Any:
    """A small autoencoder of digits."""
    return dg.VAE((32,), (32,), features=64, latents=4)


@pytest.fixture(scope="module")
def collapsed(dg: ModuleType, zoo: ModuleType) -> tuple[Any, Any]:
    """An autoencoder whose divergence costs twenty times its due, and what a monitor saw of it."""
    vae = autoencoder(dg)
    monitor = dg.LatentMonitor(*vae, X[:200], every=50, patience=1)
    with pytest.warns(UserWarning, match="has collapsed.*free_bits"):
        dg.svi(
            *vae,
            X,
            loss=dg.ELBO(kl="analytic", beta=20.0),
            optim=zoo.adam(3e-3),
            callbacks=[monitor],
            **OPTIONS,
        )
    return vae, monitor


def test_a_collapsed_posterior_is_caught_while_it_is_trained(collapsed: tuple[Any, Any]) -> None:
    _, monitor = collapsed
    report = monitor.reports[-1]
    assert monitor.steps[-1] < 400, "patience stops the run"
    assert report.num_active == 0
    assert report.rate < 0.01
    assert not report.diagnosis.ok
    assert abs(report.information) < 0.1


@pytest.mark.parametrize("remedy", ["free bits", "annealing"])
def test_the_advised_remedy_revives_the_units(dg: ModuleType, zoo: ModuleType, remedy: str) -> None:
    loss = {
        "free bits": dg.ELBO(kl="analytic", beta=20.0, free_bits=0.5),
        "annealing": dg.ELBO(kl="analytic", beta=dg.KLAnnealing(100)),
    }[remedy]
    vae = autoencoder(dg)
    fit = dg.svi(*vae, X, loss=loss, optim=zoo.adam(3e-3), **OPTIONS)
    report = dg.latent_report(*vae, X, params=fit, num_rows=300)
    assert report.num_active == 4
    assert report.diagnosis.ok
    # Rate and distortion are the two parts of the bound, information a part of the rate.
    np.testing.assert_allclose(report.bound, -report.rate - report.distortion, rtol=1e-6)
    assert 0.2 < report.information < report.rate + 5 * report.information_error
    assert report.bits_per_dimension == pytest.approx(-report.bound / np.log(2) / 64)


@pytest.mark.parametrize(("rows", "draws"), [(1, 8), (50, 1)])
def test_too_little_to_report_of(dg: ModuleType, rows: int, draws: int) -> None:
    with pytest.raises(ValueError, match="two rows and two draws"):
        dg.latent_report(*autoencoder(dg), X, params={}, num_rows=rows, num_particles=draws)
