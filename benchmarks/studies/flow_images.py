"""Bits per dimension of RealNVP and Glow on digits and MNIST, with errors, and their draws.

    python benchmarks/studies/flow_images.py --wing numpyro --data digits --flow Glow
    python benchmarks/studies/flow_images.py --data mnist --steps 3000 --picture mnist.png

Levels are dequantised by uniform noise. Of the held-out images: the bound on the log probability,
its tightening by 64 importance weights, and the errors over images. MNIST is framed to 32 x 32 for
Glow, whose bits are those of the 28 x 28 pixels (the frame is predicted almost for nothing, and
what it costs is counted).
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.data import SHARED
from deepgen_ppl import figures, flow_figures


def images(data: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return images to train and to test with, whole numbers, and the number of levels."""
    if data == "digits":
        x = load_digits().images.astype(np.float32)
        return x[:1500], x[1500:], 17
    found = []
    for name in ("train", "t10k"):
        with gzip.open(SHARED / "mnist" / f"{name}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16)
        found.append(pixels.reshape(-1, 28, 28).astype(np.float32))
    return found[0], found[1], 256


def body(dg: Any, options: argparse.Namespace, side: int, levels: int) -> Any:
    """Return the flow of images of this side."""
    f, width = dg.flows, options.width
    if options.flow == "Glow":
        sizes = {"scales": options.scales, "steps": options.depth, "channels": width}
        return f.Glow((side, side, 1), levels=float(levels), **sizes)
    size = side * side
    inner = f.RealNVP(size, transforms=6, hidden=(2 * width, 2 * width))
    return f.Flow(f.Chain([inner.layer, f.Logit(size, levels=float(levels))]))


def adam(wing: str, rate: float) -> Any:
    """Return Adam of the language."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    torch = importlib.import_module("torch")
    return lambda params: torch.optim.Adam(params, rate)


def draws(wing: str, flow: Any, number: int) -> np.ndarray:
    """Return draws of a flow."""
    if wing == "numpyro":
        key = importlib.import_module("jax").random.key(0)
        return np.asarray(flow().sample(key, (number,)))
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    with torch.no_grad():
        return flow().sample((number,)).numpy()


def main() -> None:
    """Read the options, train, score and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wing", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--flow", choices=("RealNVP", "Glow"), default="Glow")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--scales", type=int, default=2, help="scales of Glow, each of half the side"
    )
    parser.add_argument("--depth", type=int, default=4, help="steps of Glow at each scale")
    parser.add_argument("--test", type=int, default=1000, help="held-out images that are scored")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    train, test, levels = images(options.data)
    test, pixels = test[: options.test], train[0].size
    if options.flow == "Glow":
        frame = -train.shape[1] % 8 // 2
        train, test = (
            np.pad(x, ((0, 0), (frame, frame), (frame, frame)))[..., None] for x in (train, test)
        )
    else:
        train, test = (x.reshape(len(x), -1) for x in (train, test))
    side = train.shape[1] if options.flow == "Glow" else math.isqrt(pixels)
    flow = body(dg, options, side, levels)
    noise = np.random.default_rng(0).random((256, *train.shape[1:]), np.float32)
    flow = dg.flows.initialised(flow, train[:256] + noise)
    pair = dg.flows.dequantised(flow)
    settings = {"num_steps": options.steps, "batch_size": 128, "progress": False}
    fit = dg.svi(*pair, train, optim=adam(options.wing, 1e-3), **settings)
    weights = fit.importance(test, num_particles=64, batch_size=100).log_weights
    weights = weights.reshape(64, -1).astype(float)
    top = weights.max(0)
    tight = top + np.log(np.exp(weights - top).mean(0))
    for name, score in (("bound", weights.mean(0)), ("64 weights", tight)):
        bits = -score / pixels / math.log(2.0)
        print(
            f"{options.wing} {options.data} {options.flow} {name}: {bits.mean():.4f} +- "
            f"{bits.std() / math.sqrt(len(bits)):.4f} bits per dimension, "
            f"{options.steps} steps in {fit.seconds:.0f} s",
            flush=True,
        )
    if options.picture:
        learned = dg.flows.fitted(flow, fit)
        found = np.clip(draws(options.wing, learned, 12), 0, levels).reshape(12, side, side)
        panels = {"data": test[:12].reshape(12, side, side), "draws": found}
        options.picture.write_bytes(figures.to_png(flow_figures.images(panels)))


if __name__ == "__main__":
    main()
