"""Autoencoders: digits in the plane, ways through it, counts of single cells; both languages.

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
    right.imshow(tiled(means), cmap="gray_r")
    right.set(title="decoded plane, from -2.5 to 2.5", xticks=[], yticks=[])
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "vae-digits.png", dpi=100, bbox_inches="tight")
    traversal(vae, fit, levels, labels, out)


def traversal(vae, fit, levels, labels, out):
    """One digit of each class, its latents moved one after the other."""
    firsts = np.array([np.flatnonzero(labels == label)[0] for label in range(10)])
    moved = vae.traverse(fit, levels[firsts], span=(-2.5, 2.5), num_steps=13)
    ways = vae.interpolate(fit, levels[firsts], levels[np.roll(firsts, -1)], num_steps=13)
    blocks = {"z[0] from -2.5 to 2.5": moved[0], "z[1] from -2.5 to 2.5": moved[1],
              "from a digit to the next": ways}  # fmt: skip
    figure = Figure(figsize=(10.5, 3.2))
    for axes, (title, block) in zip(figure.subplots(1, 3), blocks.items(), strict=True):
        axes.imshow(tiled(block.swapaxes(0, 1).reshape(10, 13, 8, 8)), cmap="gray_r")
        axes.set(title=title, xticks=[], yticks=10 * np.arange(10) + 4.5, yticklabels=range(10))
        axes.tick_params(length=0)
    figure.savefig(out / "vae-traversal.png", dpi=100, bbox_inches="tight")


def tiled(images):
    """Images in rows and columns as one."""
    tiles = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns, high, wide = tiles.shape
    return tiles.transpose(0, 2, 1, 3).reshape(rows * high, columns * wide)


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
        if not args.quick:
            cells(dg, steps)


if __name__ == "__main__":
    main()
