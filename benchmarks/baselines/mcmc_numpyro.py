"""NUTS by NumPyro's own means: `MCMC.run` on every call, and its kernel compiled once by hand."""

from __future__ import annotations

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS
from numpyro.infer.hmc import hmc
from numpyro.infer.util import initialize_model

NUM_CHAINS = 4


def run(model, data, num_warmup: int, num_samples: int, chain_method: str, seed: int):
    """Return draws `(chain, draw, ...)` by site from a fresh `MCMC`, as a second call does."""
    mcmc = MCMC(
        NUTS(model),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        chain_method=chain_method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), *data)
    return {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}


def make_kernel_once(model, data, num_warmup: int, num_samples: int):
    """Compile NumPyro's NUTS kernel, chains one by one, into one `sample(seed) -> draws`.

    The floor of a repeated call: nothing is traced again; kernel and adaptation are NumPyro's.
    """
    info = initialize_model(jax.random.key(0), model, model_args=data)
    init_kernel, sample_kernel = hmc(info.potential_fn, algo="NUTS")
    constrain = jax.vmap(info.postprocess_fn)

    def chain(key):
        # Uniform starts in [-2, 2], as init_to_uniform draws them.
        leaves, treedef = jax.tree.flatten(info.param_info.z)
        keys = jax.random.split(key, len(leaves) + 1)
        start = treedef.unflatten(
            [
                jax.random.uniform(k, leaf.shape, leaf.dtype, -2.0, 2.0)
                for k, leaf in zip(keys[1:], leaves, strict=True)
            ]
        )
        state = init_kernel(start, num_warmup, rng_key=keys[0])
        state = jax.lax.fori_loop(0, num_warmup, lambda _, s: sample_kernel(s), state)

        def step(state, _):
            state = sample_kernel(state)
            return state, state.z

        return constrain(jax.lax.scan(step, state, length=num_samples)[1])

    sample = jax.jit(lambda keys: jax.lax.map(chain, keys))
    return lambda seed: jax.device_get(sample(jax.random.split(jax.random.key(seed), NUM_CHAINS)))
