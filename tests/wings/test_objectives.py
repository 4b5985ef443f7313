"""What objectives refuse, and what they say of it."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

Y = np.random.default_rng(0).normal(1.0, 1.0, 12).astype(np.float32)

OPTIONS = {
    "kl": (lambda dg: dg.ELBO(kl="exact"), ValueError, "kl must be 'sample' or 'analytic'"),
    "estimator": (lambda dg: dg.ELBO(estimator="x"), ValueError, "estimator must be"),
    "dreg": (lambda dg: dg.ELBO(estimator="dreg"), ValueError, r"dg.IWAE\(estimator='dreg'\)"),
    "both": (
        lambda dg: dg.ELBO(kl="analytic", estimator="stl"), ValueError, "Use one of the two"
    ),
    "beta": (lambda dg: dg.ELBO(beta=-1.0), ValueError, "beta must not be negative, got -1.0"),
    "schedule": (lambda dg: dg.ELBO(beta=lambda t: t), TypeError, "a number or a dg.KLAnnealing"),
    "free_bits": (lambda dg: dg.ELBO(free_bits=-0.1), ValueError, "free_bits must not be negative"),
    "mmd": (lambda dg: dg.ELBO(mmd=float("nan")), ValueError, "mmd must not be negative"),
    "iwae": (lambda dg: dg.IWAE(4, "rws"), ValueError, "'standard', 'stl', 'dreg', got 'rws'"),
    "particles": (lambda dg: dg.IWAE(0), ValueError, "num_particles must be positive"),
    "steps": (lambda dg: dg.KLAnnealing(0), ValueError, "steps and cycles must be positive"),
    "weights": (lambda dg: dg.KLAnnealing(5, end=-1.0), ValueError, "must not be negative"),
    "rise": (lambda dg: dg.KLAnnealing(5, rise=0.0), ValueError, r"rise must lie in \(0, 1\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_out_of_range(dg: ModuleType, name: str) -> None:
    make, error, message = OPTIONS[name]
    with pytest.raises(error, match=message):
        make(dg)


PAIRS = {
    "shared latents": (lambda dg: dg.ELBO(free_bits=0.1), "normal_mean", "loose_guide",
                       "free_bits=0.1 needs latents of a guide in the data plate"),
    "no guide": (lambda dg: dg.IWAE(2, "dreg"), "mean_only", None, "there is none"),
    "discrete": (lambda dg: dg.IWAE(2, "dreg"), "hidden_coins", "hidden_coins_guide",
                 "those of 'b' carry no gradient"),
    "discrete mmd": (lambda dg: dg.ELBO(mmd=1.0), "hidden_coins", "hidden_coins_guide",
                     "mmd=1.0 moves the draws"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_an_objective_does_not_fit(dg: ModuleType, zoo: ModuleType, name: str) -> None:
    make, model, guide, message = PAIRS[name]
    guide_ = None if guide is None else getattr(zoo, guide)
    with pytest.raises(ValueError, match=message):
        dg.svi(getattr(zoo, model), guide_, Y, loss=make(dg), num_steps=2, progress=False)


def test_discrete_latents_take_the_options_that_need_no_gradient(
    dg: ModuleType, zoo: ModuleType
) -> None:
    """A weight of one and the analytic divergence leave the enumerated gradient as it is."""
    y, logit = Y[:6], 0.4
    q = 1 / (1 + np.exp(-logit))
    log_ratio = np.log(0.3 / 0.7) + 0.5 * (y**2 - (y - 1) ** 2) - logit
    exact = float(np.sum(q * (1 - q) * log_ratio))
    error = np.sqrt(np.sum((np.abs(log_ratio) + 4) ** 2) * q * (1 - q) / 20_000)
    for loss in (dg.ELBO(20_000, kl="analytic"), dg.ELBO(20_000, estimator="stl")):
        fit = dg.svi(
            zoo.hidden_coins,
            zoo.hidden_coins_guide,
            y,
            loss=loss,
            num_steps=1,
            optim=zoo.sgd(1.0),
            progress=False,
        )
        assert abs(float(fit.params["logit"]) - logit - exact) < 5 * error


def test_the_discrepancy_is_that_of_numpy(dg: ModuleType, wing: str) -> None:
    rng = np.random.default_rng(1)
    one: Any = rng.normal(0.5, 1.0, (9, 3))
    other: Any = rng.normal(size=(9, 3))
    apart = ~np.eye(9, dtype=bool)

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None] - b[None]) ** 2).sum(-1)[apart]

    width = squares(other, other).mean()
    pairs = ((one, one), (other, other), (one, other))
    exact = np.dot([1, 1, -2], [(width / (width + squares(a, b))).mean() for a, b in pairs])
    if wing == "numpyro":
        from deepgen_ppl.numpyro.objectives.elbo import discrepancy
    else:
        import torch

        from deepgen_ppl.pyro.objectives.elbo import discrepancy

        one, other = torch.as_tensor(one), torch.as_tensor(other)
    assert float(discrepancy(one, other)) == pytest.approx(exact, rel=1e-4)
