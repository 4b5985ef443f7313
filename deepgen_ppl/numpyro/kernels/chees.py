"""HMC for many chains at once, its trajectory length chosen across chains and jittered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from deepgen_ppl import checks
from deepgen_ppl.numpyro.kernels import hmc
from deepgen_ppl.numpyro.kernels.adaptation import Controls, Step
from deepgen_ppl.numpyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad

__all__ = ["ChEES", "step"]


@dataclass(frozen=True)
class ChEES:
    """HMC whose step size, covariance and trajectory length are learnt across all chains.

    The length is the one of `trajectory_lengths` whose steps are worth most effective draws, of the
    standardised latents and of their squares, for a gradient; each step has it times a jitter from
    1/2 to 3/2. Lengths are in standard deviations of the target: a quarter of a turn is 1.57.

    Args:
        target_accept_prob: Mean acceptance rate that the step size is adapted to.
        trajectory_lengths: Lengths to choose from during warm-up.
        max_num_steps: Most leapfrog steps of a trajectory.
        step_size: The first step size to try.
        dense: Whether the whole covariance is estimated, or its diagonal; the whole of up to 256
            latent numbers when None.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        A gradient of all chains for each leapfrog step; with a whole covariance two products with
        a matrix of D x D numbers beside it.

    References:
        Hoffman, Radul, Sountsov: An adaptive-MCMC scheme for setting trajectory lengths in
        Hamiltonian Monte Carlo. AISTATS 2021. https://proceedings.mlr.press/v130/hoffman21a.html

    Example:
        >>> ChEES(target_accept_prob=0.9).max_num_steps
        64
    """

    target_accept_prob: float = 0.8
    trajectory_lengths: Sequence[float] = (1.0, 1.5, 2.2, 3.2, 4.5)
    max_num_steps: int = 64
    step_size: float = 0.1
    dense: bool | None = None

    def __post_init__(self) -> None:
        lengths = tuple(float(length) for length in self.trajectory_lengths)
        object.__setattr__(self, "trajectory_lengths", lengths)
        checks.check_target(self.target_accept_prob)
        checks.check_positive(max_num_steps=self.max_num_steps, step_size=self.step_size)
        checks.check_positive(**{f"trajectory_lengths[{i}]": x for i, x in enumerate(lengths)})
        if not lengths:
            raise ValueError("trajectory_lengths is empty: pass at least one length, such as 1.5.")

    def bind(self) -> Step:
        """Return the kernel's step with these options."""

        def bound(
            key: Array, state: HMCState, value_and_grad: ValueAndGrad, controls: Controls
        ) -> tuple[HMCState, HMCInfo]:
            return step(
                key,
                state,
                value_and_grad,
                step_size=controls.step_size,
                trajectory_length=controls.trajectory_length * (0.5 + controls.jitter),
                max_num_steps=self.max_num_steps,
                root=controls.root,
            )

        return bound


def step(
    key: Array,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: ArrayLike,
    trajectory_length: ArrayLike,
    max_num_steps: int = 64,
    root: Float[Array, " D"] | Float[Array, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    """Move every chain along a trajectory of a given length, the same for all of them.

    Args:
        key: Random key.
        state: State of all chains.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of a leapfrog step, a number or one for each chain `(*batch,)`: then their
            mean counts the steps.
        trajectory_length: Length of the trajectory; it is rounded up to whole steps.
        max_num_steps: Most leapfrog steps.
        root: L with L L^T the estimated covariance; the identity when None.

    Returns:
        The new state, and what is known of the step.
    """
    count = jnp.ceil(trajectory_length / jnp.maximum(jnp.mean(jnp.asarray(step_size)), 1e-30))
    count = jnp.clip(count, 1, max_num_steps).astype(jnp.int32)
    return hmc.step(key, state, value_and_grad, step_size=step_size, num_steps=count, root=root)
