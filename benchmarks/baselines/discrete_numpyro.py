"""NumPyro's own kernel for discrete latents, all chains mapped: `chain_method=jax.vmap`."""

from __future__ import annotations

import time

import jax
import numpy as np
from numpyro.infer import HMC, MCMC, DiscreteHMCGibbs


def run(
    model, data, num_warmup: int, num_samples: int, num_chains: int, seed: int
) -> tuple[dict[str, np.ndarray], float]:
    """Return draws `(chain, draw, ...)` by site from a fresh `MCMC`, and the seconds of its run."""
    mcmc = MCMC(
        kernel_of(model),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    began = time.perf_counter()
    mcmc.run(jax.random.key(seed), *data)
    found = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    return found, time.perf_counter() - began


def make_once(model, data, num_warmup: int, num_samples: int, num_chains: int):
    """Compile NumPyro's kernel for all chains into one `sample(seed) -> draws`.

    The floor of a repeated call: nothing is traced again; kernel and adaptation are NumPyro's.
    Continuous sites are left unconstrained.
    """
    kernel = kernel_of(model)
    kernel.init(jax.random.key(0), num_warmup, None, model_args=data, model_kwargs={})

    def step(state):
        return kernel.sample(state, data, {})

    def chain(key):
        state = kernel.init(key, num_warmup, None, model_args=data, model_kwargs={})
        state = jax.lax.fori_loop(0, num_warmup, lambda _, s: step(s), state)

        def kept(state, _):
            state = step(state)
            return state, state.z

        return jax.lax.scan(kept, state, length=num_samples)[1]

    sample = jax.jit(jax.vmap(chain))
    return lambda seed: jax.device_get(sample(jax.random.split(jax.random.key(seed), num_chains)))


def kernel_of(model):
    """Return the kernel: a sweep over the discrete sites, then a quarter turn of HMC."""
    return DiscreteHMCGibbs(HMC(model, trajectory_length=1.5))
