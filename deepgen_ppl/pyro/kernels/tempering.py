"""Parallel tempering: chains on a ladder from the prior to the posterior that swap their places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import checks, ladders

_SHARE = 0.02  # least weight of a step in running means, and of the ladder they ask for


@dataclass(frozen=True)
class ParallelTempering:
    r"""Chains at several temperatures, the hottest at the prior, that propose to swap places.

    \[ U_\beta(z) = -(1 - \beta) \log q(z) - \beta \log p(x, z), \qquad
       0 = \beta_0 < \dots < \beta_{T-1} = 1, \]

    with q the prior. After each step neighbours swap with probability
    \(\min(1, e^{(\beta_{t+1} - \beta_t)(\ell_t - \ell_{t+1})})\), \(\ell = \log p(x, z) - \log
    q(z)\), even and odd pairs in turn. The prior is drawn from exactly, so that what comes down the
    ladder may come from any mode. During warm-up the ladder is moved until all pairs reject equally
    often. Only draws of the posterior are kept.

    Args:
        kernel: The kernel that moves the chains: `"chees"`, `"mala"`, `"rwm"`, or `"gibbs"`, which
            draws the discrete latents too, or its options.
        num_temperatures: Number T of temperatures.

    Raises:
        ValueError: Fewer than two temperatures.

    Cost:
        T times that of the kernel, and one more gradient a step.

    References:
        Syed, Bouchard-Côté, Deligiannidis, Doucet: Non-reversible parallel tempering: a scalable
        highly parallel MCMC scheme. JRSS B 84(2), 2022. https://arxiv.org/abs/1905.02939

        Swendsen and Wang: Replica Monte Carlo simulation of spin glasses. Physical Review Letters
        57, 1986.

    Example:
        >>> ParallelTempering("mala", num_temperatures=4).num_temperatures
        4
    """

    kernel: Any = "chees"
    num_temperatures: int = 8

    def __post_init__(self) -> None:
        checks.check_positive(num_temperatures=self.num_temperatures)
        if self.num_temperatures < 2:
            raise ValueError(
                f"num_temperatures must be at least 2, got {self.num_temperatures}: one is the "
                "prior's and one the posterior's."
            )


class Turn(NamedTuple):
    """Who swaps with whom.

    Attributes:
        order: Where what stands at each temperature came from.
        rate: Mean acceptance of each pair, 0 where it had no turn.
        active: Whether it had one, as a number.
    """

    order: Int[Tensor, "T chain"]
    rate: Float[Tensor, " pair"]
    active: Float[Tensor, " pair"]


def log_rates(
    ratio: Float[Tensor, "T chain"], betas: Float[Tensor, " T"]
) -> Float[Tensor, "pair chain"]:
    """Return the logarithm of the rates at which neighbours swap on a path of one ratio.

    Args:
        ratio: Log density of the target less that of the reference, where the chains stand.
        betas: Inverse temperatures.
    """
    return (betas[1:] - betas[:-1])[:, None] * (ratio[:-1] - ratio[1:])


def exchange(
    number: int,
    log_rate: Float[Tensor, "pair chain"],
    generator: torch.Generator | None = None,
) -> Turn:
    """Decide which neighbours swap, even pairs at even steps and odd ones at odd steps.

    Args:
        number: Number of the step.
        log_rate: Log density of both chains of a pair in each other's places less that of the pair.
        generator: Source of random numbers, torch's own by default.
    """
    num = len(log_rate) + 1
    rate = torch.nan_to_num(log_rate, nan=-math.inf).clamp(max=0.0).exp()
    active = torch.arange(num - 1, device=rate.device) % 2 == number % 2
    options: dict[str, Any] = {"generator": generator, "dtype": rate.dtype, "device": rate.device}
    swapped = torch.zeros_like(rate, dtype=torch.bool)
    swapped[active] = torch.rand(rate[active].shape, **options) < rate[active]
    none = torch.zeros_like(swapped[:1])
    up, down = torch.cat([swapped, none]).long(), torch.cat([none, swapped]).long()
    turn = active.to(rate)
    order = torch.arange(num, device=rate.device)[:, None] + up - down
    return Turn(order, turn * rate.mean(-1), turn)


class Spacing(NamedTuple):
    """A ladder that follows the rejections step by step, that all neighbours refuse equally often.

    Attributes:
        betas: Inverse temperatures, from 0 to 1.
        rejections: Running mean of how often each pair of neighbours refuses to swap.
        number: Steps done.
    """

    betas: Float[Tensor, " T"]
    rejections: Float[Tensor, " pair"]
    number: Int[Tensor, ""]

    @classmethod
    def first(cls, num_temperatures: int) -> Spacing:
        """Return the ladder before anything is known."""
        betas = torch.as_tensor(ladders.first_betas(num_temperatures)).to(torch.get_default_dtype())
        return cls(betas, torch.full((num_temperatures - 1,), 0.5), torch.tensor(0))

    def after(self, turn: Turn, learning: bool = True) -> Spacing:
        """Return the ladder after a step.

        Args:
            turn: Who swapped.
            learning: Whether temperatures move.
        """
        tries = int(self.number) // 2 + 1  # of each pair, this one among them
        share = max(_SHARE, 1.0 / tries) * turn.active.to(self.betas)
        rejections = self.rejections + share * (1.0 - turn.rate.to(self.betas) - self.rejections)
        asked = ladders.equalised(self.betas.numpy(), rejections.numpy())
        towards = torch.as_tensor(asked).to(self.betas) - self.betas
        return Spacing(self.betas + _SHARE * learning * towards, rejections, self.number + 1)
