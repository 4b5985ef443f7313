"""Importance sampling of 10,000 digits at 1,000 particles by a VAE: time and peak memory."""

from __future__ import annotations

import resource
from functools import partial

import numpy as np

from benchmarks.case import Case, Contender, Limit, Run, Target, timed
from benchmarks.data import big_digits, small_digits

REQUIRES = ()
VARIANTS = ("numpyro-small", "numpyro-big", "pyro-small", "pyro-big")
NUM_PARTICLES = 1000


def build(variant: str, quick: bool) -> Case:
    """Return the case of one wing at 64-32-4 or 784-400-50, after a short training of the VAE."""
    wing, size = variant.split("-")
    rows = 200 if quick else 10_000
    if size == "small":
        sizes, host, source = (64, 32, 4), small_digits(rows), "scikit-learn's digits, tiled"
    else:
        sizes, (host, source) = (784, 400, 50), big_digits(rows, split="test")
    contenders = [Contender("ours", partial(_ours, wing, sizes, host))]
    targets = []
    if wing == "numpyro":
        contenders.append(Contender("JAX by hand, rows in chunks", partial(_by_hand, sizes, host)))
        targets.append(Target("ours", "JAX by hand, rows in chunks"))
    pixels = rows * NUM_PARTICLES * sizes[0] * 4 / 2**20
    return Case(
        work=rows * NUM_PARTICLES,
        unit="particles",
        contenders=tuple(contenders),
        targets=tuple(targets),
        limits=(Limit("ours", "peak MiB above start", 2048.0),),
        repeats=1 if quick or size == "big" else 3,
        notes=(
            f"data: {source}, {rows} rows; all logits at once would hold {pixels:,.0f} MiB",
            "the peak is the process's highest resident size less its size after training",
        ),
    )


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ours(wing: str, sizes, host: np.ndarray):
    train_rows = host[: min(len(host), 2000)]
    if wing == "numpyro":
        import jax
        import optax

        import deepgen_ppl.numpyro as dg
        from benchmarks import programs_numpyro as programs

        x, train, optim = jax.device_put(host), jax.device_put(train_rows), optax.adam(1e-3)
    else:
        import torch

        import deepgen_ppl.pyro as dg
        from benchmarks import programs_pyro as programs

        x, train = torch.as_tensor(host), torch.as_tensor(train_rows)
        optim = partial(torch.optim.Adam, lr=1e-3)
    model, guide = programs.vae(*sizes)
    fit = dg.svi(model, guide, train, num_steps=300, batch_size=100, optim=optim, progress=False)
    start = _resident_mib()

    def run(seed: int) -> Run:
        with timed() as clock:
            posterior = dg.importance(
                model,
                guide,
                x,
                params=fit,
                num_particles=NUM_PARTICLES,
                keep_draws=False,
                seed=seed,
            )
        evidence = posterior.evidence
        return Run(
            clock.seconds,
            0.0,
            {
                "log evidence per row": evidence.log_evidence / len(host),
                "peak MiB above start": _peak_mib() - start,
                "peak MiB in all": _peak_mib(),
            },
        )

    return run


def _by_hand(sizes, host: np.ndarray):
    import jax

    from benchmarks.baselines import importance_jax, vae_jax

    params, x = vae_jax.init(jax.random.key(0), *sizes), jax.device_put(host)

    def run(seed: int) -> Run:
        with timed() as clock:
            importance_jax.log_evidence(
                params, x, jax.random.key(seed), num_particles=NUM_PARTICLES, chunk=10
            ).block_until_ready()
        return Run(clock.seconds)

    run(0)
    return run
