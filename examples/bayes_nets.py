"""Bayesian networks in both languages: structure, any-from-any queries, missing cells, trees.

Run `python examples/bayes_nets.py` (about a minute) or with `--quick` (seconds). The student
network is looked at, asked and learned from rows with missing grades; trees and mixtures of trees
learn the pixels of digits, or `--rows FILE.npz` of zeros and ones with arrays `train`, `valid` and
`test`. The drawing of the network goes to `out/bayes_nets/`, that of the documentation to
`docs/pictures` by `--only NumPyro --out docs/pictures`.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from deepgen_ppl import BayesNet
from deepgen_ppl.chow_liu import chow_liu, tree_mixture
from deepgen_ppl.datasets import read_npz


def structure(net: BayesNet, out: Path) -> None:
    """What the graph says before any number is looked at."""
    print("\nThe student network")
    for statement in net.independencies():
        print(f"  {statement}")
    counts = net.parameter_counts()
    print(f"  parameters: {counts.net}; one table of all: {counts.full_joint}; "
          f"chain: {counts.chain}; independent: {counts.independent}")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    net.draw().savefig(out / "student.png", dpi=140)


def queries(dg, net: BayesNet) -> None:
    """Any variable from any others: evidence may stand above, below or beside."""
    asked = [
        {},
        {"grade": "C"},
        {"grade": "C", "difficulty": "hard"},  # a hard course explains the grade away
        {"grade": "C", "SAT": "high"},
        {"letter": "weak"},
    ]
    for given in asked:
        answer = dg.exact(net, given=given)
        clever = answer.marginals["intelligence"][1]
        told = ", ".join(f"{v} {label}" for v, label in given.items()) or "nothing known"
        print(f"  {told:32} P(intelligence high) = {clever:.3f}   "
              f"P(evidence) = {np.exp(float(answer.log_evidence)):.4f}")  # fmt: skip
    best = dg.exact(net, given={"letter": "weak"}).map()
    row = net.decode([[best.values[v] for v in net.variables]])[0]
    print(f"  most probable with a weak letter: {', '.join(row)}")


def missing(dg, net: BayesNet, num_rows: int) -> None:
    """Grades of hard courses are often lost: missing at random, and still learned rightly."""
    rows = net.decode(net.sample(num_rows, seed=0))
    rng = np.random.default_rng(1)
    lost = rng.random(num_rows) < np.where(rows[:, 0] == "hard", 0.7, 0.1)
    rows[lost, 2] = None
    start = BayesNet.from_structure(net.states, net.parents)
    fit = dg.learn_bayes_net(start, rows)
    whole = start.fit(rows[~lost])
    first, last = fit.log_likelihoods[[0, -1]]
    print(f"  {lost.mean():.0%} of the grades are lost; log likelihood {first:.0f} to {last:.0f}")
    for name, learned in (("EM", fit.net), ("whole rows only", whole), ("truth", net)):
        hard = learned.tables["difficulty"][1]
        strong = dg.exact(learned).marginals["letter"][1]
        print(f"  {name:16} P(hard) = {hard:.3f}   P(letter strong) = {strong:.3f}")


def trees(path: str | None, quick: bool) -> None:
    """Density estimation: independent bits, the best tree, mixtures of trees."""
    if path is None:
        x = (load_digits().data >= 8).astype(np.int64)
        splits = {"train": x[:1000], "valid": x[1000:1300], "test": x[1300:]}
        print("\nPixels of digits: mean test log probability in nats")
    else:
        with np.load(path) as file:
            columns = int(file["n_vars"]) if "n_vars" in file.files else None
        splits = read_npz(path, packed=("train", "valid", "test"), num_columns=columns)
        print(f"\n{Path(path).stem}: mean test log probability in nats")
    states = {f"x{i}": ("0", "1") for i in range(splits["train"].shape[1])}
    independent = BayesNet.independent(states).fit(splits["train"], pseudocount=0.5)
    tree = chow_liu(splits["train"], states, pseudocount=1.0)
    sizes = (2, 5) if quick else (2, 5, 10)
    fits = [tree_mixture(splits["train"], k, states, pseudocount=5.0) for k in sizes]
    best = max(fits, key=lambda fit: fit.log_prob(splits["valid"]).mean())
    found = {
        "independent": independent,
        "Chow-Liu tree": tree,
        f"mixture of {len(best.trees)} trees": best,
    }
    for name, model in found.items():
        print(f"  {name:20} {model.log_prob(splits['test']).mean():8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"), help="one language only")
    parser.add_argument("--rows", help="a file of zeros and ones for the trees")
    parser.add_argument("--out", type=Path, default=Path("out/bayes_nets"))
    options = parser.parse_args()
    net = BayesNet.student()
    structure(net, options.out)
    for language in ("NumPyro", "Pyro"):
        wing = language.lower()
        if options.only not in (None, language) or importlib.util.find_spec(wing) is None:
            continue
        dg = importlib.import_module(f"deepgen_ppl.{wing}")
        print(f"\n{language}: queries")
        queries(dg, net)
        print(f"\n{language}: learning with missing cells")
        missing(dg, net, 2000 if options.quick else 20_000)
    trees(options.rows, options.quick)
    print(f"\nThe drawing: {options.out / 'student.png'}")


if __name__ == "__main__":
    main()
