"""Importance sampling of a VAE by hand in JAX: one compiled map over chunks of rows."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames=("num_particles", "chunk"))
def log_evidence(params, x: jax.Array, key: jax.Array, num_particles: int, chunk: int) -> jax.Array:
    """Return log p(x_i) of each row from weights p(x, z) / q(z | x), `chunk` rows at a time."""

    def layer(name, h):
        return h @ params[name][0] + params[name][1]

    def rows(inputs):
        batch, key = inputs
        features = jax.nn.relu(layer("encoder", batch))
        loc, log_scale = layer("loc", features), layer("log_scale", features)
        noise = jax.random.normal(key, (num_particles, *loc.shape))
        z = loc + jnp.exp(log_scale) * noise
        logits = layer("pixels", jax.nn.relu(layer("decoder", z)))
        log_likelihood = jnp.sum(batch * logits - jax.nn.softplus(logits), -1)
        log_weights = log_likelihood + jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2, -1)
        return jax.nn.logsumexp(log_weights, 0) - jnp.log(num_particles)

    chunks = x.reshape(-1, chunk, x.shape[1])
    return jax.lax.map(rows, (chunks, jax.random.split(key, len(chunks)))).reshape(-1)
