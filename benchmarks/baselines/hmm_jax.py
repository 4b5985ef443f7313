"""Forward-backward smoothing of a hidden Markov model, written by hand in JAX with `lax.scan`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.jit
def smooth(log_moves: Array, log_first: Array, log_like: Array) -> tuple[Array, Array]:
    """Return smoothing marginals, `(T, N, K)`, and log evidence, `(N,)`.

    Messages are on the logarithmic scale and shifted at every step.

    Args:
        log_moves: log transition table, `(K, K)`.
        log_first: log probabilities of the first state, `(K,)`.
        log_like: log likelihood of each state, `(T, N, K)`.
    """

    def shifted(message: Array) -> tuple[Array, Array]:
        top = jnp.max(message, axis=-1, keepdims=True)
        return message - top, top[:, 0]

    def forward(before: Array, like: Array) -> tuple[Array, tuple[Array, Array]]:
        inside = jax.nn.logsumexp(before[:, :, None] + log_moves, axis=1)
        message, top = shifted(inside + like)
        return message, (message, top)

    def backward(after: Array, like: Array) -> tuple[Array, Array]:
        inside = jax.nn.logsumexp(log_moves + (after + like)[:, None, :], axis=2)
        return shifted(inside)[0], after

    first, top = shifted(log_first + log_like[0])
    last, (messages, tops) = lax.scan(forward, first, log_like[1:])
    _, behind = lax.scan(backward, jnp.zeros_like(first), log_like[:0:-1])
    forwards = jnp.concatenate([first[None], messages])
    final = jnp.zeros_like(first)[None]
    backwards = jnp.concatenate([_back(first, log_moves, log_like, behind), final])
    evidence = jax.nn.logsumexp(last, axis=-1) + top + jnp.sum(tops, axis=0)
    return jax.nn.softmax(forwards + backwards, axis=-1), evidence


def _back(first: Array, log_moves: Array, log_like: Array, behind: Array) -> Array:
    """Return the backward messages of all steps but the last, in the order of time."""
    ahead = behind[::-1] + log_like[1:]
    inside = jax.nn.logsumexp(log_moves + ahead[:, :, None, :], axis=3)
    return inside - jnp.max(inside, axis=-1, keepdims=True)
