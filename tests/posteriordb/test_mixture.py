"""A mixture whose means have no order gives posteriordb's draws once it is relabelled."""

import importlib
import warnings
from types import ModuleType

import numpy as np

from .reference import compare, load, worst

NAME = "low_dim_gauss_mix-low_dim_gauss_mix"


def test_hmc_recovers_low_dim_gauss_mix_after_relabelling(dg: ModuleType, wing: str) -> None:
    dist = importlib.import_module(f"{wing}.distributions")
    y = np.asarray(load(NAME).data["y"], "float32")
    priors = {"loc": dist.Normal(0.0, 2.0), "scale": dist.HalfNormal(2.0)}
    model = dg.mixture("gaussian", 2, priors=priors, concentration=5.0)
    options = {"num_chains": 16, "num_warmup": 200, "num_samples": 400, "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have not mixed.*", UserWarning)  # names differ
        posterior = dg.mcmc(model, y, kernel="chees", **options)
    # Names are shuffled between chains, as a longer run would.
    swapped = np.arange(16) % 2 == 1
    for name, value in posterior.draws.items():
        posterior.draws[name] = np.where(
            swapped.reshape(16, *(1,) * (value.ndim - 1)), value[:, :, ::-1], value
        )
    assert posterior.summary()["r_hat"].max() > 1.2
    named = model.relabel(posterior, y)
    assert named.summary()["r_hat"].max() < 1.02
    order = np.argsort(named.draws["loc"].mean((0, 1)))
    draws = {
        "mu": named.draws["loc"][..., order],
        "sigma": named.draws["scale"][..., order],
        "theta": named.draws["weights"][..., order[0]],
    }
    rows = compare(NAME, draws)
    assert worst(rows) < 5, "\n".join(map(str, rows))
