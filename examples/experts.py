"""Experts: a product in the intersection, modes by noise levels, digits classified by energies.

Run `python examples/experts.py`, or `--wing pyro`. Two energies of the plane, trained apart, are
multiplied and their product drawn from; densities at several noise levels find the weights of modes
far apart; class-conditional energies classify digits. `--quick` takes some seconds, takes a normal
distribution for the second expert and leaves out the digits. The pictures go to `out/experts/`.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def adam(wing, rate):
    """Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def array(value):
    """Return an array of either language as NumPy's."""
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


class Study:
    """One run of the example on a wing."""

    def __init__(self, wing, quick):
        self.wing, self.quick = wing, quick
        self.dg = importlib.import_module(f"deepgen_ppl.{wing}")
        self.nets = importlib.import_module(f"deepgen_ppl.{wing}.nets")
        self.dist = importlib.import_module(f"{wing}.distributions")
        self.rng = np.random.default_rng(0)
        self.out = Path("out/experts")
        self.out.mkdir(parents=True, exist_ok=True)

    def normal(self, location, scale, size):
        """Independent normals."""
        if self.wing == "pyro":
            location = importlib.import_module("torch").tensor(location)
        return self.dist.Normal(location, scale).expand([size]).to_event(1)

    def given(self, x):
        """Return an array as this wing takes it."""
        return importlib.import_module("torch").as_tensor(x) if self.wing == "pyro" else x

    def flat(self):
        """Normals of different widths: the stripe as a distribution of the language."""
        places, widths = np.array([0.0, 0.4], "float32"), np.array([1.5, 0.15], "float32")
        return self.dist.Normal(self.given(places), self.given(widths)).to_event(1)

    def product(self):
        """Train a ring and a stripe apart, multiply them, and draw from the product."""
        angle = self.rng.uniform(0, 2 * np.pi, 2000)
        ring = 1.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
        stripe = np.stack([self.rng.uniform(-2.5, 2.5, 2000), 0.4 * np.ones(2000)], 1)
        base = self.normal(0.0, 1.5, 2)
        side = np.linspace(-3, 3, 101, dtype="float32")
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        experts, shown = [], {}
        for name, x in (("ring", ring), ("stripe", stripe)):
            if self.quick and name == "stripe":
                experts.append(self.flat())
                shown[name] = array(experts[-1].log_prob(self.given(grid)))
                continue
            x = (x + self.rng.normal(0, 0.15, x.shape)).astype("float32")
            units = 24 if self.quick else 64
            energy = self.dg.EnergyModel(
                self.nets.MLP(2, 1, (units, units), activation="silu"), base
            )
            fit = self.dg.noise_contrastive(
                energy, base, x, noise_ratio=2, num_steps=150 if self.quick else 3000,
                batch_size=250, optim=adam(self.wing, 5e-3), progress=False,
            )  # fmt: skip
            experts.append(self.dg.flows.fitted(energy, fit, "energy"))
            shown[name] = array(experts[-1].unnormalised_log_prob(self.given(grid)))
        product = self.dg.ProductOfExperts(experts)
        shown["product"] = array(product.unnormalised_log_prob(self.given(grid)))
        p = {n: np.exp(v - v.max()) / np.exp(v - v.max()).sum() for n, v in shown.items()}
        inside = [p[n] >= _level(p[n], 0.9) for n in ("ring", "stripe")]
        share = p["product"][inside[0] & inside[1]].sum()
        print(f"{share:.2f} of the product lies where both experts have 90% of their mass")
        chains = None
        if not self.quick:
            draws = self.dg.mcmc(
                product.program, None, kernel="mala", num_chains=200, num_warmup=300,
                num_samples=50, progress=False,
            ).draws["x"]  # fmt: skip
            chains = np.asarray(draws)[:, -1]
        figure = Figure(figsize=(9, 3))
        for axes, (name, value) in zip(figure.subplots(1, 3), p.items(), strict=True):
            axes.imshow(value.reshape(len(side), -1), origin="lower", extent=(-3, 3, -3, 3))
            axes.set_title(name)
            if name == "product" and chains is not None:
                axes.plot(*chains.T, ".", color="white", markersize=2)
        figure.savefig(self.out / f"product_{self.wing}.png")

    def levels(self):
        """Match densities at several noise levels, and anneal."""
        which = self.rng.choice(3, 3000, p=[0.6, 0.3, 0.1])
        places = np.array([[-3.0, -1.0], [3.0, -1.0], [0.0, 3.0]])
        x = (places[which] + 0.3 * self.rng.normal(size=(3000, 2))).astype("float32")
        units = 32 if self.quick else 64
        energy = self.dg.NoiseConditionalEnergy(
            self.nets.MLP(2, 1, (units, units), context=1, activation="silu"),
            2, np.geomspace(6.0, 0.1, 12), scale=2.5,
        )  # fmt: skip
        fit = self.dg.score_matching(
            energy, x, method="denoising", batch_size=500,
            num_steps=150 if self.quick else 3000, optim=adam(self.wing, 3e-3), progress=False,
        )  # fmt: skip
        trained = self.dg.flows.fitted(energy, fit, "energy")
        draws = array(trained.draws(300 if self.quick else 2000, num_steps=20, step_size=0.1))
        near = ((draws[:, None] - places) ** 2).sum(-1).argmin(-1)
        found = np.bincount(near, minlength=3) / len(draws)
        print(f"weights of the modes: data {np.bincount(which) / 3000}, draws {found}")
        figure = Figure(figsize=(4, 4))
        axes = figure.subplots()
        axes.plot(*x[:1000].T, ".", label="data", markersize=3)
        axes.plot(*draws[:1000].T, ".", label="annealed Langevin", markersize=3)
        axes.legend()
        figure.savefig(self.out / f"levels_{self.wing}.png")

    def digits(self):
        """Classify digits by energies that also draw them."""
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = (x / 8.0 - 1.0 + self.rng.normal(0, 0.1, x.shape)).astype("float32")
        order = self.rng.permutation(len(x))
        train, test = order[:1400], order[1400:]
        energy = self.dg.EnergyClassifier(
            self.nets.MLP(64, 10, (256, 256), activation="silu"), self.normal(0.0, 1.0, 64)
        )
        fit = self.dg.contrastive(
            energy, x[train], y[train], start="base", num_chains=200,
            chain_steps=20, num_steps=2000,
            batch_size=100, restart=0.02, optim=adam(self.wing, 1e-3),
            clip_norm=10.0, progress=False,
        )  # fmt: skip
        trained = self.dg.flows.fitted(energy, fit, "energy")
        told = array(trained.classify(self.given(x[test])).probs)
        print(f"{(told.argmax(-1) == y[test]).mean():.3f} of the test digits are told right")
        chains = array(fit.chains["x"])[:40]
        figure = Figure(figsize=(8, 2.4))
        rows = [figure.subplots(4, 20)][0]
        for axes, image in zip(rows.ravel(), np.concatenate([x[:40], chains]), strict=True):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            axes.axis("off")
        figure.savefig(self.out / f"digits_{self.wing}.png")


def _level(p, share):
    """Return the density above which this share of the mass lies."""
    ordered = np.sort(p)[::-1]
    return ordered[np.searchsorted(np.cumsum(ordered), share)]


def main() -> None:
    """Multiply, anneal, classify."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    args = parser.parse_args()
    study = Study(args.wing, args.quick)
    study.product()
    study.levels()
    if not args.quick:
        study.digits()


if __name__ == "__main__":
    main()
