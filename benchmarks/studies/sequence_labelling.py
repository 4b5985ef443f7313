"""Text without spaces cut into words by a conditional random field, and by a classifier.

    python benchmarks/studies/sequence_labelling.py
    python benchmarks/studies/sequence_labelling.py --wing pyro --steps 500

Messages of the SMS collection lose their spaces and all that is no letter. Each letter is labelled
by its place in its word (1, 2, 3, 4, or later); field and classifier see the same window of
letters, by equal networks. A word begins where the label is 1. Told are the share of letters wrong
about whether a word begins there, and the F score of whole words, on messages that were held out.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import re
import time
from typing import Any

import numpy as np

from benchmarks.studies.vae_mnist import SHARED

LETTERS, PLACES, LONGEST = 27, 5, 40


def messages() -> list[list[str]]:
    """Return pieces of messages as words, of up to 40 letters each."""
    path = SHARED / "sms_spam" / "SMSSpamCollection.tsv.gz"
    pieces = []
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        texts = dict.fromkeys(line.split("\t", 1)[1].lower() for line in lines)
    for text in texts:
        piece: list[str] = []
        for word in re.findall(r"[a-z]+", text):
            if len("".join(piece)) + len(word) > LONGEST:
                pieces.append(piece)
                piece = []
            piece = [*piece, word] if len(word) <= LONGEST else []
        pieces.append(piece)
    return [piece for piece in pieces if len("".join(piece)) >= 10]


def coded(pieces: list[list[str]], reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return windows of one-hot letters, labels and lengths."""
    letters = np.zeros((len(pieces), LONGEST + 2 * reach), int)
    labels, lengths = np.zeros((len(pieces), LONGEST), int), np.zeros(len(pieces), int)
    for row, words in enumerate(pieces):
        text = "".join(words)
        lengths[row] = len(text)
        letters[row, reach : reach + len(text)] = [ord(letter) - 96 for letter in text]
        at = [min(place, PLACES - 1) for word in words for place in range(len(word))]
        labels[row, : len(text)] = at
    hot = np.eye(LETTERS, dtype=np.float32)
    parts = [hot[letters[:, k : k + LONGEST]] for k in range(2 * reach + 1)]
    return np.concatenate(parts, -1), labels, lengths


def scores(begins: np.ndarray, truth: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """Return the share of letters that are wrong, and the F score of words."""
    inside = np.arange(LONGEST) < lengths[:, None]
    right = found = there = 0
    for row, length in enumerate(lengths):
        words = []
        for which in (begins, truth):
            starts = np.union1d([0], np.flatnonzero(which[row, :length]))
            words.append(set(zip(starts, [*starts[1:], length], strict=True)))
        right += len(words[0] & words[1])
        found, there = found + len(words[0]), there + len(words[1])
    return float((begins != truth)[inside].mean()), 2 * right / (found + there)


def main() -> None:
    """Train both, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=8000, help="pieces for training, at most")
    parser.add_argument("--reach", type=int, default=2, help="letters seen to either side")
    args = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{args.wing}")
    nets = importlib.import_module(f"deepgen_ppl.{args.wing}.nets")
    pieces = messages()
    pieces = [pieces[i] for i in np.random.default_rng(0).permutation(len(pieces))]
    new, pieces = pieces[:1000], pieces[1000 : 1000 + args.rows]
    (x, y, lengths), (seen, labels, ends) = coded(pieces, args.reach), coded(new, args.reach)
    print(f"{len(pieces)} pieces for training, {len(new)} held out, {ends.sum()} letters")
    net = nets.MLP(x.shape[-1], PLACES, (64,), activation="tanh")
    options: dict[str, Any] = {"num_steps": args.steps, "progress": False, "optim": adam(args.wing)}
    began = time.process_time()
    crf = dg.CRF(net, PLACES)
    fit = dg.svi(crf.model, None, x, y, lengths, batch_size=100, **options)
    seconds = time.process_time() - began
    array = np.asarray if args.wing == "numpyro" else importlib.import_module("torch").as_tensor
    found = dg.flows.fitted(crf, fit, "crf")(array(seen), ends)
    inside = np.arange(LONGEST) < lengths[:, None]
    began, options["optim"] = time.process_time(), adam(args.wing)
    classifier = dg.neural_classifier(PLACES, hidden=(64,))
    fit = dg.svi(classifier, None, x[inside], y[inside], batch_size=3000, **options)
    times = seconds, time.process_time() - began
    p = np.zeros((*labels.shape, PLACES))
    p[np.arange(LONGEST) < ends[:, None]] = np.asarray(
        classifier.probabilities(fit, seen[np.arange(LONGEST) < ends[:, None]])
    )
    marginals = found.marginals
    marginals = marginals.detach() if args.wing == "pyro" else marginals
    told = {
        "classifier, best label": p.argmax(-1) == 0,
        "classifier, first or not": p[..., 0] > 0.5,
        "field, first or not": np.asarray(marginals)[..., 0] > 0.5,
        "field, best sequence": np.asarray(found.mode) == 0,
    }
    print(f"{'':28}wrong letters   F of words")
    for name, begins in told.items():
        wrong, f = scores(begins, labels == 0, ends)
        print(f"{name:28}{wrong:13.4f}{f:13.4f}")
    print(f"seconds of the processor: field {times[0]:.0f}, classifier {times[1]:.0f}")
    text, begins = "".join(new[0]), told["field, best sequence"][0]
    cut = "".join(f" {c}" if b else c for c, b in zip(text, begins, strict=False))
    print(f"'{text}' is cut into '{cut.strip()}'")


def adam(wing: str, rate: float = 2e-3) -> Any:
    """Return Adam at a rate, as each language has it."""
    if wing == "numpyro":
        return importlib.import_module("optax").adam(rate)
    return lambda params: importlib.import_module("torch").optim.Adam(params, lr=rate)


if __name__ == "__main__":
    main()
