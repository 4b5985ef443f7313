"""Digits whose pixels were flipped by chance, put right by Ising's model.

    python benchmarks/studies/field_denoising.py --pictures docs/pictures
    python benchmarks/studies/field_denoising.py --wing pyro --steps 500

A field of 28 x 28 spins, tied to their eight neighbours, learns MNIST (grey images cut at one half)
by persistent chains of its own. Test images have 10% of their pixels flipped; the share of wrong
pixels is told before, and after coordinate ascent, max-product and averages of Gibbs chains.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.vae_mnist import images
from deepgen_ppl.pair_graph import flip_likelihood, grid_edges

SIDE, RATE = 28, 0.1


def eight_neighbours(side: int) -> list[tuple[int, int]]:
    """Return the edges of a grid with its diagonals."""
    node = np.arange(side * side).reshape(side, side)
    falling = zip(node[:-1, :-1].ravel().tolist(), node[1:, 1:].ravel().tolist(), strict=True)
    rising = zip(node[:-1, 1:].ravel().tolist(), node[1:, :-1].ravel().tolist(), strict=True)
    return [*grid_edges(side, side), *falling, *rising]


def adam(wing: str, rate: float) -> Any:
    """Return Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def main() -> None:
    """Train, flip, put right, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=500, help="test images")
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    array = np.asarray if args.wing == "numpyro" else importlib.import_module("torch").as_tensor
    train, test = ((images(split)[0] > 0.5).astype(np.float32) for split in ("train", "test"))
    test = test[: args.rows]
    flips = np.random.default_rng(0).random(test.shape) < RATE
    seen = np.where(flips, 1.0 - test, test)
    field, began = dg.Ising(SIDE * SIDE, eight_neighbours(SIDE)), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what the chains' monitors say is told below
        fit = dg.contrastive(
            field, array(train), num_steps=args.steps, batch_size=100, num_chains=100,
            optim=adam(args.wing, 0.01), progress=False,
        )  # fmt: skip
    print(f"{args.steps} steps: {time.perf_counter() - began:.0f} s", fit.diagnose(), sep="\n")
    field = dg.flows.fitted(field, fit, "energy")
    external = array(flip_likelihood(seen, RATE).astype(np.float32))
    found = {"flipped": seen}
    for name in ("ascent", "max_product"):
        found[name] = np.asarray(field.map(external, method=name))
    found["marginals"] = np.asarray(field.marginals(external))[..., 1]
    for name, x in found.items():
        wrong = ((x > 0.5) != (test > 0.5)).mean(1)
        error = wrong.std() / np.sqrt(len(wrong))
        print(f"{name:12} {100 * wrong.mean():.2f} +- {100 * error:.2f}% of pixels wrong")
    if args.pictures is not None:
        draw({"clean": test, **found}, args.pictures / "field_denoising.png")


def draw(rows: dict[str, np.ndarray], path: Path) -> None:
    """Draw ten images, as they were and after each step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.72 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 10)
    for line, (name, x) in zip(axes, rows.items(), strict=True):
        for i, ax in enumerate(line):
            ax.imshow(x[i].reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
