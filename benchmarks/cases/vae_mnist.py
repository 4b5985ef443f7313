"""The MNIST VAE (784-200-200-50): training beside code by hand and pythae, and its log evidence."""

from __future__ import annotations

import importlib
import importlib.util
import resource
import sys
from functools import partial
from typing import Any

import numpy as np

from benchmarks.case import Case, Contender, Limit, Run, Skip, Target, timed
from benchmarks.data import big_digits

REQUIRES = ()
VARIANTS = ("numpyro", "pyro", "evidence-numpyro", "evidence-pyro")
SIZES = (784, 200, 50)
BATCH_SIZE = 100
PARTICLES = 5000


def build(variant: str, quick: bool) -> Case:
    """Return the case of training, or of the evidence, on one wing."""
    kind, _, wing = variant.rpartition("-")
    if importlib.util.find_spec(wing) is None:
        raise Skip(f"needs {wing}, not installed here")
    return evidence(wing, quick) if kind else training(wing, quick)


def autoencoder(wing: str):
    """Return the wing and the autoencoder of the IWAE paper."""
    dg = importlib.import_module(f"deepgen_ppl.{wing}")
    pixels, hidden, latent = SIZES
    layers = (hidden, hidden)
    return dg, dg.VAE(layers, layers, features=pixels, latents=latent, activation="tanh")


def training(wing: str, quick: bool) -> Case:
    """Return the case of training steps."""
    x, source = big_digits(1000 if quick else 10_000)
    num_epochs = 2 if quick else 5
    num_steps = num_epochs * (len(x) // BATCH_SIZE)
    ours, by_hand, aims = (_numpyro if wing == "numpyro" else _pyro)(x, num_steps, num_epochs)
    pythae = Contender("pythae's trainer", partial(_pythae, x, num_epochs))
    best = ours[0].name
    return Case(
        work=num_steps,
        unit="steps",
        contenders=(*ours, *by_hand, pythae),
        targets=(*aims, Target(best, "pythae's trainer", 2.0)),
        repeats=2 if quick else 5,
        notes=(
            f"{source}, {len(x)} rows in bits, batches of {BATCH_SIZE}, {num_epochs} epochs a run; "
            "Adam; pythae weighs the same bound, its checkpoints and progress included",
        ),
    )


def _told(losses: Any, num_epochs: int) -> dict[str, float]:
    late = np.asarray(losses)[-(len(losses) // num_epochs) :]
    return {"final loss": float(np.mean(late))}


def _numpyro(x: np.ndarray, num_steps: int, num_epochs: int):
    import jax
    import optax

    from benchmarks.baselines import vae_jax

    data = jax.device_put(x)

    def ours():
        dg, vae = autoencoder("numpyro")

        def run(seed: int) -> Run:
            options = {"batch_size": BATCH_SIZE, "optim": optax.adam(1e-3), "progress": False}
            with timed() as clock:
                fit = dg.svi(*vae, data, num_steps=num_steps, seed=seed, **options)
            return Run(fit.seconds, clock.seconds - fit.seconds, _told(fit.losses, num_epochs))

        run(0)
        return run

    def by_hand():
        epochs = vae_jax.make_epochs(optax.adam(1e-3), BATCH_SIZE, vae_jax.loss_deep)

        def run(seed: int) -> Run:
            start, key = jax.random.split(jax.random.key(seed))
            params = jax.block_until_ready(vae_jax.init_deep(start, *SIZES))
            with timed() as clock:
                _, losses = jax.block_until_ready(epochs(params, data, key, num_epochs))
            return Run(clock.seconds, 0.0, _told(losses, num_epochs))

        run(0)
        return run

    name = "JAX and optax by hand"
    hand = (Contender(name, by_hand),)
    return (Contender("ours", ours),), hand, (Target("ours", name, 0.95),)


def _pyro(x: np.ndarray, num_steps: int, num_epochs: int):
    import torch

    from benchmarks.baselines import vae_deep_torch

    data = torch.as_tensor(x)

    def ours(compile: str):
        dg, _ = autoencoder("pyro")
        optim = partial(torch.optim.Adam, lr=1e-3, fused=True)

        def run(seed: int) -> Run:
            vae = autoencoder("pyro")[1]
            options = {"batch_size": BATCH_SIZE, "optim": optim, "progress": False}
            with timed() as clock:
                fit = dg.svi(*vae, data, num_steps=num_steps, seed=seed, compile=compile, **options)
            return Run(fit.seconds, clock.seconds - fit.seconds, _told(fit.losses, num_epochs))

        run(0)
        return run

    def by_hand(compiled: bool):
        train = vae_deep_torch.trainer(SIZES, compiled)

        def run(seed: int) -> Run:
            with timed() as clock:
                losses = train(data, num_steps, BATCH_SIZE, seed)
            return Run(clock.seconds, 0.0, _told(losses, num_epochs))

        train(data, 20, BATCH_SIZE, 0)
        return run

    names = "compiled PyTorch by hand", "eager PyTorch by hand"
    mine = [Contender(f"ours, {how}", partial(ours, how)) for how in ("compiled", "traced")]
    hand = tuple(
        Contender(name, partial(by_hand, compiled))
        for name, compiled in zip(names, (True, False), strict=True)
    )
    aims = (
        Target("ours, compiled", names[0], 0.95),
        Target("ours, compiled", names[1], None),
        Target("ours, traced", names[1], None),
    )
    return tuple(mine), hand, aims


def _pythae(x: np.ndarray, num_epochs: int):
    if importlib.util.find_spec("pythae") is None:
        raise Skip("needs pythae, not installed here")
    from benchmarks.baselines import vae_pythae

    def run(seed: int) -> Run:
        with timed() as clock:
            vae_pythae.train(SIZES, x, num_epochs, BATCH_SIZE)
        return Run(clock.seconds)

    return run


def evidence(wing: str, quick: bool) -> Case:
    """Return the case of log p(x) of each row: does memory stay as it is with twice the rows?"""
    particles = 8192 if quick else PARTICLES
    block = (1 << 23) // particles  # rows whose weights are held at a time

    def ours():
        dg, vae = autoencoder(wing)
        x, _ = big_digits(2 * block, "test")
        if quick:  # the same weights of a small network
            x, vae = x[:, 400:416], dg.VAE((), (), features=16, latents=4)
        fit = dg.svi(*vae, x[:200], num_steps=5, progress=False)

        def run(seed: int) -> Run:
            vae.log_evidence(fit, x[:block], num_particles=particles)
            before = _peak()
            with timed() as clock:
                found = vae.log_evidence(fit, x, num_particles=particles)
            return Run(clock.seconds, 0.0, {
                "growth of peak, MiB": _peak() - before, "peak, MiB": _peak(),
                "s for 10,000 rows": clock.seconds * 10_000 / len(x),
                "standard error, nats a row": float(np.mean(found.per_row_standard_error)),
            })  # fmt: skip

        return run

    return Case(
        work=2 * block,
        unit="images",
        contenders=(Contender("ours", ours),),
        limits=(Limit("ours", "growth of peak, MiB", 100.0),),
        repeats=1,
        notes=(
            f"{particles} particles, {2 * block} images{' of 16 pixels' if quick else ''}",
            f"growth is that of the peak over what {block} of them took, in one process",
        ),
    )


def _peak() -> float:
    """Peak memory of this process in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)
