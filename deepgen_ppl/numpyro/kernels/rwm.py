"""Random-walk Metropolis on a batch of chains, preconditioned by the root of a covariance."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import random
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from deepgen_ppl import checks
from deepgen_ppl.numpyro.kernels.adaptation import Step, preconditioned
from deepgen_ppl.numpyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad, choose, push

__all__ = ["RWM", "step"]


@dataclass(frozen=True)
class RWM:
    r"""Random-walk Metropolis: normal steps of the target's own shape, without gradients.

    \[ z' = z + \epsilon L u, \qquad u \sim N(0, I), \]

    accepted with probability \(\min(1, e^{U(z) - U(z')})\).

    Args:
        target_accept_prob: Mean acceptance rate that the step size is adapted to.
        step_size: The first step size to try.
        dense: Whether the whole covariance L L^T is estimated, or its diagonal; the whole of up to
            256 latent numbers when None.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        One density of all chains a step, and no gradient.

    References:
        Haario, Saksman, Tamminen: An adaptive Metropolis algorithm. Bernoulli 7(2), 2001.

        Roberts, Gelman, Gilks: Weak convergence and optimal scaling of random walk Metropolis
        algorithms. Annals of Applied Probability 7(1), 1997.

    Example:
        >>> RWM().target_accept_prob
        0.234
    """

    target_accept_prob: float = 0.234
    step_size: float = 0.1
    dense: bool | None = None

    def __post_init__(self) -> None:
        checks.check_target(self.target_accept_prob)
        checks.check_positive(step_size=self.step_size)

    def bind(self) -> Step:
        """Return the kernel's step with these options."""
        return preconditioned(step)


def step(
    key: Array,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: ArrayLike,
    root: Float[Array, " D"] | Float[Array, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    """Move every chain by one Metropolis step; the gradient is not used.

    Args:
        key: Random key.
        state: State of all chains; its gradient stays as it was.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of the step, a number or one for each chain `(*batch,)`.
        root: L with L L^T the estimated covariance; the identity when None.

    Returns:
        The new state, and what is known of the step.

    Cost:
        One potential energy of the whole batch; what a compiler can drop of the gradient is free.
    """
    move_key, accept_key = random.split(key)
    velocity = random.normal(move_key, state.position.shape, state.position.dtype)
    size = jnp.asarray(step_size, state.position.dtype)[..., None]
    position = state.position + size * push(root, velocity)
    proposal = HMCState(position, value_and_grad(position)[0], state.gradient)
    error = proposal.potential - state.potential
    bad = jnp.isnan(error)
    acceptance = jnp.where(bad, 0.0, jnp.exp(jnp.minimum(-error, 0.0)))
    accepted = random.uniform(accept_key, acceptance.shape, acceptance.dtype) < acceptance
    none, one = jnp.zeros_like(bad), jnp.asarray(1)
    energy = state.potential
    info = HMCInfo(acceptance, accepted, energy, none, one, position, velocity)
    return choose(accepted, proposal, state), info
