"""Uniform random numbers from threefry, fused with their use."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def uniform(key: Array, shape: tuple[int, ...], stream: int | Array = 0) -> Float[Array, ...]:
    """Return independent uniform numbers on [0, 1) of 23 bits.

    Threefry of 20 rounds turns a counter into two words of 32 bits. JAX's own generator folds them
    into one; here number i takes the first word of counter i, or the second one of counter i less
    half the numbers. Each number is computed from its own place alone, without a branch, so that
    XLA fuses the rounds with the comparison that follows and vectorises both on a CPU.

    Args:
        key: random key; its first two words are the cipher's key.
        shape: shape of the numbers.
        stream: number of the draw among those of one key, below 2**32.

    References:
        Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3. SC 2011.
        https://doi.org/10.1145/2063384.2063405

    Example:
        >>> u = uniform(jax.random.key(0), (1000,))
        >>> bool(abs(u.mean() - 0.5) < 5 / 12**0.5 / 1000**0.5)
        True
    """
    number = math.prod(shape)
    half = (number + 1) // 2
    words = jax.random.key_data(key).reshape(-1).astype(jnp.uint32)
    place = jnp.arange(number, dtype=jnp.uint32).reshape(shape)
    is_low = place < half
    counter = jnp.where(is_low, place, place - jnp.uint32(half))
    bits = jnp.where(is_low, *threefry(words[0], words[1], counter, stream))
    one = jnp.uint32(0x3F800000)  # the float 1.0: 23 random bits are its fraction
    return jax.lax.bitcast_convert_type((bits >> 9) | one, jnp.float32) - jnp.float32(1.0)


def threefry(
    first: Array, second: Array, counter: Array, stream: int | Array = 0
) -> tuple[Array, Array]:
    """Return the two words that threefry2x32 of 20 rounds makes of counters (c, stream).

    Args:
        first: first word of the key.
        second: second word of the key.
        counter: the counters.
        stream: second word of each counter.
    """
    keys = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    x, y = counter + keys[0], jnp.full_like(counter, stream) + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x = x + keys[(block + 1) % 3]
        y = y + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return x, y
