"""Persistent contrastive divergence of a 784 x 500 machine, beside its products, sklearn and rbms.

Batch 128, 128 chains, one or ten sweeps an update, on either wing; scikit-learn's BernoulliRBM has
one sweep and no choice, in float64 by `partial_fit` and in float32 by `fit`. The variant "ais" is
log Z of the published machine, 100 chains and 7,500 temperatures. Seconds are those of the core,
reports included, and compilation is told apart.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Case, Contender, Limit, Run, Skip, Target
from benchmarks.data import big_digits, published_rbm

REQUIRES = ("jax", "numpyro", "optax", "sklearn")
VARIANTS = ("k1", "k10", "pyro_k1", "pyro_k10", "ais")
BATCH, HIDDEN = 128, 500
PUBLISHED = 451.28  # log Z of the published machine, Salakhutdinov and Murray (2008)


def build(variant: str, quick: bool) -> Case:
    """Return the contenders of a number of sweeps."""
    if variant == "ais":
        return annealing(750 if quick else 7500)
    wing = "pyro" if variant.startswith("pyro") else "numpyro"
    sweeps = int(variant.split("k")[-1])
    steps = 300 if quick else 2000
    x, source = big_digits(BATCH * 20)
    contenders = [
        Contender("deepgen_ppl", lambda: ours(wing, x, sweeps, steps)),
        Contender("products alone", lambda: products(wing, x, sweeps, steps)),
        Contender("rbms", lambda: rbms(x, sweeps, steps)),
    ]
    if wing == "pyro":
        others = ("products alone", "rbms")
        targets = [Target("deepgen_ppl", other) for other in others]
        return Case(steps, "updates", tuple(contenders), tuple(targets), repeats=3, notes=(source,))
    targets = [
        Target("deepgen_ppl", "products alone", 0.9 if sweeps == 1 else 0.8),
        Target("deepgen_ppl", "rbms", 3.0),
    ]
    if sweeps == 1:
        contenders += [
            Contender("partial_fit", lambda: partial_fit(x, steps)),
            Contender("fit float32", lambda: fit(x, steps)),
        ]
        targets += [
            Target("deepgen_ppl", "partial_fit", 4.0),
            Target("deepgen_ppl", "fit float32", 2.0),
        ]
    return Case(steps, "updates", tuple(contenders), tuple(targets), repeats=3, notes=(source,))


def ours(wing: str, x: np.ndarray, sweeps: int, steps: int) -> Callable[[int], Run]:
    """Return runs of `contrastive`, timed from its first report to its last, reports included."""
    dg: Any = importlib.import_module(f"deepgen_ppl.{wing}")
    rate = 0.01 / len(x)
    optim: Any
    if wing == "numpyro":
        optim = importlib.import_module("optax").sgd(rate)
    else:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
        optim = lambda params: torch.optim.SGD(params, rate)  # noqa: E731

    def run(seed: int) -> Run:
        marks: list[tuple[int, float]] = []
        rbm = dg.RBM(784, HIDDEN, seed=0).at_base_rates(x)
        fit = dg.contrastive(
            rbm, x, num_steps=steps, batch_size=BATCH, num_chains=BATCH, chain_steps=sweeps,
            optim=optim, progress=False, seed=seed,
            callbacks=[lambda now: marks.append((now.step, time.process_time()))],
        )  # fmt: skip
        (first, began), (last, ended) = marks[0], marks[-1]
        data, chains = (fit.history[f"energy_{n}"][-1] for n in ("data", "chains"))
        seconds = (ended - began) * steps / (last - first)
        return Run(seconds, fit.compile_seconds, {"energy of data less chains": data - chains})

    return run


def products(wing: str, x: np.ndarray, sweeps: int, steps: int) -> Callable[[int], Run]:
    """Return runs of the products alone, by the wing's language."""
    name = "rbm_jax" if wing == "numpyro" else "rbm_torch"
    floor = importlib.import_module(f"benchmarks.baselines.{name}").floor
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


def rbms(x: np.ndarray, sweeps: int, steps: int) -> Callable[[int], Run]:
    """Return runs of the updates of the package rbms, as its `train` does them but for files."""
    try:
        import torch
        from rbms.bernoulli_bernoulli.classes import BBRBM  # pyright: ignore[reportMissingImports]
        from rbms.training.pcd import fit_batch_pcd  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Skip(f"rbms is not installed ({error.name})") from error
    torch.set_num_threads(1)
    data, share = torch.as_tensor(x), torch.ones(BATCH)

    def run(seed: int) -> Run:
        torch.manual_seed(seed)
        machine = BBRBM(0.01 * torch.randn(784, HIDDEN), torch.zeros(784), torch.zeros(HIDDEN))
        for value in machine.parameters():
            value.grad = torch.zeros_like(value)
        optimizer = torch.optim.SGD(machine.parameters(), lr=0.01, maximize=True)
        chains = machine.init_chains(BATCH)
        began = time.process_time()
        with torch.no_grad():
            for _ in range(steps):
                rows = torch.randperm(len(data))[:BATCH]
                optimizer.zero_grad(set_to_none=False)
                chains, _ = fit_batch_pcd(
                    (data[rows], share), chains, machine, sweeps, beta=1.0, centered=False
                )
                optimizer.step()
        return Run(time.process_time() - began)

    return run


def annealing(temperatures: int) -> Case:
    """Return the case of the published machine's log Z."""
    weights, test = published_rbm()

    def prepare(wing: str) -> Callable[[int], Run]:
        dg: Any = importlib.import_module(f"deepgen_ppl.{wing}")
        if wing == "pyro":
            importlib.import_module("torch").set_num_threads(1)
        rbm = dg.RBM(784, HIDDEN).with_weights(*weights)

        def run(seed: int) -> Run:
            began = time.process_time()
            found = dg.log_z(
                rbm, test, method="ais", num_temperatures=temperatures, progress=False, seed=seed
            )
            told = {"log Z": found.log_evidence, "se": found.standard_error}
            told["off"] = abs(found.log_evidence - PUBLISHED)
            return Run(time.process_time() - began, quality=told)

        run(0)
        return run

    contenders = tuple(
        Contender(f"deepgen_ppl.{w}", lambda w=w: prepare(w)) for w in ("numpyro", "pyro")
    )
    limits = tuple(Limit(c.name, "seconds", 12.0) for c in contenders)
    return Case(temperatures, "temperatures", contenders, limits=limits, repeats=3)
