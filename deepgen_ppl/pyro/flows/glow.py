"""Layers of images, channels last: squeezing, couplings by convolutions, several scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepgen_ppl import flow_checks, networks
from deepgen_ppl.pyro.flows.actnorm import ActNorm
from deepgen_ppl.pyro.flows.affine import Affine
from deepgen_ppl.pyro.flows.layer import About, Chain, Context, Layer, Pushed, Stack
from deepgen_ppl.pyro.flows.linear import LinearLU
from deepgen_ppl.pyro.nets import as_parameter


def squeeze(x: Float[Tensor, "*batch h w c"]) -> Float[Tensor, "*batch h/2 w/2 4*c"]:
    """Move each 2 x 2 square of an image into the channels.

    Example:
        >>> squeeze(torch.arange(4.0).reshape(2, 2, 1)).tolist()
        [[[0.0, 1.0, 2.0, 3.0]]]
    """
    *batch, h, w, c = x.shape
    x = x.reshape(*batch, h // 2, 2, w // 2, 2, c)
    x = x.movedim(-4, -3)
    return x.reshape(*batch, h // 2, w // 2, 4 * c)


def unsqueeze(x: Float[Tensor, "*batch h w c"]) -> Float[Tensor, "*batch 2*h 2*w c/4"]:
    """Move the channels back into 2 x 2 squares.

    Example:
        >>> unsqueeze(torch.arange(4.0).reshape(1, 1, 4))[..., 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    *batch, h, w, c = x.shape
    x = x.reshape(*batch, h, w, 2, 2, c // 4).movedim(-3, -4)
    return x.reshape(*batch, 2 * h, 2 * w, c // 4)


class ConvNet(nn.Module):
    """Three convolutions of 3 x 3, 1 x 1 and 3 x 3 pixels, with an optional context.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; zero at first.
        channels: hidden channels.
        context: number of context features.
        seed: seed of the initial weights, or a NumPy generator.

    Example:
        >>> ConvNet(1, 2)(torch.ones(5, 4, 4, 1), None).shape
        torch.Size([5, 4, 4, 2])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: int = 64,
        context: int = 0,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        drawn = networks.initial_convolutions(seed, inputs, outputs, channels, context)
        self.weights = nn.ParameterList(map(as_parameter, drawn.weights))
        self.biases = nn.ParameterList(map(as_parameter, drawn.biases))
        found = drawn.from_context
        self.from_context = None if found is None else as_parameter(found)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Return the output image at an image and a context."""
        h = x.reshape(-1, *x.shape[-3:]).movedim(-1, 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = functional.conv2d(h, weight.permute(3, 2, 0, 1), bias, padding=weight.shape[0] // 2)
            if number == 0 and self.from_context is not None and context is not None:
                own = context.expand(*x.shape[:-3], context.shape[-1])
                own = own.reshape(-1, context.shape[-1])
                h = h + (own @ self.from_context)[:, :, None, None]
            h = torch.relu(h) if number < 2 else h
        return h.movedim(1, -1).reshape(*x.shape[:-1], -1)


class ImageCoupling(Layer):
    """Half of the channels stays, and moves the other half by a convolutional network.

    Args:
        shape: height, width and channels, 2 channels or more.
        context: number of context features.
        channels: hidden channels of the network.
        seed: seed of the initial weights, or a NumPy generator; the layer begins as the identity.

    Raises:
        ValueError: fewer than two channels.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> ImageCoupling((2, 2, 4))()(torch.ones(2, 2, 4)).shape
        torch.Size([2, 2, 4])
    """

    def __init__(
        self,
        shape: Sequence[int],
        context: int = 0,
        channels: int = 64,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        height, width, size = (flow_checks.whole("each size in shape", s) for s in shape)
        flow_checks.sizes(size, context, (channels,), 2, "A coupling of channels")
        self.univariate = Affine()
        stay = size // 2
        self.net = ConvNet(stay, 2 * (size - stay), channels, context, seed=seed)
        self.about = About((height, width, size), context)

    def _split(self, value: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        stay = self.event_shape[-1] // 2
        params = self.net(value[..., :stay], context)
        return value[..., :stay], value[..., stay:], params.reshape(*params.shape[:-1], 2, -1)

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        stay, move, params = self._split(z, context)
        moved, log_slope = self.univariate.push(move, params)
        return torch.cat([moved, stay], -1), log_slope.sum((-3, -2, -1))

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        size = self.event_shape[-1]
        moved, stay = x[..., : size - size // 2], x[..., size - size // 2 :]
        _, move, params = self._split(torch.cat([stay, moved], -1), context)
        move, log_slope = self.univariate.pull(move, params)
        return torch.cat([stay, move], -1), log_slope.sum((-3, -2, -1))


class MultiScale(Layer):
    """Steps at half the resolution, then half of the channels goes on to the next scale.

    Args:
        steps: layers of the squeezed image, of shape (h/2, w/2, 4c).
        inner: the next scale, of shape (h/2, w/2, 2c), or None.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> MultiScale(ActNorm((1, 1, 4)))()(torch.ones(2, 2, 1)).shape
        torch.Size([2, 2, 1])
    """

    def __init__(self, steps: Layer, inner: Layer | None = None) -> None:
        super().__init__()
        h, w, c = steps.event_shape
        self.steps, self.inner = steps, inner
        if inner is not None:
            flow_checks.check_event(inner.event_shape, (h, w, c // 2))
        parts = [layer.about for layer in (steps, inner) if layer is not None]
        self.about = About((2 * h, 2 * w, c // 4), max(part.context for part in parts))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        z, log_det = squeeze(z), z.new_zeros(())
        if self.inner is not None:
            stay, move = torch.chunk(z, 2, -1)
            moved, log_det = self.inner.push(move, context)
            z = torch.cat([stay, moved], -1)
        x, own = self.steps.push(z, context)
        return unsqueeze(x), own + log_det

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        z, log_det = self.steps.pull(squeeze(x), context)
        if self.inner is not None:
            stay, move = torch.chunk(z, 2, -1)
            moved, own = self.inner.pull(move, context)
            z, log_det = torch.cat([stay, moved], -1), log_det + own
        return unsqueeze(z), log_det

    def initialise(self, x: Tensor, context: Context = None) -> tuple[Layer, Tensor]:
        """Begin each scale from what the batch is there."""
        steps, z = self.steps.initialise(squeeze(x), context)
        inner = self.inner
        if inner is not None:
            stay, move = torch.chunk(z, 2, -1)
            inner, moved = inner.initialise(move, context)
            z = torch.cat([stay, moved], -1)
        return MultiScale(steps, inner), unsqueeze(z)


def multi_scale(
    shape: tuple[int, int, int],
    scales: int,
    steps: int,
    channels: int,
    context: int,
    rng: np.random.Generator,
) -> Layer:
    """Return the layers of Glow: at each scale, steps of ActNorm, 1x1 convolution and coupling.

    Raises:
        ValueError: height or width cannot be halved so often.

    Example:
        >>> layer = multi_scale((4, 4, 1), 2, 1, 8, 0, np.random.default_rng(0))
        >>> layer.event_shape
        (4, 4, 1)
    """
    h, w, c = shape
    if h % 2 or w % 2:
        raise ValueError(
            f"an image of {h} x {w} pixels cannot be halved. Take fewer scales, or pad it to a "
            "multiple of 2 to the power of scales."
        )
    squeezed = (h // 2, w // 2, 4 * c)
    made = [
        Chain(
            (
                ImageCoupling(squeezed, context, channels, seed=rng),
                LinearLU(squeezed, seed=rng),
                ActNorm(squeezed),
            )
        )
        for _ in range(steps)
    ]
    body: Layer = Stack(made) if steps > 1 else made[0]
    if scales == 1:
        return MultiScale(body)
    inner = multi_scale((h // 2, w // 2, 2 * c), scales - 1, steps, channels, context, rng)
    return MultiScale(body, inner)
