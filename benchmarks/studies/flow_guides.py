"""Is a flow a better guide than independent normals? A VAE of digits, by bounds from both sides.

    python benchmarks/studies/flow_guides.py --wing numpyro          # some ten minutes
    python benchmarks/studies/flow_guides.py --wing pyro --steps 200

Digits of scikit-learn, binarised, 1,400 to train and 397 held out. The same decoder architecture is
trained with each guide; the networks that read the datum have one hidden layer of 128 units. Of
the held-out rows: the ELBO, its tightening by 1,000 importance weights, and the difference of the
two, which bounds KL(q, p) from below. Errors are over rows.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

PIXELS, HIDDEN, LATENT = 64, 64, 8
FLOWS = {"diagonal": {}, "IAF": {"transforms": 4}, "NSF": {"transforms": 4, "bins": 6}}


def numpyro_side(seed: int) -> tuple[Any, Any, Any, Any]:
    """The wing, a VAE's model, a diagonal guide, and Adam of a rate."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    import optax
    from numpyro.contrib.module import eqx_module

    import deepgen_ppl.numpyro as dg
    from deepgen_ppl.numpyro.nets import MLP

    decoder = MLP(LATENT, PIXELS, (HIDDEN,), seed=seed)
    encoder = MLP(PIXELS, 2 * LATENT, (128,), seed=seed)

    def model(x):
        decode: Any = eqx_module("decoder", decoder)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z, None)).to_event(1), obs=x)

    def guide(x):
        encode: Any = eqx_module("encoder", encoder)
        loc, log_scale = jnp.split(encode(x, None), 2, -1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return dg, model, guide, optax.adam


def pyro_side(seed: int) -> tuple[Any, Any, Any, Any]:
    """The wing, a VAE's model, a diagonal guide, and Adam of a rate."""
    import pyro
    import pyro.distributions as dist
    import torch

    import deepgen_ppl.pyro as dg
    from deepgen_ppl.pyro.nets import MLP

    torch.set_num_threads(1)
    decoder = MLP(LATENT, PIXELS, (HIDDEN,), seed=seed)
    encoder = MLP(PIXELS, 2 * LATENT, (128,), seed=seed)

    def model(x):
        decode: Any = pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decode(z, None)).to_event(1), obs=x)

    def guide(x):
        encode: Any = pyro.module("encoder", encoder)
        loc, log_scale = encode(x, None).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def adam(rate):
        return lambda params: torch.optim.Adam(params, rate)

    return dg, model, guide, adam


def compare(wing: str, steps: int, seed: int) -> None:
    """Train with each guide and print the bounds of the held-out rows."""
    x = (load_digits().data > 7).astype(np.float32)
    train, test = x[:1400], x[1400:]
    first = None
    for name, options in FLOWS.items():
        dg, model, guide, adam = {"numpyro": numpyro_side, "pyro": pyro_side}[wing](seed)
        if name != "diagonal":
            flow = getattr(dg.flows, name)
            guide = dg.flow_guide(model, flow, amortized=True, init_scale=0.5, seed=seed, **options)
        fit = dg.svi(
            model,
            guide,
            train,
            num_steps=steps,
            batch_size=200,
            optim=adam(1e-3),
            progress=False,
            seed=seed,
        )
        weights = fit.importance(test, num_particles=1000).log_weights.reshape(1000, -1)
        elbo = weights.mean(0)
        top = weights.max(0)
        tight = top + np.log(np.exp(weights - top).mean(0))
        rows = np.sqrt(len(test))
        first = elbo if first is None else first
        better = elbo - first
        print(
            f"{wing} {name:8} ELBO {elbo.mean():.3f} +- {elbo.std() / rows:.3f}, "
            f"IWAE-1000 {tight.mean():.3f} +- {tight.std() / rows:.3f}, "
            f"gap {(tight - elbo).mean():.3f} +- {(tight - elbo).std() / rows:.3f}, "
            f"ELBO less the diagonal's {better.mean():.3f} +- {better.std() / rows:.3f}, "
            f"train loss {fit.losses[-100:].mean():.3f}, {fit.seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    """Read the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wing", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compare(options.wing, options.steps, options.seed)


if __name__ == "__main__":
    main()
