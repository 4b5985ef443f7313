"""Bidirectional Monte Carlo of a trained VAE of the digits: the gap between both bounds."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.case import Case, Contender, Limit, Run, timed
from benchmarks.data import small_digits

REQUIRES = ()
VARIANTS = ("numpyro", "pyro")
SIZES = (64, 32, 10)
NUM_PARTICLES = 5000


def build(variant: str, quick: bool) -> Case:
    """Return the case of one wing: a VAE of 10 latents, and digits simulated from it."""
    rows = 10 if quick else 100
    settings = {"num_chains": 16, "num_temperatures": 200}
    return Case(
        work=2 * rows * settings["num_chains"] * settings["num_temperatures"],
        unit="transitions",
        contenders=(Contender("ours", partial(_ours, variant, rows, settings)),),
        targets=(),
        limits=(
            Limit("ours", "gap, nats a row", 1.0),
            Limit("ours", "gap of limits, nats a row", 1.0),
            Limit("ours", "IWAE outside of the limits, nats a row", 0.0),
        ),
        repeats=1,
        notes=(
            f"a {'-'.join(map(str, SIZES))} Bernoulli VAE of scikit-learn's digits, and {rows} "
            "digits simulated from it",
            f"the lower bound is AIS, the upper one reverse AIS, both of {settings['num_chains']} "
            f"chains and {settings['num_temperatures']} temperatures for each row; IWAE-"
            f"{NUM_PARTICLES} stands beside them",
        ),
    )


def _ours(wing: str, rows: int, settings: dict[str, int]):
    x = small_digits()
    if wing == "numpyro":
        import optax

        import deepgen_ppl.numpyro as dg
        from benchmarks.programs_numpyro import vae

        optim: Any = optax.adam(2e-3)
    else:
        import functools

        import torch

        import deepgen_ppl.pyro as dg
        from benchmarks.programs_pyro import vae

        optim = functools.partial(torch.optim.Adam, lr=2e-3)
    model, guide = vae(*SIZES)
    fit = dg.svi(
        model, guide, x, num_steps=6000, batch_size=128, optim=optim, progress=False, seed=0
    )

    def run(seed: int) -> Run:
        with timed() as clock:
            found = dg.evidence_bounds(
                model, fit, x[:rows], simulate=True, num_particles=NUM_PARTICLES, progress=False,
                seed=seed, **settings,
            )  # fmt: skip
        print(found)
        above, below = found.bounds[-1], found.bounds[-2]
        iwae = found[f"IWAE-{NUM_PARTICLES}"]
        outside = max(iwae.value - above.limit, below.limit - iwae.value, 0.0)
        return Run(
            clock.seconds,
            0.0,
            {
                "lower, nats a row": below.value / rows,
                "upper, nats a row": above.value / rows,
                "IWAE, nats a row": iwae.value / rows,
                "ELBO, nats a row": found["ELBO"].value / rows,
                "gap, nats a row": (above.value - below.value) / rows,
                "gap of limits, nats a row": (above.limit - below.limit) / rows,
                "IWAE outside of the limits, nats a row": outside / rows,
            },
        )

    return run
