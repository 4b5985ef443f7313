"""Scale and shift of each feature: learned (ActNorm), or fixed from data (Standardise)."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.pyro.nets import as_parameter

_LEAST = 1e-6


class ActNorm(Layer):
    r"""A learned scale and shift, \( x = z\,e^{s} + t \), of each feature or channel of images.

    `dg.flows.initialised` sets both from a batch, so that the batch has mean 0 and deviation 1 at
    the base's side.

    Args:
        features: number of features, or the shape (height, width, channels) of an image.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> ActNorm(2)()(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, features: int | tuple[int, ...]) -> None:
        super().__init__()
        shape = (features,) if isinstance(features, int) else tuple(features)
        flow_checks.sizes(shape[-1], 0, ())
        self.log_scale = as_parameter(np.zeros(shape[-1]))
        self.shift = as_parameter(np.zeros(shape[-1]))
        self.about = About(shape)

    def _log_det(self, value: Tensor) -> Tensor:
        repeats = int(np.prod(self.event_shape[:-1]))
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return (repeats * self.log_scale.sum()).expand(batch)

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        return z * self.log_scale.exp() + self.shift, self._log_det(z)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        return (x - self.shift) * torch.exp(-self.log_scale), -self._log_det(x)

    def initialise(self, x: Tensor, context: Context = None) -> tuple[Layer, Tensor]:
        """Begin with mean and deviation of the batch."""
        axes = tuple(range(x.dim() - 1))
        begun = copy.deepcopy(self)
        with torch.no_grad():
            begun.log_scale.copy_(torch.log(x.std(axes, correction=0) + _LEAST))
            begun.shift.copy_(x.mean(axes))
        return begun, begun.pull(x)[0]


class Standardise(Layer):
    r"""A fixed scale and shift, \( x = z\,s + m \), fitted from data and never learned.

    Args:
        mean: m of each feature.
        scale: s of each feature.

    Raises:
        ValueError: a scale is not positive.

    Example:
        >>> Standardise(np.zeros(2), np.full(2, 3.0))()(torch.ones(2)).tolist()
        [3.0, 3.0]
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        mean, scale = flow_checks.mean_and_scale(mean, scale)
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype))
        self.register_buffer("scale", torch.tensor(scale, dtype=dtype))
        self.about = About(mean.shape)

    @classmethod
    def of(cls, x: np.ndarray, event_dim: int = 1) -> Standardise:
        """Return the layer with mean and deviation of data, over all but the event axes."""
        axes = tuple(range(x.ndim - event_dim))
        return cls(x.mean(axes), x.std(axes))

    def _log_det(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return torch.log(self.scale).sum().expand(batch)

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        return z * self.scale + self.mean, self._log_det(z)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        return (x - self.mean) / self.scale, -self._log_det(x)
