"""Monotone splines of rational quadratic pieces, whose parameters a network gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepgen_ppl import flow_checks

_LEAST = 1e-3  # of widths and heights as fractions of the interval, and of slopes


@dataclass(frozen=True)
class Spline:
    r"""A monotone spline of K rational quadratic pieces on (-b, b), the identity outside.

    Between knots \((x_k, y_k)\) and \((x_{k+1}, y_{k+1})\) with slopes \(d_k, d_{k+1}\), mean
    slope s and \(t = (x - x_k) / (x_{k+1} - x_k)\),

    \[ y = y_k + \frac{(y_{k+1} - y_k)\,(s t^2 + d_k t (1 - t))}
                      {s + (d_{k+1} + d_k - 2 s)\, t (1 - t)}. \]

    Zero parameters give the identity.

    Args:
        bins: number of pieces K.
        bound: half width b of the interval.

    Raises:
        ValueError: fewer than one piece, more than 500, or a bound that is not positive.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows. NeurIPS 2019.
        https://arxiv.org/abs/1906.04032

    Example:
        >>> Spline(bins=4).push(torch.tensor([-0.5, 9.0]), torch.zeros(11, 2))[0].tolist()
        [-0.5, 9.0]
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        flow_checks.whole("bins", self.bins)
        flow_checks.positive("bound", self.bound)
        if self.bins > 500:
            raise ValueError(f"bins must be at most 500, got {self.bins}.")

    @property
    def size(self) -> int:
        """Parameters of each feature: K widths, K heights, K - 1 slopes."""
        return 3 * self.bins - 1

    def push(
        self, x: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch P D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map x to y, with the log derivative."""
        inside, x_in = self._clip(x)
        x0, width, y0, height, left, right = self._piece(x_in, params, 0)
        slope = height / width
        t = (x_in - x0) / width
        both = t * (1.0 - t)
        bottom = slope + (left + right - 2.0 * slope) * both
        y = y0 + height * (slope * t * t + left * both) / bottom
        top = right * t * t + 2.0 * slope * both + left * (1.0 - t) ** 2
        log_slope = torch.log(slope * slope * top / (bottom * bottom))
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def pull(
        self, y: Float[Tensor, "*batch D"], params: Float[Tensor, "*batch P D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        inside, y_in = self._clip(y)
        x0, width, y0, height, left, right = self._piece(y_in, params, 1)
        slope = height / width
        rise = y_in - y0
        bend = left + right - 2.0 * slope
        a = height * (slope - left) + rise * bend
        b = height * left - rise * bend
        c = -slope * rise
        t = 2.0 * c / (-b - torch.sqrt(torch.clamp(b * b - 4.0 * a * c, min=0.0)))
        both = t * (1.0 - t)
        bottom = slope + bend * both
        top = right * t * t + 2.0 * slope * both + left * (1.0 - t) ** 2
        log_slope = torch.log(slope * slope * top / (bottom * bottom))
        return torch.where(inside, x0 + width * t, y), torch.where(inside, -log_slope, 0.0)

    def _clip(self, value: Tensor) -> tuple[Tensor, Tensor]:
        # what is outside gets a point inside, so that its unused branch has a finite gradient
        inside = torch.abs(value) < self.bound
        return inside, torch.where(inside, value, 0.0)

    def _piece(self, value: Tensor, params: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Return start, width, start, height and both slopes of the piece that holds each value."""
        both = params[..., : 2 * self.bins, :]
        both = both.reshape(*params.shape[:-2], 2, self.bins, params.shape[-1])
        least = 2.0 * self.bound * _LEAST
        sizes = least + (2.0 * self.bound - self.bins * least) * torch.softmax(both, dim=-2)
        shift = math.log(math.expm1(1.0 - _LEAST))  # zero parameters give slopes of one
        slopes = _LEAST + functional.softplus(params[..., 2 * self.bins :, :] + shift)
        return _select(axis, -self.bound, value, sizes, slopes)


def _select(
    axis: int, start: float, value: Tensor, sizes: Tensor, slopes: Tensor
) -> tuple[Tensor, ...]:
    """Return the piece that holds each value, by its number."""
    knots = functional.pad(sizes[..., :-1, :].cumsum(-2), (0, 0, 1, 0)) + start
    slopes = functional.pad(slopes, (0, 0, 1, 1), value=1.0)
    index = (value[..., None, :] >= knots[..., axis, 1:, :]).sum(-2, keepdim=True)
    pair = index[..., None, :, :].expand(*sizes.shape[:-3], 2, *index.shape[-2:])
    starts, found = knots.gather(-2, pair).squeeze(-2), sizes.gather(-2, pair).squeeze(-2)
    ends = slopes.gather(-2, torch.cat([index, index + 1], -2))
    return (
        starts[..., 0, :], found[..., 0, :], starts[..., 1, :], found[..., 1, :],
        ends[..., 0, :], ends[..., 1, :],
    )  # fmt: skip
