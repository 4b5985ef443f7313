"""Quickstart: a mixture of iris petals by NUTS and a VAE of digits by SVI, on NumPyro and on Pyro.

Run `python examples/quickstart.py` (about two minutes) or with `--quick` (under one). It prints
ArviZ's summary and the diagnosis of every result and leaves in `out/quickstart/` the results as
netCDF files, pictures, and `report.html`.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, load_iris

from deepgen_ppl import figures
from deepgen_ppl.report import Section, report

PETALS = load_iris().data[:, 2:].astype(np.float32)  # (150, 2): petal length and width in cm
DIGITS = (load_digits().data >= 8).astype(np.float32)  # (1797, 64): ink or paper
CLASSES = load_digits().target


def numpyro_programs():
    """The programs in NumPyro."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.module import eqx_module
    from numpyro.infer import init_to_median

    import deepgen_ppl.numpyro as dg

    def mixture(petals):
        weight = numpyro.sample("weight", dist.Dirichlet(jnp.full(3, 5.0)))
        spread = dist.Normal(jnp.array([1.5, 0.7, 0.7]), 0.4).to_event(1)
        ordered = dist.transforms.OrderedTransform()
        length = numpyro.sample("length", dist.TransformedDistribution(spread, ordered))
        with numpyro.plate("species", 3):
            width = numpyro.sample("width", dist.Normal(1.0, 1.0))
            scale = numpyro.sample("scale", dist.LogNormal(-1.2, 0.3).expand([2]).to_event(1))
        mean = jnp.stack([length, width], axis=-1)
        with numpyro.plate("flower", len(petals)):
            kind = numpyro.sample("kind", dist.Categorical(weight), infer={"enumerate": "parallel"})
            numpyro.sample("petal", dist.Normal(mean[kind], scale[kind]).to_event(1), obs=petals)

    keys = jax.random.split(jax.random.key(0))
    decoder = eqx.nn.MLP(4, 64, 128, 2, key=keys[0])
    encoder = eqx.nn.MLP(64, 8, 128, 2, key=keys[1])

    def vae(digits):
        decode = jax.vmap(eqx_module("decoder", decoder))
        with numpyro.plate("digit", len(digits)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
            ink = dist.Bernoulli(logits=decode(z)).to_event(1)
            numpyro.sample("pixels", ink, obs=digits)

    def guide(digits):
        encode = jax.vmap(eqx_module("encoder", encoder))
        with numpyro.plate("digit", len(digits)):
            loc, log_scale = jnp.split(encode(digits), 2, axis=-1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return dg, init_to_median, mixture, vae, guide


def pyro_programs():
    """The same programs in Pyro."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer.autoguide import init_to_median
    from torch import nn

    import deepgen_ppl.pyro as dg

    def mixture(petals):
        weight = pyro.sample("weight", dist.Dirichlet(torch.full((3,), 5.0)))
        spread = dist.Normal(torch.tensor([1.5, 0.7, 0.7]), 0.4).to_event(1)
        ordered = dist.transforms.OrderedTransform()
        length = pyro.sample("length", dist.TransformedDistribution(spread, [ordered]))
        with pyro.plate("species", 3):
            width = pyro.sample("width", dist.Normal(1.0, 1.0))
            scale = pyro.sample("scale", dist.LogNormal(-1.2, 0.3).expand([2]).to_event(1))
        mean = torch.stack([length, width], dim=-1)
        with pyro.plate("flower", len(petals)):
            kind = pyro.sample("kind", dist.Categorical(weight), infer={"enumerate": "parallel"})
            pyro.sample("petal", dist.Normal(mean[kind], scale[kind]).to_event(1), obs=petals)

    torch.set_num_threads(1)  # for models this small a second thread only gets in the way
    torch.manual_seed(0)
    decoder = mlp(nn, 4, 128, 64)
    encoder = mlp(nn, 64, 128, 8)

    def vae(digits):
        decode = pyro.module("decoder", decoder)
        with pyro.plate("digit", len(digits)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
            ink = dist.Bernoulli(logits=decode(z)).to_event(1)
            pyro.sample("pixels", ink, obs=digits)

    def guide(digits):
        encode = pyro.module("encoder", encoder)
        with pyro.plate("digit", len(digits)):
            loc, log_scale = encode(digits).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return dg, init_to_median, mixture, vae, guide


def mlp(nn, inputs, hidden, outputs):
    """A network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


def run(language, folder, quick):
    """Fit both models in one language, print what came out, return two sections of the report."""
    programs = {"NumPyro": numpyro_programs, "Pyro": pyro_programs}[language]
    dg, init_to_median, mixture, vae, guide = programs()
    # A leapfrog step of Pyro's NUTS is run by Python, one of NumPyro's is compiled.
    num_chains, num_warmup, num_samples = {"NumPyro": (4, 1000, 1000), "Pyro": (2, 200, 300)}[
        language
    ]
    shorter, num_steps = (5, 500) if quick else (1, 4000)
    file = f"{language.lower()}.nc"

    print(f"\n=== {language}: a mixture of {len(PETALS)} iris petals, by NUTS ===")
    petals = dg.mcmc(
        mixture,
        PETALS,
        num_warmup=num_warmup // shorter,
        num_samples=num_samples // shorter,
        num_chains=num_chains,
        init_strategy=init_to_median,  # from uniform starts some chains end in a lesser mode
    )
    print(petals.summary().to_string(), petals.diagnose(), sep="\n\n")
    petals.save(folder / f"petals-{file}")

    print(f"\n=== {language}: a VAE of {len(DIGITS)} digits, by SVI ===")
    fit = dg.svi(vae, guide, DIGITS, num_steps=num_steps, batch_size=128)
    codes = fit.posterior(num_samples=100)
    scores = fit.importance(num_particles=100 if quick else 500)
    print(scores.evidence, fit.diagnose(), sep="\n\n")
    fit.save(folder / f"digits-{language.lower()}.fit")
    codes.save(folder / f"digits-{file}", groups=["sample_stats"])

    pictures = {
        f"petals-{language.lower()}": petal_picture(petals),
        f"digits-{language.lower()}": digit_picture(dg, fit, vae, codes),
    }
    for name, figure in pictures.items():
        (folder / f"{name}.png").write_bytes(figures.to_png(figure))
    petal_figure, digit_figure = pictures.values()
    return [
        Section(
            f"Iris petals, a mixture by NUTS ({language})",
            petals,
            figures={"Petals and the components found": petal_figure},
            note="Three components found without the species' names; assignments are summed out.",
        ),
        Section(
            f"Digits, a VAE by SVI ({language})",
            codes,
            fit,
            scores,
            figures={"Real, reconstructed and new digits; the codes of all digits": digit_figure},
            note="Every digit gets a code of four numbers; the model never saw the colours.",
        ),
    ]


def petal_picture(posterior):
    """The petals, coloured by species, under the 90 % ellipses of twenty posterior draws."""
    figure = Figure(figsize=(9.6, 4.6), layout="constrained", facecolor="none")
    axes = figure.subplots()
    figures.style(axes)
    species = load_iris()
    for kind, name in enumerate(species.target_names):
        mine = PETALS[species.target == kind]
        colour = figures.CHAINS[kind]
        axes.plot(*mine.T, "o", color=colour, alpha=0.7, markersize=5, label=f"Iris {name}")
    draws = posterior.resample(20 * posterior.num_chains).flat()
    turn = np.linspace(0, 2 * np.pi, 60)
    circle = 2.146 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)  # holds 90 % of a normal
    for length, width, scale in zip(draws["length"], draws["width"], draws["scale"], strict=True):
        for component in range(3):
            ring = np.array([length[component], width[component]]) + circle * scale[component]
            axes.plot(*ring.T, color=figures.INK, alpha=0.12, linewidth=1)
    axes.set_xlabel("petal length, cm")
    axes.set_ylabel("petal width, cm")
    axes.legend(frameon=False, labelcolor=figures.INK)
    return figure


def digit_picture(dg, fit, vae, codes):
    """Real digits, their reconstructions and new ones; and the codes of all digits."""
    chosen = DIGITS[:8]
    again = fit.predict(chosen, num_samples=50)["posterior_predictive"]["pixels"]
    new = dg.predict(vae, chosen, params=fit, num_samples=50)["prior_predictive"]["pixels"]
    strips = {"real": chosen, "rebuilt": again.mean(("chain", "draw")), "new": new[0, 0]}
    images = [np.asarray(strip).reshape(8, 8, 8) for strip in strips.values()]
    tiles = [np.concatenate(np.pad(image, ((0, 0), (1, 1), (1, 1))), axis=1) for image in images]
    figure = Figure(figsize=(9.6, 3.6), layout="constrained", facecolor="none")
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
    left.imshow(np.concatenate(tiles), cmap="magma")
    left.set_yticks([5, 15, 25], list(strips), color=figures.INK)
    left.set_xticks([])
    left.tick_params(length=0)
    mean = codes.draws["z"].mean((0, 1))
    centred = mean - mean.mean(0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    figures.style(right)
    right.scatter(*plane.T, c=CLASSES, cmap="tab10", s=5, alpha=0.6, linewidths=0)
    for digit in range(10):
        place = np.median(plane[digit == CLASSES], axis=0)
        right.annotate(str(digit), place, color=figures.INK, fontsize=15, fontweight="bold")
    right.set_xlabel("codes, first two principal axes")
    return figure


def main():
    """Run everything and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws and steps")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"))
    parser.add_argument("--only", nargs="+", choices=("NumPyro", "Pyro"), help="one language")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start, sections = time.perf_counter(), []
    for language in options.only or ("NumPyro", "Pyro"):
        if importlib.util.find_spec(language.lower()):
            sections += run(language, options.out, options.quick)
        else:
            print(f"{language} is not installed: pip install 'deepgen_ppl[{language.lower()}]'")
    page = report(sections, options.out / "report.html", title="deepgen_ppl quickstart")
    print(f"\n{time.perf_counter() - start:.0f} s. Now open {page}")


if __name__ == "__main__":
    main()
