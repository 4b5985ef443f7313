"""Vectorised `mcmc` on Pyro: "chees" on 64 chains against Pyro's NUTS with its JIT.

A unit of work is 1,000 effective draws, by the smallest bulk ESS over all scalars: seconds are
those of sampling divided by what was reached, total seconds those of the whole call. Ours count
only where the largest R-hat is below 1.01.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS

from benchmarks import programs_pyro
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.cases.numpyro_mcmc import quality
from benchmarks.data import correlated, eight_schools, logistic, old_faithful

REQUIRES = ("torch", "pyro")
VARIANTS = ("eight_schools", "gaussian", "logistic", "mixture")

_READERS = {"eight_schools": eight_schools, "logistic": logistic}
_LENGTHS = {"gaussian": (150, 50)}  # Pyro takes up to 1,023 leapfrog steps a draw there
_COMPILED = {"eight_schools": 250.0, "logistic": 250.0}  # what is aimed at


def build(variant: str, quick: bool) -> Case:
    """Return the case of one model."""
    model = getattr(programs_pyro, variant)
    arrays = _READERS.get(variant, lambda: ())()
    if variant == "gaussian":
        arrays = (correlated(),)
    elif variant == "mixture":
        arrays = (old_faithful(),)
    data = tuple(torch.as_tensor(x) for x in arrays)
    num_samples = 400 if quick else 1000
    warmup, kept = _LENGTHS.get(variant, (300, 300)) if not quick else (30, 20)

    def chees(compile: str):
        import deepgen_ppl.pyro as dg

        def prepare():
            torch.set_num_threads(1)

            def run(seed: int) -> Run:
                with timed() as clock, warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    posterior = dg.mcmc(
                        model,
                        *data,
                        kernel="chees",
                        num_warmup=240,
                        num_samples=num_samples,
                        compile=compile,
                        progress=False,
                        seed=seed,
                    )
                found = quality(posterior.draws)
                if found["largest R-hat"] >= 1.01:
                    found["smallest ESS"] = 0.0
                return _rate(posterior.attrs["sampling_time"], clock.seconds, found)

            return run

        return prepare

    def nuts():
        torch.set_num_threads(1)

        def run(seed: int) -> Run:
            pyro.set_rng_seed(seed)
            draws, seconds = [], 0.0
            with timed() as clock:
                for _ in range(1 if quick else 2):
                    found, took = _one_chain(model, data, warmup, kept)
                    draws.append(found)
                    seconds += took
            joined = {n: np.stack([d[n] for d in draws]) for n in draws[0]}
            return _rate(seconds, clock.seconds, quality(joined))

        return run

    traced, compiled, baseline = "chees, traced", "chees, compiled", "Pyro NUTS, JIT"
    aim = _COMPILED.get(variant)
    return Case(
        work=1000,
        unit="effective draws",
        contenders=(
            Contender(traced, chees("traced")),
            Contender(compiled, chees("compiled")),
            Contender(baseline, nuts),
        ),
        targets=(
            Target(traced, baseline, 75.0),
            Target(traced, baseline, 25.0, "total"),
            Target(compiled, baseline, aim),
            Target(compiled, baseline, None, "total"),
        ),
        repeats=1 if quick else 5,
        notes=(
            f"chees: 64 chains of 240 + {num_samples}; Pyro: chains of {warmup} + {kept}",
            "times are those of 1,000 effective draws; total is the whole call",
        ),
    )


def _rate(sampling: float, total: float, found: dict[str, float]) -> Run:
    """Return the run of 1,000 effective draws."""
    ess = max(found["smallest ESS"], 1e-9)
    share = 1000.0 / ess
    rate = {"ESS per second": ess / sampling, "ESS per second in all": ess / total}
    return Run(sampling * share, (total - sampling) * share, {**found, **rate})


def _one_chain(model, data, warmup: int, kept: int) -> tuple[dict[str, np.ndarray], float]:
    """Return the draws of a chain of Pyro's, and the seconds after its warm-up."""
    began: list[float] = []

    def hook(kernel, samples, stage: str, step: int) -> None:
        if stage == "Sample" and not began:
            began.append(time.perf_counter())

    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
    chains = MCMC(kernel, num_samples=kept, warmup_steps=warmup, disable_progbar=True, hook_fn=hook)
    chains.run(*data)
    seconds = (time.perf_counter() - began[0]) * kept / (kept - 1)  # the first step was before it
    return {name: value.numpy() for name, value in chains.get_samples().items()}, seconds
