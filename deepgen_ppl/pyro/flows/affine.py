"""Elementwise affine and additive maps, whose parameters a network gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import flow_checks


def soft_clamp(value: Tensor, bound: float) -> Tensor:
    r"""Return \(v / (1 + |v| / b)\), between -b and b, which is v to first order at zero."""
    return value / torch.abs(value).div_(bound).add_(1.0)  # in place on what abs has just made


@dataclass(frozen=True)
class Affine:
    r"""Scale and shift, \( y = x\,e^{s} + t \), with log scales clamped softly to \(\pm b\).

    Args:
        bound: largest absolute log scale b.

    Raises:
        ValueError: the bound is not positive.

    Example:
        >>> Affine().push(torch.ones(2), torch.zeros(2, 2))[0].tolist()
        [1.0, 1.0]
    """

    bound: float = 2.0

    def __post_init__(self) -> None:
        flow_checks.positive("bound", self.bound)

    @property
    def size(self) -> int:
        """Parameters of each feature: log scale and shift."""
        return 2

    def push(
        self, x: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch 2 D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map x to y, with the log derivative."""
        raw, shift = params.unbind(-2)
        log_scale = soft_clamp(raw, self.bound)
        return torch.addcmul(shift, x, torch.exp(log_scale)), log_scale

    def pull(
        self, y: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch 2 D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        raw, shift = params.unbind(-2)
        log_rate = -soft_clamp(raw, self.bound)
        return (y - shift) * torch.exp(log_rate), log_rate


@dataclass(frozen=True)
class Additive:
    r"""A shift, \( y = x + t \), which keeps volumes.

    Example:
        >>> Additive().pull(torch.ones(2), torch.ones(1, 2))[0].tolist()
        [0.0, 0.0]
    """

    @property
    def size(self) -> int:
        """Parameters of each feature: the shift."""
        return 1

    def push(
        self, x: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch 1 D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map x to y, with the log derivative."""
        return x + params[..., 0, :], torch.zeros_like(x)

    def pull(
        self, y: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch 1 D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        return y - params[..., 0, :], torch.zeros_like(y)
