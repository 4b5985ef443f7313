"""Labels along sequences: a conditional random field beside a classifier of single places.

Run `python examples/labelling.py`, or `--wing pyro`. Sequences of symbols of unequal length come
from a hidden Markov model that is known, so that the best labelling is known too: the posterior of
the hidden states. A field and classifiers (of one place, and of a window about it) learn from
labelled sequences; the share of wrong labels on new ones is told. `--quick` takes seconds.
"""

import argparse
import importlib

import numpy as np

STATES, SYMBOLS = 3, 6
STAY, RIGHT = 0.9, 0.7


def tables():
    """The hidden Markov model: states that last, and symbols that tell little about them."""
    transition = np.full((STATES, STATES), (1 - STAY) / (STATES - 1))
    np.fill_diagonal(transition, STAY)
    emission = np.full((STATES, SYMBOLS), (1 - RIGHT) / (SYMBOLS - 2))
    for state in range(STATES):
        emission[state, [2 * state, 2 * state + 1]] = RIGHT / 2
    return np.full(STATES, 1 / STATES), transition, emission


def corpus(rng, number, longest):
    """One-hot symbols, states and lengths of sequences."""
    initial, transition, emission = tables()
    dg = importlib.import_module("deepgen_ppl.markov_chain")
    labels = dg.MarkovChain([initial], transition).sample(number, longest, seed=rng.integers(1000))
    symbols = (rng.random((*labels.shape, 1)) > emission.cumsum(-1)[labels]).sum(-1)
    lengths = rng.integers(longest // 2, longest + 1, number)
    inside = np.arange(longest) < lengths[:, None]
    features = np.eye(SYMBOLS, dtype="float32")[symbols]
    return np.where(inside[..., None], features, 0), np.where(inside, labels, 0), lengths


def window(features, reach):
    """The features of each place and of those about it, side by side."""
    wide = np.pad(features, ((0, 0), (reach, reach), (0, 0)))
    time = features.shape[1]
    return np.concatenate([wide[:, k : k + time] for k in range(2 * reach + 1)], -1)


def adam(wing, rate):
    """Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


def main() -> None:
    """Simulate, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    array = np.asarray if args.wing == "numpyro" else importlib.import_module("torch").as_tensor
    rng = np.random.default_rng(0)
    number, longest, steps = (200, 16, 100) if args.quick else (1000, 40, 500)
    x, y, lengths = corpus(rng, number, longest)
    new, truth, ends = corpus(rng, number, longest)
    inside = np.arange(longest) < ends[:, None]

    def wrong(labels):
        return (np.asarray(labels) != truth)[inside].mean()

    crf = dg.CRF(SYMBOLS, STATES)
    options = {"num_steps": steps, "optim": adam(args.wing, 0.05), "progress": False}
    fit = dg.svi(crf.model, None, x, y, lengths, **options)
    learned = dg.flows.fitted(crf, fit, "crf")(array(new), ends)
    initial, transition, emission = tables()
    best = dg.CRF(lambda x: x @ array(np.log(emission.T).astype("float32")), STATES)
    best = best.with_weights(np.log(transition), np.log(initial), np.zeros(STATES))
    best = best(array(new), ends)
    print(" " * 40 + "wrong labels")
    for name, labels in (("field", learned), ("posterior of the truth", best)):
        places = np.asarray(labels.marginals.detach() if args.wing == "pyro" else labels.marginals)
        print(f"{name + ', place by place':40}{wrong(places.argmax(-1)):.4f}")
        print(f"{name + ', best sequence':40}{wrong(labels.mode):.4f}")
    rows = np.arange(longest) < lengths[:, None]
    for reach in (0, 1, 3):
        classifier = dg.logistic_regression(STATES, prior_scale=None)
        options["optim"] = adam(args.wing, 0.05)
        fit = dg.svi(classifier, None, window(x, reach)[rows], y[rows], **options)
        p = np.asarray(classifier.probabilities(fit, window(new, reach)[inside]))
        share = (p.argmax(-1) != truth[inside]).mean()
        print(f"{f'classifier of {2 * reach + 1} place(s)':40}{share:.4f}")
    print("truth  ", "".join(map(str, truth[0, : ends[0]])))
    print("field  ", "".join(map(str, np.asarray(learned.mode)[0, : ends[0]])))


if __name__ == "__main__":
    main()
