"""The VAE by NumPyro's own means: a loop over jitted `svi.update`, and `svi.run`."""

from __future__ import annotations

import jax
import numpy as np
from numpyro.infer import SVI, Trace_ELBO


def make_update_loop(model, guide, optim, x: jax.Array, batch_size: int):
    """Return the SVI and `loop(state, num_steps, seed) -> (state, losses)` of jitted updates."""
    svi = SVI(model, guide, optim, Trace_ELBO())
    update = jax.jit(lambda state, rows: svi.update(state, x[rows]))

    def loop(state, num_steps: int, seed: int):
        rng, losses, per_epoch = np.random.default_rng(seed), [], len(x) // batch_size
        for step in range(num_steps):
            if step % per_epoch == 0:
                order = rng.permutation(len(x)).astype(np.int32)
            start = step % per_epoch * batch_size
            state, value = update(state, order[start : start + batch_size])
            losses.append(value)
        return state, np.asarray(jax.device_get(losses)) / batch_size

    return svi, loop


def make_svi_run(model, guide, optim, x: jax.Array, batch_size: int):
    """Return `run(num_steps, seed) -> losses` by `svi.run` on one batch, as it takes no rows.

    `svi.run` passes the same arguments to every step, so it sees the first `batch_size` rows only:
    the cost of a step is that of the others, its final loss is not comparable.
    """
    svi = SVI(model, guide, optim, Trace_ELBO())

    def run(num_steps: int, seed: int):
        result = svi.run(jax.random.key(seed), num_steps, x[:batch_size], progress_bar=True)
        return np.asarray(jax.block_until_ready(result.losses)) / batch_size

    return run
