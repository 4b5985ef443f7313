"""Vectorised `mcmc` on NumPyro: "chees" on 64 chains against NUTS of BlackJAX and of NumPyro.

A unit of work is 1,000 effective draws, by the smallest bulk ESS over all scalars; a run of ours
whose largest R-hat is 1.01 or more has none. Warm contenders have compiled before, and their
seconds are those of the whole call, warm-up included; cold ones compile anew in every run, and
their work is 4,000 effective draws, or the whole call where it gives more.
"""

from __future__ import annotations

import warnings
from functools import partial

import jax

from benchmarks import programs_numpyro
from benchmarks.baselines import mcmc_numpyro, nuts_blackjax
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.cases.numpyro_mcmc import quality
from benchmarks.data import correlated, eight_schools, logistic, old_faithful

REQUIRES = ("jax", "numpyro", "blackjax")
VARIANTS = ("eight_schools", "gaussian", "logistic", "mixture")

_READERS = {"eight_schools": eight_schools, "logistic": logistic}
_WARM = {"eight_schools": 20.0, "gaussian": 20.0, "logistic": 3.0, "mixture": 3.0}  # aims
_COLD = {"eight_schools": 3.0, "gaussian": 1 / 0.7, "logistic": 3.0, "mixture": 3.0}
_ENOUGH = 4000.0


def build(variant: str, quick: bool) -> Case:
    """Return the case of one model."""
    model = getattr(programs_numpyro, variant)
    arrays = _READERS.get(variant, lambda: ())()
    if variant == "gaussian":
        arrays = (correlated(),)
    elif variant == "mixture":
        arrays = (old_faithful(),)
    data = tuple(jax.device_put(x) for x in arrays)
    num_samples = 200 if quick else 1000
    steps = 100 if quick else 1000

    def draw(program, num_samples: int, seed: int):
        import deepgen_ppl.numpyro as dg

        options = {"num_warmup": 240, "num_samples": num_samples, "progress": False, "seed": seed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dg.mcmc(program, *data, kernel="chees", **options).draws

    def warm():
        draw(model, num_samples, 0)

        def run(seed: int) -> Run:
            with timed() as clock:
                draws = draw(model, num_samples, seed)
            return _rate(clock.seconds, quality(draws), gated=True)

        return run

    def blackjax():
        sample = nuts_blackjax.make(model, data, steps, steps)
        sample(0)

        def run(seed: int) -> Run:
            with timed() as clock:
                draws = sample(seed)
            return _rate(clock.seconds, quality(draws))

        return run

    def cold():
        def run(seed: int) -> Run:
            def fresh(*args):  # a function that was never compiled
                return model(*args)

            with timed() as clock:
                draws = draw(fresh, 200, seed)
            return _reach(clock.seconds, quality(draws))

        return run

    def numpyro(chain_method: str):
        def run(seed: int) -> Run:
            lengths = {"num_warmup": steps, "num_samples": steps}
            with timed() as clock:
                draws = mcmc_numpyro.run(
                    model, data, **lengths, chain_method=chain_method, seed=seed
                )
            return _reach(clock.seconds, quality(draws))

        return run

    ours, baseline = "chees, warm", "BlackJAX NUTS, warm"
    ours_cold, theirs_cold = "chees, cold", "NumPyro NUTS, cold"
    return Case(
        work=1000,
        unit="effective draws",
        contenders=(
            Contender(ours, warm),
            Contender(baseline, blackjax),
            Contender(ours_cold, cold),
            Contender(theirs_cold, partial(numpyro, "sequential")),
        ),
        targets=(
            Target(ours, baseline, _WARM[variant]),
            Target(ours_cold, theirs_cold, _COLD[variant]),
        ),
        repeats=1 if quick else 5,
        notes=(
            f"chees: 64 chains of 240 + {num_samples}, cold 240 + 200",
            f"NUTS: 4 chains of {steps} + {steps}",
            "warm: seconds of 1,000 effective draws; cold: of 4,000, or of the whole call",
        ),
    )


def _rate(seconds: float, found: dict[str, float], *, gated: bool = False) -> Run:
    """Return the run of 1,000 effective draws; a gated one has none before it has mixed."""
    ess = found["smallest ESS"] if found["largest R-hat"] < 1.01 or not gated else 1e-9
    return Run(seconds * 1000.0 / ess, 0.0, {**found, "ESS per second": ess / seconds})


def _reach(seconds: float, found: dict[str, float]) -> Run:
    """Return the run of 4,000 effective draws: longer in proportion where fewer were reached."""
    share = max(1.0, _ENOUGH / max(found["smallest ESS"], 1e-9))
    return Run(seconds * share, 0.0, {**found, "seconds of the call": seconds})
