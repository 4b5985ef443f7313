"""Exact test log-likelihoods of autoregressive networks on bits, beside published ones.

    python benchmarks/studies/autoregressive.py --data binarized_mnist --net MADE --epochs 60
    python benchmarks/studies/autoregressive.py --data nltcs --net NADE --wing pyro
    python benchmarks/studies/autoregressive.py --wing pyro --net PixelCNN --channels 16 \
        --layers 8 --batch 50 --rate 0.004 --epochs 2 --checkpoint out/pixelcnn

With `--checkpoint` a run that was interrupted goes on where it stood when the same command is
given again.

Adam, batches of 100 unless said, the training rows only; the best parameters by the validation
rows are kept. Nats per datum of the test rows, with errors over rows. `binarized_mnist` is the
fixed binarization of Larochelle and Murray (2011), which NADE (Uria et al. 2016, -88.33), MADE
(Germain et al. 2015, -88.04 with 8 orders) and PixelCNN (van den Oord et al. 2016, -81.30) were
scored on.
"""

from __future__ import annotations

import argparse
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import SHARED
from deepgen_ppl import figures, flow_figures


def splits(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows to train, to validate and to test with."""
    if name == "binarized_mnist":
        stored, size = np.load(SHARED / name / f"{name}.npz"), 784
    else:
        stored = np.load(SHARED / "debd" / f"{name}.npz")
        size = int(stored["n_vars"])
    found = (np.unpackbits(stored[k], axis=1)[:, :size] for k in ("train", "valid", "test"))
    train, valid, test = (x.astype(np.float32) for x in found)
    return train, valid, test


def network(dg: Any, options: argparse.Namespace, size: int) -> Any:
    """Return the network of a name, for rows of this size."""
    nets, name, seed = dg.autoregressive, options.net, options.seed
    if name == "PixelCNN":
        side, sizes = math.isqrt(size), {"channels": options.channels, "layers": options.layers}
        return nets.PixelCNN((side, side), **sizes, seed=seed)
    if name == "Transformer":
        return nets.Transformer(size, nets.Bernoulli(), seed=seed)
    own = {"MADE": {"hidden": (500,)}, "NADE": {"units": 200}}
    return getattr(nets, name)(size, seed=seed, **own.get(name, {}))


def scorer(wing: str, net: Any) -> Any:
    """Return log probabilities and draws of a trained network as functions of NumPy arrays."""
    if wing == "numpyro":
        jax = importlib.import_module("jax")
        score = jax.jit(net().log_prob)
        return lambda x: np.asarray(score(x)), lambda n: net().sample(jax.random.key(0), (n,))
    torch = importlib.import_module("torch")

    def log_prob(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net().log_prob(torch.as_tensor(x)).numpy()

    def draw(number: int) -> np.ndarray:
        torch.manual_seed(0)
        with torch.no_grad():
            return net().sample((number,)).numpy()

    return log_prob, draw


def adam(wing: str, rate: float, steps: int) -> Any:
    """Return Adam whose rate falls to nothing as a cosine."""
    if wing == "numpyro":
        optax = importlib.import_module("optax")
        return optax.adam(optax.cosine_decay_schedule(rate, steps))
    torch = importlib.import_module("torch")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR

    def make(params: Any) -> Any:
        optimizer = torch.optim.Adam(params, rate)
        return optimizer, scheduler(optimizer, steps)

    return make


def main() -> None:
    """Read the options, train, score and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("FVSBN", "MADE", "NADE", "Recurrent", "PixelCNN", "Transformer")
    parser.add_argument("--wing", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--data", default="binarized_mnist", help="or a set of debd, such as nltcs")
    parser.add_argument("--net", choices=names, default="MADE")
    parser.add_argument("--channels", type=int, default=16, help="of each stack of PixelCNN")
    parser.add_argument("--layers", type=int, default=5, help="of PixelCNN")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=100, help="rows of a batch")
    parser.add_argument("--rows", type=int, help="training rows, all by default")
    parser.add_argument("--checkpoint", help="file to which the run is kept, and resumed from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    dg = importlib.import_module(f"deepgen_ppl.{options.wing}")
    train, valid, test = splits(options.data)
    train = train[: options.rows]
    net = network(dg, options, train.shape[1])
    if options.net == "PixelCNN":
        side = math.isqrt(train.shape[1])
        train, valid, test = (x.reshape(-1, side, side) for x in (train, valid, test))
    steps = options.epochs * (len(train) // options.batch)
    fit = dg.svi(
        dg.autoregressive.program(net),
        None,
        train,
        num_steps=steps,
        batch_size=options.batch,
        validation_data=(valid[:2000],),
        patience=5,
        checkpoint=options.checkpoint,
        optim=adam(options.wing, options.rate, steps),
        progress=False,
        seed=options.seed,
    )
    learned = dg.flows.fitted(net, fit, "net")
    log_prob, draw = scorer(options.wing, learned)
    chunks = [test[i : i + 500] for i in range(0, len(test) // 500 * 500, 500)]
    rest = test[len(chunks) * 500 :]
    found = np.concatenate([log_prob(x) for x in (*chunks, rest) if len(x)])
    print(
        f"{options.wing} {options.data} {options.net}: test {found.mean():.3f} "
        f"+- {found.std() / math.sqrt(len(found)):.3f} nats, {len(fit.losses)} of {steps} steps, "
        f"{len(train)} rows, {fit.seconds:.0f} s",
        flush=True,
    )
    if options.picture:
        side = math.isqrt(test[0].size)
        draws = np.asarray(draw(12)).reshape(12, side, side)
        panels = {"data": test[:12].reshape(12, side, side), "draws": draws}
        options.picture.write_bytes(figures.to_png(flow_figures.images(panels)))


if __name__ == "__main__":
    main()
