"""The one-layer autoencoder of the IWAE paper on MNIST: log evidence, and what its codes are for.

    python benchmarks/studies/vae_mnist.py --loss elbo --epochs 30
    python benchmarks/studies/vae_mnist.py --loss elbo iwae --particles 50 --epochs 15 --rows 500
    python benchmarks/studies/vae_mnist.py --epochs 30 --pictures docs/pictures

Two hidden layers of 200 tanh units on both sides, 50 latents (Burda, Grosse, Salakhutdinov, 2016,
arXiv:1509.00519). Images are binarised anew every epoch: each epoch is a call of `svi` that resumes
the checkpoint of the one before. Test images are binarised once, with a fixed seed. The paper's
figures, 86.76 (VAE) and 84.78 (IWAE, k = 50), are those of some 3,000 epochs with a falling step
size; a run here says how many epochs it had. Nothing here is Larochelle's fixed binarisation.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.data import SHARED
from deepgen_ppl.datasets import read_idx

BATCH = 100


def binarised(x: np.ndarray, seed: int) -> np.ndarray:
    """Return grey images as draws of zeros and ones."""
    return (np.random.default_rng(seed).random(x.shape) < x).astype(np.float32)


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return grey images in [0, 1] as rows, and labels."""
    name = {"train": "train", "test": "t10k"}[split]
    x = read_idx(SHARED / "mnist" / f"{name}-images-idx3-ubyte.gz")
    y = read_idx(SHARED / "mnist" / f"{name}-labels-idx1-ubyte.gz")
    return x.reshape(len(x), -1).astype(np.float32) / 255.0, np.asarray(y)


def upper_halves(count: int) -> np.ndarray:
    """Return the mask of images whose upper half is seen."""
    return np.repeat([True, False], 392)[None].repeat(count, 0)


def train(dg: Any, vae: Any, x: np.ndarray, loss: Any, epochs: int, seed: int) -> Any:
    """Train with new binary images every epoch."""
    fit = None
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(epochs):
            steps = (epoch + 1) * (len(x) // BATCH)
            fit = dg.svi(
                *vae, binarised(x, epoch), num_steps=steps, batch_size=BATCH, loss=loss, seed=seed,
                checkpoint=Path(folder) / "run", progress=False,
            )  # fmt: skip
            if (epoch + 1) % 10 == 0 or epoch == 0:
                late = fit.losses[-(len(x) // BATCH) :].mean()
                print(f"epoch {epoch + 1}: loss {late:.2f} nats an image", flush=True)
    return fit


def few_shot(codes: tuple[np.ndarray, ...], labels: tuple[np.ndarray, ...], each: int) -> list:
    """Return the error of logistic regression on codes by `each` labelled rows of a class."""
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = np.concatenate([rng.choice(np.flatnonzero(labels[0] == k), each, False)
                               for k in range(10)])  # fmt: skip
        rule = LogisticRegression(max_iter=2000).fit(codes[0][rows], labels[0][rows])
        errors.append(1.0 - rule.score(codes[1], labels[1]))
    return errors


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--loss", nargs="+", default=["elbo"], choices=("elbo", "iwae"))
    parser.add_argument("--particles", type=int, default=5, help="draws of IWAE")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000, help="test images of the evidence")
    parser.add_argument("--evidence-particles", type=int, default=5000)
    parser.add_argument("--halves", type=int, default=200, help="images whose half is imputed")
    parser.add_argument("--pictures", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    (x, labels), (grey, test_labels) = images("train"), images("test")
    test = binarised(grey, 10**6)
    found = {}
    for name in args.loss:
        vae, fit, found[name] = trained(dg, args, name, x, test[: args.rows])
        uses(vae, fit, (x, labels), (test, test_labels), args.halves)
        if args.pictures is not None:
            pictures(vae, fit, test, args.pictures)
    if len(found) > 1:
        first, second = args.loss[:2]
        apart = found[second] - found[first]
        error = apart.std(ddof=1) / np.sqrt(len(apart))
        print(f"{second} above {first} by {apart.mean():.3f} +/- {error:.3f} nats, same images")


def trained(
    dg: Any, args: argparse.Namespace, name: str, x: np.ndarray, test: np.ndarray
) -> tuple[Any, Any, np.ndarray]:
    """Train with a loss; return the autoencoder, its fit and log p(x) of each test image."""
    hidden = (200, 200)
    vae = dg.VAE(hidden, hidden, features=784, latents=50, activation="tanh", seed=args.seed)
    loss = dg.ELBO() if name == "elbo" else dg.IWAE(args.particles)
    began, busy = time.perf_counter(), time.process_time()
    fit = train(dg, vae, x, loss, args.epochs, args.seed)
    print(f"{loss}, {args.epochs} epochs of 60,000 images: {time.perf_counter() - began:.0f} s, "
          f"{time.process_time() - busy:.0f} s of processors", flush=True)  # fmt: skip
    began = time.perf_counter()
    found = vae.log_evidence(fit, test, num_particles=args.evidence_particles)
    each = np.asarray(found.per_row)
    error = each.std(ddof=1) / np.sqrt(len(each))
    print(f"-log p(x) of {len(each)} test images: {-each.mean():.2f} +/- {error:.2f} (images), "
          f"{found.standard_error / len(each):.3f} (importance sampling, K = "
          f"{args.evidence_particles}), {time.perf_counter() - began:.0f} s",
          flush=True)  # fmt: skip
    return vae, fit, each


def uses(vae: Any, fit: Any, train_set: tuple, test_set: tuple, halves: int) -> None:
    """Print what the codes are good for: few labels, missing halves, strange images."""
    (x, labels), (test, test_labels) = train_set, test_set
    x, labels = binarised(x[:20_000], 7), labels[:20_000]
    codes = vae.encode(fit, x), vae.encode(fit, test)
    for each in (1, 5, 10):
        ours, raw = (few_shot(z, (labels, test_labels), each) for z in (codes, (x, test)))
        print(f"{10 * each} labels: error {np.mean(ours):.3f} by codes, {np.mean(raw):.3f} by "
              f"pixels (means of 5 draws of the labels)")  # fmt: skip
    mask = upper_halves(halves)
    truth = test[:halves]
    pixels = np.mean((x.mean(0) - truth)[~mask] ** 2)
    for method, particles in {"importance": 2000, "smc": 256}.items():
        found = vae.impute(fit, truth, mask, num_particles=particles, method=method)
        told = found.reliability(truth)
        score = np.mean((found.mean - truth)[~mask] ** 2)
        print(f"lower halves by {method}: Brier score {score:.4f} ({pixels:.4f} of pixel means), "
              f"expected calibration error {told.ece:.4f}, 90% hold "
              f"{found.coverage(truth).share:.3f}; {found.calibration(truth).diagnose()}",
              flush=True)  # fmt: skip
    other = np.load(SHARED / "omniglot" / "omniglot28.npz")["evaluation_images"][::13][:1000]
    strange = binarised(other.reshape(len(other), -1) / 255.0, 8)
    blank = np.zeros((1000, 784), np.float32)  # simple data: small blots on an empty ground
    rng = np.random.default_rng(9)
    blank[np.arange(1000)[:, None], rng.integers(0, 784, (1000, 20))] = 1.0
    truth = np.repeat([0, 1], 1000)
    for name, rows in (("Omniglot", strange), ("20 random dots", blank)):
        both = np.concatenate([test[:1000], rows])
        areas = {
            method: roc_auc_score(truth, vae.anomaly_score(fit, both, method=method))
            for method in ("evidence", "complexity", "reconstruction")
        }
        words = ", ".join(f"{value:.3f} by {method}" for method, value in areas.items())
        print(f"{name} against MNIST, area under the curve: {words}")


def pictures(vae: Any, fit: Any, test: np.ndarray, folder: Path) -> None:
    """Write pictures of what was learned."""
    from matplotlib.figure import Figure

    rows = np.arange(8)
    blocks = {
        "data": test[rows], "reconstructed": vae.reconstruct(fit, test[rows]),
        "drawn": vae.generate(fit, 8, mean=True, seed=1),
    }  # fmt: skip
    way = vae.interpolate(fit, test[:1], test[1:2], num_steps=8)[:, 0]
    mask = upper_halves(8)
    blocks |= {"half seen": vae.impute(fit, test[rows], mask, num_samples=20).mean, "a way": way}
    figure = Figure(figsize=(7, 4.8))
    axes = figure.subplots(len(blocks), 8)
    for (name, block), line in zip(blocks.items(), axes, strict=True):
        line[0].set_title(name, fontsize=8, loc="left")
        for image, axis in zip(block, line, strict=True):
            axis.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
            axis.set_axis_off()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "vae_mnist.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
