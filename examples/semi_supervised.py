"""Digits with a hundred labels: an autoencoder of classes and styles beside a classifier alone.

Run `python examples/semi_supervised.py` (about a minute a language) or with `--quick`. The picture,
means of each class in rows of one style, goes to `out/semi_supervised/`; that of the documentation
is made by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib
import importlib.util
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits


def split(labelled):
    """Rows to train with, the labels of some of them, as many of each class, and rows to test."""
    x, labels = load_digits(return_X_y=True)
    bits = (x > 7).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[:500], order[500:]
    own = labels[train]
    chosen = [np.flatnonzero(own == c)[: labelled // 10] for c in range(10)]
    known = np.concatenate(chosen)
    y = np.full(len(train), -1)
    y[known] = own[known]
    return bits[train], y, bits[test], labels[test]


def adam(language, rate, steps):
    """Adam whose rate falls to nothing along a cosine."""
    if language == "NumPyro":
        optax = importlib.import_module("optax")
        return optax.adam(optax.cosine_decay_schedule(rate, steps))
    torch = importlib.import_module("torch")

    def make(params):
        optimizer = torch.optim.Adam(params, rate)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    return make


def compare(language, dg, steps, labelled, out):
    """Print the errors of both; draw styles by class."""
    x, y, test, truth = split(labelled)
    known = y >= 0
    alone = dg.neural_classifier(10, hidden=(64,))
    fit = dg.svi(
        alone, alone.guide, x[known], y[known], num_steps=min(300, 2 * steps), progress=False
    )
    wrong = (alone.probabilities(fit, test).argmax(1) != truth).mean()
    print(f"  {known.sum()} labels, classifier alone: error {wrong:.3f}")
    model = dg.SemiSupervisedVAE(
        (128,), (128,), (64,), features=64, latents=8, classes=10, alpha=10.0
    )
    options = {"batch_size": 100, "loss": dg.EnumeratedELBO(), "progress": False}
    half = steps // 2  # first labels alone teach the classifier, then the model too
    optim = adam(language, 4e-3, half)
    first = dg.svi(model.model, model.taught_guide, x, y, num_steps=half, optim=optim, **options)
    fit = dg.svi(*model, x, y, num_steps=half, optim=optim, params=first, **options)
    wrong = (model.predict(fit, test).argmax(1) != truth).mean()
    print(f"  and {len(x) - known.sum()} rows without: error {wrong:.3f}, "
          f"{first.seconds + fit.seconds:.0f} s")  # fmt: skip
    styles = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    hot = np.tile(np.eye(10, dtype=np.float32), (6, 1))
    means = model.vae.decode(fit, np.repeat(styles, 10, 0), hot).reshape(6, 10, 8, 8)
    figure = Figure(figsize=(6, 3.8))
    axes = figure.subplots()
    tiles = np.pad(means, ((0, 0), (0, 0), (1, 1), (1, 1)))
    axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(60, 100), cmap="gray_r")
    axes.set(title="one style a row, one class a column", xticks=[], yticks=[])
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "semi-supervised.png", dpi=100, bbox_inches="tight")


def main():
    """Run both languages that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, worse errors")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"))
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/semi_supervised"))
    options = parser.parse_args()
    for language in ("NumPyro", "Pyro"):
        name = language.lower()
        if options.only not in (None, language) or importlib.util.find_spec(name) is None:
            continue
        print(language)
        dg = importlib.import_module(f"deepgen_ppl.{name}")
        steps = 400 if options.quick else 3000
        compare(language, dg, steps, options.labels, options.out)


if __name__ == "__main__":
    main()
