"""Why sampling blindly fails: thirty switches, a thousand million states, few of which matter.

Run `python examples/blind_sampling.py` (about a minute) or with `--quick`. A chain of binary
latents is seen through noise. Its log evidence is known exactly, by `dg.exact`; beside it stand
uniform sampling, sampling from the prior, and importance sampling from a guide. A chain of eight
switches is small enough to enumerate log p = ELBO + KL, and the bias of the log of an average.
The picture goes to `out/blind_sampling/`.
"""

import argparse
import importlib.util
import itertools
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deepgen_ppl import figures

STAY, SEEN = 0.9, 0.9  # a switch agrees with the one before it, and with what is seen of it
SIZES = [10, 100, 1_000, 10_000]


def data(num_switches):
    """What is seen of a chain of switches."""
    rng = np.random.default_rng(3)
    flips = rng.random(num_switches) > STAY
    return ((np.cumsum(flips) + (rng.random(num_switches) > SEEN)) % 2).astype("float32")


def numpyro_programs():
    """The chain and a guide of independent switches, in NumPyro."""
    import numpyro
    import numpyro.distributions as dist

    import deepgen_ppl.numpyro as dg

    def switches(x):
        before = None
        for i in range(len(x)):
            on = 0.5 if before is None else STAY * before + (1 - STAY) * (1 - before)
            before = numpyro.sample(f"z{i}", dist.Bernoulli(on))
            numpyro.sample(f"x{i}", dist.Bernoulli(SEEN * before + (1 - SEEN) * (1 - before)),
                           obs=x[i])  # fmt: skip

    def guide(x, probs):
        for i in range(len(x)):
            numpyro.sample(f"z{i}", dist.Bernoulli(probs[i]))

    return dg, switches, guide


def pyro_programs():
    """The same in Pyro."""
    import pyro
    import pyro.distributions as dist

    import deepgen_ppl.pyro as dg

    def switches(x):
        before = None
        for i in range(len(x)):
            on = 0.5 if before is None else STAY * before + (1 - STAY) * (1 - before)
            before = pyro.sample(f"z{i}", dist.Bernoulli(on))
            pyro.sample(f"x{i}", dist.Bernoulli(SEEN * before + (1 - SEEN) * (1 - before)),
                        obs=x[i])  # fmt: skip

    def guide(x, probs):
        for i in range(len(x)):
            pyro.sample(f"z{i}", dist.Bernoulli(probs[i]))

    return dg, switches, guide


def marginals(answer, num_switches):
    """Probability that each switch is on, given what is seen."""
    return np.array([np.asarray(answer.marginals[f"z{i}"])[..., 1] for i in range(num_switches)])


def thirty(programs, num_particles, num_switches=30):
    """Estimates of the log evidence from growing numbers of samples, beside the exact one."""
    dg, switches, guide = programs
    x = data(num_switches)
    answer = dg.exact(switches, x)
    exact = float(np.asarray(answer.log_evidence))
    posterior = np.clip(marginals(answer, num_switches), 1e-3, 1 - 1e-3).astype("float32")
    guides = {
        "uniform": partial(guide, probs=np.full(num_switches, 0.5, "float32")),
        "prior": None,
        "guide of the exact marginals": partial(guide, probs=posterior),
    }
    print(f"{2**num_switches:,} states, log p(x) = {exact:.4f} exactly")
    found = {}
    for name, proposal in guides.items():
        drawn = dg.importance(switches, proposal, x, num_particles=num_particles, keep_draws=False)
        weights = np.asarray(drawn.log_weights, float)[0]
        elbo = weights.mean()
        found[name] = weights
        print(
            f"{name:30s} ELBO {elbo:9.3f}, so KL {exact - elbo:8.3f}; log of the average of "
            f"{num_particles} {drawn.evidence.log_evidence:9.3f}, ESS {drawn.evidence.ess:8.1f}"
        )
    return exact, found


def log_mean(weights, axis):
    """Log of the average of weights."""
    top = weights.max(axis, keepdims=True)
    return np.log(np.exp(weights - top).mean(axis)) + np.squeeze(top, axis)


def eight(programs, num_switches=8):
    """Enumerate log p = ELBO + KL, and the mean of the log of an average of K weights."""
    dg, switches, _ = programs
    x = data(num_switches)
    states = np.array(list(itertools.product((0, 1), repeat=num_switches)), float)
    steps = np.where(states[:, 1:] == states[:, :-1], STAY, 1 - STAY)
    seen = np.where(states == x, SEEN, 1 - SEEN)
    log_joint = np.log(0.5) + np.log(steps).sum(1) + np.log(seen).sum(1)
    log_p = np.logaddexp.reduce(log_joint)
    exact = float(np.asarray(dg.exact(switches, x).log_evidence))
    on = marginals(dg.exact(switches, x), num_switches)
    print(f"\n{len(states)} states: log p(x) = {log_p:.6f} enumerated, {exact:.6f} by dg.exact")
    bias = {}
    for name, probs in {"uniform": np.full(num_switches, 0.5), "exact marginals": on}.items():
        log_q = np.log(np.where(states == 1, probs, 1 - probs)).sum(1)
        q, weights = np.exp(log_q), log_joint - log_q
        elbo = (q * weights).sum()
        kl = (q * (log_q - log_joint + log_p)).sum()
        print(f"{name:16s} ELBO {elbo:9.5f} + KL {kl:8.5f} = {elbo + kl:9.5f}")
        means = {1: elbo}
        pairs = np.stack(np.broadcast_arrays(weights[:, None], weights[None]))
        means[2] = (q[:, None] * q[None] * log_mean(pairs, 0)).sum()
        rng = np.random.default_rng(0)
        for k in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
            drawn = rng.choice(weights, p=q / q.sum(), size=(4_000_000 // k, k))
            logs = log_mean(drawn, 1)
            if abs(logs.mean() - log_p) > 5 * logs.std() / len(logs) ** 0.5:  # told from noise
                means[k] = logs.mean()
        spread = (q * np.exp(2 * (weights - log_p))).sum() - 1  # variance of p-hat / p for one
        bias[name] = (np.array(list(means)), np.array(list(means.values())) - log_p, spread)
    return bias


def picture(exact, found, bias):
    """Estimates of thirty switches on the left, the bias of eight on the right."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained", facecolor="none")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        figures.style(axes)
        axes.set_xscale("log")
    for colour, (name, weights) in zip(figures.CHAINS, found.items(), strict=False):
        sizes = [k for k in SIZES if k * 8 <= len(weights)]
        blocks = [log_mean(weights[: len(weights) // k * k].reshape(-1, k), 1) for k in sizes]
        low, mid, high = (np.array([np.quantile(b, p) for b in blocks]) for p in (0.1, 0.5, 0.9))
        left.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
        left.plot(sizes, mid, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
    left.axhline(exact, color=figures.INK, linestyle=(0, (4, 3)), linewidth=1.2, label="exact")
    left.set_xlabel("samples")
    left.set_ylabel("log p(x), nats: median and 80% of estimates")
    left.set_title("thirty switches", loc="left", color=figures.INK, fontsize=10.5)
    for colour, (name, (sizes, gaps, spread)) in zip(
        (figures.BLUE, figures.GREEN), bias.items(), strict=True
    ):
        right.plot(sizes, -gaps, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
        if name == "uniform":  # the other guide is narrower than the posterior: heavy tails
            ends = np.array([spread, 1024.0])
            right.plot(ends, spread / 2 / ends, color=colour, linestyle=(0, (2, 2)),
                       linewidth=1.2, label="variance / 2K")  # fmt: skip
    right.set_yscale("log")
    right.set_xlabel("K, weights in an average")
    right.set_ylabel("log p(x) less the mean of the log of an average")
    right.set_title("eight switches, enumerated", loc="left", color=figures.INK, fontsize=10.5)
    for axes in (left, right):
        place = "lower right" if axes is left else "upper right"
        legend = axes.legend(frameon=False, fontsize=9, loc=place)
        for text in legend.get_texts():
            text.set_color(figures.INK)
    return figure


def main():
    """Run everything and leave the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, default=Path("out/blind_sampling"))
    parser.add_argument("--only", nargs="+", choices=("NumPyro", "Pyro"), help="one language")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for language in options.only or ("NumPyro", "Pyro"):
        if not importlib.util.find_spec(language.lower()):
            print(f"{language} is not installed: pip install 'deepgen_ppl[{language.lower()}]'")
            continue
        print(f"\n=== {language} ===")
        programs = {"NumPyro": numpyro_programs, "Pyro": pyro_programs}[language]()
        exact, found = thirty(programs, 10_000 if options.quick else 100_000)
        bias = eight(programs)
        behind = "" if options.only else f"-{language.lower()}"
        png = figures.to_png(picture(exact, found, bias), resolution=90)
        (options.out / f"blind-sampling{behind}.png").write_bytes(png)
    print(f"\nNow open {options.out}")


if __name__ == "__main__":
    main()
