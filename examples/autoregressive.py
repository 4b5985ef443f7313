"""Autoregressive models of digits, of binary tables and of the letters of messages; both languages.

Run `python examples/autoregressive.py` on scikit-learn's digits, or with `--data FOLDER` on the
folder that holds binarized_mnist/, debd/ and sms_spam/ too (an hour). `--quick` takes seconds.
The pictures go to `out/autoregressive/`.
"""

import argparse
import gzip
import importlib.util
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from deepgen_ppl import figures, flow_figures

LETTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789.,!?'&-"  # of messages; the rest is left out


class NumPyro:
    """What the example needs of the language."""

    def __init__(self):
        import jax
        import optax

        import deepgen_ppl.numpyro as dg

        def adam(rate, steps):
            return optax.adam(optax.cosine_decay_schedule(rate, steps))

        density = jax.jit(lambda net, x: net().log_prob(x))
        self.dg, self.adam, self.dtype = dg, adam, np.int32
        self.log_prob = lambda net, x: np.asarray(density(net, x))
        draws = jax.jit(lambda net, key, n: net().sample(key, (n,)), static_argnums=2)
        self.sample = lambda net, n: np.asarray(draws(net, jax.random.key(0), n))


class Pyro:
    """What the example needs of the language."""

    def __init__(self):
        import torch

        import deepgen_ppl.pyro as dg

        torch.manual_seed(0)

        def adam(rate, steps):
            return lambda params: torch.optim.Adam(params, rate)

        def log_prob(net, x):
            with torch.no_grad():
                return net().log_prob(torch.as_tensor(x)).numpy()

        self.dg, self.adam, self.dtype = dg, adam, np.float32
        self.log_prob = log_prob
        self.sample = lambda net, n: net().sample((n,)).numpy()


def learn(side, name, net, train, test, steps, rate=3e-3):
    """Fit by maximum likelihood and print the exact mean log density of the test rows."""
    dg, model = side.dg, side.dg.autoregressive.program(net)
    options = {"batch_size": 100, "progress": False, "optim": side.adam(rate, steps)}
    fit = dg.svi(model, None, train, num_steps=steps, **options)
    learned = dg.flows.fitted(net, fit, "net")
    found = np.concatenate(
        [side.log_prob(learned, part) for part in np.split(test, range(500, len(test), 500))]
    )
    error = found.std() / len(found) ** 0.5
    epochs = 100 * steps / len(train)
    print(f"{name}: {found.mean():.2f} +- {error:.2f} nats after {epochs:.1f} epochs")
    return learned


def digits(side, quick, out):
    """Digits of 8 x 8 pixels, cut at half: four families, draws, lower halves completed."""
    a, x = side.dg.autoregressive, (load_digits().data > 8).astype(side.dtype)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = x[order[:1500]], x[order[1500:]]
    nets = {"FVSBN": a.FVSBN(64), "NADE": a.NADE(64, units=100), "MADE": a.MADE(64, None, (200,))}
    panels = {"data": test[:12].reshape(-1, 8, 8)}
    for name in ("NADE",) if quick else nets:
        net = learn(side, f"digits, {name}", nets[name], train, test, 50 if quick else 1500)
        panels[name] = side.sample(net, 12).reshape(-1, 8, 8)
    above = np.arange(64) < 32
    filled = net().complete(np.where(above, test[:12], 0), above)
    panels["completed"] = np.asarray(filled.value).reshape(-1, 8, 8)
    if not quick:
        net, images = a.PixelCNN((8, 8), None, 16, 4, 5), x.reshape(-1, 8, 8)
        net = learn(side, "digits, PixelCNN", net, images[order[:1500]], images[order[1500:]], 1500)
        panels["PixelCNN"] = side.sample(net, 12)
    picture = flow_figures.images(panels)
    (out / "autoregressive-digits.png").write_bytes(figures.to_png(picture))


def bits(path, parts=("train", "valid", "test")):
    """The splits of a file of packed bits."""
    found = np.load(path)
    number = int(found["n_vars"]) if "n_vars" in found else None
    return [np.unpackbits(found[part], axis=1)[:, :number] for part in parts]


def tables(side, data):
    """Binary tables with the splits of the literature."""
    a = side.dg.autoregressive
    for name, steps in (("nltcs", 3000), ("dna", 400)):
        train, _, test = (part.astype(side.dtype) for part in bits(data / "debd" / f"{name}.npz"))
        size = train.shape[1]
        nets = {"FVSBN": a.FVSBN(size), "NADE": a.NADE(size, units=50)}
        for family, net in (nets | {"MADE": a.MADE(size, None, (100,))}).items():
            learn(side, f"{name}, {family}", net, train, test, steps)


def mnist(side, data, out):
    """The fixed binarization of MNIST: exact test log-likelihoods, draws."""
    a, found = side.dg.autoregressive, bits(data / "binarized_mnist" / "binarized_mnist.npz")
    train, test = np.concatenate(found[:2]).astype(side.dtype), found[2].astype(side.dtype)
    nets = {"FVSBN": a.FVSBN(784), "MADE": a.MADE(784), "NADE": a.NADE(784)}
    panels = {"data": test[:12].reshape(-1, 28, 28)}
    for name, net in nets.items():
        net = learn(side, f"binarized MNIST, {name}", net, train, test, 12000, 2e-3)
        panels[name] = side.sample(net, 12).reshape(-1, 28, 28)
    (out / "autoregressive-mnist.png").write_bytes(figures.to_png(flow_figures.images(panels)))


def messages(side, data):
    """The letters of SMS messages, 48 at a time: a recurrent network and a transformer."""
    a = side.dg.autoregressive
    with gzip.open(data / "sms_spam" / "SMSSpamCollection.tsv.gz", "rt", encoding="utf-8") as lines:
        text = "".join(line.split("\t", 1)[1].lower() for line in lines)
    symbols = np.array([LETTERS.index(letter) for letter in text if letter in LETTERS], np.int32)
    rows = symbols[: len(symbols) // 48 * 48].reshape(-1, 48)
    train, test = rows[: int(0.9 * len(rows))], rows[int(0.9 * len(rows)) :]
    output = a.Categorical(len(LETTERS))
    nets = {"Recurrent": a.Recurrent(48, output, 128), "Transformer": a.Transformer(48, output)}
    for name, net in nets.items():
        net = learn(side, f"messages, {name}", net, train, test, 2000)
        for row in side.sample(net, 3):
            print("  " + "".join(LETTERS[int(i)] for i in row).replace("\n", " / "))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--only", choices=("NumPyro", "Pyro"), help="one language")
    parser.add_argument("--data", type=Path, help="folder of binarized_mnist, debd and sms_spam")
    parser.add_argument("--out", type=Path, default=Path("out/autoregressive"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, make in (("NumPyro", NumPyro), ("Pyro", Pyro)):
        if options.only not in (None, name) or importlib.util.find_spec(name.lower()) is None:
            continue
        print(f"== {name}")
        side = make()
        digits(side, options.quick, options.out)
        if options.data is not None and not options.quick:
            tables(side, options.data)
            messages(side, options.data)
            mnist(side, options.data, options.out)


if __name__ == "__main__":
    main()
