"""Whose fault is the gap below the evidence, the encoder's or the family's? On both languages.

Run `python examples/amortization.py` (a few minutes) or with `--quick`. It splits the gap of three
autoencoders of digits on held-out rows, and refines an encoder that has never seen a missing cell.
"""

import argparse
import importlib
import importlib.util
from functools import partial

import numpy as np
from sklearn.datasets import load_digits


def adam(wing, rate):
    """Adam of the language."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return partial(importlib.import_module("torch").optim.Adam, lr=rate)


def autoencoders(dg, quick):
    """The same decoder under a small encoder, a large one, and one with all correlations."""
    found = {"64 units, diagonal": dg.VAE((64,), (64,), features=64, latents=8)}
    if quick:
        return found
    return found | {
        "512 units, diagonal": dg.VAE((512,), (64,), features=64, latents=8),
        "64 units, full": dg.VAE((64,), (64,), features=64, latents=8, posterior="full"),
    }


def missing(vae, fit, x, refine):
    """Brier score of lower halves drawn from what is above them."""
    seen = np.ones_like(x, bool)
    seen[:, 32:] = False
    found = vae.impute(fit, x, seen, num_samples=50, num_particles=100, refine=refine)
    return float(np.mean((found.mean - x)[~seen] ** 2))


def run(wing, quick):
    """Train each, split its gap, and refine where cells are missing."""
    dg = importlib.import_module(f"deepgen_ppl.{wing}")
    x = (load_digits().data > 7).astype(np.float32)
    steps, last = (60, 30) if quick else (4000, 297)
    train, test = x[:-297], x[-last:]
    for number, (name, vae) in enumerate(autoencoders(dg, quick).items()):
        options = {"num_steps": steps, "batch_size": 200, "optim": adam(wing, 3e-3)}
        fit = dg.svi(*vae, train, **options, progress=False)
        limits = {"num_particles": 100, "max_steps": 50} if quick else {}
        found = dg.amortization_gap(*vae, fit, test, **limits)
        print(f"{wing}, {name}\n{found}\n")
        if number == 0 and not quick:
            scores = [missing(vae, fit, test, refine) for refine in (0, 300)]
            print(f"Brier score of missing halves {scores[0]:.4f}, refined {scores[1]:.4f}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    options = parser.parse_args()
    for wing in ("numpyro", "pyro"):
        if importlib.util.find_spec(wing) is not None:
            run(wing, options.quick)


if __name__ == "__main__":
    main()
