"""Energies on the plane: two targets by noise and by chains, their product, and a picture.

Run `python examples/energy.py`, or `--wing pyro`. Two networks learn a ring and two moons by noise
contrastive estimation; chains of `contrastive` go on from there and are judged; the product of both
energies is drawn by adding their factors. `--quick` takes less than half a minute. The picture goes
to `out/energy/`.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def targets(rng, count):
    """A ring, and two moons."""
    angle = rng.uniform(0, 2 * np.pi, count)
    ring = 1.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    half, side = rng.uniform(0, np.pi, count), rng.integers(2, size=count)
    moons = np.stack([np.cos(half), np.sin(half)], 1)
    moons = np.where(side[:, None] == 0, moons, [1.0, 0.5] - moons) - [0.5, 0.25]
    moons = 1.5 * moons
    return {n: (x + rng.normal(0, 0.15, x.shape)).astype("float32")
            for n, x in (("ring", ring), ("moons", moons))}  # fmt: skip


def adam(wing, rate):
    """Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def main() -> None:
    """Train, judge, multiply, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    nets = importlib.import_module(f"deepgen_ppl.{args.wing}.nets")
    dist = importlib.import_module(f"{args.wing}.distributions")
    steps, units = (120, 24) if args.quick else (3000, 64)
    side = np.linspace(-3, 3, 61 if args.quick else 201, dtype="float32")
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    if args.wing == "pyro":
        grid = importlib.import_module("torch").as_tensor(grid)
    base = dist.Normal(0.0, 1.5).expand([2]).to_event(1)
    found, chains = {}, {}
    for name, x in targets(np.random.default_rng(0), 2000).items():
        energy = dg.EnergyModel(nets.MLP(2, 1, (units, units), activation="silu"), base)
        options = {
            "batch_size": 200 if args.quick else 500,
            "optim": adam(args.wing, 5e-3),
            "progress": False,
        }
        fit = dg.noise_contrastive(energy, base, x, noise_ratio=2, num_steps=steps, **options)
        print(f"{name}: {fit.evidence}")
        if name == "ring" or not args.quick:
            options["optim"] = adam(args.wing, 1e-4)
            learned = {n: v for n, v in fit.params.items() if n != "log_z"}
            fit = dg.contrastive(
                energy, x, params=learned, num_chains=128, chain_steps=10,
                num_steps=steps // 10, **options,
            )  # fmt: skip
            print(fit.diagnose())
            chains[name] = np.asarray(_array(fit.chains["x"]))
        energy = dg.flows.fitted(energy, fit, "energy")
        found[name] = np.asarray(_array(energy.unnormalised_log_prob(grid)), float)
    both = found["ring"] + found["moons"] - np.asarray(_array(base.log_prob(grid)), float)
    found["product"] = both
    p = {name: np.exp(v - v.max()) / np.exp(v - v.max()).sum() for name, v in found.items()}
    inside = {name: p[name] > np.quantile(p[name], 0.7) for name in ("ring", "moons")}
    share = p["product"][inside["ring"] & inside["moons"]].sum()
    print(f"{share:.2f} of the product lies where both are dense")
    figure = Figure(figsize=(9, 3))
    for axes, (name, value) in zip(figure.subplots(1, 3), p.items(), strict=True):
        axes.imshow(value.reshape(len(side), -1), origin="lower", extent=(-3, 3, -3, 3))
        axes.set_title(name)
        if name in chains:
            axes.plot(*chains[name].T, ".", color="white", markersize=2)
    out = Path("out/energy")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"energies_{args.wing}.png")


def _array(value):
    """Return an array of either language as NumPy's."""
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


if __name__ == "__main__":
    main()
