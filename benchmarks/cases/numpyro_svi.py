"""SVI of a VAE on NumPyro: ours, JAX and optax by hand, a jitted `svi.update` loop, `svi.run`."""

from __future__ import annotations

import jax
import numpy as np
import optax

from benchmarks import programs_numpyro
from benchmarks.baselines import vae_jax, vae_numpyro
from benchmarks.case import Case, Contender, Run, Target, timed
from benchmarks.data import big_digits, small_digits

REQUIRES = ("jax", "numpyro", "optax")
VARIANTS = ("small", "big")
BATCH_SIZE = 128


def build(variant: str, quick: bool) -> Case:
    """Return the case at 64-32-4 ("small", scikit-learn's digits) or 784-400-50 ("big", MNIST)."""
    if variant == "small":
        sizes, host, source = (64, 32, 4), small_digits(), "scikit-learn's digits"
        num_epochs = 20 if quick else 500
    else:
        sizes, (host, source) = (784, 400, 50), big_digits(1280 if quick else 12800)
        num_epochs = 1 if quick else 12
    x = jax.device_put(host)
    model, guide = programs_numpyro.vae(*sizes)
    per_epoch = len(x) // BATCH_SIZE
    num_steps = num_epochs * per_epoch

    def quality(losses) -> dict[str, float]:
        return {"final loss": float(np.mean(np.asarray(losses)[-per_epoch:]))}

    def ours():
        import deepgen_ppl.numpyro as dg

        def run(seed: int) -> Run:
            with timed() as clock:
                fit = dg.svi(
                    model,
                    guide,
                    x,
                    num_steps=num_steps,
                    batch_size=BATCH_SIZE,
                    optim=optax.adam(1e-3),
                    seed=seed,
                    progress=True,
                )
            return Run(fit.seconds, clock.seconds - fit.seconds, quality(fit.losses))

        run(0)
        return run

    def by_hand():
        epochs = vae_jax.make_epochs(optax.adam(1e-3), BATCH_SIZE)

        def run(seed: int) -> Run:
            start, key = jax.random.split(jax.random.key(seed))
            params = jax.block_until_ready(vae_jax.init(start, *sizes))
            with timed() as clock:
                _, losses = jax.block_until_ready(epochs(params, x, key, num_epochs))
            return Run(clock.seconds, 0.0, quality(losses))

        run(0)
        return run

    def update_loop():
        svi, loop = vae_numpyro.make_update_loop(model, guide, optax.adam(1e-3), x, BATCH_SIZE)

        def run(seed: int) -> Run:
            state = jax.block_until_ready(svi.init(jax.random.key(seed), x[:BATCH_SIZE]))
            with timed() as clock:
                state, losses = loop(state, num_steps, seed)
                jax.block_until_ready(state)
            return Run(clock.seconds, 0.0, quality(losses))

        run(0)
        return run

    def svi_run():
        one_call = vae_numpyro.make_svi_run(model, guide, optax.adam(1e-3), x, BATCH_SIZE)

        def run(seed: int) -> Run:
            with timed() as clock:
                one_call(num_steps, seed)
            return Run(clock.seconds)

        run(0)
        return run

    targets = (
        Target("ours", "JAX + optax by hand", 0.95),
        Target("ours", "jitted svi.update loop", 1.2 if variant == "small" else None),
        Target("ours", "svi.run", None, "total"),
    )
    svi_run_too = (Contender("svi.run", svi_run),) if variant == "small" else ()
    return Case(
        work=num_steps,
        unit="steps",
        contenders=(
            Contender("ours", ours),
            Contender("JAX + optax by hand", by_hand),
            Contender("jitted svi.update loop", update_loop),
            *svi_run_too,
        ),
        targets=targets,
        repeats=2 if quick else 5,
        notes=(
            f"data: {source}, {len(x)} rows, batches of {BATCH_SIZE}, {num_epochs} epochs a run",
            "ours: run time is that of the loop with its reports and bar; reading, tracing and "
            "compiling the program, which every call does, stand under compile",
            "svi.run compiles within every call and sees one batch only; its time includes that",
        ),
    )
