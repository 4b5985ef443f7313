"""A restricted Boltzmann machine on digits: chains, log Z from both sides, anomalies; a deep one.

Run `python examples/rbm.py`, or `--wing pyro`. A machine learns scikit-learn's digits by persistent
chains; held-out images are scored with log Z from below and from above, upside-down ones are ranked
against upright ones, and `--deep` puts further layers on top. `--quick` takes some seconds. The
picture of data and chains goes to `out/rbm/`.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from deepgen_ppl import figures, flow_figures


def adam(wing, rate):
    """Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def main() -> None:
    """Train, normalise, score, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--deep", action="store_true", help="a deep machine too")
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    as_array = np.asarray
    if args.wing == "pyro":
        as_array = importlib.import_module("torch").as_tensor
    rows = (np.asarray(load_digits(return_X_y=True)[0]) > 7).astype("float32")
    held = np.arange(len(rows)) % 5 == 0
    x, test = rows[~held], rows[held]
    about = {
        "num_steps": 400 if args.quick else 6000, "batch_size": 100, "progress": False,
        "chain_steps": 2 if args.quick else 5, "optim": adam(args.wing, 2e-3),
    }  # fmt: skip
    rbm = dg.RBM(64, 12 if args.quick else 64).at_base_rates(x)
    fit = dg.contrastive(rbm, x, **about)
    print(fit.diagnose())
    rbm = dg.flows.fitted(rbm, fit, "energy")
    bounds = dg.log_z_bounds(rbm, x, num_temperatures=300 if args.quick else 3000, progress=False)
    print(bounds)
    scores = np.asarray(rbm.unnormalised_log_prob(as_array(test)).tolist())
    for bound in bounds.bounds:
        print(f"held-out log probability by {bound.name}: {scores.mean() - bound.value:.2f}")
    turned = np.asarray(rbm.unnormalised_log_prob(as_array(test[:, ::-1].copy())).tolist())
    truth = np.repeat([0, 1], len(test))
    area = roc_auc_score(truth, -np.concatenate([scores, turned]))
    print(f"upside-down images among upright ones, by energy: area under the curve {area:.3f}")
    if args.deep:
        dbm = dg.pretrain_dbm(dg.DBM(64, (64, 32)), x, **about)
        fit = dg.contrastive(dbm, x, **about)
        dbm = dg.flows.fitted(dbm, fit, "energy")
        below = np.asarray(dbm.unnormalised_log_prob(as_array(test)).tolist()).mean()
        for bound in dg.log_z_bounds(dbm, x, num_temperatures=3000, progress=False).bounds:
            print(f"deep machine, lower bound by {bound.name}: {below - bound.value:.2f}")
    folder = Path("out/rbm")
    folder.mkdir(parents=True, exist_ok=True)
    chains = np.asarray(rbm.draws(12, 200 if args.quick else 2000)).reshape(-1, 8, 8)
    panels = {"data": test[:12].reshape(-1, 8, 8), "chains": chains}
    (folder / "chains.png").write_bytes(figures.to_png(flow_figures.images(panels)))
    print(f"wrote {folder}/chains.png")


if __name__ == "__main__":
    main()
