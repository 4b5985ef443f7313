"""Autoencoders: digits in the plane, missing halves, counts of single cells; both languages.

Run `python examples/vae.py` (about two minutes) or with `--quick`. Pictures go to `out/vae/`; that
of the documentation is made by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib
import importlib.util
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

CELLS = (
    Path(__file__).resolve().parent.parent.parent
    / "shared"
    / "data"
    / "pbmc_small"
    / "pbmc_small.npz"
)


def plane(dg, steps, out):
    """Two latents: codes by label, and what the decoder makes of the plane."""
    x, labels = load_digits(return_X_y=True)
    levels = x.astype(np.float32)
    likelihood = dg.vae.DiscretizedLogistic(17)
    vae = dg.VAE((128,), (128,), features=64, latents=2, likelihood=likelihood)
    fit = dg.svi(*vae, levels, num_steps=steps, batch_size=128, progress=False)
    print(f"  {fit.losses[-20:].mean():.1f} nats an image, {fit.seconds:.1f} s")
    codes = vae.encode(fit, levels)
    side = np.linspace(-2.5, 2.5, 11)
    grid = np.stack(np.meshgrid(side, side[::-1]), -1).reshape(-1, 2).astype(np.float32)
    means = vae.decode(fit, grid).reshape(11, 11, 8, 8)
    figure = Figure(figsize=(9, 4.4))
    left, right = figure.subplots(1, 2)
    points = left.scatter(*codes.T, c=labels, s=5, cmap="tab10")
    figure.colorbar(points, ax=left, ticks=range(10))
    left.set(title="codes by label", xlabel="z[0]", ylabel="z[1]")
    tiles = np.pad(means, ((0, 0), (0, 0), (1, 1), (1, 1)))
    right.imshow(tiles.transpose(0, 2, 1, 3).reshape(110, 110), cmap="gray_r")
    right.set(title="decoded plane, from -2.5 to 2.5", xticks=[], yticks=[])
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "vae-digits.png", dpi=100, bbox_inches="tight")


def halves(dg, steps):
    """Lower halves that are missing, drawn from what is seen of the upper ones."""
    x = (load_digits().data > 8).astype(np.float32)
    train, test = x[:1500], x[1500:1600]
    vae = dg.VAE((64,), (64,), features=64, latents=8, posterior="full")
    fit = dg.svi(*vae, train, num_steps=steps, batch_size=128, progress=False)
    seen = np.ones_like(test, bool)
    seen[:, 32:] = False
    p = vae.impute(fit, test, seen, num_samples=50, num_particles=500).mean(0)
    error = np.mean((p - test)[~seen] ** 2)
    alone = np.mean((train[:, 32:].mean(0) - test[:, 32:]) ** 2)
    print(f"  missing halves: Brier score {error:.3f}, {alone:.3f} by the means of pixels")
    print(f"  {vae.log_evidence(fit, test, num_particles=200)}")


def cells(dg, steps):
    """Counts of RNA in single cells, by a negative binomial of each gene."""
    if not CELLS.exists():
        print("  skipped: no counts of single cells here")
        return
    counts = np.load(CELLS)["counts"].astype(np.float32)
    for likelihood in ("poisson", "negative_binomial"):
        vae = dg.VAE((32,), (32,), features=counts.shape[1], latents=2, likelihood=likelihood)
        fit = dg.svi(*vae, counts, num_steps=steps, progress=False)
        print(f"  {likelihood}: {fit.losses[-20:].mean():.1f} nats a cell")


def main():
    """Run all on every language that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"))
    parser.add_argument("--out", type=Path, default=Path("out/vae"))
    args = parser.parse_args()
    steps = 60 if args.quick else 4000
    for language in ("NumPyro", "Pyro"):
        if args.only not in (None, language) or not importlib.util.find_spec(language.lower()):
            continue
        dg = importlib.import_module(f"deepgen_ppl.{language.lower()}")
        print(language)
        plane(dg, steps, args.out)
        halves(dg, steps)
        if not args.quick:
            cells(dg, steps)


if __name__ == "__main__":
    main()
