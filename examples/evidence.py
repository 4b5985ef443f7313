"""How good is my answer: Pareto k, bounds of the evidence, ranking and calibration, both languages.

Run `python examples/evidence.py` (about two minutes) or with `--quick` (under one). A VAE of digits
is fitted, doubted and judged; two models of beetles are ranked. Pictures go to `out/evidence/`;
those of the documentation are made by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from deepgen_ppl import figures
from deepgen_ppl.calibration_figures import rank_ecdf

DIGITS = (load_digits().data >= 8).astype(np.float32)  # (1797, 64): ink or paper
# Beetles killed by five hours of gaseous carbon disulphide: Bliss, Ann. Appl. Biol. 22, 1935.
DOSE = np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839], "float32")
DOSE = (DOSE - DOSE.mean()) / DOSE.std()  # log10 of mg per litre, standardised
BEETLES = np.array([59, 60, 62, 56, 63, 59, 62, 60], "float32")
KILLED = np.array([6, 13, 18, 28, 52, 53, 61, 60], "float32")


def numpyro_programs():
    """The programs in NumPyro."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.module import eqx_module
    from numpyro.optim import Adam

    import deepgen_ppl.numpyro as dg

    keys = jax.random.split(jax.random.key(0))
    decoder = eqx.nn.MLP(4, 64, 64, 1, key=keys[0])
    encoder = eqx.nn.MLP(64, 8, 64, 1, key=keys[1])

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

    def beetles(dose, total, killed, curve):
        level = numpyro.sample("level", dist.Normal(0.0, 2.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 3.0))
        with numpyro.plate("dose", len(dose)):
            numpyro.sample("killed", dist.Binomial(total, curve(level + slope * dose)), obs=killed)

    curves = {
        "logistic": lambda x: 1 / (1 + jnp.exp(-x)),
        "complementary log-log": lambda x: -jnp.expm1(-jnp.exp(jnp.clip(x, -10.0, 2.5))),
    }
    models = {name: partial(beetles, curve=curve) for name, curve in curves.items()}
    return dg, Adam(3e-3), vae, guide, models


def pyro_programs():
    """The same programs in Pyro."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.optim import Adam
    from torch import nn

    import deepgen_ppl.pyro as dg

    torch.set_num_threads(1)  # for models this small a second thread only gets in the way
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64))
    encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))

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

    def beetles(dose, total, killed, curve):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
        with pyro.plate("dose", len(dose)):
            pyro.sample("killed", dist.Binomial(total, curve(level + slope * dose)), obs=killed)

    curves = {
        "logistic": torch.sigmoid,
        "complementary log-log": lambda x: -torch.expm1(-torch.exp(x.clamp(-10.0, 2.5))),
    }
    models = {name: partial(beetles, curve=curve) for name, curve in curves.items()}
    return dg, Adam({"lr": 3e-3}), vae, guide, models


def judge_digits(language, programs, quick):
    """Fit the VAE, look at its weights, bound its evidence and calibrate its guide."""
    dg, optim, vae, guide, _ = programs
    print(f"\n=== {language}: a VAE of {len(DIGITS)} digits ===")
    fit = dg.svi(vae, guide, DIGITS, num_steps=500 if quick else 4000, batch_size=128, optim=optim)
    weighted = fit.importance(num_particles=100 if quick else 500)
    print(fit.diagnose(), weighted.evidence, sep="\n\n")

    few = DIGITS[: 8 if quick else 50]
    sizes = {"num_chains": 8 if quick else 16, "num_temperatures": 50 if quick else 500}
    bounds = dg.evidence_bounds(vae, fit, few, simulate=True, num_particles=500, **sizes)
    print(bounds)

    shape, num = DIGITS[:50], 10 if quick else 40
    particles = 100 if quick else 1000
    by_importance = partial(dg.importance, guide=guide, params=fit, num_particles=particles)
    checks = {
        "guide": dg.sbc(vae, fit, shape, num_simulations=num),
        "importance": dg.sbc(vae, by_importance, shape, num_simulations=num, params=fit),
    }
    for check in checks.values():
        print(check.diagnose())
    return {
        "pareto-k": figures.pareto_k(weighted.evidence.pareto_k, what="digit"),
        "bounds": bounds_picture(bounds),
        **{f"calibration-{name}": rank_ecdf(check) for name, check in checks.items()},
    }


def rank_beetles(language, programs, quick):
    """Rank two dose-response curves by evidence and by leave-one-out prediction."""
    import arviz_stats

    dg, _, _, _, models = programs
    print(f"\n=== {language}: which curve do the beetles follow? ===")
    data, evidence, trees = (DOSE, BEETLES, KILLED), {}, {}
    for name, model in models.items():
        length = 200 if quick else 500
        posterior = dg.mcmc(
            model, *data, kernel="chees", num_warmup=length, num_samples=length, num_chains=16
        )
        print(posterior.diagnose())
        evidence[name] = dg.bridge(posterior, model, *data)
        trees[name] = posterior.to_datatree(groups=["log_likelihood"])
    print(dg.rank_by_evidence(evidence))
    print(arviz_stats.compare(trees))


def bounds_picture(bounds):
    """Every estimate with its limit, a lower bound pointing up and an upper one down."""
    figure = Figure(figsize=(9.6, 2.7), layout="constrained", facecolor="none")
    axes = figure.subplots()
    figures.style(axes)
    rows = len(bounds.lower.per_row) if bounds.lower.per_row is not None else 1
    for place, bound in enumerate(bounds.bounds):
        lower = bound.direction == "lower"
        colour = figures.BLUE if lower else figures.ORANGE
        ends = np.array([bound.value, bound.limit]) / rows
        axes.plot(ends, [place, place], color=colour, linewidth=2)
        axes.plot(ends[0], place, "o", color=colour, markersize=6)
        axes.plot(ends[1], place, "<" if lower else ">", color=colour, markersize=8)
    axes.set_yticks(range(len(bounds.bounds)), [bound.name for bound in bounds.bounds])
    axes.invert_yaxis()
    axes.set_xlabel("log evidence of a digit, nats: estimate and its one-sided 95% limit")
    return figure


def main():
    """Run everything and leave the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws and steps")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--only", nargs="+", choices=("NumPyro", "Pyro"), help="one language")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for language in options.only or ("NumPyro", "Pyro"):
        if not importlib.util.find_spec(language.lower()):
            print(f"{language} is not installed: pip install 'deepgen_ppl[{language.lower()}]'")
            continue
        programs = {"NumPyro": numpyro_programs, "Pyro": pyro_programs}[language]()
        pictures = judge_digits(language, programs, options.quick)
        rank_beetles(language, programs, options.quick)
        for name, figure in pictures.items():
            behind = "" if options.only else f"-{language.lower()}"
            png = figures.to_png(figure, resolution=90)
            (options.out / f"{name}{behind}.png").write_bytes(png)
    print(f"\n{time.perf_counter() - start:.0f} s. Now open {options.out}")


if __name__ == "__main__":
    main()
