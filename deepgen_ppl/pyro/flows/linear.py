"""Linear layers: a matrix by its LU factors (1x1 convolutions too), Householder reflections."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.linalg import solve_triangular

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.pyro.nets import as_parameter


class LinearLU(Layer):
    r"""A learned matrix by its factors, \( x = P L U z + b \), with \(\log|\det| = \sum s_i\).

    L is lower triangular with ones, U upper triangular with the diagonal \(e^{s}\), and P a fixed
    permutation. On images it is the invertible 1x1 convolution of the channels.

    Args:
        features: number of features, or the shape (height, width, channels) of an image.
        permute: whether P is a random permutation rather than the identity.
        seed: seed of the permutation, or a NumPy generator.

    Cost:
        A product of D^2 operations to push, and two triangular solutions to pull.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> LinearLU(2, permute=False)()(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """

    order: Tensor

    def __init__(
        self,
        features: int | tuple[int, ...],
        *,
        permute: bool = True,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        shape = (features,) if isinstance(features, int) else tuple(features)
        size = flow_checks.whole("features", shape[-1])
        self.lower = as_parameter(np.zeros((size, size)))
        self.upper = as_parameter(np.zeros((size, size)))
        self.log_scale = as_parameter(np.zeros(size))
        self.shift = as_parameter(np.zeros(size))
        order = flow_checks.permutation(size if permute else tuple(range(size)), seed)
        self.register_buffer("order", torch.tensor(order))
        self.about = About(shape)

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = torch.tril(self.lower, -1) + torch.eye(len(self.shift)).to(self.shift)
        return lower, torch.triu(self.upper, 1) + torch.diag(torch.exp(self.log_scale))

    def _log_det(self, value: Tensor) -> Tensor:
        repeats = int(np.prod(self.event_shape[:-1]))
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return (repeats * self.log_scale.sum()).expand(batch)

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        lower, upper = self._factors()
        x = z @ (lower @ upper).mT
        return x[..., self.order] + self.shift, self._log_det(z)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        lower, upper = self._factors()
        flat = (x - self.shift)[..., torch.argsort(self.order)]
        flat = flat.reshape(-1, x.shape[-1]).mT
        half = solve_triangular(lower, flat, upper=False, unitriangular=True)
        return solve_triangular(upper, half, upper=True).mT.reshape(x.shape), -self._log_det(x)


class Householder(Layer):
    r"""Learned reflections, \( x = H_1 \cdots H_K z \), an orthogonal matrix.

    \[ H_k = I - 2\, v_k v_k^\top / |v_k|^2 \]

    Args:
        features: number of features.
        reflections: number of reflections K.
        seed: seed of the vectors, or a NumPy generator.

    Cost:
        K products of D operations in both directions.

    References:
        Tomczak, Welling: Improving variational auto-encoders using Householder flow. 2016.
        https://arxiv.org/abs/1611.09630

    Example:
        >>> x = Householder(3)()(torch.ones(3))
        >>> bool(abs(torch.sum(x**2) - 3.0) < 1e-5)
        True
    """

    def __init__(
        self, features: int, *, reflections: int = 4, seed: int | np.random.Generator = 0
    ) -> None:
        super().__init__()
        flow_checks.whole("features", features)
        flow_checks.whole("reflections", reflections)
        drawn = np.random.default_rng(seed).normal(size=(reflections, features))
        self.vectors, self.about = as_parameter(drawn), About((features,))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Reflect, the last vector first."""
        return reflect(self.vectors.flip(0), z), z.new_zeros(z.shape[:-1])

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Reflect, the first vector first."""
        return reflect(self.vectors, x), x.new_zeros(x.shape[:-1])


def reflect(vectors: Tensor, value: Tensor) -> Tensor:
    """Reflect values at the planes of some vectors, of shape (*batch, K, D), one by one."""
    for k in range(vectors.shape[-2]):
        v = vectors[..., k, :]
        v = v / torch.sqrt(torch.sum(v**2, -1, keepdim=True))
        value = value - 2.0 * torch.sum(v * value, -1, keepdim=True) * v
    return value
