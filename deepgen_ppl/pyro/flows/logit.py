"""The logit layer: data in a box to the real numbers, with its Jacobian."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.layer import About, Context, Layer, Pushed, is_concrete


class Logit(Layer):
    r"""Values of (0, levels) from real ones, as pixels with noise have them.

    \[ x = n\,\frac{\sigma(z) - \alpha}{1 - 2\alpha}, \qquad
       z = \operatorname{logit}\big(\alpha + (1 - 2\alpha)\,x / n\big) \]

    \(\alpha\) keeps the borders finite; both directions count the Jacobian.

    Args:
        shape: number of features, or the shape of an event.
        levels: n, the number of levels: 256 for bytes, 1 for data in the unit cube.
        alpha: \(\alpha\), 0 or more and below one half.

    Raises:
        ValueError: the sizes are no positive numbers; at a call, rows outside of the box.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> Logit(2, levels=16)().inv(torch.tensor([8.0, 8.0])).tolist()
        [0.0, 0.0]
    """

    def __init__(
        self, shape: int | tuple[int, ...], levels: float = 1.0, alpha: float = 0.05
    ) -> None:
        super().__init__()
        self.levels = flow_checks.positive("levels", levels)
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must be at least 0 and below 0.5, got {alpha!r}.")
        self.alpha = float(alpha)
        self.about = About((shape,) if isinstance(shape, int) else tuple(shape))

    def _log_det(self, z: Tensor) -> Tensor:
        size = math.prod(self.event_shape)
        axes = tuple(range(z.dim() - len(self.event_shape), z.dim()))
        slopes = functional.logsigmoid(z) + functional.logsigmoid(-z)
        return slopes.sum(axes) + size * math.log(self.levels / (1.0 - 2.0 * self.alpha))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map real values to the box, with the log determinant."""
        x = self.levels * (torch.sigmoid(z) - self.alpha) / (1.0 - 2.0 * self.alpha)
        return x, self._log_det(z)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map the box to real values, with the log determinant of that map."""
        inside = self.alpha + (1.0 - 2.0 * self.alpha) * x / self.levels
        axes = tuple(range(x.dim() - len(self.event_shape), x.dim()))
        if is_concrete(x):
            within = (
                ((inside > 0) & (inside < 1)).flatten(x.dim() - len(axes)).all(-1).cpu().numpy()
            )
            flow_checks.refuse_outside(within, f"(0, {self.levels:g})")
        z = torch.log(inside) - torch.log1p(-inside)
        return z, -self._log_det(z)
