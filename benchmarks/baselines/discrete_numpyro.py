"""NumPyro's own kernel for discrete latents, all chains mapped: `chain_method=jax.vmap`."""

from __future__ import annotations

import time

import jax
import numpy as np
from numpyro.infer import HMC, MCMC, NUTS, DiscreteHMCGibbs


def run(
    model, data, kernel: str, num_warmup: int, num_samples: int, num_chains: int, seed: int
) -> tuple[dict[str, np.ndarray], float]:
    """Return draws `(chain, draw, ...)` by site, and the seconds of sampling after warm-up.

    Args:
        model: a NumPyro program with discrete and continuous latents.
        data: its data.
        kernel: "nuts" or "hmc" (a quarter turn), for the continuous ones.
        num_warmup: steps of warm-up.
        num_samples: steps after it.
        num_chains: chains, mapped together.
        seed: seed of the chains.
    """
    inner = NUTS(model) if kernel == "nuts" else HMC(model, trajectory_length=1.5)
    mcmc = MCMC(
        DiscreteHMCGibbs(inner),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    warmup_key, key = jax.random.split(jax.random.key(seed))
    mcmc.warmup(warmup_key, *data)
    mcmc.run(key, *data)  # compiles what samples from a state that has been warmed up
    began = time.perf_counter()
    mcmc.run(jax.random.fold_in(key, 1), *data)
    found = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    return found, time.perf_counter() - began
