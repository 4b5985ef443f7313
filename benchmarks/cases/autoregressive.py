"""Draws of autoregressive models of 784 features: what steps keep, beside whole passes."""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np

from benchmarks.case import Case, Contender, Run, Target, timed

REQUIRES = ()
VARIANTS = (
    "nade", "made", "pixelcnn", "transformer",
    "pyro_nade", "pyro_made", "pyro_pixelcnn", "pyro_transformer",
)  # fmt: skip


def module_of(dg, family: str, side: int):
    """The module of images of side x side pixels."""
    a, shape = dg.autoregressive, (side, side)
    return {
        "nade": lambda: a.NADE(shape, units=500),
        "made": lambda: a.MADE(shape, None, (500,)),
        "pixelcnn": lambda: a.PixelCNN(shape, None, 16, 5),
        "transformer": lambda: a.Transformer(shape, None, 32, 2, 2),
    }[family]()


def in_jax(family: str, side: int, u: np.ndarray):
    """Return draws by steps and by whole passes, with noise on the weights."""
    import jax
    import jax.numpy as jnp

    from benchmarks.baselines import autoregressive_naive

    net = module_of(importlib.import_module("deepgen_ppl.numpyro"), family, side)
    rng = np.random.default_rng(0)
    net = jax.tree.map(lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype("f4"), net)
    u = jnp.asarray(u)
    kept = jax.jit(lambda net, u: net().from_uniforms(u.reshape(len(u), side, side, 1)))
    whole = autoregressive_naive.compiled
    return lambda: np.asarray(kept(net, u)), lambda *given: np.asarray(whole(net, u, *given))


def in_torch(family: str, side: int, u: np.ndarray):
    """Return draws by steps and by whole passes, with noise on the weights."""
    import torch

    from benchmarks.baselines import autoregressive_naive_torch

    net = module_of(importlib.import_module("deepgen_ppl.pyro"), family, side)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight += torch.as_tensor(0.05 * rng.normal(size=weight.shape), dtype=weight.dtype)
    numbers = torch.as_tensor(u)

    def kept() -> np.ndarray:
        with torch.no_grad():
            return net().from_uniforms(numbers.reshape(len(u), side, side, 1)).numpy()

    return kept, lambda *given: autoregressive_naive_torch.draws(net, numbers, *given).numpy()


def build(variant: str, quick: bool) -> Case:
    """Return the case of one family."""
    family, is_torch = variant.removeprefix("pyro_"), variant.startswith("pyro_")
    side, rows = (8, 4) if quick else (28, 4 if is_torch or family == "transformer" else 16)
    size = side * side
    # a whole pass of attention takes as long at every pixel: some of them tell
    positions = np.arange(size)[:: 1 if quick or family != "transformer" else 49]
    u = np.random.default_rng(0).random((rows, size, 1), np.float32)

    def prepare(place: int):
        kept, whole = (in_torch if is_torch else in_jax)(family, side, u)
        ours = kept().reshape(rows, size)
        every = len(positions) == size
        draw = kept if place == 0 else partial(whole, positions, 0 * ours if every else ours)

        def run(seed: int) -> Run:
            with timed() as clock:
                found = draw()
            same = float((found.reshape(rows, size) == ours).mean(0)[positions].mean())
            seconds = clock.seconds * (size / len(positions) if place else 1.0)
            return Run(seconds, 0.0, {"share of equal pixels": same})

        run(0)
        return run

    contenders = (Contender("ours", partial(prepare, 0)), Contender("naive", partial(prepare, 1)))
    return Case(
        work=rows,
        unit="images",
        contenders=contenders,
        targets=(Target("ours", "naive", None if quick or family == "made" else 10.0),),
        repeats=1 if quick else 3,
        notes=(
            f"{rows} images of {side} x {side} pixels at equal uniform numbers"
            + ("" if is_torch else ", jitted"),
            f"naive draws of {len(positions)} pixels"
            + ("" if len(positions) == size else f", times {size / len(positions):g}"),
        ),
    )
