"""Training steps as one compiled function of a state: many steps a call, nothing on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array

from deepgen_ppl.numpyro.infer.optimizers import Optimizer
from deepgen_ppl.numpyro.program import Inputs, as_key

Loss = Callable[..., tuple[Array, Any]]
"""(params, mutable state, inputs, batch rows, key) -> (loss of the whole data, new state).

A loss with columns is told the step too, and returns (loss, (new state, columns)).
"""


class State(NamedTuple):
    """What the loop carries from step to step; all of it lives on the device.

    Attributes:
        params: unconstrained parameters.
        optimizer: the optimizer's state.
        mutable: mutable state of the programs.
        rows: permutation of the present epoch (length 0 without minibatches).
        step: steps done.
        finite: whether every loss was finite so far, and at the end of a call every parameter;
            False ends the loop, with the failed update applied but not counted in `step`.
    """

    params: Any
    optimizer: Any
    mutable: Any
    rows: Array
    step: Array
    finite: Array


@dataclass
class Steps:
    """The compiled part: a function of (state, inputs, key, count) that does `count` steps.

    A careful one looks at every gradient too, which takes a pass over all parameters in each step:
    it is run only to find the step that failed. A loss with columns is told the number of the step,
    and its columns stand beside the losses.
    """

    loss: Loss
    optimizer: Optimizer
    batch_size: int | None
    per_datum: int
    length: int
    careful: bool = False
    columns: int = 0

    def num_batches(self, inputs: Inputs) -> int:
        """Return the number of batches in an epoch, 0 without minibatches."""
        return inputs.num_rows // self.batch_size if self.batch_size else 0

    def start(self, params: Any, mutable: Any, inputs: Inputs) -> State:
        """Return the state before the first step."""
        rows = jnp.arange(inputs.num_rows if self.batch_size else 0, dtype=jnp.int32)
        state = State(params, self.optimizer.init(params), mutable, rows, jnp.int32(0),
                      jnp.array(True))  # fmt: skip
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)

    def __call__(self, state: State, inputs: Inputs, key: Array, count: Array
                 ) -> tuple[State, Array]:  # fmt: skip
        """Do `count` steps; return the state and the loss per datum of each, padded with zeros."""
        first, last = state.step, state.step + count
        shuffle_key, noise_key = random.split(key)
        num_batches = self.num_batches(inputs)

        def step(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, losses = carry
            state, value = self._step(state, inputs, num_batches, noise_key)
            return state, losses.at[state.step - 1 - first].set(value, mode="drop")

        def going(carry: tuple[State, Array], end: Array) -> Array:
            return (carry[0].step < end) & carry[0].finite

        def epoch(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, losses = carry
            number = state.step // num_batches
            rows = lax.cond(
                state.step % num_batches == 0,
                lambda: _permutation(random.fold_in(shuffle_key, number), state.rows),
                lambda: state.rows,
            )
            end = jnp.minimum(last, (number + 1) * num_batches)
            carry = state._replace(rows=rows), losses
            return lax.while_loop(lambda carry: going(carry, end), step, carry)

        body = epoch if num_batches else step
        shape = (self.length, 1 + self.columns) if self.columns else (self.length,)
        carry = state, jnp.zeros(shape)
        state, losses = lax.while_loop(lambda carry: going(carry, last), body, carry)
        return state._replace(finite=state.finite & _all_finite(state.params)), losses

    def _step(self, state: State, inputs: Inputs, num_batches: int, noise_key: Array
              ) -> tuple[State, Array]:  # fmt: skip
        rows = None
        if self.batch_size is not None:
            start = (state.step % num_batches) * self.batch_size
            rows = lax.dynamic_slice(state.rows, (start,), (self.batch_size,))
        key = random.fold_in(noise_key, state.step)
        told = (state.step,) if self.columns else ()
        (value, aux), grads = jax.value_and_grad(self.loss, has_aux=True)(
            state.params, state.mutable, inputs, rows, key, *told
        )
        mutable, columns = aux if self.columns else (aux, None)
        params, optimizer = self.optimizer.update(grads, state.optimizer, state.params, value)
        finite = _all_finite((value, grads, params) if self.careful else value)
        step = state.step + finite
        shown = value if columns is None else jnp.stack([value, *columns])
        return State(params, optimizer, mutable, state.rows, step, finite), shown / self.per_datum


def batch_key(seed: int | Array, step: int) -> Array:
    """Return the key of one step's noise."""
    return random.fold_in(random.split(as_key(seed))[1], step)


def _all_finite(tree: Any) -> Array:
    sums = [jnp.sum(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.isfinite(jnp.stack(sums)))


def _permutation(key: Array, rows: Array) -> Array:
    # One sort by 32 random bits: a tie (one in 2^32 pairs) keeps its order, which nobody can see.
    order = jnp.arange(rows.shape[0], dtype=rows.dtype)
    return lax.sort_key_val(random.bits(key, rows.shape), order)[1]
