"""How noisy is each estimator's gradient? The same autoencoder and rows, by objective and draws.

    python benchmarks/studies/gradient_variance.py --wing numpyro    # some three minutes
    python benchmarks/studies/gradient_variance.py --wing pyro --copies 100

An autoencoder of scikit-learn's digits is trained with the ELBO for some steps and held. Then the
gradient of each objective is drawn many times at the same rows. Of the encoder's and the decoder's
parameters: the signal-to-noise ratio (Rainforth et al. 2018), mean over parameters of |mean| / sd,
and the sd of the whole gradient per datum, the root of the summed variances.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

ROWS, LATENTS, HIDDEN = 100, 8, 64
SPLIT = ("encoder", "decoder")


def objectives(dg: Any, draws: int) -> dict[str, Any]:
    """The estimators at a number of draws."""
    found = {
        "ELBO": dg.ELBO(draws),
        "ELBO, analytic KL": dg.ELBO(draws, kl="analytic"),
        "ELBO, STL": dg.ELBO(draws, estimator="stl"),
    }
    if draws == 1:
        return found
    return found | {
        "IWAE": dg.IWAE(draws),
        "IWAE, DReG": dg.IWAE(draws, "dreg"),
        "Renyi 1/2": dg.Renyi(0.5, draws),
        "Renyi 1/2, DReG": dg.Renyi(0.5, draws, "dreg"),
    }


def numpyro_side(vae: Any, fit: Any, x: np.ndarray) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """Return the function of an objective and a number of copies that draws gradients."""
    import jax
    import jax.numpy as jnp

    from deepgen_ppl.numpyro.program import read_pair

    pair = read_pair(*vae, (x,), params=fit.params)
    params, inputs = jax.tree.map(jnp.asarray, fit.params), pair.inputs((x,))

    def gradients(objective: Any, copies: int) -> dict[str, np.ndarray]:
        def one(key: Any) -> Any:
            def loss(params: Any) -> Any:
                return objective(pair, params, inputs, None, key)[0] / len(x)

            grads = jax.grad(loss)(params)
            return {
                name: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
                for name, tree in grads.items()
            }

        found = jax.jit(partial(jax.lax.map, one))(jax.random.split(jax.random.key(0), copies))
        return {name.split("$")[0]: np.asarray(value) for name, value in found.items()}

    return gradients


def pyro_side(vae: Any, fit: Any, x: np.ndarray) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """Return the function of an objective and a number of copies that draws gradients."""
    import torch

    from deepgen_ppl.pyro.data import to_tensors
    from deepgen_ppl.pyro.infer.importance import prepare
    from deepgen_ppl.pyro.path import quiet

    pair, values, _ = prepare(*vae, (x,), fit, None, 0)
    names = [name for name, param in pair.params.items() if param.trainable]
    data = to_tensors((x,))

    def gradients(objective: Any, copies: int) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {name: [] for name in SPLIT}
        for seed in range(copies):
            torch.manual_seed(seed)
            with quiet(pair):
                loss = objective(pair, values, data, None)
            loss = (loss[0] if loss.dim() else loss) / len(x)
            grads = torch.autograd.grad(loss, [values[name] for name in names])
            for part in SPLIT:
                own = [g.flatten() for n, g in zip(names, grads, strict=True) if n.startswith(part)]
                found[part].append(torch.cat(own).numpy())
        return {name: np.stack(value) for name, value in found.items()}

    return gradients


def told(grads: np.ndarray) -> tuple[float, float]:
    """Return the mean signal-to-noise ratio and the sd of the whole gradient."""
    mean, sd = grads.mean(0, dtype=float), grads.std(0, ddof=1, dtype=float)
    moves = sd > 1e-12
    return float(np.mean(np.abs(mean[moves]) / sd[moves])), float(np.sqrt(np.sum(sd**2)))


def run(wing: str, steps: int, copies: int, draws: Sequence[int]) -> None:
    """Train, then print one line an estimator and number of draws."""
    dg = importlib.import_module(f"deepgen_ppl.{wing}")
    x = (np.asarray(load_digits().data) > 7).astype(np.float32)  # type: ignore[attr-defined]
    vae = dg.VAE((HIDDEN,), (HIDDEN,), features=64, latents=LATENTS)
    options: dict[str, Any] = {"num_steps": steps, "batch_size": 200, "progress": False}
    if wing == "numpyro":
        optim = importlib.import_module("optax").adam(3e-3)
    else:
        optim = partial(importlib.import_module("torch").optim.Adam, lr=3e-3)
    fit = dg.svi(*vae, x, optim=optim, **options)
    gradients = {"numpyro": numpyro_side, "pyro": pyro_side}[wing](vae, fit, x[:ROWS])
    print(f"{wing}: {copies} gradients of {ROWS} rows after {steps} steps of the ELBO")
    heads = "".join(f"{head:>10}" for head in ("SNR enc", "SNR dec", "sd enc", "sd dec"))
    print(f"{'estimator':<20}{'K':>4}{heads}{'s':>7}")
    for count in draws:
        for name, objective in objectives(dg, count).items():
            began = time.process_time()
            found = gradients(objective, copies)
            numbers = [told(found[part]) for part in SPLIT]
            cells = [f"{numbers[part][k]:>10.3f}" for k in (0, 1) for part in (0, 1)]
            spent = time.process_time() - began
            print(f"{name:<20}{count:>4}{''.join(cells)}{spent:>7.1f}", flush=True)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wing", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--draws", type=int, nargs="+", default=(1, 5, 50))
    options = parser.parse_args()
    run(options.wing, options.steps, options.copies, options.draws)


if __name__ == "__main__":
    main()
