"""The VAE by hand in JAX and optax: whole epochs as one scan, shuffled on the device."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import optax


def init(
    key: jax.Array, pixels: int, hidden: int, latent: int
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Return weights and biases by layer."""
    widths = {
        "encoder": (pixels, hidden),
        "loc": (hidden, latent),
        "log_scale": (hidden, latent),
        "decoder": (latent, hidden),
        "pixels": (hidden, pixels),
    }
    glorot = jax.nn.initializers.glorot_normal()
    keys = jax.random.split(key, len(widths))
    return {
        name: (glorot(k, shape), jnp.zeros(shape[1]))
        for k, (name, shape) in zip(keys, widths.items(), strict=True)
    }


def loss(params, x: jax.Array, key: jax.Array) -> jax.Array:
    """Return the negative single-particle ELBO per row, E_q[log q(z | x) - log p(x, z)]."""

    def layer(name, h):
        return h @ params[name][0] + params[name][1]

    features = jax.nn.relu(layer("encoder", x))
    loc, log_scale = layer("loc", features), layer("log_scale", features)
    noise = jax.random.normal(key, loc.shape)
    z = loc + jnp.exp(log_scale) * noise
    logits = layer("pixels", jax.nn.relu(layer("decoder", z)))
    log_likelihood = jnp.sum(x * logits - jax.nn.softplus(logits))
    log_prior_ratio = jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2)
    return -(log_likelihood + log_prior_ratio) / len(x)


DEEP = ("encoder 0", "encoder 1", "posterior", "decoder 0", "decoder 1", "pixels")


def init_deep(
    key: jax.Array, pixels: int, hidden: int, latent: int
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Return weights and biases of two hidden layers on both sides (the IWAE paper's network)."""
    widths = (pixels, hidden, hidden, 2 * latent, latent, hidden, hidden, pixels)
    pairs = [pair for i, pair in enumerate(itertools.pairwise(widths)) if i != 3]
    glorot = jax.nn.initializers.glorot_normal()
    keys = jax.random.split(key, len(DEEP))
    return {
        name: (glorot(k, pair), jnp.zeros(pair[1]))
        for name, k, pair in zip(DEEP, keys, pairs, strict=True)
    }


def loss_deep(params, x: jax.Array, key: jax.Array) -> jax.Array:
    """Return the negative single-particle ELBO per row of the network of `init_deep`."""

    def layer(name, h):
        return h @ params[name][0] + params[name][1]

    features = jnp.tanh(layer("encoder 1", jnp.tanh(layer("encoder 0", x))))
    loc, log_scale = jnp.split(layer("posterior", features), 2, axis=-1)
    noise = jax.random.normal(key, loc.shape)
    z = loc + jnp.exp(log_scale) * noise
    logits = layer("pixels", jnp.tanh(layer("decoder 1", jnp.tanh(layer("decoder 0", z)))))
    log_likelihood = jnp.sum(x * logits - jax.nn.softplus(logits))
    log_prior_ratio = jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2)
    return -(log_likelihood + log_prior_ratio) / len(x)


def make_epochs(optim: optax.GradientTransformation, batch_size: int, loss=loss):
    """Return a jitted function of whole epochs that returns parameters and per-step losses."""

    @partial(jax.jit, static_argnames="num_epochs")
    def epochs(params, x, key, num_epochs: int):
        per_epoch = len(x) // batch_size

        def step(carry, inputs):
            params, state = carry
            rows, key = inputs
            value, grads = jax.value_and_grad(loss)(params, x[rows], key)
            updates, state = optim.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        def epoch(carry, key):
            shuffle, noise = jax.random.split(key)
            order = jax.random.permutation(shuffle, len(x))[: per_epoch * batch_size]
            inputs = order.reshape(per_epoch, batch_size), jax.random.split(noise, per_epoch)
            return jax.lax.scan(step, carry, inputs)

        carry, losses = jax.lax.scan(
            epoch, (params, optim.init(params)), jax.random.split(key, num_epochs)
        )
        return carry[0], losses.reshape(-1)

    return epochs
