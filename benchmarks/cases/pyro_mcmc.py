"""`mcmc` on Pyro: ours against Pyro's own NUTS with its JIT, by effective draws per second."""

from __future__ import annotations

import pyro
import torch
from pyro.infer import MCMC, NUTS

from benchmarks import programs_pyro
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.cases.numpyro_mcmc import quality
from benchmarks.data import eight_schools

REQUIRES = ("torch", "pyro")
VARIANTS = ("eight_schools",)


def build(variant: str, quick: bool) -> Case:
    """Return the case: 4 chains, 200 warm-up and 200 kept steps, as Pyro needs seconds for them."""
    model = getattr(programs_pyro, variant)
    data = tuple(torch.as_tensor(x) for x in eight_schools())
    num_warmup = num_samples = 20 if quick else 200

    def with_rate(seconds: float, draws) -> Run:
        reached = quality(draws)
        return Run(seconds, 0.0, {**reached, "ESS per second": reached["smallest ESS"] / seconds})

    def ours():
        import deepgen_ppl.pyro as dg

        def run(seed: int) -> Run:
            with timed() as clock:
                posterior = dg.mcmc(
                    model,
                    *data,
                    num_warmup=num_warmup,
                    num_samples=num_samples,
                    num_chains=4,
                    progress=False,
                    seed=seed,
                )
            return with_rate(clock.seconds, posterior.draws)

        return run

    def pyro_nuts():
        def run(seed: int) -> Run:
            pyro.set_rng_seed(seed)
            with timed() as clock:
                kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
                mcmc = MCMC(
                    kernel,
                    num_samples=num_samples,
                    warmup_steps=num_warmup,
                    num_chains=4,
                    disable_progbar=True,
                    mp_context="spawn",
                )
                mcmc.run(*data)
                draws = mcmc.get_samples(group_by_chain=True)
            return with_rate(clock.seconds, {k: v.numpy() for k, v in draws.items()})

        return run

    return Case(
        work=8 * num_samples,
        unit="iterations",
        contenders=(Contender("ours", ours), Contender("Pyro NUTS, JIT", pyro_nuts)),
        targets=(Target("ours", "Pyro NUTS, JIT"),),
        repeats=1 if quick else 3,
        notes=(f"4 chains of {num_warmup} + {num_samples}",),
    )
