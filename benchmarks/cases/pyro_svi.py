"""SVI of a VAE on Pyro: ours compiled and eager, `SVI.step`, eager PyTorch with fused Adam."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from benchmarks import programs_pyro
from benchmarks.baselines import vae_pyro, vae_torch
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.data import big_digits, small_digits

REQUIRES = ("torch", "pyro")
VARIANTS = ("small", "big")
BATCH_SIZE = 128


def build(variant: str, quick: bool) -> Case:
    """Return the case at 64-32-4 ("small", scikit-learn's digits) or 784-400-50 ("big", MNIST)."""
    if variant == "small":
        sizes, host, source = (64, 32, 4), small_digits(), "scikit-learn's digits"
        num_epochs = 5 if quick else 100
    else:
        sizes, (host, source) = (784, 400, 50), big_digits(1280 if quick else 12800)
        num_epochs = 1 if quick else 8
    x = torch.as_tensor(host)
    per_epoch = len(x) // BATCH_SIZE
    num_steps = num_epochs * per_epoch

    def quality(losses) -> dict[str, float]:
        return {"final loss": float(np.mean(np.asarray(losses)[-per_epoch:]))}

    def ours(compile: str):
        import deepgen_ppl.pyro as dg

        def run(seed: int) -> Run:
            model, guide = programs_pyro.vae(*sizes, seed=seed)
            with timed() as clock:
                fit = dg.svi(
                    model,
                    guide,
                    x,
                    num_steps=num_steps,
                    batch_size=BATCH_SIZE,
                    optim=partial(torch.optim.Adam, lr=1e-3, fused=True),
                    compile=compile,
                    seed=seed,
                    progress=True,
                )
            return Run(fit.seconds, clock.seconds - fit.seconds, quality(fit.losses))

        run(0)
        return run

    def svi_step():
        def run(seed: int) -> Run:
            model, guide = programs_pyro.vae(*sizes, seed=seed)
            with timed() as clock:
                losses = vae_pyro.train(model, guide, x, num_steps, BATCH_SIZE, seed)
            return Run(clock.seconds, 0.0, quality(losses))

        vae_pyro.train(*programs_pyro.vae(*sizes), x, 20, BATCH_SIZE, 0)
        return run

    def by_hand():
        def modules(seed: int):
            torch.manual_seed(seed)
            return programs_pyro.Encoder(*sizes), programs_pyro.Decoder(*sizes)

        def run(seed: int) -> Run:
            encoder, decoder = modules(seed)
            with timed() as clock:
                losses = vae_torch.train(encoder, decoder, x, num_steps, BATCH_SIZE, seed)
            return Run(clock.seconds, 0.0, quality(losses))

        vae_torch.train(*modules(0), x, 20, BATCH_SIZE, 0)
        return run

    return Case(
        work=num_steps,
        unit="steps",
        contenders=(
            Contender("ours, compiled", partial(ours, "compiled")),
            Contender("ours, traced", partial(ours, "traced")),
            Contender("ours, eager", partial(ours, "eager")),
            Contender("SVI.step", svi_step),
            Contender("eager PyTorch by hand, fused Adam", by_hand),
        ),
        targets=(
            Target("ours, compiled", "SVI.step", 6.0 if variant == "small" else 2.0),
            Target("ours, compiled", "eager PyTorch by hand, fused Adam", 1.0),
            Target("ours, eager", "SVI.step", 1.15),
            Target("ours, traced", "SVI.step", None),
        ),
        repeats=2 if quick else 5,
        notes=(
            f"data: {source}, {len(x)} rows, batches of {BATCH_SIZE}, {num_epochs} epochs a run",
        ),
    )
