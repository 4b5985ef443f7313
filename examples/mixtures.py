"""How many groups of eruptions: mixtures of Old Faithful's data by every verb, both languages.

Run `python examples/mixtures.py faithful.csv` (columns `eruptions` and `waiting`;
https://vincentarelbundock.github.io/Rdatasets/csv/datasets/faithful.csv), or without a path on two
columns of scikit-learn's iris. One to four Gaussian components are fitted by expectation
maximisation and drawn by chains, relabelled, and ranked by evidence and by leave-one-out.
`--quick` takes a minute. Pictures go to `out/mixtures/`.
"""

import argparse
import importlib
import importlib.util
import warnings
from pathlib import Path

import arviz_stats
import numpy as np
from matplotlib.figure import Figure

from deepgen_ppl import figures
from deepgen_ppl.datasets import iris, read_csv


def load(path):
    """Two standardised columns and their names."""
    if path is None:
        data = iris()
        x, names = data.x[:, 2:], data.feature_names[2:]
    else:
        table = read_csv(path)
        names = ("eruptions", "waiting")
        x = np.stack([table[name] for name in names], 1)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), names


def compare(dg, x, counts, quick):
    """Fit, draw, relabel and weigh a mixture of each size."""
    evidence, trees, fits = {}, {}, {}
    for count in counts:
        model = dg.mixture("gaussian", count, priors=True, concentration=2.0)
        points = dg.mixture("gaussian", count)
        fits[count] = points, dg.em(points, x, progress=False)
        title = f"{count} component{'s' if count > 1 else ''}"
        length = 50 if quick else 300
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*have not mixed.*", UserWarning)
            posterior = dg.mcmc(
                model, x, kernel="chees", num_chains=16, num_warmup=150, num_samples=length,
                progress=False,
            )  # fmt: skip
        named = model.bridge(posterior, x)
        evidence[title] = found = named.evidence
        before, after = (float(p.summary()["r_hat"].max()) for p in (posterior, named))
        trees[title] = named.to_datatree(groups=["log_likelihood"])
        print(
            f"{title}: EM {-fits[count][1].losses[-1] * len(x):.2f} in log likelihood, evidence "
            f"{found.log_evidence:.2f} +/- {found.standard_error:.2f}, "
            f"R-hat {before:.2f} and {after:.2f} relabelled",
            flush=True,
        )
    print(dg.rank_by_evidence(evidence))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        print(arviz_stats.compare(trees))
    return fits


def picture(x, names, fits):
    """Groups of EM, a panel a number of components."""
    figure = Figure(figsize=(9.6, 3.0), layout="constrained", facecolor="none")
    for axes, (count, (model, fit)) in zip(
        figure.subplots(1, len(fits), sharey=True), fits.items(), strict=True
    ):
        figures.style(axes)
        groups = model.responsibilities(fit, x).argmax(1)
        angle = np.linspace(0, 2 * np.pi, 80)
        circle = 2 * np.stack([np.cos(angle), np.sin(angle)])
        values = {name: np.asarray(value) for name, value in fit.params.items()}
        for k, colour in zip(range(count), figures.CHAINS, strict=False):
            mine = x[groups == k]
            axes.plot(*mine.T, "o", color=colour, markersize=2.5, alpha=0.6)
            factor = values["scale"][k][:, None] * values["correlation_tril"][k]
            axes.plot(*(values["loc"][k][:, None] + factor @ circle), color=colour, linewidth=1.5)
        axes.set_title(f"{count}", loc="left", color=figures.INK, fontsize=10.5)
        axes.set_xlabel(names[0])
    figure.axes[0].set_ylabel(names[1])
    return figure


def main():
    """Run everything and leave the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="faithful.csv")
    parser.add_argument("--quick", action="store_true", help="two sizes, fewer draws")
    parser.add_argument("--out", type=Path, default=Path("out/mixtures"))
    parser.add_argument("--only", nargs="+", choices=("NumPyro", "Pyro"), help="one language")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    x, names = load(options.path)
    counts = (1, 2) if options.quick else (1, 2, 3, 4)
    for language in options.only or ("NumPyro", "Pyro"):
        if not importlib.util.find_spec(language.lower()):
            print(f"{language} is not installed: pip install 'deepgen_ppl[{language.lower()}]'")
            continue
        print(f"\n=== {language} ===")
        dg = importlib.import_module(f"deepgen_ppl.{language.lower()}")
        fits = compare(dg, x, counts, options.quick)
        behind = "" if options.only else f"-{language.lower()}"
        png = figures.to_png(picture(x, names, fits), resolution=90)
        (options.out / f"mixtures{behind}.png").write_bytes(png)
    print(f"\nNow open {options.out}")


if __name__ == "__main__":
    main()
