"""Gibbs with gradients: single changes of discrete coordinates, proposed where they are likely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int

from deepgen_ppl.checks import check_positive
from deepgen_ppl.discrete import check_differences

__all__ = ["GibbsWithGradients", "GradientInfo", "GradientState", "init", "step"]

_MOST_CHANGES = 64

Gains = Callable[[Int[Array, "*batch D"]], tuple[Array, Array]]


@dataclass(frozen=True)
class GibbsWithGradients:
    r"""Changes of one discrete coordinate, proposed by how much they would add to the log density.

    \[ q(i \to k \mid x) \propto e^{d_{ik}(x) / 2}, \qquad
       d_{ik}(x) \approx \log p(x_i \to k, x_{-i}) - \log p(x), \]

    accepted or rejected by Metropolis and Hastings, so that any d leaves the posterior invariant.
    With `differences="gradient"` d is the first-order expansion, one gradient for all changes at
    once (Gibbs with gradients); it needs a program whose density takes real numbers for its
    discrete sites, as arithmetic with Bernoulli draws does and indexing does not. With `"exact"` it
    is the difference itself (a locally balanced proposal). `"auto"` takes the gradient where it
    tells the true differences well at a few points.

    Args:
        continuous: Kernel of the continuous latents given the discrete ones: `"chees"`, `"hmc"`, or
            the options of one.
        num_discrete_steps: Changes proposed for a step of the continuous latents, or for a draw
            where there are none; as many as there are discrete coordinates, at most 64, when None.
        differences: `"gradient"`, `"exact"` or `"auto"`.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        A change takes a gradient of all chains, or with exact differences K - 1 densities for
        each block of coordinates (see `Gibbs`).

    References:
        Grathwohl, Swersky, Hashemi, Duvenaud, Maddison: Oops I took a gradient: scalable sampling
        for discrete distributions. ICML 2021. https://arxiv.org/abs/2102.04509

        Zanella: Informed proposals for local MCMC in discrete spaces. Journal of the American
        Statistical Association 115, 2020. https://arxiv.org/abs/1711.07424

    Example:
        >>> GibbsWithGradients(num_discrete_steps=5).differences
        'auto'
    """

    continuous: Any = "chees"
    num_discrete_steps: int | None = None
    differences: str = "auto"

    def __post_init__(self) -> None:
        if self.num_discrete_steps is not None:
            check_positive(num_discrete_steps=self.num_discrete_steps)
        check_differences(self.differences)

    def bind(self, size: int) -> Informed:
        """Return the kernel's moves of a number of coordinates, with these options."""
        return partial(step, num_steps=self.num_discrete_steps or min(size, _MOST_CHANGES))


class GradientState(NamedTuple):
    """What the next change needs.

    Attributes:
        position: Coordinates of each chain: numbers of values.
        log_density: Log density there.
        gains: What each value of each coordinate would add to it, about.
    """

    position: Int[Array, "*batch D"]
    log_density: Float[Array, "*batch"]
    gains: Float[Array, "*batch D K"]


class GradientInfo(NamedTuple):
    """What diagnostics need.

    Attributes:
        acceptance: Probability of accepting the proposal, its mean over the changes.
        changed: Share of the changes that were accepted.
    """

    acceptance: Float[Array, "*batch"]
    changed: Float[Array, "*batch"]


Informed = Callable[..., tuple[GradientState, GradientInfo]]
"""Moves of the form of `step`: a source of random numbers, the state, its gains, cardinalities."""


def init(position: Int[Array, "*batch D"], gains: Gains) -> GradientState:
    """Return the state of chains at given coordinates.

    Args:
        position: Coordinates of each chain.
        gains: Log density, and what each value of each coordinate would add, over the batch.
    """
    return GradientState(position, *gains(position))


def step(
    key: Array,
    state: GradientState,
    gains: Gains,
    cardinality: Int[Array, " D"],
    *,
    num_steps: int = 1,
) -> tuple[GradientState, GradientInfo]:
    """Propose changes of one coordinate, one after the other.

    Args:
        key: Random key.
        state: State of all chains.
        gains: Log density, and what each value of each coordinate would add, over the batch.
        cardinality: Number of values of each coordinate.
        num_steps: Number of changes.

    Returns:
        The new state, and what is known of the changes.

    Cost:
        A call of `gains` for each change.

    Example:
        >>> def gains(x):  # three independent spins
        ...     field = jnp.array([1.0, 0.0, -1.0])
        ...     return x @ field, field[:, None] * (jnp.arange(2) - x[..., None])
        >>> state = init(jnp.zeros((500, 3), int), gains)
        >>> state, info = step(random.key(0), state, gains, jnp.full(3, 2), num_steps=30)
        >>> bool(abs(state.position[:, 0].mean() - jax.nn.sigmoid(1.0)) < 0.1)
        True
    """
    batch, (size, num_values) = state.log_density.shape, state.gains.shape[-2:]

    def change(carry: tuple[GradientState, Array, Array], key: Array) -> tuple[Any, None]:
        state, total, count = carry
        draw_key, accept_key = random.split(key)
        there = _log_proposal(state, cardinality)
        flat = there.reshape(*batch, size * num_values)
        chosen = random.categorical(draw_key, flat)
        coordinate, value = chosen // num_values, chosen % num_values
        one = jnp.arange(size) == coordinate[..., None]
        before = jnp.where(one, state.position, 0).sum(-1)
        position = jnp.where(one, value[..., None], state.position)
        proposal = GradientState(position, *gains(position))
        back = _log_proposal(proposal, cardinality).reshape(flat.shape)
        returning = coordinate * num_values + before
        ratio = (
            jnp.take_along_axis(back, returning[..., None], -1)[..., 0]
            - jnp.take_along_axis(flat, chosen[..., None], -1)[..., 0]
        )
        state, acceptance, accepted = choose(accept_key, state, proposal, ratio)
        return (state, total + acceptance, count + accepted), None

    zero = jnp.zeros(batch, state.log_density.dtype)
    (state, total, count), _ = lax.scan(change, (state, zero, zero), random.split(key, num_steps))
    return state, GradientInfo(total / num_steps, count / num_steps)


def choose(
    key: Array, state: GradientState, proposal: GradientState, log_ratio: Float[Array, "*batch"]
) -> tuple[GradientState, Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """Accept or reject proposals by Metropolis and Hastings.

    Args:
        key: Random key.
        state: State of all chains.
        proposal: Where they are to go.
        log_ratio: Log probability of the way back less that of the way there.

    Returns:
        The new state, the probability of acceptance and whether it was accepted.
    """
    ratio = proposal.log_density - state.log_density + log_ratio
    acceptance = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(ratio), -jnp.inf, ratio), 0.0))
    accepted = random.uniform(key, acceptance.shape, acceptance.dtype) < acceptance
    state = GradientState(
        jnp.where(accepted[..., None], proposal.position, state.position),
        jnp.where(accepted, proposal.log_density, state.log_density),
        jnp.where(accepted[..., None, None], proposal.gains, state.gains),
    )
    return state, acceptance, accepted


def _log_proposal(
    state: GradientState, cardinality: Int[Array, " D"]
) -> Float[Array, "*batch D K"]:
    """Return the log probabilities of all changes; staying where it is is no change."""
    numbers = jnp.arange(state.gains.shape[-1])
    moves = (numbers != state.position[..., None]) & (numbers < cardinality[:, None])
    scores = jnp.where(moves & ~jnp.isnan(state.gains), state.gains / 2.0, -jnp.inf)
    scores = jnp.clip(scores, -jnp.inf, 1e4)
    return scores - jax.nn.logsumexp(scores, axis=(-2, -1), keepdims=True)
