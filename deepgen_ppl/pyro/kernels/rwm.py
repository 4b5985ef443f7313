"""Random-walk Metropolis on a batch of chains, preconditioned by the root of a covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import checks
from deepgen_ppl.pyro.kernels.adaptation import Step, preconditioned
from deepgen_ppl.pyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad, choose, push

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
        One density of all chains a step.

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
    generator: torch.Generator,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: float | Tensor,
    root: Float[Tensor, " D"] | Float[Tensor, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    """Move every chain by one Metropolis step; the gradient is not used.

    Args:
        generator: Source of the random numbers.
        state: State of all chains; its gradient stays as it was.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of the step, a number or one for each chain `(*batch,)`.
        root: L with L L^T the estimated covariance; the identity when None.

    Returns:
        The new state, and what is known of the step.

    Cost:
        One potential energy of the whole batch; its gradient is computed beside it and not used.
    """
    position, shape = state.position, state.potential.shape
    like: dict = {"generator": generator, "dtype": position.dtype, "device": position.device}
    velocity = torch.randn(position.shape, **like)
    size = torch.as_tensor(step_size, dtype=position.dtype, device=position.device).unsqueeze(-1)
    position = position + size * push(root, velocity)
    proposal = HMCState(position, value_and_grad(position)[0], state.gradient)
    error = proposal.potential - state.potential
    acceptance = torch.where(error.isnan(), 0.0, torch.exp((-error).clamp(max=0.0)))
    accepted = torch.rand(shape, **like) < acceptance
    none, energy = torch.zeros_like(accepted), state.potential
    info = HMCInfo(acceptance, accepted, energy, none, 1, position, velocity)
    return choose(accepted, proposal, state), info
