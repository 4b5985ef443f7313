"""The published RBM of 784 x 500 units: its log Z from both sides, and its score of the test rows.

    python benchmarks/studies/published_rbm.py
    python benchmarks/studies/published_rbm.py --wing pyro --seeds 0

The machine was trained by CD-25 on binary MNIST (Salakhutdinov and Murray, ICML 2008), which report
log Z = 451.28 and a mean test log probability of -86.34. Told are the annealed estimate with its
one-sided limits, the reverse one (approximate: it begins with long-run chains), the test scores by
either, and how far each is off.
"""

from __future__ import annotations

import argparse
import importlib
import time

from benchmarks.data import published_rbm
from benchmarks.studies.rbm_mnist import mean_score

LOG_Z, SCORE = 451.28, -86.34


def main() -> None:
    """Anneal and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=7500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    weights, test = published_rbm()
    rbm = dg.RBM(784, 500).with_weights(*weights)
    score, error = mean_score(rbm, test, args.wing)
    for seed in args.seeds:
        for method in ("ais", "reverse"):
            began = time.perf_counter()
            found = dg.log_z(
                rbm, test, method=method, num_chains=args.chains,
                num_temperatures=args.temperatures, progress=False, seed=seed,
            )  # fmt: skip
            took, log_z = time.perf_counter() - began, found.log_evidence
            print(found)
            print(f"seed {seed}, {method}: log Z {log_z:.2f} +- {found.standard_error:.2f} "
                  f"({log_z - LOG_Z:+.2f} off), test {score - log_z:.2f} +- {error:.2f} (rows; "
                  f"{score - log_z - SCORE:+.2f} off), {took:.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
