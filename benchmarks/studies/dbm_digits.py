"""A deep Boltzmann machine on scikit-learn's digits: pretrained layer by layer, trained, bounded.

    python benchmarks/studies/dbm_digits.py
    python benchmarks/studies/dbm_digits.py --wing pyro --hidden 50 30

The 8 x 8 images are binary, grey above 7; every fifth row is held out. Each stage is scored by the
mean field's bound on the held-out rows with log Z annealed from below and, approximately, from
above; a restricted machine with as many hidden units as the lowest layer stands beside it. On
MNIST with two layers of 500 and 1,000 units the published test bound is -84.62 (Salakhutdinov and
Hinton, AISTATS 2009).
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import numpy as np

from benchmarks.data import small_digits


def adam(wing: str, rate: float, steps: int) -> Any:
    """Return Adam whose rate falls linearly to nothing."""
    if wing == "numpyro":
        optax = importlib.import_module("optax")
        return optax.adam(optax.linear_schedule(rate, 0.0, steps))
    torch = importlib.import_module("torch")

    def make(params: Any) -> Any:
        optimizer = torch.optim.Adam(params, rate)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda t: max(1.0 - t / steps, 0.0)
        )

    return make


def tell(dg: Any, name: str, machine: Any, x: np.ndarray, test: np.ndarray, wing: str) -> None:
    """Print the held-out bound of a machine from both sides of log Z."""
    if wing == "pyro":
        torch = importlib.import_module("torch")
        values = machine.unnormalised_log_prob(torch.as_tensor(test)).detach().numpy()
    else:
        values = np.asarray(machine.unnormalised_log_prob(test))
    bounds = dg.log_z_bounds(machine, x, num_chains=200, num_temperatures=2000, progress=False)
    low, high = bounds.bounds
    error = values.std() / np.sqrt(len(values))
    print(f"{name}: {values.mean() - low.value:.2f} +- {error:.2f} (rows), log Z {low.value:.2f} "
          f"+- {low.standard_error:.2f}; by the approximate upper estimate "
          f"{values.mean() - high.value:.2f}, log Z {high.value:.2f} +- {high.standard_error:.2f}",
          flush=True)  # fmt: skip


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--hidden", type=int, nargs="+", default=[100, 50])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    rows = small_digits()
    held = np.arange(len(rows)) % 5 == 0
    x, test = rows[~held], rows[held]

    def about(steps: int, sweeps: int) -> dict[str, Any]:
        return {
            "num_steps": steps, "batch_size": 100, "chain_steps": sweeps, "progress": False,
            "seed": args.seed, "optim": adam(args.wing, args.rate, steps),
        }  # fmt: skip

    rbm = dg.RBM(64, args.hidden[0], seed=args.seed).at_base_rates(x)
    fit = dg.contrastive(rbm, x, **about(args.steps, 5))
    tell(dg, "RBM", dg.flows.fitted(rbm, fit, "energy"), x, test, args.wing)
    dbm = dg.DBM(64, args.hidden, seed=args.seed)
    dbm = dg.pretrain_dbm(dbm, x, **about(args.steps // 4, 1))
    tell(dg, "DBM pretrained", dbm, x, test, args.wing)
    fit = dg.contrastive(dbm, x, **about(args.steps, 5))
    tell(dg, "DBM trained", dg.flows.fitted(dbm, fit, "energy"), x, test, args.wing)
    print(fit.diagnose())


if __name__ == "__main__":
    main()
