"""Flows on NumPyro beside flowjax's and torch's, of equal size: densities, training, draws."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flowjax.bijections as bijections
import flowjax.distributions as distributions
import flowjax.flows as theirs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax

import deepgen_ppl.numpyro as dg
from benchmarks.case import Case, Contender, Run, Skip, Target, timed

REQUIRES = ("jax", "numpyro", "flowjax")
VARIANTS = (
    "nsf-8-log_prob", "nsf-8-train", "nsf-8-sample", "nsf-64-log_prob", "nsf-64-train",
    "nsf-64-sample", "maf-8-log_prob", "maf-8-train", "maf-8-sample", "maf-64-log_prob",
    "maf-64-train", "maf-64-sample",
)  # fmt: skip
BATCH = 1024
TORCH = ("Zuko", "Pyro")


def ours_of(name: str, size: int, seed: int = 0, **own: Any):
    """Ours: 8 couplings of 8 bins or of affine maps, or 5 masked layers, networks of 128 x 2 units.

    Args:
        name: "nsf", "nsf-autoregressive", "maf" or "realnvp".
        size: number of features.
        seed: seed of the weights.
        **own: further options of the flow.

    Returns:
        The parameters, and functions of them for densities and draws.
    """
    if name.startswith("nsf"):
        masked = name == "nsf-autoregressive"
        own |= {"autoregressive": masked, "transforms": 5 if masked else 8}
        flow = dg.flows.NSF(size, hidden=(128, 128), bins=8, bound=5.0, seed=seed, **own)
    elif name == "maf":
        flow = dg.flows.MAF(size, transforms=5, hidden=(128, 128), seed=seed, **own)
    else:
        flow = dg.flows.RealNVP(size, transforms=8, hidden=(128, 128), seed=seed, **own)
    learned, static = eqx.partition(flow, eqx.is_inexact_array)
    return (
        learned,
        lambda p, x: eqx.combine(p, static)().log_prob(x),
        lambda p, key: eqx.combine(p, static)().sample(key, (BATCH,)),
    )


def theirs_of(name: str, size: int, seed: int = 0):
    """The same of flowjax."""
    base, masked = distributions.Normal(jnp.zeros(size)), name in ("maf", "nsf-autoregressive")
    options = {"base_dist": base, "nn_depth": 2, "nn_width": 128, "invert": masked}
    spline = bijections.RationalQuadraticSpline(knots=7, interval=5)  # inner knots of 8 bins
    moved = spline if name.startswith("nsf") else bijections.Affine()
    if masked:
        flow = theirs.masked_autoregressive_flow(
            jax.random.key(seed), transformer=moved, flow_layers=5, **options
        )
    else:
        flow = theirs.coupling_flow(
            jax.random.key(seed), transformer=moved, flow_layers=8, **options
        )
    learned, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )

    def whole(p):
        return paramax.unwrap(eqx.combine(p, static))

    return (
        learned,
        lambda p, x: whole(p).log_prob(x),
        lambda p, key: whole(p).sample(key, (BATCH,)),
    )


def on_torch(side: str, name: str, size: int, kind: str, calls: int):
    """The same of a torch library, eager: how its contender prepares."""
    try:
        from benchmarks.baselines import flows_torch
    except ImportError as error:
        raise Skip(f"{error.name} is not installed") from error
    make = flows_torch.zuko_of if side == "Zuko" else flows_torch.PyroFlow
    return flows_torch.worker(make, name, size, kind, 2, calls // 2)


def build(variant: str, quick: bool) -> Case:
    """Return the case of one flow, number of features and kind of work."""
    name, text, kind = variant.split("-")
    size, calls = int(text), 2 if quick else 20
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, size)), jnp.float32)

    def contender(learned, log_prob, sample):

        def prepare():
            optimizer = optax.adam(1e-3)

            def loss(learned):
                return -log_prob(learned, x).mean()

            @jax.jit
            def train(learned, state):
                value, gradient = jax.value_and_grad(loss)(learned)
                updates, state = optimizer.update(gradient, state, learned)
                return optax.apply_updates(learned, updates), state, value

            density, draws = jax.jit(log_prob), jax.jit(sample)
            memory = optimizer.init(learned)

            def once(seed: int):
                if kind == "train":
                    return train(learned, memory)
                if kind == "sample":
                    return draws(learned, jax.random.key(seed))
                return density(learned, x)

            def run(seed: int) -> Run:
                with timed() as clock:
                    for i in range(calls):
                        found = once(seed + i)
                    jax.block_until_ready(found)
                quality = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(learned))}
                return Run(clock.seconds, 0.0, quality)

            run(0)
            return run

        return prepare

    aim = 1.2 if kind == "train" and size == 64 else 1.05
    return Case(
        work=calls,
        unit="batches",
        contenders=(
            Contender("ours", lambda: contender(*ours_of(name, size))()),
            Contender("flowjax", lambda: contender(*theirs_of(name, size))()),
            *(Contender(t, lambda t=t: on_torch(t, name, size, kind, calls)()) for t in TORCH),
        ),
        targets=(Target("ours", "flowjax", aim), *(Target("ours", t, 2.0) for t in TORCH)),
        repeats=2 if quick else 5,
        notes=(
            f"{BATCH} rows of {size} features, networks of 128 x 2 units; JAX jitted",
            "torch eager: the seconds of two batches, as many times as there are pairs of them",
        ),
    )
