"""Evidence counted twice: naive Bayes beside its discriminative mirrors, in both languages.

Run `python examples/spam.py SMSSpamCollection` with the SMS spam collection (a line a message:
`ham` or `spam`, a tab, the text; https://archive.ics.uci.edu/dataset/228), or without a path on
scikit-learn's breast cancer. Three classifiers see the features once, then several times over:
naive Bayes takes every copy for new evidence. `--quick` takes seconds. The picture goes to
`out/spam/`.
"""

import argparse
import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction.text import CountVectorizer

from deepgen_ppl import figures
from deepgen_ppl.calibration_figures import reliability_curves
from deepgen_ppl.classes import reliability
from deepgen_ppl.datasets import read_csv


def load(path, num_words):
    """Features, classes and the family of the features; the file's, or breast cancer."""
    if path is None:
        data = load_breast_cancer()
        x = (data.data - data.data.mean(0)) / data.data.std(0)
        return x.astype("float32"), data.target, "gaussian", "breast cancer"
    table = read_csv(path, delimiter="\t", header=False)
    words = CountVectorizer(binary=True, max_features=num_words, lowercase=True)
    x = words.fit_transform([str(text) for text in table["1"]]).toarray().astype("float32")
    return x, (table["0"] == "spam").astype(int), "bernoulli", "SMS spam"


def split(x, y, share=0.7, seed=0):
    """Training and test rows."""
    order = np.random.default_rng(seed).permutation(len(x))
    cut = int(share * len(x))
    return (x[order[:cut]], y[order[:cut]]), (x[order[cut:]], y[order[cut:]])


def numpyro_wing():
    """The NumPyro wing, an optimiser and the smoothing of word frequencies."""
    import numpyro.distributions as dist
    import optax

    import deepgen_ppl.numpyro as dg

    return dg, optax.adam(0.02), dist.Beta(2.0, 2.0)


def pyro_wing():
    """The same in Pyro."""
    import pyro.distributions as dist
    import torch

    import deepgen_ppl.pyro as dg

    return dg, partial(torch.optim.Adam, lr=0.02), dist.Beta(2.0, 2.0)


def classifiers(dg, optim, smoothing, family, num_steps):
    """Three classifiers and how each is learned."""
    priors = {"probs": smoothing} if family == "bernoulli" else None
    bayes = dg.naive_bayes(family, priors=priors)
    options = {"num_steps": num_steps, "batch_size": 128, "optim": optim, "progress": False}

    def by_gradients(model, x, y):
        return dg.svi(model, model.guide, x, y, **options)

    return {
        "naive Bayes": (bayes, partial(dg.em, progress=False)),
        "Bayesian logistic": (dg.logistic_regression(), by_gradients),
        "neural network": (dg.neural_classifier(hidden=(16,)), by_gradients),
    }


def compare(wing, data, family, copies, num_steps):
    """Learn every classifier on so many copies of the features, and judge it on test rows."""
    (x, y), (x_test, y_test) = data
    found = {}
    for name, (model, fit) in classifiers(*wing, family, num_steps).items():
        start = time.perf_counter()
        learned = fit(model, np.tile(x, copies), y)
        sure = model.probabilities(learned, np.tile(x_test, copies), num_samples=50)
        found[name] = one = reliability(sure, y_test)
        print(
            f"{copies:2d} x {name:18s} accuracy {one.accuracy_in_all:.4f}  log loss "
            f"{one.log_loss:.4f}  ECE {one.ece:.4f}  ({time.perf_counter() - start:.1f} s)",
            flush=True,
        )
    return found


def few_labels(wing, data, family, num_labels):
    """Naive Bayes from a few labelled rows, without and with the unlabelled ones."""
    dg, _, smoothing = wing
    (x, y), (x_test, y_test) = data
    priors = {"probs": smoothing} if family == "bernoulli" else None
    model = dg.naive_bayes(family, priors=priors, floor=1e-2)
    known = np.where(np.arange(len(y)) < num_labels, y, -1)
    fits = {
        "labelled rows": dg.em(model, x[:num_labels], y[:num_labels], progress=False),
        "all rows": dg.em(model, x, known, num_steps=30, tolerance=1e-4, progress=False),
    }
    for name, fit in fits.items():
        one = reliability(model.probabilities(fit, x_test), y_test)
        print(f"{num_labels} labels, {name}: accuracy {one.accuracy_in_all:.4f}", flush=True)


def main():
    """Run everything and leave the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="the SMS spam collection")
    parser.add_argument("--quick", action="store_true", help="fewer words and steps")
    parser.add_argument("--out", type=Path, default=Path("out/spam"))
    parser.add_argument("--only", nargs="+", choices=("NumPyro", "Pyro"), help="one language")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    x, y, family, title = load(options.path, 200 if options.quick else 1000)
    data, many = split(x, y), 4 if options.quick else 8
    print(f"{title}: {len(data[0][1])} rows to learn from, {len(data[1][1])} to judge by")
    for language in options.only or ("NumPyro", "Pyro"):
        if not importlib.util.find_spec(language.lower()):
            print(f"{language} is not installed: pip install 'deepgen_ppl[{language.lower()}]'")
            continue
        print(f"\n=== {language} ===")
        wing = {"NumPyro": numpyro_wing, "Pyro": pyro_wing}[language]()
        steps = 300 if options.quick else 1500
        curves = {
            ("each feature once" if copies == 1 else f"each feature {copies} times"): compare(
                wing, data, family, copies, steps
            )
            for copies in (1, many)
        }
        few_labels(wing, data, family, 30)
        behind = "" if options.only else f"-{language.lower()}"
        png = figures.to_png(reliability_curves(curves), resolution=90)
        (options.out / f"spam{behind}.png").write_bytes(png)
    print(f"\nNow open {options.out}")


if __name__ == "__main__":
    main()
