"""Pairwise fields: scanned digits put right, and what the field of a tree knows exactly.

Run `python examples/fields.py`, or `--wing pyro`. Ising's model of the 8 x 8 digits learns ties and
fields by chains of its own; images with one flipped pixel in ten are put right by coordinate
ascent, by messages and by averages of Gibbs chains. The field of a tree is summed out exactly.
`--quick` takes some ten seconds. The picture goes to `out/fields/`.
"""

import argparse
import importlib
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from deepgen_ppl.pair_graph import flip_likelihood


def adam(wing, rate):
    """Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def main() -> None:
    """Learn a field, put digits right, sum a tree out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    array = np.asarray if args.wing == "numpyro" else importlib.import_module("torch").as_tensor

    x = (load_digits().images.reshape(-1, 64) > 7).astype("float32")
    rng = np.random.default_rng(0)
    train, test = np.split(x[rng.permutation(len(x))], [1500])
    seen = np.abs(test - (rng.random(test.shape) < 0.1))
    ising = dg.Ising(64, dg.grid_edges(8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if args.quick else "default", UserWarning)
        fit = dg.contrastive(
            ising, array(train), num_steps=200 if args.quick else 2000, batch_size=100,
            num_chains=100, optim=adam(args.wing, 0.03 if args.quick else 0.01), progress=False,
        )  # fmt: skip
    ising = dg.flows.fitted(ising, fit, "energy")
    external = array(flip_likelihood(seen, 0.1).astype("float32"))
    found = {"flipped": seen}
    for method in ("ascent", "max_product"):
        found[method] = np.asarray(ising.map(external, method=method))
    sweeps = 50 if args.quick else 200
    found["marginals"] = np.asarray(ising.marginals(external, num_steps=sweeps))[..., 1]
    for name, values in found.items():
        print(f"{name:12} {np.mean((values > 0.5) != (test > 0.5)):.1%} of pixels wrong")

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    rows = {"clean": test, **found}
    for line, (name, values) in zip(figure.subplots(len(rows), 10), rows.items(), strict=True):
        for ax, image in zip(line, values[:10], strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
    folder = Path("out/fields")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "digits.png", dpi=110)
    print(f"wrote {folder / 'digits.png'}")

    tree = dg.PairwiseField(5, 3, [(0, 1), (1, 2), (2, 3), (1, 4)], pairwise=2 * np.eye(3),
                            unary=rng.normal(size=(5, 3)))  # fmt: skip
    print("log Z of a tree:", dg.log_z(tree).log_evidence)
    engine = dg.exact(tree.factor_graph()).map().values
    print("its best values:", np.asarray(tree.map()).tolist())
    print("as the engine finds them:", [int(value) for value in engine.values()])


if __name__ == "__main__":
    main()
