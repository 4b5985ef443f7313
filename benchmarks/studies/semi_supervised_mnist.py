"""MNIST with a hundred labels: the autoencoder of classes and styles beside the net alone.

    python benchmarks/studies/semi_supervised_mnist.py --epochs 1 --splits 3

M2 of Kingma, Rezende, Mohamed and Welling (2014, arXiv:1406.5298): each split draws as many
labelled rows of each class. An epoch has the 60,000 training images, binarised anew, and the
labelled rows `--repeats` times with their labels; the bound of the others is summed over the
classes. The first steps, `--warm`, are on the labelled rows alone. The net alone, of the same
units, has the labelled rows in grey, and is tested in grey; the model has the test images binarised
once. Errors are those of all 10,000 test images; `--held` takes
the last 10,000 training images in their place, by which options are chosen. The paper's errors at
100 labels: 25.81% of the net alone, 11.97% (1.71) of M2.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.autoregressive import adam
from benchmarks.studies.vae_mnist import binarised, images

BATCH, UNITS = 100, 200


def chosen(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Return rows that are labelled, `each` of every class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(labels == k), each, False) for k in range(10)])


def train(options: Any, model: Any, x: np.ndarray, labels: np.ndarray, known: np.ndarray) -> Any:
    """Train the model with new binary images every epoch, the labelled ones repeated."""
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    rows = np.concatenate([np.arange(len(x)), np.repeat(known, options.repeats)])
    y = np.concatenate([np.full(len(x), -1), np.repeat(labels[known], options.repeats)])
    each, fit = len(rows) // BATCH, None
    copies = [
        binarised(x[known], 10**5 + n) for n in range(20)
    ]  # so that classes are classes first
    first = dg.svi(
        *model, np.concatenate(copies), np.tile(labels[known], 20), num_steps=options.warm,
        batch_size=BATCH, loss=dg.EnumeratedELBO(), progress=False,
        optim=adam(options.wing, options.rate, options.warm),
    )  # fmt: skip
    optim = adam(options.wing, options.rate, options.epochs * each)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(options.epochs):
            fit = dg.svi(
                *model, binarised(x, epoch)[rows], y, num_steps=(epoch + 1) * each,
                batch_size=BATCH, loss=dg.EnumeratedELBO(), optim=optim, progress=False,
                params=first,
                checkpoint=Path(folder) / "run",
            )  # fmt: skip
    return fit


def main() -> None:
    """Train both on each split and tell their errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--latents", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--alpha", type=float, default=20.0)
    parser.add_argument("--warm", type=int, default=500, help="steps on the labelled rows alone")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held", action="store_true", help="errors of training images held out")
    options = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    (x, labels), (test, truth) = images("train"), images("test")
    if options.held:
        x, labels, test, truth = x[:50_000], labels[:50_000], x[50_000:], labels[50_000:]
    print(options, flush=True)
    errors = []
    for seed in range(options.first, options.first + options.splits):
        known = chosen(labels, options.labels // 10, seed)
        alone = dg.neural_classifier(10, hidden=(UNITS,))
        own = labels[known].astype(int)
        fit = dg.svi(alone, alone.guide, x[known], own, num_steps=300, progress=False)
        wrong = float((alone.probabilities(fit, test).argmax(1) != truth).mean())
        sizes = {"features": x.shape[1], "latents": options.latents, "classes": 10}
        nets = ((UNITS,), (UNITS,), (UNITS,))
        model = dg.SemiSupervisedVAE(*nets, **sizes, alpha=options.alpha, seed=seed)
        start, clock = time.perf_counter(), time.process_time()
        fit = train(options, model, x, labels.astype(int), known)
        ours = float((model.predict(fit, binarised(test, 10**6)).argmax(1) != truth).mean())
        errors.append((wrong, ours))
        print(
            f"split {seed}: error of the net alone {wrong:.4f}, in the model {ours:.4f}; "
            f"loss {fit.losses[-200:].mean():.1f}; {time.perf_counter() - start:.0f} s, "
            f"{time.process_time() - clock:.0f} s of processors",
            flush=True,
        )
    means, spread = np.mean(errors, 0), np.std(errors, 0, ddof=1) if len(errors) > 1 else (0, 0)
    for name, mean, deviation in zip(("alone", "in the model"), means, spread, strict=True):
        print(f"{name}: {mean:.4f}, standard deviation over splits {deviation:.4f}")


if __name__ == "__main__":
    main()
