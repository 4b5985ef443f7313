"""Draws of autoregressive models of 784 features: what steps keep, beside whole passes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import deepgen_ppl.numpyro as dg
from benchmarks.baselines import autoregressive_naive
from benchmarks.case import Case, Contender, Run, Target, timed

REQUIRES = ("jax", "numpyro")
VARIANTS = ("nade", "made", "pixelcnn", "transformer")


def net_of(variant: str, side: int):
    """The module of images of side x side pixels, with noise on its weights."""
    a, shape = dg.autoregressive, (side, side)
    made = {
        "nade": lambda: a.NADE(shape, units=500),
        "made": lambda: a.MADE(shape, None, (500,)),
        "pixelcnn": lambda: a.PixelCNN(shape, None, 16, 5),
        "transformer": lambda: a.Transformer(shape, None, 32, 2, 2),
    }[variant]()
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype("f4"), made)


def build(variant: str, quick: bool) -> Case:
    """Return the case of one family."""
    side, rows = (8, 4) if quick else (28, 16)
    net = net_of(variant, side)
    u = np.random.default_rng(0).random((rows, side * side, 1), np.float32)

    def contender(draw):

        def prepare():
            truth = np.asarray(autoregressive_naive.compiled(net, jnp.asarray(u)))

            def run(seed: int) -> Run:
                with timed() as clock:
                    found = jax.block_until_ready(draw(net, jnp.asarray(u)))
                same = float((np.asarray(found).reshape(truth.shape) == truth).mean())
                return Run(clock.seconds, 0.0, {"share of equal pixels": same})

            run(0)
            return run

        return prepare

    def kept(net, u):
        return net().from_uniforms(u.reshape(rows, side, side, 1))

    ours, naive = contender(jax.jit(kept)), contender(autoregressive_naive.compiled)
    return Case(
        work=rows,
        unit="images",
        contenders=(Contender("ours", ours), Contender("naive", naive)),
        targets=(Target("ours", "naive", None if quick or variant == "made" else 10.0),),
        repeats=1 if quick else 3,
        notes=(f"{rows} images of {side} x {side} pixels at equal uniform numbers, jitted",),
    )
