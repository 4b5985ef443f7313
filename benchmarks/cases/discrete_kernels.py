"""Discrete kernels of NumPyro's `mcmc`: Gibbs in blocks against DiscreteHMCGibbs, mapped.

A unit of work is 1,000 effective draws, by the smallest bulk ESS over all scalars: seconds are
those of the kept steps divided by what was reached, total seconds those of the whole call. All run
64 chains of the same program: spins with a factor of all of them (beside a normal, since NumPyro's
kernel needs a continuous site), or a mixture with unknown means.
"""

from __future__ import annotations

import warnings
from functools import partial

import jax
import numpy as np

from benchmarks import programs_numpyro
from benchmarks.baselines import discrete_numpyro
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.cases.numpyro_mcmc import quality

REQUIRES = ("jax", "numpyro")
VARIANTS = ("spins", "assigned")

_CHAINS = 64


def build(variant: str, quick: bool) -> Case:
    """Return the case of one model."""
    model = getattr(programs_numpyro, variant)
    rng = np.random.default_rng(0)
    if variant == "spins":
        coupling = np.triu(rng.normal(size=(12, 12)) * 0.2, 1)
        arrays = (coupling, 0.3 * rng.normal(size=12))
    else:
        arrays = (np.concatenate([rng.normal(-2.0, 1.0, 60), rng.normal(2.0, 1.0, 90)]),)
    data = tuple(jax.device_put(x.astype("float32")) for x in arrays)
    num_warmup, num_samples = (50, 100) if quick else (240, 1000)
    share = num_samples / (num_samples + num_warmup)
    lengths = {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": _CHAINS}

    def ours(kernel: str):
        import deepgen_ppl.numpyro as dg

        def run(seed: int) -> Run:
            with timed() as clock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                posterior = dg.mcmc(
                    model, *data, kernel=kernel, **lengths, progress=False, seed=seed
                )
            sampling = posterior.attrs["sampling_time"] * share
            return _rate(sampling, clock.seconds, quality(posterior.draws))

        run(0)
        return run

    def mcmc_run():
        def run(seed: int) -> Run:
            with timed() as clock:
                draws, seconds = discrete_numpyro.run(model, data, **lengths, seed=seed)
            return _rate(seconds * share, clock.seconds, quality(draws))

        return run

    def kernel_once():
        sample = discrete_numpyro.make_once(model, data, **lengths)

        def run(seed: int) -> Run:
            with timed() as clock:
                draws = sample(seed)
            return _rate(clock.seconds * share, clock.seconds, quality(draws))

        run(0)
        return run

    gibbs, gradients = "gibbs", "gibbs_with_gradients"
    once, fresh = "DiscreteHMCGibbs, compiled once", "MCMC.run(DiscreteHMCGibbs)"
    return Case(
        work=1000,
        unit="effective draws",
        contenders=(
            Contender(gibbs, partial(ours, gibbs)),
            Contender(gradients, partial(ours, gradients)),
            Contender(once, kernel_once),
            Contender(fresh, mcmc_run),
        ),
        targets=(
            Target(gibbs, once, 3.0),
            Target(gradients, once, None),
            Target(gibbs, fresh, None, "total"),
        ),
        repeats=1 if quick else 3,
        notes=(
            f"{_CHAINS} chains of {num_warmup} + {num_samples}",
            "times are those of 1,000 effective draws; total is the whole call",
        ),
    )


def _rate(sampling: float, total: float, found: dict[str, float]) -> Run:
    """Return the run of 1,000 effective draws."""
    ess = max(found["smallest ESS"], 1e-9)
    share = 1000.0 / ess
    rate = {"ESS per second": ess / sampling}
    return Run(sampling * share, (total - sampling) * share, {**found, **rate})
