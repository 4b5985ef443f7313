"""Missing halves of digits: draws of them, and whether these are as sure as they may be.

Run `python examples/imputation.py` (about two minutes) or with `--quick`. Pictures go to
`out/imputation/`; those of the documentation are made by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib
import importlib.util
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from deepgen_ppl.calibration import Calibration
from deepgen_ppl.calibration_figures import rank_ecdf, reliability_curves
from deepgen_ppl.classes import reliability

HELD_OUT = 297


def split(quick):
    """Digits in bits, in an order of no meaning: rows to train with, rows to test, what is seen."""
    x = (load_digits().data > 7).astype(np.float32)
    x = x[np.random.default_rng(0).permutation(len(x))]
    test = x[-10:] if quick else x[-HELD_OUT:]
    seen = np.ones_like(test, bool)
    seen[:, 32:] = False
    return x[:-HELD_OUT], test, seen


def train(dg, x, steps, masked):
    """An autoencoder, trained with every second row cut in halves or on whole rows."""
    mask = np.ones_like(x, bool)
    mask[::2, 32:] = not masked
    vae = dg.VAE((128,), (128,), features=64, latents=8, posterior="full")
    options = {"num_steps": steps, "batch_size": 100, "progress": False}
    return vae, dg.svi(*vae, x, None, mask, **options)


def compare(dg, quick, out):
    """Impute by three ways, tell how good they are, draw pictures."""
    x, test, seen = split(quick)
    steps, size = (40, 64) if quick else (4000, 1024)
    whole = train(dg, x, steps, masked=False)
    ways = {"resampled": (whole, {"num_particles": size})}
    if not quick:
        ways["by smc"] = whole, {"num_particles": size // 4, "method": "smc"}
        ways["trained with masks"] = train(dg, x, steps, masked=True), {"num_particles": size}
    curves, ranks = {}, {}
    for name, ((vae, fit), options) in ways.items():
        found = vae.impute(fit, test, seen, num_samples=16 if quick else 100, **options)
        score = np.mean((found.mean - test)[~seen] ** 2)
        inside = found.coverage(test, 0.9)
        curves[name] = found.reliability(test)
        bad = "" if found.pareto_k is None else f", {(found.pareto_k > 0.7).mean():.0%} k > 0.7"
        own = found.calibration(test)
        ranks[name] = own.ranks["sum"]
        print(f"  {name}: Brier score {score:.4f}, ECE {curves[name].ece:.4f}, 90% hold "
              f"{inside.share:.3f} +/- {inside.standard_error:.3f}{bad}")  # fmt: skip
        print(f"    ink of the halves: p = {own.diagnose().checks[0].value:.2g}")
    bits = test[~seen].astype(int)
    p = np.broadcast_to(x.mean(0), test.shape)[~seen]
    curves["means of pixels"] = reliability(np.stack([1 - p, p], 1), bits)
    print(f"  means of pixels: Brier score {np.mean((p - bits) ** 2):.4f}, "
          f"ECE {curves['means of pixels'].ece:.4f}")  # fmt: skip
    inks = Calibration(ranks, own.num_draws, quantities=tuple(ranks))
    out.mkdir(parents=True, exist_ok=True)
    options = {"dpi": 100, "bbox_inches": "tight"}
    pictures = {"reliability": reliability_curves({"hidden pixels of digits": curves}),
                "ranks": rank_ecdf(inks), "draws": grid(found, test, seen)}  # fmt: skip
    for name, figure in pictures.items():
        figure.savefig(out / f"imputation-{name}.png", **options)


def grid(found, test, seen, columns=12):
    """What is seen, three draws, their mean and spread, and the truth."""
    shown = np.where(seen, test, 0.35)
    rows = {"seen": shown, "draws": found.draws[0], " ": found.draws[1], "  ": found.draws[2],
            "mean": found.mean, "spread": 2 * found.std, "truth": test}  # fmt: skip
    figure = Figure(figsize=(8.4, 4.9))
    axes = figure.subplots()
    tiles = np.stack([values[:columns].reshape(-1, 8, 8) for values in rows.values()])
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.12)
    high, wide = tiles.shape[0] * 10, tiles.shape[1] * 10
    axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(high, wide), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=10 * np.arange(len(rows)) + 4.5, yticklabels=list(rows))
    axes.tick_params(length=0)
    return figure


def main():
    """Run all on every language that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"))
    parser.add_argument("--out", type=Path, default=Path("out/imputation"))
    args = parser.parse_args()
    for language in ("NumPyro", "Pyro"):
        if args.only not in (None, language) or not importlib.util.find_spec(language.lower()):
            continue
        print(language)
        compare(importlib.import_module(f"deepgen_ppl.{language.lower()}"), args.quick, args.out)


if __name__ == "__main__":
    main()
