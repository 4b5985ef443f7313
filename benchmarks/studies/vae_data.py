"""Autoencoders of two small real sets: counts of genes, by likelihood, and frames of a face.

    python benchmarks/studies/vae_data.py --wing numpyro             # some three minutes
    python benchmarks/studies/vae_data.py --wing pyro --steps 300

Counts: the 80 cells x 230 genes of pbmc_small in four folds; each likelihood is trained on three
and weighed on the fourth, nats a cell by 500 importance weights, errors over cells. Faces: the
Frey faces with 256 levels, a prior of 30 normals and the last tenth held out; bits a pixel, and a
picture of draws and of ways between codes.
"""

from __future__ import annotations

import argparse
import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import SHARED

COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
SHAPE = (28, 20)


def adam(wing: str, rate: float) -> Any:
    """Adam of the language."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return partial(importlib.import_module("torch").optim.Adam, lr=rate)


def cells(dg: Any, wing: str, steps: int) -> None:
    """Compare likelihoods of counts on cells that were not seen."""
    counts = np.load(SHARED / "pbmc_small" / "pbmc_small.npz")["counts"].astype(np.float32)
    fold = np.random.default_rng(0).permutation(len(counts)) % 4
    for likelihood in COUNTS:
        nats = []
        for k in range(4):
            train, test = counts[fold != k], counts[fold == k]
            vae = dg.VAE((32,), (32,), features=counts.shape[1], latents=2, likelihood=likelihood)
            fit = dg.svi(
                *vae, train, num_steps=steps, optim=adam(wing, 3e-3), progress=False,
                validation_data=(test,), patience=10,
            )  # fmt: skip
            nats.append(-np.asarray(vae.log_evidence(fit, test, num_particles=500).per_row))
        each = np.concatenate(nats)
        error = each.std(ddof=1) / len(each) ** 0.5
        print(f"{wing}, pbmc_small, {likelihood}: {each.mean():.1f} +- {error:.1f} nats a cell")


def faces(dg: Any, wing: str, steps: int, out: Path) -> None:
    """Train on frames of a face; print bits a pixel and draw a picture."""
    x = np.load(SHARED / "frey_faces" / "frey_faces.npz")["images"].astype(np.float32)
    x = x.reshape(len(x), -1)
    train, test = x[:-196], x[-196:]
    axes = {"likelihood": dg.vae.DiscretizedLogistic(256), "prior": dg.vae.MixturePrior(30)}
    vae = dg.VAE((200,), (200,), features=x.shape[1], latents=8, **axes)
    options = {"num_steps": steps, "batch_size": 100, "optim": adam(wing, 1e-3), "progress": False}
    fit = dg.svi(*vae, train, **options)
    nats = -np.asarray(vae.log_evidence(fit, test, num_particles=500).per_row)
    bits = nats / np.log(2) / x.shape[1]
    error = bits.std(ddof=1) / len(bits) ** 0.5
    print(f"{wing}, frey_faces: {bits.mean():.3f} +- {error:.3f} bits a pixel, {steps} steps")
    drawn = vae.generate(fit, 10, mean=True)
    ways = vae.interpolate(fit, test[[0, 60]], test[[150, 110]], num_steps=10)
    picture(np.stack([drawn, ways[:, 0], ways[:, 1]]), out / f"frey-faces-{wing}.png")


def picture(images: np.ndarray, path: Path) -> None:
    """Write rows of images to a file."""
    from matplotlib.figure import Figure

    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.6 * columns, 0.84 * rows), layout="constrained")
    axes = figure.subplots(rows, columns).flat
    for ax, image in zip(axes, images.reshape(-1, *SHAPE), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", choices=("cells", "faces"), help="one of the two")
    parser.add_argument("--out", type=Path, default=Path("out/vae-data"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    if options.only != "faces":
        cells(dg, options.wing, options.steps)
    if options.only != "cells":
        faces(dg, options.wing, options.steps, options.out)


if __name__ == "__main__":
    main()
