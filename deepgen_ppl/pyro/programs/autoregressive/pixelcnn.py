"""The gated PixelCNN: masked convolutions over the rows above and the pixels to the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output


class PixelCNN(Autoregressive):
    r"""Convolutions of an image that see the pixels before only, row by row, without a blind spot.

    A vertical stack v sees the rows above, a horizontal one h the pixels to the left too:

    \[ a = K_v * v, \quad v' = \tanh(a_1 + c A) \odot \sigma(a_2 + c B), \quad
       b = K_h * h + a M, \quad h' = h + R\,[\tanh(b_1 + c C) \odot \sigma(b_2 + c D)] \]

    Masks are shifts: a convolution ends in its own row or column, and the first layer is given the
    image moved down by a row and right by a pixel.

    Args:
        features: height and width of the images.
        output: the family of each conditional; bits when None.
        channels: channels of each stack.
        layers: number of layers.
        first: size of the first convolution, odd.
        kernel: size of the later ones, odd.
        context: number of context features.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a shape that is no height and width, sizes that are no whole numbers or even.
        TypeError: an output that is none.

    Cost:
        One pass for a density. A draw computes the vertical stack once a row and the horizontal one
        once a pixel, from the rows and columns that it keeps: the products of about one pass.

    References:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional image
        generation with PixelCNN decoders. NeurIPS 2016. https://arxiv.org/abs/1606.05328

        Ramachandran et al.: Fast generation for convolutional autoregressive models. 2017.
        https://arxiv.org/abs/1704.06001

    Example:
        >>> PixelCNN((4, 4), channels=8, layers=1)().log_prob(torch.ones(5, 4, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: Sequence[int],
        output: Output | None = None,
        channels: int = 32,
        layers: int = 7,
        first: int = 7,
        kernel: int = 3,
        context: int = 0,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        flow_checks.whole("channels", channels)
        self.layers = flow_checks.whole("layers", layers)
        self.sizes = checks.check_kernel("first", first), checks.check_kernel("kernel", kernel)
        self.about = checks.about(checks.check_image(features), None, context)
        self.output = as_output(output)
        sizes = self.output.inputs, self.output.size, channels, layers, self.sizes, context
        self.weights = arrays(autoregressive_weights.pixelcnn(seed, *sizes))

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        height, width = self.about.event_shape
        x = inputs.reshape(len(inputs), height, width, -1).permute(0, 3, 1, 2)
        v = functional.pad(x, (0, 0, 1, 0))[:, :, :-1]
        h = functional.pad(x, (1, 0, 0, 0))[:, :, :, :-1]
        for number in range(self.layers):
            own = self._layer(number)
            above, beside = given(own, context)
            reach, size = own["vertical"].shape[:2]
            wide = functional.pad(v, (size // 2, size // 2, reach - 1, 0))
            a = convolved(wide, own["vertical"]) + own["vertical_bias"]
            left = functional.pad(h, (reach - 1, 0, 0, 0))
            b = convolved(left, own["horizontal"][None]) + a @ own["across"] + beside
            out = gated(b) @ own["residual"] + own["residual_bias"]
            v = gated(a + above).permute(0, 3, 1, 2)
            h = out.permute(0, 3, 1, 2) + (h if number else 0.0)
        return self._end(h.permute(0, 2, 3, 1)).reshape(len(x), height * width, -1)

    def start(self, rows: int, context: Context) -> Any:
        """Return empty rows and columns that convolutions see, and the context."""
        w, (_, width), (first, kernel) = self.weights, self.about.event_shape, self.sizes
        channels, reach, number = len(w["mix"]), kernel // 2, self.layers - 1

        def zeros(*shape: int) -> Tensor:
            return w["mix"].new_zeros(rows, *shape)

        inputs = self.output.inputs
        return {
            "rows": zeros(first // 2 + 1, width, inputs),
            "pixels": zeros(0, inputs),
            "lines": (zeros(reach, width, channels),) * number,
            "left": (zeros(reach, channels),) * number,
            "row": (zeros(width, 2 * channels),) * self.layers,
            "context": zeros(0) if context is None else context,
        }

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of pixel i; the first one of a row computes the vertical stack."""
        (_, width), margin = self.about.event_shape, self.sizes[0] // 2 + 1
        if i:
            kept = kept | {"pixels": torch.cat([kept["pixels"], before[:, None]], 1)}
        column = i % width
        if column == 0:
            kept = self._begin(kept, i == 0)
        seen = functional.pad(kept["pixels"], (0, 0, margin, 0))[:, column : column + margin]
        h: Any = None
        left = []
        for number in range(self.layers):
            own = self._layer(number)
            if number:
                seen = torch.cat([kept["left"][number - 1], h[:, None]], 1)
                left.append(seen[:, 1:])
            b = torch.tensordot(seen, own["horizontal"], 2) + kept["row"][number][:, column]
            out = gated(b) @ own["residual"] + own["residual_bias"]
            h = out if h is None else out + h
        return self._end(h), kept | {"left": tuple(left)}

    def _begin(self, kept: Any, top: bool) -> Any:
        """Return what is kept with the vertical stack of a new row, and nothing to the left."""
        context = kept["context"] if kept["context"].shape[1] else None
        above, lines, rows = kept["rows"], [], []
        if not top:
            above = torch.cat([above[:, 1:], kept["pixels"][:, None]], 1)
        kept = kept | {"rows": above, "pixels": kept["pixels"][:, :0]}
        for number in range(self.layers):
            own, half = self._layer(number), self.sizes[min(number, 1)] // 2
            of_v, of_h = given(own, context)
            if number:
                above = torch.cat([kept["lines"][number - 1], above], 1)
                lines.append(above[:, 1:])
            wide = functional.pad(above, (0, 0, half, half)).permute(0, 3, 1, 2)
            a = convolved(wide, own["vertical"]) + own["vertical_bias"]
            rows.append((a @ own["across"] + of_h)[:, 0])
            above = gated(a + of_v)
        left = tuple(torch.zeros_like(part) for part in kept["left"])
        return kept | {"lines": tuple(lines), "row": tuple(rows), "left": left}

    def _names(self) -> list[str]:
        first = [name for name in self.weights.keys() if name.startswith("first_")]  # noqa: SIM118
        return [name.removeprefix("first_") for name in first]

    def _layer(self, number: int) -> dict[str, Tensor]:
        if number == 0:
            return {name: self.weights[f"first_{name}"] for name in self._names()}
        return {name: self.weights[name][number - 1] for name in self._names()}

    def _end(self, h: Any) -> Tensor:
        w = self.weights
        mixed = torch.relu(h) @ w["mix"] + w["mix_bias"]
        return torch.relu(mixed) @ w["out"] + w["bias"]


def convolved(
    x: Float[Tensor, "rows inputs height width"], kernel: Tensor
) -> Float[Tensor, "rows height width outputs"]:
    """Return the convolution of images with a kernel, without a margin; channels come last."""
    return functional.conv2d(x, kernel.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)


def gated(a: Tensor) -> Tensor:
    """Return the first half of the channels, gated by the second one."""
    signal, gate = a.chunk(2, -1)
    return torch.tanh(signal) * torch.sigmoid(gate)


def given(own: dict[str, Tensor], context: Context) -> tuple[Any, Tensor]:
    """Return what the context adds to the gates of the vertical and the horizontal stack."""
    bias = own["horizontal_bias"]
    if context is None:
        return 0.0, bias
    above, beside = (context @ own[f"{name}_context"] for name in ("vertical", "horizontal"))
    return above[:, None, None], bias + beside[:, None, None]
