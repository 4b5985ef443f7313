"""What is missing of an event, drawn given what is observed, by the steps of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Shaped

if TYPE_CHECKING:
    from deepgen_ppl.numpyro.programs.autoregressive.module import Autoregressive, Context


class Completion(NamedTuple):
    """Values with what was missing filled in.

    Attributes:
        value: the completed values, shape (*batch, *event).
        log_evidence: estimate of the log density of what is observed, shape (*batch); exact where
            one run is.
        effective: effective number of particles at the end, shape (*batch); 1 where one run is
            exact.
    """

    value: Shaped[Array, "*batch_event"]
    log_evidence: Float[Array, "*batch"]
    effective: Float[Array, "*batch"]


def particles(
    net: Autoregressive,
    context: Context,
    x: Shaped[Array, "rows features"],
    observed: Bool[Array, "rows features"],
    key: Array,
    number: int,
    dtype: Any,
) -> tuple[Array, Array, Array]:
    """Return completed rows, the log evidence of what is observed, and the effective number.

    Args:
        net: the module.
        context: its context, a row each.
        x: values in order.
        observed: which of them are observed.
        key: random key.
        number: particles of each row.
        dtype: of the network.
    """
    rows, features = x.shape
    output, owner = net.output, jnp.repeat(jnp.arange(rows), number)
    wide = None if context is None else context[owner]

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        kept, before, found, log_weights, evidence = carry
        i, x_i, seen, key = inputs
        params, kept = net.step(kept, i, before)
        ours, theirs = jax.random.split(key)
        u = jax.random.uniform(ours, (rows * number, output.uniforms), dtype)
        value, seen = x_i[owner], seen[owner]
        drawn = jnp.where(seen, value.astype(found.dtype), output.draw(params, u))
        gain = jnp.where(seen, output.log_prob(params, value), 0.0)
        found = found.at[:, i].set(drawn.astype(found.dtype))
        log_weights = log_weights + gain.reshape(rows, number)
        low = effective(log_weights) < 0.5 * number
        state = (kept, found, log_weights, evidence)
        state = lax.cond(low.any(), lambda s: resampled(theirs, s, low), lambda s: s, state)
        kept, found, log_weights, evidence = state
        before = output.encode(lax.dynamic_index_in_dim(found, i, 1, False), dtype)
        return (kept, before, found, log_weights, evidence), None

    start = (
        net.start(rows * number, wide),
        jnp.zeros((rows * number, output.inputs), dtype),
        jnp.zeros((rows * number, features), dtype if output.values.kind == "real" else jnp.int32),
        jnp.zeros((rows, number), dtype),
        jnp.zeros(rows, dtype),
    )
    keys = jax.random.split(key, features + 1)
    sequence = (jnp.arange(features), x.T, observed.T, keys[1:])
    (_, _, found, log_weights, evidence), _ = lax.scan(step, start, sequence)
    total = logsumexp(log_weights, -1)
    which = jax.random.categorical(keys[0], log_weights)
    found = found.reshape(rows, number, features)[jnp.arange(rows), which]
    return found, evidence + total - jnp.log(number), effective(log_weights)


def effective(log_weights: Float[Array, "rows particles"]) -> Float[Array, " rows"]:
    """Return the effective number of particles."""
    return jnp.exp(2 * logsumexp(log_weights, -1) - logsumexp(2 * log_weights, -1))


def resampled(key: Array, state: Any, low: Bool[Array, " rows"]) -> Any:
    """Return what is kept with the particles of some rows drawn again, by systematic resampling."""
    kept, found, log_weights, evidence = state
    rows, number = log_weights.shape
    total = logsumexp(log_weights, -1)
    ends = jnp.cumsum(jnp.exp(log_weights - total[:, None]), -1)
    points = (jax.random.uniform(key, (rows, 1), ends.dtype) + jnp.arange(number)) / number
    which = (points[:, :, None] > ends[:, None, :-1]).sum(-1)
    which = jnp.where(low[:, None], which, jnp.arange(number))
    flat = (which + number * jnp.arange(rows)[:, None]).reshape(-1)
    kept, found = jax.tree.map(lambda leaf: leaf[flat], (kept, found))
    evidence = jnp.where(low, evidence + total - jnp.log(number), evidence)
    return kept, found, jnp.where(low[:, None], 0.0, log_weights), evidence
