"""Persistent contrastive divergence of a 784 x 500 machine: NumPyro wing, products alone, sklearn.

Batch 128, 128 chains, one or ten sweeps an update; scikit-learn's BernoulliRBM has one sweep and
no choice, in float64 by `partial_fit` and in float32 by `fit`. Seconds are those of the core, and
compilation is told apart.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np

from benchmarks.case import Case, Contender, Run, Target
from benchmarks.data import big_digits

REQUIRES = ("jax", "numpyro", "optax", "sklearn")
VARIANTS = ("k1", "k10")
BATCH, HIDDEN = 128, 500


def build(variant: str, quick: bool) -> Case:
    """Return the contenders of a number of sweeps."""
    sweeps = int(variant[1:])
    steps = 300 if quick else 2000
    x, source = big_digits(BATCH * 20)
    contenders = [
        Contender("deepgen_ppl", lambda: ours(x, sweeps, steps)),
        Contender("products alone", lambda: products(x, sweeps, steps)),
    ]
    targets = [Target("deepgen_ppl", "products alone", 0.9 if sweeps == 1 else 0.8)]
    if sweeps == 1:
        contenders += [
            Contender("partial_fit", lambda: partial_fit(x, steps)),
            Contender("fit float32", lambda: fit(x, steps)),
        ]
        targets += [
            Target("deepgen_ppl", "partial_fit", 4.0),
            Target("deepgen_ppl", "fit float32", 2.0),
        ]
    return Case(steps, "updates", tuple(contenders), tuple(targets), notes=(source,))


def ours(x: np.ndarray, sweeps: int, steps: int) -> Callable[[int], Run]:
    """Return runs of `contrastive`, timed from its first report to its last, reports included."""
    import jax.numpy as jnp
    import optax

    import deepgen_ppl.numpyro as dg

    def run(seed: int) -> Run:
        marks: list[tuple[int, float]] = []
        rbm = dg.RBM(784, HIDDEN, seed=0).at_base_rates(jnp.asarray(x))
        fit = dg.contrastive(
            rbm, x, num_steps=steps, batch_size=BATCH, num_chains=BATCH, chain_steps=sweeps,
            optim=optax.sgd(0.01 / len(x)), progress=False, seed=seed,
            callbacks=[lambda now: marks.append((now.step, time.process_time()))],
        )  # fmt: skip
        (first, began), (last, ended) = marks[0], marks[-1]
        return Run((ended - began) * steps / (last - first), fit.compile_seconds)

    return run


def products(x: np.ndarray, sweeps: int, steps: int) -> Callable[[int], Run]:
    """Return runs of the products alone."""
    from benchmarks.baselines.rbm_jax import floor

    call = floor(x[:BATCH], HIDDEN, sweeps)

    def run(_: int) -> Run:
        began = time.process_time()
        call(steps)
        return Run(time.process_time() - began)

    return run


def partial_fit(x: np.ndarray, steps: int) -> Callable[[int], Run]:
    """Return runs of scikit-learn's updates one by one."""
    from sklearn.neural_network import BernoulliRBM

    def run(seed: int) -> Run:
        machine = BernoulliRBM(HIDDEN, batch_size=BATCH, random_state=seed)
        batch = x[:BATCH].astype(np.float64)
        machine.partial_fit(batch)
        began = time.process_time()
        for _ in range(steps):
            machine.partial_fit(batch)
        return Run(time.process_time() - began)

    return run


def fit(x: np.ndarray, steps: int) -> Callable[[int], Run]:
    """Return runs of scikit-learn's `fit` on single precision."""
    from sklearn.neural_network import BernoulliRBM

    epochs = max(1, steps // (len(x) // BATCH))

    def run(seed: int) -> Run:
        machine = BernoulliRBM(HIDDEN, batch_size=BATCH, n_iter=epochs, random_state=seed)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            machine.fit(x.astype(np.float32))
        return Run(time.process_time() - began)

    return run
