"""Tables with Dirichlet rows: `mcmc` and `svi` find the posterior that counting gives."""

from types import ModuleType

import numpy as np

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.net_learning import dirichlet_posterior

WEATHER = BayesNet(
    {"rain": ("no", "yes"), "grass": ("dry", "damp", "wet")},
    {"grass": ("rain",)},
    {"rain": [0.7, 0.3], "grass": [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]},
)
WEATHER_ROWS = WEATHER.sample(60, seed=0)


def test_hmc_draws_the_dirichlet_posterior(dg: ModuleType) -> None:
    from arviz_stats.base import array_stats

    posterior = dirichlet_posterior(WEATHER, WEATHER_ROWS, concentration=0.5)
    model = dg.bayes_net(WEATHER, learnable="dirichlet", concentration=0.5)
    options = {"num_warmup": 200, "num_samples": 300, "num_chains": 2, "progress": False}
    draws = dg.mcmc(model, WEATHER_ROWS, **options, seed=1).draws
    for variable, sd in posterior.standard_deviations.items():
        x = np.asarray(draws[f"{variable}_table"], float)
        assert x.shape == (2, 300, *sd.shape)
        for index in np.ndindex(*sd.shape):
            element, mean = x[(..., *index)], posterior.mean.tables[variable][index]
            size = float(array_stats.ess(element))
            assert abs(element.mean() - mean) < 5 * sd[index] / size**0.5
            square = (element - mean) ** 2
            error = square.std() / float(array_stats.ess(square)) ** 0.5
            assert abs(square.mean() - sd[index] ** 2) < 5 * error


def test_svi_finds_the_dirichlet_posterior(dg: ModuleType, programs: ModuleType) -> None:
    posterior = dirichlet_posterior(WEATHER, WEATHER_ROWS)
    model, guide = dg.bayes_net(WEATHER, learnable="dirichlet"), programs.dirichlet_guide(WEATHER)
    options = {"num_steps": 800, "optim": programs.adam(0.1, 800), "progress": False}
    fit = dg.svi(model, guide, WEATHER_ROWS, loss=dg.ELBO(num_particles=4), **options)
    draws = fit.posterior(num_samples=4000).draws
    for variable, sd in posterior.standard_deviations.items():
        x = np.asarray(draws[f"{variable}_table"], float).reshape(-1, *sd.shape)
        away = (x.mean(0) - posterior.mean.tables[variable]) / sd
        # five standard errors of 4,000 draws, and a twentieth of an sd for the optimizer's noise
        assert (np.abs(away) < 5 / 4000**0.5 + 0.05).all()
        assert (np.abs(x.std(0) / sd - 1) < 5 / 4000**0.5 + 0.1).all()
    evidence = fit.importance(num_particles=1000, seed=2).evidence
    error = max(evidence.standard_error, 1e-3)
    assert abs(evidence.log_evidence - posterior.log_evidence) < 5 * error
