"""Flows: densities of the plane, a conditional density, digits in bits, guides; both languages.

Run `python examples/flows.py` (about four minutes) or with `--quick` (under one). Pictures go to
`out/flows/`; those of the documentation are made by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, make_moons

from deepgen_ppl import figures, flow_figures

EXTENT = (-4.0, 4.0, -4.0, 4.0)


def target(name, size, rng):
    """Draws of a known density of the plane."""
    if name == "moons":
        x, _ = make_moons(size, noise=0.08, random_state=0)
        return (x - [0.5, 0.25]) * [2.0, 3.0]
    if name == "rings":
        radius = rng.choice([1.0, 2.0, 3.0], size) + 0.1 * rng.normal(size=size)
        angle = rng.uniform(0.0, 2.0 * np.pi, size)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    if name == "checkerboard":
        column, row = rng.integers(0, 4, size), rng.integers(0, 2, size)
        corner = np.stack([column, 2 * row + column % 2], -1)
        return 1.5 * (corner + rng.random((size, 2))) - 3.0
    arm = rng.integers(0, 5, size)
    radius = 0.3 * rng.normal(size=size) + 1.0
    along = np.stack([radius, 0.1 * rng.normal(size=size)], -1)
    angle = 2.0 * np.pi * arm / 5 + np.exp(radius - 1.0) * 0.9
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    return 2.0 * np.einsum("ni,nij->nj", along, turn.reshape(-1, 2, 2))


class NumPyro:
    """What the example needs of the language."""

    def __init__(self):
        import jax
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist
        import optax

        import deepgen_ppl.numpyro as dg

        self.dg, self.adam = dg, optax.adam
        self.log_prob = lambda flow, x: np.asarray(jax.jit(flow().log_prob)(jnp.asarray(x)))
        draw = jax.jit(lambda flow, n: flow().sample(jax.random.key(0), (n,)), static_argnums=1)
        self.sample = lambda flow, n: np.asarray(draw(flow, n))

        def banana(y):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
            b = numpyro.sample("b", dist.Normal(a**2, 0.2))
            with numpyro.plate("data", len(y)):
                numpyro.sample("y", dist.Normal(b, 1.0), obs=y)

        self.banana = banana


class Pyro:
    """What the example needs of the language."""

    def __init__(self):
        import pyro
        import pyro.distributions as dist
        import torch

        import deepgen_ppl.pyro as dg

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.dg = dg
        self.adam = lambda rate: lambda params: torch.optim.Adam(params, rate)

        def log_prob(flow, x):
            with torch.no_grad():
                return flow().log_prob(torch.as_tensor(x, dtype=torch.float32)).numpy()

        self.log_prob = log_prob
        self.sample = lambda flow, n: flow().sample((n,)).numpy()

        def banana(y):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a**2, 0.2))
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal(b, 1.0), obs=y)

        self.banana = banana


def plane(side, quick, out):
    """Fit a spline flow to four targets of the plane; the densities integrate to one."""
    dg, steps = side.dg, 200 if quick else 1500
    names = ("moons",) if quick else ("moons", "rings", "checkerboard", "pinwheel")
    panels, number = {}, 100 if quick else 300
    axis = np.linspace(EXTENT[0], EXTENT[1], number)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)
    for name in names:
        x = target(name, 4000, np.random.default_rng(0)).astype(np.float32)
        flow = dg.flows.NSF(2, transforms=4 if quick else 5, hidden=(64, 64), seed=1)
        model = dg.flows.program(flow)
        options = {"batch_size": 250, "progress": False, "optim": side.adam(2e-3)}
        fit = dg.svi(model, None, x, num_steps=steps, **options)
        learned = dg.flows.fitted(flow, fit)
        held_out = target(name, 4000, np.random.default_rng(1)).astype(np.float32)
        found = side.log_prob(learned, np.concatenate([held_out, grid]))
        score = found[:4000].mean()
        density = np.exp(found[4000:]).reshape(number, number)
        integral = density.sum() * (axis[1] - axis[0]) ** 2
        print(f"{name}: held-out log density {score:.3f}, integral {integral:.3f}")
        panels[name] = (x, density)
    figure = flow_figures.densities(panels, EXTENT)
    (out / "flow-densities.png").write_bytes(figures.to_png(figure))


def digits(side, quick, out):
    """Digits of 17 levels: RealNVP of standardised logits, bits per dimension and draws.

    A validation set stops training, and the parameters of its best score are kept.
    """
    dg, steps = side.dg, 100 if quick else 1500
    x = load_digits().data.astype(np.float32)
    train, valid, test = np.split(x, [1300, 1500])
    f = dg.flows
    body = f.RealNVP(64, transforms=6, hidden=(128, 128))
    flow = f.Flow(f.Chain([body.layer, f.Logit(64, levels=17.0)]))
    pair = f.dequantised(flow)
    options = {"batch_size": 250, "progress": False, "optim": side.adam(1e-3)}
    options |= {"validation_data": (valid,), "patience": 20}  # epochs
    fit = dg.svi(*pair, train, num_steps=steps, **options)
    found = fit.importance(test, num_particles=8 if quick else 64)
    bound = found.evidence.log_evidence / len(test)
    bits = f.bits_per_dimension(-bound, 64)
    print(f"digits: {bits:.3f} bits per dimension of the test set, {len(fit.losses)} steps")
    draws = np.clip(side.sample(f.fitted(flow, fit), 12), 0, 17).reshape(-1, 8, 8)
    figure = flow_figures.images({"data": test[:12].reshape(-1, 8, 8), "draws": draws})
    (out / "flow-digits.png").write_bytes(figures.to_png(figure))


def guides(side, quick):
    """A curved posterior: the bound of a flow guide beside that of a diagonal one."""
    dg, steps = side.dg, 200 if quick else 1500
    y = np.array([0.3, -0.3], np.float32)
    guide = dg.flow_guide(side.banana, dg.flows.NSF, transforms=3, hidden=(16,))
    optim = side.adam(5e-3)
    fit = dg.svi(side.banana, guide, y, num_steps=steps, optim=optim, progress=False)
    bound = -2.0 * fit.losses[-100:].mean()
    print(f"banana: bound of a spline flow {bound:.2f}, log evidence -2.43")
    print(dg.check_flow(dg.flows.RealNVP(2, transforms=2, hidden=(16,))))


def by_hand(out):
    """The change of variables by hand, drawn."""
    u = np.random.default_rng(0).random((3000, 2))
    matrix = np.array([[2.0, 0.0], [1.0, 1.5]])
    bent = np.stack([u[:, 0], u[:, 1] * np.exp(u[:, 0]) + np.sin(3.0 * u[:, 0])], -1)
    panels = {
        "4 u": (u[:, 0], 4.0 * u[:, 0]),
        "exp(u)": (u[:, 0], np.exp(u[:, 0])),
        "A u": (u, u @ matrix.T),
        "a map of the plane": (u, bent),
    }
    (out / "flow-maps.png").write_bytes(figures.to_png(flow_figures.maps(panels)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"), help="one language")
    parser.add_argument("--out", type=Path, default=Path("out/flows"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    by_hand(options.out)
    for name, make in (("NumPyro", NumPyro), ("Pyro", Pyro)):
        if options.only not in (None, name) or importlib.util.find_spec(name.lower()) is None:
            continue
        print(f"== {name}")
        side = make()
        plane(side, options.quick, options.out)
        digits(side, options.quick, options.out)
        guides(side, options.quick)


if __name__ == "__main__":
    main()
