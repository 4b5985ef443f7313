"""MNIST with a hundred labels: the autoencoder of classes and styles beside the net alone.

    python benchmarks/studies/semi_supervised_mnist.py --codes 12 --epochs 30 --splits 3
    python benchmarks/studies/semi_supervised_mnist.py --teacher --epochs 12

Kingma, Rezende, Mohamed and Welling (2014, arXiv:1406.5298): each split draws as many labelled
rows of each class. M2 has the pixels, binarised anew every epoch; with `--codes N`, M1+M2 has draws
of the latents that a plain autoencoder (784-200-200-50, N epochs) uses, anew every epoch. An epoch
has the 60,000 training images and the labelled rows `--repeats` times with their labels. In the
first `--apart` epochs labels alone teach the classifier. The net alone, of pixels, has one hidden
layer and the labelled rows in grey. Errors are those of all 10,000 test images; `--held` takes the
last 10,000 training images in their place, by which options are chosen. `--teacher` tells how good
Bayes' rule of the generative part is when it is given all labels. The paper's errors at 100 labels:
25.81% of the net alone, 11.97% (1.71) of M2, 3.33% (0.14) of M1+M2.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.autoregressive import adam
from benchmarks.studies.vae_mnist import binarised, images
from benchmarks.studies.vae_mnist import train as autoencoded

BATCH, UNITS = 100, 200


def chosen(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Return rows that are labelled, `each` of every class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(labels == k), each, False) for k in range(10)])


def codes(options: Any, x: np.ndarray, test: np.ndarray) -> tuple[Callable, np.ndarray]:
    """Return draws of the latents that an autoencoder uses, by epoch, and test means."""
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    vae = dg.VAE((UNITS, UNITS), (UNITS, UNITS), features=784, latents=50, activation="tanh")
    fit = autoencoded(dg, vae, x, dg.ELBO(kl="analytic"), options.codes, 0)
    means = np.asarray(vae.encode(fit, binarised(x[:10_000], 7)))
    used = np.flatnonzero(means.std(0) > 0.2)
    print(f"{len(used)} of 50 latents are used", flush=True)

    def drawn(epoch: int) -> np.ndarray:
        found = vae.encode(fit, binarised(x, epoch), num_samples=1, seed=epoch)
        return np.asarray(found).reshape(len(x), -1)[:, used]

    return drawn, np.asarray(vae.encode(fit, binarised(test, 10**6)))[:, used]


def train(options: Any, model: Any, data: Callable, labels: np.ndarray, known: np.ndarray) -> Any:
    """Train the model with new rows every epoch, the labelled ones repeated."""
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    rows = np.concatenate([np.arange(len(labels)), np.repeat(known, options.repeats)])
    y = np.concatenate([np.full(len(labels), -1), np.repeat(labels[known], options.repeats)])
    each, fit = len(rows) // BATCH, None
    phases = {model.taught_guide: options.apart, model.guide: options.epochs - options.apart}
    with tempfile.TemporaryDirectory() as folder:
        for number, (guide, epochs) in enumerate(phases.items()):
            start, optim = fit, adam(options.wing, options.rate, max(epochs, 1) * each)
            for epoch in range(epochs):
                fit = dg.svi(
                    model.model, guide, data(epoch + 1000 * number)[rows], y,
                    num_steps=(epoch + 1) * each, batch_size=BATCH, loss=dg.EnumeratedELBO(),
                    optim=optim, params=start, progress=False,
                    checkpoint=Path(folder) / f"run{number}",
                )  # fmt: skip
    return fit


def made(options: Any, features: int, seed: int) -> Any:
    """Return the model of pixels or of codes."""
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    own: dict[str, Any] = {"latents": options.latents, "alpha": options.alpha, "seed": seed}
    if options.codes:
        own |= {"likelihood": dg.vae.Gaussian(scale="decoder"), "activation": "softplus"}
    nets = ((options.units,),) * 3
    return dg.SemiSupervisedVAE(*nets, features=features, classes=10, **own)


def teacher(
    options: Any, x: np.ndarray, labels: np.ndarray, test: np.ndarray, y: np.ndarray
) -> None:
    """Tell the error of Bayes' rule by bounds of the conditional model trained on all labels."""
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    hot, rows, fit = np.eye(10, dtype=np.float32), test[:1000], None
    vae = dg.VAE((UNITS,), (UNITS,), features=784, latents=options.latents, context=10)
    steps, optim = len(x) // BATCH, adam(options.wing, options.rate, 10**9)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(options.epochs):
            fit = dg.svi(
                *vae, binarised(x, epoch), hot[labels], num_steps=(epoch + 1) * steps,
                batch_size=BATCH, optim=optim, progress=False, checkpoint=Path(folder) / "run",
            )  # fmt: skip
            each = [
                vae.log_evidence(fit, rows, np.tile(hot[k], (len(rows), 1)), num_particles=16)
                for k in range(10)
            ]
            wrong = np.argmax([found.per_row for found in each], 0) != y[:1000]
            print(
                f"epoch {epoch + 1}: Bayes' rule of 1,000 rows errs on {wrong.mean():.3f}",
                flush=True,
            )


def main() -> None:
    """Train both on each split and tell their errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--codes", type=int, default=0, help="epochs of M1; 0: M2 of pixels")
    parser.add_argument("--latents", type=int, default=10)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--alpha", type=float, default=20.0)
    parser.add_argument("--apart", type=int, default=2, help="epochs with labels alone as teachers")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--held", action="store_true", help="errors of training images held out")
    parser.add_argument("--teacher", action="store_true")
    options = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    (x, labels), (test, truth) = images("train"), images("test")
    if options.held:
        x, labels, test, truth = x[:50_000], labels[:50_000], x[50_000:], labels[50_000:]
    labels = labels.astype(int)
    print(options, flush=True)
    if options.teacher:
        teacher(options, x, labels, binarised(test, 10**6), truth)
        return
    data, rows = (lambda epoch: binarised(x, epoch)), binarised(test, 10**6)
    if options.codes:
        data, rows = codes(options, x, test)
    errors = []
    for seed in range(options.first, options.first + options.splits):
        known = chosen(labels, options.labels // 10, seed)
        alone = dg.neural_classifier(10, hidden=(UNITS,))
        fit = dg.svi(alone, alone.guide, x[known], labels[known], num_steps=300, progress=False)
        wrong = float((alone.probabilities(fit, test).argmax(1) != truth).mean())
        model = made(options, rows.shape[1], seed)
        start, clock = time.perf_counter(), time.process_time()
        fit = train(options, model, data, labels, known)
        ours = float((model.predict(fit, rows).argmax(1) != truth).mean())
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
