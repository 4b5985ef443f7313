"""Held-out densities of flows beside flowjax's and Zuko's, of equal architectures, trained equally.

    python benchmarks/studies/flow_densities.py --data protein --flow NSF --peer flowjax
    python benchmarks/studies/flow_densities.py --data miniboone --flow MAF --peer zuko
    python benchmarks/studies/flow_densities.py --data energy --flow MAF --drawn

Data are the first 1,523 rows of MINIBOONE and regression sets of UCI (inputs and output),
standardised. A tenth of the rows is held out, a tenth of the others stops training: Adam at 1e-3,
batches of 256, until the score of the validation rows has not risen for 30 epochs; the best
parameters are kept. Both sides see the same batches in the same order. Ours begins as the identity,
or, with `--drawn`, with last layers of its networks drawn, as the peers' are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.data import SHARED

BATCH, PATIENCE = 256, 30
FLOWS = ("MAF", "NSF", "NSF-autoregressive", "RealNVP")


def rows_of(name: str) -> np.ndarray:
    """Return standardised rows of a set."""
    if name == "miniboone":
        x = np.load(SHARED / "uci_density" / "miniboone_head1523.npz")["x"]
    else:
        stored = np.load(SHARED / "uci_regression" / f"{name}.npz")
        x = np.concatenate([stored["x"], stored["y"].reshape(-1, 1)], -1)
        x = x[:, x.std(0) > 0]
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def split(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows to train, to validate and to test with."""
    x = x[np.random.default_rng(seed).permutation(len(x))]
    test, rest = np.split(x, [len(x) // 10])
    valid, train = np.split(rest, [len(rest) // 10])
    return train, valid, test


def epochs(rows: int, seed: int, most: int) -> Iterator[np.ndarray]:
    """Yield the batches of each epoch as one array of row numbers."""
    rng = np.random.default_rng(seed)
    size = min(BATCH, rows)
    for _ in range(most):
        yield rng.permutation(rows)[: rows // size * size].reshape(-1, size)


def best_of(
    train: Callable[[np.ndarray], Any], score: Callable[[Any], float], order: Iterator[np.ndarray]
) -> tuple[Any, int]:
    """Return the parameters of the best validation score, and the number of epochs run."""
    best, kept, since, number = -np.inf, None, 0, 0
    for batches in order:
        number += 1
        params = train(batches)
        found = score(params)
        if found > best:
            best, kept, since = found, params, 0
        else:
            since += 1
        if since == PATIENCE:
            break
    return kept, number


def on_jax(learned: Any, log_prob: Any, parts: Any, seed: int, most: int) -> tuple[Any, int, int]:
    """Train on JAX; return test scores, epochs and parameters."""
    import jax
    import jax.numpy as jnp
    import optax

    rows, valid, test = (jnp.asarray(part) for part in parts)
    optimizer = optax.adam(1e-3)
    state = [learned, optimizer.init(learned)]

    @jax.jit
    def epoch(learned: Any, memory: Any, batches: Any) -> Any:
        def step(carry: Any, index: Any) -> Any:
            learned, memory = carry
            gradient = jax.grad(lambda p: -log_prob(p, rows[index]).mean())(learned)
            updates, memory = optimizer.update(gradient, memory, learned)
            return (optax.apply_updates(learned, updates), memory), None

        return jax.lax.scan(step, (learned, memory), batches)[0]

    density = jax.jit(log_prob)

    def train(batches: np.ndarray) -> Any:
        state[:] = epoch(*state, batches)
        return state[0]

    order = epochs(len(rows), seed, most)
    kept, number = best_of(train, lambda p: float(density(p, valid).mean()), order)
    size = sum(leaf.size for leaf in jax.tree.leaves(learned))
    if kept is None:  # no score was finite
        return np.full(len(test), np.nan), number, size
    return np.asarray(density(kept, test)), number, size


def on_torch(flow: Any, parts: Any, seed: int, most: int) -> tuple[Any, int, int]:
    """Train on torch; return test scores, epochs and parameters."""
    import torch

    rows, valid, test = (torch.as_tensor(part) for part in parts)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3, fused=True)

    def train(batches: np.ndarray) -> Any:
        for index in torch.as_tensor(batches):
            optimizer.zero_grad()
            (-flow().log_prob(rows[index]).mean()).backward()
            optimizer.step()
        return {name: value.clone() for name, value in flow.state_dict().items()}

    def score(params: Any) -> float:
        with torch.no_grad():
            return float(flow().log_prob(valid).mean())

    kept, number = best_of(train, score, epochs(len(rows), seed, most))
    if kept is None:  # no score was finite
        return np.full(len(test), np.nan), number, sum(p.numel() for p in flow.parameters())
    flow.load_state_dict(kept)
    with torch.no_grad():
        found = flow().log_prob(test).numpy()
    return found, number, sum(p.numel() for p in flow.parameters())


def contenders(options: argparse.Namespace, size: int, parts: Any, seed: int) -> Iterator[Any]:
    """Yield the name and what came of each side."""
    flow, most = options.flow.lower(), options.epochs
    own = {"identity": False} if options.drawn else {}
    if options.peer == "zuko":
        from benchmarks.baselines.flows_torch import zuko_of
        from benchmarks.cases import pyro_flows

        yield "ours", on_torch(pyro_flows.flow_of(flow, size, seed, **own), parts, seed, most)
        yield "zuko", on_torch(zuko_of(flow, size, seed), parts, seed, most)
        return
    from benchmarks.cases import numpyro_flows

    learned, log_prob, _ = numpyro_flows.ours_of(flow, size, seed, **own)
    yield "ours", on_jax(learned, log_prob, parts, seed, most)
    learned, log_prob, _ = numpyro_flows.theirs_of(flow, size, seed)
    yield "flowjax", on_jax(learned, log_prob, parts, seed, most)


def main() -> None:
    """Read the options, train both sides at each seed and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sets = ("miniboone", "protein", "wine", "concrete", "energy", "yacht")
    parser.add_argument("--data", choices=sets, default="miniboone")
    parser.add_argument("--flow", choices=FLOWS, default="MAF")
    parser.add_argument("--peer", choices=("flowjax", "zuko"), default="flowjax")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument(
        "--drawn", action="store_true", help="ours begins away from the identity (not NSF)"
    )
    options = parser.parse_args()
    x = rows_of(options.data)
    gaps = []
    for seed in range(options.first, options.first + options.seeds):
        parts, scores = split(x, seed), []
        for name, (found, number, size) in contenders(options, x.shape[1], parts, seed):
            error = found.std() / np.sqrt(len(found))
            print(
                f"{options.data} {options.flow} seed {seed} {name:7} test {found.mean():.3f} "
                f"+- {error:.3f}, {number} epochs, {size} parameters",
                flush=True,
            )
            scores.append(found)
        difference = scores[0] - scores[1]
        gaps.append(difference.mean())
        error = difference.std() / np.sqrt(len(difference))
        print(f"  ours less theirs {difference.mean():.3f} +- {error:.3f} over rows", flush=True)
    spread = np.std(gaps, ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
    print(f"ours less theirs over seeds: {np.mean(gaps):.3f} +- {spread:.3f}")


if __name__ == "__main__":
    main()
