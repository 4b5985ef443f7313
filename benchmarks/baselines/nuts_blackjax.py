"""NUTS of BlackJAX on a NumPyro program: chains under `vmap`, all of it compiled once."""

from __future__ import annotations

import blackjax
import jax
from numpyro.infer.util import initialize_model


def make(model, data, num_warmup: int, num_samples: int, num_chains: int = 4):
    """Return `sample(seed) -> draws` (chain, draw, ...) whose second call compiles nothing."""
    info = initialize_model(jax.random.key(0), model, model_args=data)

    def log_density(z):
        return -info.potential_fn(z)

    warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
    leaves, tree = jax.tree.flatten(info.param_info.z)

    def chain(key):
        start_key, warm_key, draw_key = jax.random.split(key, 3)
        keys = jax.random.split(start_key, len(leaves))
        start = tree.unflatten(
            [
                jax.random.uniform(k, leaf.shape, leaf.dtype, -2.0, 2.0)
                for k, leaf in zip(keys, leaves, strict=True)
            ]
        )
        (state, parameters), _ = warmup.run(warm_key, start, num_steps=num_warmup)
        step = blackjax.nuts(log_density, **parameters).step

        def one(state, key):
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(draw_key, num_samples))[1]

    @jax.jit
    def sample(keys):
        return jax.vmap(jax.vmap(info.postprocess_fn))(jax.vmap(chain)(keys))

    return lambda seed: jax.device_get(sample(jax.random.split(jax.random.key(seed), num_chains)))
