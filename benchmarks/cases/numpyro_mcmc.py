"""A repeated `mcmc` on NumPyro: ours, `MCMC.run` again, NumPyro's kernel compiled once."""

from __future__ import annotations

from functools import partial

import arviz_stats
import jax
import numpy as np

from benchmarks import programs_numpyro
from benchmarks.baselines import mcmc_numpyro
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.data import eight_schools, logistic, old_faithful

REQUIRES = ("jax", "numpyro")
VARIANTS = ("eight_schools", "logistic", "mixture")


def build(variant: str, quick: bool) -> Case:
    """Return the case of one model: 4 chains of 1,000 warm-up and 1,000 kept steps."""
    model = getattr(programs_numpyro, variant)
    data = {"eight_schools": eight_schools, "logistic": logistic}.get(
        variant, lambda: (old_faithful(),)
    )()
    data = tuple(jax.device_put(x) for x in data)
    num_warmup = num_samples = 100 if quick else 1000
    lengths = {"num_warmup": num_warmup, "num_samples": num_samples}

    def ours():
        import deepgen_ppl.numpyro as dg

        def run(seed: int) -> Run:
            with timed() as clock:
                posterior = dg.mcmc(
                    model, *data, **lengths, num_chains=4, progress=False, seed=seed
                )
            return Run(clock.seconds, 0.0, quality(posterior.draws))

        run(0)
        return run

    def mcmc_run(chain_method: str):
        def run(seed: int) -> Run:
            with timed() as clock:
                draws = mcmc_numpyro.run(
                    model, data, **lengths, chain_method=chain_method, seed=seed
                )
            return Run(clock.seconds, 0.0, quality(draws))

        run(0)
        return run

    def kernel_once():
        sample = mcmc_numpyro.make_kernel_once(model, data, **lengths)

        def run(seed: int) -> Run:
            with timed() as clock:
                draws = sample(seed)
            return Run(clock.seconds, 0.0, quality(draws))

        run(0)
        return run

    return Case(
        work=8 * num_samples,
        unit="iterations",
        contenders=(
            Contender("ours, repeated", ours),
            Contender("MCMC.run, sequential", partial(mcmc_run, "sequential")),
            Contender("MCMC.run, vectorized", partial(mcmc_run, "vectorized")),
            Contender("NumPyro's kernel compiled once", kernel_once),
        ),
        targets=(
            Target("ours, repeated", "MCMC.run, sequential", 15.0),
            Target("ours, repeated", "MCMC.run, vectorized", None),
            Target("ours, repeated", "NumPyro's kernel compiled once", 1.0),
        ),
        repeats=2 if quick else 3,
        notes=(f"4 chains of {num_warmup} + {num_samples}; our time is that of the whole call",),
    )


def quality(draws) -> dict[str, float]:
    """Return the smallest bulk ESS and the largest R-hat over the scalars of all sites."""
    ess, rhat = [], []
    for values in draws.values():
        flat = np.asarray(values, np.float64).reshape(*values.shape[:2], -1)
        flat = flat[..., flat.std((0, 1)) > 0]
        for column in np.moveaxis(flat, -1, 0):
            ess.append(arviz_stats.ess(column, chain_axis=0, draw_axis=1))
            rhat.append(arviz_stats.rhat(column, chain_axis=0, draw_axis=1))
    return {"smallest ESS": float(np.min(ess)), "largest R-hat": float(np.max(rhat))}
