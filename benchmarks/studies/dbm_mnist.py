"""A deep Boltzmann machine of 784-500-500 units on binary MNIST: centred, trained, bounded.

    python benchmarks/studies/dbm_mnist.py --picture dbm-digits.png
    python benchmarks/studies/dbm_mnist.py --hidden 500 1000 --epochs 100
    python benchmarks/studies/dbm_mnist.py --pretrained 10

The images are the fixed binarization of Larochelle and Murray (2011), training and validation rows
together. The whole is trained from small weights, its energy written about the means of its units,
by persistent chains and Adam whose rate falls to nothing; `--pretrained` learns the layers one by
one before, and centres nothing: its chains begin at the data, and its draws were noise. The 10,000
test rows have the bound of twenty sweeps of the mean field, with log Z annealed from below and,
approximately, by reverse annealing from above.

Published beside it: two layers of 500 and 1,000 units, a test bound of -84.62 by log Z from below,
on another binarization of the same images (Salakhutdinov and Hinton, AISTATS 2009).
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.dbm_digits import adam
from benchmarks.studies.rbm_mnist import BATCH, images, mean_score, picture


def tell(dg: Any, name: str, machine: Any, x: np.ndarray, test: np.ndarray, args: Any) -> None:
    """Print the test bound of a machine from both sides of log Z."""
    parts = np.array([mean_score(machine, rows, args.wing) for rows in np.split(test, 20)])
    score, within = parts[:, 0].mean(), (parts[:, 1] ** 2).mean() * (len(test) / len(parts))
    error = np.sqrt((within + parts[:, 0].var()) / len(test))  # rows may stand in order of digits
    bounds = dg.log_z_bounds(
        machine, x, num_chains=100, num_temperatures=args.temperatures, progress=False,
        seed=args.seed,
    )  # fmt: skip
    for bound in bounds.bounds:
        print(f"{name}, {bound.name}: {score - bound.value:.2f} +- {error:.2f} (rows), log Z "
              f"{bound.value:.2f} +- {bound.standard_error:.2f}", flush=True)  # fmt: skip


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--hidden", type=int, nargs="+", default=[500, 500])
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--pretrained", type=int, default=0, help="epochs of each layer before")
    parser.add_argument("--sweeps", type=int, default=2, help="of the chains of the whole machine")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--mean-field", type=int, default=5, help="sweeps in training")
    parser.add_argument("--temperatures", type=int, default=7500)
    parser.add_argument("--weights", type=Path, help="file that keeps weights and biases")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    x, test = images()
    about: dict[str, Any] = {"batch_size": BATCH, "num_chains": BATCH, "progress": False}
    about["seed"] = args.seed
    dbm = dg.DBM(784, args.hidden, mean_field_steps=args.mean_field, seed=args.seed)
    dbm = dbm.at_base_rates(x)
    began = time.process_time()
    if args.pretrained:
        steps = args.pretrained * (len(x) // BATCH)
        optim = adam(args.wing, args.rate, steps)
        dbm = dg.pretrain_dbm(dbm, x, num_steps=steps, optim=optim, **about)
        print(f"pretrained: {time.process_time() - began:.0f} s of a core", flush=True)
        began = time.process_time()
    else:
        dbm = dbm.centred(x)
    steps = args.epochs * (len(x) // BATCH)
    fit = dg.contrastive(
        dbm, x, num_steps=steps, chain_steps=args.sweeps, optim=adam(args.wing, args.rate, steps),
        **about,
    )  # fmt: skip
    print(f"trained: {time.process_time() - began:.0f} s of a core", flush=True)
    print(fit.diagnose(), flush=True)
    trained = dg.flows.fitted(dbm, fit, "energy")
    dbm = dg.DBM(784, args.hidden, mean_field_steps=20)
    dbm = dbm.with_weights(trained.weights, trained.biases)
    if args.weights:
        layers = {"weight": dbm.weights, "bias": dbm.biases}
        arrays = {f"{n}_{i}": v for n, values in layers.items() for i, v in enumerate(values)}
        if args.wing == "pyro":
            arrays = {n: v.detach().numpy() for n, v in arrays.items()}
        np.savez(args.weights, **{n: np.asarray(v) for n, v in arrays.items()})
    tell(dg, "trained", dbm, x, test, args)
    if args.picture:
        picture(dbm, test, args.seed, args.picture)


if __name__ == "__main__":
    main()
