"""Discrete Langevin: changes of all discrete coordinates at once, accepted or rejected together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int

from deepgen_ppl.checks import check_positive
from deepgen_ppl.discrete import check_cycle, check_differences
from deepgen_ppl.numpyro.kernels.gibbs_with_gradients import (
    Gains,
    GradientInfo,
    GradientState,
    Informed,
    choose,
    init,
)

__all__ = ["DiscreteLangevin", "init", "step"]

STEP_SIZES = (2.0, 1.26, 0.8, 0.5, 0.32, 0.2, 0.127, 0.08)


@dataclass(frozen=True)
class DiscreteLangevin:
    r"""Discrete Langevin proposals: every coordinate may change, each by what it would add.

    \[ q(x' \mid x) = \prod_i q_i(x'_i \mid x), \qquad q_i(k \mid x) \propto
       \exp\Bigl( \tfrac12 d_{ik}(x) - \tfrac{1}{2 \alpha} [k \ne x_i] \Bigr), \]

    with d the first-order expansion of what a change adds to the log density, or the difference
    itself, as in `GibbsWithGradients`, accepted or rejected by Metropolis and Hastings. Many
    coordinates move for one gradient, where Gibbs with gradients moves one: it pays in high
    dimension with weak ties. Step sizes alpha go round a cycle: large ones cross to other modes,
    small ones are accepted near them, and none has to be tuned.

    Args:
        continuous: Kernel of the continuous latents given the discrete ones: `"chees"`, `"hmc"`, or
            the options of one.
        num_discrete_steps: Proposals for a step of the continuous latents, or for a draw where
            there are none; once round the cycle when None.
        differences: `"gradient"`, `"exact"` or `"auto"`.
        step_sizes: The cycle of step sizes alpha.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        A proposal takes a gradient of all chains, or with exact differences K - 1 densities for
        each block of coordinates (see `Gibbs`).

    References:
        Zhang, Liu, Liu: A Langevin-like sampler for discrete distributions. ICML 2022.
        https://arxiv.org/abs/2206.09914

        Pynadath, Bhattacharya, Hariharan, Zhang: Gradient-based discrete sampling with automatic
        cyclical scheduling. NeurIPS 2024. https://arxiv.org/abs/2402.17699

    Example:
        >>> DiscreteLangevin(step_sizes=(1.0, 0.1)).step_sizes
        (1.0, 0.1)
    """

    continuous: Any = "chees"
    num_discrete_steps: int | None = None
    differences: str = "auto"
    step_sizes: Sequence[float] = STEP_SIZES

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_sizes", check_cycle(self.step_sizes))
        if self.num_discrete_steps is not None:
            check_positive(num_discrete_steps=self.num_discrete_steps)
        check_differences(self.differences)

    def bind(self, size: int) -> Informed:
        """Return the kernel's moves of a number of coordinates, with these options."""
        count = self.num_discrete_steps or len(self.step_sizes)
        return partial(step, step_sizes=tuple(self.step_sizes), num_steps=count)


def step(
    key: Array,
    state: GradientState,
    gains: Gains,
    cardinality: Int[Array, " D"],
    *,
    step_sizes: Sequence[float] = STEP_SIZES,
    num_steps: int = 1,
) -> tuple[GradientState, GradientInfo]:
    """Propose changes of all coordinates at once, one proposal after the other.

    Args:
        key: Random key.
        state: State of all chains.
        gains: Log density, and what each value of each coordinate would add, over the batch.
        cardinality: Number of values of each coordinate.
        step_sizes: The cycle of step sizes.
        num_steps: Number of proposals.

    Returns:
        The new state, and what is known of the proposals.

    Cost:
        A call of `gains` for each proposal.

    Example:
        >>> def gains(x):  # three independent spins
        ...     field = jnp.array([1.0, 0.0, -1.0])
        ...     return x @ field, field[:, None] * (jnp.arange(2) - x[..., None])
        >>> state = init(jnp.zeros((500, 3), int), gains)
        >>> state, info = step(random.key(0), state, gains, jnp.full(3, 2), num_steps=30)
        >>> bool(abs(state.position[:, 0].mean() - jax.nn.sigmoid(1.0)) < 0.1)
        True
    """
    batch, dtype = state.log_density.shape, state.log_density.dtype
    cycle = jnp.asarray(step_sizes, dtype)

    def propose(carry: tuple[GradientState, Array, Array], given: Any) -> tuple[Any, None]:
        state, total, count = carry
        key, number = given
        draw_key, accept_key = random.split(key)
        penalty = 0.5 / cycle[number % len(step_sizes)]
        there = _log_proposal(state, cardinality, penalty)
        position = random.categorical(draw_key, there).astype(state.position.dtype)
        proposal = GradientState(position, *gains(position))
        back = _log_proposal(proposal, cardinality, penalty)
        ratio = _of(back, state.position) - _of(there, position)
        differs = (position != state.position).any(-1)
        state, acceptance, accepted = choose(accept_key, state, proposal, ratio)
        return (state, total + acceptance, count + (accepted & differs)), None

    zero = jnp.zeros(batch, dtype)
    numbers = (random.split(key, num_steps), jnp.arange(num_steps))
    (state, total, count), _ = lax.scan(propose, (state, zero, zero), numbers)
    return state, GradientInfo(total / num_steps, count / num_steps)


def _log_proposal(
    state: GradientState, cardinality: Int[Array, " D"], penalty: Array
) -> Float[Array, "*batch D K"]:
    """Return the log probabilities of the values of each coordinate."""
    numbers = jnp.arange(state.gains.shape[-1])
    other = numbers != state.position[..., None]
    scores = jnp.where(other, jnp.clip(state.gains, -jnp.inf, 1e4) / 2.0 - penalty, 0.0)
    known = (numbers < cardinality[:, None]) & ~jnp.isnan(scores)
    return jax.nn.log_softmax(jnp.where(known, scores, -jnp.inf), -1)


def _of(log_probs: Float[Array, "*batch D K"], position: Int[Array, "*batch D"]) -> Array:
    return jnp.take_along_axis(log_probs, position[..., None], -1).sum((-2, -1))
