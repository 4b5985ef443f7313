"""A posterior that collapses is caught while it is trained, and revived; both languages.

Run `python examples/collapse.py` (under a minute) or with `--quick`. The picture of what each unit
carries goes to `out/collapse/`.
"""

import argparse
import importlib
import importlib.util
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits


def adam(wing, rate):
    """Adam of the language."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return partial(importlib.import_module("torch").optim.Adam, lr=rate)


def losses(dg, steps, quick):
    """A divergence that costs far too much, and what helps."""
    found = {"beta = 20": dg.ELBO(kl="analytic", beta=20.0)}
    if quick:
        return found
    return found | {
        "beta = 20, free bits": dg.ELBO(kl="analytic", beta=20.0, free_bits=0.5),
        "annealed to 1": dg.ELBO(kl="analytic", beta=dg.KLAnnealing(steps // 2)),
        "ELBO": dg.ELBO(kl="analytic"),
    }


def run(wing, quick, out):
    """Train with each loss and report what the latents carry, whatever the loss was, at beta 1."""
    dg, steps = importlib.import_module(f"deepgen_ppl.{wing}"), 60 if quick else 2000
    x = (load_digits().data > 7).astype(np.float32)
    units = {}
    for name, loss in losses(dg, steps, quick).items():
        vae = dg.VAE((64,), (64,), features=64, latents=8)
        monitor = dg.LatentMonitor(*vae, x[:200], every=50)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit = dg.svi(
                *vae,
                x,
                num_steps=steps,
                batch_size=200,
                loss=loss,
                optim=adam(wing, 3e-3),
                callbacks=[monitor],
                progress=False,
            )
        found = dg.latent_report(*vae, x, params=fit)
        units[name] = np.sort(found.kl["z"])[::-1]
        print(
            f"{wing}, {name}: rate {found.rate:.2f}, distortion {found.distortion:.2f}, bound "
            f"{found.bound:.2f}, {found.num_active} of {found.num_elements} units active"
        )
        for warning in told:
            print(f"  {warning.message}")
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    one = figure.subplots()
    for name, kl in units.items():
        one.plot(np.arange(1, len(kl) + 1), kl, "o-", label=name, markersize=4)
    one.set(xlabel="unit, by its divergence", ylabel="KL divergence, nats", xticks=range(1, 9))
    one.legend(frameon=False)
    one.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / f"collapse-{wing}.png", dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute")
    parser.add_argument("--out", type=Path, default=Path("out/collapse"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for wing in ("numpyro", "pyro"):
        if importlib.util.find_spec(wing) is not None:
            run(wing, options.quick, options.out)


if __name__ == "__main__":
    main()
