"""Langevin dynamics on a batch of chains: Metropolis-adjusted (MALA), and unadjusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import checks
from deepgen_ppl.pyro.kernels import hmc
from deepgen_ppl.pyro.kernels.adaptation import Step, preconditioned
from deepgen_ppl.pyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad

__all__ = ["MALA", "Langevin", "step"]


@dataclass(frozen=True)
class MALA:
    r"""Metropolis-adjusted Langevin: one gradient step with noise, accepted or rejected.

    \[ z' = z - \tfrac{\epsilon^2}{2} L L^T \nabla U(z) + \epsilon L u, \qquad u \sim N(0, I), \]

    which is Hamiltonian Monte Carlo of one leapfrog step, with the same acceptance.

    Args:
        target_accept_prob: Mean acceptance rate that the step size is adapted to.
        step_size: The first step size to try.
        dense: Whether the whole covariance L L^T is estimated, or its diagonal; the whole of up to
            256 latent numbers when None.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        One gradient of all chains a step.

    References:
        Roberts and Rosenthal: Optimal scaling of discrete approximations to Langevin diffusions.
        JRSS B 60(1), 1998.

    Example:
        >>> MALA().target_accept_prob
        0.574
    """

    target_accept_prob: float = 0.574
    step_size: float = 0.1
    dense: bool | None = None

    def __post_init__(self) -> None:
        checks.check_target(self.target_accept_prob)
        checks.check_positive(step_size=self.step_size)

    def bind(self) -> Step:
        """Return the kernel's step with these options."""
        return preconditioned(hmc.step)


@dataclass(frozen=True)
class Langevin:
    r"""Unadjusted Langevin: the steps of MALA, all of them accepted, so the draws are biased.

    The step size is adapted until the Metropolis test, which is not made, would accept
    `target_accept_prob` of the steps: the closer to 1, the smaller the bias and the slower the
    chains. `diagnose()` says that the draws are biased.

    Args:
        target_accept_prob: Mean rate at which MALA would accept the steps.
        step_size: The first step size to try.
        dense: Whether the whole covariance L L^T is estimated, or its diagonal; the whole of up to
            256 latent numbers when None.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        One gradient of all chains a step.

    References:
        Roberts and Tweedie: Exponential convergence of Langevin distributions and their discrete
        approximations. Bernoulli 2(4), 1996.

    Example:
        >>> Langevin().target_accept_prob
        0.95
    """

    target_accept_prob: float = 0.95
    step_size: float = 0.1
    dense: bool | None = None

    def __post_init__(self) -> None:
        checks.check_target(self.target_accept_prob)
        checks.check_positive(step_size=self.step_size)

    def bind(self) -> Step:
        """Return the kernel's step with these options."""
        return preconditioned(step)


def step(
    generator: torch.Generator,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: float | Tensor,
    root: Float[Tensor, " D"] | Float[Tensor, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    """Move every chain by one unadjusted Langevin step; only what is not finite is refused.

    Args:
        generator: Source of the random numbers.
        state: State of all chains.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of the step.
        root: L with L L^T the estimated covariance; the identity when None.

    Returns:
        The new state, and what is known of the step: its acceptance is the one that MALA would
        have had.

    Cost:
        One gradient of the whole batch.
    """
    position = state.position
    like: dict = {"generator": generator, "dtype": position.dtype, "device": position.device}
    velocity = torch.randn(position.shape, **like)
    end, info = hmc.trajectory(velocity, state, value_and_grad, step_size=step_size, root=root)
    return hmc.choose(info.accepted, end, state), info
